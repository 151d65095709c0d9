//! From probabilities to scores: what was predicted for a whole test set, and how good that is.

use crate::metric;
use crate::metric::interval::Bootstrap;
use crate::metric::scores::{Classified, Scores};

/// All scores of a test set, with intervals. `scores` has a row for each example: probabilities, or any other numbers.
///
/// # Errors
/// A score that is no finite number.
pub(super) fn scored(
    truth: &[u32],
    predicted: &[u32],
    scores: &[f64],
    classes: usize,
) -> Result<Scores, metric::Error> {
    let scores: Vec<f64> =
        if classes == 2 { scores.chunks(2).map(|row| row[1]).collect() } else { scores.to_vec() };
    let answers = Classified::new(classes, truth, predicted, Some(&scores))?;
    Ok(Scores::of_classes(&answers, Some(&Bootstrap::default())))
}

/// Probabilities that add up to 1 as doubles do, of their logarithms.
pub(super) fn probabilities(logs: &[f64], classes: usize) -> Vec<f64> {
    let row = |row: &[f64]| {
        let row: Vec<f64> = row.iter().map(|log| log.exp()).collect();
        let sum: f64 = row.iter().sum();
        row.into_iter().map(|p| p / sum).collect::<Vec<_>>()
    };
    logs.chunks(classes.max(1)).flat_map(row).collect()
}
