//! `genomill run` and `genomill plan`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;

use super::progress::{self, Style};
use super::work::{Place, Work};
use super::{Error, environment, say};
use crate::collective::Group;
use crate::observer::{Silent, Stop};
use crate::remote::Remote;
use crate::units::parse_bytes;
use crate::workflow::journal::Journal;
use crate::workflow::{self, Decision, Options, Override, Plan, Selection, Shelf, Workflow, execute};

/// What both commands take.
#[derive(Debug, Args)]
struct Common {
    /// The workflow file
    file: PathBuf,
    /// Put VALUE in place of what the file says, such as `chunks.window=4096`, `params.vocab=256` or
    /// `matrix.vocab=[16,64]`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    set: Vec<Override>,
    #[command(flatten)]
    work: Work,
    /// Run this stage and all that depends on it, whatever is there; of a matrix, all of its expansions or one of them
    /// (`bpe@vocab=64`), as for the options below, which also take `tag:NAME` for all stages with the tag
    #[arg(long, value_name = "STAGE")]
    from: Option<String>,
    /// Leave out what this stage does not need
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// Run this stage alone, on the artifacts that are there
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["from", "until", "force"])]
    only: Option<String>,
    /// Run this stage even if nothing changed; may be given more than once
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
}

impl Common {
    fn open(&self, remote: &Remote) -> Result<(Workflow, Place), Error> {
        let workflow = Workflow::open(&self.file, &self.set, &environment)?;
        let place = self.work.place(&workflow, remote)?;
        Ok((workflow, place))
    }

    fn selection(&self) -> Selection {
        Selection {
            from: self.from.clone(),
            until: self.until.clone(),
            only: self.only.clone(),
            force: self.force.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    common: Common,
    /// Worker threads; by default one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    jobs: Option<u32>,
    /// Memory that stages with `resources: {memory: ...}` may use together, such as `64GB`; by default as much as they say
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// How to show progress on stderr
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
    /// Only say what would run, and why, as `plan` does
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    common: Common,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// What to write; a Snakefile has a rule for each stage, whatever is there
    #[arg(long, value_enum, default_value_t = Format::Text, conflicts_with = "json")]
    format: Format,
    /// What the site wants of the jobs in a Snakefile, as for `submit`
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
}

/// How a plan is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// As `--json`
    Json,
    /// Rules that call `run-task`
    Snakemake,
}

pub fn run(arguments: &RunArguments, remote: &Remote) -> Result<(), Error> {
    run_with(arguments, remote, None)
}

/// The same, where other processes work along.
pub(super) fn run_with(
    arguments: &RunArguments,
    remote: &Remote,
    group: Option<&Group>,
) -> Result<(), Error> {
    if arguments.dry_run {
        return show_plan(&arguments.common, false, remote);
    }
    let (workflow, place) = arguments.common.open(remote)?;
    let selection = arguments.common.selection();
    selection.check(&workflow)?;
    let stop = Arc::new(Stop::new());
    on_signal(&stop)?;
    let observer = progress::observer(arguments.progress);
    let journal = Journal::begin(&place.work, &workflow, &arguments.common.set, observer.as_ref());
    let options = Options {
        work: place.work.clone(),
        selection,
        threads: threads(arguments.jobs),
        memory: arguments.memory,
        observer: &journal,
        stop: &stop,
        remote,
        depot: place.depot.as_ref(),
        group,
    };
    let result = execute(&workflow, &options);
    journal.end(&result);
    let decisions = result?;
    if !matches!(arguments.progress, Style::Json | Style::None) {
        say(&closing(&decisions, &place.name));
    }
    Ok(())
}

/// What runs one stage alone.
pub(super) fn alone(
    stage: String,
    (file, set, work): (&Path, &[Override], &Path),
    jobs: Option<u32>,
    progress: Style,
) -> RunArguments {
    let common = Common {
        file: file.to_owned(),
        set: set.to_vec(),
        work: Work::folder(work),
        from: None,
        until: None,
        only: Some(stage),
        force: Vec::new(),
    };
    RunArguments { common, jobs, memory: None, progress, dry_run: false }
}

pub(super) fn threads(jobs: Option<u32>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    jobs.map_or_else(cores, |jobs| jobs as usize)
}

/// The first ctrl-C (or SIGTERM) asks to stop at the next safe point; the second one does not ask. SIGUSR1, by which
/// queues tell that time is nearly over, asks as often as it comes.
pub(super) fn on_signal(stop: &Arc<Stop>) -> Result<(), Error> {
    on_notice(Arc::clone(stop)).map_err(|e| Error::Other(format!("cannot listen for SIGUSR1: {e}")))?;
    let stop = Arc::clone(stop);
    let handler = move || {
        if stop.is_requested() {
            std::process::abort();
        }
        say("stopping at the next safe point; once more to stop at once");
        stop.request();
    };
    ctrlc::set_handler(handler).map_err(|e| Error::Other(format!("cannot listen for signals: {e}")))
}

fn on_notice(stop: Arc<Stop>) -> io::Result<()> {
    let mut signals = Signals::new([SIGUSR1])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if !stop.is_requested() {
                say("told to stop (SIGUSR1): stopping at the next safe point");
            }
            stop.request();
        }
    });
    Ok(())
}

fn closing(decisions: &[(String, Decision)], place: &str) -> String {
    let ran = decisions.iter().filter(|(_, d)| matches!(d, Decision::Run(_))).count();
    let reused = decisions.iter().filter(|(_, d)| *d == Decision::Reuse).count();
    format!("done: {ran} ran, {reused} reused; artifacts in {place}")
}

pub fn plan(arguments: &PlanArguments, remote: &Remote) -> Result<(), Error> {
    let PlanArguments { common, json, format, profile } = arguments;
    if *format == Format::Snakemake {
        return super::cluster::snakefile(
            &common.file,
            &common.set,
            common.work.local()?,
            profile.as_deref(),
            remote,
        );
    }
    show_plan(common, *json || *format == Format::Json, remote)
}

fn show_plan(common: &Common, json: bool, remote: &Remote) -> Result<(), Error> {
    let (workflow, place) = common.open(remote)?;
    let stop = Stop::new();
    let shelf = Shelf::new(&workflow, &place.work, place.shared(&Silent, &stop));
    let plan = Plan::new(&workflow, &common.selection(), &shelf)?;
    let options = Options {
        work: place.work.clone(),
        selection: common.selection(),
        threads: 1,
        memory: None,
        observer: &Silent,
        stop: &stop,
        remote,
        depot: place.depot.as_ref(),
        group: None,
    };
    let standing = plan.standing(&workflow, &options);
    let mut out = io::stdout().lock();
    if json {
        let stages = plan.stages.iter().map(|(stage, decision)| {
            let mut value = serde_json::to_value(decision).unwrap_or_default();
            value["stage"] = stage.clone().into();
            value["uses"] = workflow::plan::kind_name(&workflow, stage).into();
            if let Some(standing) = standing.get(stage) {
                value["partitions"] = serde_json::to_value(standing).unwrap_or_default();
            }
            if let Some(entry) = workflow.stages.iter().find(|entry| entry.name == *stage) {
                value["base"] = entry.base.clone().into();
                value["matrix"] = entry.at.clone().into_iter().collect();
                value["tags"] = entry.tags.clone().into();
            }
            value
        });
        let left_out = workflow.left_out.iter().map(|left| {
            json!({
                "decision": "left_out", "reason": left.reason, "stage": left.name,
                "uses": left.kind().name, "base": left.base, "matrix": left.at, "tags": left.tags,
            })
        });
        let text = serde_json::to_string_pretty(&stages.chain(left_out).collect::<Vec<_>>())
            .map_err(io::Error::other)?;
        return Ok(writeln!(out, "{text}")?);
    }
    let left_out = workflow.left_out.iter();
    let names = plan.stages.iter().map(|(stage, _)| stage).chain(left_out.clone().map(|left| &left.name));
    let width = names.map(String::len).max().unwrap_or(0);
    for (stage, decision) in &plan.stages {
        let words = match decision {
            Decision::Reuse => "reuse".to_owned(),
            Decision::Run(reason) => match standing.get(stage).filter(|standing| standing.made == 0) {
                Some(standing) if standing.of > 1 => format!("runs: {reason}; {standing}"),
                _ => format!("runs: {reason}"),
            },
            Decision::Depends(reason) => format!("runs if {reason}"),
            Decision::Skip => "left out".to_owned(),
        };
        writeln!(out, "{stage:width$}  {:9}  {words}", workflow::plan::kind_name(&workflow, stage))?;
    }
    for left in left_out {
        writeln!(out, "{:width$}  {:9}  left out: {}", left.name, left.kind().name, left.reason)?;
    }
    Ok(())
}
