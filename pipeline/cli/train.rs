//! `genomill train`: the one stage that trains, by this process or by several that torchrun or srun start.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::progress::Style;
use super::run::{alone, run, threads};
use super::{Error, environment};
use crate::collective::Place;
use crate::collective::place::Surroundings;
use crate::remote::Remote;
use crate::units::parse_time;
use crate::workflow::{Override, Workflow};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The workflow file
    file: PathBuf,
    /// The stage that trains; needed where there are several
    stage: Option<String>,
    /// Put VALUE in place of what the file says, as for `run`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    set: Vec<Override>,
    /// The folder in which each workflow has its folder of artifacts
    #[arg(long, value_name = "DIR", default_value = "work", value_parser = super::work::folder)]
    work: PathBuf,
    /// Worker threads; by default one per core, shared by the ranks on this machine
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    jobs: Option<u32>,
    /// How long to wait for the other ranks, where there are some
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "5 min")]
    wait: Duration,
    /// Write where the time of three steps goes, from the fifth on, in the format that Chrome and Perfetto open
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// How to show progress on stderr
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
}

pub fn train(arguments: &Arguments, remote: &Remote) -> Result<(), Error> {
    #[cfg(feature = "train")]
    if let Some(file) = arguments.trace.clone() {
        crate::train::trace::choose(file).map_err(|error| Error::Other(error.to_string()))?;
    }
    let variable = |name: &str| environment(name);
    let around = Surroundings { variable: &variable, resolves: &resolves };
    let place = Place::find(around, arguments.wait).map_err(|error| Error::Other(error.to_string()))?;
    let workflow = Workflow::open(&arguments.file, &arguments.set, &environment)?;
    let stage = stage(arguments, &workflow)?;
    let Some(place) = place else { return run(&arguments.alone(stage, arguments.jobs), remote) };
    let cores = threads(None) / place.here.unwrap_or(1);
    let jobs = arguments.jobs.or_else(|| u32::try_from(cores.max(1)).ok());
    together(arguments, &workflow, (stage, jobs), place, remote)
}

fn resolves(host: &str) -> bool {
    std::net::ToSocketAddrs::to_socket_addrs(&(host, 0)).is_ok_and(|mut found| found.next().is_some())
}

/// The stage that trains.
fn stage(arguments: &Arguments, workflow: &Workflow) -> Result<String, Error> {
    let trains = workflow.stages.iter().filter(|stage| stage.kind().name == "train");
    let trains = trains.map(|stage| stage.name.as_str()).collect::<Vec<_>>();
    match (&arguments.stage, trains.as_slice()) {
        (Some(stage), _) => Ok(stage.clone()),
        (None, [stage]) => Ok((*stage).to_owned()),
        (None, []) => Err(Error::Other(format!("no stage of `{}` uses `train`", arguments.file.display()))),
        (None, several) => {
            Err(Error::Other(format!("name one of the stages that train: {}", several.join(", "))))
        }
    }
}

impl Arguments {
    /// As `run --only` does.
    fn alone(&self, stage: String, jobs: Option<u32>) -> super::run::RunArguments {
        alone(stage, (&self.file, &self.set, &self.work), jobs, self.progress)
    }
}

#[cfg(not(feature = "train"))]
fn together(
    _: &Arguments,
    _: &Workflow,
    _: (String, Option<u32>),
    _: Place,
    _: &Remote,
) -> Result<(), Error> {
    Err(super::no_trainer())
}

/// Rank 0 runs the stage as a process by itself would, and the others work along, in silence.
#[cfg(feature = "train")]
fn together(
    arguments: &Arguments,
    workflow: &Workflow,
    (stage, jobs): (String, Option<u32>),
    place: Place,
    remote: &Remote,
) -> Result<(), Error> {
    let group = crate::collective::Group::join(place)?;
    if group.leads() {
        let result = super::run::run_with(&arguments.alone(stage, jobs), remote, Some(&group));
        let failure = result.as_ref().err().map(ToString::to_string);
        group.end(failure.as_deref());
        return result;
    }
    let result = along(arguments, workflow, (&stage, threads(jobs)), remote, &group);
    group.leave();
    result
}

#[cfg(feature = "train")]
fn along(
    arguments: &Arguments,
    workflow: &Workflow,
    (stage, threads): (&str, usize),
    remote: &Remote,
    group: &crate::collective::Group,
) -> Result<(), Error> {
    use std::sync::Arc;

    use crate::observer::{Silent, Stop};
    use crate::workflow::{Options, Selection, run_along};

    let stop = Arc::new(Stop::new());
    super::run::on_signal(&stop)?;
    let options = Options {
        work: arguments.work.join(&workflow.name),
        selection: Selection::default(),
        threads,
        memory: None,
        observer: &Silent,
        stop: &stop,
        remote,
        depot: None,
        group: Some(group),
    };
    if group.follow(crate::collective::START)?.is_none() {
        return Ok(());
    }
    let result = run_along(workflow, &options, stage, arguments.wait);
    if let Err(error) = &result {
        group.fail(&crate::units::with_causes(error));
    }
    result?;
    Ok(group.follow_to_the_end()?)
}
