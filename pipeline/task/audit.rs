//! What can be said about a task before any model runs: what its test set shares with what is learned from, what scores without
//! biology reach, and how much a score on so many examples can mean.
//!
//! Copies and near copies are looked for on both strands; where bases have classes, of windows. Memory: about 100 bytes an example, the k-mers of what is learned from within
//! [`Options::memory`], and 1 kB an example for the k-mer baseline; where bases have classes, their bases once more.

mod baseline;
mod bases;
mod copies;
mod near;
mod overlap;
mod pairs;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::{Dataset, Kind, Metric, Part};
pub use baseline::{Baseline, Score};
pub use copies::ClassCopies;
pub use near::Near;
pub use overlap::ClassOverlap;

/// An example whose bases lie on training examples by more than this share, or whose k-mers occur there by as much, is not a test.
pub const LEAK: f64 = 0.5;

/// How to look.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes for the k-mers of what is learned from; above it, a sample of k-mers stands for all.
    pub memory: u64,
    /// Order in which the k-mer baseline sees examples.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { memory: 1 << 30, seed: 0 }
    }
}

/// What was found. Shares are from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audit {
    /// The task's name.
    pub task: String,
    /// The task's version.
    pub version: u32,
    /// What its score is.
    pub metric: Option<Metric>,
    /// The classes, in the order of all lists by class.
    pub classes: Vec<String>,
    /// What there is of each part.
    pub parts: Vec<Summary>,
    /// What could not be used, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Classes of the test set that training never shows.
    pub unseen_classes: Vec<String>,
    /// Of each class of the test set, what is in the training set too.
    pub copies: Vec<ClassCopies>,
    /// Of each class of the test set, what lies where training examples lie; `None` without coordinates.
    pub overlap: Option<Vec<ClassOverlap>>,
    /// What shares most of its k-mers with the training set; `None` without bases.
    pub near: Option<Near>,
    /// What is scored without a model of DNA.
    pub baselines: Vec<Baseline>,
    /// How sure a score on this test set can be.
    pub noise: Noise,
    /// Test examples that are no copy and share neither most of their bases' places nor most of their k-mers, of each class
    /// (where bases have classes, windows of all).
    pub clean: Vec<u64>,
    /// What matters most, in words.
    pub findings: Vec<String>,
}

/// What there is of a part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Which.
    pub part: Part,
    /// Examples.
    pub examples: u64,
    /// Of each class.
    pub by_class: Vec<u64>,
    /// The shortest, the median and the longest example, in bases.
    pub lengths: [u64; 3],
}

/// What chance alone does to an accuracy on the test set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Noise {
    /// What one example is worth.
    pub one_example: f64,
    /// Half of the width of the binomial 95 % interval at an accuracy of 0.8.
    pub half_width: f64,
}

/// What test examples share with what is learned from.
struct Shared {
    seen: copies::Seen,
    copied: Vec<copies::Copied>,
    overlaps: Option<Vec<overlap::Overlap>>,
    near: Option<Near>,
    /// Of each test example.
    clean: Vec<bool>,
}

impl Shared {
    fn of(dataset: &Dataset, memory: u64) -> Self {
        let seen = copies::Seen::new(dataset);
        let copied = seen.copies(dataset);
        let overlaps = overlap::overlaps(dataset);
        let (near, contained) = near::near(dataset, memory).unzip();
        let is_clean = |at: usize| {
            let share = |shares: &Option<Vec<f64>>| shares.as_ref().map_or(0.0, |shares| shares[at]);
            let lies = overlaps.as_ref().map_or(0.0, |overlaps| overlaps[at].any);
            !copied[at].any && lies <= LEAK && share(&contained) <= LEAK
        };
        let clean = (0..dataset.part(Part::Test).len()).map(is_clean).collect();
        Self { seen, copied, overlaps, near, clean }
    }
}

/// Whether each test example is clean: no copy of what is learned from, lying on none of it, and made of other k-mers.
pub fn clean(dataset: &Dataset, options: &Options) -> Vec<bool> {
    Shared::of(dataset, options.memory).clean
}

/// Windows as sequences of one class, to see what they share.
fn windows(dataset: &Dataset) -> Dataset {
    Dataset {
        classes: vec!["windows".to_owned()],
        kind: Kind::Sequences,
        labels: Vec::new(),
        ..dataset.clone()
    }
}

/// Looks at a task. Also says of each test example whether it is clean.
pub fn audit(dataset: &Dataset, options: &Options) -> (Audit, Vec<bool>) {
    let examples = match dataset.kind {
        Kind::Bases => Cow::Owned(windows(dataset)),
        Kind::Sequences | Kind::Pairs => Cow::Borrowed(dataset),
    };
    let Shared { seen, copied, overlaps, near, clean } = Shared::of(&examples, options.memory);
    let mut audit = Audit {
        task: dataset.name.clone(),
        version: dataset.version,
        metric: dataset.metric,
        classes: dataset.classes.clone(),
        parts: summaries(dataset),
        dropped: dataset.dropped.clone(),
        unseen_classes: if dataset.kind == Kind::Pairs { Vec::new() } else { unseen(dataset) },
        copies: copies::by_class(&examples, &seen, &copied),
        overlap: overlaps.map(|overlaps| overlap::by_class(&examples, &overlaps)),
        near,
        baselines: match dataset.kind {
            Kind::Sequences => baseline::all(dataset, &seen, &clean, options.seed),
            Kind::Bases => bases::all(dataset, &clean),
            Kind::Pairs => pairs::all(dataset),
        },
        noise: noise(dataset.part(Part::Test).len() as f64),
        clean: count_clean(&examples, &clean),
        findings: Vec::new(),
    };
    audit.findings = findings(&audit);
    let [repeated, both] = if dataset.kind == Kind::Pairs { pairs::repeated(dataset) } else { [0, 0] };
    if repeated > 0 {
        audit
            .findings
            .push(format!("{repeated} variants are there more than once, {both} of them in both classes"));
    }
    (audit, clean)
}

fn summaries(dataset: &Dataset) -> Vec<Summary> {
    let summary = |part| {
        let mut lengths: Vec<u64> =
            dataset.part(part).iter().map(|example| dataset.length(example)).collect();
        lengths.sort_unstable();
        let at = |share: usize| lengths.get((lengths.len().max(1) - 1) * share / 2).copied().unwrap_or(0);
        Summary {
            part,
            examples: lengths.len() as u64,
            by_class: dataset.counts(part),
            lengths: [at(0), at(1), at(2)],
        }
    };
    Part::ALL.into_iter().map(summary).filter(|summary| summary.examples > 0).collect()
}

fn unseen(dataset: &Dataset) -> Vec<String> {
    let [train, test] = [Part::Train, Part::Test].map(|part| dataset.counts(part));
    let unseen = train.iter().zip(&test).map(|(&train, &test)| train == 0 && test > 0);
    unseen.zip(&dataset.classes).filter(|(unseen, _)| *unseen).map(|(_, class)| class.clone()).collect()
}

fn noise(examples: f64) -> Noise {
    Noise { one_example: 1.0 / examples, half_width: 1.96 * (0.8 * 0.2 / examples).sqrt() }
}

fn count_clean(dataset: &Dataset, clean: &[bool]) -> Vec<u64> {
    let mut counts = vec![0; dataset.classes.len()];
    for (example, _) in dataset.part(Part::Test).iter().zip(clean).filter(|(_, clean)| **clean) {
        counts[example.class as usize] += 1;
    }
    counts
}

/// A share in per cent.
fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Sentences about what makes a score mean less than it seems to.
fn findings(audit: &Audit) -> Vec<String> {
    let mut found = Vec::new();
    let test: u64 = audit.copies.iter().map(|class| class.test).sum();
    if !audit.unseen_classes.is_empty() {
        found.push(format!("training never shows the class {}", audit.unseen_classes.join(", ")));
    }
    let copies: u64 = audit.copies.iter().map(|class| class.copies).sum();
    if copies > 0 {
        let most = audit.copies.iter().filter(|class| class.copies > 0).map(|class| {
            format!(
                "{} of {} `{}` ({})",
                class.copies,
                class.test,
                class.class,
                percent(class.copies as f64 / class.test as f64)
            )
        });
        let most = most.collect::<Vec<_>>().join(", ");
        found.push(format!("{copies} of {test} test examples are copies of training examples: {most}"));
    }
    let other: u64 = audit.copies.iter().map(|class| class.other_class).sum();
    if other > 0 {
        found.push(format!("{other} test examples are copies of training examples of another class"));
    }
    let overlaps = audit.overlap.iter().flatten();
    for class in overlaps.filter(|class| class.any > 0 && class.any as f64 >= 0.01 * class.test as f64) {
        let share = percent(class.any as f64 / class.test as f64);
        let median = class.median_same.map_or(String::new(), |median| {
            format!(
                ", {} of them on one of their class and strand, the median by {} of its bases",
                class.same,
                percent(median)
            )
        });
        let (any, test, class) = (class.any, class.test, &class.class);
        found.push(format!(
            "{any} of {test} `{class}` of the test set ({share}) lie on training examples{median}"
        ));
    }
    if let Some(near) = audit.near.as_ref().filter(|near| near.examples > 0) {
        let share = percent(near.examples as f64 / test as f64);
        found.push(format!(
            "{} test examples ({share}) have most of their {}-mers in training examples",
            near.examples, near.k
        ));
    }
    let majority = audit.baselines.iter().find(|baseline| baseline.name == "majority");
    let chance = majority.map_or(0.0, |baseline| baseline.official.accuracy);
    let telling = audit.baselines.iter().filter(|baseline| {
        matches!(baseline.name, "length" | "gc" | "lookup" | "open frames" | "9-mers")
            && baseline.official.accuracy > chance + 2.0 * audit.noise.half_width + 0.02
    });
    for baseline in telling {
        let by = match baseline.name {
            "length" => "the length of an example alone",
            "gc" => "its share of G and C alone",
            "open frames" => "taking stretches without a stop codon for genes",
            "9-mers" => "the class that the nine bases around a base mostly have",
            _ => "looking up training examples",
        };
        found.push(format!(
            "{by} scores {} ({} for the most frequent class)",
            percent(baseline.official.accuracy),
            percent(chance)
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Csv, Task};
    use super::*;

    /// An audit of rows of bases, label, contig, start, end and strand.
    fn audited(train: &[&str], test: &[&str], header: &str) -> (Audit, Vec<bool>) {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, rows: &[&str]| {
            std::fs::write(folder.path().join(name), format!("{header}\n{}\n", rows.join("\n"))).unwrap();
        };
        write("train.csv", train);
        write("test.csv", test);
        let csv = Csv {
            train: "train.csv".into(),
            validation: None,
            test: "test.csv".into(),
            sequence: "sequence".into(),
            label: "label".into(),
        };
        let task = Task { version: 3, csv: Some(csv), ..Task::default() };
        audit(&task.read("mine", folder.path()).unwrap(), &Options::default())
    }

    fn accuracy(audit: &Audit, name: &str) -> f64 {
        audit.baselines.iter().find(|baseline| baseline.name == name).unwrap().official.accuracy
    }

    #[test]
    fn copies_are_found_on_both_strands_and_under_other_labels() {
        let (audit, clean) = audited(
            &["AACCGT,0", "AACCGT,0", "GGATTC,1", "TTTTTT,1", "CCCCAC,1"],
            &["AACCGT,0", "ACGGTT,0", "GGATTC,0", "acacac,1"],
            "sequence,label",
        );
        let [no, yes] = &audit.copies[..] else { panic!("{audit:?}") };
        assert_eq!((no.test, no.copies, no.other_strand, no.other_class, no.distinct_train), (3, 3, 1, 1, 1));
        assert_eq!((yes.test, yes.copies, yes.distinct_train), (1, 0, 3));
        assert_eq!((clean, audit.clean.clone()), (vec![false, false, false, true], vec![0, 1]));
        // The one that is not found is given class 1, which most examples without a copy have.
        assert_eq!((accuracy(&audit, "lookup"), accuracy(&audit, "majority")), (0.75, 0.25));
        assert!(audit.findings[0].contains("3 of 4 test examples are copies"), "{:?}", audit.findings);
    }

    #[test]
    fn a_length_can_give_the_class_away() {
        let train: Vec<String> = (0..200)
            .map(|i| format!("{},{}", "ACGTTGCA".repeat(2)[..8 + i % 2 * 3].to_owned(), i % 2))
            .collect();
        let rows: Vec<&str> = train.iter().map(String::as_str).collect();
        let (audit, _) = audited(&rows, &rows, "sequence,label");
        assert_eq!((accuracy(&audit, "length"), accuracy(&audit, "majority")), (1.0, 0.5));
        assert!(
            audit
                .findings
                .iter()
                .any(|finding| finding.starts_with("the length of an example alone scores 100.0 %"))
        );
    }

    #[test]
    fn kmers_tell_classes_apart_that_differ_in_them() {
        let example = |i: u64, unit: &str| {
            let letters = (0..60_u64)
                .map(|j| b"ACGT"[(crate::sequence::kmer::spread(i * 60 + j) % 4) as usize] as char);
            letters.collect::<String>() + &unit.repeat(5)
        };
        let rows = |from: u64| -> Vec<String> {
            (from..from + 150)
                .map(|i| format!("{},{}", example(i, ["GATA", "CTTA"][(i % 2) as usize]), i % 2))
                .collect()
        };
        let (train, test) = (rows(0), rows(1000));
        let [train, test] = [&train, &test].map(|rows| rows.iter().map(String::as_str).collect::<Vec<_>>());
        let (audit, _) = audited(&train, &test, "sequence,label");
        assert!(accuracy(&audit, "4-mers") > 0.95, "{:?}", audit.baselines);
        assert!(accuracy(&audit, "gc") < 0.65, "{:?}", audit.baselines);
        assert!(audit.near.as_ref().is_some_and(|near| near.examples == 0));
    }

    #[test]
    fn overlaps_are_counted_by_class_and_strand() {
        let header = "sequence,label,region,start,end,strand";
        let (audit, clean) = audited(
            &["AAAAAAAAAC,0,chr1,100,110,+", "AAAAAAAAAG,1,chr1,200,210,-", "AAAAAAAAAT,1,chr2,0,10,"],
            &[
                "ACAAAAAAAA,0,chr1,104,114,+",
                "AGAAAAAAAA,0,chr1,206,216,+",
                "CAAAAAAAAA,1,chr1,109,119,-",
                "AACAAAAAAA,1,chr2,1,11,",
                "CCAAAAAAAA,1,chr3,1,11,",
            ],
            header,
        );
        let overlap = audit.overlap.as_ref().unwrap();
        assert_eq!((overlap[0].any, overlap[0].same, overlap[0].median_same), (2, 1, Some(0.6)));
        assert_eq!((overlap[1].any, overlap[1].same, overlap[1].median_same), (2, 1, Some(0.9)));
        assert_eq!(clean, [false, true, true, false, true]);
    }

    #[test]
    fn near_copies_share_most_of_their_kmers() {
        let bases: String =
            (0..200_u64).map(|i| b"ACGT"[(crate::sequence::kmer::spread(i) % 4) as usize] as char).collect();
        let changed = format!("{}{}", &bases[..150], "T".repeat(50));
        let (audit, clean) = audited(
            &[&format!("{bases},0"), "ACGT,1"],
            &[&format!("{changed},0"), &format!("{},1", "AC".repeat(60))],
            "sequence,label",
        );
        let near = audit.near.unwrap();
        assert_eq!((near.examples, near.k, near.one_in), (1, 31, 1));
        assert_eq!(clean, [false, true]);
    }

    #[test]
    fn a_class_that_training_lacks_is_said() {
        let (audit, _) = audited(&["ACGT,0", "AGGT,1"], &["ACGA,0", "ACGC,2"], "sequence,label");
        assert_eq!(audit.unseen_classes, ["2"]);
        assert!(audit.findings.contains(&"training never shows the class 2".to_owned()));
    }

    #[test]
    fn noise_follows_the_number_of_examples() {
        let noise = noise(242.0);
        assert!((noise.half_width - 0.0504).abs() < 1e-4 && (noise.one_example - 0.00413).abs() < 1e-5);
    }

    #[test]
    fn tasks_are_refused_with_what_is_wrong() {
        for (task, expected) in [
            (Task::default(), "task `mine`: found none, expected one of"),
            (
                Task { gue: Some("x".into()), genomic_benchmarks: Some("y".into()), ..Task::default() },
                "task `mine`: found several",
            ),
        ] {
            let error = task.read("mine", Path::new("")).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
