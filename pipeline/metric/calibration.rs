//! Whether scores are the probabilities that they say they are: Brier score and expected calibration error.
//!
//! Memory: eighteen bytes per example.

/// Equal-width bins of confidence, each without its lower bound: (0, 1/15], (1/15, 2/15] and so on to 1.
pub const BINS: usize = 15;

/// How far from 1 the probabilities of an example may add up to: what sums of `f32` leave.
const SUM_WITHIN: f64 = 1e-4;

/// What calibration takes from the scores of each example.
#[derive(Debug, Clone)]
pub(super) struct Calibration {
    /// Squared error of the probabilities.
    squared: Vec<f64>,
    /// The probability of the class that has the highest.
    confidence: Vec<f64>,
    /// The bin of the confidence, and whether the class with the highest probability is the label.
    bin: Vec<(u8, bool)>,
}

impl Calibration {
    /// For two classes a row holds the probability of class 1, for more those of all. `None` when any is outside 0
    /// to 1 or, for more than two classes, when those of an example do not add up to 1.
    pub(super) fn new(labels: &[u32], scores: &[f64], width: usize) -> Option<Self> {
        let is_probability = |row: &[f64]| {
            row.iter().all(|score| (0.0..=1.0).contains(score))
                && (width == 1 || (row.iter().sum::<f64>() - 1.0).abs() <= SUM_WITHIN)
        };
        scores.chunks_exact(width).all(is_probability).then(|| {
            let mut calibration = Self { squared: Vec::new(), confidence: Vec::new(), bin: Vec::new() };
            for (row, &label) in scores.chunks_exact(width).zip(labels) {
                calibration.push(row, label as usize);
            }
            calibration
        })
    }

    fn push(&mut self, row: &[f64], label: usize) {
        let (class, confidence) = top(row);
        self.squared.push(squared_error(row, label));
        self.confidence.push(confidence);
        self.bin.push((bin(confidence), class == label));
    }

    /// The mean squared error of the probabilities when each example counts `times` times: of class 1 for two
    /// classes, summed over all classes for more. `None` without examples.
    pub(super) fn brier(&self, times: &[u32]) -> Option<f64> {
        let examples: u64 = times.iter().map(|&times| u64::from(times)).sum();
        let sum: f64 =
            self.squared.iter().zip(times).map(|(squared, &times)| squared * f64::from(times)).sum();
        (examples > 0).then(|| sum / examples as f64)
    }

    /// The expected calibration error when each example counts `times` times: over [`BINS`] bins of the confidence
    /// in the class with the highest probability, the mean of |accuracy - mean confidence|, each bin weighing as much
    /// as it has examples. `None` without examples.
    pub(super) fn ece(&self, times: &[u32]) -> Option<f64> {
        let mut gaps = [0.0; BINS];
        let mut examples = 0;
        for ((&(bin, is_right), confidence), &times) in self.bin.iter().zip(&self.confidence).zip(times) {
            gaps[usize::from(bin)] += (f64::from(u8::from(is_right)) - confidence) * f64::from(times);
            examples += u64::from(times);
        }
        (examples > 0).then(|| gaps.iter().map(|gap| gap.abs()).sum::<f64>() / examples as f64)
    }
}

/// The class with the highest probability, the first of equal ones, and that probability.
fn top(row: &[f64]) -> (usize, f64) {
    match row {
        [one] if *one > 0.5 => (1, *one),
        [one] => (0, 1.0 - one),
        all => all
            .iter()
            .copied()
            .enumerate()
            .fold((0, f64::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best }),
    }
}

fn squared_error(row: &[f64], label: usize) -> f64 {
    let square = |class: usize, score: f64| (score - f64::from(u8::from(class == label))).powi(2);
    match row {
        [one] => square(1, *one),
        all => all.iter().enumerate().map(|(class, &score)| square(class, score)).sum(),
    }
}

/// The bin of a confidence; one of 0 (of which there is none with two classes) goes to the first.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to BINS")]
fn bin(confidence: f64) -> u8 {
    ((confidence * BINS as f64).ceil() as u8).clamp(1, BINS as u8) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_the_definitions() {
        let close = |found: Option<f64>, expected: f64| {
            assert!((found.unwrap() - expected).abs() < 1e-15, "{found:?}");
        };
        // Confidences 0.9 (right), 0.9 (wrong), 0.8 (right), in two bins.
        let two = Calibration::new(&[1, 1, 0], &[0.9, 0.1, 0.2], 1).unwrap();
        close(two.brier(&[1, 1, 1]), (0.01 + 0.81 + 0.04) / 3.0);
        close(two.ece(&[1, 1, 1]), (0.8 + 0.2) / 3.0);
        close(two.brier(&[2, 0, 0]), 0.01);
        close(two.ece(&[2, 0, 1]), (0.2 + 0.2) / 3.0);
        let three = Calibration::new(&[2, 0], &[0.2, 0.3, 0.5, 0.25, 0.5, 0.25], 3).unwrap();
        close(three.brier(&[1, 1]), (0.04 + 0.09 + 0.25 + 0.5625 + 0.25 + 0.0625) / 2.0);
        close(three.ece(&[1, 1]), 0.0);
        assert_eq!((two.brier(&[0, 0, 0]), two.ece(&[0, 0, 0])), (None, None));
    }

    #[test]
    fn bins_hold_their_upper_bound() {
        for (confidence, expected) in [(0.0, 0), (0.01, 0), (0.5, 7), (0.8, 11), (0.81, 12), (1.0, 14)] {
            assert_eq!(bin(confidence), expected, "{confidence}");
        }
        assert_eq!((top(&[0.5]), top(&[0.4, 0.4, 0.2])), ((0, 0.5), (0, 0.4)));
    }

    #[test]
    fn scores_that_are_no_probabilities_have_no_calibration() {
        for (scores, width) in
            [(&[1.1, 0.5, 0.5][..], 1), (&[-0.1, 0.5, 0.5], 1), (&[0.5, 0.3, 0.1], 3), (&[0.9, 0.9, -0.8], 3)]
        {
            assert!(Calibration::new(&[0, 1, 0], scores, width).is_none(), "{scores:?}");
        }
        let summed_in_f32 = [0.5, 0.3, 0.200_000_1];
        assert!(Calibration::new(&[0], &summed_in_f32, 3).is_some());
    }
}
