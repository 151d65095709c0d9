//! Where an artifact comes from: the chain of manifests back to the files from outside. Memory: the manifests of the chain.
//!
//! Artifacts are looked for beside the one that is asked about. Data files of artifacts are not read; files from outside
//! are compared by size, and by blake3 unless the work folder's memory of hashes knows them unchanged.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{Error, execute::hashes_file, journal};
use crate::artifact::{Artifact, Counts, Hashes, Input, SourceFile};
use crate::remote::is_address;

/// An artifact and everything that it comes from.
#[derive(Debug, Clone, Serialize)]
pub struct Lineage {
    /// The folder in which the artifacts were looked for.
    pub work: PathBuf,
    /// The artifact itself, then what it was made from, nearest first.
    pub steps: Vec<Step>,
}

/// An artifact of the chain.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// The stage that made it.
    pub stage: String,
    /// Its content when the artifact before it in the chain was made: a blake3, in hexadecimal.
    pub content: String,
    /// Whether it is still there.
    #[serde(flatten)]
    pub state: State,
    /// What its manifest says; none unless it is still the same.
    #[serde(flatten)]
    pub made: Option<Made>,
}

/// What has become of something since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// It is as it was.
    Same,
    /// It is another one now.
    Changed {
        /// What is there now, in words.
        now: String,
    },
    /// It is not there any more.
    Gone {
        /// What was found in its place, in words.
        reason: String,
    },
    /// Nobody looked.
    NotChecked {
        /// Why, in words.
        reason: String,
    },
}

/// What a manifest says of how its artifact was made.
#[derive(Debug, Clone, Serialize)]
pub struct Made {
    /// What kind of stage made it.
    pub kind: String,
    /// The version of the stage's algorithm.
    pub algorithm: u32,
    /// The tool, with its version.
    pub tool: String,
    /// The configuration with every default filled in.
    pub config: Value,
    /// The account of bases.
    pub counts: Counts,
    /// Artifacts that it was made from.
    pub inputs: Vec<Input>,
    /// Artifacts without which it has no meaning.
    pub references: Vec<Input>,
    /// Files from outside that it was made from.
    pub sources: Vec<Source>,
}

/// A file from outside.
#[derive(Debug, Clone, Serialize)]
pub struct Source {
    /// What the manifest says of it.
    #[serde(flatten)]
    pub file: SourceFile,
    /// Whether it is still there.
    #[serde(flatten)]
    pub state: State,
}

impl Lineage {
    /// Follows the manifests from the artifact in `folder`. Paths of files from outside start from `base`; without it,
    /// from the folder of the workflow file that the work folder's last log names.
    ///
    /// # Errors
    /// When `folder` holds no artifact. What is missing further back is no error: it is told.
    pub fn trace(folder: &Path, base: Option<&Path>) -> Result<Self, Error> {
        let artifact = Artifact::open(folder)?;
        let work = work_of(folder, &artifact.manifest.stage);
        let looks = Looks { base: base.map_or_else(|| base_of(&work), |base| Some(base.to_owned())), work };
        let hashes = Hashes::load(&hashes_file(&looks.work));
        let mut steps = vec![looks.step(&artifact, &hashes)];
        let mut open: VecDeque<Input> = needs(&artifact).collect();
        let mut seen = BTreeSet::from([(artifact.manifest.stage.clone(), artifact.manifest.content.clone())]);
        while let Some(input) = open.pop_front() {
            if !seen.insert((input.stage.clone(), input.content.clone())) {
                continue;
            }
            match looks.find(&input) {
                Ok(artifact) => {
                    open.extend(needs(&artifact));
                    steps.push(looks.step(&artifact, &hashes));
                }
                Err(state) => {
                    let Input { stage, content, .. } = input;
                    steps.push(Step { stage, content, state, made: None });
                }
            }
        }
        Ok(Self { work: looks.work, steps })
    }
}

/// Everything that an artifact was made from or refers to.
fn needs(artifact: &Artifact) -> impl Iterator<Item = Input> + use<> {
    let manifest = artifact.manifest.clone();
    manifest.inputs.into_iter().chain(manifest.references)
}

/// The folder that an artifact's folder lies in; parts of artifacts (`shards/context-64`) lie deeper.
fn work_of(folder: &Path, stage: &str) -> PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let folder = std::fs::canonicalize(&folder).unwrap_or(folder);
    folder.ancestors().nth(stage.split('/').count()).unwrap_or(Path::new("/")).to_owned()
}

/// Where the paths of the last run's workflow start from.
fn base_of(work: &Path) -> Option<PathBuf> {
    let start = journal::last_start(work)?;
    Some(Path::new(start["file"].as_str()?).parent()?.to_owned())
}

/// Where to look.
struct Looks {
    work: PathBuf,
    base: Option<PathBuf>,
}

impl Looks {
    /// The artifact that another one was made from, if it is still the same.
    fn find(&self, input: &Input) -> Result<Artifact, State> {
        let artifact = Artifact::open(&self.work.join(&input.stage))
            .map_err(|error| State::Gone { reason: error.to_string() })?;
        if artifact.manifest.content == input.content {
            return Ok(artifact);
        }
        let now = format!("its content is {} now", artifact.manifest.content);
        Err(State::Changed { now })
    }

    fn step(&self, artifact: &Artifact, hashes: &Hashes) -> Step {
        let manifest = artifact.manifest.clone();
        let source = |file: SourceFile| Source { state: self.look(&file, hashes), file };
        let made = Made {
            kind: manifest.kind,
            algorithm: manifest.algorithm,
            tool: manifest.tool,
            config: manifest.config,
            counts: manifest.counts,
            inputs: manifest.inputs,
            references: manifest.references,
            sources: manifest.sources.into_iter().map(source).collect(),
        };
        Step { stage: manifest.stage, content: manifest.content, state: State::Same, made: Some(made) }
    }

    /// Whether a file from outside is as it was.
    fn look(&self, file: &SourceFile, hashes: &Hashes) -> State {
        let not_checked = |reason: &str| State::NotChecked { reason: reason.to_owned() };
        let path = Path::new(&file.path);
        if is_address(path) {
            return not_checked("it lies at an address");
        }
        let path = match &self.base {
            Some(base) => base.join(path),
            None if path.is_absolute() => path.to_owned(),
            None => return not_checked("no log says which folder its path starts from"),
        };
        let bytes = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) => return State::Gone { reason: crate::fs::error("read", &path)(error).to_string() },
        };
        if bytes != file.bytes {
            return State::Changed { now: format!("it has {bytes} bytes now") };
        }
        match hashes.of(&path) {
            Ok(blake3) if blake3 == file.blake3 => State::Same,
            Ok(blake3) => State::Changed { now: format!("its blake3 is {blake3} now") },
            Err(error) => State::Gone { reason: error.to_string() },
        }
    }
}
