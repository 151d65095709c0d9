//! Held-out intervals: which bases of which records BED files take out of what is drawn.
//!
//! Memory: 40 bytes for each interval on each record that it lies on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::records::Record;
use super::super::{Error, Task};
use super::Place;
use crate::source::region::Origin;
use crate::source::region::lines::Lines;
use crate::units::{self, Interval};

/// Intervals that go elsewhere than the rest of their contigs.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Intervals {
    /// A BED file of intervals for validation while training, plain or compressed; relative to the workflow file. A
    /// contig's name stands for that contig of every source, `SOURCE:CONTIG` for that of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validation: Option<PathBuf>,
    /// A BED file of intervals for the last test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    test: Option<PathBuf>,
    /// A BED file of intervals that are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exclude: Option<PathBuf>,
    /// Bases on either side of an interval for validation or test that go to no split, unless they lie in an interval
    /// themselves. Default 0.
    #[serde(default)]
    margin: u64,
}

/// The reasons for which bases are dropped.
pub(super) const EXCLUDED: &str = "excluded interval";
pub(super) const MARGIN: &str = "margin of a held-out interval";

/// An interval of a record and the list that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    interval: Interval,
    list: &'static str,
    /// Its line in the file of the list, from 1; 0 for a margin.
    line: u64,
}

impl Mark {
    fn place(self) -> Place {
        match self.list {
            "exclude" => Place::Dropped(EXCLUDED),
            MARGIN => Place::Dropped(MARGIN),
            split => Place::Split(split),
        }
    }
}

impl Intervals {
    /// The lists that are given, by name.
    fn lists(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let lists = [("validation", &self.validation), ("test", &self.test), ("exclude", &self.exclude)];
        lists.into_iter().filter_map(|(list, file)| Some((list, file.as_ref()?)))
    }

    /// The files that say where.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.lists().map(|(_, file)| file.as_path())
    }

    /// What is wrong with the keys themselves.
    pub(super) fn problem(&self) -> Option<String> {
        if self.lists().next().is_none() {
            Some("has no file; expected at least one of `validation`, `test` and `exclude`".to_owned())
        } else if self.margin > 0 && self.validation.is_none() && self.test.is_none() {
            Some("has a `margin` but neither `validation` nor `test`, around which it would lie".to_owned())
        } else {
            None
        }
    }

    /// Reads the files and finds their intervals on the records; `listed` says which contigs are listed as a whole.
    pub(super) fn load(
        &self,
        task: &Task,
        records: &[Record],
        listed: impl Fn(&String) -> Option<&'static str>,
    ) -> Result<HeldOut, Error> {
        let contigs = Contigs::of(records);
        let mut held = HeldOut::default();
        let mut files = BTreeMap::new();
        for (list, file) in self.lists() {
            let lines = Lines::read(&task.file(file))?;
            for (sequence, intervals) in lines.sequences() {
                for &number in contigs.find(sequence, &lines)? {
                    let record = &records[number];
                    lines.check_end(record.source.as_ref(), sequence, record.bases)?;
                    if let Some(key) = listed(&record.name) {
                        let reason = format!(
                            "{} has an interval of `{}`, which `{key}` lists as a whole; expected one of the two",
                            lines.origin(intervals[0].line),
                            record.name
                        );
                        return Err(Error::Config { key: "intervals", reason });
                    }
                    let marks =
                        intervals.iter().map(|line| Mark { interval: line.interval, list, line: line.line });
                    held.marks.entry(number as u64).or_default().extend(marks);
                }
            }
            files.insert(list, lines);
        }
        let origin = |mark: &Mark| files[mark.list].origin(mark.line);
        for (&number, marks) in &mut held.marks {
            let record = &records[super::index(number)];
            marks.sort_unstable();
            check_apart(&record.name, marks, origin)?;
            join(marks);
            let margins = margins(marks, self.margin, record.bases);
            marks.extend(margins);
            marks.sort_unstable();
        }
        check_reads(&held, records)?;
        Ok(held)
    }
}

/// The records that are contigs.
struct Contigs<'a> {
    records: &'a [Record],
    by_name: HashMap<&'a str, Vec<usize>>,
    by_source: HashMap<String, Vec<usize>>,
}

impl<'a> Contigs<'a> {
    fn of(records: &'a [Record]) -> Self {
        let (mut by_name, mut by_source): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = Default::default();
        for (number, record) in records.iter().enumerate().filter(|(_, record)| is_contig(record)) {
            by_name.entry(record.name.as_str()).or_default().push(number);
            by_source.entry(format!("{}:{}", record.source, record.name)).or_default().push(number);
        }
        Self { records, by_name, by_source }
    }

    /// The contigs that a name stands for.
    fn find(&self, name: &str, lines: &Lines) -> Result<&[usize], Error> {
        let found = self.by_name.get(name).or_else(|| self.by_source.get(name));
        found.map(Vec::as_slice).ok_or_else(|| {
            let contigs = || self.records.iter().filter(|record| is_contig(record));
            let unique = |mut names: Vec<&'a str>| {
                let mut seen = HashSet::new();
                names.retain(|name| seen.insert(*name));
                names
            };
            let known = unique(contigs().map(|record| record.name.as_str()).collect());
            let sources = unique(contigs().map(|record| record.source.as_str()).collect());
            lines.no_record(sources.join(", ").as_ref(), name, &known).into()
        })
    }
}

fn is_contig(record: &Record) -> bool {
    record.contig.as_ref() == Some(&record.name)
}

/// Refuses intervals of two lists that overlap; `marks` ascend.
fn check_apart(name: &str, marks: &[Mark], origin: impl Fn(&Mark) -> Origin) -> Result<(), Error> {
    let mut furthest: Option<&Mark> = None;
    for mark in marks {
        if let Some(last) =
            furthest.filter(|last| last.list != mark.list && last.interval.overlaps(mark.interval))
        {
            let reason = format!(
                "`{name}:{}` of `{}` ({}) overlaps `{name}:{}` of `{}` ({}); expected no base in two of them",
                mark.interval,
                mark.list,
                origin(mark),
                last.interval,
                last.list,
                origin(last)
            );
            return Err(Error::Config { key: "intervals", reason });
        }
        if furthest.is_none_or(|last| last.interval.end < mark.interval.end) {
            furthest = Some(mark);
        }
    }
    Ok(())
}

/// Makes one of marks of a list that overlap or touch; `marks` ascend.
fn join(marks: &mut Vec<Mark>) {
    marks.dedup_by(|next, kept| {
        let joined = next.list == kept.list && next.interval.start <= kept.interval.end;
        if joined {
            kept.interval.end = kept.interval.end.max(next.interval.end);
        }
        joined
    });
}

/// What lies within `margin` bases of held-out marks and in no mark; `marks` ascend and are apart.
fn margins(marks: &[Mark], margin: u64, bases: u64) -> Vec<Mark> {
    let held = marks.iter().filter(|mark| mark.list != "exclude").map(|mark| mark.interval);
    let widened = held.map(|held| {
        Interval::new(held.start.saturating_sub(margin), held.end.saturating_add(margin).min(bases))
    });
    let mut widened: Vec<Interval> = widened.collect();
    units::merge(&mut widened);
    let free = widened.into_iter().flat_map(|wide| cut(marks, wide)).filter(|(_, mark)| mark.is_none());
    free.map(|(interval, _)| Mark { interval, list: MARGIN, line: 0 }).collect()
}

/// The parts of an interval, ascending, each with the mark that it lies in; `marks` ascend and are apart.
fn cut(marks: &[Mark], interval: Interval) -> Vec<(Interval, Option<Mark>)> {
    let first = marks.partition_point(|mark| mark.interval.end <= interval.start);
    let (mut parts, mut from) = (Vec::new(), interval.start);
    for mark in marks[first..].iter().take_while(|mark| mark.interval.start < interval.end) {
        let (start, end) = (mark.interval.start.max(from), mark.interval.end.min(interval.end));
        if from < start {
            parts.push((Interval::new(from, start), None));
        }
        parts.push((Interval::new(start, end), Some(*mark)));
        from = end;
    }
    if from < interval.end {
        parts.push((Interval::new(from, interval.end), None));
    }
    parts
}

/// Refuses reads of contigs that have intervals: where they lie is not known.
fn check_reads(held: &HeldOut, records: &[Record]) -> Result<(), Error> {
    let cut: HashSet<&str> =
        held.marks.keys().map(|&number| records[super::index(number)].name.as_str()).collect();
    let is_lost = |record: &&Record| {
        !is_contig(record) && record.contig.as_ref().is_some_and(|contig| cut.contains(contig.as_str()))
    };
    records.iter().find(is_lost).map_or(Ok(()), |read| {
        let reason = format!(
            "read `{}` of `{}` is aligned to `{}`, which has intervals, but its place there is not kept; split reads by \
             whole contigs",
            read.name,
            read.source,
            read.contig.as_deref().unwrap_or_default()
        );
        Err(Error::Config { key: "intervals", reason })
    })
}

/// Where the intervals lie on records.
#[derive(Debug, Default)]
pub(super) struct HeldOut {
    /// By record: ascending and apart, margins among them.
    marks: HashMap<u64, Vec<Mark>>,
}

impl HeldOut {
    /// The parts of an interval of a record, ascending, and where those go that lie in an interval or a margin.
    pub(super) fn cut(&self, record: u64, interval: Interval) -> Vec<(Interval, Option<Place>)> {
        let marks = self.marks.get(&record).map_or(&[][..], Vec::as_slice);
        cut(marks, interval).into_iter().map(|(part, mark)| (part, mark.map(Mark::place))).collect()
    }

    /// For the manifest: intervals (those that touch are one) and bases on records, by list.
    pub(super) fn details(&self) -> Value {
        let mut lists: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for mark in self.marks.values().flatten() {
            let tally = lists.entry(if mark.list == MARGIN { "margin" } else { mark.list }).or_default();
            *tally = (tally.0 + 1, tally.1 + mark.interval.len());
        }
        let tallies = lists.into_iter();
        tallies
            .map(|(list, (intervals, bases))| (list, json!({ "intervals": intervals, "bases": bases })))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTS: [&str; 3] = ["validation", "test", "exclude"];

    fn mark(start: u64, end: u64, list: &'static str) -> Mark {
        Mark { interval: Interval::new(start, end), list, line: 1 }
    }

    #[test]
    fn margins_lie_beside_held_out_intervals_and_in_none() {
        let marks = [
            mark(10, 20, "test"),
            mark(20, 23, "exclude"),
            mark(40, 50, "validation"),
            mark(58, 60, "exclude"),
        ];
        for (margin, expected) in [
            (0, ""),
            (2, "8-10 38-40 50-52"),
            (8, "2-10 23-28 32-40 50-58"),
            (10, "0-10 23-40 50-58"),
            (100, "0-10 23-40 50-58 60-64"),
        ] {
            let found: Vec<_> =
                margins(&marks, margin, 64).iter().map(|mark| mark.interval.to_string()).collect();
            assert_eq!(found.join(" "), expected, "{margin}");
        }
    }

    #[test]
    fn intervals_of_two_lists_must_be_apart() {
        let origin =
            |mark: &Mark| Origin::Line { file: format!("{}.bed", mark.list).into(), line: mark.line };
        let check = |marks: &[Mark]| check_apart("c", marks, origin).map_err(|error| error.to_string());
        assert_eq!(check(&[mark(0, 9, "test"), mark(5, 12, "test"), mark(12, 13, "exclude")]), Ok(()));
        let wrong = [mark(0, 90, "test"), mark(5, 12, "test"), mark(80, 95, "validation")];
        let expected = "`intervals`: `c:80-95` of `validation` (`validation.bed`, line 1) overlaps `c:0-90` of `test` \
                        (`test.bed`, line 1); expected no base in two of them";
        assert_eq!(check(&wrong), Err(expected.to_owned()));
    }

    proptest! {
        /// Every base goes to one place, and that is the one that its interval, else a margin, says.
        #[test]
        fn every_base_goes_to_one_place(
            lengths in prop::collection::vec((0u64..12, 1u64..9, 0usize..3), 0..9),
            margin in 0u64..9,
            (start, length) in (0u64..150, 1u64..150),
        ) {
            const BASES: u64 = 320;
            let (mut marks, mut at) = (Vec::new(), 0);
            for (gap, length, list) in lengths {
                marks.push(mark(at + gap, at + gap + length, LISTS[list]));
                at += gap + length;
            }
            let place_of = |base: u64| {
                let near = |margin: u64, mark: &&Mark| base + margin >= mark.interval.start && base < mark.interval.end + margin;
                let held = |mark: &&Mark| mark.list != "exclude" && near(margin, mark);
                marks.iter().find(|mark| near(0, mark)).map(|mark| mark.place())
                    .or_else(|| marks.iter().any(|mark| held(&mark)).then_some(Place::Dropped(MARGIN)))
            };
            let mut all = marks.clone();
            join(&mut all);
            let beside = margins(&all, margin, BASES);
            all.extend(beside);
            all.sort_unstable();
            let held = HeldOut { marks: HashMap::from([(3, all)]) };
            let mut next = start;
            for (part, place) in held.cut(3, Interval::new(start, start + length)) {
                prop_assert_eq!(part.start, next);
                prop_assert!(!part.is_empty());
                for base in part.start..part.end {
                    prop_assert_eq!(place, place_of(base), "base {}", base);
                }
                next = part.end;
            }
            prop_assert_eq!(next, start + length);
        }
    }
}
