//! Compares rows with the genome that they are said to come from: every segment is decoded, turned to the forward strand and
//! compared base by base. Memory: a row; the genome lies in an unnamed temporary file, a byte a base.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;

use super::{Error, Segment, ShardFile, ShardSet};
use crate::fs;
use crate::sequence::alphabet::{is_base, normalize};
use crate::sequence::complement::reverse_complement;
use crate::source::fasta::{Event, Reader};
use crate::tokenizer::Tokenizer;
use crate::units::Strand;

/// Sequences to compare with, by record.
#[derive(Debug)]
pub struct Genome {
    file: PathBuf,
    /// The source whose rows it is for; none for every source.
    source: Option<String>,
    bases: Mmap,
    records: HashMap<String, std::ops::Range<usize>>,
}

impl Genome {
    /// Reads a FASTA file; only segments of `source`, if one is named, are compared with it.
    pub fn open(file: &Path, source: Option<String>) -> Result<Self, Error> {
        let mut spill = tempfile::tempfile().map_err(fs::error("create a temporary file for", file))?;
        let records = read(file, &mut spill)?;
        // SAFETY: the file has no name, so that nobody else can change it, and nothing writes to it any more.
        let bases = unsafe { Mmap::map(&spill) }.map_err(fs::error("map the bases of", file))?;
        Ok(Self { file: file.to_owned(), source, bases, records })
    }

    fn is_for(&self, segment: &Segment) -> bool {
        self.source.as_ref().is_none_or(|source| **source == *segment.source)
    }

    fn bases(&self, segment: &Segment) -> Option<&[u8]> {
        let record = &self.bases[self.records.get(&*segment.record)?.clone()];
        record.get(usize::try_from(segment.start).ok()?..usize::try_from(segment.end).ok()?)
    }
}

/// Writes the bases of all records one after the other, in upper case; returns where each record lies.
fn read(file: &Path, out: &mut File) -> Result<HashMap<String, std::ops::Range<usize>>, Error> {
    let mut reader = Reader::open(file)?;
    let (mut records, mut name, mut end) = (HashMap::new(), String::new(), 0);
    while let Some(event) = reader.next_event()? {
        match event {
            Event::Record(header) => name.clone_from(&header.name),
            Event::Bases(bases) => {
                let mut bases = bases.to_vec();
                normalize(&mut bases);
                out.write_all(&bases).map_err(fs::error("keep the bases of", file))?;
                end += bases.len();
            }
            Event::End { bases } => {
                let length = usize::try_from(bases).unwrap_or(usize::MAX);
                records.insert(std::mem::take(&mut name), end - length..end);
            }
        }
    }
    Ok(records)
}

/// What was compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Rows with at least one segment compared.
    pub rows: u64,
    /// Bases that are the genome's.
    pub bases: u64,
    /// Bases of sources and records that no FASTA file was given for, by source.
    pub left_out: BTreeMap<String, u64>,
}

impl Compared {
    fn merge(mut self, other: Self) -> Self {
        self.rows += other.rows;
        self.bases += other.bases;
        for (source, bases) in other.left_out {
            *self.left_out.entry(source).or_default() += bases;
        }
        self
    }
}

/// Compares every row of a set with `genomes`. A code that stands for several bases may have become an N (the cleaning
/// stage's policy); nothing else may differ. Segments of a source that no genome is for are counted, not compared.
///
/// # Errors
/// The first row that differs, with file, offset, row and base.
pub fn compare(set: &ShardSet, genomes: &[Genome]) -> Result<Compared, Error> {
    let tokenizer = set.tokenizer()?;
    let files: Vec<&ShardFile> = set.files().collect();
    let compare = Compare { set, genomes, tokenizer: tokenizer.as_ref() };
    let parts = files.par_iter().map(|file| compare.file(file)).collect::<Result<Vec<_>, Error>>()?;
    let all = parts.into_iter().fold(Compared::default(), Compared::merge);
    if all.bases == 0 {
        let names: Vec<String> =
            genomes.iter().map(|genome| format!("`{}`", genome.file.display())).collect();
        let reason = format!("no row comes from a record of {}", names.join(", "));
        return Err(Error::NotShards { path: set.folder.clone(), reason });
    }
    Ok(all)
}

struct Compare<'a> {
    set: &'a ShardSet,
    genomes: &'a [Genome],
    tokenizer: &'a dyn Tokenizer,
}

impl Compare<'_> {
    fn file(&self, file: &ShardFile) -> Result<Compared, Error> {
        let rows = self.set.rows_of(std::slice::from_ref(file))?;
        let mut compared = Compared::default();
        self.set.for_each_row(file, |row, segments| {
            let tokens = if row < rows.len() { rows.get(row).to_vec() } else { Vec::new() };
            let mut any = false;
            for segment in &segments {
                let same = self.segment(segment, &tokens).map_err(|reason| {
                    let offset = if file.pages.is_empty() { 0 } else { rows.offset(row) };
                    let path = self.set.folder.join(&file.path);
                    Error::Damaged { path, offset, reason: format!("row {row}: {reason}") }
                })?;
                let bases = segment.interval().len();
                any |= same;
                if same {
                    compared.bases += bases;
                } else {
                    *compared.left_out.entry(segment.source.to_string()).or_default() += bases;
                }
            }
            compared.rows += u64::from(any);
            Ok(())
        })?;
        Ok(compared)
    }

    /// Whether there was something to compare with; the error says what differs.
    fn segment(&self, segment: &Segment, row: &[u32]) -> Result<bool, String> {
        let genomes = || self.genomes.iter().filter(|genome| genome.is_for(segment));
        let Some(genome) = genomes().find(|genome| genome.records.contains_key(&*segment.record)) else {
            return match genomes().find(|genome| genome.source.is_some()) {
                Some(genome) => {
                    Err(format!("`{}` has no record `{}`", genome.file.display(), segment.record))
                }
                None => Ok(false),
            };
        };
        let place = format!("{}:{}", segment.record, segment.interval());
        let expected = genome.bases(segment);
        let expected = expected.ok_or_else(|| format!("`{}` has no bases {place}", genome.file.display()))?;
        let found = self.decode(segment, row)?;
        if found.len() != expected.len() {
            return Err(format!("its tokens spell {} bases, {place} has {}", found.len(), expected.len()));
        }
        let differs =
            |(found, expected): (&u8, &u8)| found != expected && (*found != b'N' || is_base(*expected));
        match found.iter().zip(expected).position(differs) {
            None => Ok(true),
            Some(at) => Err(format!(
                "base {}:{} is {} in `{}`, the tokens spell {}",
                segment.record,
                segment.start + at as u64,
                char::from(expected[at]),
                genome.file.display(),
                char::from(found[at])
            )),
        }
    }

    /// The forward bases that a segment's tokens spell; overlapping k-mers that go on from another row begin before it.
    fn decode(&self, segment: &Segment, row: &[u32]) -> Result<Vec<u8>, String> {
        let range = segment.token_start as usize..segment.token_end as usize;
        let tokens = row.get(range).ok_or("a segment lies beyond the row")?;
        let mut bases = Vec::new();
        self.tokenizer.decode_into(tokens, &mut bases).map_err(|error| error.to_string())?;
        let length = usize::try_from(segment.interval().len()).unwrap_or(usize::MAX);
        bases.drain(..bases.len().saturating_sub(length));
        if segment.strand == Strand::Reverse {
            reverse_complement(&mut bases);
        }
        Ok(bases)
    }
}
