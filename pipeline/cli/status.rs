//! `genomill status`: what there is of each stage of a workflow.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::work::Work;
use super::{Error, cluster, environment, print_json};
use crate::cluster::state::State as Jobs;
use crate::observer::{Silent, Stop};
use crate::remote::Remote;
use crate::report::{bytes, count, seconds};
use crate::stage::partition::Standing;
use crate::workflow::status::{StageStatus, State, Status, TaskState, TaskStatus};
use crate::workflow::{Override, Shelf, Workflow};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The workflow file
    file: PathBuf,
    /// Put VALUE in place of what the file says, as for `genomill run`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    set: Vec<Override>,
    #[command(flatten)]
    work: Work,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, remote: &Remote) -> Result<(), Error> {
    let workflow = Workflow::open(&arguments.file, &arguments.set, &environment)?;
    let place = arguments.work.place(&workflow, remote)?;
    let (work, stop) = (&place.work, Stop::new());
    let status = Status::new(&workflow, &Shelf::new(&workflow, work, place.shared(&Silent, &stop)))?;
    let jobs = Jobs::new(&std::path::absolute(work).unwrap_or_else(|_| work.clone()))?;
    if arguments.json {
        let mut value = serde_json::to_value(&status).unwrap_or_default();
        if let Some(jobs) = &jobs {
            value["jobs"] = serde_json::to_value(jobs).unwrap_or_default();
        }
        return print_json(&value);
    }
    let mut out = io::stdout().lock();
    let width = status.stages.iter().map(|of| of.stage.len()).max().unwrap_or(0);
    for of in &status.stages {
        let standing = Standing::listed(&of.partitions);
        let in_queue = jobs.as_ref().and_then(|jobs| jobs.stages.get(&of.stage));
        let words = match &of.state {
            // Jobs run in other processes than the one that holds the folder.
            State::Interrupted { .. } if in_queue.is_some_and(|jobs| jobs.counts.goes_on()) => {
                "in the queue".to_owned()
            }
            _ => words(of),
        };
        writeln!(out, "{:width$}  {:9}  {words}{standing}", of.stage, of.uses)?;
        for line in in_queue.map(cluster::stage_lines).unwrap_or_default() {
            writeln!(out, "{:width$}    {line}", "")?;
        }
        for TaskStatus { partition, state, log } in &of.tasks {
            let state = match state {
                TaskState::Running => "is being made".to_owned(),
                TaskState::Failed { error } => format!("failed: {error}"),
                TaskState::Interrupted => "was stopped".to_owned(),
            };
            writeln!(out, "{:width$}    partition {partition} {state}; log {}", "", log.display())?;
        }
    }
    if let Some(jobs) = &jobs {
        writeln!(out, "{}", cluster::summary(jobs))?;
    }
    let running = status.running.map_or_else(|| "not running".to_owned(), |by| format!("in use by {by}"));
    Ok(writeln!(out, "{}: {running}", place.name)?)
}

fn words(of: &StageStatus) -> String {
    let there = there(of);
    let older =
        there.as_ref().map_or_else(String::new, |there| format!("; an earlier artifact is there: {there}"));
    match &of.state {
        State::Done => format!("done     {}", there.unwrap_or_default()),
        State::Running { process, told, done, total, unit } => {
            let far = done.map_or_else(String::new, |done| {
                let total = total.map_or_else(String::new, |total| format!(" of {}", count(total)));
                format!(", {}{total} {}", count(done), unit.as_deref().unwrap_or_default())
            });
            format!("running  in process {process}{far} at {told}{older}")
        }
        State::Interrupted { resumes_from_bytes } => {
            let rest = resumes_from_bytes.map_or_else(
                || "the next run begins it anew".to_owned(),
                |size| format!("the next run goes on from {}", bytes(size)),
            );
            format!("stopped  before its end; {rest}{older}")
        }
        State::Failed { at, error } => format!("failed   at {at}: {error}{older}"),
        State::Unreadable { reason } => format!("unusable {reason}"),
        State::NotMade => "not made".to_owned(),
        State::LeftOut { reason } => format!("left out: {reason}"),
    }
}

/// When an artifact was made, in what time, and its size.
fn there(of: &StageStatus) -> Option<String> {
    let made = of.made.as_deref()?;
    let took = of.seconds.map(|time| format!("in {}", seconds(time)));
    let size = of.bytes.map(bytes);
    Some([Some(made.to_owned()), took, size].into_iter().flatten().collect::<Vec<_>>().join(", "))
}
