//! What to evaluate with, and what comes out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metric::interval::{Estimate, Row};
use crate::train::Precision;

/// How to score a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Rows that a thread computes at once. Default: 8.
    pub batch_rows: u32,
    /// Rows to score at most. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
    /// What products of matrices are computed in. Default: f32.
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Draws of the bootstrap that gives the interval. Default: 2000.
    pub bootstrap_draws: u32,
    /// Chooses the draws. Default: 0.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { batch_rows: 8, max_rows: None, precision: Precision::F32, bootstrap_draws: 2000, seed: 0 }
    }
}

/// Bits per base of a model on rows. The first token of a row is not predicted, and special tokens and padding are
/// left out of bits and bases alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Tokens predicted, special ones included.
    pub tokens: u64,
    /// Bases that the predicted tokens stand for.
    pub bases: u64,
    /// Mean loss per predicted token, in nats.
    pub loss: f64,
    /// Bits per base.
    pub bits_per_base: f64,
    /// 95 % interval of the bits per base; none for fewer than two rows.
    pub interval: Option<Estimate>,
    /// Bits and bases of each row.
    pub by_row: Vec<Row>,
}
