//! Two models on the same examples, and many tasks at once: the paired bootstrap of any score, and Holm's correction.
//!
//! Memory: four bytes per example and thread, and one `f64` per resample and score.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Error;
use super::interval::{Bootstrap, Interval};
use super::scores::{Answers, Metric};

/// By how much one model's score is above the other's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The first model's figure less the second's, on all examples.
    pub value: f64,
    /// The interval of the difference.
    pub interval: Interval,
    /// Two-sided: twice the share of the resamples on the rarer side of 0, those at 0 counting for both sides, and no
    /// smaller than the number of resamples can tell.
    pub p: f64,
}

/// The differences of all scores of two models, each resample drawing the same examples for both. Scores that are
/// undefined for either model are left out, and all of them when nothing can be resampled (see
/// [`Bootstrap::resample`]).
///
/// # Errors
///
/// The models were not judged on the same examples.
pub fn paired<A: Answers>(
    bootstrap: &Bootstrap,
    left: &A,
    right: &A,
) -> Result<BTreeMap<Metric, Difference>, Error> {
    left.check_paired(right)?;
    let differences = |times: &[u32]| {
        let pairs = left.figures(times).into_iter().zip(right.figures(times));
        pairs.map(|(left, right)| Some(left? - right?)).collect::<Vec<_>>()
    };
    let values = differences(&vec![1; left.examples()]);
    let resampled = bootstrap.resample(left.examples(), differences);
    let judged = values.into_iter().zip(resampled).map(|(value, sorted)| {
        Some(Difference { value: value?, interval: bootstrap.interval(&sorted)?, p: p_value(&sorted) })
    });
    Ok(A::METRICS.iter().zip(judged).filter_map(|(metric, judged)| Some((*metric, judged?))).collect())
}

/// How rarely ascending differences lie on the other side of 0. The value itself counts as one more resample, so
/// that no p is 0.
fn p_value(sorted: &[f64]) -> f64 {
    let below = sorted.partition_point(|&difference| difference < 0.0);
    let above = sorted.len() - sorted.partition_point(|&difference| difference <= 0.0);
    let rarer = sorted.len() - below.max(above);
    (2.0 * (1 + rarer) as f64 / (1 + sorted.len()) as f64).min(1.0)
}

/// The p values of several tasks, in their order, corrected by Holm's step-down method: the chance of even one false
/// finding among those below a level is at most that level.
///
/// # Errors
///
/// A p value outside 0 to 1.
pub fn holm(p: &[f64]) -> Result<Vec<f64>, Error> {
    if let Some(index) = p.iter().position(|p| !(0.0..=1.0).contains(p)) {
        return Err(Error::PValue { index, found: p[index] });
    }
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&left, &right| p[left].total_cmp(&p[right]));
    let mut corrected = vec![0.0; p.len()];
    let mut highest = 0.0_f64;
    for (place, &task) in order.iter().enumerate() {
        highest = highest.max((p.len() - place) as f64 * p[task]).min(1.0);
        corrected[task] = highest;
    }
    Ok(corrected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::delong::delong;
    use crate::metric::scores::{Classified, Valued};

    const BOOTSTRAP: Bootstrap = Bootstrap { resamples: 1_000, level: 0.95, seed: 5 };

    /// Labels, and scores that follow them with noise, the less the larger `noise`.
    fn scored(examples: usize, noise: f64, seed: u64) -> (Vec<u32>, Vec<f64>) {
        let label = |at: usize| u32::try_from(at % 2).unwrap();
        let draw = |at: usize| {
            let bits = (at as u64 + 1 + seed * 1_000_003).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let bits = (bits ^ (bits >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (bits >> 11) as f64 / (1_u64 << 53) as f64
        };
        let score = |at: usize| (f64::from(label(at)) + noise * draw(at)) / (1.0 + noise);
        ((0..examples).map(label).collect(), (0..examples).map(score).collect())
    }

    fn predicted(scores: &[f64]) -> Vec<u32> {
        scores.iter().map(|&score| u32::from(score > 0.5)).collect()
    }

    #[test]
    fn a_better_model_is_told_from_a_worse_one() {
        let (labels, good) = scored(300, 1.5, 1);
        let (_, bad) = scored(300, 4.0, 2);
        let classes = [predicted(&good), predicted(&bad)];
        let good_answers = Classified::new(2, &labels, &classes[0], Some(&good)).unwrap();
        let bad_answers = Classified::new(2, &labels, &classes[1], Some(&bad)).unwrap();
        let found = paired(&BOOTSTRAP, &good_answers, &bad_answers).unwrap();
        let auroc = found[&Metric::Auroc];
        assert!(
            auroc.interval.low > 0.0 && auroc.value > auroc.interval.low && auroc.value < auroc.interval.high
        );
        assert_eq!((found.len(), auroc.p), (9, 2.0 / 1_001.0));

        // The normal interval of DeLong's variance is the oracle of the bootstrapped one.
        let positive: Vec<bool> = labels.iter().map(|&label| label == 1).collect();
        let expected = delong(&positive, &good, &bad).unwrap().unwrap();
        let width = 2.0 * 1.96 * expected.variance.sqrt();
        assert!((auroc.value - expected.difference).abs() < 1e-12);
        assert!((auroc.interval.high - auroc.interval.low - width).abs() < 0.15 * width, "{auroc:?} {width}");

        let reversed = paired(&BOOTSTRAP, &bad_answers, &good_answers).unwrap()[&Metric::Auroc];
        assert_eq!((reversed.value, reversed.p), (-auroc.value, auroc.p));
    }

    #[test]
    fn models_that_answer_the_same_do_not_differ() {
        let (_, values) = scored(40, 3.0, 1);
        let measured: Vec<f64> = (0..40).map(f64::from).collect();
        let answers = Valued::new(&measured, &values).unwrap();
        for difference in paired(&BOOTSTRAP, &answers, &answers).unwrap().values() {
            assert_eq!((difference.value, difference.p), (0.0, 1.0));
            assert_eq!((difference.interval.low, difference.interval.high), (0.0, 0.0));
        }
    }

    #[test]
    fn p_values_count_the_rarer_side() {
        for (sorted, expected) in [
            (&[-1.0, 1.0, 2.0, 3.0][..], 4.0 / 5.0),
            (&[1.0, 1.0, 2.0, 3.0], 2.0 / 5.0),
            (&[-3.0, -2.0, -1.0, -1.0], 2.0 / 5.0),
            (&[-3.0, -2.0, 0.0, 0.0], 1.0),
            (&[0.0; 4], 1.0),
        ] {
            assert!((p_value(sorted) - expected).abs() < 1e-15, "{sorted:?}");
        }
    }

    #[test]
    fn answers_to_other_examples_are_not_paired() {
        let of = |labels| Classified::new(2, labels, &[0, 1, 1], None).unwrap();
        let error = paired(&BOOTSTRAP, &of(&[0, 1, 1]), &of(&[0, 0, 1])).unwrap_err();
        let expected =
            "cannot compare in pairs: example 1 has another label for one model than for the other";
        assert_eq!(error.to_string(), expected);
        let short = Classified::new(2, &[0, 1], &[0, 1], None).unwrap();
        assert_eq!(
            paired(&BOOTSTRAP, &short, &of(&[0, 1, 1])).unwrap_err().to_string(),
            "there are 3 examples: expected 2"
        );
        // One example cannot be resampled.
        let one = Classified::new(2, &[0], &[0], None).unwrap();
        assert!(paired(&BOOTSTRAP, &one, &one).unwrap().is_empty());
    }

    #[test]
    fn holm_corrects_step_by_step() {
        for (p, expected) in [
            (&[][..], &[][..]),
            (&[0.5], &[0.5]),
            (&[0.25, 0.125, 0.0625, 0.0], &[0.25, 0.25, 0.1875, 0.0]),
            // The second smallest is no smaller than the first: 4 x 0.01, 3 x 0.0125 -> 0.04.
            (&[0.0125, 0.9, 0.01, 0.8], &[0.04, 1.0, 0.04, 1.0]),
        ] {
            assert_eq!(holm(p).unwrap(), expected, "{p:?}");
        }
        for (p, expected) in [(f64::NAN, "NaN"), (1.5, "1.5"), (-0.1, "-0.1")] {
            let error = holm(&[0.1, p]).unwrap_err().to_string();
            assert_eq!(error, format!("p value 1 is {expected}: expected a number from 0 to 1"));
        }
    }
}
