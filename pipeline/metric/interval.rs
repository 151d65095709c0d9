//! Percentile bootstrap over rows: how sure a figure is, of bits per base or of any score of a set.
//!
//! For bits per base a row is one scored window: its code length in bits and the bases it covers. The figure is the
//! ratio of the sums, so long rows weigh more than short ones. For scores a row is an example. Memory: one `f64` per
//! resample and figure, and four bytes per example and thread.
//!
//! Rows are drawn as if independent. Neighbouring rows of a chromosome are not quite, and a training run with
//! another seed is another model; the interval speaks of neither, only of which rows happened to be held out.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// One scored window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Code length in bits; for a paired comparison, the difference of two code lengths of the same bases.
    pub bits: f64,
    /// Bases that were scored.
    pub bases: u64,
}

/// A figure with its interval, all in bits per base.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure on all rows.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Share of the resamples inside the interval, such as 0.95.
    pub level: f64,
    /// Rows resampled.
    pub rows: u64,
    /// Resamples drawn.
    pub resamples: u32,
}

/// An interval of a score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Share of the resamples inside the interval, such as 0.95.
    pub level: f64,
    /// Resamples drawn.
    pub resamples: u32,
    /// Resamples in which the score is not defined (of one class only, say); the interval is that of the others.
    pub undefined: u32,
}

/// A percentile bootstrap: the same seed and rows give the same interval on any number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Resamples to draw, at least 1.
    pub resamples: u32,
    /// Share of the resamples inside the interval, between 0 and 1.
    pub level: f64,
    /// Where the draws start.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 2_000, level: 0.95, seed: 0 }
    }
}

impl Bootstrap {
    /// Bits per base over `rows` with its interval.
    ///
    /// `None` when there are fewer than two rows with bases (nothing can be said about spread), no resamples, or a
    /// level outside 0 to 1. For a paired comparison give each row the difference of its two code lengths.
    pub fn estimate(&self, rows: &[Row]) -> Option<Estimate> {
        let rows: Vec<Row> = rows.iter().copied().filter(|row| row.bases > 0).collect();
        if rows.len() < 2 || !self.is_sound() {
            return None;
        }
        let figure = |resample| Some(ratio(self.draws(resample, rows.len()).map(|row| rows[row])));
        let ratios = ascending((0..self.resamples).into_par_iter().map(figure).collect());
        let Interval { low, high, level, resamples, .. } = self.interval(&ratios)?;
        Some(Estimate {
            value: ratio(rows.iter().copied()),
            low,
            high,
            level,
            rows: rows.len() as u64,
            resamples,
        })
    }

    /// Any figures of `examples` examples, resampled together: for each figure its values in the resamples in which
    /// it is defined, ascending.
    ///
    /// `figures` is told how many times each example was drawn and gives as many figures each time. Empty when there
    /// are fewer than two examples, no resamples, or a level outside 0 to 1.
    pub fn resample<F>(&self, examples: usize, figures: F) -> Vec<Vec<f64>>
    where
        F: Fn(&[u32]) -> Vec<Option<f64>> + Sync,
    {
        if examples < 2 || !self.is_sound() {
            return Vec::new();
        }
        let resampled: Vec<_> = (0..self.resamples)
            .into_par_iter()
            .map_init(
                || vec![0_u32; examples],
                |times, resample| {
                    times.fill(0);
                    self.draws(resample, examples).for_each(|example| times[example] += 1);
                    figures(times)
                },
            )
            .collect();
        let count = resampled.first().map_or(0, Vec::len);
        let figure = |at: usize| resampled.iter().map(|figures| figures.get(at).copied().flatten()).collect();
        (0..count).map(|at| ascending(figure(at))).collect()
    }

    /// The interval that the ascending values of the resamples give; `None` where there are none, or with a level
    /// outside 0 to 1.
    pub fn interval(&self, sorted: &[f64]) -> Option<Interval> {
        let tail = (1.0 - self.level) / 2.0;
        let defined = u32::try_from(sorted.len()).ok().filter(|&defined| defined > 0 && self.is_sound())?;
        Some(Interval {
            low: quantile(sorted, tail),
            high: quantile(sorted, 1.0 - tail),
            level: self.level,
            resamples: self.resamples,
            undefined: self.resamples.saturating_sub(defined),
        })
    }

    fn is_sound(&self) -> bool {
        self.resamples > 0 && (0.0..=1.0).contains(&self.level)
    }

    /// The rows of a resample, as many as there are rows. Every resample has its own stream of draws.
    fn draws(&self, resample: u32, rows: usize) -> impl Iterator<Item = usize> {
        let mut draws = SplitMix::new(self.seed).fork(u64::from(resample));
        (0..rows).map(move |_| draws.below(rows))
    }
}

/// The figures that are defined, ascending.
fn ascending(figures: Vec<Option<f64>>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.into_iter().flatten().collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures
}

/// Bits over bases of some rows.
fn ratio(rows: impl Iterator<Item = Row>) -> f64 {
    let (bits, bases) = rows.fold((0.0, 0), |(bits, bases), row| (bits + row.bits, bases + row.bases));
    bits / bases as f64
}

/// The value below which the share `at` of `sorted` lies, interpolated between neighbours.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the length")]
    let below = place as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// The splitmix64 generator: a counter times an odd constant, mixed.
struct SplitMix(u64);

impl SplitMix {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An unrelated stream for each `stream`.
    fn fork(mut self, stream: u64) -> Self {
        Self(self.next() ^ mix(stream.wrapping_add(1).wrapping_mul(Self::STEP)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        mix(self.0)
    }

    /// A draw from `0..bound`; the bias is below `bound` in 2^64.
    fn below(&mut self, bound: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the high half of a product with bound is below bound"
        )]
        let draw = ((u128::from(self.next()) * bound as u128) >> 64) as usize;
        draw
    }
}

/// Spreads every input bit over all output bits.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize) -> Vec<Row> {
        let mut draws = SplitMix::new(7);
        (0..count).map(|_| Row { bits: 190.0 + draws.below(21) as f64, bases: 100 }).collect()
    }

    #[test]
    fn generator_gives_the_published_sequence() {
        let mut draws = SplitMix::new(1_234_567);
        let found: Vec<u64> = (0..3).map(|_| draws.next()).collect();
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn draws_cover_the_range_evenly() {
        let mut draws = SplitMix::new(3);
        let mut seen = [0; 5];
        (0..50_000).for_each(|_| seen[draws.below(5)] += 1);
        assert!(seen.iter().all(|&times| (9_500..10_500).contains(&times)), "{seen:?}");
    }

    #[test]
    fn figure_is_the_ratio_of_sums() {
        let rows =
            [Row { bits: 10.0, bases: 10 }, Row { bits: 180.0, bases: 90 }, Row { bits: 5.0, bases: 0 }];
        let found = Bootstrap::default().estimate(&rows).unwrap();
        assert_eq!((found.value, found.rows), (1.9, 2));
        assert!(found.low >= 1.0 && found.high <= 2.0 && found.low < found.high);
    }

    #[test]
    fn interval_matches_the_normal_one_and_shrinks_with_rows() {
        // A row's figure is uniform on 1.90, 1.91 .. 2.10: standard deviation 0.0606.
        for count in [100, 1_600] {
            let found = Bootstrap::default().estimate(&rows(count)).unwrap();
            let expected = 2.0 * 1.96 * 0.0606 / (count as f64).sqrt();
            assert!(
                (found.high - found.low - expected).abs() < 0.15 * expected,
                "{found:?} against {expected}"
            );
            assert!(found.low < found.value && found.value < found.high);
        }
    }

    #[test]
    fn interval_depends_on_the_seed_only() {
        let rows = rows(50);
        let at = |seed, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Bootstrap { seed, ..Bootstrap::default() }.estimate(&rows).unwrap())
        };
        assert_eq!(at(1, 1), at(1, 3));
        assert_ne!(at(1, 1), at(2, 1));
    }

    #[test]
    fn any_figure_is_resampled_as_the_ratio_is() {
        let rows = rows(60);
        let ratio = |times: &[u32]| {
            let drawn = rows
                .iter()
                .zip(times)
                .map(|(row, &times)| (row.bits * f64::from(times), 100 * u64::from(times)));
            Some(super::ratio(drawn.map(|(bits, bases)| Row { bits, bases })))
        };
        let bootstrap = Bootstrap { resamples: 200, ..Bootstrap::default() };
        let odd = |times: &[u32]| (times[0] == 0).then_some(1.0);
        let found = bootstrap.resample(rows.len(), |times| vec![ratio(times), odd(times)]);
        let [of_ratio, of_odd] = [0, 1].map(|at: usize| bootstrap.interval(&found[at]).unwrap());
        let expected = bootstrap.estimate(&rows).unwrap();
        assert!((of_ratio.low - expected.low).abs() < 1e-12 && (of_ratio.high - expected.high).abs() < 1e-12);
        // An example is in a resample of 60 with probability 1 - (59/60)^60 = 0.635.
        assert_eq!((of_ratio.undefined, of_odd.low, of_odd.high), (0, 1.0, 1.0));
        assert!((100..155).contains(&of_odd.undefined), "{of_odd:?}");
        assert_eq!(bootstrap.interval(&[]), None);
        assert!(bootstrap.resample(1, |_| vec![Some(1.0)]).is_empty());
    }

    #[test]
    fn nothing_to_resample_gives_nothing() {
        let one = [Row { bits: 1.0, bases: 1 }, Row { bits: 1.0, bases: 0 }];
        let level = |level| Bootstrap { level, ..Bootstrap::default() }.estimate(&rows(9));
        assert_eq!(Bootstrap::default().estimate(&one), None);
        assert_eq!(Bootstrap { resamples: 0, ..Bootstrap::default() }.estimate(&rows(9)), None);
        assert_eq!((level(1.5), level(f64::NAN)), (None, None));
    }
}
