//! One alphabet, N runs and IUPAC codes by policy, a least length. Coordinates never move: what is kept is a table of
//! intervals on the cleaned records. A partition is records of so many bases. Memory: a block of bases and the record table.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::partition::{self, Bounds, Finished, Made, Partition, Partitioned, Work};
use super::records::{
    Block, INTERVALS, MASKS, RECORDS, Record, SequenceReader, SequenceWriter, Stretch, StretchWriter,
    check_sources, index, read_records, sequence_files,
};
use super::{Error, Outcome, Stage, Task, from, to_json};
use crate::artifact::{Artifact, Counts, SourceFile};
use crate::fs;
use crate::observer::Unit;
use crate::sequence::clean::{Cleaner, Decided, Iupac, Options};
use crate::sequence::complexity::Filter;
use crate::units::{self, Interval, Strand};

/// How to clean.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that read the records.
    from: String,
    /// What happens to the codes that stand for several bases: `keep`, `n` (default: each becomes an N), `random`
    /// (each becomes one of its bases), `split` (the record is split there) or `drop` (the stretch between two runs of N is
    /// dropped).
    #[serde(default)]
    iupac: Iupac,
    /// Chooses the draws of `iupac: random`; the same record falls the same way whatever else is there. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    seed: u64,
    /// A run of at least this many N splits the record and is dropped; shorter runs stay. Default 1; null keeps all.
    #[serde(default = "one_n")]
    n_run: Option<u64>,
    /// Whether N at either end of what is kept are dropped. Default true.
    #[serde(default = "yes")]
    trim: bool,
    /// Stretches of fewer bases than this are dropped. Default 1.
    #[serde(default = "one_base")]
    min_length: u64,
    /// Windows that are too simple or have too much or too little G and C are dropped; what is left of a stretch must have
    /// the least length again. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<Filter>,
    /// Options for single sources by name, in place of the ones above.
    #[serde(default)]
    sources: BTreeMap<String, Options>,
    /// Bases of a partition, the part of the work that is done at a time and kept when the run ends early: a record, or
    /// several small ones. The bases lie in a file for each. Default 256Mb.
    #[serde(default = "partition::default_size", deserialize_with = "units::bases")]
    #[schemars(with = "units::Amount")]
    partition: Option<u64>,
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional key")]
const fn one_n() -> Option<u64> {
    Some(1)
}

const fn yes() -> bool {
    true
}

const fn one_base() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(seed: &u64) -> bool {
    *seed == 0
}

impl Config {
    fn options(&self, source: &str) -> Options {
        let general = Options {
            iupac: self.iupac,
            n_run: self.n_run,
            trim: self.trim,
            min_length: self.min_length,
            filter: self.filter,
        };
        self.sources.get(source).copied().unwrap_or(general)
    }

    /// What chooses the draws in a record.
    fn salt(&self, record: &Record) -> u64 {
        let hash = blake3::hash(format!("{} {} {}", self.seed, record.source, record.name).as_bytes());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
    }
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        from(&self.from)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.n_run == Some(0) {
            problems.push(("n_run", "is 0, expected at least 1, or null".to_owned()));
        }
        problems.extend(self.filter.and_then(|filter| filter.problem()).map(|problem| ("filter", problem)));
        for (source, options) in &self.sources {
            let problem = options.filter.and_then(|filter| filter.problem());
            problems.extend(problem.map(|problem| ("sources", format!("`filter` of `{source}`: {problem}"))));
        }
        problems.extend(partition::problem(self.partition));
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    /// The sequence stays as long as it is: only case and some codes go. Half of it, for what might be packed better then.
    fn least_bytes(&self, inputs: &BTreeMap<String, Artifact>, _: &[SourceFile]) -> u64 {
        let files = inputs.get("from").map(|from| sequence_files(&from.manifest.files)).unwrap_or_default();
        files.iter().map(|(_, file)| file.bytes / 2).sum()
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        partition::run(self, task)
    }

    fn partitioned(&self) -> Option<&dyn Partitioned> {
        Some(self)
    }
}

/// The records as they were read.
fn input<'a>(task: &'a Task) -> Result<&'a Artifact, Error> {
    task.input_of("from", &["ingest"])
}

impl Partitioned for Config {
    fn bounds(&self, task: &Task) -> Result<Vec<u64>, Error> {
        let mut bounds = Bounds::new(self.size());
        for record in read_records(&input(task)?.path(RECORDS))? {
            bounds.push(record.bases);
        }
        Ok(bounds.finish())
    }

    fn size(&self) -> u64 {
        self.partition.unwrap_or(partition::SIZE)
    }

    fn open<'a>(&'a self, task: &'a Task<'a>) -> Result<Box<dyn Work + 'a>, Error> {
        let input = input(task)?;
        let records = read_records(&input.path(RECORDS))?;
        check_sources(self.sources.keys(), &records)?;
        Ok(Box::new(Ready { config: self, task, input, records }))
    }
}

/// What every partition needs; the items are the records.
struct Ready<'a> {
    config: &'a Config,
    task: &'a Task<'a>,
    input: &'a Artifact,
    records: Vec<Record>,
}

impl Work for Ready<'_> {
    fn make(&self, task: &Task, partition: Partition) -> Result<Made, Error> {
        let mut reader = SequenceReader::open_at(self.input, partition.start, 0)?;
        let mut clean = Clean::new(task, partition.start)?;
        let mut next = reader.next_block()?;
        let own = &self.records[index(partition.start)..index(partition.end)];
        for (number, record) in (partition.start..).zip(own) {
            let options = self.config.options(&record.source);
            let mut cleaner = Cleaner::new(options).with_salt(self.config.salt(record));
            while let Some(block) = next.take_if(|block| block.record == number) {
                clean.block(&mut cleaner, block)?;
                next = reader.next_block()?;
            }
            clean.end(&mut cleaner, number, &record.source)?;
            task.check()?;
        }
        let counts = clean.finish()?;
        Ok(Made { account: to_json(&counts), bases: counts.bases_in, seconds: Vec::new() })
    }

    fn merge(&self, made: &mut dyn Iterator<Item = Result<Finished, Error>>) -> Result<Outcome, Error> {
        let out = self.task.out;
        let mut intervals = StretchWriter::create(&out.join(INTERVALS))?;
        let mut masks = StretchWriter::create(&out.join(MASKS))?;
        let (mut counts, mut files) = (Counts::default(), Vec::new());
        for kept in made {
            let kept = kept?;
            for (_, entry) in sequence_files(&kept.files) {
                files.push(kept.place(entry, out, entry.path.clone())?);
            }
            intervals.append(&kept.path(INTERVALS))?;
            masks.append(&kept.path(MASKS))?;
            counts.add(&kept.account()?);
            self.task.check()?;
        }
        intervals.finish()?;
        masks.finish()?;
        let (from, to) = (self.input.path(RECORDS), out.join(RECORDS));
        std::fs::copy(&from, &to).map_err(fs::error("copy", &from))?;
        counts.set("records", self.records.len() as u64);
        let summary = format!("{} bases kept, {} dropped", counts.bases_out, counts.dropped_bases());
        Ok(Outcome { counts, files, summary, ..Outcome::default() })
    }
}

/// A partition at work.
struct Clean<'a> {
    task: &'a Task<'a>,
    sequence: SequenceWriter,
    intervals: StretchWriter,
    masks: StretchWriter,
    decided: Decided,
    counts: Counts,
    replaced: u64,
    drawn: u64,
}

impl<'a> Clean<'a> {
    /// Of the records from the number `first` on.
    fn new(task: &'a Task, first: u64) -> Result<Self, Error> {
        Ok(Self {
            task,
            sequence: SequenceWriter::create(task.out, first)?,
            intervals: StretchWriter::create(&task.out.join(INTERVALS))?,
            masks: StretchWriter::create(&task.out.join(MASKS))?,
            decided: Decided::default(),
            counts: Counts::default(),
            replaced: 0,
            drawn: 0,
        })
    }

    fn block(&mut self, cleaner: &mut Cleaner, mut block: Block) -> Result<(), Error> {
        cleaner.pass_to(block.start, &mut self.decided);
        cleaner.push(&mut block.bases, &mut self.decided);
        self.sequence.push(block.record, block.start, &block.bases)?;
        self.write_decided(block.record)?;
        self.task.progress(self.counts.bases_in + block.start, None, Unit::Bases);
        Ok(())
    }

    fn end(&mut self, cleaner: &mut Cleaner, record: u64, source: &str) -> Result<(), Error> {
        let counts = cleaner.finish(&mut self.decided);
        self.counts.bases_in += counts.bases_in;
        self.counts.bases_out += counts.bases_kept;
        self.replaced += counts.replaced_by_n;
        self.drawn += counts.replaced_by_base;
        for (reason, bases) in counts.dropped.by_reason() {
            self.counts.drop_bases(reason, bases);
        }
        let account = self.counts.source(source);
        account.keep(counts.bases_kept);
        counts.dropped.by_reason().iter().for_each(|(reason, bases)| account.drop_bases(reason, *bases));
        self.write_decided(record)
    }

    fn write_decided(&mut self, record: u64) -> Result<(), Error> {
        let stretch =
            |interval: Interval| Stretch { record, interval, strand: Strand::Forward, split: String::new() };
        for interval in self.decided.kept.drain(..) {
            self.intervals.push(stretch(interval))?;
            *self.counts.other.entry("intervals".to_owned()).or_default() += 1;
        }
        for interval in self.decided.soft_masked.drain(..) {
            self.masks.push(stretch(interval))?;
            *self.counts.other.entry("soft-masked bases".to_owned()).or_default() += interval.len();
        }
        Ok(())
    }

    /// Writes what is left; the account.
    fn finish(mut self) -> Result<Counts, Error> {
        self.sequence.finish()?;
        self.intervals.finish()?;
        self.masks.finish()?;
        self.counts.set("codes replaced by N", self.replaced);
        if self.drawn > 0 {
            self.counts.set("codes replaced by a base", self.drawn);
        }
        Ok(self.counts)
    }
}
