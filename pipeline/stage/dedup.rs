//! Drops what has been seen before, on either strand: equal intervals or windows, and with `near` those that share most
//! of their k-mers with an earlier one. The first one stays. What tells each from others is made partition by partition, and
//! compared when all of it is there.
//!
//! Memory: 90 bytes an interval or window; with `near` 4 bytes a bin and some 25 bytes a band for each that is kept, about
//! 1.3 kB with 128 bins and 32 bands (a threshold of 0.8); and some tiles of bases.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{BinaryArray, BooleanArray, Float64Array, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::partition::{self, Bounds, Finished, Made, Partition, Partitioned, Work};
use super::records::{
    INTERVALS, RECORDS, Record, Stretch, StretchWriter, for_each_stretch, index, read_records, sequence_of,
};
use super::tiles::{Part, Tile, for_each_tile};
use super::{Error, Outcome, Stage, Task, from, reference, tables, to_json};
use crate::artifact::{Account, Artifact, Counts};
use crate::sequence::fingerprint::{Canonical, Fingerprint};
use crate::sequence::kmer::MAX_K;
use crate::sequence::sketch::{Kept, Sketch};
use crate::units::{self, Interval, Strand};

/// What a partition keeps of each of its intervals or windows.
const LOOKS: &str = "looks.parquet";

/// Rows of that table that are written or read at once.
const BATCH_LOOKS: usize = 8192;

/// The table of what was dropped and in favour of what.
pub const DUPLICATES: &str = "duplicates.parquet";

/// What counts as seen before.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that cleaned the records, or deduplicated them by other means.
    from: String,
    /// Compare windows of this many bases, which begin at multiples of it in each interval; the last one is up to half
    /// longer or shorter. What is left of an interval stays together where windows beside each other do. Default: whole
    /// intervals, for reads and contigs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    window: Option<u64>,
    /// Drops near duplicates too. Default: equal ones alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    near: Option<Near>,
    /// Bases of a partition, the part of the work that is done at a time and kept when the run ends early; what comes out is
    /// the same for every number. Default 256Mb.
    #[serde(default, deserialize_with = "units::bases", skip_serializing)]
    #[schemars(with = "units::Amount")]
    partition: Option<u64>,
}

/// What counts as a near duplicate.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Near {
    /// The least Jaccard similarity of the two sets of k-mers, above 0 to 1; it is estimated.
    jaccard: f64,
    /// Length of the k-mers, in bases: 11 to 32, default 21.
    #[serde(default = "default_k")]
    #[schemars(range(min = 11, max = 32))]
    k: u64,
    /// Bins of a sketch, a power of two from 16 to 4096: the standard error of the similarity is at most 0.5 by the square
    /// root of it. Default 128.
    #[serde(default = "default_bins")]
    #[schemars(range(min = 16, max = 4096))]
    bins: u64,
}

const fn default_k() -> u64 {
    21
}

const fn default_bins() -> u64 {
    128
}

impl Near {
    fn problem(self) -> Option<String> {
        if !(self.jaccard > 0.0 && self.jaccard <= 1.0) {
            Some(format!("`jaccard` is {}, expected above 0 to 1", self.jaccard))
        } else if !(11..=MAX_K as u64).contains(&self.k) {
            Some(format!("`k` is {}, expected 11 to {MAX_K} bases", self.k))
        } else if !(self.bins.is_power_of_two() && (16..=4096).contains(&self.bins)) {
            Some(format!("`bins` is {}, expected a power of two from 16 to 4096", self.bins))
        } else {
            None
        }
    }
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        from(&self.from)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.window == Some(0) {
            problems.push(("window", "is 0, expected at least 1 base".to_owned()));
        }
        problems.extend(self.near.and_then(Near::problem).map(|problem| ("near", problem)));
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

/// Cleaned records, or what is left of them.
fn input<'a>(task: &'a Task) -> Result<&'a Artifact, Error> {
    task.input_of("from", &["clean", "dedup"])
}

impl Partitioned for Config {
    fn bounds(&self, task: &Task) -> Result<Vec<u64>, Error> {
        let mut bounds = Bounds::new(self.size());
        for unit in self.units(&input(task)?.path(INTERVALS))? {
            bounds.push(unit.interval.len());
        }
        Ok(bounds.finish())
    }

    fn size(&self) -> u64 {
        self.partition.unwrap_or(partition::SIZE)
    }

    fn open<'a>(&'a self, task: &'a Task<'a>) -> Result<Box<dyn Work + 'a>, Error> {
        let input = input(task)?;
        let sequence = sequence_of(task, input)?;
        let units = self.units(&input.path(INTERVALS))?;
        Ok(Box::new(Ready { config: self, task, sequence, units }))
    }
}

/// What every partition needs; the items are the intervals or windows that are compared.
struct Ready<'a> {
    config: &'a Config,
    task: &'a Task<'a>,
    sequence: Artifact,
    units: Vec<Part>,
}

impl Work for Ready<'_> {
    fn make(&self, task: &Task, partition: Partition) -> Result<Made, Error> {
        let units = &self.units[index(partition.start)..index(partition.end)];
        let near = self.config.near;
        let mut looks = LooksWriter::create(&task.out.join(LOOKS))?;
        let work = |(): &mut (), tile: &Tile| Looks::of(tile, near);
        let reach = near.map_or(0, |near| index(near.k) - 1);
        let take = |tile: &Tile, of: Looks| looks.push(tile, of);
        for_each_tile(task, &self.sequence, units.iter().copied(), reach, || (), work, take)?;
        looks.finish()?;
        let bases = units.iter().map(|unit| unit.interval.len()).sum();
        Ok(Made { account: Value::Null, bases, seconds: Vec::new() })
    }

    fn merge(&self, made: &mut dyn Iterator<Item = Result<Finished, Error>>) -> Result<Outcome, Error> {
        let mut seen = Seen::new(self.config.near, self.units.len());
        for kept in made {
            for_each_whole(&kept?.path(LOOKS), self.config.near, |looks| seen.decide(looks))?;
            self.task.check()?;
        }
        let (fates, missed) = seen.finish();
        if fates.len() != self.units.len() {
            let reason = format!("its partitions hold {} intervals of {}", fates.len(), self.units.len());
            return Err(Error::Unusable { input: self.task.stage.to_owned(), reason });
        }
        self.outcome(&fates, missed)
    }
}

impl Ready<'_> {
    /// Writes what stays and what does not.
    fn outcome(&self, fates: &[Fate], missed: Option<f64>) -> Result<Outcome, Error> {
        let Self { task, sequence, units, config } = self;
        let records = read_records(&sequence.path(RECORDS))?;
        write_duplicates(&task.out.join(DUPLICATES), &records, units, fates)?;
        let mut counts = write_kept(&task.out.join(INTERVALS), units, fates)?;
        let found = by_source(&records, units, fates, &mut counts);
        let dropped = |kind: fn(&Fate) -> bool| fates.iter().filter(|fate| kind(fate)).count() as u64;
        let (exact, near) = (dropped(Fate::is_exact), dropped(Fate::is_near));
        let unit = if config.window.is_some() { "windows" } else { "intervals compared" };
        counts.set(unit, units.len() as u64);
        counts.set("exact duplicates", exact);
        counts.set("near duplicates", near);
        let summary = format!(
            "{exact} exact and {near} near duplicates of {} {unit}, {} bases dropped",
            units.len(),
            counts.dropped_bases()
        );
        let details = json!({ "missed_at_threshold": missed, "sources": found });
        let references = vec![reference("sequence", sequence)];
        Ok(Outcome { counts, references, details, summary, ..Outcome::default() })
    }
}

impl Config {
    /// What is compared; the label is the number of the interval, which tells neighbours apart.
    fn units(&self, path: &Path) -> Result<Vec<Part>, Error> {
        let (mut units, mut label) = (Vec::new(), 0u32);
        for_each_stretch::<Error>(path, |stretch| {
            let unit = |interval| Part { record: stretch.record, interval, label };
            units.extend(windows(stretch.interval, self.window).map(unit));
            label = label.wrapping_add(1);
            Ok(())
        })?;
        Ok(units)
    }
}

/// The windows of an interval: all of one length but the last, which is up to half longer or shorter.
fn windows(interval: Interval, window: Option<u64>) -> impl Iterator<Item = Interval> {
    let length = interval.len();
    let window = window.unwrap_or(length).max(1);
    let several = ((length + window / 2) / window).max(u64::from(length > 0));
    (0..several).map(move |number| {
        let start = interval.start + number * window;
        Interval::new(start, if number + 1 < several { start + window } else { interval.end })
    })
}

/// What tells an interval from others.
struct Looks {
    fingerprint: Fingerprint,
    sketch: Option<Sketch>,
}

impl Looks {
    fn of(tile: &Tile, near: Option<Near>) -> Self {
        let sketch = near.map(|near| {
            let mut sketch = Sketch::new(index(near.bins));
            sketch.add(&tile.bases, tile.own, index(near.k));
            sketch
        });
        Self { fingerprint: Fingerprint::of(&tile.bases[..tile.own]), sketch }
    }

    /// Of this tile and the next one of the same unit.
    fn then(self, next: Self) -> Self {
        let fingerprint = self.fingerprint.then(next.fingerprint);
        let sketch = self.sketch.zip(next.sketch).map(|(mut sketch, next)| {
            sketch.merge(&next);
            sketch
        });
        Self { fingerprint, sketch }
    }
}

/// What all tiles of an interval or window come to: what is kept of it until it is compared.
struct Whole {
    canonical: Canonical,
    turned: bool,
    sketch: Option<Sketch>,
}

impl From<Looks> for Whole {
    fn from(Looks { fingerprint, sketch }: Looks) -> Self {
        Self { canonical: fingerprint.canonical(), turned: fingerprint.is_turned(), sketch }
    }
}

/// Writes what is kept of each interval or window of a partition.
struct LooksWriter {
    writer: tables::Writer,
    open: Option<Looks>,
    rows: Vec<Whole>,
}

impl LooksWriter {
    fn create(path: &Path) -> Result<Self, Error> {
        let numbers = ["bases", "first", "second"].map(|name| (name, DataType::UInt64));
        let others = [("turned", DataType::Boolean), ("sketch", DataType::Binary)];
        let columns = [&numbers[..], &others[..]].concat();
        Ok(Self { writer: tables::Writer::create(path, &columns)?, open: None, rows: Vec::new() })
    }

    /// Takes the next tile; the first one of an interval or window ends the one before.
    fn push(&mut self, tile: &Tile, looks: Looks) -> Result<(), Error> {
        let goes_on = tile.start > tile.part.interval.start;
        match self.open.take() {
            Some(before) if goes_on => self.open = Some(before.then(looks)),
            before => {
                self.rows.extend(before.map(Whole::from));
                self.open = Some(looks);
            }
        }
        if self.rows.len() >= BATCH_LOOKS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        let number = |which: usize| {
            let numbers = rows.iter().map(|row| row.canonical.to_numbers()[which]);
            Arc::new(UInt64Array::from_iter_values(numbers)) as Arc<_>
        };
        let sketch = |row: &Whole| -> Vec<u8> {
            let values = row.sketch.as_ref().map_or(&[][..], Sketch::values);
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        Ok(self.writer.write(vec![
            number(0),
            number(1),
            number(2),
            Arc::new(rows.iter().map(|row| Some(row.turned)).collect::<BooleanArray>()),
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(sketch))),
        ])?)
    }

    fn finish(mut self) -> Result<(), Error> {
        self.rows.extend(self.open.take().map(Whole::from));
        self.flush()?;
        Ok(self.writer.finish()?)
    }
}

/// Calls `each` for what is kept of each interval or window of a partition, in order.
fn for_each_whole(path: &Path, near: Option<Near>, mut each: impl FnMut(&Whole)) -> Result<(), Error> {
    let mut reader = tables::Reader::open(path, BATCH_LOOKS)?;
    while let Some(batch) = reader.next_batch()? {
        let bases = batch.column::<UInt64Array>("bases")?;
        let (first, second) = (batch.column::<UInt64Array>("first")?, batch.column::<UInt64Array>("second")?);
        let (turned, sketch) =
            (batch.column::<BooleanArray>("turned")?, batch.column::<BinaryArray>("sketch")?);
        for i in 0..batch.rows() {
            let values = sketch.value(i).as_chunks().0.iter().map(|&value| u32::from_le_bytes(value));
            let values: Vec<u32> = values.collect();
            if near.is_some_and(|near| values.len() != index(near.bins)) {
                return Err(batch.damaged("sketch").into());
            }
            let canonical = Canonical::from_numbers([bases.value(i), first.value(i), second.value(i)]);
            let sketch = near.map(|_| Sketch::of_values(values));
            each(&Whole { canonical, turned: turned.value(i), sketch });
        }
    }
    Ok(())
}

/// What becomes of an interval or window.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Kept,
    Exact { of: u32, strand: Strand },
    Near { of: u32, similarity: f64 },
}

impl Fate {
    fn is_exact(&self) -> bool {
        matches!(self, Self::Exact { .. })
    }

    fn is_near(&self) -> bool {
        matches!(self, Self::Near { .. })
    }

    /// Enters the bases that have this fate.
    fn enter(&self, bases: u64, account: &mut Account) {
        match self {
            Self::Kept => account.keep(bases),
            Self::Exact { .. } => account.drop_bases("exact duplicate", bases),
            Self::Near { .. } => account.drop_bases("near duplicate", bases),
        }
    }

    /// The number of the unit in favour of which it goes, its strand there where known, and the similarity.
    fn original(&self) -> Option<(u32, Option<Strand>, f64)> {
        match *self {
            Self::Kept => None,
            Self::Exact { of, strand } => Some((of, Some(strand), 1.0)),
            Self::Near { of, similarity } => Some((of, None, similarity)),
        }
    }
}

/// What has been seen so far.
struct Seen {
    exact: HashMap<Canonical, (u32, bool)>,
    near: Option<Kept>,
    fates: Vec<Fate>,
}

impl Seen {
    fn new(near: Option<Near>, units: usize) -> Self {
        let near = near.map(|near| Kept::new(index(near.bins), near.jaccard));
        Self { exact: HashMap::new(), near, fates: Vec::with_capacity(units) }
    }

    /// Decides for the next one.
    fn decide(&mut self, looks: &Whole) {
        let own = u32::try_from(self.fates.len()).unwrap_or(u32::MAX);
        let turned = looks.turned;
        let fate = match self.exact.entry(looks.canonical) {
            Entry::Occupied(entry) => {
                let (of, other) = *entry.get();
                let strand = if other == turned { Strand::Forward } else { Strand::Reverse };
                match self.fates[of as usize] {
                    Fate::Kept => Fate::Exact { of, strand },
                    gone => gone,
                }
            }
            Entry::Vacant(entry) => {
                entry.insert((own, turned));
                let near = self.near.as_mut().zip(looks.sketch.as_ref());
                let found = near.and_then(|(kept, sketch)| kept.find_or_keep(sketch, own));
                found.map_or(Fate::Kept, |near| Fate::Near { of: near.of, similarity: near.similarity })
            }
        };
        self.fates.push(fate);
    }

    /// The fate of every unit, and the share of pairs at the threshold that are missed.
    fn finish(self) -> (Vec<Fate>, Option<f64>) {
        (self.fates, self.near.map(|kept| kept.missed()))
    }
}

/// Writes what stays, neighbours of one interval as one.
fn write_kept(path: &Path, units: &[Part], fates: &[Fate]) -> Result<Counts, Error> {
    let mut writer = StretchWriter::create(path)?;
    let mut account = Account::default();
    let mut intervals = 0;
    let mut open: Option<Part> = None;
    let mut write = |part: Part| {
        intervals += 1;
        let (record, interval) = (part.record, part.interval);
        writer.push(Stretch { record, interval, strand: Strand::Forward, split: String::new() })
    };
    for (unit, fate) in units.iter().zip(fates) {
        let bases = unit.interval.len();
        fate.enter(bases, &mut account);
        let joins = |part: &Part| {
            (part.record, part.label, part.interval.end) == (unit.record, unit.label, unit.interval.start)
        };
        if *fate != Fate::Kept {
            continue;
        }
        match open.as_mut().filter(|part| joins(part)) {
            Some(part) => part.interval.end = unit.interval.end,
            None => open.replace(*unit).map_or(Ok(()), &mut write)?,
        }
    }
    open.map_or(Ok(()), &mut write)?;
    writer.finish()?;
    let Account { bases_in, bases_out, dropped } = account;
    let mut counts = Counts { bases_in, bases_out, dropped, ..Counts::default() };
    counts.set("intervals", intervals);
    Ok(counts)
}

/// What was found of a source.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Found {
    /// Intervals or windows that were compared.
    compared: u64,
    /// Those of them that were dropped as equal to an earlier one.
    exact: u64,
    /// Those of them that were dropped as near duplicates.
    near: u64,
}

/// What was found, source by source, whose accounts go to `counts`.
fn by_source<'a>(
    records: &'a [Record],
    units: &[Part],
    fates: &[Fate],
    counts: &mut Counts,
) -> BTreeMap<&'a str, Found> {
    let mut sources: BTreeMap<&str, Found> = BTreeMap::new();
    for (unit, fate) in units.iter().zip(fates) {
        let source = &records[index(unit.record)].source;
        let found = sources.entry(source).or_default();
        found.compared += 1;
        found.exact += u64::from(fate.is_exact());
        found.near += u64::from(fate.is_near());
        fate.enter(unit.interval.len(), counts.source(source));
    }
    sources
}

/// Writes what was dropped: where it lay, what stays in its place, on which strand (for exact ones) and how similar.
fn write_duplicates(path: &Path, records: &[Record], units: &[Part], fates: &[Fate]) -> Result<(), Error> {
    let (text, number) = (DataType::Utf8, DataType::UInt64);
    let columns = [
        ("source", text.clone()),
        ("record", text.clone()),
        ("start", number.clone()),
        ("end", number.clone()),
        ("kept_source", text.clone()),
        ("kept_record", text.clone()),
        ("kept_start", number.clone()),
        ("kept_end", number),
        ("kind", text.clone()),
        ("strand", text),
        ("similarity", DataType::Float64),
    ];
    let mut writer = tables::Writer::create(path, &columns)?;
    let dropped: Vec<(&Part, &Fate)> =
        units.iter().zip(fates).filter(|(_, fate)| **fate != Fate::Kept).collect();
    for rows in dropped.chunks(1 << 16) {
        let originals: Vec<(&Part, Option<Strand>, f64)> = rows
            .iter()
            .filter_map(|(_, fate)| fate.original())
            .map(|(of, strand, similarity)| (&units[of as usize], strand, similarity))
            .collect();
        let record = |part: &Part| &records[index(part.record)];
        let texts = |values: Vec<&str>| Arc::new(StringArray::from_iter_values(values)) as Arc<_>;
        let numbers = |values: Vec<u64>| Arc::new(UInt64Array::from(values)) as Arc<_>;
        let exact = |fate: &Fate| if fate.is_exact() { "exact" } else { "near" };
        writer.write(vec![
            texts(rows.iter().map(|(part, _)| record(part).source.as_str()).collect()),
            texts(rows.iter().map(|(part, _)| record(part).name.as_str()).collect()),
            numbers(rows.iter().map(|(part, _)| part.interval.start).collect()),
            numbers(rows.iter().map(|(part, _)| part.interval.end).collect()),
            texts(originals.iter().map(|(part, ..)| record(part).source.as_str()).collect()),
            texts(originals.iter().map(|(part, ..)| record(part).name.as_str()).collect()),
            numbers(originals.iter().map(|(part, ..)| part.interval.start).collect()),
            numbers(originals.iter().map(|(part, ..)| part.interval.end).collect()),
            texts(rows.iter().map(|(_, fate)| exact(fate)).collect()),
            texts(originals.iter().map(|(_, strand, _)| strand.map_or("", Strand::symbol)).collect()),
            Arc::new(Float64Array::from_iter_values(originals.iter().map(|(.., similarity)| *similarity))),
        ])?;
    }
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_an_interval() {
        for ((start, end), window, expected) in [
            ((0, 0), Some(10), vec![]),
            ((5, 9), Some(10), vec![(5, 9)]),
            ((5, 9), None, vec![(5, 9)]),
            ((0, 20), Some(10), vec![(0, 10), (10, 20)]),
            ((0, 24), Some(10), vec![(0, 10), (10, 24)]),
            ((0, 25), Some(10), vec![(0, 10), (10, 20), (20, 25)]),
            ((3, 5), Some(1), vec![(3, 4), (4, 5)]),
        ] {
            let found: Vec<_> =
                windows(Interval::new(start, end), window).map(|w| (w.start, w.end)).collect();
            assert_eq!(found, expected, "{start}-{end} by {window:?}");
        }
    }

    /// The fates of sequences, whose tiles have three bases.
    fn fates(near: Option<Near>, sequences: &[&str]) -> Vec<Fate> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOOKS);
        let mut writer = LooksWriter::create(&path).unwrap();
        for bases in sequences {
            let interval = Interval::new(0, bases.len() as u64);
            let part = Part { record: 0, interval, label: 0 };
            for start in (0..bases.len()).step_by(3) {
                let own = 3.min(bases.len() - start);
                let reach = near.map_or(0, |near| index(near.k) - 1);
                let bases = bases.as_bytes()[start..(start + own + reach).min(bases.len())].to_vec();
                let tile = Tile { part, start: start as u64, own, bases };
                let looks = Looks::of(&tile, near);
                writer.push(&tile, looks).unwrap();
            }
        }
        writer.finish().unwrap();
        let mut seen = Seen::new(near, sequences.len());
        for_each_whole(&path, near, |looks| seen.decide(looks)).unwrap();
        seen.finish().0
    }

    #[test]
    fn the_first_of_equals_stays() {
        let found = fates(None, &["ACGTT", "AACGT", "ACGT", "ACGTT", "ACGTA"]);
        let exact = |strand| Fate::Exact { of: 0, strand };
        let expected = [Fate::Kept, exact(Strand::Reverse), Fate::Kept, exact(Strand::Forward), Fate::Kept];
        assert_eq!(found, expected);
    }

    #[test]
    fn near_duplicates_go_when_asked() {
        let near = Near { jaccard: 0.6, k: 11, bins: 64 };
        let (a, b) = (
            "ACGGTCATTAGCCGATATTACGCAGGACTTACCGATTTAGCACGTCAAATGCTGACCA",
            "ACGGTCATTAGCCGATATTACGCAGGACTTACCGATTTAGCACGTCAAATGCTGACCG",
        );
        assert_eq!(fates(None, &[a, b]), [Fate::Kept, Fate::Kept]);
        let found = fates(Some(near), &[a, b, &b[..30], a, b]);
        assert!(matches!(found[1], Fate::Near { of: 0, similarity } if similarity > 0.6), "{found:?}");
        assert_eq!(found[2], Fate::Kept);
        assert_eq!(found[3], Fate::Exact { of: 0, strand: Strand::Forward });
        assert_eq!(found[4], found[1], "in favour of one that stays");
    }

    #[test]
    fn what_stays_is_joined_within_an_interval() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(INTERVALS);
        let unit = |start, end, label| Part { record: 0, interval: Interval::new(start, end), label };
        let units = [
            unit(0, 10, 0),
            unit(10, 20, 0),
            unit(20, 30, 0),
            unit(30, 35, 0),
            unit(35, 40, 1),
            unit(40, 50, 1),
        ];
        let gone = Fate::Near { of: 0, similarity: 0.9 };
        let fates = [Fate::Kept, Fate::Kept, gone, Fate::Kept, Fate::Kept, Fate::Kept];
        let counts = write_kept(&path, &units, &fates).unwrap();
        assert_eq!((counts.bases_in, counts.bases_out, counts.dropped["near duplicate"]), (50, 40, 10));
        let record = Record { source: "s".into(), name: "r".into(), contig: None, bases: 50 };
        let mut with_sources = counts.clone();
        let sources = by_source(std::slice::from_ref(&record), &units, &fates, &mut with_sources);
        assert_eq!(sources["s"], Found { compared: 6, exact: 0, near: 1 });
        assert!(with_sources.balances(), "{with_sources:?}");
        let mut kept = Vec::new();
        for_each_stretch::<Error>(&path, |row| {
            kept.push(row.interval.to_string());
            Ok(())
        })
        .unwrap();
        assert_eq!(kept, ["0-20", "30-35", "35-50"]);
    }
}
