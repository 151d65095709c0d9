//! How well scores put one class before the others: the areas under two curves.
//!
//! Equal scores are one step of either curve, so no order of the examples can change an area. Memory: eight bytes per
//! example.

use super::sorted::Sorted;
use super::{Error, check_finite, check_length};

/// The area under the receiver operating characteristic: the probability that an example of the class has a higher
/// score than another one, equal scores counting one half. `None` when there are only examples of one sort.
///
/// # Errors
///
/// Lists of unlike length, a score that is not finite.
pub fn auroc(is_positive: &[bool], scores: &[f64]) -> Result<Option<f64>, Error> {
    let ranked = ranked(is_positive, scores)?;
    Ok(auroc_of(&ranked, |place| is_positive[place], &vec![1; scores.len()]))
}

/// The area under the curve of precision over recall as average precision: the sum of precisions, each weighted by
/// the recall that it adds, without interpolation. `None` when there are only examples of one sort.
///
/// # Errors
///
/// Lists of unlike length, a score that is not finite.
pub fn auprc(is_positive: &[bool], scores: &[f64]) -> Result<Option<f64>, Error> {
    let ranked = ranked(is_positive, scores)?;
    Ok(auprc_of(&ranked, |place| is_positive[place], &vec![1; scores.len()]))
}

/// Checked scores of a class, sorted.
pub(super) fn ranked(is_positive: &[bool], scores: &[f64]) -> Result<Sorted, Error> {
    check_length("scores", scores.len(), is_positive.len())?;
    check_finite("score", scores, 1)?;
    Ok(Sorted::new(scores.len(), |place| scores[place]))
}

/// [`auroc`] when each example counts `times` times.
pub(super) fn auroc_of(scores: &Sorted, is_positive: impl Fn(usize) -> bool, times: &[u32]) -> Option<f64> {
    let (mut positives, mut negatives, mut twice_won) = (0, 0, 0);
    for group in scores.groups() {
        let here = count(group, &is_positive, times);
        twice_won += u128::from(here.positives) * u128::from(2 * negatives + here.negatives);
        positives += here.positives;
        negatives += here.negatives;
    }
    let pairs = u128::from(positives) * u128::from(negatives);
    (pairs > 0).then(|| twice_won as f64 / (2.0 * pairs as f64))
}

/// [`auprc`] when each example counts `times` times.
pub(super) fn auprc_of(scores: &Sorted, is_positive: impl Fn(usize) -> bool, times: &[u32]) -> Option<f64> {
    let (mut positives, mut negatives, mut sum) = (0, 0, 0.0);
    for group in scores.groups().rev() {
        let here = count(group, &is_positive, times);
        positives += here.positives;
        negatives += here.negatives;
        if here.positives > 0 {
            sum += here.positives as f64 * (positives as f64 / (positives + negatives) as f64);
        }
    }
    (positives > 0 && negatives > 0).then(|| sum / positives as f64)
}

/// Examples with the same score.
#[derive(Default)]
struct Group {
    positives: u64,
    negatives: u64,
}

fn count(group: &[u32], is_positive: impl Fn(usize) -> bool, times: &[u32]) -> Group {
    group.iter().fold(Group::default(), |mut sum, &place| {
        let place = place as usize;
        let side = if is_positive(place) { &mut sum.positives } else { &mut sum.negatives };
        *side += u64::from(times[place]);
        sum
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn areas_are_those_of_the_definitions() {
        for (positive, scores, of_roc, of_precision) in [
            (&[][..], &[][..], None, None),
            (&[true, true], &[0.1, 0.2], None, None),
            (&[false, false], &[0.1, 0.2], None, None),
            (&[true, false], &[0.9, 0.8], Some(1.0), Some(1.0)),
            (&[true, false], &[0.8, 0.9], Some(0.0), Some(0.5)),
            (&[true, false], &[0.8, 0.8], Some(0.5), Some(0.5)),
            (&[true, false], &[0.0, -0.0], Some(0.5), Some(0.5)),
            // Steps at 3 (1 of 1), 2 (2 of 3), 1 (2 of 4).
            (
                &[true, true, false, false],
                &[3.0, 2.0, 2.0, 1.0],
                Some(3.5 / 4.0),
                Some(f64::midpoint(1.0, 2.0 / 3.0)),
            ),
        ] {
            assert_eq!(auroc(positive, scores), Ok(of_roc), "{positive:?} {scores:?}");
            assert_eq!(auprc(positive, scores), Ok(of_precision), "{positive:?} {scores:?}");
        }
    }

    #[test]
    fn scores_that_are_not_finite_are_an_error_that_names_the_example() {
        for found in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = auroc(&[true, false, true], &[0.5, 0.1, found]).unwrap_err();
            let text = format!("the score of example 2 is {found}: expected a finite number");
            assert_eq!(error.to_string(), text);
            assert_eq!(auprc(&[true, false, true], &[0.5, 0.1, found]).unwrap_err().to_string(), text);
        }
        assert_eq!(auroc(&[true], &[]).unwrap_err().to_string(), "there are 0 scores: expected 1");
    }

    fn examples() -> impl Strategy<Value = Vec<(bool, i8)>> {
        prop::collection::vec((any::<bool>(), -9_i8..9), 0..60)
    }

    fn areas(examples: &[(bool, i8)], score: impl Fn(f64) -> f64) -> [Option<f64>; 2] {
        let positive: Vec<bool> = examples.iter().map(|&(positive, _)| positive).collect();
        let scores: Vec<f64> = examples.iter().map(|&(_, value)| score(f64::from(value))).collect();
        [auroc(&positive, &scores).unwrap(), auprc(&positive, &scores).unwrap()]
    }

    proptest! {
        #[test]
        fn areas_depend_on_the_order_of_scores_only(examples in examples()) {
            let expected = areas(&examples, |value| value);
            prop_assert_eq!(areas(&examples, |value| value.exp() - 3.0), expected);
            prop_assert_eq!(areas(&examples, |value| value.powi(3) * 1e6 + 0.5), expected);
        }

        #[test]
        fn areas_do_not_depend_on_the_order_of_examples(examples in examples(), by in 0_usize..60) {
            let mut turned = examples.clone();
            turned.rotate_left(by % examples.len().max(1));
            turned.reverse();
            prop_assert_eq!(areas(&turned, |value| value), areas(&examples, |value| value));
        }

        #[test]
        fn auroc_is_the_share_of_pairs_won(examples in examples()) {
            let of = |wanted: bool| examples.iter().filter(move |example| example.0 == wanted).map(|e| e.1);
            let won = |p: i8, n: i8| f64::from(u8::from(p > n) + u8::from(p >= n)) / 2.0;
            let pairs: Vec<f64> = of(true).flat_map(|p| of(false).map(move |n| won(p, n))).collect();
            let expected = crate::metric::mean(pairs.iter().copied());
            let found = areas(&examples, |value| value)[0];
            prop_assert_eq!(found.is_some(), expected.is_some());
            prop_assert!((found.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs() < 1e-14);
        }

        #[test]
        fn an_example_that_counts_twice_is_two(examples in examples(), twice in prop::collection::vec(0_u32..4, 60)) {
            let times = &twice[..examples.len()];
            let repeated: Vec<_> = examples.iter().zip(times).flat_map(|(&e, &n)| vec![e; n as usize]).collect();
            let sorted = Sorted::new(examples.len(), |at| f64::from(examples[at].1));
            let [of_roc, of_precision] = areas(&repeated, |value| value);
            prop_assert_eq!(auroc_of(&sorted, |at| examples[at].0, times), of_roc);
            let found = auprc_of(&sorted, |at| examples[at].0, times);
            prop_assert_eq!(found, of_precision);
        }
    }
}
