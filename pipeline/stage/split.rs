//! Assigns every kept interval to a split by its contig, so that no contig stands in two splits; reads follow the contig
//! that they are aligned to. Memory: the record table.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::records::{
    INTERVALS, RECORDS, Record, Stretch, StretchWriter, check_sources, for_each_stretch, index, read_records,
};
use super::{Error, Outcome, Stage, Task, from, reference, to_json};
use crate::artifact::Counts;
use crate::units::Interval;

/// Which contig goes where. A contig that no key mentions is for training.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that cleaned the records.
    from: String,
    /// Contigs for validation while training.
    #[serde(default)]
    validation: Vec<String>,
    /// Contigs for the last test.
    #[serde(default)]
    test: Vec<String>,
    /// Contigs that are left out.
    #[serde(default)]
    exclude: Vec<String>,
    /// Share of the other contigs that goes to validation, drawn by name. Default 0.
    #[serde(default)]
    validation_fraction: f64,
    /// Share of the other contigs that goes to test, drawn by name. Default 0.
    #[serde(default)]
    test_fraction: f64,
    /// Chooses the draw; the same contig name falls the same way whatever else is there.
    #[serde(default)]
    seed: u64,
    /// Cut contigs at multiples of this many bases and draw each block by itself: for genomes of one contig. Not for
    /// reads, whose block is not looked up. Default: whole contigs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    block: Option<u64>,
    /// For single sources, a name in place of `train`, `validation` or `test`; null leaves that part out. So reads can be
    /// kept from training and tested by themselves: `reads: {train: null, validation: null, test: reads}`.
    #[serde(default)]
    sources: BTreeMap<String, BTreeMap<String, Option<String>>>,
    /// What happens to reads that are aligned to no contig: `exclude` (default, for they may come from a held-out
    /// one) or `train`.
    #[serde(default)]
    unplaced: Unplaced,
}

/// What happens to reads that are aligned to no contig.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unplaced {
    /// They are left out.
    #[default]
    Exclude,
    /// They are for training.
    Train,
}

/// The parts that contigs are assigned to.
const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Split(&'static str),
    Dropped(&'static str),
}

impl Config {
    /// `place` says what is drawn: a contig, or a block of one.
    fn place(&self, record: &Record, drawn: &str) -> Place {
        let Some(contig) = &record.contig else {
            return if self.unplaced == Unplaced::Train {
                Place::Split("train")
            } else {
                Place::Dropped("unplaced read")
            };
        };
        if self.exclude.contains(contig) {
            return Place::Dropped("excluded contig");
        }
        if self.validation.contains(contig) {
            return Place::Split("validation");
        }
        if self.test.contains(contig) {
            return Place::Split("test");
        }
        let draw = self.draw(drawn);
        if draw < self.validation_fraction {
            Place::Split("validation")
        } else if draw < self.validation_fraction + self.test_fraction {
            Place::Split("test")
        } else {
            Place::Split("train")
        }
    }

    /// A number from 0 to 1 that depends on the seed and the contig's name alone.
    fn draw(&self, contig: &str) -> f64 {
        let hash = blake3::hash(format!("{} {contig}", self.seed).as_bytes());
        let bytes: [u8; 8] = hash.as_bytes()[..8].try_into().unwrap_or_default();
        (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The name of a record's split, after the renaming that its source asks for.
    fn renamed<'a>(&'a self, record: &Record, split: &'a str) -> Option<&'a str> {
        match self.sources.get(&record.source).and_then(|names| names.get(split)) {
            Some(name) => name.as_deref(),
            None => Some(split),
        }
    }

    /// The parts of an interval that are drawn together, each with the name that it is drawn by.
    fn parts(&self, record: &Record, interval: Interval) -> Vec<(String, Interval)> {
        let contig = record.contig.clone().unwrap_or_default();
        let Some(block) = self.block else { return vec![(contig, interval)] };
        let blocks = interval.start / block..interval.end.div_ceil(block);
        let part =
            |b: u64| Interval::new((b * block).max(interval.start), ((b + 1) * block).min(interval.end));
        blocks.map(|b| (format!("{contig}:{b}"), part(b))).collect()
    }

    fn check_block(&self, records: &[Record]) -> Result<(), Error> {
        let read = records.iter().find(|record| record.contig.as_ref() != Some(&record.name));
        match (self.block, read) {
            (Some(_), Some(read)) => Err(Error::Config {
                key: "block",
                reason: format!(
                    "read `{}` of `{}` has no block; split reads by whole contigs",
                    read.name, read.source
                ),
            }),
            _ => Ok(()),
        }
    }

    fn check_names(&self, records: &[Record]) -> Result<(), Error> {
        let keys = [("validation", &self.validation), ("test", &self.test), ("exclude", &self.exclude)];
        for (key, name) in keys.iter().flat_map(|(key, names)| names.iter().map(|name| (*key, name))) {
            if !records.iter().any(|record| record.contig.as_ref() == Some(name)) {
                let mut contigs: Vec<&str> = records.iter().filter_map(|r| r.contig.as_deref()).collect();
                contigs.sort_unstable();
                contigs.dedup();
                let some = contigs.iter().take(20).map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ");
                return Err(Error::Config {
                    key,
                    reason: format!("no contig is called `{name}`; there are {some}"),
                });
            }
        }
        Ok(())
    }
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        from(&self.from)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.block == Some(0) {
            problems.push(("block", "is 0, expected at least 1 base".to_owned()));
        }
        let sum = self.validation_fraction + self.test_fraction;
        if self.validation_fraction < 0.0 || self.test_fraction < 0.0 || sum.is_nan() || sum >= 1.0 {
            problems.push(("test_fraction", format!("the fractions add up to {sum}, expected 0 to below 1")));
        }
        for (source, names) in &self.sources {
            let parts = names.keys().map(String::as_str).filter(|part| !SPLITS.contains(part));
            problems.extend(parts.map(|part| {
                (
                    "sources",
                    format!(
                        "source `{source}` renames `{part}`, expected one of `train`, `validation`, `test`"
                    ),
                )
            }));
            let taken = names.iter().filter_map(|(part, name)| {
                name.as_deref().filter(|name| part != name && SPLITS.contains(name))
            });
            problems.extend(taken.map(|name| ("sources", format!("source `{source}` gives another part the name `{name}`, which would mix held-out contigs"))));
        }
        for name in &self.test {
            if self.validation.contains(name) || self.exclude.contains(name) {
                problems.push(("test", format!("`{name}` stands in another list too")));
            }
        }
        for name in self.validation.iter().filter(|name| self.exclude.contains(name)) {
            problems.push(("validation", format!("`{name}` stands in `exclude` too")));
        }
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let input = task.input_of("from", &["clean"])?;
        let records = read_records(&input.path(RECORDS))?;
        self.check_names(&records)?;
        self.check_block(&records)?;
        check_sources(self.sources.keys(), &records)?;
        let mut writer = StretchWriter::create(&task.out.join(INTERVALS))?;
        let mut counts = Counts::default();
        let mut splits: BTreeMap<String, Tally> = BTreeMap::new();
        for_each_stretch::<Error>(&input.path(INTERVALS), |stretch| {
            let record = &records[index(stretch.record)];
            for (drawn, interval) in self.parts(record, stretch.interval) {
                let bases = interval.len();
                counts.bases_in += bases;
                let split = match self.place(record, &drawn) {
                    Place::Dropped(reason) => Err(reason.to_owned()),
                    Place::Split(split) => self
                        .renamed(record, split)
                        .ok_or_else(|| format!("{split} part of source {}", record.source)),
                };
                match split {
                    Err(reason) => counts.drop_bases(&reason, bases),
                    Ok(split) => {
                        counts.bases_out += bases;
                        splits.entry(split.to_owned()).or_default().add(record, bases);
                        writer.push(Stretch { split: split.to_owned(), interval, ..stretch.clone() })?;
                    }
                }
            }
            task.check()
        })?;
        writer.finish()?;
        let summary = splits.iter().map(|(name, tally)| format!("{name} {} bases", tally.bases));
        let summary = summary.collect::<Vec<_>>().join(", ");
        let details = json!({ "splits": splits });
        Ok(Outcome {
            counts,
            references: vec![reference("sequence", input)],
            details,
            summary,
            ..Outcome::default()
        })
    }
}

/// What a split holds.
#[derive(Debug, Default, Serialize)]
struct Tally {
    contigs: std::collections::BTreeSet<String>,
    intervals: u64,
    bases: u64,
}

impl Tally {
    fn add(&mut self, record: &Record, bases: u64) {
        self.intervals += 1;
        self.bases += bases;
        if let Some(contig) = record.contig.as_ref().filter(|contig| !self.contigs.contains(*contig)) {
            self.contigs.insert(contig.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn reads_follow_their_contig() {
        let config = config(r#"{"from": "x", "validation": ["b"], "test": ["c"], "exclude": ["d"]}"#);
        let place = |contig: Option<&str>| {
            let (source, name) = ("s".to_owned(), "n".to_owned());
            config.place(&Record { source, name, contig: contig.map(str::to_owned), bases: 1 }, "drawn")
        };
        assert_eq!(place(Some("a")), Place::Split("train"));
        assert_eq!(place(Some("b")), Place::Split("validation"));
        assert_eq!(place(Some("c")), Place::Split("test"));
        assert_eq!(place(Some("d")), Place::Dropped("excluded contig"));
        assert_eq!(place(None), Place::Dropped("unplaced read"));
    }

    #[test]
    fn a_source_can_rename_its_parts_but_not_mix_them() {
        let text = r#"{"from": "x", "sources": {"reads": {"train": null, "test": "reads"}}}"#;
        let config = config(text);
        let record =
            |source: &str| Record { source: source.into(), name: "n".into(), contig: None, bases: 1 };
        assert_eq!(config.renamed(&record("reads"), "train"), None);
        assert_eq!(config.renamed(&record("reads"), "test"), Some("reads"));
        assert_eq!(config.renamed(&record("genome"), "test"), Some("test"));
        assert!(config.problems().is_empty());
        let mixed: Config = serde_json::from_str(&text.replace(r#""reads"}}"#, r#""train"}}"#)).unwrap();
        assert!(mixed.problems()[0].1.contains("would mix held-out contigs"));
    }

    #[test]
    fn blocks_cover_an_interval_without_overlap() {
        let config = config(r#"{"from": "x", "block": 10}"#);
        let record = Record { source: "s".into(), name: "c".into(), contig: Some("c".into()), bases: 40 };
        let parts = config.parts(&record, Interval::new(7, 30));
        let expected = [("c:0", (7, 10)), ("c:1", (10, 20)), ("c:2", (20, 30))];
        let found: Vec<_> = parts.iter().map(|(name, i)| (name.as_str(), (i.start, i.end))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn fractions_are_met_and_depend_on_the_name_alone() {
        let config = config(r#"{"from": "x", "validation_fraction": 0.1, "test_fraction": 0.2, "seed": 3}"#);
        let draws: Vec<f64> = (0..10_000).map(|i| config.draw(&format!("contig{i}"))).collect();
        let share = draws.iter().filter(|&&draw| draw < 0.1).count() as f64 / 10_000.0;
        assert!((share - 0.1).abs() < 0.02, "{share}");
        assert!((config.draw("contig7") - draws[7]).abs() < f64::EPSILON);
    }
}
