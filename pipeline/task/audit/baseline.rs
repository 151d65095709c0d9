//! What is scored without a model of DNA: the most frequent class, an example's length or share of G and C alone, a table of the
//! training set, and logistic regression on how often each 4-mer occurs.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::super::{Dataset, Example, Part};
use super::copies::Seen;
use super::percent;
use crate::metric::classification::Confusion;

mod regression;

/// A baseline's scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Baseline {
    /// `majority`, `length`, `gc`, `lookup` or `4-mers`; of gene finding `9-mers` and `open frames` too, of variants `transition` and `lost CpG`.
    pub name: &'static str,
    /// On the test set as it is.
    pub official: Score,
    /// On its clean examples; `None` without any.
    pub clean: Option<Score>,
}

/// How predictions compare with the truth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Share of examples with the right class; not a number of what only ranks.
    pub accuracy: f64,
    /// Matthews' correlation coefficient; 0 where only one class was predicted.
    pub mcc: Option<f64>,
    /// Area under the ROC curve of what ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auroc: Option<f64>,
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mcc = self.mcc.map_or("-".to_owned(), |mcc| format!("{mcc:.3}"));
        match self.auroc {
            Some(auroc) => write!(f, "AUROC {auroc:.3}"),
            None => write!(f, "{}, MCC {mcc}", percent(self.accuracy)),
        }
    }
}

/// Classes that were predicted for the test examples.
type Predictions = Vec<u32>;

/// Every baseline that the task allows.
pub fn all(dataset: &Dataset, seen: &Seen, clean: &[bool], seed: u64) -> Vec<Baseline> {
    let gc = |example: &Example| dataset.bases(example).map(gc_percent);
    let predictions: [(&'static str, Option<Predictions>); 5] = [
        ("majority", Some(by_value(dataset, |_| Some(0)))),
        ("length", Some(by_value(dataset, |example| Some(dataset.length(example))))),
        ("gc", has_bases(dataset).then(|| by_value(dataset, gc))),
        ("lookup", Some(seen.look_up(dataset))),
        ("4-mers", has_bases(dataset).then(|| regression::predict(dataset, seed))),
    ];
    let baseline = |(name, predictions): (&'static str, Option<Predictions>)| {
        let predictions = predictions?;
        let official = score(dataset, &predictions, |_| true)?;
        Some(Baseline { name, official, clean: score(dataset, &predictions, |at| clean[at]) })
    };
    predictions.into_iter().filter_map(baseline).collect()
}

fn has_bases(dataset: &Dataset) -> bool {
    dataset.part(Part::Train).iter().all(|example| dataset.bases(example).is_some())
}

fn score(dataset: &Dataset, predictions: &[u32], counts: impl Fn(usize) -> bool) -> Option<Score> {
    let examples = dataset.part(Part::Test).iter().zip(predictions).enumerate();
    let (truth, predicted): (Vec<u32>, Vec<u32>) = examples
        .filter(|(at, _)| counts(*at))
        .map(|(_, (example, prediction))| (example.class, *prediction))
        .unzip();
    let confusion = Confusion::new(dataset.classes.len(), &truth, &predicted).ok()?;
    Some(Score { accuracy: confusion.accuracy()?, mcc: confusion.shown_mcc(), auroc: None })
}

/// The most frequent class of the training examples with the same value; of all where a value is new.
fn by_value(dataset: &Dataset, value: impl Fn(&Example) -> Option<u64>) -> Predictions {
    let mut counts: HashMap<u64, Vec<u64>> = HashMap::new();
    for example in dataset.part(Part::Train) {
        if let Some(value) = value(example) {
            let counts = counts.entry(value).or_insert_with(|| vec![0; dataset.classes.len()]);
            counts[example.class as usize] += 1;
        }
    }
    let other = most(dataset.counts(Part::Train));
    let best: HashMap<u64, u32> = counts.into_iter().map(|(value, counts)| (value, most(counts))).collect();
    let predict = |example| value(example).and_then(|value| best.get(&value).copied()).unwrap_or(other);
    dataset.part(Part::Test).iter().map(predict).collect()
}

/// The class that was counted most, of equals the first.
pub fn most<N: Ord + Copy>(counts: impl IntoIterator<Item = N>) -> u32 {
    let best = (0..).zip(counts).reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or(0, |(class, _)| class)
}

/// G and C among A, C, G and T, in whole per cent.
fn gc_percent(bases: &[u8]) -> u64 {
    let count = |letters: &[u8]| bases.iter().filter(|base| letters.contains(base)).count();
    (100 * count(b"GC")).checked_div(count(b"ACGT")).unwrap_or(0) as u64
}
