//! Several runs of one model on one task, each with its own seed: how they spread, and which of them collapsed.
//!
//! A run that collapsed learnt nothing where others did, mostly by taking everything for one class. Its figure stays
//! in the mean, for whoever trains the model may meet it too; the run is named, and the spread of the others stands
//! beside. Memory: a few bytes per run.

use serde::{Deserialize, Serialize};

use super::mean;
use super::scores::{Metric, Scores};

/// A coefficient of Matthews that is closer to 0 than this is about 0.
pub const ABOUT_ZERO: f64 = 0.05;

/// How far the best run of a task must be above one at about 0 for that one to count as collapsed; a run at exactly 0,
/// which takes everything for one class, has collapsed as soon as another is not at about 0. Where all runs are at about
/// 0 the task was not learnt, and no run of it stands out.
pub const COLLAPSE: f64 = 0.1;

/// The figures of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Runs whose figure is defined.
    pub runs: u32,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, with n-1; `None` of one run.
    pub sd: Option<f64>,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// The spread of figures; `None` of nothing.
    pub fn new(figures: &[f64]) -> Option<Self> {
        let mean = mean(figures.iter().copied())?;
        let squares: f64 = figures.iter().map(|figure| (figure - mean).powi(2)).sum();
        Some(Self {
            runs: u32::try_from(figures.len()).unwrap_or(u32::MAX),
            mean,
            sd: (figures.len() > 1).then(|| (squares / (figures.len() - 1) as f64).sqrt()),
            min: figures.iter().copied().fold(f64::INFINITY, f64::min),
            max: figures.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// What the runs of a model on a task say together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The score.
    pub metric: Metric,
    /// Of all runs whose figure is defined, the collapsed ones among them.
    pub all: Option<Spread>,
    /// Seeds of the runs whose figure is undefined.
    pub undefined: Vec<u64>,
    /// Seeds of the runs that collapsed.
    pub collapsed: Vec<u64>,
    /// Of the runs that did not collapse; `None` when none did, for then it is that of all.
    pub without_collapsed: Option<Spread>,
}

impl Summary {
    /// Sums up a score over runs, each with its seed.
    pub fn new(metric: Metric, runs: &[(u64, &Scores)]) -> Self {
        let shown = |metric| runs.iter().map(|(_, scores)| scores.shown(metric)).collect::<Vec<_>>();
        let (figures, collapsed) = (shown(metric), collapsed(&shown(Metric::Mcc)));
        let seeds =
            |wanted: Vec<bool>| runs.iter().zip(wanted).filter_map(|(run, wanted)| wanted.then_some(run.0));
        let all: Vec<f64> = figures.iter().copied().flatten().collect();
        let kept =
            figures.iter().zip(&collapsed).filter_map(|(figure, collapsed)| figure.filter(|_| !collapsed));
        let without_collapsed =
            collapsed.contains(&true).then(|| Spread::new(&kept.collect::<Vec<_>>())).flatten();
        Self {
            metric,
            all: Spread::new(&all),
            undefined: seeds(figures.iter().map(Option::is_none).collect()).collect(),
            without_collapsed,
            collapsed: seeds(collapsed).collect(),
        }
    }
}

/// Which runs of a task collapsed, by their coefficients of Matthews as they are shown (0 for a run that takes
/// everything for one class): those at about 0, when another run is clearly not.
pub fn collapsed(coefficients: &[Option<f64>]) -> Vec<bool> {
    let best = coefficients.iter().flatten().map(|mcc| mcc.abs()).fold(0.0, f64::max);
    let has_collapsed = |mcc: f64| {
        let least = if mcc == 0.0 { ABOUT_ZERO } else { COLLAPSE };
        mcc.abs() < ABOUT_ZERO && best - mcc.abs() >= least
    };
    coefficients.iter().map(|mcc| mcc.is_some_and(has_collapsed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::scores::{Classified, Valued};

    #[test]
    fn spread_is_that_of_the_definitions() {
        assert_eq!(Spread::new(&[]), None);
        assert_eq!(Spread::new(&[0.5]).unwrap(), Spread { runs: 1, mean: 0.5, sd: None, min: 0.5, max: 0.5 });
        let found = Spread::new(&[2.0, 4.0, 6.0, 8.0]).unwrap();
        assert_eq!(
            found,
            Spread { runs: 4, mean: 5.0, sd: Some((20.0_f64 / 3.0).sqrt()), min: 2.0, max: 8.0 }
        );
    }

    #[test]
    fn runs_at_about_zero_stand_out_where_others_are_not() {
        for (coefficients, expected) in [
            (&[][..], &[][..]),
            (&[Some(0.0)], &[false]),
            (&[Some(0.7), Some(0.0), Some(0.65), Some(-0.02)], &[false, true, false, true]),
            (&[Some(0.01), Some(0.0), Some(-0.03)], &[false, false, false]),
            (&[Some(0.049), Some(0.051)], &[false, false]),
            (&[Some(0.01), Some(0.12), Some(0.03)], &[true, false, false]),
            (&[Some(0.0), Some(0.06), Some(0.04)], &[true, false, false]),
            (&[Some(0.0), Some(0.04)], &[false, false]),
            (&[Some(0.06), Some(0.7)], &[false, false]),
            (&[Some(-0.5), Some(0.0)], &[false, true]),
            (&[None, Some(0.7), Some(0.0)], &[false, false, true]),
        ] {
            assert_eq!(collapsed(coefficients), expected, "{coefficients:?}");
        }
    }

    #[test]
    fn a_collapsed_run_is_named_and_stays_in_the_mean() {
        let labels = [0, 0, 1, 1];
        let of = |predicted: [u32; 4]| {
            Scores::of_classes(&Classified::new(2, &labels, &predicted, None).unwrap(), None)
        };
        let runs = [of([0, 0, 1, 1]), of([1, 1, 1, 1]), of([0, 0, 1, 1])];
        let seeded: Vec<(u64, &Scores)> = [11, 12, 13].into_iter().zip(&runs).collect();
        let found = Summary::new(Metric::Accuracy, &seeded);
        let spread = |mean, runs, min, sd| Some(Spread { runs, mean, sd: Some(sd), min, max: 1.0 });
        let sd = (1.0_f64 / 12.0).sqrt();
        let all = found.all.unwrap();
        assert!((all.sd.unwrap() - sd).abs() < 1e-15);
        assert_eq!((all.runs, all.mean, all.min), (3, 2.5 / 3.0, 0.5));
        assert_eq!((&found.collapsed[..], &found.undefined[..]), (&[12][..], &[][..]));
        assert_eq!(found.without_collapsed, spread(1.0, 2, 1.0, 0.0));
        let mcc = Summary::new(Metric::Mcc, &seeded);
        assert_eq!((mcc.all.unwrap().min, mcc.all.unwrap().runs, &mcc.collapsed[..]), (0.0, 3, &[12][..]));
        let without = Summary::new(Metric::Accuracy, &[seeded[0], seeded[2]]);
        assert_eq!((without.collapsed.len(), without.without_collapsed), (0, None));
    }

    #[test]
    fn runs_without_a_figure_are_named() {
        let flat = Scores::of_values(&Valued::new(&[1.0, 2.0], &[3.0, 3.0]).unwrap(), None);
        let found = Summary::new(Metric::Spearman, &[(4, &flat)]);
        assert_eq!((found.all, &found.undefined[..], found.collapsed.len()), (None, &[4][..], 0));
    }
}
