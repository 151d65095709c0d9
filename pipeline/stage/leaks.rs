//! Measures what the splits have in common: for each pair of them the share of k-mers and of windows of the one that
//! occur in the other, on either strand. It changes nothing.
//!
//! Memory: 36 bytes a sampled k-mer of each split, 32 bytes a window. All k-mers are taken where they fit `memory`; otherwise one in n, by its
//! hash, so that shares are estimates whose standard error is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Float64Array, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chunk::{WINDOWS, has_windows};
use super::records::{INTERVALS, for_each_stretch, index};
use super::tiles::{Part, Tile, covered, for_each_tile, in_pool, labelled_hashes};
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
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let input = task.input_of("from", &["split", "chunk", "decontaminate"])?;
        let sequence = task.referenced(input, "sequence")?;
        let rows = input.path(if has_windows(input) { WINDOWS } else { INTERVALS });
        let splits = Splits::read(&rows)?;
        let sample = Sample::within(self.memory.unwrap_or(MEMORY), splits.bases(), BYTES);
        let kmers = self.index(task, &sequence, &splits, sample)?;
        let windows = self.windows(&rows, has_windows(input), &splits)?;
        let mut tally = Tally::new(splits.names.len());
        tally.count_kmers(&kmers);
        self.count_windows(task, &sequence, windows, &kmers, sample, &mut tally)?;
        let pairs = tally.pairs(&splits.names, sample);
        write(&task.out.join(LEAKS), &pairs)?;
        let leaks = Leaks {
            from: self.from.clone(),
            k: self.k,
            scale: sample.scale(),
            window_share: self.window_share,
            pairs,
        };
        let bases = splits.bases();
        let counts = Counts { bases_in: bases, bases_out: bases, ..Counts::default() };
        let summary = worst(&leaks);
        Ok(Outcome { counts, details: json!({ "leaks": leaks }), summary, ..Outcome::default() })
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

impl Config {
    /// Which splits hold which k-mer.
    fn index(
        &self,
        task: &Task,
        sequence: &Artifact,
        splits: &Splits,
        sample: Sample,
    ) -> Result<Index, Error> {
        let entries = labelled_hashes(task, sequence, splits.parts.iter().copied(), index(self.k), sample)?;
        in_pool(task, || Index::new(entries))?
            .map_err(|error| Error::Config { key: "memory", reason: format!("{error}; ask for less") })
    }

    /// The windows to judge, on the forward strand; the label is the number of the split.
    fn windows(&self, rows: &Path, are_windows: bool, splits: &Splits) -> Result<Vec<Part>, Error> {
        let mut windows = Vec::new();
        for_each_stretch::<Error>(rows, |stretch| {
            let label = splits.names.partition_point(|name| *name < stretch.split);
            let label = u32::try_from(label).unwrap_or(u32::MAX);
            let part = |interval| Part { record: stretch.record, interval, label };
            if are_windows {
                let same = |last: &Part| *last == part(stretch.interval);
                if stretch.strand == Strand::Forward || !windows.last().is_some_and(same) {
                    windows.push(part(stretch.interval));
                }
                return Ok(());
            }
            let Interval { start, end } = stretch.interval;
            let starts = (start..end).step_by(index(self.window));
            windows.extend(starts.map(|at| part(Interval::new(at, end.min(at.saturating_add(self.window))))));
            Ok(())
        })?;
        Ok(windows)
    }

    fn count_windows(
        &self,
        task: &Task,
        sequence: &Artifact,
        windows: Vec<Part>,
        kmers: &Index,
        sample: Sample,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let (k, splits) = (index(self.k), tally.splits);
        let mut open: Option<(Part, Vec<u64>)> = None;
        let work = |(): &mut (), tile: &Tile| {
            let mut counts = vec![0; splits];
            for hash in tile.hashes(k, sample) {
                kmers.holders_of(hash).iter().for_each(|&split| counts[split as usize] += 1);
            }
            counts
        };
        // A window of several tiles is judged when the next window begins.
        for_each_tile(
            task,
            sequence,
            windows,
            k - 1,
            || (),
            work,
            |tile, counts| {
                match open.as_mut().filter(|(part, _)| *part == tile.part && tile.start > part.interval.start)
                {
                    Some((_, sum)) => sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
                    None => {
                        if let Some((part, counts)) = open.replace((tile.part, counts)) {
                            tally.window(part.label as usize, &counts, self.window_share);
                        }
                    }
                }
                Ok(())
            },
        )?;
        if let Some((part, counts)) = open {
            tally.window(part.label as usize, &counts, self.window_share);
        }
        Ok(())
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
