//! Logistic regression: the minimum of the mean loss and half the squared weights over `strength` times the examples, as
//! scikit-learn's `LogisticRegression(C=strength)` has it, found by L-BFGS in double precision.
//!
//! Shapes: n examples, d features, K rows of weights (1 for two classes, else one for each class). Features are brought
//! to a mean of 0 and a deviation of 1 by those of the training examples. Memory: the features as doubles, and 20 copies of the weights.

use std::collections::VecDeque;

use tch::{Device, Kind, TchError, Tensor};

/// Steps that the curvature is known from.
const MEMORY: usize = 10;
const MOST_STEPS: usize = 1000;
/// Where every slope is below this, the minimum is reached.
const FLAT: f64 = 1e-8;

/// Mean and deviation of each feature.
#[derive(Debug)]
pub(super) struct Scale {
    mean: Tensor,
    deviation: Tensor,
}

impl Scale {
    /// Those of some features, `[n, d]`; a feature that never changes keeps its deviation of 1.
    pub(super) fn of(features: &Tensor) -> Result<Self, TchError> {
        let all = features.f_to_kind(Kind::Double)?;
        let mean = all.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?;
        let variance = all.f_sub(&mean)?.f_square()?.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?;
        let deviation = variance.f_sqrt()?;
        let none = deviation.f_eq(0.0)?.f_to_kind(Kind::Double)?;
        Ok(Self { mean, deviation: deviation.f_add(&none)? })
    }

    /// Features in these units, with a last one that is always 1: `[n, d]` to `[n, d + 1]`.
    pub(super) fn apply(&self, features: &Tensor) -> Result<Tensor, TchError> {
        let scaled = features.f_to_kind(Kind::Double)?.f_sub(&self.mean)?.f_div(&self.deviation)?;
        let one = Tensor::f_ones([scaled.size()[0], 1], (Kind::Double, Device::Cpu))?;
        Tensor::f_cat(&[scaled, one], 1)
    }
}

/// Weights, `[K, d + 1]`; the last column is what is always added.
#[derive(Debug)]
pub(super) struct Logistic(Tensor);

/// What is to be fitted.
struct Problem<'a> {
    features: &'a Tensor,
    /// `[n]`: the class; of two classes 0.0 or 1.0.
    labels: Tensor,
    classes: i64,
    /// What half the squared weights are divided by.
    held: f64,
}

impl Logistic {
    /// Fits `features`, `[n, d + 1]`, to their classes.
    pub(super) fn fit(
        features: &Tensor,
        labels: &[u32],
        classes: usize,
        strength: f64,
    ) -> Result<Self, TchError> {
        let labels = Tensor::f_from_slice(&labels.iter().map(|class| i64::from(*class)).collect::<Vec<_>>())?;
        let labels = if classes == 2 { labels.f_to_kind(Kind::Double)? } else { labels };
        let held = strength * features.size()[0] as f64;
        let classes = i64::try_from(classes).unwrap_or(i64::MAX);
        Problem { features, labels, classes, held }.minimum().map(Self)
    }

    /// `ln p` of every class: `[n, d + 1]` to `[n, classes]`.
    pub(super) fn log_probabilities(&self, features: &Tensor) -> Result<Tensor, TchError> {
        let scores = features.f_matmul(&self.0.f_transpose(0, 1)?)?;
        if self.0.size()[0] == 1 {
            return Tensor::f_cat(&[scores.f_neg()?.f_log_sigmoid()?, scores.f_log_sigmoid()?], 1);
        }
        scores.f_log_softmax(-1, Kind::Double)
    }
}

impl Problem<'_> {
    fn minimum(&self) -> Result<Tensor, TchError> {
        let rows = if self.classes == 2 { 1 } else { self.classes };
        let mut weights = Tensor::f_zeros([rows, self.features.size()[1]], (Kind::Double, Device::Cpu))?;
        let (mut value, mut slope) = self.value_and_slope(&weights)?;
        let mut past: VecDeque<[Tensor; 2]> = VecDeque::new();
        for _ in 0..MOST_STEPS {
            if slope.f_abs()?.f_max()?.f_double_value(&[])? < FLAT {
                break;
            }
            let direction = direction(&slope, &past)?;
            let Some((next, next_value, next_slope)) = self.along(&weights, value, &slope, &direction)?
            else {
                break;
            };
            let (step, change) = (next.f_sub(&weights)?, next_slope.f_sub(&slope)?);
            if dot(&step, &change)? > 0.0 {
                past.push_back([step, change]);
                if past.len() > MEMORY {
                    past.pop_front();
                }
            }
            (weights, value, slope) = (next, next_value, next_slope);
        }
        Ok(weights)
    }

    /// The first point on the way that is low enough; none where rounding lets nothing be lower.
    fn along(
        &self,
        weights: &Tensor,
        value: f64,
        slope: &Tensor,
        direction: &Tensor,
    ) -> Result<Option<(Tensor, f64, Tensor)>, TchError> {
        let fall = dot(slope, direction)?;
        let mut far = 1.0;
        for _ in 0..40 {
            let next = weights.f_add(&direction.f_mul_scalar(far)?)?;
            let (next_value, next_slope) = self.value_and_slope(&next)?;
            if next_value <= value + 1e-4 * far * fall {
                return Ok(Some((next, next_value, next_slope)));
            }
            far /= 2.0;
        }
        Ok(None)
    }

    /// What is to be low, and where it rises.
    fn value_and_slope(&self, weights: &Tensor) -> Result<(f64, Tensor), TchError> {
        let scores = self.features.f_matmul(&weights.f_transpose(0, 1)?)?;
        let count = self.features.size()[0] as f64;
        let (loss, pull) = if self.classes == 2 {
            let scores = scores.f_squeeze_dim(1)?;
            let loss = scores.f_softplus()?.f_sub(&scores.f_mul(&self.labels)?)?.f_sum(Kind::Double)?;
            (loss, scores.f_sigmoid()?.f_sub(&self.labels)?.f_unsqueeze(1)?)
        } else {
            let logs = scores.f_log_softmax(-1, Kind::Double)?;
            let loss = logs.f_gather(1, &self.labels.f_unsqueeze(1)?, false)?.f_sum(Kind::Double)?.f_neg()?;
            (loss, logs.f_exp()?.f_sub(&self.labels.f_one_hot(self.classes)?)?)
        };
        // What is always added is not held.
        let free = weights.f_slice(1, 0, weights.size()[1] - 1, 1)?;
        let value = loss.f_double_value(&[])? / count + dot(&free, &free)? / (2.0 * self.held);
        let slope = pull.f_transpose(0, 1)?.f_matmul(self.features)?.f_div_scalar(count)?;
        let held = free.f_div_scalar(self.held)?.f_constant_pad_nd([0, 1])?;
        Ok((value, slope.f_add(&held)?))
    }
}

/// Where to go down, by the slope and what steps before changed of it.
fn direction(slope: &Tensor, past: &VecDeque<[Tensor; 2]>) -> Result<Tensor, TchError> {
    let mut direction = slope.f_neg()?;
    let mut shares = Vec::new();
    for [step, change] in past.iter().rev() {
        let share = dot(step, &direction)? / dot(step, change)?;
        direction = direction.f_sub(&change.f_mul_scalar(share)?)?;
        shares.push(share);
    }
    let scale = match past.back() {
        Some([step, change]) => dot(step, change)? / dot(change, change)?,
        None => dot(slope, slope)?.sqrt().max(1.0).recip(),
    };
    direction = direction.f_mul_scalar(scale)?;
    for ([step, change], share) in past.iter().zip(shares.into_iter().rev()) {
        let more = share - dot(change, &direction)? / dot(step, change)?;
        direction = direction.f_add(&step.f_mul_scalar(more)?)?;
    }
    Ok(direction)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64, TchError> {
    a.f_mul(b)?.f_sum(Kind::Double)?.f_double_value(&[])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        classes: usize,
        strength: f64,
        features: Vec<Vec<f64>>,
        labels: Vec<u32>,
        log_probabilities: Vec<Vec<f64>>,
    }

    fn tensor(rows: &[Vec<f64>]) -> Tensor {
        Tensor::from_slice(&rows.concat()).view([-1, i64::try_from(rows[0].len()).unwrap()])
    }

    /// Computed by `tests/oracles/test_logistic.py`.
    #[test]
    fn probabilities_are_those_of_scikit_learn() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/logistic.json");
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(cases.len() >= 6);
        for case in cases {
            let features = tensor(&case.features);
            let scaled = Scale::of(&features).unwrap().apply(&features).unwrap();
            let fitted = Logistic::fit(&scaled, &case.labels, case.classes, case.strength).unwrap();
            let found = fitted.log_probabilities(&scaled).unwrap();
            let off = (found - tensor(&case.log_probabilities)).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{}: {off}", case.name);
        }
    }

    #[test]
    fn a_feature_that_never_changes_is_no_trouble() {
        let features = tensor(&[vec![1.0, 3.0], vec![2.0, 3.0], vec![3.0, 3.0]]);
        let scaled = Scale::of(&features).unwrap().apply(&features).unwrap();
        let column = Vec::<f64>::try_from(scaled.select(1, 1)).unwrap();
        assert_eq!(column, [0.0, 0.0, 0.0]);
    }
}
