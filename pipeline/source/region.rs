//! Which parts of sequences are wanted: intervals from BED, from features of GFF3 or GTF, or written out.
//!
//! Holds every interval (24 bytes each), merged; and of each sequence the one that reaches furthest, to say where it
//! came from when the sequence is shorter. Where each line of a file counts by itself, [`lines`] has them.

pub mod lines;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{annotation, bed, columns};
use crate::units::{self, Interval, Strand};

/// Sequences that a message lists.
const LISTED: usize = 8;

/// Why regions are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A BED, GFF3 or GTF file is at fault.
    #[error(transparent)]
    File(#[from] columns::Error),
    /// A region that is written out and cannot be read.
    #[error("cannot read region `{region}`: {problem}")]
    Written {
        /// As it is written.
        region: String,
        /// What was expected.
        problem: String,
    },
    /// A file without an interval, or without a feature of the wanted kinds.
    #[error("cannot take regions from `{}`: found no {expected}", file.display())]
    None {
        /// The file.
        file: PathBuf,
        /// What there should be.
        expected: String,
    },
    /// An interval that reaches past its sequence.
    #[error("cannot take `{sequence}:{interval}` ({origin}): `{sequence}` of `{}` has {bases} bases", file.display())]
    PastEnd {
        /// The file of the sequence.
        file: PathBuf,
        /// The sequence.
        sequence: String,
        /// 0-based, half-open.
        interval: Interval,
        /// Where the interval stands.
        origin: Origin,
        /// Bases of the sequence.
        bases: u64,
    },
    /// Sequences that the regions name and the file has not.
    #[error("cannot take regions of `{sequence}` ({origin}): `{}` has no such sequence; {hint}", file.display())]
    UnknownSequence {
        /// The file that should have it.
        file: PathBuf,
        /// The sequence that is missing.
        sequence: String,
        /// Where its first region stands.
        origin: Origin,
        /// What there is, and how names are made to agree.
        hint: String,
    },
}

/// Where a region stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file.
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u64,
    },
    /// The workflow.
    Written,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "`{}`, line {line}", file.display()),
            Self::Written => f.write_str("in `intervals`"),
        }
    }
}

/// Which part of a feature is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// All of it.
    #[default]
    Whole,
    /// The point where it starts on its strand: of a gene, where transcription starts.
    Start,
    /// The point where it ends on its strand.
    End,
}

/// Where a wanted part lies beside what a file names; upstream is before it on its strand, forward where it has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reach {
    /// From where.
    pub site: Site,
    /// Bases more before it.
    pub upstream: u64,
    /// Bases more behind it.
    pub downstream: u64,
}

impl Reach {
    /// What is wanted of a feature; it may reach past its sequence's end.
    fn of(self, named: Interval, strand: Option<Strand>) -> Interval {
        let reverse = strand == Some(Strand::Reverse);
        let (start, end) = match self.site {
            Site::Whole => (named.start, named.end),
            Site::Start if reverse => (named.end, named.end),
            Site::End if !reverse => (named.end, named.end),
            Site::Start | Site::End => (named.start, named.start),
        };
        let (before, behind) =
            if reverse { (self.downstream, self.upstream) } else { (self.upstream, self.downstream) };
        Interval::new(start.saturating_sub(before), end.saturating_add(behind))
    }
}

/// Wanted parts, by sequence.
#[derive(Debug, Clone, Default)]
pub struct Regions {
    sequences: BTreeMap<String, Wanted>,
    reach: Reach,
}

/// The wanted parts of a sequence.
#[derive(Debug, Clone)]
struct Wanted {
    /// Ascending and apart once [`Regions::merged`] was called.
    intervals: Vec<Interval>,
    /// The interval, without flanks, that reaches furthest; the first of a sequence that is wanted whole.
    furthest: (Interval, Origin),
    /// Where the first region stands.
    first: Origin,
}

/// The end of what is wanted to a sequence's end.
const TO_THE_END: u64 = u64::MAX;

impl Regions {
    /// None wanted yet; each region will be widened by `flank` bases on either side, as far as its sequence goes.
    pub fn new(flank: u64) -> Self {
        Self::reaching(Reach { upstream: flank, downstream: flank, ..Reach::default() })
    }

    /// None wanted yet; of what is added, what `reach` says is wanted.
    pub fn reaching(reach: Reach) -> Self {
        Self { sequences: BTreeMap::new(), reach }
    }

    /// Adds every interval of a BED file.
    pub fn add_bed(&mut self, path: &Path) -> Result<(), Error> {
        let (mut reader, mut found) = (bed::Reader::open(path)?, false);
        while let Some(line) = reader.next_line()? {
            let (sequence, interval, strand) = (line.sequence.to_owned(), line.interval, line.strand);
            self.add(sequence, interval, strand, Origin::Line { file: path.to_owned(), line: reader.line() });
            found = true;
        }
        let nothing = || Error::None { file: path.to_owned(), expected: "interval".to_owned() };
        found.then_some(()).ok_or_else(nothing)
    }

    /// Adds the features of a GFF3 or GTF file; those of the given kinds, if there are any.
    pub fn add_features(&mut self, path: &Path, kinds: &[String]) -> Result<(), Error> {
        let (mut reader, mut found) = (annotation::Reader::open(path)?, false);
        while let Some(feature) = reader.next_feature()? {
            if kinds.is_empty() || kinds.iter().any(|kind| kind == feature.kind) {
                let (sequence, interval, strand) =
                    (feature.sequence.to_owned(), feature.interval, feature.strand);
                self.add(
                    sequence,
                    interval,
                    strand,
                    Origin::Line { file: path.to_owned(), line: reader.line() },
                );
                found = true;
            }
        }
        let kinds = kinds.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(" or ");
        let expected = format!("feature {kinds}").trim_end().to_owned();
        found.then_some(()).ok_or_else(|| Error::None { file: path.to_owned(), expected })
    }

    /// Adds a region such as `chr1:0-1000` (0-based, half-open) or `chr1`.
    pub fn add_written(&mut self, text: &str) -> Result<(), Error> {
        let region = || text.to_owned();
        let (sequence, interval) =
            units::parse_region(text).map_err(|problem| Error::Written { region: region(), problem })?;
        if sequence.is_empty() {
            let problem = "expected a sequence's name".to_owned();
            return Err(Error::Written { region: region(), problem });
        }
        let interval = interval.unwrap_or(Interval::new(0, TO_THE_END));
        self.add(sequence.to_owned(), interval, None, Origin::Written);
        Ok(())
    }

    fn add(&mut self, sequence: String, interval: Interval, strand: Option<Strand>, origin: Origin) {
        let widened = self.reach.of(interval, strand);
        let wanted = self.sequences.entry(sequence).or_insert_with(|| Wanted {
            intervals: Vec::new(),
            furthest: (Interval::new(0, 0), origin.clone()),
            first: origin.clone(),
        });
        wanted.intervals.push(widened);
        if interval.end != TO_THE_END && interval.end > wanted.furthest.0.end {
            wanted.furthest = (interval, origin);
        }
    }

    /// With intervals of each sequence ascending, those that overlap or touch made one.
    #[must_use]
    pub fn merged(mut self) -> Self {
        for wanted in self.sequences.values_mut() {
            units::merge(&mut wanted.intervals);
        }
        self
    }

    /// Whether a part of this sequence is wanted.
    pub fn has(&self, sequence: &str) -> bool {
        self.sequences.contains_key(sequence)
    }

    /// The wanted parts of a sequence, ascending; the last may reach past its end.
    pub fn of(&self, sequence: &str) -> &[Interval] {
        self.sequences.get(sequence).map_or(&[], |wanted| &wanted.intervals)
    }

    /// Whether an interval of a sequence shares a base with a wanted part.
    pub fn overlap(&self, sequence: &str, interval: Interval) -> bool {
        let wanted = self.of(sequence);
        let first = wanted.partition_point(|wanted| wanted.end <= interval.start);
        wanted.get(first).is_some_and(|wanted| wanted.overlaps(interval))
    }

    /// Refuses a region that reaches past the end of its sequence, which has `bases` bases.
    pub fn check_end(&self, file: &Path, sequence: &str, bases: u64) -> Result<(), Error> {
        match self.sequences.get(sequence) {
            Some(Wanted { furthest: (interval, origin), .. }) if interval.end > bases => {
                Err(Error::PastEnd {
                    file: file.to_owned(),
                    sequence: sequence.to_owned(),
                    interval: *interval,
                    origin: origin.clone(),
                    bases,
                })
            }
            _ => Ok(()),
        }
    }

    /// Refuses regions of sequences that are not in `known`, which are those of `file` in its order.
    pub fn check_names(&self, file: &Path, known: &[&str]) -> Result<(), Error> {
        let there: HashSet<&str> = known.iter().copied().collect();
        let unknown: Vec<_> =
            self.sequences.iter().filter(|(name, _)| !there.contains(name.as_str())).collect();
        let Some((sequence, wanted)) = unknown.first() else { return Ok(()) };
        let names: Vec<&str> = unknown.iter().map(|(name, _)| name.as_str()).collect();
        Err(Error::UnknownSequence {
            file: file.to_owned(),
            sequence: (*sequence).clone(),
            origin: wanted.first.clone(),
            hint: hint(&names, known),
        })
    }
}

/// The first names, and how many more there are.
fn list(names: &[&str]) -> String {
    let list = names.iter().take(LISTED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => list,
        more => format!("{list} and {more} more"),
    }
}

/// What there is in place of the unknown names, and the `rename` that would make them agree if they only look different.
fn hint(unknown: &[&str], known: &[&str]) -> String {
    let list = list(known);
    let pairs = unknown.iter().filter_map(|wanted| {
        let found = known.iter().find(|name| plain_name(name) == plain_name(wanted))?;
        Some(format!("\"{found}\": \"{wanted}\""))
    });
    let pairs: Vec<String> = pairs.take(LISTED).collect();
    if pairs.is_empty() {
        return format!("it has {list}; `rename: {{OLD: NEW}}` gives sequences of this source other names");
    }
    format!("it has {list}; `rename: {{{}}}` in this source would make the names agree", pairs.join(", "))
}

/// A name as the different habits of naming have it in common: `chr1` and `1`, `chrM`, `MT` and `Mito`, `NC_1.1` and `NC_1`.
fn plain_name(name: &str) -> String {
    let lower = name.to_lowercase();
    let bare = lower.strip_prefix("chr").unwrap_or(&lower);
    let bare = match bare.split_once('.') {
        Some((bare, version)) if version.bytes().all(|b| b.is_ascii_digit()) => bare,
        _ => bare,
    };
    match bare {
        "mt" | "mito" | "mitochondrion" => "m".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(written: &[&str], flank: u64) -> Regions {
        let mut regions = Regions::new(flank);
        for text in written {
            regions.add_written(text).unwrap();
        }
        regions.merged()
    }

    #[test]
    fn upstream_and_downstream_follow_the_strand() {
        let reach = |site| Reach { site, upstream: 10, downstream: 3 };
        let (forward, reverse) = (Some(Strand::Forward), Some(Strand::Reverse));
        for (site, strand, expected) in [
            (Site::Whole, forward, (90, 203)),
            (Site::Whole, None, (90, 203)),
            (Site::Whole, reverse, (97, 210)),
            (Site::Start, forward, (90, 103)),
            (Site::Start, reverse, (197, 210)),
            (Site::End, forward, (190, 203)),
            (Site::End, reverse, (97, 110)),
        ] {
            let found = reach(site).of(Interval::new(100, 200), strand);
            assert_eq!((found.start, found.end), expected, "{site:?} {strand:?}");
        }
        assert_eq!(reach(Site::Start).of(Interval::new(4, 9), forward), Interval::new(0, 7));
    }

    #[test]
    fn regions_are_merged_whatever_their_order() {
        let regions = regions(&["a:50-60", "a:0-10", "a:10-20", "a:55-70", "b", "a:5-8"], 0);
        assert_eq!(regions.of("a"), [Interval::new(0, 20), Interval::new(50, 70)]);
        assert_eq!(regions.of("b"), [Interval::new(0, u64::MAX)]);
        assert_eq!(regions.of("c"), []);
        for (start, end, expected) in [(20, 50, false), (19, 50, true), (20, 51, true), (70, 99, false)] {
            assert_eq!(regions.overlap("a", Interval::new(start, end)), expected, "{start}-{end}");
        }
    }

    #[test]
    fn flanks_stay_on_the_sequence() {
        let regions = regions(&["a:5-10", "a:30-40"], 10);
        assert_eq!(regions.of("a"), [Interval::new(0, 50)]);
        regions.check_end(Path::new("x.fa"), "a", 40).unwrap();
        let error = regions.check_end(Path::new("x.fa"), "a", 39).unwrap_err();
        assert_eq!(error.to_string(), "cannot take `a:30-40` (in `intervals`): `a` of `x.fa` has 39 bases");
    }

    #[test]
    fn unknown_sequences_are_named_with_a_way_out() {
        let file = Path::new("x.fa");
        regions(&["chrI:0-5"], 0).check_names(file, &["chrI", "chrII"]).unwrap();
        for (wanted, known, expected) in [
            (
                &["I:0-5", "Mito"][..],
                &["chrI", "chrM"][..],
                "cannot take regions of `I` (in `intervals`): `x.fa` has no such sequence; it has `chrI`, `chrM`; \
                 `rename: {\"chrI\": \"I\", \"chrM\": \"Mito\"}` in this source would make the names agree",
            ),
            (
                &["plasmid"],
                &["NC_1.1"],
                "cannot take regions of `plasmid` (in `intervals`): `x.fa` has no such sequence; it has `NC_1.1`; \
                 `rename: {OLD: NEW}` gives sequences of this source other names",
            ),
        ] {
            let error = regions(wanted, 0).check_names(file, known).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn written_regions_hold_bases() {
        for (text, expected) in [
            (
                "a:5-5",
                "cannot read region `a:5-5`: `a:5-5` holds no base: expected NAME:START-END with START below END",
            ),
            ("", "cannot read region ``: expected a sequence's name"),
        ] {
            assert_eq!(Regions::new(0).add_written(text).unwrap_err().to_string(), expected);
        }
    }
}
