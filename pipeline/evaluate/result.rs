//! What comes of scoring a model on a task, as it is written to `result.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::protocol::{Config, Given};
use crate::fs;
use crate::metric::scores::{Metric, Scores};
use crate::metric::seeds;
use crate::task::Kind;

/// Version of the file's contents.
pub const FORMAT: &str = "genomill.evaluation/1";
/// The file within the folder of a task, protocol and model.
pub const FILE: &str = "result.json";

/// Which model it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What it is called.
    pub name: String,
    /// `OLMo`, `HyenaDNA` or `DNABERT-2`.
    pub family: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Width of its hidden values.
    pub width: u32,
    /// Tokens that it takes at most; none where nothing but memory is in the way.
    pub context: Option<u32>,
    /// Whether a position sees none behind it.
    pub causal: bool,
    /// Hash of its weights.
    pub weights: String,
    /// Hash of its tokenizer, and of what stands around a sequence.
    pub tokenizer: String,
}

/// Which task it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOf {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Hash of all its examples and classes.
    pub content: String,
    /// What the score is.
    pub metric: Metric,
    /// What has a class.
    #[serde(default)]
    pub kind: Kind,
    /// The classes in order.
    pub classes: Vec<String>,
    /// Examples of its train, validation and test parts; windows where bases have classes.
    pub examples: [u64; 3],
    /// Test examples that are no copies of what is learned from and share neither most of their places nor most of their k-mers with it.
    pub clean: u64,
}

/// A value that was tried and the mean loss on what validates, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// A learning rate, or a strength.
    pub value: f64,
    /// The lowest loss that came of it; none where it was no number.
    pub loss: Option<f64>,
}

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Chooses first weights, order and what is drawn to validate.
    pub seed: u64,
    /// The learning rate, or the strength; none where nothing is learned.
    pub chosen: Option<f64>,
    /// What was tried to choose it; empty where an earlier seed did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Tried>,
    /// The epoch whose weights were kept, from 1; none where there are no epochs.
    pub epoch: Option<u32>,
    /// The mean loss on what validates, in nats; none where nothing does.
    pub validation_loss: Option<f64>,
    /// On the test set.
    pub scores: Scores,
    /// On the clean test examples, where not all of them are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<Scores>,
    /// The file beside this one with a row for each test example.
    pub predictions: String,
}

impl Run {
    /// Whether the `lowest` or the `highest` of several values that were tried is the one chosen: one beyond may be better.
    pub fn edge(&self) -> Option<&'static str> {
        let chosen = self.chosen.filter(|_| self.tried.len() > 1)?;
        let mut tried = self.tried.iter().map(|tried| tried.value);
        let highest = tried.clone().all(|value| value <= chosen);
        let lowest = tried.all(|value| value >= chosen);
        highest.then_some("highest").or_else(|| lowest.then_some("lowest"))
    }
}

/// A model on a task by a protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Version of the file's contents.
    pub format: String,
    /// The version of genomill.
    pub genomill: String,
    /// Hash of all that the figures depend on.
    pub key: String,
    /// The model.
    pub model: Identity,
    /// The task.
    pub task: TaskOf,
    /// The protocol, with every default.
    pub config: Config,
    /// What happened to the sequences of all parts on their way into the model.
    pub given: Given,
    /// By seed; a single one where seeds make no difference.
    pub runs: Vec<Run>,
    /// The task's own score over all runs.
    pub summary: seeds::Summary,
    /// The same on the clean test examples, where not all of them are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<seeds::Summary>,
    /// How often this test set was looked at in this place, with this model and protocol.
    pub looks: u32,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Why results cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file call.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// A file of other contents.
    #[error("`{}` is no result: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Nothing where results are expected.
    #[error("`{}` holds no results: expected a `{FILE}` in it or below it", .0.display())]
    Absent(PathBuf),
}

/// Reads a result.
///
/// # Errors
/// [`Error`] for a file that cannot be read or has other contents.
pub fn read(path: &Path) -> Result<Outcome, Error> {
    let malformed = |problem: String| Error::Malformed { path: path.to_owned(), problem };
    let value: serde_json::Value =
        serde_json::from_slice(&fs::read(path)?).map_err(|error| malformed(error.to_string()))?;
    match value["format"].as_str() {
        Some(FORMAT) => serde_json::from_value(value).map_err(|error| malformed(error.to_string())),
        found => Err(malformed(format!("its format is `{}`, expected `{FORMAT}`", found.unwrap_or("none")))),
    }
}

/// The results at or below a path, by the names of their folders, with the files that they stand in.
///
/// # Errors
/// [`Error`] where there is none.
pub fn find(path: &Path) -> Result<Vec<(PathBuf, Outcome)>, Error> {
    let mut files = Vec::new();
    gather(path, &mut files);
    if files.is_empty() {
        return Err(Error::Absent(path.to_owned()));
    }
    files.into_iter().map(|file| Ok((file.clone(), read(&file)?))).collect()
}

fn gather(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
        return;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            gather(&path, files);
        } else if path.file_name().is_some_and(|name| name == FILE) {
            files.push(path);
        }
    }
}
