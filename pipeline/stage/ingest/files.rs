//! The files of a source, their formats and names.

use std::path::{Path, PathBuf};

use super::{Error, Source};
use crate::remote::is_address;
use crate::source::contigs;
use crate::source::files::{self, Kind, is_several, stem};
use crate::source::samples;
use crate::stage::bare;

/// A file to read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct File {
    /// What its source is called.
    pub name: String,
    /// As the workflow would write it.
    pub path: PathBuf,
    /// The second mates.
    pub mates: Option<PathBuf>,
    pub format: Format,
    pub taxonomy: Option<String>,
    pub weight: Option<f64>,
}

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Contigs(contigs::Format),
    Fastq,
    Alignment,
}

impl Format {
    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Fasta => Self::Contigs(contigs::Format::Fasta),
            Kind::TwoBit => Self::Contigs(contigs::Format::TwoBit),
            Kind::GenBank => Self::Contigs(contigs::Format::GenBank),
            Kind::Fastq => Self::Fastq,
            Kind::Alignment => Self::Alignment,
        }
    }
}

/// Whether a path stands for several files; an address never does.
pub(super) fn several(path: &Path) -> bool {
    !is_address(path) && is_several(path)
}

/// What a source of one file is called; none for several files, which have names of their own.
pub(super) fn name(source: &Source) -> Option<String> {
    let (key, path) = source.path();
    match &source.name {
        Some(name) => Some(name.clone()),
        None if key == "table" || several(path) => None,
        None => Some(stem(&bare(path))),
    }
}

/// The files that a source stands for.
pub(super) fn expand(source: &Source, base: &Path) -> Result<Vec<File>, Error> {
    let (key, path) = source.path();
    let kind = match key {
        "fastq" => Kind::Fastq,
        "bam" | "cram" => Kind::Alignment,
        "two_bit" => Kind::TwoBit,
        "genbank" => Kind::GenBank,
        "table" => return from_table(path, base),
        _ => Kind::Fasta,
    };
    let expand = |path: &Path| {
        if is_address(path) { Ok(vec![path.to_owned()]) } else { files::expand(path, base, kind) }
    };
    let paths = expand(path)?;
    let mates = source.mates.as_deref().map(expand).transpose()?;
    if let Some(mates) = mates.as_ref().filter(|mates| mates.len() != paths.len()) {
        let reason =
            format!("found {} files in `fastq` and {} in `mates`, expected pairs", paths.len(), mates.len());
        return Err(Error::Config { key: "sources", reason });
    }
    let file = |(i, path): (usize, PathBuf)| File {
        name: name(source).unwrap_or_else(|| stem(&bare(&path))),
        mates: mates.as_ref().map(|mates| mates[i].clone()),
        path,
        format: Format::of(kind),
        taxonomy: source.taxonomy.clone(),
        weight: source.weight,
    };
    Ok(paths.into_iter().enumerate().map(file).collect())
}

fn from_table(table: &Path, base: &Path) -> Result<Vec<File>, Error> {
    let there = base.join(table);
    let refused = |line, problem| samples::Error::Line { file: there.clone(), line, problem };
    let mut found = Vec::new();
    for sample in samples::read(&there, table)? {
        let Some(kind) = Kind::of(&sample.path) else {
            let endings: Vec<&str> =
                Kind::ALL.iter().flat_map(|kind| kind.endings().iter().copied()).collect();
            let problem = format!(
                "found `{}`, whose name shows no format; expected an ending of {}",
                sample.path.display(),
                endings.join(", ")
            );
            return Err(refused(sample.line, problem).into());
        };
        if sample.mates.is_some() && kind != Kind::Fastq {
            let problem =
                format!("found `mates` of `{}`, expected them for FASTQ only", sample.path.display());
            return Err(refused(sample.line, problem).into());
        }
        found.push(File {
            name: sample.name.unwrap_or_else(|| stem(&sample.path)),
            path: sample.path,
            mates: sample.mates,
            format: Format::of(kind),
            taxonomy: sample.taxonomy,
            weight: sample.weight,
        });
    }
    Ok(found)
}
