//! How well predicted values follow measured ones.
//!
//! Memory: eight bytes per value, and as much again for ranks.

use super::sorted::Sorted;
use super::{Error, check_finite, check_length};

/// Pearson's correlation, in two passes: means first, then products of what is left, so that a large offset costs no
/// digits. `None` for fewer than two pairs or when either side is constant.
///
/// # Errors
///
/// Lists of unlike length, a value that is not finite.
pub fn pearson(left: &[f64], right: &[f64]) -> Result<Option<f64>, Error> {
    check(left, right)?;
    Ok(pearson_of(left, right, &vec![1; left.len()]))
}

/// Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of their ranks. `None` for fewer
/// than two pairs or when either side is constant.
///
/// # Errors
///
/// Lists of unlike length, a value that is not finite.
pub fn spearman(left: &[f64], right: &[f64]) -> Result<Option<f64>, Error> {
    check(left, right)?;
    let sorted = [left, right].map(|values| Sorted::new(values.len(), |place| values[place]));
    Ok(spearman_of(&sorted, &vec![1; left.len()]))
}

pub(super) fn check(left: &[f64], right: &[f64]) -> Result<(), Error> {
    check_length("predicted values", right.len(), left.len())?;
    check_finite("measured value", left, 1)?;
    check_finite("predicted value", right, 1)
}

/// [`pearson`] when each pair counts `times` times.
pub(super) fn pearson_of(left: &[f64], right: &[f64], times: &[u32]) -> Option<f64> {
    if is_constant(left, times) || is_constant(right, times) {
        return None;
    }
    let (mean_left, mean_right) = (mean(left, times), mean(right, times));
    let (mut of_left, mut of_right, mut of_both) = (0.0, 0.0, 0.0);
    for ((left, right), &times) in left.iter().zip(right).zip(times) {
        let (left, right, times) = (left - mean_left, right - mean_right, f64::from(times));
        of_left += times * left * left;
        of_right += times * right * right;
        of_both += times * left * right;
    }
    let correlation = of_both / of_left.sqrt() / of_right.sqrt();
    correlation.is_finite().then(|| correlation.clamp(-1.0, 1.0))
}

/// [`spearman`] when each pair counts `times` times.
pub(super) fn spearman_of(sorted: &[Sorted; 2], times: &[u32]) -> Option<f64> {
    let [left, right] = [0, 1].map(|side: usize| sorted[side].ranks(times));
    pearson_of(&left, &right, times)
}

/// The values that count are all the same, or there are none. Asked of the values themselves: what rounding leaves of
/// their spread is not 0.
fn is_constant(values: &[f64], times: &[u32]) -> bool {
    let mut counting = values.iter().zip(times).filter(|&(_, &times)| times > 0).map(|(value, _)| value);
    let first = counting.next();
    counting.all(|value| Some(value) == first)
}

fn mean(values: &[f64], times: &[u32]) -> f64 {
    let count: u64 = times.iter().map(|&times| u64::from(times)).sum();
    let sum: f64 = values.iter().zip(times).map(|(value, &times)| value * f64::from(times)).sum();
    sum / count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_vary_has_no_correlation() {
        for (left, right) in [
            (&[][..], &[][..]),
            (&[1.0], &[2.0]),
            (&[0.1, 0.1, 0.1], &[1.0, 2.0, 3.0]),
            (&[1.0, 2.0, 3.0], &[0.7, 0.7, 0.7]),
        ] {
            assert_eq!(
                (pearson(left, right), spearman(left, right)),
                (Ok(None), Ok(None)),
                "{left:?} {right:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_correlated_is_an_error() {
        for (left, right, expected) in [
            (&[1.0, 2.0][..], &[1.0][..], "there are 1 predicted values: expected 2"),
            (
                &[1.0, f64::NAN],
                &[1.0, 2.0],
                "the measured value of example 1 is NaN: expected a finite number",
            ),
            (
                &[1.0, 2.0],
                &[f64::INFINITY, 2.0],
                "the predicted value of example 0 is inf: expected a finite number",
            ),
        ] {
            assert_eq!(pearson(left, right).unwrap_err().to_string(), expected);
            assert_eq!(spearman(left, right).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_large_offset_costs_no_digits() {
        let values: Vec<f64> = (0..50).map(|at| f64::from(at * at % 17)).collect();
        let others: Vec<f64> = (0..50).map(|at| f64::from(at * 7 % 23)).collect();
        let moved: Vec<f64> = values.iter().map(|value| value + 1e9).collect();
        let [expected, found] = [&values, &moved].map(|left| pearson(left, &others).unwrap().unwrap());
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }

    proptest! {
        #[test]
        fn correlations_hold_under_what_should_not_change_them(
            pairs in prop::collection::vec((-9_i8..9, -9_i8..9), 2..50),
            times in prop::collection::vec(0_u32..3, 50),
        ) {
            let [left, right] = [|pair: &(i8, i8)| pair.0, |pair: &(i8, i8)| pair.1]
                .map(|side| pairs.iter().map(|pair| f64::from(side(pair))).collect::<Vec<f64>>());
            let close = |found: Option<f64>, expected: Option<f64>| match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-12,
                (found, expected) => found == expected,
            };
            let (by_value, by_rank) = (pearson(&left, &right).unwrap(), spearman(&left, &right).unwrap());
            prop_assert!(close(pearson(&right, &left).unwrap(), by_value));
            let warped: Vec<f64> = left.iter().map(|value| value.exp()).collect();
            prop_assert!(close(spearman(&warped, &right).unwrap(), by_rank));
            let turned = |values: &[f64]| values.iter().rev().copied().collect::<Vec<f64>>();
            prop_assert!(close(pearson(&turned(&left), &turned(&right)).unwrap(), by_value));
            prop_assert!(close(spearman(&turned(&left), &turned(&right)).unwrap(), by_rank));

            let times = &times[..pairs.len()];
            let repeat = |values: &[f64]| {
                values.iter().zip(times).flat_map(|(&v, &n)| vec![v; n as usize]).collect::<Vec<_>>()
            };
            let sorted = [&left, &right].map(|values| Sorted::new(values.len(), |at| values[at]));
            prop_assert!(close(pearson_of(&left, &right, times), pearson(&repeat(&left), &repeat(&right)).unwrap()));
            prop_assert!(close(spearman_of(&sorted, times), spearman(&repeat(&left), &repeat(&right)).unwrap()));
        }
    }
}
