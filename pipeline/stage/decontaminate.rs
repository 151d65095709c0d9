//! Takes out of the training data what stands in the test sets of benchmarks, on either strand; [`benchmark`] reads them.
//!
//! What is searched are the stretches that the rows of the chosen splits cover together, so that a test sequence is
//! found across the border of two windows. Memory: the index of the test sequences (36 bytes a base of theirs while it
//! is made, then about 18), 32 bytes for each stretch and 24 for each place found, and some tiles of bases.

mod benchmark;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{StringArray, UInt64Array};
use arrow::datatypes::DataType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::benchmark::Benchmark;
use super::chunk::{WINDOWS, has_windows};
use super::records::{INTERVALS, RECORDS, Stretch, StretchWriter, for_each_stretch, index, read_records};
use super::tiles::{Part, Tile, covered, for_each_tile, in_pool};
use super::{Error, File, Outcome, Stage, Task, from, tables, to_json};
use crate::artifact::Counts;
use crate::report::Contamination;
use crate::sequence::kmer::MAX_K;
use crate::sequence::search::{Found, Gather, Targets};
use crate::units::Interval;

/// The table of places that were found.
pub const CONTAMINATION: &str = "contamination.parquet";

/// What is looked for, and what happens where it is found.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that split the records, or the one that cut them into windows.
    from: String,
    /// The test sets of the benchmarks.
    #[schemars(length(min = 1))]
    benchmarks: Vec<Benchmark>,
    /// The splits that are searched; all others pass as they are. Default: `train` alone.
    #[serde(default = "train")]
    splits: Vec<String>,
    /// Length of the k-mers that are compared, in bases: 11 to 32, default 31. Shorter test sequences cannot be found.
    #[serde(default = "default_k")]
    #[schemars(range(min = 11, max = 32))]
    k: u64,
    /// The share of a test sequence's k-mers (or of the shorter of the two, if what is searched is shorter) that makes a
    /// find: above 0 to 1, default 0.5. Test sequences of more than 1024 bases are looked for in pieces.
    #[serde(default = "half")]
    threshold: f64,
    /// What happens to a window or interval that holds a find: `cut` (default: the find goes, what is beside it stays) or
    /// `remove` (all of it goes).
    #[serde(default)]
    action: Action,
    /// Bases on either side of a find that go with it. Default 0.
    #[serde(default)]
    flank: u64,
    /// What `cut` leaves is dropped where it has fewer bases than this. Default: the length of the k-mers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_length: Option<u64>,
}

/// What happens to a window that holds a find.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// The find is cut out.
    #[default]
    Cut,
    /// The window goes.
    Remove,
}

fn train() -> Vec<String> {
    vec!["train".to_owned()]
}

const fn default_k() -> u64 {
    31
}

const fn half() -> f64 {
    0.5
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        from(&self.from)
    }

    fn files(&self, _base: &Path) -> Result<Vec<File>, Error> {
        Ok(self.benchmarks.iter().flat_map(Benchmark::files).map(File::new).collect())
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.benchmarks.is_empty() {
            problems.push(("benchmarks", "there is none, expected at least one".to_owned()));
        }
        for (i, benchmark) in self.benchmarks.iter().enumerate() {
            let number = i + 1;
            let own = benchmark.problems().into_iter();
            problems.extend(own.map(|problem| ("benchmarks", format!("benchmark {number} {problem}"))));
            if self.benchmarks[..i].iter().any(|other| other.name() == benchmark.name()) {
                let name = benchmark.name();
                let reason = format!("two benchmarks are called `{name}`; give one a `name`");
                problems.push(("benchmarks", reason));
            }
        }
        if !(11..=MAX_K as u64).contains(&self.k) {
            problems.push(("k", format!("is {}, expected 11 to {MAX_K} bases", self.k)));
        }
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            problems.push(("threshold", format!("is {}, expected above 0 to 1", self.threshold)));
        }
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let input = task.input_of("from", &["split", "chunk", "decontaminate"])?;
        let sequence = task.referenced(input, "sequence")?;
        let name = if has_windows(input) { WINDOWS } else { INTERVALS };
        let (targets, tests) = self.read(task)?;
        let parts = self.stretches(&input.path(name))?;
        let mut finds = Finds::new(&targets, &tests);
        let work = |counter: &mut _, tile: &Tile| {
            let room = (tile.part.interval.len() + 1).saturating_sub(self.k);
            targets.find(&tile.bases, tile.own, room, counter)
        };
        for_each_tile(
            task,
            &sequence,
            parts,
            targets.reach(),
            || targets.counter(),
            work,
            |tile, found| {
                finds.add(&targets, tile, &found);
                Ok(())
            },
        )?;
        finds.write(&task.out.join(CONTAMINATION), &read_records(&sequence.path(RECORDS))?)?;
        let mut rows = Rows::new(self, finds.taken(self.flank), &task.out.join(name))?;
        for_each_stretch::<Error>(&input.path(name), |stretch| {
            task.check()?;
            rows.add(stretch)
        })?;
        let references = input.manifest.references.clone();
        let outcome = rows.finish(name)?;
        let (mut details, benchmarks) = (outcome.details, finds.benchmarks());
        let found: u64 = benchmarks.iter().map(|of| of.found).sum();
        let summary = format!(
            "{found} of {} test sequences found, {}",
            tests.iter().map(|test| test.sequences.len() as u64 + test.short).sum::<u64>(),
            outcome.summary
        );
        details["benchmarks"] = to_json(&benchmarks);
        Ok(Outcome { references, details, summary, ..outcome })
    }
}

/// The sequences of a test set that are looked for.
#[derive(Debug)]
struct Test {
    name: String,
    /// Their numbers among those of all test sets.
    sequences: std::ops::Range<u32>,
    bases: u64,
    /// Sequences without a k-mer.
    short: u64,
}

impl Config {
    /// Reads the test sets.
    fn read(&self, task: &Task) -> Result<(Targets, Vec<Test>), Error> {
        let mut gather = Gather::new(index(self.k));
        let mut tests = Vec::new();
        let mut number = 0;
        for benchmark in &self.benchmarks {
            let mut test = Test { name: benchmark.name(), sequences: number..number, bases: 0, short: 0 };
            benchmark.for_each(task, |sequence| {
                test.bases += sequence.len() as u64;
                if gather.add(number, sequence) {
                    number += 1;
                } else {
                    test.short += 1;
                }
                task.check()
            })?;
            test.sequences.end = number;
            if test.short > 0 {
                task.note(format!(
                    "{} of {} sequences of {} have no {}-mer and cannot be found",
                    test.short,
                    test.short + test.sequences.len() as u64,
                    test.name,
                    self.k
                ));
            }
            tests.push(test);
        }
        let targets = in_pool(task, || gather.finish(self.threshold))?;
        let reason = |error: crate::sequence::index::TooMany| error.to_string();
        let targets = targets.map_err(|error| Error::Config { key: "benchmarks", reason: reason(error) })?;
        Ok((targets, tests))
    }

    /// What is searched.
    fn stretches(&self, path: &Path) -> Result<Vec<Part>, Error> {
        let mut known = BTreeSet::new();
        let parts = covered(path, |stretch| {
            if !known.contains(&stretch.split) {
                known.insert(stretch.split.clone());
            }
            self.splits.contains(&stretch.split).then_some(0)
        })?;
        match self.splits.iter().find(|split| !known.contains(*split)) {
            None => Ok(parts),
            Some(unknown) => {
                let known = known.iter().map(|split| format!("`{split}`")).collect::<Vec<_>>().join(", ");
                let reason = format!("no split is called `{unknown}`; there are {known}");
                Err(Error::Config { key: "splits", reason })
            }
        }
    }
}

/// A record and where on it something was found.
type Place = (u64, Interval);

/// What was found, test set by test set.
struct Finds<'a> {
    tests: &'a [Test],
    /// The test set of each piece.
    test_of: Vec<usize>,
    sequence_of: Vec<u32>,
    found: Vec<bool>,
    whole: Vec<bool>,
    /// For each test set the places, which ascend and do not touch.
    places: Vec<Vec<Place>>,
}

impl<'a> Finds<'a> {
    fn new(targets: &Targets, tests: &'a [Test]) -> Self {
        let sequence_of: Vec<u32> = (0..targets.pieces()).map(|piece| targets.sequence_of(piece)).collect();
        let test = |sequence: &u32| tests.partition_point(|test| test.sequences.end <= *sequence);
        Self {
            tests,
            test_of: sequence_of.iter().map(test).collect(),
            found: vec![false; targets.pieces()],
            whole: vec![false; targets.pieces()],
            sequence_of,
            places: vec![Vec::new(); tests.len()],
        }
    }

    fn add(&mut self, targets: &Targets, tile: &Tile, found: &[Found]) {
        debug_assert_eq!(targets.pieces(), self.found.len());
        let mut by_test: BTreeMap<usize, Vec<Interval>> = BTreeMap::new();
        for find in found {
            self.found[find.piece as usize] = true;
            self.whole[find.piece as usize] |= find.whole;
            let interval = Interval::new(tile.start + find.start as u64, tile.start + find.end as u64);
            by_test.entry(self.test_of[find.piece as usize]).or_default().push(interval);
        }
        for (test, mut intervals) in by_test {
            intervals.sort_unstable();
            for interval in intervals {
                join(&mut self.places[test], tile.part.record, interval);
            }
        }
    }

    /// The places of all test sets with `flank` bases on either side, as one ascending list.
    fn taken(&self, flank: u64) -> Vec<Place> {
        let wider = |&(record, interval): &(u64, Interval)| {
            (record, Interval::new(interval.start.saturating_sub(flank), interval.end + flank))
        };
        let mut all: Vec<Place> = self.places.iter().flatten().map(wider).collect();
        all.sort_unstable();
        let mut joined = Vec::new();
        for (record, interval) in all {
            join(&mut joined, record, interval);
        }
        joined
    }

    fn benchmarks(&self) -> Vec<Contamination> {
        let mut found: Vec<(u64, u64)> = vec![(0, 0); self.tests.len()];
        let pieces: Vec<usize> = (0..self.sequence_of.len()).collect();
        for pieces in pieces.chunk_by(|&a, &b| self.sequence_of[a] == self.sequence_of[b]) {
            let test = &mut found[self.test_of[pieces[0]]];
            test.0 += u64::from(pieces.iter().any(|&piece| self.found[piece]));
            test.1 += u64::from(pieces.iter().all(|&piece| self.whole[piece]));
        }
        let of = |(test, (found, whole), places): (&Test, (u64, u64), &[Place])| Contamination {
            benchmark: test.name.clone(),
            stage: None,
            sequences: test.sequences.len() as u64 + test.short,
            bases: test.bases,
            short: test.short,
            found,
            whole,
            places: places.len() as u64,
            place_bases: places.iter().map(|(_, interval)| interval.len()).sum(),
        };
        let tests = self.tests.iter().zip(found).zip(&self.places);
        tests.map(|((test, found), places)| of((test, found, places))).collect()
    }

    /// Writes the places: benchmark, source and name of the record, start, end.
    fn write(&self, path: &Path, records: &[super::records::Record]) -> Result<(), Error> {
        let (text, number) = (DataType::Utf8, DataType::UInt64);
        let columns = [
            ("benchmark", text.clone()),
            ("source", text.clone()),
            ("record", text),
            ("start", number.clone()),
            ("end", number),
        ];
        let mut writer = tables::Writer::create(path, &columns)?;
        for (test, places) in self.tests.iter().zip(&self.places) {
            for places in places.chunks(1 << 16) {
                let record = |place: &(u64, Interval)| &records[index(place.0)];
                writer.write(vec![
                    Arc::new(StringArray::from_iter_values(places.iter().map(|_| &test.name))),
                    Arc::new(StringArray::from_iter_values(places.iter().map(|p| &record(p).source))),
                    Arc::new(StringArray::from_iter_values(places.iter().map(|p| &record(p).name))),
                    Arc::new(UInt64Array::from_iter_values(places.iter().map(|p| p.1.start))),
                    Arc::new(UInt64Array::from_iter_values(places.iter().map(|p| p.1.end))),
                ])?;
            }
        }
        Ok(writer.finish()?)
    }
}

/// Appends a place to an ascending list, or joins it to the last one.
fn join(places: &mut Vec<Place>, record: u64, interval: Interval) {
    let touches = |(of, last): &&mut (u64, Interval)| *of == record && last.end >= interval.start;
    match places.last_mut().filter(touches) {
        Some((_, last)) => *last = Interval::new(last.start.min(interval.start), last.end.max(interval.end)),
        None => places.push((record, interval)),
    }
}

/// Writes the rows, less what was found in them.
struct Rows<'a> {
    config: &'a Config,
    taken: Vec<Place>,
    writer: StretchWriter,
    /// What is kept and may still have to wait for a row that begins before it; by record, start and order of coming.
    waiting: BTreeMap<(u64, u64, u64), Stretch>,
    counts: Counts,
    splits: BTreeMap<String, Tally>,
    seen: u64,
    hit: u64,
}

/// What a split holds.
#[derive(Debug, Default, Serialize)]
struct Tally {
    rows: u64,
    bases: u64,
}

const SHARED: &str = "shared with a benchmark";
const BESIDE: &str = "beside what is shared with a benchmark";
const SHORT: &str = "too short beside what was cut";

impl<'a> Rows<'a> {
    fn new(config: &'a Config, taken: Vec<Place>, path: &Path) -> Result<Self, Error> {
        Ok(Self {
            config,
            taken,
            writer: StretchWriter::create(path)?,
            waiting: BTreeMap::new(),
            counts: Counts::default(),
            splits: BTreeMap::new(),
            seen: 0,
            hit: 0,
        })
    }

    fn add(&mut self, row: Stretch) -> Result<(), Error> {
        let Interval { start, end } = row.interval;
        self.counts.bases_in += end - start;
        self.seen += 1;
        self.write_before((row.record, start, 0))?;
        let first = self.taken.partition_point(|(of, place)| (*of, place.end) <= (row.record, start));
        let places =
            self.taken[first..].iter().take_while(|(of, place)| *of == row.record && place.start < end);
        let places: Vec<Interval> = places.map(|&(_, place)| place).collect();
        if places.is_empty() || !self.config.splits.contains(&row.split) {
            self.keep(row);
            return Ok(());
        }
        self.hit += 1;
        let shared: u64 = places.iter().map(|place| place.end.min(end) - place.start.max(start)).sum();
        self.drop(&row.split, SHARED, shared);
        if self.config.action == Action::Remove {
            self.drop(&row.split, BESIDE, end - start - shared);
            return Ok(());
        }
        let starts = std::iter::once(start).chain(places.iter().map(|place| place.end));
        let ends = places.iter().map(|place| place.start).chain(std::iter::once(end));
        for (from, to) in starts.zip(ends).filter(|(from, to)| from < to) {
            if to - from < self.config.min_length.unwrap_or(self.config.k) {
                self.drop(&row.split, SHORT, to - from);
            } else {
                self.keep(Stretch { interval: Interval::new(from, to), ..row.clone() });
            }
        }
        Ok(())
    }

    fn drop(&mut self, split: &str, reason: &str, bases: u64) {
        self.counts.drop_bases(reason, bases);
        self.counts.split(split).drop_bases(reason, bases);
    }

    fn keep(&mut self, row: Stretch) {
        self.counts.bases_out += row.interval.len();
        self.counts.split(&row.split).keep(row.interval.len());
        let tally = self.splits.entry(row.split.clone()).or_default();
        tally.rows += 1;
        tally.bases += row.interval.len();
        self.waiting.insert((row.record, row.interval.start, self.seen), row);
    }

    /// Writes what no later row can begin before.
    fn write_before(&mut self, place: (u64, u64, u64)) -> Result<(), Error> {
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() < place) {
            self.writer.push(first.remove())?;
        }
        Ok(())
    }

    fn finish(mut self, table: &str) -> Result<Outcome, Error> {
        self.write_before((u64::MAX, u64::MAX, u64::MAX))?;
        self.writer.finish()?;
        let rows = if table == WINDOWS { "windows" } else { "intervals" };
        self.counts.set(rows, self.splits.values().map(|tally| tally.rows).sum());
        self.counts.set(&format!("{rows} that held test sequences"), self.hit);
        let splits: BTreeMap<&String, Value> = self
            .splits
            .iter()
            .map(|(name, tally)| (name, json!({ rows: tally.rows, "bases": tally.bases })))
            .collect();
        let summary = format!("{} bases taken out of {} {rows}", self.counts.dropped_bases(), self.hit);
        let details = json!({ "splits": splits });
        Ok(Outcome { counts: self.counts, details, summary, ..Outcome::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::records::for_each_stretch;
    use crate::units::Strand;

    fn config(more: &str) -> Config {
        let text = format!(r#"{{"from": "x", "benchmarks": [{{"csv": "a.test.csv.gz"}}]{more}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    /// What becomes of rows of `train`, as `start-end`, and the outcome.
    fn cut(config: &Config, rows: &[(u64, u64)], taken: &[(u64, u64)]) -> (String, Counts) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(WINDOWS);
        let taken = taken.iter().map(|&(start, end)| (0, Interval::new(start, end))).collect();
        let mut out = Rows::new(config, taken, &path).unwrap();
        for &(start, end) in rows {
            let interval = Interval::new(start, end);
            out.add(Stretch { record: 0, interval, strand: Strand::Forward, split: "train".into() }).unwrap();
        }
        let counts = out.finish(WINDOWS).unwrap().counts;
        let mut kept = Vec::new();
        for_each_stretch::<Error>(&path, |row| {
            kept.push(row.interval.to_string());
            Ok(())
        })
        .unwrap();
        (kept.join(" "), counts)
    }

    #[test]
    fn finds_are_cut_out_or_take_the_window_with_them() {
        let rows = [(0, 100), (50, 150), (200, 300)];
        for (more, taken, expected, shared, other) in [
            ("", vec![], "0-100 50-150 200-300", 0, 0),
            (r#", "min_length": 1"#, vec![(60, 90)], "0-60 50-60 90-100 90-150 200-300", 60, 0),
            ("", vec![(60, 90)], "0-60 90-150 200-300", 60, 20),
            ("", vec![(0, 100)], "100-150 200-300", 150, 0),
            (r#", "action": "remove""#, vec![(60, 90)], "200-300", 60, 140),
            (r#", "action": "remove""#, vec![(100, 101)], "0-100 200-300", 1, 99),
            (r#", "splits": ["other"]"#, vec![(60, 90)], "0-100 50-150 200-300", 0, 0),
        ] {
            let (kept, counts) = cut(&config(more), &rows, &taken);
            assert_eq!(kept, expected, "{more} {taken:?}");
            assert!(counts.balances(), "{counts:?}");
            assert_eq!(counts.dropped.get(SHARED).copied().unwrap_or(0), shared, "{more} {taken:?}");
            assert_eq!(counts.dropped_bases(), shared + other, "{more} {taken:?}");
        }
    }

    #[test]
    fn names_come_from_files_and_must_differ() {
        let config = config("");
        assert_eq!(config.benchmarks[0].name(), "a.test");
        assert!(config.problems().is_empty());
        let text = r#"{"from": "x", "k": 40, "threshold": 0.0, "benchmarks":
            [{"csv": "x/test.csv"}, {"bed": "y/test.bed.gz", "assembly": "g.fa"}, {"fasta": "a.fa", "column": "c"}, {},
            {"bed": "b.bed"}, {"csv": "c.csv", "assembly": "g.fa"}]}"#;
        let problems = serde_json::from_str::<Config>(text).unwrap().problems();
        let found: Vec<&str> = problems.iter().map(|(_, reason)| reason.as_str()).collect();
        assert_eq!(
            found,
            [
                "two benchmarks are called `test`; give one a `name`",
                "benchmark 3 has `column`, which only `csv` takes",
                "benchmark 4 needs one of `fasta`, `csv` and `bed`",
                "benchmark 5 has `bed` without `assembly`, the FASTA file that its intervals lie on",
                "benchmark 6 has `assembly`, which only `bed` takes",
                "is 40, expected 11 to 32 bases",
                "is 0, expected above 0 to 1",
            ]
        );
    }
}
