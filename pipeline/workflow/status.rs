//! What there is of each stage of a workflow, read from its work folder without changing anything there. Data files are not
//! read: whether a run would use an artifact again is for `plan` to say. Memory: the manifests.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::config::Entry;
use super::execute::load_seconds;
use super::journal::{self, Told, What};
use super::{Error, Workflow, lock};
use crate::artifact::staging::PARTIAL;
use crate::artifact::{Artifact, MANIFEST};
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
    /// Looks at the work folder of a workflow, which need not be there.
    pub fn new(workflow: &Workflow, work: &Path) -> Result<Self, Error> {
        let running = lock::holder(work)?;
        let (told, seconds) = (journal::last(work), load_seconds(work));
        let making = partition::in_the_making(work);
        let stage = |entry: &Entry| {
            let folder = work.join(&entry.name);
            let artifact = Artifact::open(&folder);
            let made = artifact.as_ref().ok().and_then(|artifact| made(&artifact.path(MANIFEST)));
            let state = match state(entry, work, told.get(&entry.name), running.as_deref()) {
                State::NotMade if artifact.is_ok() => State::Done,
                State::NotMade => match &artifact {
                    Err(error) if folder.exists() => State::Unreadable { reason: error.to_string() },
                    _ => State::NotMade,
                },
                state => state,
            };
            StageStatus {
                stage: entry.name.clone(),
                uses: entry.kind().name,
                state,
                seconds: made.as_ref().and_then(|_| seconds.get(&entry.name).copied()),
                made,
                bytes: artifact.is_ok().then(|| bytes_in(&folder)),
                partitions: partitions(entry, work),
                tasks: tasks(entry, work, &making),
            }
        };
        let left_out = workflow.left_out.iter().map(|left| StageStatus {
            stage: left.name.clone(),
            uses: left.kind().name,
            state: State::LeftOut { reason: left.reason.clone() },
            made: None,
            seconds: None,
            bytes: None,
            partitions: Vec::new(),
            tasks: Vec::new(),
        });
        let stages = workflow.stages.iter().map(stage).chain(left_out).collect();
        Ok(Self { running, stages })
    }
}

/// What lies in `.partial`, whatever it was made from.
fn partitions(entry: &Entry, work: &Path) -> Vec<Standing> {
    let folders = std::fs::read_dir(work.join(PARTIAL).join(&entry.name)).into_iter().flatten().flatten();
    folders.flat_map(|folder| Standing::of_all(&folder.path())).collect()
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
