//! Reads sequence files into records. Memory: a block of bases and the record table (names).

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::records::{BLOCK_BASES, RECORDS, Record, SEQUENCE, SequenceWriter, write_records};
use super::{Error, File, Outcome, Stage, Task, problem, to_json};
use crate::artifact::Counts;
use crate::observer::Unit;
use crate::remote;
use crate::source::{alignment, fasta};

/// What to read.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The files, in the order in which their records are numbered.
    #[schemars(length(min = 1))]
    sources: Vec<Source>,
}

/// One file: `fasta` or `bam`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Source {
    /// What the source is called in provenance; by default the file's name without its endings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// A FASTA file, plain, gzip or bgzip; relative to the workflow file, or an address: `https://host/path`,
    /// `s3://bucket/key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fasta: Option<PathBuf>,
    /// A BAM or SAM file, or its address, whose reads become records on the strand that was sequenced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bam: Option<PathBuf>,
    /// The sha256 of the file at an address, in hexadecimal. What an address has may change, so a run without it
    /// ends with the hash of what is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-fA-F]{64}$"))]
    sha256: Option<String>,
    /// Which reads of a BAM file are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reads: Option<alignment::Options>,
}

impl Source {
    fn path(&self) -> &Path {
        self.fasta.as_deref().or(self.bam.as_deref()).unwrap_or(Path::new(""))
    }

    fn file(&self) -> File {
        let file = File::new(self.path());
        let sha256 = self.sha256.as_deref().and_then(|sha256| remote::hash(sha256).ok());
        File { sha256: sha256.or(file.sha256), ..file }
    }

    fn name(&self) -> String {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let address = self.file().address.map(|address| address.file_name());
        let file = address.or_else(|| name(self.path())).unwrap_or_default();
        let stem = file.split('.').next().unwrap_or_default().to_owned();
        self.name.clone().unwrap_or(stem)
    }

    /// What is wrong with its address or its pin.
    fn problem(&self) -> Option<String> {
        let Some(sha256) = &self.sha256 else { return problem(self.path()) };
        if !remote::is_address(self.path()) {
            return Some(
                "`sha256` goes with an address; files of this machine are hashed as they are".to_owned(),
            );
        }
        let carried = File::new(self.path()).sha256;
        match remote::hash(sha256) {
            Err(reason) => Some(reason),
            Ok(sha256) if carried.as_ref().is_some_and(|carried| *carried != sha256) => {
                Some("its `sha256` is not the one at the end of its address".to_owned())
            }
            Ok(_) => problem(self.path()),
        }
    }
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn files(&self) -> Vec<File> {
        self.sources.iter().map(Source::file).collect()
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.sources.is_empty() {
            problems.push(("sources", "there is none, expected at least one".to_owned()));
        }
        for (i, source) in self.sources.iter().enumerate() {
            if source.fasta.is_some() == source.bam.is_some() {
                problems.push(("sources", format!("source {} needs one of `fasta` and `bam`", i + 1)));
            }
            problems
                .extend(source.problem().map(|problem| ("sources", format!("source {}: {problem}", i + 1))));
            if source.reads.is_some() && source.bam.is_none() {
                problems.push(("sources", format!("source {} has `reads`, which only `bam` takes", i + 1)));
            }
            if self.sources[..i].iter().any(|other| other.name() == source.name()) {
                problems.push((
                    "sources",
                    format!("two sources are called `{}`; give one a `name`", source.name()),
                ));
            }
        }
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let mut ingest = Ingest {
            task,
            records: Vec::new(),
            writer: SequenceWriter::create(&task.out.join(SEQUENCE))?,
            counts: Counts::default(),
            composition: [0; 256],
        };
        let mut sources = Vec::new();
        for source in &self.sources {
            let (first, bases) = (ingest.records.len(), ingest.counts.bases_in);
            ingest.composition = [0; 256];
            ingest.source(source)?;
            let records = &ingest.records[first..];
            sources.push(ingest.describe(source, records, ingest.counts.bases_in - bases));
        }
        ingest.writer.finish()?;
        write_records(&task.out.join(RECORDS), &ingest.records)?;
        let mut counts = ingest.counts;
        counts.set("records", ingest.records.len() as u64);
        let summary = format!("{} records, {} bases", ingest.records.len(), counts.bases_out);
        Ok(Outcome { counts, details: json!({ "sources": sources }), summary, ..Outcome::default() })
    }
}

struct Ingest<'a> {
    task: &'a Task<'a>,
    records: Vec<Record>,
    writer: SequenceWriter,
    counts: Counts,
    /// Bases of the source by their byte.
    composition: [u64; 256],
}

impl Ingest<'_> {
    fn source(&mut self, source: &Source) -> Result<(), Error> {
        let path = self.task.file(source.path());
        if source.fasta.is_some() {
            self.fasta(&path, &source.name())
        } else {
            self.alignment(&path, &source.name(), source.reads.unwrap_or_default())
        }
    }

    fn fasta(&mut self, path: &Path, source: &str) -> Result<(), Error> {
        let mut reader = fasta::Reader::open(path)?.with_block_bases(BLOCK_BASES);
        let mut position = 0;
        while let Some(event) = reader.next_event()? {
            match event {
                fasta::Event::Record(header) => {
                    let (source, name) = (source.to_owned(), header.name.clone());
                    let contig = Some(name.clone());
                    self.records.push(Record { source, name, contig, bases: 0 });
                    position = 0;
                }
                fasta::Event::Bases(bases) => {
                    self.writer.push(self.records.len() as u64 - 1, position, bases)?;
                    position += bases.len() as u64;
                    self.count(bases);
                    self.task.check()?;
                }
                fasta::Event::End { bases } => {
                    self.records.iter_mut().next_back().into_iter().for_each(|record| record.bases = bases);
                }
            }
        }
        Ok(())
    }

    fn alignment(&mut self, path: &Path, source: &str, options: alignment::Options) -> Result<(), Error> {
        let mut reader = alignment::Reader::open(path, options)?;
        while let Some(read) = reader.next_read()? {
            self.records.push(Record {
                source: source.to_owned(),
                name: read.name.to_owned(),
                contig: read.interval.and(read.reference).map(str::to_owned),
                bases: read.bases.len() as u64,
            });
            self.writer.push(self.records.len() as u64 - 1, 0, read.bases)?;
            self.count(read.bases);
            self.task.check()?;
        }
        for (reason, tally) in &reader.counts().skipped {
            self.counts.bases_in += tally.bases;
            let reason = to_json(reason);
            self.counts.drop_bases(&format!("read: {}", reason.as_str().unwrap_or_default()), tally.bases);
        }
        Ok(())
    }

    fn count(&mut self, bases: &[u8]) {
        for base in bases {
            self.composition[usize::from(base.to_ascii_uppercase())] += 1;
        }
        self.counts.bases_in += bases.len() as u64;
        self.counts.bases_out += bases.len() as u64;
        self.task.progress(self.counts.bases_out, None, Unit::Bases);
    }

    /// What the report says of a source.
    fn describe(&self, source: &Source, records: &[Record], bases_read: u64) -> Value {
        let of = |letters: &[u8]| letters.iter().map(|&b| self.composition[usize::from(b)]).sum::<u64>();
        let (gc, acgt) = (of(b"GC"), of(b"ACGTU"));
        let mut lengths: Vec<u64> = records.iter().map(|record| record.bases).collect();
        lengths.sort_unstable();
        let bases: u64 = lengths.iter().sum();
        json!({
            "name": source.name(),
            "format": if source.fasta.is_some() { "FASTA" } else { "BAM" },
            "records": records.len(),
            "bases": bases,
            "bases_read": bases_read,
            "longest": lengths.last(),
            "n50": n50(&lengths, bases),
            "gc": (acgt > 0).then(|| gc as f64 / acgt as f64),
            "ambiguous": bases - acgt,
        })
    }
}

/// Half of the bases lie in records at least this long; `lengths` ascend.
fn n50(lengths: &[u64], bases: u64) -> Option<u64> {
    let mut left = bases;
    lengths.iter().copied().find(|length| {
        left -= length;
        left * 2 < bases
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn n50_weighs_by_bases() {
        for (lengths, expected) in
            [(vec![], None), (vec![7], Some(7)), (vec![1, 1, 2, 4], Some(4)), (vec![2, 3, 4], Some(3))]
        {
            assert_eq!(super::n50(&lengths, lengths.iter().sum()), expected, "{lengths:?}");
        }
    }
}
