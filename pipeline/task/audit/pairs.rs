//! What tells variants apart without a model of DNA: whether a transition, whether a `CpG` is lost, how much of the surroundings is G or C.
//! There is nothing to learn from: the score is how well each of them ranks.

use std::collections::HashMap;

use super::super::{Dataset, Example, Part};
use super::baseline::{Baseline, Score};
use crate::metric::ranking::auroc;

/// What is compared: the variant in its surroundings, and the reference there.
type Measure = fn(&[u8], &[u8]) -> f64;

const MEASURES: [(&str, Measure); 3] = [
    ("transition", |changed, against| f64::from(u8::from(is_transition(changed, against)))),
    ("lost CpG", lost_cpg),
    ("gc", gc),
];

/// Every baseline; `clean` leaves out none.
pub fn all(dataset: &Dataset) -> Vec<Baseline> {
    let examples = dataset.part(Part::Test);
    let truth = examples.iter().map(|example| example.class == 1).collect::<Vec<_>>();
    let baseline = |(name, measure): (&'static str, Measure)| {
        let values = examples.iter().map(|example| {
            let (changed, against) = pair(dataset, example);
            measure(changed, against)
        });
        let ranked = auroc(&truth, &values.collect::<Vec<_>>()).ok().flatten();
        Baseline { name, official: Score { accuracy: f64::NAN, mcc: None, auroc: ranked }, clean: None }
    };
    MEASURES.into_iter().map(baseline).collect()
}

fn pair<'a>(dataset: &'a Dataset, example: &Example) -> (&'a [u8], &'a [u8]) {
    (dataset.bases(example).unwrap_or_default(), dataset.against(example).unwrap_or_default())
}

fn is_transition(changed: &[u8], against: &[u8]) -> bool {
    let differing = changed.iter().zip(against).find(|(a, b)| a != b);
    changed.len() == against.len()
        && matches!(differing, Some((b'A', b'G') | (b'G', b'A') | (b'C', b'T') | (b'T', b'C')))
}

fn lost_cpg(changed: &[u8], against: &[u8]) -> f64 {
    let count = |bases: &[u8]| bases.windows(2).filter(|pair| *pair == b"CG").count() as f64;
    count(against) - count(changed)
}

fn gc(_: &[u8], against: &[u8]) -> f64 {
    against.iter().filter(|base| b"GC".contains(base)).count() as f64
}

/// Variants that are there more than once, and of these those with both classes.
pub fn repeated(dataset: &Dataset) -> [u64; 2] {
    let mut seen: HashMap<_, [u64; 2]> = HashMap::new();
    for example in dataset.part(Part::Test) {
        let counts = seen.entry((example.place, pair(dataset, example))).or_default();
        counts[usize::from(example.class == 1)] += 1;
    }
    seen.values().filter(|[no, yes]| no + yes > 1).fold([0, 0], |[all, both], [no, yes]| {
        [all + no + yes, both + if *no > 0 && *yes > 0 { no + yes } else { 0 }]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_tell_what_changed() {
        for (changed, against, expected) in [
            (&b"ACATG"[..], &b"ACGTG"[..], (true, 1.0, 3.0)),
            (b"ACCTG", b"ACGTG", (false, 1.0, 3.0)),
            (b"ACGTG", b"ACATG", (true, -1.0, 2.0)),
            (b"ACGT", b"ACT", (false, -1.0, 1.0)),
        ] {
            let found = (is_transition(changed, against), lost_cpg(changed, against), gc(changed, against));
            assert_eq!(found, expected, "{changed:?}");
        }
    }
}
