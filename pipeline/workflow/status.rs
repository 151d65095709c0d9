//! What there is of each stage of a workflow, read from its work folder without changing anything there. Data files are not
//! read: whether a run would use an artifact again is for `plan` to say. Memory: the manifests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::config::Entry;
use super::execute::load_seconds;
use super::journal::{self, Told, What};
use super::{Error, Shelf, Workflow, lock};
use crate::artifact::staging::PARTIAL;
use crate::artifact::{self, Artifact, MANIFEST};
use crate::stage::partition::{self, Standing};

/// A workflow's work folder.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Who runs in it now, as `process 4242`.
    pub running: Option<String>,
    /// The stages, in the order of running; then those that are left out.
    pub stages: Vec<StageStatus>,
}

/// What there is of a stage.
#[derive(Debug, Clone, Serialize)]
pub struct StageStatus {
    /// Its name.
    pub stage: String,
    /// Its kind.
    pub uses: &'static str,
    /// What became of it.
    #[serde(flatten)]
    pub state: State,
    /// When the artifact that is there was published: UTC, as RFC 3339 has it.
    pub made: Option<String>,
    /// How long that took, in seconds of wall time.
    pub seconds: Option<f64>,
    /// The size of the artifact that is there, in bytes.
    pub bytes: Option<u64>,
    /// The partitions of its work that wait to be put together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Standing>,
    /// The partitions that `run-task` makes, or could not make.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskStatus>,
}

/// A partition that `run-task` makes, or could not make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskStatus {
    /// Its number.
    pub partition: u32,
    /// What became of it.
    #[serde(flatten)]
    pub state: TaskState,
    /// Its log.
    pub log: PathBuf,
}

/// What became of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum TaskState {
    /// It is being made.
    Running,
    /// It failed.
    Failed {
        /// The error with its causes.
        error: String,
    },
    /// Its process ended before it was made.
    Interrupted,
}

/// What became of a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// Its artifact is there.
    Done,
    /// It runs now.
    Running {
        /// The process.
        process: u64,
        /// Since when, or when it last told how far it is.
        told: String,
        /// How far it is.
        done: Option<u64>,
        /// Out of how much.
        total: Option<u64>,
        /// Counted in what.
        unit: Option<String>,
    },
    /// It began and did not end.
    Interrupted {
        /// What is there for the next run to go on from, in bytes.
        resumes_from_bytes: Option<u64>,
    },
    /// It failed when it last ran.
    Failed {
        /// When.
        at: String,
        /// The error with its causes.
        error: String,
    },
    /// There is a folder, but no artifact that can be read.
    Unreadable {
        /// Why not.
        reason: String,
    },
    /// Nobody has made it yet.
    NotMade,
    /// The workflow leaves it out.
    LeftOut {
        /// Why.
        reason: String,
    },
}

impl Status {
    /// Looks at the work folder of a workflow, which need not be there; where it is shared, also for what others made of it.
    pub fn new(workflow: &Workflow, shelf: &Shelf) -> Result<Self, Error> {
        let work = shelf.work.as_path();
        let running = lock::holder(work)?;
        let (told, seconds) = (journal::last(work), load_seconds(work));
        let making = partition::in_the_making(work);
        let stage = |entry: &Entry| {
            let folder = work.join(&entry.name);
            let artifact = there(entry, shelf)?;
            let state = match state(entry, work, told.get(&entry.name), running.as_deref()) {
                State::NotMade if artifact.is_ok() => State::Done,
                State::Interrupted { .. } | State::Failed { .. } if artifact.is_ok() && shelf.is_shared() => {
                    State::Done
                }
                State::NotMade => match &artifact {
                    Err(error) if folder.exists() && !shelf.is_shared() => {
                        State::Unreadable { reason: error.to_string() }
                    }
                    _ => State::NotMade,
                },
                state => state,
            };
            let (made, bytes) = artifact.unwrap_or_default();
            Ok(StageStatus {
                stage: entry.name.clone(),
                uses: entry.kind().name,
                state,
                seconds: made.as_ref().and_then(|_| seconds.get(&entry.name).copied()),
                made,
                bytes,
                partitions: partitions(entry, shelf)?,
                tasks: tasks(entry, work, &making),
            })
        };
        let left_out = workflow.left_out.iter().map(|left| {
            Ok(StageStatus {
                stage: left.name.clone(),
                uses: left.kind().name,
                state: State::LeftOut { reason: left.reason.clone() },
                made: None,
                seconds: None,
                bytes: None,
                partitions: Vec::new(),
                tasks: Vec::new(),
            })
        });
        let stages = workflow.stages.iter().map(stage).chain(left_out).collect::<Result<_, Error>>()?;
        Ok(Self { running, stages })
    }
}

/// When the artifact that is there was made, and its bytes; or why it is none.
type There = Result<(Option<String>, Option<u64>), artifact::Error>;

/// What there is of a stage, in the depot or in the work folder.
fn there(entry: &Entry, shelf: &Shelf) -> Result<There, Error> {
    let folder = shelf.work.join(&entry.name);
    if !shelf.is_shared() {
        let artifact = Artifact::open(&folder);
        return Ok(artifact.map(|artifact| (made(&artifact.path(MANIFEST)), Some(bytes_in(&folder)))));
    }
    let found = shelf.find(&entry.name)?;
    let sealed = found.as_ref().and_then(|found| Some((found, found.seal.as_ref()?)));
    Ok(sealed.ok_or(artifact::Error::Missing(folder)).map(|(found, seal)| {
        let bytes = found.artifact.manifest.files.iter().map(|file| file.bytes).sum();
        (Some(humantime::format_rfc3339_millis(seal.put).to_string()), Some(bytes))
    }))
}

/// What lies in `.partial`, whatever it was made from; in a depot, of what the stage is made from now.
fn partitions(entry: &Entry, shelf: &Shelf) -> Result<Vec<Standing>, Error> {
    if shelf.is_shared() {
        let is_open = entry.stage.partitioned().is_some() && shelf.find(&entry.name)?.is_none();
        let made_from = is_open.then(|| shelf.made_from(entry, &BTreeSet::new()));
        return match made_from {
            Some(Ok(made_from)) => shelf.standing(entry, &made_from.action_key(entry)),
            Some(Err(Error::Artifact(_))) | None => Ok(Vec::new()),
            Some(Err(error)) => Err(error),
        };
    }
    let folder = shelf.work.join(PARTIAL).join(&entry.name);
    let folders = std::fs::read_dir(folder).into_iter().flatten().flatten();
    Ok(folders.flat_map(|folder| Standing::of_all(&folder.path(), [])).collect())
}

/// What the logs of partitions say.
fn tasks(entry: &Entry, work: &Path, making: &[(String, u32)]) -> Vec<TaskStatus> {
    let task = |(partition, log, error): (u32, PathBuf, Option<String>)| {
        let state = match error {
            Some(error) => TaskState::Failed { error },
            None if making.contains(&(entry.name.clone(), partition)) => TaskState::Running,
            None => TaskState::Interrupted,
        };
        TaskStatus { partition, state, log }
    };
    journal::tasks(work, &entry.name).into_iter().map(task).collect()
}

/// What the logs and `.partial` say, if no artifact was put in its place since; else as if nothing had been made.
fn state(entry: &Entry, work: &Path, told: Option<&Told>, holder: Option<&str>) -> State {
    let partial = bytes_in(&work.join(PARTIAL).join(&entry.name));
    let resumes_from_bytes = Some(partial).filter(|bytes| *bytes > 0);
    let standing = journal::standing(work, &entry.name);
    let newer = told.filter(|told| told.replaces.as_ref().is_none_or(|before| *before == standing));
    match newer.map(|told| (told, &told.what)) {
        Some((told, What::Started(progress)))
            if holder == Some(format!("process {}", told.process).as_str()) =>
        {
            State::Running {
                process: told.process,
                told: told.time.clone(),
                done: progress.as_ref().map(|(done, ..)| *done),
                total: progress.as_ref().and_then(|(_, total, _)| *total),
                unit: progress.as_ref().map(|(.., unit)| unit.clone()),
            }
        }
        Some((told, What::Failed(error))) => State::Failed { at: told.time.clone(), error: error.clone() },
        Some((_, What::Started(_) | What::Stopped)) => State::Interrupted { resumes_from_bytes },
        _ if resumes_from_bytes.is_some() => State::Interrupted { resumes_from_bytes },
        _ => State::NotMade,
    }
}

/// When a file was last written, in UTC.
fn made(manifest: &Path) -> Option<String> {
    let time: SystemTime = std::fs::metadata(manifest).and_then(|metadata| metadata.modified()).ok()?;
    Some(humantime::format_rfc3339_millis(time).to_string())
}

/// The sizes of all files in a folder, in bytes; 0 where there is none. Links are not followed.
pub(super) fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}
