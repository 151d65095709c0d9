//! Why a run ended early.

use std::path::PathBuf;
use std::time::Duration;

use super::{checkpoint, config, prediction};
use crate::model::{device, likelihood, weights};
use crate::{collective, fs, loader};

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that cannot be.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A file call.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// Rows that do not fit the vocabulary.
    #[error(transparent)]
    Rows(#[from] loader::Error),
    /// Tensors.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// A tokenizer that the model cannot be trained with.
    #[error(transparent)]
    Vocabulary(#[from] prediction::Error),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The other ranks.
    #[error(transparent)]
    Ranks(#[from] collective::Error),
    /// The validation rows.
    #[error("cannot evaluate on the validation rows: {0}")]
    Validation(#[source] likelihood::Error),
    /// Rows of the validation set have another length.
    #[error("validation rows have {found} tokens, training rows {expected}")]
    Context {
        /// Tokens per validation row.
        found: usize,
        /// Tokens per training row.
        expected: usize,
    },
    /// A context beyond what a model can have.
    #[error("rows of {0} tokens are too long: a model sees at most 4294967295")]
    TooLong(usize),
    /// Numbers that are none.
    #[error(
        "step {step}: the loss is {loss} and the gradients' norm {norm} at learning rate {rate:.3e}, as in the {limit} \
         steps before, which were skipped (`max_skipped_steps`); a lower `learning_rate` or a longer `warmup` may help"
    )]
    NotFinite {
        /// The step, from 1 on.
        step: u64,
        /// Mean loss in nats.
        loss: f64,
        /// Norm of the gradients.
        norm: f64,
        /// Learning rate.
        rate: f64,
        /// How many steps before this one were skipped for the same reason.
        limit: u32,
    },
    /// Somebody asked to stop.
    #[error("stopped at step {step}; a rerun goes on from `{}`", checkpoint.display())]
    Stopped {
        /// Steps done.
        step: u64,
        /// What was saved.
        checkpoint: PathBuf,
    },
    /// Rows that do not say where documents end.
    #[error("`document_mask`: the {0} rows do not say where documents end; pack them again")]
    NoDocuments(&'static str),
    /// The reading threads ended.
    #[error("step {step}: no more batches came from the rows")]
    NoBatch {
        /// The step, from 1 on.
        step: u64,
    },
    /// A GPU that was asked for and is not there.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// Ranks of which some would compute on GPUs and some on processors.
    #[error(
        "{} without a GPU, and the others with one: give each rank one, or none (`--device cpu`)",
        crate::collective::place::list(.0)
    )]
    NotAllOnGpus(Vec<usize>),
    /// A trace that could not be made.
    #[error("`--trace`: {0}")]
    Trace(String),
    /// More ranks than rows in a batch.
    #[error("`batch_rows` is {rows}: {ranks} ranks need at least one row each")]
    TooManyRanks {
        /// Rows per step.
        rows: u32,
        /// Number of ranks.
        ranks: usize,
    },
    /// A rank that sees something else than rank 0.
    #[error(
        "rank {rank} sees another {what} than rank 0: {found} there, {expected} here; all ranks need the same workflow \
         and shards"
    )]
    OtherRun {
        /// This rank.
        rank: usize,
        /// What differs.
        what: String,
        /// Rank 0's.
        found: String,
        /// This rank's.
        expected: String,
    },
    /// A folder that not all ranks see.
    #[error(
        "rank {rank} does not see `{}`, which rank 0 made {waited:?} ago: all ranks need the same genomill, and a work \
         folder on a file system that they share",
        folder.display()
    )]
    NotShared {
        /// This rank.
        rank: usize,
        /// The folder.
        folder: PathBuf,
        /// How long it was looked for.
        waited: Duration,
    },
    /// What another rank told cannot be read: another version of genomill, most likely.
    #[error("rank {rank} cannot read what the others said of the run: {why}")]
    Unclear {
        /// This rank.
        rank: usize,
        /// What is wrong.
        why: String,
    },
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Tensors(error.into())
    }
}
