//! Cuts intervals into windows: places on records, never copies of bases. Memory: a batch of windows; with `within` or
//! `sample` the places that they name and the table of records.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::records::{INTERVALS, RECORDS, Stretch, StretchWriter, for_each_stretch, read_records};
use super::tokenizer::read_masks;
use super::{Error, File, Outcome, Stage, Task, from, to_json};
use crate::artifact::{Artifact, Counts};
use crate::loader::mix;
use crate::units::{Interval, Strand};

mod places;

use places::{Map, Places, Rule, Sampling};

/// The table of windows within the artifact.
pub const WINDOWS: &str = "windows.parquet";

/// Whether an artifact holds windows; others hold intervals.
pub fn has_windows(artifact: &Artifact) -> bool {
    artifact.path(WINDOWS).is_file()
}

/// How to cut.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that split the records.
    from: String,
    /// Length of a window, in bases.
    #[schemars(range(min = 1))]
    window: u64,
    /// Distance between the starts of windows, in bases; by default the window's length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stride: Option<u64>,
    /// What happens to a last window that is shorter: `keep` (default) or `drop`.
    #[serde(default)]
    tail: Tail,
    /// Splits whose windows come on the reverse strand too.
    #[serde(default)]
    reverse_complement: Vec<String>,
    /// Splits each of whose windows comes on one strand alone, which a coin chooses: as many tokens as without, and both
    /// strands are seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    either_strand: Vec<String>,
    /// Windows come from these places only (each cut by itself), not from the bases between them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    within: Vec<Places>,
    /// Keeps a share of the windows of some classes, such as repeats or what lies between genes. The first rule that fits a
    /// window decides; a window that none fits is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sample: Vec<Rule>,
    /// The splits that `sample` thins. Default: `train`.
    #[serde(default = "train", skip_serializing_if = "is_train")]
    sample_splits: Vec<String>,
    /// Tosses the coins of `either_strand` and `sample`; a window's depends on its record and start alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    seed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(seed: &u64) -> bool {
    *seed == 0
}

fn train() -> Vec<String> {
    vec!["train".to_owned()]
}

fn is_train(splits: &[String]) -> bool {
    splits == ["train"]
}

/// What happens to a last window that is shorter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Tail {
    /// It is kept as it is.
    #[default]
    Keep,
    /// It is dropped, and its bases are counted.
    Drop,
}

impl Config {
    fn stride(&self) -> u64 {
        self.stride.unwrap_or(self.window)
    }

    /// The strands that a window of `split` comes on.
    fn strands(&self, split: &String, record: u64, window: Interval) -> &'static [Strand] {
        let coin = || mix(self.seed ^ mix(record ^ mix(window.start))) >> 63;
        if self.reverse_complement.contains(split) {
            &[Strand::Forward, Strand::Reverse]
        } else if self.either_strand.contains(split) && coin() == 1 {
            &[Strand::Reverse]
        } else {
            &[Strand::Forward]
        }
    }

    /// Refuses names of splits that are not there.
    fn check_splits(&self, splits: &BTreeMap<String, Tally>) -> Result<(), Error> {
        let thinned = if self.sample.is_empty() { &Vec::new() } else { &self.sample_splits };
        let lists = [
            ("reverse_complement", &self.reverse_complement),
            ("either_strand", &self.either_strand),
            ("sample_splits", thinned),
        ];
        let mut names = lists.into_iter().flat_map(|(key, names)| names.iter().map(move |name| (key, name)));
        names.find(|(_, name)| !splits.contains_key(*name)).map_or(Ok(()), |(key, name)| {
            let known = splits.keys().map(|split| format!("`{split}`")).collect::<Vec<_>>().join(", ");
            let reason = format!("no split is called `{name}`; there are {known}");
            Err(Error::Config { key, reason })
        })
    }

    /// The windows of an interval, in order. The last one reaches the interval's end, or nothing does.
    fn windows(&self, interval: Interval) -> impl Iterator<Item = Interval> {
        let (window, stride, tail) = (self.window, self.stride(), self.tail);
        let mut next = Some(interval.start);
        std::iter::from_fn(move || {
            let start = next?;
            let end = start.saturating_add(window).min(interval.end);
            next = (end < interval.end).then(|| start + stride);
            Some(Interval::new(start, end))
        })
        .filter(move |w| tail == Tail::Keep || w.len() == window)
    }
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        from(&self.from)
    }

    fn files(&self, _base: &Path) -> Result<Vec<File>, Error> {
        let within = self.within.iter().filter_map(Places::file);
        Ok(within.chain(self.sample.iter().filter_map(Rule::file)).map(|path| File::new(path)).collect())
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.window == 0 {
            problems.push(("window", "is 0, expected at least 1 base".to_owned()));
        }
        if self.stride() == 0 || self.stride() > self.window {
            problems.push((
                "stride",
                format!("is {}, expected 1 to {} (the window)", self.stride(), self.window),
            ));
        }
        for name in self.either_strand.iter().filter(|name| self.reverse_complement.contains(name)) {
            problems.push(("either_strand", format!("`{name}` stands in `reverse_complement` too")));
        }
        problems.extend(self.within.iter().filter_map(|places| Some(("within", places.problem()?))));
        problems.extend(self.sample.iter().filter_map(|rule| Some(("sample", rule.problem()?))));
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let input = task.input_of("from", &["split", "decontaminate"])?;
        if has_windows(input) {
            let reason = "it holds windows, which are cut already; `from` takes intervals".to_owned();
            return Err(Error::Unusable { input: input.manifest.stage.clone(), reason });
        }
        let (within, sampling) = self.load_places(task, input)?;
        let mut cut = Cut::new(self, StretchWriter::create(&task.out.join(WINDOWS))?, sampling);
        for_each_stretch::<Error>(&input.path(INTERVALS), |stretch| {
            cut.counts.bases_in += stretch.interval.len();
            match &within {
                None => cut.part(&stretch, stretch.interval)?,
                Some(map) => {
                    let mut inside = 0;
                    for part in map.within(stretch.record, stretch.interval) {
                        inside += part.len();
                        cut.part(&stretch, part)?;
                    }
                    cut.drop(
                        &stretch.split,
                        "outside the places of `within`",
                        stretch.interval.len() - inside,
                    );
                }
            }
            task.check()
        })?;
        let Cut { writer, mut counts, splits, lengths, classes, .. } = cut;
        writer.finish()?;
        self.check_splits(&splits)?;
        let windows = splits.values().map(|tally| tally.windows).sum();
        counts.set("windows", windows);
        let lengths: Vec<(u64, u64)> = lengths.into_iter().collect();
        let mut details = json!({ "splits": splits, "lengths": lengths });
        if !self.sample.is_empty() {
            let named = self.sample.iter().zip(&classes);
            details["sample"] = named
                .map(|(rule, class)| json!({"class": rule.name(), "windows": class.windows, "kept": class.kept}))
                .collect();
        }
        let references = input.manifest.references.clone();
        let summary = format!("{windows} windows");
        Ok(Outcome { counts, references, details, summary, ..Outcome::default() })
    }
}

impl Config {
    fn load_places(&self, task: &Task, input: &Artifact) -> Result<(Option<Map>, Sampling), Error> {
        if self.within.is_empty() && self.sample.is_empty() {
            return Ok((None, Sampling::default()));
        }
        let sequence = task.referenced(input, "sequence")?;
        let records = read_records(&sequence.path(RECORDS))?;
        let within =
            if self.within.is_empty() { None } else { Some(Map::load(&self.within, task, &records)?) };
        let masked = self.sample.iter().any(Rule::asks_for_masks);
        let masks = if masked { read_masks(&sequence)? } else { Vec::new() };
        Ok((within, Sampling::load(&self.sample, self.seed, task, &records, &masks)?))
    }
}

/// The windows so far.
struct Cut<'a> {
    config: &'a Config,
    sampling: Sampling,
    writer: StretchWriter,
    counts: Counts,
    splits: BTreeMap<String, Tally>,
    /// Windows by length.
    lengths: BTreeMap<u64, u64>,
    /// What became of the windows of each class of `sample`.
    classes: Vec<Class>,
}

#[derive(Debug, Clone, Default)]
struct Class {
    windows: u64,
    kept: u64,
}

impl<'a> Cut<'a> {
    fn new(config: &'a Config, writer: StretchWriter, sampling: Sampling) -> Self {
        let (counts, splits, lengths) = (Counts::default(), BTreeMap::new(), BTreeMap::new());
        let classes = vec![Class::default(); config.sample.len()];
        Self { config, sampling, writer, counts, splits, lengths, classes }
    }

    fn drop(&mut self, split: &str, reason: &str, bases: u64) {
        self.counts.drop_bases(reason, bases);
        self.counts.split(split).drop_bases(reason, bases);
    }

    /// Cuts a part of a stretch into windows.
    fn part(&mut self, stretch: &Stretch, part: Interval) -> Result<(), Error> {
        self.splits.entry(stretch.split.clone()).or_default();
        // The ends of what the windows cover, and of what those that are kept cover; the bases of the latter.
        let (mut covered, mut reached, mut kept_bases) = (part.start, part.start, 0);
        for window in self.config.windows(part) {
            covered = window.end;
            if self.keeps(stretch, window) {
                kept_bases += window.end - window.start.max(reached);
                reached = window.end;
                self.window(stretch, window)?;
            }
        }
        self.counts.bases_out += kept_bases;
        self.counts.split(&stretch.split).keep(kept_bases);
        self.drop(&stretch.split, "left out by `sample`", covered - part.start - kept_bases);
        self.drop(&stretch.split, "tail shorter than the window", part.end - covered);
        Ok(())
    }

    fn keeps(&mut self, stretch: &Stretch, window: Interval) -> bool {
        if !self.config.sample_splits.contains(&stretch.split) {
            return true;
        }
        let (class, kept) = self.sampling.decide(stretch.record, window);
        if let Some(class) = class.and_then(|class| self.classes.get_mut(class)) {
            class.windows += 1;
            class.kept += u64::from(kept);
        }
        kept
    }

    fn window(&mut self, stretch: &Stretch, interval: Interval) -> Result<(), Error> {
        let strands = self.config.strands(&stretch.split, stretch.record, interval);
        *self.lengths.entry(interval.len()).or_default() += strands.len() as u64;
        let tally = self.splits.entry(stretch.split.clone()).or_default();
        for &strand in strands {
            tally.windows += 1;
            tally.bases += interval.len();
            self.writer.push(Stretch { interval, strand, ..stretch.clone() })?;
        }
        Ok(())
    }
}

/// The windows of a split; overlaps and both strands count.
#[derive(Debug, Default, Serialize)]
struct Tally {
    windows: u64,
    bases: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_what_they_say() {
        let cases = [
            (4, 4, Tail::Keep, (0, 10), vec![(0, 4), (4, 8), (8, 10)]),
            (4, 4, Tail::Drop, (0, 10), vec![(0, 4), (4, 8)]),
            (4, 2, Tail::Keep, (3, 10), vec![(3, 7), (5, 9), (7, 10)]),
            (4, 3, Tail::Keep, (0, 4), vec![(0, 4)]),
            (4, 4, Tail::Drop, (0, 3), vec![]),
            (9, 9, Tail::Keep, (5, 6), vec![(5, 6)]),
        ];
        for (window, stride, tail, (start, end), expected) in cases {
            let config = Config {
                from: String::new(),
                window,
                stride: Some(stride),
                tail,
                reverse_complement: vec![],
                either_strand: vec![],
                within: vec![],
                sample: vec![],
                sample_splits: vec![],
                seed: 0,
            };
            let found: Vec<_> = config.windows(Interval::new(start, end)).map(|w| (w.start, w.end)).collect();
            assert_eq!(found, expected, "window {window} stride {stride} of {start}-{end}");
        }
    }

    #[test]
    fn coins_are_fair_and_depend_on_seed_and_place_alone() {
        let config = |seed: u64| -> Config {
            let text =
                format!(r#"{{"from": "x", "window": 10, "either_strand": ["train"], "seed": {seed}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let toss = |config: &Config, split: &str, start: u64| {
            config.strands(&split.to_owned(), 3, Interval::new(start, start + 10))
        };
        let (one, other) = (config(1), config(2));
        let reverse = (0..10_000).filter(|&i| toss(&one, "train", i * 10) == [Strand::Reverse]).count();
        assert!((4800..5200).contains(&reverse), "{reverse}");
        let same = (0..10_000).filter(|&i| toss(&one, "train", i) == toss(&other, "train", i)).count();
        assert!((4800..5200).contains(&same), "{same}");
        assert!((0..1000).all(|i| toss(&one, "test", i) == [Strand::Forward]));
    }
}
