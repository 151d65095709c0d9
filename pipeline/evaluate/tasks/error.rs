//! Why a model has no result on a task.

use std::path::PathBuf;

use super::super::protocol::Protocol;
use super::super::{encoder, predictions, result};
use crate::model::weights;
use crate::{fs, metric};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model.
    #[error(transparent)]
    Encoder(#[from] encoder::Error),
    /// A file call.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// A table of predictions.
    #[error(transparent)]
    Predictions(#[from] predictions::Error),
    /// A result that is there and cannot be read.
    #[error(transparent)]
    Result(#[from] result::Error),
    /// Scores that are no numbers.
    #[error("task `{task}`, seed {seed}: the answers to the test set: {source}")]
    Scores {
        /// The task.
        task: String,
        /// The seed.
        seed: u64,
        /// What is wrong.
        source: metric::Error,
    },
    /// A configuration that cannot be.
    #[error("`{key}` {problem}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A task of places without bases.
    #[error("task `{task}` has no bases to show a model: give the reference that its intervals lie on")]
    NoBases {
        /// Its name.
        task: String,
    },
    /// A model, protocol or strand that is not for such a task.
    #[error("task `{task}` is about {what}: expected {expected}, for `{model}`")]
    Kind {
        /// Its name.
        task: String,
        /// What has a class.
        what: &'static str,
        /// The model.
        model: String,
        /// What may be asked.
        expected: &'static str,
    },
    /// Tokens that do not stand for every base, where every base has a class.
    #[error(
        "task `{task}`: the tokens of a window stand for {found} of its {expected} bases, which all have a class: expected a tokenizer that \
         loses none, such as `nucleotide` or BPE"
    )]
    Lost {
        /// Its name.
        task: String,
        /// Bases that tokens stand for.
        found: usize,
        /// Bases.
        expected: usize,
    },
    /// A sequence without a base.
    #[error("task `{task}`: the sequence in line {line} of `{}` is empty", file.display())]
    Empty {
        /// Its name.
        task: String,
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u64,
    },
    /// A class that nothing can be learned of.
    #[error("task `{task}`: the class `{class}` has {examples} examples in {part} and none to learn from")]
    Unseen {
        /// Its name.
        task: String,
        /// The class.
        class: String,
        /// Examples of it.
        examples: u64,
        /// In which part.
        part: &'static str,
    },
    /// A validation part without examples.
    #[error(
        "task `{task}` has too few examples to draw what validates, or families that are too large: {examples} to learn from"
    )]
    NoValidation {
        /// Its name.
        task: String,
        /// Examples of its training part.
        examples: usize,
    },
    /// More k-mers than can be numbered.
    #[error("`validation: homology`: {0}")]
    Families(#[from] crate::sequence::index::TooMany),
    /// A model that says nothing of how likely a sequence is.
    #[error(
        "`{model}` is a masked model, which has no likelihood of a sequence: `zero-shot` is for causal models"
    )]
    Masked {
        /// Its name.
        model: String,
    },
    /// A task that a threshold cannot decide.
    #[error(
        "task `{task}`: `zero-shot` tells two classes apart that are both in the training part, found {classes}"
    )]
    NotTwo {
        /// Its name.
        task: String,
        /// Its classes.
        classes: usize,
    },
    /// A test set that was looked at before.
    #[error(
        "the test set of `{task}` has been looked at by `{model}` with `{protocol}` (looks: {looks}), the last time with another \
         configuration, weights or data (`{}`): one more must be asked for (--look-again), and the result counts it",
        place.display()
    )]
    Looked {
        /// The task.
        task: String,
        /// The model.
        model: String,
        /// The protocol.
        protocol: Protocol,
        /// How often.
        looks: usize,
        /// The folder of the results.
        place: PathBuf,
    },
}

impl From<weights::Error> for Error {
    fn from(error: weights::Error) -> Self {
        encoder::Error::from(error).into()
    }
}

impl Error {
    /// Whether it is a stop that was asked for.
    pub const fn is_stop(&self) -> bool {
        matches!(self, Self::Encoder(encoder::Error::Stopped))
    }
}
