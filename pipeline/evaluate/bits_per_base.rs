//! Bits per base of a checkpoint. Memory: the model, one batch and two numbers per row.

use std::path::Path;

use tch::Device;

use super::config::{Config, Score};
use super::interval;
use crate::loader::{TokenRows, Vocabulary};
use crate::model::likelihood::{self, Likelihood};
use crate::observer::{Event, Unit};
use crate::train::{Hooks, checkpoint};

/// Why a checkpoint could not be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The rows, the tensors, or a stop.
    #[error(transparent)]
    Score(#[from] likelihood::Error),
    /// Rows that are longer than what the model can see.
    #[error("rows of {found} tokens are longer than the model's context of {limit}")]
    Context {
        /// Tokens per row.
        found: usize,
        /// Tokens that the model sees at most.
        limit: u32,
    },
    /// A batch of no rows.
    #[error("`batch_rows` is 0: expected at least 1")]
    BatchRows,
    /// Nothing to divide by.
    #[error("there is no base to predict in {rows} rows")]
    NoBases {
        /// Rows scored.
        rows: usize,
    },
}

/// Scores the newest checkpoint at or under `folder` on `rows`.
pub fn bits_per_base(
    folder: &Path,
    rows: &dyn TokenRows,
    vocabulary: &Vocabulary,
    config: &Config,
    hooks: Hooks<'_>,
) -> Result<Score, Error> {
    let scored = likelihoods(folder, rows, vocabulary, config, hooks)?;
    summarize(&scored, config).ok_or(Error::NoBases { rows: scored.len() })
}

/// What the newest checkpoint at or under `folder` says of each row, in order.
pub fn likelihoods(
    folder: &Path,
    rows: &dyn TokenRows,
    vocabulary: &Vocabulary,
    config: &Config,
    hooks: Hooks<'_>,
) -> Result<Vec<Likelihood>, Error> {
    tch::set_num_threads(i32::try_from(hooks.threads.max(1)).unwrap_or(i32::MAX));
    let (state, model) = checkpoint::load(folder, Device::Cpu)?;
    checkpoint::check_vocabulary(&state, vocabulary, folder)?;
    check_sizes(rows.context(), model.config().context, config.batch_rows)?;
    let total = config.max_rows.unwrap_or(u64::MAX).min(rows.rows());
    let mut scored = Vec::new();
    likelihood::score(&model, rows, vocabulary, (total, config.batch_rows as usize, 1), hooks.stop, |row| {
        scored.push(row);
        progress(hooks, scored.len() as u64, total);
    })?;
    Ok(scored)
}

fn check_sizes(found: usize, limit: u32, batch_rows: u32) -> Result<(), Error> {
    if batch_rows == 0 {
        return Err(Error::BatchRows);
    }
    if found > limit as usize { Err(Error::Context { found, limit }) } else { Ok(()) }
}

fn progress(hooks: Hooks<'_>, done: u64, total: u64) {
    let stage = hooks.stage.to_owned();
    hooks.observer.event(&Event::Progress { stage, done, total: Some(total), unit: Unit::Items });
}

/// None where no base was predicted.
fn summarize(rows: &[Likelihood], config: &Config) -> Option<Score> {
    let mut sum = Likelihood::default();
    rows.iter().for_each(|row| sum += *row);
    let bits = |row: &Likelihood| (row.base_nats / std::f64::consts::LN_2, row.bases as f64);
    let pairs = rows.iter().map(bits).collect::<Vec<_>>();
    Some(Score {
        rows: rows.len() as u64,
        tokens: sum.tokens,
        bases: sum.bases,
        loss: sum.loss()?,
        bits_per_base: sum.bits_per_base()?,
        interval: interval::ratio(&pairs, config.bootstrap_draws, config.seed)?,
    })
}
