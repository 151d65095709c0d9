//! How long something lasts, or how often it comes: in steps, tokens, epochs or floating-point operations.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of steps, tokens, epochs or floating-point operations; in text `200 steps`, `5_000_000 tokens`, `1.5 epochs`, `2e15 flops`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Duration {
    /// Optimizer steps.
    Steps(u64),
    /// Tokens read.
    Tokens(u64),
    /// Passes over the rows.
    Epochs(f64),
    /// Floating-point operations of training steps, forward and backward.
    Flops(f64),
}

/// What steps are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Rows per step.
    pub batch_rows: u64,
    /// Tokens per row.
    pub context: u64,
    /// Rows per epoch.
    pub rows: u64,
    /// Floating-point operations per token, forward and backward.
    pub flops_per_token: f64,
}

impl Duration {
    /// In whole steps, rounded up, at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "epochs and operations are checked positive"
    )]
    pub fn steps(self, pace: Pace) -> u64 {
        let steps = match self {
            Self::Steps(steps) => steps,
            Self::Tokens(tokens) => tokens.div_ceil(pace.batch_rows * pace.context),
            Self::Epochs(epochs) => (epochs * pace.rows as f64 / pace.batch_rows as f64).ceil() as u64,
            Self::Flops(flops) => {
                let tokens = (pace.batch_rows * pace.context) as f64;
                (flops / (tokens * pace.flops_per_token)).ceil() as u64
            }
        };
        steps.max(1)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(number) => write!(f, "{number} steps"),
            Self::Tokens(number) => write!(f, "{number} tokens"),
            Self::Epochs(number) => write!(f, "{number} epochs"),
            Self::Flops(number) => write!(f, "{number:e} flops"),
        }
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "expected a duration like `200 steps`, `5_000_000 tokens`, `1.5 epochs` or `2e15 flops`, found `{text}`"
            )
        };
        let (number, unit) = text.trim().split_once(char::is_whitespace).ok_or_else(refused)?;
        let number = number.replace('_', "");
        let whole = || number.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(refused);
        let positive = || {
            let positive = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
            positive.ok_or_else(refused)
        };
        match unit.trim() {
            "step" | "steps" => Ok(Self::Steps(whole()?)),
            "token" | "tokens" => Ok(Self::Tokens(whole()?)),
            "epoch" | "epochs" => Ok(Self::Epochs(positive()?)),
            "flop" | "flops" => Ok(Self::Flops(positive()?)),
            _ => Err(refused()),
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A number of steps, tokens, epochs or floating-point operations, such as `200 steps`, `1.5 epochs` or `2e15 flops`.",
            "pattern": r"^\s*([0-9][0-9_]*\s+(steps?|tokens?)|[0-9][0-9_.]*\s+epochs?|[0-9][0-9_.]*([eE][+-]?[0-9]+)?\s+flops?)\s*$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { batch_rows: 8, context: 100, rows: 20, flops_per_token: 50.0 };

    #[test]
    fn reads_and_writes_and_counts_steps() {
        let cases = [
            ("200 steps", Duration::Steps(200), 200),
            ("1 step", Duration::Steps(1), 1),
            ("1_601 tokens", Duration::Tokens(1601), 3),
            ("2 epochs", Duration::Epochs(2.0), 5),
            ("0.1  epochs", Duration::Epochs(0.1), 1),
            ("2e6 flops", Duration::Flops(2e6), 50),
            ("40_001 flops", Duration::Flops(40_001.0), 2),
        ];
        for (text, expected, steps) in cases {
            let duration = text.parse::<Duration>().unwrap();
            assert_eq!((duration, duration.steps(PACE)), (expected, steps), "{text}");
            assert_eq!(duration.to_string().parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "",
            "200",
            "steps",
            "0 steps",
            "-1 steps",
            "1.5 steps",
            "0 epochs",
            "inf epochs",
            "-1 flops",
            "nan flops",
            "3 days",
        ] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(error.ends_with(&format!("found `{text}`")), "{error}");
        }
    }
}
