//! Checkpoints: a folder with `model.safetensors`, `tokenizer.json`, the optimizer's moments in a file of each rank,
//! `optimizer-<rank>-of-<ranks>.safetensors`, and `checkpoint.json`. Format 2 has one `optimizer.safetensors`, and is read.
//!
//! A checkpoint is written beside its place and renamed when whole; the JSON holds the hash of each other file, and
//! reading refuses a file that does not match it. Any number of ranks reads what any number wrote.
//!
//! Memory beside the run's own, while saving and while reading: one tensor on every rank. What a rank keeps are the weights
//! and the moments of its parameters, and no rank ever has all moments.

mod moments;
mod save;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Device;

use super::config::Resolved;
use crate::fs;
use crate::loader::Vocabulary;
use crate::model::Shape;
use crate::model::likelihood::Likelihood;
use crate::model::network::Network;
use crate::model::olmo::Olmo;
use crate::model::weights;
use crate::tokenizer::{self, Tokenizer};

pub(super) use self::moments::read as read_moments;
pub(super) use self::save::{Part, save};

/// Version of the folder's contents.
const FORMAT: &str = "genomill.checkpoint/3";
/// The version before, in which one file had all moments.
const FORMAT_2: &str = "genomill.checkpoint/2";
const FOLDER: &str = "checkpoints";
const STATE: &str = "checkpoint.json";
const MODEL: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";

/// What a checkpoint holds besides tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Version of the folder's contents.
    pub format: String,
    /// Steps done, and what was measured until then.
    pub progress: Progress,
    /// The run.
    pub config: Resolved,
    /// The tokenizer that the ids come from.
    pub vocabulary: VocabularyRef,
    /// The rows that it was trained on.
    pub data: DataRef,
    /// blake3 of each other file.
    pub files: BTreeMap<String, String>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Rows read: the sampler's position.
    pub position: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Steps that were skipped, since their loss or gradients were no numbers.
    pub skipped: u64,
    /// The last of them, in a row.
    pub skipped_in_a_row: u32,
    /// Sums since the last record.
    pub window: Likelihood,
    /// The lowest validation loss so far.
    pub best: Option<Best>,
}

/// An evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// After this step.
    pub step: u64,
    /// Mean loss on the validation rows, in nats.
    pub loss: f64,
}

/// Which tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocabularyRef {
    /// Number of ids.
    pub size: usize,
    /// The id before every window of the rows, where there is one.
    pub begin: Option<u32>,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// Which rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRef {
    /// Number of rows.
    pub rows: u64,
    /// Tokens per row.
    pub context: usize,
    /// Their fingerprint.
    pub fingerprint: String,
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file call.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// Tensors.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// No checkpoint where one is expected.
    #[error("`{}` holds no checkpoint: expected `{STATE}` or `{FOLDER}/step-<n>/{STATE}`", .0.display())]
    Absent(PathBuf),
    /// A state file that is not one.
    #[error("`{}` is no checkpoint's state: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The state of another version.
    #[error("`{}` is of the format `{found}`, this genomill reads `{FORMAT}` and `{FORMAT_2}`", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A file that changed since it was written.
    #[error("`{}` is damaged: its blake3 is {found}, the checkpoint says {expected}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its hash.
        found: String,
        /// The hash when it was written.
        expected: String,
    },
    /// A checkpoint of another run.
    #[error("the checkpoint `{}` has another {what}: {found} there, {expected} here", path.display())]
    Other {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        what: String,
        /// The checkpoint's.
        found: String,
        /// This run's.
        expected: String,
    },
}

/// The newest checkpoint at or under `folder`: itself, or the one of most steps in its `checkpoints`.
pub fn find(folder: &Path) -> Result<PathBuf, Error> {
    if folder.join(STATE).is_file() {
        return Ok(folder.to_owned());
    }
    latest(folder).ok_or_else(|| Error::Absent(folder.to_owned()))
}

/// The state of the newest checkpoint at or under `folder`.
pub fn state(folder: &Path) -> Result<State, Error> {
    read_state(&find(folder)?)
}

/// The state of the newest checkpoint at or under `folder`, after comparing every file of it with its hash.
pub fn verify(folder: &Path) -> Result<State, Error> {
    let folder = find(folder)?;
    let state = read_state(&folder)?;
    for name in state.files.keys() {
        checked(&folder, &state, name)?;
    }
    Ok(state)
}

/// The state and the model, which must be an OLMo, of the newest checkpoint at or under `folder`.
pub fn load(folder: &Path, device: Device) -> Result<(State, Olmo), Error> {
    let (state, model) = network(folder, device)?;
    Ok((state, model.olmo()?))
}

/// The state and the model of the newest checkpoint at or under `folder`.
pub fn network(folder: &Path, device: Device) -> Result<(State, Network), Error> {
    let folder = find(folder)?;
    let state = read_state(&folder)?;
    let model = Network::read(&state.config.model, &checked(&folder, &state, MODEL)?, device)?;
    Ok((state, model))
}

/// The tokenizer of the checkpoint in `folder`.
pub fn tokenizer(folder: &Path, state: &State) -> Result<Box<dyn Tokenizer>, Error> {
    Ok(tokenizer::open(&checked(folder, state, TOKENIZER)?)?)
}

/// Refuses rows of another tokenizer than the checkpoint's.
pub fn check_vocabulary(state: &State, vocabulary: &Vocabulary, folder: &Path) -> Result<(), Error> {
    let here = VocabularyRef::of(vocabulary);
    same(folder, "tokenizer", &state.vocabulary.fingerprint, &here.fingerprint)?;
    same(folder, "vocabulary size", &state.vocabulary.size, &here.size)
}

impl VocabularyRef {
    pub(super) fn of(vocabulary: &Vocabulary) -> Self {
        let (size, begin) = (vocabulary.size(), vocabulary.begin);
        Self { size, begin, fingerprint: vocabulary.fingerprint.clone() }
    }
}

impl State {
    /// Tokens that the model sees together: an OLMo's context; of other models as many as it was trained on.
    pub fn window(&self) -> usize {
        match &self.config.model {
            Shape::Olmo(config) => config.context as usize,
            _ => self.data.context,
        }
    }

    pub(super) fn new(config: &Resolved, vocabulary: VocabularyRef, data: DataRef) -> Self {
        let (progress, files) = (Progress::default(), BTreeMap::new());
        Self { format: FORMAT.to_owned(), progress, config: config.clone(), vocabulary, data, files }
    }

    /// Refuses the checkpoint of another run, naming the first thing that differs.
    fn check_same_run(&self, other: &Self, folder: &Path) -> Result<(), Error> {
        self.difference(other).map_or(Ok(()), |difference| Err(difference.of_checkpoint(folder)))
    }

    /// The first thing by which this is another run.
    pub(super) fn difference(&self, other: &Self) -> Option<Difference> {
        let (found, expected) = (flat(&self.config), flat(&other.config));
        let differing = expected.into_iter().find(|(key, value)| found.get(key) != Some(value));
        let of_config = differing.map(|(key, expected)| {
            let found = found.get(&key).map_or("nothing", String::as_str).to_owned();
            Difference { what: format!("configuration at `{key}`"), found, expected }
        });
        let tokenizer =
            || Difference::of("tokenizer", &self.vocabulary.fingerprint, &other.vocabulary.fingerprint);
        let rows = || Difference::of("set of rows", &self.data.fingerprint, &other.data.fingerprint);
        let number = || Difference::of("number of rows", &self.data.rows, &other.data.rows);
        of_config.or_else(tokenizer).or_else(rows).or_else(number)
    }
}

/// By what two runs differ.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) what: String,
    pub(super) found: String,
    pub(super) expected: String,
}

impl Difference {
    fn of<T: PartialEq + ToString>(what: &str, found: &T, expected: &T) -> Option<Self> {
        let differs =
            || Self { what: what.to_owned(), found: found.to_string(), expected: expected.to_string() };
        (found != expected).then(differs)
    }

    fn of_checkpoint(self, path: &Path) -> Error {
        let Self { what, found, expected } = self;
        Error::Other { path: path.to_owned(), what, found, expected }
    }
}

/// The values of a configuration by their path.
fn flat(config: &Resolved) -> BTreeMap<String, String> {
    fn walk(value: &serde_json::Value, path: &str, flat: &mut BTreeMap<String, String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    walk(value, format!("{path}.{key}").trim_start_matches('.'), flat);
                }
            }
            leaf => drop(flat.insert(path.to_owned(), leaf.to_string())),
        }
    }
    let mut flat = BTreeMap::new();
    walk(&serde_json::to_value(config).unwrap_or_default(), "", &mut flat);
    flat
}

fn same<T: PartialEq + ToString>(path: &Path, what: &str, found: &T, expected: &T) -> Result<(), Error> {
    Difference::of(what, found, expected).map_or(Ok(()), |difference| Err(difference.of_checkpoint(path)))
}

/// The state and the model of the newest checkpoint of the run in `out`, if there is one. It must be of the same run as
/// `state`.
pub(super) fn resume(out: &Path, state: &State, device: Device) -> Result<Option<(State, Network)>, Error> {
    let Some(folder) = latest(out) else { return Ok(None) };
    let found = read_state(&folder)?;
    found.check_same_run(state, &folder)?;
    Ok(Some(network(&folder, device)?))
}

/// Where the checkpoint after so many steps of the run in `out` lies.
pub(super) fn place(out: &Path, step: u64) -> PathBuf {
    out.join(FOLDER).join(format!("step-{step:08}"))
}

fn latest(out: &Path) -> Option<PathBuf> {
    whole(&out.join(FOLDER)).max_by_key(|path| step_of(path))
}

/// The whole checkpoints in a folder.
fn whole(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let paths =
        std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    paths.filter(|path| step_of(path).is_some() && path.join(STATE).is_file())
}

fn step_of(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

fn read_state(folder: &Path) -> Result<State, Error> {
    let path = folder.join(STATE);
    let malformed = |source| Error::State { path: path.clone(), source };
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&path)?).map_err(malformed)?;
    match value["format"].as_str() {
        Some(FORMAT | FORMAT_2) => serde_json::from_value(value).map_err(malformed),
        found => Err(Error::Format { path, found: found.unwrap_or("none").to_owned() }),
    }
}

/// The path of a file, after comparing its hash with the state's.
fn checked(folder: &Path, state: &State, name: &str) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    let found = hash(&path)?;
    match state.files.get(name) {
        Some(expected) if *expected != found => {
            Err(Error::Damaged { path, found, expected: expected.clone() })
        }
        _ => Ok(path),
    }
}

fn hash(path: &Path) -> Result<String, Error> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::open(path)?).map_err(fs::error("read", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}
