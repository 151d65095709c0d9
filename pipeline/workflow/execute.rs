//! Runs the stages of a plan, those that do not need each other side by side. A stage that fails ends those that need it
//! and no others. One run at a time holds the work folder.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::config::Entry;
use super::journal::Journal;
use super::lock::{self, lock};
use super::plan::{MadeFrom, choose, consider_all, decide_all, decided_by, files, settle};
use super::retry::with_retries;
use super::schedule::{Ask, Schedule};
use super::{Decision, Error, Override, Selection, Shelf, Workflow, journal};
use crate::artifact::{self, Artifact, Manifest, SourceFile, Staging, staging};
use crate::collective::Group;
use crate::observer::{Event, Observer, Stop};
use crate::remote::{self, Depot, Fetched, Remote, Watch};
use crate::stage::partition::{self, Partition, Partitioned, Standing, Wanted};
use crate::stage::{self, Leaves, Outcome, Task};
use crate::units::with_causes;
use crate::{TOOL, fs};

/// How to run.
pub struct Options<'a> {
    /// The folder of this workflow's artifacts.
    pub work: PathBuf,
    /// Which stages.
    pub selection: Selection,
    /// Worker threads, of all stages together.
    pub threads: usize,
    /// Bytes of memory that stages which say how much they need may use together; `None` without a limit.
    pub memory: Option<u64>,
    /// Where progress goes.
    pub observer: &'a dyn Observer,
    /// The request to stop.
    pub stop: &'a Stop,
    /// The way to objects at addresses.
    pub remote: &'a Remote,
    /// What the artifacts are shared by with other machines, where they are: then `work` holds copies.
    pub depot: Option<&'a Depot>,
    /// The other processes that train along, where there are any; with them nothing that fails is tried again.
    pub group: Option<&'a Group>,
}

/// The memory of hashes of a work folder.
pub fn hashes_file(work: &Path) -> PathBuf {
    work.join(".cache").join("hashes.json")
}

/// The wall time of each stage when it last ran, and of parts of it, in seconds.
fn seconds_file(work: &Path) -> PathBuf {
    work.join(".cache").join("seconds.json")
}

/// Between two times that the times of stages are written.
const KEEP_SECONDS_EVERY: Duration = Duration::from_secs(1);

/// Runs a workflow; returns what was decided for each stage.
pub fn execute(workflow: &Workflow, options: &Options) -> Result<Vec<(String, Decision)>, Error> {
    let choices = choose(workflow, &options.selection)?;
    fs::create_dir_all(&options.work.join(".cache"))?;
    let _lock = lock(&options.work)?;
    staging::clear(&options.work)?;
    clear_abandoned(&options.work)?;
    workflow.tell_left_out(options.observer);
    let run = Run::new(workflow, options);
    run.shelf.begin()?;
    *locked(&run.planned) = if run.shelf.is_shared() {
        choices.into_iter().map(|choice| decided_by(choice).map(Ok)).collect()
    } else {
        decide_all(workflow, choices, &run.shelf).into_iter().map(Some).collect()
    };
    let result = run.all();
    let saved =
        run.shelf.hashes.save(&hashes_file(&options.work)).map_err(Error::from).and(run.keep_seconds());
    let cleared = staging::clear(&options.work);
    // Why a stage failed says more than that these failed too.
    let decisions = result?;
    saved?;
    cleared?;
    Ok(decisions)
}

/// What came of partitions that were asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// The numbers of those that were made.
    pub made: Vec<u32>,
    /// The numbers of those that were there.
    pub there: Vec<u32>,
    /// Whether the artifact was there that is made of all of them.
    pub put_together: bool,
}

/// Makes partitions of a stage where a run of the workflow finds them, those that are not there; what the stage reads must be
/// there, or come within `patience`: other machines may be slow to see it. One that fails does not keep the others from being
/// made. Takes no lock: any number of these may go on at once, beside a run too. `overrides` are those that the
/// workflow was opened with.
pub fn run_task(
    workflow: &Workflow,
    options: &Options,
    overrides: &[Override],
    (stage, wanted): (&str, &Wanted),
    patience: Duration,
) -> Result<Tasks, Error> {
    let (entry, partitioned) = one_partitioned(workflow, stage)?;
    fs::create_dir_all(&options.work.join(".cache"))?;
    let run = Run::new(workflow, options);
    run.shelf.begin()?;
    let reads = patiently(&options.work, patience, || run.reads(entry))?;
    let key = reads.made_from.action_key(entry);
    if run.shelf.holds(entry, &key)? {
        return Ok(Tasks { put_together: true, ..Tasks::default() });
    }
    if run.shelf.is_shared() {
        run.keep_with_others(&entry.name)?; // what was brought need not be hashed by the next
    }
    let parts = staging::partial(&options.work, &entry.name, &key)?;
    let kept: BTreeSet<String> = run.shelf.parts(entry, &key)?.into_iter().collect();
    let results = run.with_task(entry, &reads, (&parts, &parts), options.threads, |task| {
        let partitions = Partition::between(&partitioned.bounds(task)?)?;
        let wanted = wanted.among(partitions.len())?;
        let work = partitioned.open(task)?;
        let (mut results, mut before) = (Vec::new(), 0);
        for at in wanted {
            let partition = partitions[at as usize];
            if kept.contains(&partition.folder()) {
                results.push((at, Ok(false)));
                continue;
            }
            let journal =
                Journal::of_task(&options.work, (&entry.name, at), workflow, overrides, options.observer);
            let task = Task { observer: &journal, before, ..*task };
            let result = with_retries(entry.retries, &journal, &entry.name, || {
                let made = partition::make(work.as_ref(), &task, partition);
                let made = made.map_err(|error| run.in_stage(entry, error))?;
                run.shelf.share_part(entry, &key, (&parts, partition))?;
                Ok(made)
            });
            let ends = result.as_ref().is_err_and(ends);
            before += result.as_ref().map_or(0, |(_, bases)| *bases);
            let result = result.map(|(made, _)| made);
            journal.end_task(&result);
            results.push((at, result));
            if ends {
                break;
            }
        }
        Ok(results)
    })?;
    tasks(entry, results)
}

/// Whether what comes after it would end for the same reason at once.
fn ends(error: &Error) -> bool {
    matches!(error, Error::Interrupted { .. }) || error.is_out_of_time()
}

fn tasks(entry: &Entry, results: Vec<(u32, Result<bool, Error>)>) -> Result<Tasks, Error> {
    let (of, mut tasks, mut failures) = (results.len(), Tasks::default(), Vec::new());
    for (at, result) in results {
        match result {
            Ok(true) => tasks.made.push(at),
            Ok(false) => tasks.there.push(at),
            Err(error) if of == 1 || ends(&error) => return Err(error),
            Err(error) => failures.push((at, error)),
        }
    }
    if failures.is_empty() {
        return Ok(tasks);
    }
    Err(Error::Tasks { stage: entry.name.clone(), of, failures })
}

/// Makes one stage, unless it is there as it would be made now; what it reads must be there, or come within `patience`. Any
/// number of these may go on at once in a work folder, on any machine that sees it, but no run: of those that make the same
/// stage one makes it, and the others wait for it. Where locks of files do not reach other machines, each makes it, and one
/// artifact stays.
pub fn run_stage(
    workflow: &Workflow,
    options: &Options,
    stage: &str,
    patience: Duration,
) -> Result<Decision, Error> {
    let at = one(workflow, stage)?;
    let entry = &workflow.stages[at];
    fs::create_dir_all(&options.work.join(".cache"))?;
    let _shared = lock::share(&options.work)?;
    let _own = lock::own(&options.work, &entry.name)?;
    let run = Run { shares: true, ..Run::new(workflow, options) };
    run.shelf.begin()?;
    patiently(&options.work, patience, || run.inputs_are_there(entry))?;
    let result = run.stage(at, options.threads);
    run.tell(at, &result);
    let kept = run.keep_with_others(&entry.name);
    let decision = result?;
    kept?;
    Ok(decision)
}

/// Works along with the process that makes a stage, which leads the group in `options`, in the folder that this one writes into:
/// takes no lock. What the stage reads must be there, or come within `patience`.
pub fn run_along(
    workflow: &Workflow,
    options: &Options,
    stage: &str,
    patience: Duration,
) -> Result<(), Error> {
    let entry = &workflow.stages[one(workflow, stage)?];
    let run = Run::new(workflow, options);
    let reads = patiently(&options.work, patience, || run.reads(entry))?;
    let out = options.work.join(staging::PARTIAL).join(&entry.name).join(reads.made_from.action_key(entry));
    let folders = (out.as_path(), out.as_path());
    run.with_task(entry, &reads, folders, options.threads, |task| entry.stage.run(task)).map(drop)
}

/// Between two looks for what is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Does what needs artifacts again, for some time, while one of them is not there: what another machine has published can
/// take a while to be seen.
fn patiently<T>(work: &Path, patience: Duration, act: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    let began = Instant::now();
    loop {
        match act() {
            Err(Error::MissingInput { .. }) if began.elapsed() < patience => {
                std::thread::sleep(LOOK_AGAIN);
                // To list a folder makes network file systems ask for what is new in it.
                drop(std::fs::read_dir(work).map(Iterator::count));
            }
            result => return result,
        }
    }
}

/// The place of the one stage that a name stands for.
fn one(workflow: &Workflow, stage: &str) -> Result<usize, Error> {
    let positions = workflow.positions(stage)?;
    let [position] = positions[..] else {
        let names = positions.iter().map(|&position| workflow.stages[position].name.clone()).collect();
        return Err(Error::SeveralStages { stage: stage.to_owned(), names });
    };
    Ok(position)
}

/// The one stage that a name stands for, whose work must fall into partitions.
fn one_partitioned<'a>(
    workflow: &'a Workflow,
    stage: &str,
) -> Result<(&'a Entry, &'a dyn Partitioned), Error> {
    let entry = &workflow.stages[one(workflow, stage)?];
    match entry.stage.partitioned() {
        Some(partitioned) => Ok((entry, partitioned)),
        None => Err(Error::NotPartitioned { stage: entry.name.clone(), kind: entry.kind().name }),
    }
}

/// How the work of a stage falls into partitions, and which of them are there; nothing if it does not, or if that cannot be
/// told: what it reads is not there, or not on this machine. Changes nothing.
pub fn standing(workflow: &Workflow, options: &Options, entry: &Entry) -> Option<Standing> {
    let partitioned = entry.stage.partitioned()?;
    // What the inputs hold is not brought here for this.
    if options.depot.is_some() || files(entry).ok()?.iter().any(|file| file.address.is_some()) {
        return None;
    }
    let run = Run::new(workflow, options);
    let reads = run.reads(entry).ok()?;
    let key = reads.made_from.action_key(entry);
    let parts = options.work.join(staging::PARTIAL).join(&entry.name).join(key);
    let bounds = run.with_task(entry, &reads, (&parts, &parts), 1, |task| partitioned.bounds(task)).ok()?;
    Some(Standing::new(&parts, u32::try_from(bounds.len() - 1).ok()?))
}

/// Removes partitions that processes which are gone left unfinished.
pub(super) fn clear_abandoned(work: &Path) -> Result<(), Error> {
    let cleared = partition::clear_abandoned(work);
    cleared.map_err(|source| Error::Stage { stage: partition::TASKS.to_owned(), source: Box::new(source) })
}

struct Run<'a> {
    workflow: &'a Workflow,
    options: &'a Options<'a>,
    /// What is decided for each stage that has not begun; of a stage that runs by itself nothing.
    planned: Mutex<Vec<Option<Result<Decision, Error>>>>,
    /// Whether other processes make stages in the work folder meanwhile.
    shares: bool,
    shelf: Shelf<'a>,
    seconds: Mutex<BTreeMap<String, f64>>,
    /// When they were last written.
    seconds_kept: Mutex<Instant>,
    /// The stages that were reused so far.
    reused: Mutex<Vec<String>>,
    /// Those that failed so far, and why.
    failed: Mutex<BTreeMap<String, String>>,
    /// Of stages that do with less, what they read that is not made in this run.
    lost: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

/// What a stage reads, and what that makes it.
struct Reads {
    /// The artifacts, by role.
    inputs: BTreeMap<String, Artifact>,
    /// The objects at addresses, by what the workflow writes.
    fetched: BTreeMap<PathBuf, Fetched>,
    made_from: MadeFrom,
}

/// A stage that ended: its number, and what was decided, why it failed, or what it panicked with.
type Ended = (usize, Result<Result<Decision, Error>, Box<dyn Any + Send>>);

/// How far a run is.
struct Progress {
    schedule: Schedule,
    decisions: Vec<Option<Decision>>,
    failures: Vec<Error>,
}

impl<'a> Run<'a> {
    fn new(workflow: &'a Workflow, options: &'a Options<'a>) -> Self {
        let shelf = Shelf::of(workflow, options);
        let seconds = Mutex::new(load_seconds(&options.work));
        let seconds_kept = Mutex::new(Instant::now());
        let (shares, planned, reused) = (false, Mutex::default(), Mutex::default());
        let (failed, lost) = (Mutex::default(), Mutex::default());
        Self { workflow, options, planned, shares, shelf, seconds, seconds_kept, reused, failed, lost }
    }

    /// Every stage, each as soon as it can run.
    fn all(&self) -> Result<Vec<(String, Decision)>, Error> {
        let stages = &self.workflow.stages;
        let asks = stages.iter().zip(self.workflow.reads()).map(|(entry, reads)| Ask {
            needs: reads.into_iter().map(|(place, _)| place).collect(),
            all: !entry.stage.does_with_less(),
            share: entry.kind().share,
            threads: entry.resources.threads.map(|threads| threads.get() as usize),
            memory: entry.resources.memory.unwrap_or(0),
        });
        let schedule = Schedule::new(asks, self.options.threads, self.options.memory);
        let mut progress = Progress { schedule, decisions: vec![None; stages.len()], failures: Vec::new() };
        let (sender, ended) = channel();
        std::thread::scope(|scope| self.drive(scope, &mut progress, &sender, &ended));
        self.result(progress)
    }

    /// Starts stages and waits for them, until none runs and none can start.
    fn drive<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        progress: &mut Progress,
        sender: &Sender<Ended>,
        ended: &Receiver<Ended>,
    ) {
        let mut running = 0;
        loop {
            while !self.options.stop.is_requested()
                && let Some((at, threads)) = progress.schedule.start()
            {
                self.lose(at, &progress.schedule.lost_by(at));
                let sender = sender.clone();
                scope.spawn(move || {
                    let stage = || self.stage(at, threads);
                    // The receiver waits for every stage that was started.
                    drop(sender.send((at, catch_unwind(AssertUnwindSafe(stage)))));
                });
                running += 1;
            }
            if running == 0 {
                return;
            }
            let Ok((at, outcome)) = ended.recv() else { return };
            running -= 1;
            match outcome {
                Ok(outcome) => {
                    self.tell(at, &outcome);
                    progress.end(at, outcome);
                }
                Err(panic) => {
                    self.options.stop.request();
                    resume_unwind(panic);
                }
            }
        }
    }

    /// Notes what a stage has to do without.
    fn lose(&self, at: usize, lost: &[usize]) {
        let name = |at: usize| self.workflow.stages[at].name.clone();
        if !lost.is_empty() {
            locked(&self.lost).insert(name(at), lost.iter().map(|&at| name(at)).collect());
        }
    }

    /// What a stage has to do without.
    fn lost_by(&self, entry: &Entry) -> BTreeSet<String> {
        locked(&self.lost).get(&entry.name).cloned().unwrap_or_default()
    }

    fn result(&self, progress: Progress) -> Result<Vec<(String, Decision)>, Error> {
        let Progress { schedule, decisions, mut failures } = progress;
        let name = |at: usize| self.workflow.stages[at].name.clone();
        if let Some(at) = failures.iter().position(|error| matches!(error, Error::Interrupted { .. })) {
            return Err(failures.swap_remove(at));
        }
        let held_up: Vec<String> = schedule.held_up().into_iter().map(name).collect();
        match failures.len() {
            0 => {}
            1 if held_up.is_empty() => return Err(failures.remove(0)),
            _ => return Err(Error::Failed { failures, held_up }),
        }
        let stages = decisions.len();
        let left = decisions.iter().position(Option::is_none);
        if let Some(at) = left {
            return Err(Error::Interrupted { stage: name(at) });
        }
        Ok((0..stages).map(name).zip(decisions.into_iter().flatten()).collect())
    }

    /// What is done with a stage, all of whose inputs are there.
    fn decision(&self, at: usize) -> Result<Decision, Error> {
        let (entry, lost) = (&self.workflow.stages[at], self.lost_by(&self.workflow.stages[at]));
        let planned = locked(&self.planned).get_mut(at).and_then(Option::take);
        match planned {
            Some(planned) => settle(entry, planned?, &lost, &self.shelf),
            None => consider_all(entry, &lost, &self.shelf),
        }
    }

    /// Runs a stage, if it is to run.
    fn stage(&self, at: usize, threads: usize) -> Result<Decision, Error> {
        let entry = &self.workflow.stages[at];
        let decision = self.decision(at)?;
        let event = match &decision {
            Decision::Skip | Decision::Depends(_) => None,
            Decision::Reuse => Some(Event::StageReused { stage: entry.name.clone() }),
            Decision::Run(reason) => {
                Some(Event::StageStarted { stage: entry.name.clone(), reason: reason.clone() })
            }
        };
        if let Some(event) = event {
            self.options.observer.event(&event);
        }
        if let Decision::Run(_) = decision {
            let retries = self.options.group.map_or(entry.retries, |_| 0);
            with_retries(retries, self.options.observer, &entry.name, || self.run(entry, threads))?;
        }
        if decision == Decision::Reuse {
            self.shelf.share_if_only_here(entry)?;
            self.clear_left_parts(entry)?;
            locked(&self.reused).push(entry.name.clone());
        }
        Ok(decision)
    }

    /// Removes the partitions of an artifact that is there: the run that published it ended before it could.
    fn clear_left_parts(&self, entry: &Entry) -> Result<(), Error> {
        let parts = self.options.work.join(staging::PARTIAL).join(&entry.name);
        if entry.kind().leaves != Leaves::Partitions || !parts.exists() {
            return Ok(());
        }
        let key = self.shelf.made_from(entry, &self.lost_by(entry))?.action_key(entry);
        clear_parts(&self.options.work, entry, &parts.join(key))
    }

    /// Tells that a stage failed, unless it was asked to stop.
    fn tell(&self, at: usize, outcome: &Result<Decision, Error>) {
        let Err(error) = outcome else { return };
        if !matches!(error, Error::Interrupted { .. }) {
            let (stage, error) = (self.workflow.stages[at].name.clone(), with_causes(error));
            locked(&self.failed).insert(stage.clone(), error.clone());
            self.options.observer.event(&Event::StageFailed { stage, error });
        }
    }

    fn run(&self, entry: &Entry, threads: usize) -> Result<(), Error> {
        let started = Instant::now();
        let reads = self.reads(entry)?;
        self.check_room(entry, &reads)?;
        let (staging, partitions) = self.begin(entry, &reads.made_from)?;
        let folders = (staging.folder(), partitions.as_path());
        if entry.stage.partitioned().is_some() {
            self.shelf.bring_parts(entry, &reads.made_from.action_key(entry), &partitions)?;
        }
        let outcome = self.with_task(entry, &reads, folders, threads, |task| entry.stage.run(task));
        let outcome = match outcome.and_then(|outcome| check_account(entry, &reads.inputs, outcome)) {
            Ok(outcome) => outcome,
            Err(error) if entry.kind().leaves == Leaves::Folder => return Err(error),
            Err(error) => {
                staging.abandon()?;
                return Err(error);
            }
        };
        self.check_unchanged(entry, &reads.made_from)?;
        if self.shares && self.shelf.holds(entry, &reads.made_from.action_key(entry))? {
            // Made meanwhile where our lock does not reach.
            return Ok(staging.abandon()?);
        }
        let seconds = started.elapsed().as_secs_f64();
        let (summary, parts) = (outcome.summary.clone(), outcome.seconds.clone());
        self.publish(entry, staging, &reads.made_from, outcome)?;
        self.shelf.share(entry)?;
        clear_parts(&self.options.work, entry, &partitions)?;
        self.note_seconds(entry, seconds, &parts)?;
        self.options.observer.event(&Event::StageFinished { stage: entry.name.clone(), seconds, summary });
        Ok(())
    }

    /// Where a stage writes, and the folder of the partitions of its work.
    fn begin(&self, entry: &Entry, made_from: &MadeFrom) -> Result<(Staging, PathBuf), Error> {
        let (work, name, key) = (&self.options.work, &entry.name, made_from.action_key(entry));
        if entry.kind().leaves == Leaves::Folder {
            let staging = Staging::resume(work, name, &key)?;
            let parts = staging.folder().to_owned();
            return Ok((staging, parts));
        }
        let staging =
            if self.shares { Staging::begin_apart(work, name)? } else { Staging::begin(work, name)? };
        let parts = match entry.stage.partitioned() {
            Some(_) => staging::only_partial(work, name, &key)?,
            None => staging.folder().to_owned(),
        };
        Ok((staging, parts))
    }

    /// Opens and brings what a stage reads.
    fn reads(&self, entry: &Entry) -> Result<Reads, Error> {
        let (inputs, fetched) = (self.inputs(entry)?, self.fetch(entry)?);
        let mut made_from = self.shelf.made_from(entry, &self.lost_by(entry))?;
        made_from.complete(&fetched);
        Ok(Reads { inputs, fetched, made_from })
    }

    fn inputs(&self, entry: &Entry) -> Result<BTreeMap<String, Artifact>, Error> {
        let open = |(role, input): (String, String)| {
            let artifact = self.shelf.read(entry, &input);
            Ok((role, artifact.map_err(missing(entry, input))?))
        };
        let lost = self.lost_by(entry);
        entry.stage.inputs().into_iter().filter(|(_, input)| !lost.contains(input)).map(open).collect()
    }

    /// Fails where one of them is not there; of what is shared, nothing is brought for this.
    fn inputs_are_there(&self, entry: &Entry) -> Result<(), Error> {
        if !self.shelf.is_shared() {
            return self.inputs(entry).map(drop);
        }
        let there = |(_, input): (String, String)| match self.shelf.content(&input) {
            Ok(_) => Ok(()),
            Err(error) => Err(missing(entry, input)(error)),
        };
        entry.stage.inputs().into_iter().try_for_each(there)
    }

    /// Refuses what was made of files that changed while they were read.
    fn check_unchanged(&self, entry: &Entry, made_from: &MadeFrom) -> Result<(), Error> {
        for source in &made_from.sources {
            if !self.is_still(entry, source)? {
                let path = PathBuf::from(&source.path);
                return Err(Error::Changed { stage: entry.name.clone(), path });
            }
        }
        Ok(())
    }

    /// Whether a file is what it was when it was looked at; what is pinned is.
    fn is_still(&self, entry: &Entry, source: &SourceFile) -> Result<bool, fs::Error> {
        let now = || self.shelf.hashes.of(&entry.folder.join(&source.path));
        Ok(source.sha256.is_some() || now()? == source.blake3)
    }

    /// Refuses to begin what cannot end for want of room.
    fn check_room(&self, entry: &Entry, reads: &Reads) -> Result<(), Error> {
        let (needed, path) =
            (entry.stage.least_bytes(&reads.inputs, &reads.made_from.sources), self.options.work.clone());
        if needed == 0 {
            return Ok(());
        }
        match fs::room(&path)?.free {
            free if needed > free => Err(Error::NoRoom { stage: entry.name.clone(), needed, free, path }),
            _ => Ok(()),
        }
    }

    /// Brings the objects that a stage reads, by what the workflow writes.
    fn fetch(&self, entry: &Entry) -> Result<BTreeMap<PathBuf, Fetched>, Error> {
        let Options { remote, observer, stop, .. } = *self.options;
        let watch = Watch { stage: &entry.name, observer, stop };
        let (mut fetched, mut unpinned) = (BTreeMap::new(), Vec::new());
        for file in files(entry)? {
            let Some(address) = &file.address else { continue };
            let found = match &file.sha256 {
                Some(sha256) => remote.pinned(address, sha256, &self.shelf.hashes, watch),
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

    /// Does something that a stage can do, in a folder to write into, beside one of the partitions of its work.
    fn with_task<T>(
        &self,
        entry: &Entry,
        reads: &Reads,
        (out, parts): (&Path, &Path),
        threads: usize,
        act: impl FnOnce(&Task) -> Result<T, stage::Error>,
    ) -> Result<T, Error> {
        let fetched = reads.fetched.iter().map(|(path, fetched)| (path.clone(), fetched.path.clone()));
        let fetched = fetched.collect();
        let (seconds, reused) = (locked(&self.seconds).clone(), locked(&self.reused).clone());
        let failed = locked(&self.failed).clone();
        let still = |path: &Path| {
            let source = reads.made_from.sources.iter().find(|source| Path::new(&source.path) == path);
            source.map_or(Ok(true), |source| self.is_still(entry, source))
        };
        let stop = self.options.stop.within(entry.resources.time);
        let task = Task {
            stage: &entry.name,
            inputs: &reads.inputs,
            base: &entry.folder,
            fetched: &fetched,
            remote: self.options.remote,
            work: &self.options.work,
            out,
            parts,
            before: 0,
            still: &still,
            threads,
            jobs: self.options.threads,
            observer: self.options.observer,
            stop: &stop,
            group: self.options.group,
            seconds: &seconds,
            reused: &reused,
            failed: &failed,
            workflow: &self.workflow.name,
        };
        act(&task).map_err(|error| self.in_stage(entry, error))
    }

    /// What a stage failed with, as an error of the workflow.
    fn in_stage(&self, entry: &Entry, error: stage::Error) -> Error {
        match error {
            stage::Error::Interrupted => self.interrupted(entry),
            stage::Error::Changed { path } => Error::Changed { stage: entry.name.clone(), path },
            error => Error::Stage { stage: entry.name.clone(), source: Box::new(error) },
        }
    }

    /// Why a stage stopped before its end: it was asked to, or its time was up.
    fn interrupted(&self, entry: &Entry) -> Error {
        let stage = entry.name.clone();
        match entry.resources.time.filter(|_| !self.options.stop.is_requested()) {
            Some(limit) => Error::Stage { stage, source: Box::new(stage::Error::OutOfTime { limit }) },
            None => Error::Interrupted { stage },
        }
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
        staging.publish(manifest, &outcome.volatile, &self.shelf.hashes)?;
        Ok(())
    }

    /// Notes how long a stage took; on the disk soon, since a thousand stages may end within a second.
    fn note_seconds(&self, entry: &Entry, seconds: f64, parts: &[(String, f64)]) -> Result<(), Error> {
        let parts = parts.iter().map(|(part, seconds)| (stage::part(&entry.name, part), *seconds));
        let noted = parts.chain([(entry.name.clone(), seconds)]);
        locked(&self.seconds).extend(noted);
        let mut kept = locked(&self.seconds_kept);
        if kept.elapsed() < KEEP_SECONDS_EVERY {
            return Ok(());
        }
        *kept = Instant::now();
        if self.shares { Ok(()) } else { self.keep_seconds() }
    }

    fn keep_seconds(&self) -> Result<(), Error> {
        let path = seconds_file(&self.options.work);
        Ok(fs::write_json(&path, serde_json::to_vec_pretty(&*locked(&self.seconds)))?)
    }

    /// Keeps hashes, and the times of a stage, beside those that other processes keep.
    fn keep_with_others(&self, stage: &str) -> Result<(), Error> {
        let work = &self.options.work;
        let _own = lock::own(work, "~memory")?; // no stage has this name
        self.shelf.hashes.save_with_others(&hashes_file(work))?;
        let (mut all, own) = (load_seconds(work), locked(&self.seconds).clone());
        let parts = stage::part(stage, "");
        all.extend(own.into_iter().filter(|(name, _)| name == stage || name.starts_with(&parts)));
        Ok(fs::write_json(&seconds_file(work), serde_json::to_vec_pretty(&all))?)
    }
}

/// Removes the partitions of an artifact that is published, with their logs, and the folder around them if it is empty.
fn clear_parts(work: &Path, entry: &Entry, parts: &Path) -> Result<(), Error> {
    if entry.stage.partitioned().is_some() {
        staging::remove(parts)?;
        staging::remove(&journal::tasks_folder(work, &entry.name))?;
        // Other settings may have partitions there.
        parts.parent().map_or(Ok(()), std::fs::remove_dir).ok();
    }
    Ok(())
}

impl Progress {
    fn end(&mut self, at: usize, outcome: Result<Decision, Error>) {
        self.schedule.end(at, outcome.is_ok());
        match outcome {
            Ok(decision) => self.decisions[at] = Some(decision),
            Err(error) => self.failures.push(error),
        }
    }
}

/// That an artifact is not there, or damaged; what else went wrong stays what it is.
fn missing(entry: &Entry, input: String) -> impl FnOnce(Error) -> Error {
    let stage = entry.name.clone();
    move |error| match error {
        Error::Artifact(error) => Error::MissingInput { stage, input, reason: error.to_string() },
        error => error,
    }
}

/// What a mutex holds, after a panic elsewhere too, since that ends the run.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn load_seconds(work: &Path) -> BTreeMap<String, f64> {
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
