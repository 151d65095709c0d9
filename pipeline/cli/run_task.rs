//! `genomill run-task`: one stage of a workflow, or partitions of its work, by themselves: what a queue runs.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::progress::{self, Style};
use super::run::{on_signal, threads};
use super::work::Work;
use super::{Error, environment, say};
use crate::observer::Stop;
use crate::remote::Remote;
use crate::stage::partition::{Wanted, listed};
use crate::units::parse_time;
use crate::workflow::journal::Journal;
use crate::workflow::{Decision, Options, Override, Selection, Tasks, Workflow, run_stage, run_task};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The workflow file
    file: PathBuf,
    /// The stage; of a matrix, one expansion. Without `--partition` and `--share` it is made whole, of what is there
    stage: String,
    /// Only these partitions of its work, from 0: `3`, or `0-4,7`; `3/12` also says how many there should be
    #[arg(long, value_name = "LIST[/N]")]
    partition: Option<Wanted>,
    /// Only the partitions whose number leaves the remainder I when divided by N, however many there are
    #[arg(long, value_name = "I/N", value_parser = Wanted::parse_share, conflicts_with = "partition")]
    share: Option<Wanted>,
    /// How long to wait for what the stage reads, where it is not there yet: file systems of clusters may take a while to
    /// show what another machine wrote
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "0 s")]
    wait: Duration,
    /// The most time that it may take, in place of what the workflow says
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time: Option<Duration>,
    /// Put VALUE in place of what the file says, as for `run`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    set: Vec<Override>,
    #[command(flatten)]
    work: Work,
    /// Worker threads; by default what the workflow says, or one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    jobs: Option<u32>,
    /// How to show progress on stderr
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
}

pub fn run(arguments: &Arguments, remote: &Remote) -> Result<(), Error> {
    let mut workflow = Workflow::open(&arguments.file, &arguments.set, &environment)?;
    let resources = workflow.stages.iter_mut().filter(|entry| entry.name == arguments.stage);
    let mut jobs = arguments.jobs;
    for entry in resources {
        entry.resources.time = arguments.time.or(entry.resources.time);
        jobs = jobs.or(entry.resources.threads.map(NonZeroU32::get));
    }
    let stop = Arc::new(Stop::new());
    on_signal(&stop)?;
    let observer = progress::observer(arguments.progress);
    let place = arguments.work.place(&workflow, remote)?;
    let options = Options {
        work: place.work.clone(),
        selection: Selection::default(),
        threads: threads(jobs),
        memory: None,
        observer: observer.as_ref(),
        stop: &stop,
        remote,
        depot: place.depot.as_ref(),
        group: None,
    };
    let said = match arguments.partition.as_ref().or(arguments.share.as_ref()) {
        Some(wanted) => partitions(arguments, &workflow, &options, wanted)?,
        None => whole(arguments, &workflow, &options)?,
    };
    if !matches!(arguments.progress, Style::Json | Style::None) {
        say(&said);
    }
    Ok(())
}

/// The longest list of numbers that is said.
const MOST_LETTERS: usize = 60;

fn partitions(
    arguments: &Arguments,
    workflow: &Workflow,
    options: &Options,
    wanted: &Wanted,
) -> Result<String, Error> {
    let (stage, set) = (arguments.stage.as_str(), &arguments.set);
    let Tasks { made, there, put_together } =
        run_task(workflow, options, set, (stage, wanted), arguments.wait)?;
    let some = |numbers: Vec<u32>, one: &str, more: &str| match numbers.len() {
        0 => None,
        1 => Some(format!("partition {} of `{stage}` {one}", numbers[0])),
        count => Some(match listed(numbers) {
            list if list.len() <= MOST_LETTERS => format!("partitions {list} of `{stage}` {more}"),
            _ => format!("{count} partitions of `{stage}` {more}"),
        }),
    };
    let parts = [some(made, "is made", "are made"), some(there, "was there", "were there")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Ok(match parts.is_empty() {
        true if put_together => format!("`{stage}` was there, made of all of its partitions"),
        true => format!("no partition of `{stage}` in this share"),
        false => parts.join("; "),
    })
}

fn whole(arguments: &Arguments, workflow: &Workflow, options: &Options) -> Result<String, Error> {
    let stage = &arguments.stage;
    let journal = Journal::begin(&options.work, workflow, &arguments.set, options.observer);
    let options = Options {
        work: options.work.clone(),
        selection: Selection::default(),
        observer: &journal,
        ..*options
    };
    let decision = run_stage(workflow, &options, stage, arguments.wait);
    let decision = decision.map(|decision| vec![(stage.clone(), decision)]);
    journal.end(&decision);
    let made = decision?.iter().any(|(_, decision)| matches!(decision, Decision::Run(_)));
    Ok(format!("`{stage}` {}", if made { "is made" } else { "was there" }))
}
