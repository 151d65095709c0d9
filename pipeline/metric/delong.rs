//! DeLong's test: whether two models that scored the same examples differ in their area under the receiver operating
//! characteristic (E. DeLong, D. DeLong and D. Clarke-Pearson 1988, through ranks as X. Sun and W. Xu 2014).
//!
//! What an example contributes to an area is how many of the other sort it stands on the right side of, which its
//! mid-rank among all less its mid-rank among its own sort counts. All sums are of whole numbers, so that models that
//! differ in nothing have a variance of exactly 0. Time grows as sorting does; memory is 40 bytes per example.

use serde::{Deserialize, Serialize};

use super::Error;
use super::ranking::ranked;
use super::sorted::Sorted;

/// Two areas on the same examples, and how sure their difference is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeLong {
    /// The areas of both models.
    pub auroc: [f64; 2],
    /// The first area less the second.
    pub difference: f64,
    /// Variances of the areas on the diagonal, their covariance beside it.
    pub covariance: [[f64; 2]; 2],
    /// Variance of the difference.
    pub variance: f64,
    /// The difference in standard deviations; `None` when the variance is 0.
    pub z: Option<f64>,
    /// Two-sided, by the normal distribution. 1 where both the difference and the variance are 0; `None` for a
    /// difference without variance, of which the test says nothing.
    pub p: Option<f64>,
}

/// Compares the areas of `left` and `right`, scores of the same examples. `None` with fewer than two examples of
/// either sort.
///
/// # Errors
///
/// Lists of unlike length, a score that is not finite.
pub fn delong(is_positive: &[bool], left: &[f64], right: &[f64]) -> Result<Option<DeLong>, Error> {
    let (left, right) = (ranked(is_positive, left)?, ranked(is_positive, right)?);
    let positives = is_positive.iter().filter(|&&positive| positive).count();
    let negatives = is_positive.len() - positives;
    if positives < 2 || negatives < 2 {
        return Ok(None);
    }
    let (left, right) = (twice_won(&left, is_positive, positives), twice_won(&right, is_positive, positives));
    let between: Vec<i64> = left.iter().zip(&right).map(|(left, right)| left - right).collect();
    let area = |won: &[i64]| area(won, is_positive, positives, negatives);
    let covariance = |left: &[i64], right: &[i64]| {
        let of = |sort| Sums::new(left, right, is_positive, sort);
        of(true).covariance(negatives) + of(false).covariance(positives)
    };
    let of_both = covariance(&left, &right);
    let covariances = [[covariance(&left, &left), of_both], [of_both, covariance(&right, &right)]];
    Ok(Some(judged([area(&left), area(&right)], area(&between), covariances, covariance(&between, &between))))
}

fn judged(auroc: [f64; 2], difference: f64, covariance: [[f64; 2]; 2], variance: f64) -> DeLong {
    let z = (variance > 0.0).then(|| difference / variance.sqrt());
    let p = match z {
        Some(z) => Some(libm::erfc(z.abs() / std::f64::consts::SQRT_2)),
        None => (difference == 0.0).then_some(1.0),
    };
    DeLong { auroc, difference, covariance, variance, z, p }
}

/// For each example twice the number of examples of the other sort that it stands on the right side of, equal scores
/// counting one half.
#[expect(clippy::cast_possible_wrap, reason = "at most MOST_EXAMPLES examples")]
fn twice_won(scores: &Sorted, is_positive: &[bool], positives: usize) -> Vec<i64> {
    let mut won = vec![0; is_positive.len()];
    let (mut positives_below, mut negatives_below) = (0, 0);
    for group in scores.groups() {
        let here = group.iter().filter(|&&place| is_positive[place as usize]).count() as i64;
        let others = group.len() as i64 - here;
        for &place in group {
            let place = place as usize;
            won[place] = if is_positive[place] {
                2 * negatives_below + others
            } else {
                2 * (positives as i64 - positives_below) - here
            };
        }
        positives_below += here;
        negatives_below += others;
    }
    won
}

/// The share of the pairs that were won; of differences, the difference of two such shares.
fn area(twice_won: &[i64], is_positive: &[bool], positives: usize, negatives: usize) -> f64 {
    let sum: i128 = twice_won
        .iter()
        .zip(is_positive)
        .filter(|(_, positive)| **positive)
        .map(|(&won, _)| i128::from(won))
        .sum();
    sum as f64 / (2.0 * positives as f64 * negatives as f64)
}

/// Sums over the examples of one sort.
#[derive(Default)]
struct Sums {
    count: i128,
    of_left: i128,
    of_right: i128,
    of_products: i128,
}

impl Sums {
    fn new(left: &[i64], right: &[i64], is_positive: &[bool], sort: bool) -> Self {
        let mut sums = Self::default();
        for ((&left, &right), _) in left.iter().zip(right).zip(is_positive).filter(|(_, is)| **is == sort) {
            sums.count += 1;
            sums.of_left += i128::from(left);
            sums.of_right += i128::from(right);
            sums.of_products += i128::from(left) * i128::from(right);
        }
        sums
    }

    /// What this sort adds to a covariance of areas: the covariance (n-1) of shares of `others` examples, over the
    /// count.
    fn covariance(&self, others: usize) -> f64 {
        let products = self.count * self.of_products - self.of_left * self.of_right;
        let (count, twice) = (self.count as f64, 2.0 * others as f64);
        products as f64 / (count * (count - 1.0)) / (twice * twice) / count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn models_that_differ_in_nothing_or_without_doubt_are_told_apart() {
        let positive = [true, true, true, false, false];
        let scores = [0.9, 0.3, 0.7, 0.4, 0.1];
        let scaled = scores.map(|score| 10.0 * score);
        let same = delong(&positive, &scores, &scaled).unwrap().unwrap();
        assert_eq!((same.difference, same.variance, same.z, same.p), (0.0, 0.0, None, Some(1.0)));
        let right = [3.0, 3.0, 3.0, 1.0, 1.0];
        let opposite = delong(&positive, &right, &right.map(|score| -score)).unwrap().unwrap();
        assert_eq!(
            (opposite.auroc, opposite.variance, opposite.z, opposite.p),
            ([1.0, 0.0], 0.0, None, None)
        );
        assert_eq!(delong(&positive[..4], &scores[..4], &right[..4]), Ok(None));
        assert_eq!(delong(&[], &[], &[]), Ok(None));
        let error = delong(&positive, &scores, &[0.1, f64::NAN, 0.2, 0.3, 0.4]).unwrap_err();
        assert_eq!(error.to_string(), "the score of example 1 is NaN: expected a finite number");
    }

    proptest! {
        #[test]
        fn variance_is_that_of_the_pairwise_definition(
            examples in prop::collection::vec((any::<bool>(), -4_i8..4, -4_i8..4), 0..40),
        ) {
            let positive: Vec<bool> = examples.iter().map(|example| example.0).collect();
            let [left, right] = [|e: &(bool, i8, i8)| e.1, |e: &(bool, i8, i8)| e.2]
                .map(|side| examples.iter().map(|e| f64::from(side(e))).collect::<Vec<f64>>());
            let Some(found) = delong(&positive, &left, &right).unwrap() else { return Ok(()) };
            let kernel = |scores: &[f64], p: usize, n: usize| match scores[p].total_cmp(&scores[n]) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
            let of = |wanted: bool| (0..positive.len()).filter(|&at| positive[at] == wanted).collect::<Vec<usize>>();
            let (positives, negatives) = (of(true), of(false));
            let gap = |p: usize, n: usize| kernel(&left, p, n) - kernel(&right, p, n);
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            let part = |values: Vec<f64>| {
                let middle = mean(&values);
                let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
                squares / (values.len() - 1) as f64 / values.len() as f64
            };
            let of_positive = |&p: &usize| mean(&negatives.iter().map(|&n| gap(p, n)).collect::<Vec<_>>());
            let of_negative = |&n: &usize| mean(&positives.iter().map(|&p| gap(p, n)).collect::<Vec<_>>());
            let shares = (positives.iter().map(of_positive).collect(), negatives.iter().map(of_negative).collect());
            let expected = part(shares.0) + part(shares.1);
            prop_assert!((found.variance - expected).abs() < 1e-14, "{} {}", found.variance, expected);
            let [[of_left, both], [_, of_right]] = found.covariance;
            prop_assert!((of_left + of_right - 2.0 * both - found.variance).abs() < 1e-14);
            let other = delong(&positive, &right, &left).unwrap().unwrap();
            prop_assert_eq!((other.difference, other.p), (-found.difference, found.p));
        }
    }
}
