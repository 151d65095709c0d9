//! Measures what the splits have in common: for each pair of them the share of k-mers and of windows of the one that
//! occur in the other, on either strand. It changes nothing.
//!
//! A partition is what lies on records of so many bases: it keeps which k-mers each split has there, each once, and those of
//! every window, in order. When all are there, they become one index, by which the windows are judged; no base is read again.
//! Memory: 36 bytes a sampled k-mer of each split (of one partition's 16 while it is made), 32 bytes a stretch, and some 64 MiB
//! of the k-mers of windows; on the disk 12 bytes a sampled k-mer and 8 for each of a window. All k-mers are taken where they fit
//! `memory`; otherwise one in n, by its hash, so that shares are estimates whose standard error is told.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    BinaryArray, BinaryBuilder, BooleanArray, Float64Array, StringArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::DataType;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chunk::{WINDOWS, has_windows};
use super::hashes::{read_hashes, write_hashes};
use super::partition::{self, Finished, Made, Partition, Partitioned, Work};
use super::records::{
    INTERVALS, bounds_of_records, for_each_stretch, for_each_stretch_of, index, records_of,
};
use super::tiles::{Part, Tile, covered, for_each_tile, in_pool, labelled_hashes, on_records};
use super::{Error, Outcome, Stage, Task, from, tables, to_json};
use crate::artifact::{Artifact, Counts};
use crate::report::{Leak, Leaks};
use crate::sequence::index::{BYTES, Index};
use crate::sequence::kmer::{MAX_K, Sample};
use crate::units::{self, Amount, Interval, Strand};

/// The table of pairs within the artifact.
pub const LEAKS: &str = "leaks.parquet";

/// How to measure.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that split the records, cut them into windows, or decontaminated them.
    from: String,
    /// Length of the k-mers, in bases: 11 to 32, default 31.
    #[serde(default = "default_k")]
    #[schemars(range(min = 11, max = 32))]
    k: u64,
    /// Length of the windows that intervals are judged by, in bases; where `from` holds windows, these are judged.
    /// Default 1000.
    #[serde(default = "default_window")]
    #[schemars(range(min = 1))]
    window: u64,
    /// A window counts as shared where at least this share of its k-mers occurs in the other split: above 0 to 1,
    /// default 0.5.
    #[serde(default = "half")]
    window_share: f64,
    /// Memory for k-mers, as bytes or as `2GB`: 36 bytes a base if all are taken. Default 2 GB.
    #[serde(default = "default_memory", deserialize_with = "units::bytes")]
    #[schemars(with = "Amount")]
    memory: Option<u64>,
    /// Bases of a partition, the part of the work that is done at a time and kept when the run ends early: what lies on
    /// records whose rows have so many; what comes out is the same for every number. Default 256Mb.
    #[serde(default, deserialize_with = "units::bases", skip_serializing)]
    #[schemars(with = "units::Amount")]
    partition: Option<u64>,
}

const fn default_k() -> u64 {
    31
}

const fn default_window() -> u64 {
    1000
}

const fn half() -> f64 {
    0.5
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional key")]
const fn default_memory() -> Option<u64> {
    Some(MEMORY)
}

const MEMORY: u64 = 2_000_000_000;

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        from(&self.from)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !(11..=MAX_K as u64).contains(&self.k) {
            problems.push(("k", format!("is {}, expected 11 to {MAX_K} bases", self.k)));
        }
        if self.window < self.k {
            problems.push(("window", format!("is {}, expected at least {} (k)", self.window, self.k)));
        }
        if !(self.window_share > 0.0 && self.window_share <= 1.0) {
            let found = self.window_share;
            problems.push(("window_share", format!("is {found}, expected above 0 to 1")));
        }
        problems.extend(partition::problem(self.partition));
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        partition::run(self, task)
    }

    fn partitioned(&self) -> Option<&dyn Partitioned> {
        Some(self)
    }
}

/// What is split, and perhaps cut into windows.
fn input<'a>(task: &'a Task) -> Result<&'a Artifact, Error> {
    task.input_of("from", &["split", "chunk", "decontaminate"])
}

/// The table of its intervals or windows.
fn rows(input: &Artifact) -> PathBuf {
    input.path(if has_windows(input) { WINDOWS } else { INTERVALS })
}

impl Partitioned for Config {
    fn bounds(&self, task: &Task) -> Result<Vec<u64>, Error> {
        Ok(bounds_of_records(&rows(input(task)?), self.size())?)
    }

    fn size(&self) -> u64 {
        self.partition.unwrap_or(partition::SIZE)
    }

    fn open<'a>(&'a self, task: &'a Task<'a>) -> Result<Box<dyn Work + 'a>, Error> {
        let input = input(task)?;
        let (sequence, rows) = (task.referenced(input, "sequence")?, rows(input));
        let splits = Splits::read(&rows)?;
        let sample = Sample::within(self.memory.unwrap_or(MEMORY), splits.bases(), BYTES);
        Ok(Box::new(Ready {
            config: self,
            task,
            sequence,
            rows,
            are_windows: has_windows(input),
            splits,
            sample,
        }))
    }
}

/// What every partition needs; the items are the rows of the table of intervals or windows, and no record has some in two.
struct Ready<'a> {
    config: &'a Config,
    task: &'a Task<'a>,
    sequence: Artifact,
    rows: PathBuf,
    are_windows: bool,
    splits: Splits,
    sample: Sample,
}

impl Work for Ready<'_> {
    fn make(&self, task: &Task, partition: Partition) -> Result<Made, Error> {
        let (k, rows) = (index(self.config.k), partition.start..partition.end);
        let parts = on_records(&self.splits.parts, records_of(&self.rows, rows.clone())?);
        write_hashes(task, labelled_hashes(task, &self.sequence, parts.iter().copied(), k, self.sample)?)?;
        let mut writer = WindowWriter::create(&task.out.join(WINDOW_KMERS))?;
        let work = |(): &mut (), tile: &Tile| tile.hashes(k, self.sample);
        let take = |tile: &Tile, hashes: Vec<u64>| Ok(writer.push(tile, &hashes)?);
        for_each_tile(task, &self.sequence, self.windows(rows)?, k - 1, || (), work, take)?;
        writer.finish()?;
        let bases = parts.iter().map(|part| part.interval.len()).sum();
        Ok(Made { account: Value::Null, bases, seconds: Vec::new() })
    }

    fn merge(&self, made: &mut dyn Iterator<Item = Result<Finished, Error>>) -> Result<Outcome, Error> {
        let partitions = made.collect::<Result<Vec<Finished>, _>>()?;
        let mut entries = Vec::new();
        for partition in &partitions {
            read_hashes(partition, &mut entries)?;
            self.task.check()?;
        }
        let kmers = in_pool(self.task, || Index::new(entries))?
            .map_err(|error| Error::Config { key: "memory", reason: format!("{error}; ask for less") })?;
        let mut tally = Tally::new(self.splits.names.len());
        tally.count_kmers(&kmers);
        in_pool(self.task, || {
            partitions.iter().try_for_each(|partition| {
                tally.count_windows(&partition.path(WINDOW_KMERS), &kmers, self.config.window_share)?;
                self.task.check()
            })
        })??;
        self.outcome(&tally)
    }
}

impl Ready<'_> {
    /// The windows to judge on some rows, on the forward strand; the label is the number of the split.
    fn windows(&self, rows: Range<u64>) -> Result<Vec<Part>, Error> {
        let mut windows = Vec::new();
        for_each_stretch_of::<Error>(&self.rows, rows, |stretch| {
            let label = self.splits.names.partition_point(|name| *name < stretch.split);
            let label = u32::try_from(label).unwrap_or(u32::MAX);
            let part = |interval| Part { record: stretch.record, interval, label };
            if self.are_windows {
                let same = |last: &Part| *last == part(stretch.interval);
                if stretch.strand == Strand::Forward || !windows.last().is_some_and(same) {
                    windows.push(part(stretch.interval));
                }
                return Ok(());
            }
            let (Interval { start, end }, window) = (stretch.interval, self.config.window);
            let starts = (start..end).step_by(index(window));
            windows.extend(starts.map(|at| part(Interval::new(at, end.min(at.saturating_add(window))))));
            Ok(())
        })?;
        Ok(windows)
    }

    fn outcome(&self, tally: &Tally) -> Result<Outcome, Error> {
        let pairs = tally.pairs(&self.splits.names, self.sample);
        write(&self.task.out.join(LEAKS), &pairs)?;
        let leaks = Leaks {
            from: self.config.from.clone(),
            k: self.config.k,
            scale: self.sample.scale(),
            window_share: self.config.window_share,
            pairs,
        };
        let bases = self.splits.bases();
        let counts = Counts { bases_in: bases, bases_out: bases, ..Counts::default() };
        let summary = worst(&leaks);
        Ok(Outcome { counts, details: json!({ "leaks": leaks }), summary, ..Outcome::default() })
    }
}

/// The table of the k-mers of windows within a partition: a row for each tile of a window.
const WINDOW_KMERS: &str = "windows.parquet";

/// Rows of it that are read at once.
const BATCH_TILES: usize = 256;

/// Writes the k-mers of windows, tile by tile.
struct WindowWriter {
    writer: tables::Writer,
    labels: Vec<u32>,
    /// Whether the tile is the first one of its window.
    begins: Vec<bool>,
    hashes: BinaryBuilder,
}

impl WindowWriter {
    fn create(path: &Path) -> Result<Self, tables::Error> {
        let columns =
            [("label", DataType::UInt32), ("begins", DataType::Boolean), ("hashes", DataType::Binary)];
        let (labels, begins, hashes) = (Vec::new(), Vec::new(), BinaryBuilder::new());
        Ok(Self { writer: tables::Writer::create(path, &columns)?, labels, begins, hashes })
    }

    fn push(&mut self, tile: &Tile, hashes: &[u64]) -> Result<(), tables::Error> {
        self.labels.push(tile.part.label);
        self.begins.push(tile.start == tile.part.interval.start);
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        self.hashes.append_value(bytes);
        if self.labels.len() >= BATCH_TILES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), tables::Error> {
        let (labels, begins) = (std::mem::take(&mut self.labels), std::mem::take(&mut self.begins));
        self.writer.write(vec![
            Arc::new(UInt32Array::from(labels)),
            Arc::new(BooleanArray::from(begins)),
            Arc::new(self.hashes.finish()),
        ])
    }

    fn finish(mut self) -> Result<(), tables::Error> {
        self.flush()?;
        self.writer.finish()
    }
}

/// The pair with the largest share of k-mers, in words.
fn worst(leaks: &Leaks) -> String {
    let share = |leak: &Leak| leak.shared_kmers as f64 / leak.kmers.max(1) as f64;
    let worst = leaks.pairs.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
    worst.map_or_else(
        || "one split, nothing to compare".to_owned(),
        |leak| {
            format!(
                "{:.3} % of the {}-mers of {} occur in {}, {} of its {} windows",
                100.0 * share(leak),
                leaks.k,
                leak.of,
                leak.within,
                leak.shared_windows,
                leak.windows
            )
        },
    )
}

/// The splits of a table.
struct Splits {
    names: Vec<String>,
    /// What each covers; the label is the number of its name.
    parts: Vec<Part>,
}

impl Splits {
    fn read(rows: &Path) -> Result<Self, Error> {
        let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
        for_each_stretch::<Error>(rows, |stretch| {
            numbers.entry(stretch.split).or_default();
            Ok(())
        })?;
        (0..).zip(numbers.values_mut()).for_each(|(number, of)| *of = number);
        let parts = covered(rows, |stretch| numbers.get(&stretch.split).copied())?;
        Ok(Self { names: numbers.into_keys().collect(), parts })
    }

    fn bases(&self) -> u64 {
        self.parts.iter().map(|part| part.interval.len()).sum()
    }
}

/// Counts for all pairs of splits; `of * splits + within`.
struct Tally {
    splits: usize,
    shared_kmers: Vec<u64>,
    windows: Vec<u64>,
    shared_windows: Vec<u64>,
}

impl Tally {
    fn new(splits: usize) -> Self {
        let zeros = vec![0; splits * splits];
        Self { splits, shared_kmers: zeros.clone(), windows: vec![0; splits], shared_windows: zeros }
    }

    /// Counts the k-mers of each split, and those of each pair.
    fn count_kmers(&mut self, kmers: &Index) {
        for slot in 0..kmers.len() {
            let holders = kmers.holders(slot);
            for &of in holders {
                for &within in holders {
                    self.shared_kmers[of as usize * self.splits + within as usize] += 1;
                }
            }
        }
    }

    /// Judges the windows of a partition, each when its last tile was read.
    fn count_windows(&mut self, path: &Path, kmers: &Index, share: f64) -> Result<(), Error> {
        let mut reader = tables::Reader::open(path, BATCH_TILES)?;
        let mut open: Option<(usize, Vec<u64>)> = None;
        while let Some(batch) = reader.next_batch()? {
            let (labels, begins) =
                (batch.column::<UInt32Array>("label")?, batch.column::<BooleanArray>("begins")?);
            let hashes = batch.column::<BinaryArray>("hashes")?;
            let splits = self.splits;
            let tiles =
                (0..batch.rows()).into_par_iter().map(|row| held_by(hashes.value(row), kmers, splits));
            let tiles: Vec<Vec<u64>> = tiles.collect();
            for (row, counts) in tiles.into_iter().enumerate() {
                if let Some((_, sum)) = open.as_mut().filter(|_| !begins.value(row)) {
                    sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                } else if let Some((of, counts)) = open.replace((labels.value(row) as usize, counts)) {
                    self.window(of, &counts, share);
                }
            }
        }
        if let Some((of, counts)) = open {
            self.window(of, &counts, share);
        }
        Ok(())
    }

    /// Judges a window of split `of` by how many of its k-mers each split holds; its own split holds all.
    fn window(&mut self, of: usize, counts: &[u64], share: f64) {
        let all = counts[of];
        if all == 0 {
            return;
        }
        self.windows[of] += 1;
        for (within, &count) in counts.iter().enumerate() {
            if count as f64 >= share * all as f64 {
                self.shared_windows[of * self.splits + within] += 1;
            }
        }
    }

    fn pairs(&self, names: &[String], sample: Sample) -> Vec<Leak> {
        let leak = |of: usize, within: usize| {
            let (kmers, shared) =
                (self.shared_kmers[of * self.splits + of], self.shared_kmers[of * self.splits + within]);
            let share = shared as f64 / kmers.max(1) as f64;
            let error = (share * (1.0 - share) / kmers.max(1) as f64).sqrt();
            Leak {
                of: names[of].clone(),
                within: names[within].clone(),
                kmers,
                shared_kmers: shared,
                standard_error: if sample.scale() == 1 { 0.0 } else { error },
                windows: self.windows[of],
                shared_windows: self.shared_windows[of * self.splits + within],
            }
        };
        let others = |of: usize| (0..self.splits).filter(move |&within| within != of).map(move |w| (of, w));
        (0..self.splits).flat_map(others).map(|(of, within)| leak(of, within)).collect()
    }
}

/// How many of some k-mers, as a window has them, each split holds.
fn held_by(hashes: &[u8], kmers: &Index, splits: usize) -> Vec<u64> {
    let mut counts = vec![0; splits];
    for hash in hashes.as_chunks().0 {
        kmers.holders_of(u64::from_le_bytes(*hash)).iter().for_each(|&split| counts[split as usize] += 1);
    }
    counts
}

fn write(path: &Path, pairs: &[Leak]) -> Result<(), Error> {
    let (text, number) = (DataType::Utf8, DataType::UInt64);
    let columns = [
        ("of", text.clone()),
        ("within", text),
        ("kmers", number.clone()),
        ("shared_kmers", number.clone()),
        ("standard_error", DataType::Float64),
        ("windows", number.clone()),
        ("shared_windows", number),
    ];
    let mut writer = tables::Writer::create(path, &columns)?;
    let numbers =
        |of: fn(&Leak) -> u64| Arc::new(UInt64Array::from_iter_values(pairs.iter().map(of))) as Arc<_>;
    writer.write(vec![
        Arc::new(StringArray::from_iter_values(pairs.iter().map(|pair| &pair.of))),
        Arc::new(StringArray::from_iter_values(pairs.iter().map(|pair| &pair.within))),
        numbers(|pair| pair.kmers),
        numbers(|pair| pair.shared_kmers),
        Arc::new(Float64Array::from_iter_values(pairs.iter().map(|pair| pair.standard_error))),
        numbers(|pair| pair.windows),
        numbers(|pair| pair.shared_windows),
    ])?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_shared_from_the_threshold_on() {
        let mut tally = Tally::new(2);
        for (of, counts) in [(0, [10, 5]), (0, [10, 4]), (0, [0, 0]), (1, [3, 3]), (1, [0, 8])] {
            tally.window(of, &counts, 0.5);
        }
        assert_eq!((tally.windows, tally.shared_windows), (vec![2, 2], vec![2, 1, 1, 2]));
    }

    #[test]
    fn pairs_count_kmers_in_both_directions() {
        let entries = vec![(1, 0), (2, 0), (2, 1), (3, 0), (4, 0), (4, 1), (5, 1), (6, 2)];
        let mut tally = Tally::new(3);
        tally.count_kmers(&Index::new(entries).unwrap());
        let names = ["a", "b", "c"].map(str::to_owned);
        let pairs = tally.pairs(&names, Sample::one_in(1));
        let found: Vec<_> =
            pairs.iter().map(|p| format!("{}{} {}/{}", p.of, p.within, p.shared_kmers, p.kmers)).collect();
        assert_eq!(found, ["ab 2/4", "ac 0/4", "ba 2/3", "bc 0/3", "ca 0/1", "cb 0/1"]);
        assert!(pairs.iter().all(|pair| pair.standard_error == 0.0));
        let half = tally.pairs(&names, Sample::one_in(2))[0].standard_error;
        assert!((half - 0.25).abs() < 1e-12, "{half}");
    }
}
