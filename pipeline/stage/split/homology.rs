//! Families of homologous contigs: by the k-mers that they share, which partitions gather, or by an installed MMseqs2, which
//! is asked once.
//!
//! Memory: 40 bytes for each k-mer taken and 32 for each interval or block; with MMseqs2 a block of bases, and its own.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifact::Artifact;
use crate::fs;
use crate::observer::Unit;
use crate::sequence::families::{Families, families};
use crate::sequence::index::BYTES;
use crate::sequence::kmer::{MAX_K, Sample};
use crate::stage::command::{self, Process};
use crate::stage::hashes::{read_hashes, write_hashes};
use crate::stage::partition::Finished;
use crate::stage::records::{BLOCK_BASES, SequenceReader, Stretch};
use crate::stage::tiles::{Part, in_pool, labelled_hashes};
use crate::stage::tokenizer::fetch;
use crate::stage::{Error, Task};
use crate::units::{self, Amount, Interval, Strand};

/// What makes a family.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Homology {
    /// Two contigs are linked where they share at least this part of the k-mers of the one with fewer: above 0 to 1,
    /// default 0.1. Sequences that differ in a share d of their bases, and are else alike, share about (1 - d)^k.
    #[serde(default = "default_containment")]
    containment: f64,
    /// Length of the k-mers, in bases: 11 to 32, default 21.
    #[serde(default = "default_k")]
    #[schemars(range(min = 11, max = 32))]
    k: u64,
    /// Memory for k-mers, as bytes or as `2GB`: 40 bytes a base if all are taken, else one in n is, by its hash.
    /// Default 2 GB.
    #[serde(default = "default_memory", deserialize_with = "units::bytes")]
    #[schemars(with = "Amount")]
    memory: Option<u64>,
    /// Has an installed MMseqs2 align the contigs and cluster them, in place of counting k-mers. Default: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mmseqs: Option<Mmseqs>,
}

/// How MMseqs2 is asked: `mmseqs easy-linclust`, on both strands. Contigs of a cluster are a family.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mmseqs {
    /// The program: a name that is looked for in `PATH`, or a path from the folder of the workflow file. Its version is in
    /// the manifest, and does not count for what runs again.
    program: String,
    /// The least identity of two aligned sequences (`--min-seq-id`): 0 to 1, default 0.5.
    identity: f64,
    /// The least part of the shorter one that is aligned (`-c`, with `--cov-mode 1`): above 0 to 1, default 0.8.
    coverage: f64,
    /// More arguments, which come last: `[--kmer-per-seq, "80"]`.
    arguments: Vec<String>,
}

impl Default for Mmseqs {
    fn default() -> Self {
        Self { program: "mmseqs".to_owned(), identity: 0.5, coverage: 0.8, arguments: Vec::new() }
    }
}

const fn default_containment() -> f64 {
    0.1
}

const fn default_k() -> u64 {
    21
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional key")]
const fn default_memory() -> Option<u64> {
    Some(MEMORY)
}

const MEMORY: u64 = 2_000_000_000;

/// Bytes for a k-mer that is taken: the index, and its number among those of its contig.
const KMER_BYTES: u64 = BYTES + 4;

/// The families of sequences that are numbered from 0.
pub(super) struct Found {
    /// For each sequence the number of the first one of its family.
    pub firsts: Vec<u32>,
    /// What the manifest says of the search.
    pub details: Value,
}

impl Homology {
    pub(super) fn problem(&self) -> Option<String> {
        if !(self.containment > 0.0 && self.containment <= 1.0) {
            Some(format!("`containment` is {}, expected above 0 to 1", self.containment))
        } else if !(11..=MAX_K as u64).contains(&self.k) {
            Some(format!("`k` is {}, expected 11 to {MAX_K} bases", self.k))
        } else {
            self.mmseqs.as_ref().and_then(Mmseqs::problem)
        }
    }

    /// Which k-mers of all parts are taken.
    fn sample(&self, parts: &[Part]) -> Sample {
        let bases = parts.iter().map(|part| part.interval.len()).sum();
        Sample::within(self.memory.unwrap_or(MEMORY), bases, KMER_BYTES)
    }

    /// Writes the k-mers of a partition's `own` parts, each once, with their labels. Memory: 16 bytes for each.
    pub(super) fn gather(
        &self,
        task: &Task,
        sequence: &Artifact,
        own: &[Part],
        parts: &[Part],
    ) -> Result<(), Error> {
        let k = usize::try_from(self.k).unwrap_or(MAX_K);
        let entries = labelled_hashes(task, sequence, own.iter().copied(), k, self.sample(parts))?;
        write_hashes(task, entries)
    }

    /// Finds the families of `sequences`, each of which is the parts with its number as their label, by the k-mers that
    /// partitions gathered.
    pub(super) fn find(
        &self,
        task: &Task,
        parts: &[Part],
        sequences: usize,
        gathered: &mut dyn Iterator<Item = Result<Finished, Error>>,
    ) -> Result<Found, Error> {
        let mut entries = Vec::new();
        for partition in gathered {
            read_hashes(&partition?, &mut entries)?;
            task.check()?;
        }
        let firsts = in_pool(task, || families(sequences, entries, self.containment))?;
        let firsts = firsts.map_err(|error| {
            let reason = format!("{error}; ask for less `memory`");
            Error::Config { key: "homology", reason }
        })?;
        Ok(Found { firsts, details: json!({ "one_kmer_in": self.sample(parts).scale() }) })
    }
}

impl Mmseqs {
    fn problem(&self) -> Option<String> {
        if !(0.0..=1.0).contains(&self.identity) {
            Some(format!("`mmseqs.identity` is {}, expected 0 to 1", self.identity))
        } else if !(self.coverage > 0.0 && self.coverage <= 1.0) {
            Some(format!("`mmseqs.coverage` is {}, expected above 0 to 1", self.coverage))
        } else {
            self.program.is_empty().then(|| "`mmseqs.program` is empty".to_owned())
        }
    }

    /// Finds the families of `sequences`, each of which is the parts with its number as their label.
    pub(super) fn find(
        &self,
        task: &Task,
        sequence: &Artifact,
        parts: &[Part],
        sequences: usize,
    ) -> Result<Found, Error> {
        // Beside the artifact's files, on the same disk; what MMseqs2 writes is some ten times as large.
        let folder = tempfile::Builder::new().prefix("mmseqs-").tempdir_in(task.out);
        let folder = folder.map_err(fs::error("create a folder in", task.out))?;
        write_fasta(task, sequence, parts, &folder.path().join("contigs.fa"))?;
        let threads = task.threads.to_string();
        let (identity, coverage) = (self.identity.to_string(), self.coverage.to_string());
        let options = ["--min-seq-id", &identity, "-c", &coverage, "--cov-mode", "1", "--threads", &threads];
        let names = ["contigs.fa", "found", "tmp"].map(|name| folder.path().join(name).display().to_string());
        let mut arguments = vec!["easy-linclust".to_owned()];
        arguments.extend(names);
        arguments.extend(options.map(str::to_owned));
        arguments.extend(self.arguments.iter().cloned());
        self.call(task, folder.path(), arguments)?;
        let firsts = read_clusters(&folder.path().join("found_cluster.tsv"), sequences)?;
        self.call(task, folder.path(), vec!["version".to_owned()])?;
        let log = folder.path().join(command::LOGS[0]);
        let version = std::fs::read_to_string(&log).map_err(fs::error("read", &log))?;
        Ok(Found { firsts, details: json!({ "mmseqs": version.trim() }) })
    }

    fn call(&self, task: &Task, out: &Path, mut arguments: Vec<String>) -> Result<(), Error> {
        arguments.insert(0, self.program.clone());
        Process { arguments: &arguments, variables: Vec::new(), folder: task.base, out }.run(task.stop)
    }
}

/// Writes each part as a record, which is named after its label.
fn write_fasta(task: &Task, sequence: &Artifact, parts: &[Part], path: &Path) -> Result<(), Error> {
    let Some(first) = parts.first() else { return Ok(fs::create(path).map(drop)?) };
    let mut reader = SequenceReader::open_at(sequence, first.record, first.interval.start)?;
    let mut file = BufWriter::new(fs::create(path)?);
    let (mut bases, mut done) = (Vec::new(), 0);
    for (number, part) in parts.iter().enumerate() {
        writeln!(file, ">{}_{number}", part.label).map_err(fs::error("write", path))?;
        for start in (part.interval.start..part.interval.end).step_by(BLOCK_BASES) {
            let interval = Interval::new(start, part.interval.end.min(start + BLOCK_BASES as u64));
            let stretch =
                Stretch { record: part.record, interval, strand: Strand::Forward, split: String::new() };
            fetch(&mut reader, &stretch, sequence, &mut bases)?;
            file.write_all(&bases).map_err(fs::error("write", path))?;
        }
        writeln!(file).map_err(fs::error("write", path))?;
        done += part.interval.len();
        task.progress(done, None, Unit::Bases);
        task.check()?;
    }
    Ok(file.flush().map_err(fs::error("write", path))?)
}

/// The families of clusters: pairs of a representative and a member, by the names that [`write_fasta`] gives.
fn read_clusters(path: &Path, sequences: usize) -> Result<Vec<u32>, Error> {
    let mut families = Families::new(sequences);
    for (line, text) in (1..).zip(BufReader::new(fs::open(path)?).lines()) {
        let text = text.map_err(fs::error("read", path))?;
        let label = |name: &str| name.split_once('_')?.0.parse::<u32>().ok();
        let pair = text.split_once('\t').and_then(|(first, member)| Some((label(first)?, label(member)?)));
        let pair = pair.filter(|(first, member)| (*first.max(member) as usize) < sequences);
        let (first, member) = pair.ok_or_else(|| {
            let reason = format!(
                "`mmseqs` wrote `{text}` in line {line} of its clusters, expected the names of two sequences"
            );
            Error::Config { key: "homology", reason }
        })?;
        families.join(first, member);
    }
    Ok(families.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_families_whatever_the_number_of_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("found.tsv");
        for (text, expected) in [
            ("0_0\t0_0\n3_1\t1_4\n3_1\t3_1\n2_9\t2_9\n", Ok([0, 1, 2, 1])),
            // A contig of two parts that are in two clusters links both.
            ("0_0\t1_1\n2_0\t1_2\n3_3\t3_3\n", Ok([0, 0, 0, 3])),
            ("", Ok([0, 1, 2, 3])),
            ("0_0\t0_0\n0_0\t4_0\n", Err("wrote `0_0\t4_0` in line 2")),
            ("0_0 1_0\n", Err("wrote `0_0 1_0` in line 1")),
        ] {
            std::fs::write(&path, text).unwrap();
            match (read_clusters(&path, 4), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for (text, expected) in [
            ("{}", None),
            (r#"{"mmseqs": {}}"#, None),
            (r#"{"containment": 0}"#, Some("`containment` is 0, expected above 0 to 1")),
            (r#"{"k": 5}"#, Some("`k` is 5, expected 11 to 32 bases")),
            (r#"{"mmseqs": {"identity": 80}}"#, Some("`mmseqs.identity` is 80, expected 0 to 1")),
            (r#"{"mmseqs": {"coverage": 0}}"#, Some("`mmseqs.coverage` is 0, expected above 0 to 1")),
            (r#"{"mmseqs": {"program": ""}}"#, Some("`mmseqs.program` is empty")),
        ] {
            let homology: Homology = serde_json::from_str(text).unwrap();
            assert_eq!(homology.problem().as_deref(), expected, "{text}");
        }
    }
}
