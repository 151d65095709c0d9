//! `genomill submit`, `resubmit`, `watch`, `cancel` and `logs`: a workflow as jobs of a cluster.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::{Error, environment, say};
use crate::cluster::jobs::What;
use crate::cluster::profile::Profile;
use crate::cluster::state::{Counts, Failure, Fate, StageState, State, last_lines, logs_of};
use crate::cluster::submission::{self, Done, Sender, Submission};
use crate::observer::{Silent, Stop};
use crate::remote::Remote;
use crate::units::parse_time;
use crate::workflow::status::Status;
use crate::workflow::{Options, Override, Plan, Selection, Shelf, Workflow};

/// What all of them take.
#[derive(Debug, Args)]
pub struct Common {
    /// The workflow file
    file: PathBuf,
    /// Put VALUE in place of what the file says, as for `run`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    set: Vec<Override>,
    /// The folder in which each workflow has its folder of artifacts; all nodes must see it
    #[arg(long, value_name = "DIR", default_value = "work", value_parser = super::work::folder)]
    work: PathBuf,
}

impl Common {
    fn open(&self) -> Result<(Workflow, PathBuf), Error> {
        let workflow = Workflow::open(&self.file, &self.set, &environment)?;
        let work = absolute(&self.work)?.join(&workflow.name);
        Ok((workflow, work))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    Ok(std::path::absolute(path).map_err(crate::fs::error("find", path))?)
}

/// What runs the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// Slurm
    Slurm,
}

#[derive(Debug, Args)]
pub struct SubmitArguments {
    #[command(flatten)]
    common: Common,
    /// What runs the jobs
    #[arg(long, value_enum, default_value_t = Engine::Slurm)]
    engine: Engine,
    /// What the site wants: partition, account, modules and more, as YAML (`genomill schema profile`)
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Leave out what this stage does not need
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// Print the scripts that would be sent
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ResubmitArguments {
    #[command(flatten)]
    common: Common,
    /// What the site wants; by default the profile that was given last
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
}

/// A workflow as jobs, opened.
struct Opened {
    workflow: Workflow,
    file: PathBuf,
    set: Vec<String>,
    profile: Profile,
    profile_file: Option<PathBuf>,
    genomill: PathBuf,
    work: PathBuf,
}

impl Opened {
    fn new(common: &Common, profile: Option<&Path>) -> Result<Self, Error> {
        let (workflow, work) = common.open()?;
        let own = workflow
            .engine
            .slurm
            .profile
            .as_ref()
            .map(|profile| common.file.parent().unwrap_or(Path::new("")).join(profile));
        let profile_file = profile.or(own.as_deref()).map(absolute).transpose()?;
        Ok(Self {
            workflow,
            file: absolute(&common.file)?,
            set: common.set.iter().map(ToString::to_string).collect(),
            profile: profile_file.as_deref().map(Profile::open).transpose()?.unwrap_or_default(),
            profile_file,
            genomill: std::env::current_exe()
                .map_err(|error| Error::Other(format!("cannot tell where genomill is: {error}")))?,
            work,
        })
    }

    /// Does something with what sends jobs and the plan of a run.
    fn with<T>(
        &self,
        until: Option<&str>,
        remote: &Remote,
        act: impl FnOnce(&Sender, &Plan) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let selection = Selection { until: until.map(str::to_owned), ..Selection::default() };
        let plan = Plan::new(&self.workflow, &selection, &Shelf::new(&self.workflow, &self.work, None))?;
        let options = Options {
            work: self.work.clone(),
            selection,
            threads: 1,
            memory: None,
            observer: &Silent,
            stop: &Stop::new(),
            remote,
            depot: None,
            group: None,
        };
        let sender = Sender {
            workflow: &self.workflow,
            options: &options,
            file: &self.file,
            set: &self.set,
            profile: &self.profile,
            profile_file: self.profile_file.as_deref(),
            genomill: &self.genomill,
        };
        act(&sender, &plan)
    }
}

pub fn submit(arguments: &SubmitArguments, remote: &Remote) -> Result<(), Error> {
    let SubmitArguments { common, engine: Engine::Slurm, profile, until, dry_run } = arguments;
    let opened = Opened::new(common, profile.as_deref())?;
    if *dry_run {
        let scripts = opened.with(until.as_deref(), remote, |sender, plan| Ok(sender.scripts(plan)?))?;
        let mut out = io::stdout().lock();
        for (title, after, script) in scripts {
            let after =
                if after.is_empty() { String::new() } else { format!(" --dependency={}", after.join(",")) };
            writeln!(out, "# {title}: sbatch{after}\n{script}")?;
        }
        return Ok(());
    }
    let done = opened.with(until.as_deref(), remote, |sender, plan| Ok(sender.submit(plan)?))?;
    tell(&done, "nothing to do: all of it is there", &common.file);
    Ok(())
}

pub fn resubmit(arguments: &ResubmitArguments, remote: &Remote) -> Result<(), Error> {
    let ResubmitArguments { common, profile } = arguments;
    let (_, work) = common.open()?;
    let last = Submission::open(&work)?.and_then(|last| last.profile);
    let opened = Opened::new(common, profile.as_deref().or(last.as_deref()))?;
    let done = opened.with(None, remote, |sender, plan| Ok(sender.resubmit(plan)?))?;
    tell(&done, "nothing is missing that is not in the queue", &common.file);
    Ok(())
}

/// Says what was sent.
fn tell(done: &Done, nothing: &str, file: &Path) {
    done.notes.iter().for_each(|note| say(note));
    let Done { jobs, elements, cancelled, kept, .. } = done;
    if *cancelled > 0 {
        say(&format!("{cancelled} in the queue are cancelled, since others now do their work"));
    }
    if *kept > 0 {
        say(&format!("{kept} in the queue go on"));
    }
    if *jobs == 0 {
        return say(nothing);
    }
    say(&format!(
        "{jobs} jobs of {elements} elements are submitted; genomill watch {} shows how they do",
        file.display()
    ));
}

/// The same work as a Snakefile, on stdout.
pub fn snakefile(
    file: &Path,
    set: &[Override],
    work: &Path,
    profile: Option<&Path>,
    remote: &Remote,
) -> Result<(), Error> {
    let common = Common { file: file.to_owned(), set: set.to_vec(), work: work.to_owned() };
    let opened = Opened::new(&common, profile)?;
    let text = opened.with(None, remote, |sender, _| Ok(sender.snakefile()?))?;
    Ok(write!(io::stdout(), "{text}")?)
}

#[derive(Debug, Args)]
pub struct CancelArguments {
    #[command(flatten)]
    common: Common,
}

pub fn cancel(arguments: &CancelArguments) -> Result<(), Error> {
    let (_, work) = arguments.common.open()?;
    let count = submission::cancel(&work)?;
    say(&format!("{count} in the queue are cancelled; what is done is kept"));
    Ok(())
}

#[derive(Debug, Args)]
pub struct LogsArguments {
    #[command(flatten)]
    common: Common,
    /// Only of this stage
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Only of what failed
    #[arg(long)]
    failed: bool,
    /// Lines of each
    #[arg(long, value_name = "N", default_value_t = 10)]
    lines: usize,
}

pub fn logs(arguments: &LogsArguments) -> Result<(), Error> {
    let LogsArguments { common, stage, failed, lines } = arguments;
    let (workflow, work) = common.open()?;
    if let Some(stage) = stage {
        workflow.positions(stage)?;
    }
    let mut out = io::stdout().lock();
    for (id, fate, log) in logs_of(&work, stage.as_deref())? {
        if *failed && !matches!(fate, Fate::Failed(_)) {
            continue;
        }
        writeln!(out, "==> {id} {}: {}", fate_words(fate), log.display())?;
        for line in last_lines(&log, *lines) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn fate_words(fate: Fate) -> String {
    match fate {
        Fate::Waits => "waits".to_owned(),
        Fate::Runs => "runs".to_owned(),
        Fate::Done => "done".to_owned(),
        Fate::Failed(cause) => format!("failed {}", cause.words()).trim_end().to_owned(),
        Fate::NotRun => "did not run".to_owned(),
    }
}

/// Lines of the log of what failed that `status` shows.
const TAIL: usize = 5;

/// What the queue and the logs say of a stage, as lines to be written below it.
pub(super) fn stage_lines(of: &StageState) -> Vec<String> {
    let mut lines = Vec::new();
    if of.counts.goes_on() || of.counts.failed + of.counts.not_run > 0 {
        let with = |words: &[String]| {
            if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
        };
        let Counts { wait, run, done, failed, not_run } = of.counts;
        let parts = [
            (run, format!("running{}", with(&of.nodes))),
            (wait, format!("waiting{}", with(&of.reasons))),
            (done, "done".to_owned()),
            (failed, "failed".to_owned()),
            (not_run, "not run".to_owned()),
        ];
        let parts = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, words)| format!("{count} {words}"));
        lines.push(format!("queue: {}", parts.collect::<Vec<_>>().join(", ")));
    }
    for Failure { what, element, width, id, cause, times, log } in &of.failures {
        let which = match what {
            What::Partitions => format!("partitions {element}, {}, ... ({id})", element + width),
            What::Check | What::Whole => id.clone(),
        };
        let words = fate_words(Fate::Failed(*cause));
        let times = if *times > 1 { format!(", {times} times in all") } else { String::new() };
        lines.push(format!("{which} {words}{times}; log {}", log.display()));
        lines.extend(last_lines(log, TAIL).into_iter().map(|line| format!("    {line}")));
    }
    lines
}

/// One line about all of a submission.
pub(super) fn summary(state: &State) -> String {
    let Counts { wait, run, done, failed, not_run } = state.counts;
    let counts =
        format!("jobs: {wait} waiting, {run} running, {done} done, {failed} failed, {not_run} not run");
    let asked = state.unasked.as_ref().map_or_else(String::new, |why| {
        format!("; the queue cannot be asked, so what is in it counts as not run: {why}")
    });
    let half = if state.complete {
        ""
    } else {
        "; the submission ended half-way and is held back: `genomill submit` goes on with it"
    };
    let check = match state.check {
        Some(Fate::Failed(cause)) => {
            format!("; the check of a node failed {}", cause.words()).trim_end().to_owned()
        }
        _ => String::new(),
    };
    let cancelled = if state.cancelled { "; cancelled" } else { "" };
    format!("{counts}{asked}{half}{check}{cancelled}")
}

#[derive(Debug, Args)]
pub struct WatchArguments {
    #[command(flatten)]
    common: Common,
    /// Between two looks
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "10 s")]
    every: Duration,
    /// When nothing is left in the queue, resubmit what is missing, until all is there or a job or an element has failed more
    /// than N times; not after `genomill cancel`
    #[arg(long, value_name = "N", default_value_t = 0)]
    resubmit: u32,
}

/// Shows how jobs do until none is left in the queue; fails if something is missing then.
pub fn watch(arguments: &WatchArguments, remote: &Remote) -> Result<(), Error> {
    let WatchArguments { common, every, resubmit: most } = arguments;
    let (workflow, work) = common.open()?;
    let mut first: Option<(Instant, u64)> = None;
    let mut last = String::new();
    loop {
        let state = State::new(&work)?;
        let state = state.ok_or_else(|| crate::cluster::Error::NotSubmitted { work: work.clone() })?;
        let status = Status::new(&workflow, &Shelf::new(&workflow, &work, None))?;
        let (made, all) = partitions(&status);
        let (began, before) = *first.get_or_insert((Instant::now(), made));
        let eta = eta(began.elapsed(), made.saturating_sub(before), all.saturating_sub(made));
        let line = format!("{}{}", summary(&state), far(made, all, eta));
        if line != last {
            say(&line);
            last = line;
        }
        // A queue that does not answer may do so soon.
        if state.counts.goes_on() || state.unasked.is_some() {
            std::thread::sleep(*every);
            continue;
        }
        let failed = state.counts.failed + state.counts.not_run;
        if failed == 0 {
            return Ok(());
        }
        let again = (1..=*most).contains(&state.most_failures) && !state.cancelled;
        if !again {
            for (stage, of) in &state.stages {
                for line in stage_lines(of) {
                    say(&format!("{stage}  {line}"));
                }
            }
            return Err(Error::Other(format!(
                "{failed} jobs or elements failed or did not run; genomill resubmit sends what is missing"
            )));
        }
        let common = Common { file: common.file.clone(), set: common.set.clone(), work: common.work.clone() };
        resubmit(&ResubmitArguments { common, profile: None }, remote)?;
        first = None;
    }
}

/// Partitions that are there, and how many there are, of the stages that are being made in partitions.
fn partitions(status: &Status) -> (u64, u64) {
    let all = status.stages.iter().flat_map(|stage| &stage.partitions);
    all.fold((0, 0), |(made, of), standing| (made + u64::from(standing.made), of + u64::from(standing.of)))
}

/// How long the rest takes at the pace so far.
fn eta(elapsed: Duration, made: u64, left: u64) -> Option<Duration> {
    let seconds = elapsed.as_secs_f64() / made as f64 * left as f64;
    (made > 0 && left > 0).then(|| Duration::from_secs_f64(seconds.ceil()))
}

fn far(made: u64, all: u64, eta: Option<Duration>) -> String {
    let eta = eta.map_or_else(String::new, |eta| {
        format!(", about {} left for those", humantime::format_duration(eta))
    });
    if all == 0 { String::new() } else { format!("; {made} of {all} partitions{eta}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let ten = Duration::from_secs(10);
        for (made, left, expected) in [(0, 5, None), (5, 0, None), (5, 10, Some(20)), (4, 1, Some(3))] {
            assert_eq!(eta(ten, made, left), expected.map(Duration::from_secs), "{made} {left}");
        }
    }
}
