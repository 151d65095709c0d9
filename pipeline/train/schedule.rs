//! What changes with the step: the learning rate (a linear warm-up, then a decay), and the context (a warm-up).

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
    /// It does not fall until the last part of the run, the `cooldown`, in which it falls in a straight line
    /// (warm-up, stable, decay).
    Wsd,
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
    /// The last steps, in which `wsd` falls.
    pub cooldown_steps: u64,
    /// Steps in all.
    pub steps: u64,
}

impl Schedule {
    /// The learning rate of step `step`, the first being 1.
    pub fn rate(&self, step: u64) -> f64 {
        if step <= self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let begin = match self.decay {
            Decay::Wsd => self.steps.saturating_sub(self.cooldown_steps).max(self.warmup_steps),
            _ => self.warmup_steps,
        };
        let done = step.saturating_sub(begin) as f64 / (self.steps - begin).max(1) as f64;
        self.peak * (self.floor + (1.0 - self.floor) * self.decay.remaining(done.min(1.0)))
    }
}

impl Decay {
    /// From 1 at 0 to 0 at 1.
    fn remaining(self, done: f64) -> f64 {
        match self {
            Self::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * done).cos()),
            Self::Linear | Self::Wsd => 1.0 - done,
            Self::Constant => 1.0,
        }
    }
}

/// Short contexts first: each row is cut into parts that do not see each other, of `from` tokens at the beginning; their
/// length doubles at equal intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextWarmup {
    /// The first context in tokens: the rows' divided by a power of two.
    pub from: usize,
    /// Steps until the rows are whole.
    pub steps: u64,
}

impl ContextWarmup {
    /// Tokens that are seen together in step `step`, the first being 1, of rows of `context` tokens.
    pub fn context(self, step: u64, context: usize) -> usize {
        let doublings = u64::from((context / self.from).max(1).ilog2());
        let done = (step - 1).saturating_mul(doublings) / self.steps.max(1);
        self.from << done.min(doublings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_double() {
        let warmup = ContextWarmup { from: 16, steps: 10 };
        let found = [1, 4, 5, 7, 8, 10, 11, 1000].map(|step| warmup.context(step, 128));
        assert_eq!(found, [16, 16, 32, 32, 64, 64, 128, 128]);
        assert_eq!(ContextWarmup { from: 128, steps: 5 }.context(1, 128), 128);
    }

    #[test]
    fn rises_and_falls() {
        let (warmup_steps, cooldown_steps) = (10, 20);
        let cosine = Schedule {
            decay: Decay::Cosine,
            peak: 2.0,
            floor: 0.1,
            warmup_steps,
            cooldown_steps,
            steps: 110,
        };
        let wsd = Schedule { decay: Decay::Wsd, ..cosine };
        let linear = Schedule { decay: Decay::Linear, ..cosine };
        let constant = Schedule { decay: Decay::Constant, ..cosine };
        let cases = [
            (cosine, [(1, 0.2), (10, 2.0), (60, 1.1), (110, 0.2), (200, 0.2)]),
            (linear, [(1, 0.2), (10, 2.0), (60, 1.1), (85, 0.65), (110, 0.2)]),
            (constant, [(1, 0.2), (5, 1.0), (10, 2.0), (60, 2.0), (110, 2.0)]),
            (wsd, [(1, 0.2), (10, 2.0), (90, 2.0), (100, 1.1), (110, 0.2)]),
            (
                Schedule { cooldown_steps: 500, ..wsd },
                [(5, 1.0), (10, 2.0), (60, 1.1), (85, 0.65), (110, 0.2)],
            ),
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
