//! `genomill run` and `genomill plan`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::progress::{self, Style};
use super::{Error, say};
use crate::artifact::Hashes;
use crate::observer::Stop;
use crate::remote::Remote;
use crate::workflow::journal::Journal;
use crate::workflow::{self, Decision, Options, Override, Plan, Selection, Workflow, execute};

/// What both commands take.
#[derive(Debug, Args)]
struct Common {
    /// The workflow file
    file: PathBuf,
    /// Put VALUE in place of what the file says, such as `chunks.window=4096`, `params.vocab=256` or
    /// `matrix.vocab=[16,64]`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    set: Vec<Override>,
    /// The folder in which each workflow has its folder of artifacts
    #[arg(long, value_name = "DIR", default_value = "work")]
    work: PathBuf,
    /// Run this stage and all that depends on it, whatever is there; of a matrix, all of its expansions or one of them
    /// (`bpe@vocab=64`), as for the options below
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
    fn open(&self) -> Result<(Workflow, PathBuf), Error> {
        let workflow = Workflow::open(&self.file, &self.set)?;
        let work = self.work.join(&workflow.name);
        Ok((workflow, work))
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
    /// How to show progress on stderr
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    common: Common,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &RunArguments, remote: &Remote) -> Result<(), Error> {
    let (workflow, work) = arguments.common.open()?;
    let stop = Arc::new(Stop::new());
    on_signal(&stop)?;
    let observer = progress::observer(arguments.progress);
    let journal = Journal::begin(&work, &workflow, &arguments.common.set, observer.as_ref());
    let options = Options {
        work: work.clone(),
        selection: arguments.common.selection(),
        threads: threads(arguments.jobs),
        observer: &journal,
        stop: &stop,
        remote,
    };
    let result = execute(&workflow, &options);
    journal.end(&result);
    let decisions = result?;
    if !matches!(arguments.progress, Style::Json | Style::None) {
        say(&closing(&decisions, &work));
    }
    Ok(())
}

pub(super) fn threads(jobs: Option<u32>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    jobs.map_or_else(cores, |jobs| jobs as usize)
}

/// The first ctrl-C (or SIGTERM) asks to stop at the next safe point; the second one does not ask.
pub(super) fn on_signal(stop: &Arc<Stop>) -> Result<(), Error> {
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

fn closing(decisions: &[(String, Decision)], work: &Path) -> String {
    let ran = decisions.iter().filter(|(_, d)| matches!(d, Decision::Run(_))).count();
    let reused = decisions.iter().filter(|(_, d)| *d == Decision::Reuse).count();
    format!("done: {ran} ran, {reused} reused; artifacts in {}", work.display())
}

pub fn plan(arguments: &PlanArguments) -> Result<(), Error> {
    let (workflow, work) = arguments.common.open()?;
    let hashes = Hashes::load(&workflow::execute::hashes_file(&work));
    let plan = Plan::new(&workflow, &work, &arguments.common.selection(), &hashes)?;
    let mut out = io::stdout().lock();
    if arguments.json {
        let stages = plan.stages.iter().map(|(stage, decision)| {
            let mut value = serde_json::to_value(decision).unwrap_or_default();
            value["stage"] = stage.clone().into();
            value["uses"] = workflow::plan::kind_name(&workflow, stage).into();
            if let Some(entry) = workflow.stages.iter().find(|entry| entry.name == *stage) {
                value["base"] = entry.base.clone().into();
                value["matrix"] = entry.at.clone().into_iter().collect();
            }
            value
        });
        let text = serde_json::to_string_pretty(&stages.collect::<Vec<_>>()).map_err(io::Error::other)?;
        return Ok(writeln!(out, "{text}")?);
    }
    let width = plan.stages.iter().map(|(stage, _)| stage.len()).max().unwrap_or(0);
    for (stage, decision) in &plan.stages {
        let words = match decision {
            Decision::Reuse => "reuse".to_owned(),
            Decision::Run(reason) => format!("runs: {reason}"),
            Decision::Skip => "left out".to_owned(),
        };
        writeln!(out, "{stage:width$}  {:9}  {words}", workflow::plan::kind_name(&workflow, stage))?;
    }
    Ok(())
}
