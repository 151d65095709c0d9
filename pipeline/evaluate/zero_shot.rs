//! What a model that was never taught a task makes of it: sequences of one class may be likelier than those of the other.
//! The threshold, and which class is the likelier one, come from the training examples.

/// A cut between two classes by likelihood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Threshold {
    /// Between two likelihoods.
    at: f32,
    /// 1 where the second class is likelier, else -1.
    side: f32,
}

impl Threshold {
    /// The cut with the most balanced accuracy on examples of both classes; none where either has no example or a
    /// likelihood is no number.
    pub(super) fn of(likelihoods: &[f32], classes: &[u32]) -> Option<Self> {
        let mut sorted: Vec<(f32, bool)> =
            likelihoods.iter().copied().zip(classes.iter().map(|class| *class == 1)).collect();
        if sorted.iter().any(|(likelihood, _)| !likelihood.is_finite()) {
            return None;
        }
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let positives = sorted.iter().filter(|(_, is)| *is).count() as f64;
        let negatives = sorted.len() as f64 - positives;
        let (mut below, mut best) = ([0.0, 0.0], None::<(f64, Self)>);
        for pair in sorted.windows(2) {
            below[usize::from(pair[0].1)] += 1.0;
            if pair[0].0.total_cmp(&pair[1].0).is_eq() {
                continue;
            }
            // How much more of the negatives than of the positives is below.
            let gain = below[0] / negatives - below[1] / positives;
            let at = f32::midpoint(pair[0].0, pair[1].0);
            if gain.is_finite() && best.is_none_or(|best| gain.abs() > best.0) {
                best = Some((gain.abs(), Self { at, side: if gain < 0.0 { -1.0 } else { 1.0 } }));
            }
        }
        best.map(|(_, threshold)| threshold)
    }

    /// A score for each class of an example: what is above 0 speaks for the second.
    pub(super) fn scores(self, likelihood: f32) -> [f64; 2] {
        let score = f64::from((likelihood - self.at) * self.side);
        [-score, score]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_is_where_the_classes_part() {
        for (likelihoods, classes, expected) in [
            (&[-1.4, -1.3, -1.2, -1.1][..], &[0, 0, 1, 1][..], Some((-1.25, 1.0))),
            (&[-1.4, -1.3, -1.2, -1.1], &[1, 1, 0, 1], Some((-1.25, -1.0))),
            (&[-1.4, -1.4, -1.2], &[0, 1, 1], Some((-1.3, 1.0))),
            (&[-1.4, -1.3], &[1, 1], None),
            (&[-1.4, f32::NAN], &[0, 1], None),
            (&[], &[], None),
        ] {
            let found = Threshold::of(likelihoods, classes);
            assert_eq!(found.map(|found| (found.at, found.side)), expected, "{likelihoods:?}");
        }
        let threshold = Threshold { at: -1.25, side: -1.0 };
        assert_eq!(threshold.scores(-1.5).map(|score| score.to_string()), ["-0.25", "0.25"]);
    }
}
