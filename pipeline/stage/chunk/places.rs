//! Places on records by annotation or soft-mask: where windows may lie, and how many of them are kept.
//!
//! Memory: 24 bytes for every stretch of a place, those of all records at once.

use std::collections::HashMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::records::Record;
use super::super::{Error, Task};
use crate::loader::{fraction, mix};
use crate::source::region::{Reach, Regions, Site};
use crate::units::{self, Interval};

/// Places by annotation: genes with flanks, coding sequence, promoters (`site: start`), peaks.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Places {
    /// The source whose records the file annotates; may be left out when there is one source only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// A GFF3 or GTF file, plain or compressed; relative to the workflow file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gff: Option<PathBuf>,
    /// Kinds of features that are taken from `gff`, such as `gene` or `CDS`; by default all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    features: Vec<String>,
    /// A BED file, plain or compressed; relative to the workflow file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bed: Option<PathBuf>,
    /// Which part of a feature is taken: `whole` (default), its `start` (of a gene: where transcription starts) or its `end`.
    #[serde(default)]
    site: Site,
    /// Bases more before it, on its strand. Default 0.
    #[serde(default)]
    upstream: u64,
    /// Bases more behind it, on its strand. Default 0.
    #[serde(default)]
    downstream: u64,
}

impl Places {
    /// What is wrong with the places themselves.
    pub fn problem(&self) -> Option<String> {
        if self.gff.is_some() == self.bed.is_some() {
            Some("needs one of `gff` and `bed`".to_owned())
        } else if self.bed.is_some() && !self.features.is_empty() {
            Some("has `features`, which only `gff` takes".to_owned())
        } else if self.site != Site::Whole && self.upstream + self.downstream == 0 {
            Some("is of 0 bases; give `upstream` or `downstream`".to_owned())
        } else {
            None
        }
    }

    /// The file that says where.
    pub fn file(&self) -> Option<&PathBuf> {
        self.gff.as_ref().or(self.bed.as_ref())
    }

    /// The places on the records of the source. Every sequence that the file names must be one of them.
    fn load(&self, task: &Task, records: &[Record], map: &mut Map) -> Result<(), Error> {
        let source = self.source_of(records)?;
        let reach = Reach { site: self.site, upstream: self.upstream, downstream: self.downstream };
        let mut regions = Regions::reaching(reach);
        if let Some(gff) = &self.gff {
            regions.add_features(&task.file(gff), &self.features)?;
        }
        if let Some(bed) = &self.bed {
            regions.add_bed(&task.file(bed))?;
        }
        let regions = regions.merged();
        let own = || (0..).zip(records).filter(|(_, record)| record.source == source);
        let names: Vec<&str> = own().map(|(_, record)| record.name.as_str()).collect();
        regions.check_names(source.as_ref(), &names)?;
        for (number, record) in own() {
            regions.check_end(source.as_ref(), &record.name, record.bases)?;
            for interval in regions.of(&record.name).iter().filter(|interval| interval.start < record.bases) {
                map.add(number, Interval::new(interval.start, interval.end.min(record.bases)));
            }
        }
        Ok(())
    }

    fn source_of<'a>(&'a self, records: &'a [Record]) -> Result<&'a str, Error> {
        let mut sources: Vec<&str> = records.iter().map(|record| record.source.as_str()).collect();
        sources.dedup();
        sources.sort_unstable();
        sources.dedup();
        let listed = || sources.iter().map(|source| format!("`{source}`")).collect::<Vec<_>>().join(", ");
        let problem = |reason: String| Error::Config { key: "source", reason };
        match (&self.source, &sources[..]) {
            (None, [source]) => Ok(source),
            (None, _) => Err(problem(format!(
                "is not given, and there are {}; expected the one that the file annotates",
                listed()
            ))),
            (Some(source), _) if sources.contains(&source.as_str()) => Ok(source),
            (Some(source), _) => {
                Err(problem(format!("no record comes from `{source}`; there are {}", listed())))
            }
        }
    }
}

/// Stretches of records.
#[derive(Debug, Default)]
pub struct Map(HashMap<u64, Vec<Interval>>);

impl Map {
    /// The places of some files, as one.
    pub fn load(places: &[Places], task: &Task, records: &[Record]) -> Result<Self, Error> {
        let mut map = Self::default();
        places.iter().try_for_each(|places| places.load(task, records, &mut map))?;
        map.settle();
        Ok(map)
    }

    /// From stretches that are apart and ascending.
    pub fn of_stretches(stretches: impl IntoIterator<Item = (u64, Interval)>) -> Self {
        let mut map = Self::default();
        stretches.into_iter().for_each(|(record, interval)| map.add(record, interval));
        map.settle();
        map
    }

    fn add(&mut self, record: u64, interval: Interval) {
        self.0.entry(record).or_default().push(interval);
    }

    /// Sorts, and makes one of stretches that overlap or touch.
    fn settle(&mut self) {
        self.0.values_mut().for_each(units::merge);
    }

    /// What lies within an interval of a record, ascending.
    pub fn within(&self, record: u64, interval: Interval) -> impl Iterator<Item = Interval> {
        let stretches = self.0.get(&record).map_or(&[][..], Vec::as_slice);
        let first = stretches.partition_point(|stretch| stretch.end <= interval.start);
        let meets = stretches[first..].iter().take_while(move |stretch| stretch.start < interval.end);
        meets.map(move |stretch| {
            Interval::new(stretch.start.max(interval.start), stretch.end.min(interval.end))
        })
    }

    /// Whether more than half of an interval lies within.
    fn holds_most_of(&self, record: u64, interval: Interval) -> bool {
        2 * self.within(record, interval).map(Interval::len).sum::<u64>() > interval.len()
    }
}

/// Keeps a share of the windows of a class. A window belongs to the first class that holds more than half of its bases.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The class: places by annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<Places>,
    /// The class: what the source writes in lower case, mostly repeats. Without `of` and this, the class is every window.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    soft_masked: bool,
    /// The share of its windows that is kept, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    keep: f64,
}

impl Rule {
    /// What is wrong with the rule itself.
    pub fn problem(&self) -> Option<String> {
        if !(0.0..=1.0).contains(&self.keep) {
            return Some(format!("`keep` is {}, expected 0 to 1", self.keep));
        }
        if self.of.is_some() && self.soft_masked {
            return Some("has both `of` and `soft_masked`; expected one of them".to_owned());
        }
        self.of.as_ref().and_then(Places::problem)
    }

    /// Whether it needs to know what is soft-masked.
    pub const fn asks_for_masks(&self) -> bool {
        self.soft_masked
    }

    /// The file that says where.
    pub fn file(&self) -> Option<&PathBuf> {
        self.of.as_ref().and_then(Places::file)
    }

    /// What messages and manifests call its class.
    pub fn name(&self) -> String {
        match &self.of {
            _ if self.soft_masked => "soft-masked".to_owned(),
            None => "others".to_owned(),
            Some(places) => {
                let kinds = if places.features.is_empty() {
                    places.file().map(|file| file.display().to_string()).unwrap_or_default()
                } else {
                    places.features.join(" or ")
                };
                if places.site == Site::Whole {
                    kinds
                } else {
                    format!("{:?} of {kinds}", places.site).to_lowercase()
                }
            }
        }
    }
}

/// Which windows are kept, with a coin for each.
#[derive(Debug, Default)]
pub struct Sampling {
    classes: Vec<(Option<Map>, f64)>,
    seed: u64,
}

/// Sets these coins apart from those that choose strands.
const SALT: u64 = 0x5bd1_e995_9d1b_54a5;

impl Sampling {
    /// From rules; `masks` are the soft-masked stretches of all records.
    pub fn load(
        rules: &[Rule],
        seed: u64,
        task: &Task,
        records: &[Record],
        masks: &[(u64, Interval)],
    ) -> Result<Self, Error> {
        let class = |rule: &Rule| {
            let map = match &rule.of {
                _ if rule.soft_masked => Some(Map::of_stretches(masks.iter().copied())),
                Some(places) => Some(Map::load(std::slice::from_ref(places), task, records)?),
                None => None,
            };
            Ok((map, rule.keep))
        };
        let classes = rules.iter().map(class).collect::<Result<_, Error>>()?;
        Ok(Self { classes, seed })
    }

    /// The class of a window by its number, if there is one for it, and whether the window is kept.
    pub fn decide(&self, record: u64, window: Interval) -> (Option<usize>, bool) {
        let holds = |map: &Option<Map>| map.as_ref().is_none_or(|map| map.holds_most_of(record, window));
        let Some(class) = self.classes.iter().position(|(map, _)| holds(map)) else { return (None, true) };
        let coin = mix(self.seed ^ SALT ^ mix(record ^ mix(window.start)));
        (Some(class), fraction(coin) < self.classes[class].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(stretches: &[(u64, u64, u64)]) -> Map {
        Map::of_stretches(stretches.iter().map(|&(record, start, end)| (record, Interval::new(start, end))))
    }

    #[test]
    fn stretches_are_clipped_and_made_one() {
        let map = map(&[(0, 30, 40), (0, 5, 10), (0, 8, 20), (0, 20, 22), (2, 0, 9)]);
        let cases = [
            (0, (0, 100), vec![(5, 22), (30, 40)]),
            (0, (10, 31), vec![(10, 22), (30, 31)]),
            (0, (22, 30), vec![]),
            (1, (0, 100), vec![]),
            (2, (3, 4), vec![(3, 4)]),
        ];
        for (record, (start, end), expected) in cases {
            let found: Vec<_> =
                map.within(record, Interval::new(start, end)).map(|i| (i.start, i.end)).collect();
            assert_eq!(found, expected, "{record}:{start}-{end}");
        }
    }

    #[test]
    fn the_first_class_that_holds_most_of_a_window_decides() {
        let classes = vec![(Some(map(&[(0, 0, 100)])), 1.0), (Some(map(&[(0, 50, 200)])), 0.0), (None, 0.25)];
        let sampling = Sampling { classes, seed: 7 };
        let decide = |start| sampling.decide(0, Interval::new(start, start + 40));
        assert_eq!(decide(20), (Some(0), true));
        assert_eq!(decide(79), (Some(0), true));
        assert_eq!(decide(80), (Some(1), false));
        assert_eq!(decide(181).0, Some(2));
        let kept = (0..10_000).filter(|i| sampling.decide(1, Interval::new(i * 40, i * 40 + 40)).1).count();
        assert!((2350..2650).contains(&kept), "{kept}");
        assert_eq!(Sampling::default().decide(0, Interval::new(0, 9)), (None, true));
    }
}
