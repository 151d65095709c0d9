//! The uncertainty of a ratio of sums, by drawing the rows again.

use crate::loader::mix;

/// Shares of draws below and above the interval.
const TAILS: [f64; 2] = [0.025, 0.975];

/// The 95 % percentile interval of `sum of numerators / sum of denominators` over `draws` bootstrap samples of the
/// pairs. Memory: one number per draw.
pub(super) fn ratio(pairs: &[(f64, f64)], draws: u32, seed: u64) -> Option<[f64; 2]> {
    let mut ratios =
        (0..u64::from(draws)).map(|draw| resample(pairs, mix(seed ^ mix(draw)))).collect::<Vec<_>>();
    ratios.retain(|ratio| ratio.is_finite());
    ratios.sort_by(f64::total_cmp);
    let last = ratios.len().checked_sub(1)?;
    Some(TAILS.map(|share| ratios[quantile(last, share)]))
}

fn resample(pairs: &[(f64, f64)], key: u64) -> f64 {
    let count = pairs.len() as u64;
    let drawn = (0..count).map(|i| pairs[below(mix(key ^ mix(i)), count)]);
    let (numerator, denominator) = drawn.fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    numerator / denominator
}

/// A hash as an index below `count`.
#[expect(clippy::cast_possible_truncation, reason = "the product's upper half is below `count`, a length")]
const fn below(hash: u64, count: u64) -> usize {
    ((hash as u128 * count as u128) >> 64) as usize
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `last`")]
fn quantile(last: usize, share: f64) -> usize {
    (last as f64 * share).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_width_of_theory() {
        let noise = |i| (mix(i) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5;
        let pairs = (0..400).map(|i| (2.0 + noise(i), 1.0)).collect::<Vec<_>>();
        let [low, high] = ratio(&pairs, 2000, 1).unwrap();
        let expected = 2.0 * 1.96 * (1.0 / 12.0 / 400.0_f64).sqrt();
        assert!(low < 2.0 && 2.0 < high, "{low} {high}");
        assert!(((high - low) / expected - 1.0).abs() < 0.1, "width {}, expected {expected}", high - low);
    }

    #[test]
    fn nothing_has_no_interval() {
        assert_eq!(ratio(&[], 100, 0), None);
        assert_eq!(ratio(&[(1.0, 0.0)], 100, 0), None);
        assert_eq!(ratio(&[(3.0, 2.0)], 100, 0), Some([1.5, 1.5]));
    }
}
