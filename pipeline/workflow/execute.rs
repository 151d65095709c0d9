//! Runs the stages of a plan one after the other; each uses every thread. One run at a time holds the work folder.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::config::Entry;
use super::plan::{Choice, MadeFrom, choose, consider, files};
use super::retry::with_retries;
use super::{Decision, Error, Selection, Workflow};
use crate::artifact::{self, Artifact, Hashes, Manifest, Staging, staging};
use crate::observer::{Event, Observer, Stop};
use crate::remote::{self, Fetched, Remote, Watch};
use crate::stage::{self, Outcome, Task};
use crate::{TOOL, fs};

/// How to run.
pub struct Options<'a> {
    /// The folder of this workflow's artifacts.
    pub work: PathBuf,
    /// Which stages.
    pub selection: Selection,
    /// Worker threads.
    pub threads: usize,
    /// Where progress goes.
    pub observer: &'a dyn Observer,
    /// The request to stop.
    pub stop: &'a Stop,
    /// The way to objects at addresses.
    pub remote: &'a Remote,
}

/// The memory of hashes of a work folder.
pub fn hashes_file(work: &Path) -> PathBuf {
    work.join(".cache").join("hashes.json")
}

/// The wall time of each stage when it last ran, and of parts of it, in seconds.
fn seconds_file(work: &Path) -> PathBuf {
    work.join(".cache").join("seconds.json")
}

/// Runs a workflow; returns what was decided for each stage.
pub fn execute(workflow: &Workflow, options: &Options) -> Result<Vec<(String, Decision)>, Error> {
    let choices = choose(workflow, &options.selection)?;
    fs::create_dir_all(&options.work.join(".cache"))?;
    let _lock = lock(&options.work)?;
    staging::clear(&options.work)?;
    let mut run = Run {
        workflow,
        options,
        hashes: Hashes::load(&hashes_file(&options.work)),
        seconds: load_seconds(&options.work),
        decisions: Vec::new(),
    };
    workflow.tell_left_out(options.observer);
    let result = workflow.stages.iter().zip(choices).try_for_each(|(entry, choice)| run.stage(entry, choice));
    run.hashes.save(&hashes_file(&options.work))?;
    staging::clear(&options.work)?;
    result.map(|()| run.decisions)
}

struct Run<'a> {
    workflow: &'a Workflow,
    options: &'a Options<'a>,
    hashes: Hashes,
    seconds: BTreeMap<String, f64>,
    decisions: Vec<(String, Decision)>,
}

impl Run<'_> {
    fn stage(&mut self, entry: &Entry, choice: Choice) -> Result<(), Error> {
        if self.options.stop.is_requested() {
            return Err(Error::Interrupted { stage: entry.name.clone() });
        }
        let decision = match choice {
            Choice::Skip => Decision::Skip,
            Choice::Force(reason) => Decision::Run(reason),
            Choice::Consider => consider(entry, &self.options.work, &self.hashes)?,
        };
        let event = match &decision {
            Decision::Skip => None,
            Decision::Reuse => Some(Event::StageReused { stage: entry.name.clone() }),
            Decision::Run(reason) => {
                Some(Event::StageStarted { stage: entry.name.clone(), reason: reason.clone() })
            }
        };
        if let Some(event) = event {
            self.options.observer.event(&event);
        }
        if let Decision::Run(_) = decision {
            let (retries, observer) = (entry.retries, self.options.observer);
            with_retries(retries, observer, &entry.name, || self.run(entry))?;
        }
        self.decisions.push((entry.name.clone(), decision));
        Ok(())
    }

    fn run(&mut self, entry: &Entry) -> Result<(), Error> {
        let started = Instant::now();
        let inputs = self.inputs(entry)?;
        let fetched = self.fetch(entry)?;
        let mut made_from = MadeFrom::now(entry, &self.options.work, &self.hashes)?;
        made_from.complete(&fetched);
        let resumable = entry.kind().resumable;
        let staging = if resumable {
            Staging::resume(&self.options.work, &entry.name, &made_from.action_key(entry))?
        } else {
            Staging::begin(&self.options.work, &entry.name)?
        };
        let outcome = match self.work(entry, &inputs, &fetched, staging.folder()) {
            Ok(outcome) => outcome,
            Err(error) if resumable => return Err(error),
            Err(error) => {
                staging.abandon()?;
                return Err(error);
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        let (summary, parts) = (outcome.summary.clone(), outcome.seconds.clone());
        self.publish(entry, staging, &made_from, outcome)?;
        self.keep_seconds(entry, seconds, &parts)?;
        self.options.observer.event(&Event::StageFinished { stage: entry.name.clone(), seconds, summary });
        Ok(())
    }

    fn inputs(&self, entry: &Entry) -> Result<BTreeMap<String, Artifact>, Error> {
        let open = |(role, input): (String, String)| {
            let artifact = Artifact::open(&self.options.work.join(&input));
            let artifact = artifact.and_then(|artifact| artifact.verify(&self.hashes).map(|()| artifact));
            artifact.map(|artifact| (role, artifact)).map_err(|error| Error::MissingInput {
                stage: entry.name.clone(),
                input,
                reason: error.to_string(),
            })
        };
        entry.stage.inputs().into_iter().map(open).collect()
    }

    /// Brings the objects that a stage reads, by what the workflow writes.
    fn fetch(&self, entry: &Entry) -> Result<BTreeMap<PathBuf, Fetched>, Error> {
        let Options { remote, observer, stop, .. } = *self.options;
        let watch = Watch { stage: &entry.name, observer, stop };
        let (mut fetched, mut unpinned) = (BTreeMap::new(), Vec::new());
        for file in files(entry)? {
            let Some(address) = &file.address else { continue };
            let found = match &file.sha256 {
                Some(sha256) => remote.pinned(address, sha256, &self.hashes, watch),
                None => remote.unpinned(address, watch),
            };
            let found = found.map_err(|error| match error {
                remote::Error::Stopped { .. } => Error::Interrupted { stage: entry.name.clone() },
                source => Error::Remote { stage: entry.name.clone(), source },
            })?;
            if file.sha256.is_none() {
                unpinned.push((address.to_string(), found.sha256.clone(), found.bytes));
            }
            fetched.insert(file.path, found);
        }
        if unpinned.is_empty() {
            return Ok(fetched);
        }
        Err(Error::Unpinned { stage: entry.name.clone(), found: unpinned })
    }

    fn work(
        &self,
        entry: &Entry,
        inputs: &BTreeMap<String, Artifact>,
        fetched: &BTreeMap<PathBuf, Fetched>,
        out: &Path,
    ) -> Result<Outcome, Error> {
        let fetched = fetched.iter().map(|(path, fetched)| (path.clone(), fetched.path.clone())).collect();
        let reused: Vec<String> = self
            .decisions
            .iter()
            .filter(|(_, d)| *d == Decision::Reuse)
            .map(|(name, _)| name.clone())
            .collect();
        let task = Task {
            stage: &entry.name,
            inputs,
            base: &entry.folder,
            fetched: &fetched,
            remote: self.options.remote,
            work: &self.options.work,
            out,
            threads: self.options.threads,
            observer: self.options.observer,
            stop: self.options.stop,
            seconds: &self.seconds,
            reused: &reused,
            workflow: &self.workflow.name,
        };
        let outcome = entry.stage.run(&task).map_err(|error| match error {
            stage::Error::Interrupted => Error::Interrupted { stage: entry.name.clone() },
            error => Error::Stage { stage: entry.name.clone(), source: Box::new(error) },
        })?;
        check_account(entry, inputs, outcome)
    }

    fn publish(
        &self,
        entry: &Entry,
        staging: Staging,
        from: &MadeFrom,
        outcome: Outcome,
    ) -> Result<(), Error> {
        let manifest = Manifest {
            schema: artifact::SCHEMA.to_owned(),
            tool: TOOL.to_owned(),
            stage: entry.name.clone(),
            kind: entry.kind().name.to_owned(),
            algorithm: entry.kind().algorithm,
            action_key: from.action_key(entry),
            content: String::new(),
            config: from.config.clone(),
            inputs: from.inputs.clone(),
            sources: from.sources.clone(),
            references: outcome.references,
            counts: outcome.counts,
            files: outcome.files,
            details: outcome.details,
        };
        outcome.parts.into_iter().try_for_each(|part| staging.seal_part(&manifest, part))?;
        staging.publish(manifest, &outcome.volatile, &self.hashes)?;
        Ok(())
    }

    fn keep_seconds(&mut self, entry: &Entry, seconds: f64, parts: &[(&str, f64)]) -> Result<(), Error> {
        self.seconds.insert(entry.name.clone(), seconds);
        self.seconds.extend(parts.iter().map(|(part, seconds)| (stage::part(&entry.name, part), *seconds)));
        let path = seconds_file(&self.options.work);
        let json = serde_json::to_vec_pretty(&self.seconds).map_err(std::io::Error::other);
        Ok(fs::write_atomic(&path, &json.map_err(fs::error("write", &path))?)?)
    }
}

fn load_seconds(work: &Path) -> BTreeMap<String, f64> {
    let bytes = std::fs::read(seconds_file(work)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Stages that hand on each base once, or drop it.
const ONCE: [&str; 4] = ["ingest", "clean", "dedup", "split"];

/// Stages that read each base of one of these once.
const READ_ONCE: [&str; 5] = ["clean", "dedup", "split", "chunk", "decontaminate"];

/// Refuses an outcome that lost bases in silence, within the stage or between it and the one before.
fn check_account(
    entry: &Entry,
    inputs: &BTreeMap<String, Artifact>,
    outcome: Outcome,
) -> Result<Outcome, Error> {
    if !outcome.counts.balances() || outcome.parts.iter().any(|part| !part.counts.balances()) {
        return Err(unbalanced(entry, &outcome));
    }
    let from = inputs.get("from").map(|from| &from.manifest);
    let once =
        |from: &&Manifest| ONCE.contains(&from.kind.as_str()) && READ_ONCE.contains(&entry.kind().name);
    match from.filter(once).filter(|from| from.counts.bases_out != outcome.counts.bases_in) {
        None => Ok(outcome),
        Some(from) => Err(Error::NotRead {
            stage: entry.name.clone(),
            from: from.stage.clone(),
            bases_in: outcome.counts.bases_in,
            bases_out: from.counts.bases_out,
        }),
    }
}

fn unbalanced(entry: &Entry, outcome: &Outcome) -> Error {
    Error::Unbalanced {
        stage: entry.name.clone(),
        bases_in: outcome.counts.bases_in,
        bases_out: outcome.counts.bases_out,
        dropped: outcome.counts.dropped_bases(),
    }
}

/// Takes the work folder for this process; the system lets go of it when the process ends, however it ends. Programs that
/// it starts inherit the lock: while one lives on that a killed run has started, no other run gets in its way.
fn lock(work: &Path) -> Result<File, Error> {
    let path = work.join(".cache").join("lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(fs::error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {
            fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))
                .map_err(|code| fs::error("share the lock", &path)(code.into()))?;
            file.set_len(0).map_err(fs::error("write", &path))?;
            write!(file, "process {}", std::process::id()).map_err(fs::error("write", &path))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(fs::error("read", &path))?;
            Err(Error::Locked { path: work.to_owned(), holder })
        }
        Err(TryLockError::Error(error)) => Err(fs::error("lock", &path)(error).into()),
    }
}
