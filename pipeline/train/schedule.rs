//! The learning rate as a function of the step: a linear warm-up, then a decay.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Half a wave of the cosine.
    #[default]
    Cosine,
    /// A straight line.
    Linear,
    /// It does not fall.
    Constant,
}

/// A learning rate for every step of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// How it falls.
    pub decay: Decay,
    /// The highest learning rate.
    pub peak: f64,
    /// The last one, as a part of the highest.
    pub floor: f64,
    /// Steps until the highest.
    pub warmup_steps: u64,
    /// Steps in all.
    pub steps: u64,
}

impl Schedule {
    /// The learning rate of step `step`, the first being 1.
    pub fn rate(&self, step: u64) -> f64 {
        if step <= self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let done = (step - self.warmup_steps) as f64 / (self.steps - self.warmup_steps).max(1) as f64;
        self.peak * (self.floor + (1.0 - self.floor) * self.decay.remaining(done.min(1.0)))
    }
}

impl Decay {
    /// From 1 at 0 to 0 at 1.
    fn remaining(self, done: f64) -> f64 {
        match self {
            Self::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * done).cos()),
            Self::Linear => 1.0 - done,
            Self::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_and_falls() {
        let cosine = Schedule { decay: Decay::Cosine, peak: 2.0, floor: 0.1, warmup_steps: 10, steps: 110 };
        let linear = Schedule { decay: Decay::Linear, ..cosine };
        let constant = Schedule { decay: Decay::Constant, ..cosine };
        let cases = [
            (cosine, [(1, 0.2), (10, 2.0), (60, 1.1), (110, 0.2), (200, 0.2)]),
            (linear, [(1, 0.2), (10, 2.0), (60, 1.1), (85, 0.65), (110, 0.2)]),
            (constant, [(1, 0.2), (5, 1.0), (10, 2.0), (60, 2.0), (110, 2.0)]),
        ];
        for (schedule, points) in cases {
            for (step, expected) in points {
                assert!((schedule.rate(step) - expected).abs() < 1e-9, "{schedule:?} at {step}");
            }
        }
        let without = Schedule { warmup_steps: 0, ..cosine };
        assert!(without.rate(1) < 2.0 && without.rate(1) > 1.99);
    }
}
