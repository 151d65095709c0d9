//! The files of a source, their formats and names.

use std::path::Path;

use super::{Error, Source};
use crate::remote::is_address;
use crate::source::contigs;
use crate::source::files::{self, Kind, is_several, stem};
use crate::source::samples;
use crate::stage::{Origin, bare};

/// A file to read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct File {
    /// What its source is called.
    pub name: String,
    /// As the workflow would write it.
    pub origin: Origin,
    /// The second mates.
    pub mates: Option<Origin>,
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

/// Whether a path stands for several files; an address never does, nor a file that a stage made.
pub(super) fn several(origin: &Origin) -> bool {
    origin.outside().is_some_and(|path| !is_address(path) && is_several(path))
}

/// What a source of one file is called; none for several files, which have names of their own.
pub(super) fn name(source: &Source) -> Option<String> {
    let (key, origin) = source.origin();
    match &source.name {
        Some(name) => Some(name.clone()),
        None if key == "table" || several(&origin) => None,
        None => Some(stem(&bare(origin.path()))),
    }
}

/// The files that a source stands for.
pub(super) fn expand(source: &Source, base: &Path) -> Result<Vec<File>, Error> {
    let (key, origin) = source.origin();
    let kind = match key {
        "fastq" => Kind::Fastq,
        "bam" | "cram" => Kind::Alignment,
        "two_bit" => Kind::TwoBit,
        "genbank" => Kind::GenBank,
        "table" => return from_table(origin.path(), base),
        _ => Kind::Fasta,
    };
    let expand = |origin: &Origin| match origin.outside().filter(|path| !is_address(path)) {
        Some(path) => {
            let paths = files::expand(path, base, kind)?;
            Ok::<_, Error>(paths.into_iter().map(Origin::Outside).collect())
        }
        None => Ok(vec![origin.clone()]),
    };
    let paths = expand(&origin)?;
    let mates = source.mates.as_ref().map(expand).transpose()?;
    if let Some(mates) = mates.as_ref().filter(|mates| mates.len() != paths.len()) {
        let reason =
            format!("found {} files in `fastq` and {} in `mates`, expected pairs", paths.len(), mates.len());
        return Err(Error::Config { key: "sources", reason });
    }
    let file = |(i, origin): (usize, Origin)| File {
        name: name(source).unwrap_or_else(|| stem(&bare(origin.path()))),
        mates: mates.as_ref().map(|mates| mates[i].clone()),
        origin,
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
            origin: Origin::Outside(sample.path),
            mates: sample.mates.map(Origin::Outside),
            format: Format::of(kind),
            taxonomy: sample.taxonomy,
            weight: sample.weight,
        });
    }
    Ok(found)
}
