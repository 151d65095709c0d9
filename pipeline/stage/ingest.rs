//! Reads sequence files into records, partition by partition: a partition is a file, or several small ones. Memory: a block of bases or a read, the regions (24 bytes each), the record
//! table (names), and a count for each length of records.

mod describe;
mod files;
mod read;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::slice::SliceIndex;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::files::File;
use self::read::{Ingest, LISTED, Skipped};
use super::partition::{self, Bounds, Finished, Made, Partition, Partitioned, Work};
use super::records::{RECORDS, index, read_records, sequence_file, sequence_files, write_records};
use super::{Error, Origin, Outcome, Stage, Task, problem, to_json};
use crate::artifact::{Artifact, Counts, SourceFile};
use crate::source::alignment::{self, consensus};
use crate::source::fastq;
use crate::source::input::STDIN;
use crate::{fs, remote, stage, units};

/// What to read.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The files, in the order in which their records are numbered.
    #[schemars(length(min = 1))]
    sources: Vec<Source>,
    /// What happens to a record that is wrong in itself (no bases, a byte that is no base, a name that was there before,
    /// qualities of another number): `fail` (default), or `skip`: it is left out, counted, and listed in the manifest.
    /// Damage after which no next record can be found always fails. FASTA and GenBank files are then read twice.
    #[serde(default)]
    on_bad_record: OnBadRecord,
    /// Bytes of a partition, the part of the work that is done at a time and kept when the run ends early: a file, or
    /// several small ones. The bases lie in a file for each. Default 256MB.
    #[serde(default = "partition::default_size", deserialize_with = "units::bytes")]
    #[schemars(with = "units::Amount")]
    partition: Option<u64>,
}

/// What happens to a record that is wrong in itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnBadRecord {
    /// The run fails.
    #[default]
    Fail,
    /// The record is left out.
    Skip,
}

/// One source: a file, the files that a pattern (`*`, `?`, `[`) fits, those of a folder (`genomes/`), or those of a
/// table; `-` is standard input; `{stage: NAME, file: PATH}` is a file that another stage made. All are read plain or as gzip, bgzip, zstd or xz, whatever their names say, and relative
/// to the workflow file.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Source {
    /// What the source is called in provenance; by default the file's name without its endings. Only for one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// FASTA; with an index beside it (`.fai`, for bgzip `.gzi` too), `regions` are read without the bases between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fasta: Option<Origin>,
    /// FASTQ of four lines a record. Its reads belong to no contig: `split` leaves them out unless it has
    /// `unplaced: train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fastq: Option<Origin>,
    /// FASTQ of the second mates, in the order of `fastq`; mates follow each other, as `NAME/1` and `NAME/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mates: Option<Origin>,
    /// BAM or SAM, whose reads become records on the strand that was sequenced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bam: Option<Origin>,
    /// CRAM, read as `bam` is; most need a `reference`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cram: Option<Origin>,
    /// The FASTA file that CRAM was made with; its sequences are checked against the MD5 in the CRAM file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<PathBuf>,
    /// UCSC 2bit, not compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    two_bit: Option<Origin>,
    /// GenBank flat files, of which only names and bases are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    genbank: Option<Origin>,
    /// A table of files, TSV or CSV. Its first line names its columns: `path` (relative to the table), and if wanted
    /// `mates`, `name`, `taxonomy`, `weight`; formats show in the endings of the names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<PathBuf>,
    /// The sha256 of the file at an address, in hexadecimal. What an address has may change, so a run without it
    /// ends with the hash of what is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-fA-F]{64}$"))]
    sha256: Option<String>,
    /// Which reads of an alignment file are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reads: Option<alignment::Options>,
    /// The consensus of an alignment file in place of its reads: a record for each contig of the reference. The reads must be
    /// sorted by coordinate; `reads` says which have votes. Default: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    consensus: Option<consensus::Options>,
    /// What low base qualities mean for reads of a FASTQ file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quality: Option<fastq::Options>,
    /// Which parts of the sequences are taken: whole contigs by default. Coordinates stay those of the whole sequence; of
    /// alignments, reads that share a base with a region are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    regions: Option<Regions>,
    /// Other names for sequences of this source, also where reads are aligned to them: `{"1": chr1}` calls `1` `chr1`.
    /// `regions` use the new names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    rename: BTreeMap<String, String>,
    /// Where the source stands among living things; kept in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    taxonomy: Option<String>,
    /// How much the source counts beside others; kept in the manifest, no stage samples by it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    weight: Option<f64>,
}

/// Parts of sequences; all that is given is taken together, and what overlaps is taken once.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Regions {
    /// A BED file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bed: Option<PathBuf>,
    /// A GFF3 or GTF file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gff: Option<PathBuf>,
    /// Kinds of features of `gff` that are taken, such as `CDS`. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    features: Vec<String>,
    /// Regions such as `chr1:0-1000` (0-based, half-open: the first 1000 bases), or `chrM` for all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    intervals: Vec<String>,
    /// Bases by which each region is widened on either side, as far as its sequence goes. Default 0.
    #[serde(default)]
    flank: u64,
}

impl Source {
    /// The keys that name files, and what each names.
    fn keys(&self) -> [(&'static str, Option<Origin>); 7] {
        [
            ("fasta", self.fasta.clone()),
            ("fastq", self.fastq.clone()),
            ("bam", self.bam.clone()),
            ("cram", self.cram.clone()),
            ("two_bit", self.two_bit.clone()),
            ("genbank", self.genbank.clone()),
            ("table", self.table.clone().map(Origin::Outside)),
        ]
    }

    /// The key and the origin of what is read.
    fn origin(&self) -> (&'static str, Origin) {
        let given = self.keys().into_iter().find_map(|(key, origin)| Some((key, origin?)));
        given.unwrap_or_else(|| ("fasta", Origin::Outside(PathBuf::new())))
    }

    /// The stages that make what is read; `number` is that of the source, from 0.
    fn inputs(&self, number: usize) -> Vec<(String, String)> {
        let origins = self.keys().into_iter().chain([("mates", self.mates.clone())]);
        origins.filter_map(|(key, origin)| origin?.input(&format!("sources.{number}.{key}"))).collect()
    }

    /// A file of it, pinned if it lies at an address.
    fn pinned(&self, path: &Path) -> stage::File {
        let file = stage::File::new(path);
        let own = self.sha256.as_deref().filter(|_| self.origin().1.outside() == Some(path));
        let sha256 = own.and_then(|sha256| remote::hash(sha256).ok());
        stage::File { sha256: sha256.or(file.sha256), ..file }
    }

    /// What is wrong with its address or its pin.
    fn address_problem(&self) -> Option<String> {
        let (key, origin) = self.origin();
        let path = origin.outside().unwrap_or(Path::new(""));
        let wrong = || problem(path).map(|problem| format!("has a wrong address: {problem}"));
        if remote::is_address(path) && key == "table" {
            return Some("has a `table` at an address, expected one on this machine".to_owned());
        }
        let Some(sha256) = &self.sha256 else { return wrong() };
        if !remote::is_address(path) {
            let reason =
                "has `sha256`, which goes with an address; files of this machine are hashed as they are";
            return Some(reason.to_owned());
        }
        let carried = stage::File::new(path).sha256;
        match remote::hash(sha256) {
            Err(reason) => Some(format!("has a wrong `sha256`: {reason}")),
            Ok(sha256) if carried.as_ref().is_some_and(|carried| *carried != sha256) => {
                Some("has a `sha256` that is not the one at the end of its address".to_owned())
            }
            Ok(_) => wrong(),
        }
    }

    /// What is wrong with it by itself.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (key, origin) = self.origin();
        let mut wants = |given: bool, name: &str, keys: &[&str]| {
            if given && !keys.contains(&key) && key != "table" {
                let keys = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ");
                problems.push(format!(
                    "has `{name}`, which only {keys} take{}",
                    if keys.contains(" and ") { "" } else { "s" }
                ));
            }
        };
        wants(self.reads.is_some(), "reads", &["bam", "cram"]);
        wants(self.reference.is_some(), "reference", &["cram"]);
        wants(self.consensus.is_some(), "consensus", &["bam", "cram"]);
        wants(self.quality.is_some(), "quality", &["fastq"]);
        wants(self.mates.is_some(), "mates", &["fastq"]);
        wants(self.regions.is_some(), "regions", &["fasta", "two_bit", "genbank", "bam", "cram"]);
        wants(!self.rename.is_empty(), "rename", &["fasta", "two_bit", "genbank", "bam", "cram"]);
        if self.keys().iter().filter(|(_, path)| path.is_some()).count() != 1 {
            let keys = self.keys().map(|(key, _)| format!("`{key}`")).join(", ");
            problems.push(format!("needs one of {keys}"));
        }
        if self.consensus.as_ref().is_some_and(|consensus| consensus.min_depth == 0) {
            problems.push("has a `min_depth` of 0, expected at least 1 read".to_owned());
        }
        if self.consensus.is_some() && self.regions.is_some() {
            let reason = "has `consensus` and `regions`, but insertions and deletions move places; expected one of them";
            problems.push(reason.to_owned());
        }
        if self.name.is_some() && (files::several(&origin) || key == "table") {
            problems.push("has a `name`, which only one file takes".to_owned());
        }
        if key == "table" && (self.taxonomy.is_some() || self.weight.is_some() || self.mates.is_some()) {
            problems.push("has `taxonomy`, `weight` or `mates`, which stand in the table itself".to_owned());
        }
        if self.weight.is_some_and(|weight| !(weight.is_finite() && weight > 0.0)) {
            problems.push("has a `weight` that is not above 0".to_owned());
        }
        problems.extend(self.address_problem());
        problems.extend(origin.problem().or_else(|| self.mates.as_ref()?.problem()));
        let regions = self.regions.as_ref();
        if regions.is_some_and(|r| r.bed.is_none() && r.gff.is_none() && r.intervals.is_empty()) {
            problems.push("has `regions` without `bed`, `gff` or `intervals`".to_owned());
        }
        if regions.is_some_and(|regions| !regions.features.is_empty() && regions.gff.is_none()) {
            problems.push("has `features` without `gff`".to_owned());
        }
        let mut names: Vec<&String> = self.rename.values().collect();
        names.sort_unstable();
        if let Some((name, _)) = names.iter().zip(names.iter().skip(1)).find(|(name, next)| name == next) {
            problems.push(format!("renames two sequences to `{name}`"));
        }
        problems
    }

    /// Every file beside those of the formats: tables, references, regions.
    fn other_files(&self) -> impl Iterator<Item = PathBuf> {
        let regions = self.regions.as_ref();
        let bed = regions.and_then(|regions| regions.bed.clone());
        let gff = regions.and_then(|regions| regions.gff.clone());
        let consensus = self.consensus.as_ref().map(|consensus| consensus.reference.clone());
        [self.table.clone(), self.reference.clone(), consensus, bed, gff].into_iter().flatten()
    }
}

impl Config {
    /// Every file of every source, in order.
    fn expanded(&self, base: &Path) -> Result<Vec<(&Source, File)>, Error> {
        let mut all: Vec<(&Source, File)> = Vec::new();
        for source in &self.sources {
            for file in files::expand(source, base)? {
                if all.iter().any(|(_, other)| other.name == file.name) {
                    let reason = format!(
                        "two sources are called `{}`; give one a `name` (many files can have theirs in a `table`)",
                        file.name
                    );
                    return Err(Error::Config { key: "sources", reason });
                }
                all.push((source, file));
            }
        }
        Ok(all)
    }
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        (0..).zip(&self.sources).flat_map(|(number, source)| source.inputs(number)).collect()
    }

    fn files(&self, base: &Path) -> Result<Vec<stage::File>, Error> {
        let mut files = Vec::new();
        for (source, file) in self.expanded(base)? {
            files.extend(file.origin.outside().map(|path| source.pinned(path)));
            files.extend(file.mates.as_ref().and_then(Origin::outside).map(stage::File::new));
        }
        let others = self.sources.iter().flat_map(Source::other_files);
        files.extend(others.map(|path| stage::File::new(&path)));
        files.retain(|file| file.path != Path::new(STDIN));
        Ok(files)
    }

    fn once(&self) -> Option<&'static str> {
        let reads_stdin = |source: &Source| source.origin().1.outside() == Some(Path::new(STDIN));
        self.sources.iter().any(reads_stdin).then_some("it reads standard input")
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        problems.extend(partition::problem(self.partition));
        if self.sources.is_empty() {
            problems.push(("sources", "there is none, expected at least one".to_owned()));
        }
        for (i, source) in self.sources.iter().enumerate() {
            let number = i + 1;
            problems
                .extend(source.problems().into_iter().map(|p| ("sources", format!("source {number} {p}"))));
            let same =
                |other: &Source| files::name(source).is_some() && files::name(other) == files::name(source);
            if self.sources[..i].iter().any(same) {
                let name = files::name(source).unwrap_or_default();
                problems.push(("sources", format!("two sources are called `{name}`; give one a `name`")));
            }
        }
        problems
    }

    fn resolved(&self) -> Value {
        let with_name = |source: &Source| Source { name: files::name(source), ..source.clone() };
        to_json(&Self {
            sources: self.sources.iter().map(with_name).collect(),
            on_bad_record: self.on_bad_record,
            partition: Some(self.size()),
        })
    }

    /// A sixteenth of the files that are taken whole: text of bases becomes a fourth of it, compressed text is a third of
    /// itself or more, and of FASTQ half of it is qualities.
    fn least_bytes(&self, _: &BTreeMap<String, Artifact>, files: &[SourceFile]) -> u64 {
        let whole = |source: &&Source| {
            source.regions.is_none()
                && source.reads.is_none()
                && source.consensus.is_none()
                && source.quality.is_none()
                && source.table.is_none()
        };
        let paths = self
            .sources
            .iter()
            .filter(whole)
            .filter_map(|source| source.origin().1.outside().map(Path::to_owned));
        let paths: HashSet<PathBuf> = paths.collect();
        files.iter().filter(|file| paths.contains(Path::new(&file.path))).map(|file| file.bytes / 16).sum()
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        match self.partitioned() {
            Some(partitioned) => partition::run(partitioned, task),
            None => Ok(Files::of(self, task)?.read(task, ..)?.outcome()),
        }
    }

    /// What comes from standard input comes once.
    fn partitioned(&self) -> Option<&dyn Partitioned> {
        self.once().is_none().then_some(self as &dyn Partitioned)
    }
}

impl Partitioned for Config {
    fn bounds(&self, task: &Task) -> Result<Vec<u64>, Error> {
        let mut bounds = Bounds::new(self.size());
        for (_, file) in self.expanded(task.base)? {
            bounds.push(bytes(task, &file)?);
        }
        Ok(bounds.finish())
    }

    fn size(&self) -> u64 {
        self.partition.unwrap_or(partition::SIZE)
    }

    fn open<'a>(&'a self, task: &'a Task<'a>) -> Result<Box<dyn Work + 'a>, Error> {
        Ok(Box::new(Files::of(self, task)?))
    }
}

/// Every file, in the order of reading: the items of the work.
struct Files<'a> {
    task: &'a Task<'a>,
    all: Vec<(&'a Source, File)>,
    on_bad_record: OnBadRecord,
}

impl<'a> Files<'a> {
    fn of(config: &'a Config, task: &'a Task) -> Result<Self, Error> {
        Ok(Self { task, all: config.expanded(task.base)?, on_bad_record: config.on_bad_record })
    }

    /// Reads some of the files into the folder of the task.
    fn read(
        &self,
        task: &Task,
        which: impl SliceIndex<[(&'a Source, File)], Output = [(&'a Source, File)]>,
    ) -> Result<Told, Error> {
        let mut ingest = Ingest::new(task, self.on_bad_record)?;
        let files = self.all[which].iter();
        let sources = files.map(|(source, file)| ingest.file(source, file)).collect::<Result<_, _>>()?;
        let (counts, skipped) = ingest.finish()?;
        Ok(Told { counts, sources, skipped })
    }
}

/// The size of a file, with its mates; in bytes.
fn bytes(task: &Task, file: &File) -> Result<u64, Error> {
    let size = |origin: &Origin| {
        let path = task.locate(origin)?;
        Ok::<_, Error>(std::fs::metadata(&path).map_err(fs::error("read", &path))?.len())
    };
    Ok(size(&file.origin)? + file.mates.as_ref().map_or(Ok(0), size)?)
}

impl Work for Files<'_> {
    fn reads(&self, partition: Partition) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for (source, file) in &self.all[index(partition.start)..index(partition.end)] {
            let origins = [Some(&file.origin), file.mates.as_ref()].into_iter().flatten();
            paths.extend(origins.filter_map(Origin::outside).map(Path::to_owned));
            paths.extend(source.other_files());
        }
        paths
    }

    fn make(&self, task: &Task, partition: Partition) -> Result<Made, Error> {
        let told = self.read(task, index(partition.start)..index(partition.end))?;
        Ok(Made { account: to_json(&told), bases: told.counts.bases_in, seconds: Vec::new() })
    }

    /// Their record tables become one; their bases stay in the files that they are in.
    fn merge(&self, made: &mut dyn Iterator<Item = Result<Finished, Error>>) -> Result<Outcome, Error> {
        let (mut whole, mut files, mut records) = (Told::default(), Vec::new(), Vec::new());
        for kept in made {
            let kept = kept?;
            let (own, first) = (read_records(&kept.path(RECORDS))?, records.len() as u64);
            // The file of a partition without records would have the name of the next one's.
            for (_, entry) in sequence_files(&kept.files).into_iter().filter(|_| !own.is_empty()) {
                files.push(kept.place(entry, self.task.out, sequence_file(first))?);
            }
            records.extend(own);
            whole.add(kept.account()?);
            self.task.check()?;
        }
        write_records(&self.task.out.join(RECORDS), &records)?;
        Ok(Outcome { files, ..whole.outcome() })
    }
}

/// What a partition, or all of them, say of themselves.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    counts: Counts,
    /// What the report says of each file.
    sources: Vec<Value>,
    skipped: Vec<Skipped>,
}

impl Told {
    fn add(&mut self, other: Self) {
        self.counts.add(&other.counts);
        self.sources.extend(other.sources);
        self.skipped.extend(other.skipped);
        self.skipped.truncate(LISTED);
    }

    fn outcome(self) -> Outcome {
        let Self { counts, sources, skipped } = self;
        let records = counts.other.get("records").copied().unwrap_or_default();
        let summary = format!("{records} records, {} bases", counts.bases_out);
        let mut details = json!({ "sources": sources });
        if !skipped.is_empty() {
            details["skipped"] = json!(skipped);
        }
        Outcome { counts, details, summary, ..Outcome::default() }
    }
}

#[cfg(test)]
mod tests;
