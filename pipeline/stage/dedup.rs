//! Drops what has been seen before, on either strand: equal intervals or windows, and with `near` those that share most
//! of their k-mers with an earlier one. The first one stays.
//!
//! Memory: 90 bytes an interval or window; with `near` 4 bytes a bin and some 25 bytes a band for each that is kept, about
//! 1.3 kB with 128 bins and 32 bands (a threshold of 0.8); and some tiles of bases.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Float64Array, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::records::{
    INTERVALS, RECORDS, Record, Stretch, StretchWriter, for_each_stretch, index, read_records, sequence_of,
};
use super::tiles::{Part, Tile, for_each_tile};
use super::{Error, Outcome, Stage, Task, from, reference, tables, to_json};
use crate::artifact::{Account, Counts};
use crate::sequence::fingerprint::{Canonical, Fingerprint};
use crate::sequence::kmer::MAX_K;
use crate::sequence::sketch::{Kept, Sketch};
use crate::units::{Interval, Strand};

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
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let input = task.input_of("from", &["clean", "dedup"])?;
        let sequence = sequence_of(task, input)?;
        let units = self.units(&input.path(INTERVALS))?;
        let mut seen = Seen::new(self.near, units.len());
        let work = |(): &mut (), tile: &Tile| Looks::of(tile, self.near);
        let reach = self.near.map_or(0, |near| index(near.k) - 1);
        for_each_tile(
            task,
            &sequence,
            units.iter().copied(),
            reach,
            || (),
            work,
            |tile, looks| {
                seen.add(tile, looks);
                Ok(())
            },
        )?;
        let (fates, missed) = seen.finish();
        let records = read_records(&sequence.path(RECORDS))?;
        write_duplicates(&task.out.join(DUPLICATES), &records, &units, &fates)?;
        let mut counts = write_kept(&task.out.join(INTERVALS), &units, &fates)?;
        let found = by_source(&records, &units, &fates, &mut counts);
        let dropped = |kind: fn(&Fate) -> bool| fates.iter().filter(|fate| kind(fate)).count() as u64;
        let (exact, near) = (dropped(Fate::is_exact), dropped(Fate::is_near));
        let unit = if self.window.is_some() { "windows" } else { "intervals compared" };
        counts.set(unit, units.len() as u64);
        counts.set("exact duplicates", exact);
        counts.set("near duplicates", near);
        let summary = format!(
            "{exact} exact and {near} near duplicates of {} {unit}, {} bases dropped",
            units.len(),
            counts.dropped_bases()
        );
        let details = json!({ "missed_at_threshold": missed, "sources": found });
        let references = vec![reference("sequence", &sequence)];
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
    open: Option<(Part, Looks)>,
    fates: Vec<Fate>,
}

impl Seen {
    fn new(near: Option<Near>, units: usize) -> Self {
        let near = near.map(|near| Kept::new(index(near.bins), near.jaccard));
        Self { exact: HashMap::new(), near, open: None, fates: Vec::with_capacity(units) }
    }

    /// Takes the next tile; a unit is decided when the next one begins.
    fn add(&mut self, tile: &Tile, looks: Looks) {
        match self.open.take() {
            Some((part, before)) if tile.start > tile.part.interval.start => {
                self.open = Some((part, before.then(looks)));
            }
            before => {
                if let Some((_, looks)) = before {
                    self.decide(&looks);
                }
                self.open = Some((tile.part, looks));
            }
        }
    }

    fn decide(&mut self, looks: &Looks) {
        let own = u32::try_from(self.fates.len()).unwrap_or(u32::MAX);
        let turned = looks.fingerprint.is_turned();
        let fate = match self.exact.entry(looks.fingerprint.canonical()) {
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
    fn finish(mut self) -> (Vec<Fate>, Option<f64>) {
        if let Some((_, looks)) = self.open.take() {
            self.decide(&looks);
        }
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
        let mut seen = Seen::new(near, sequences.len());
        for bases in sequences {
            let interval = Interval::new(0, bases.len() as u64);
            let part = Part { record: 0, interval, label: 0 };
            for start in (0..bases.len()).step_by(3) {
                let own = 3.min(bases.len() - start);
                let reach = near.map_or(0, |near| index(near.k) - 1);
                let bases = bases.as_bytes()[start..(start + own + reach).min(bases.len())].to_vec();
                let tile = Tile { part, start: start as u64, own, bases };
                let looks = Looks::of(&tile, near);
                seen.add(&tile, looks);
            }
        }
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
