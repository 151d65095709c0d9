//! The command line: arguments as typed, one readable function per command. Data goes to stdout, all else to stderr.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 124 the time of a stage was up, 130 stopped by a signal. A closed pipe is no failure.

mod cluster;
mod compare;
mod doctor;
#[cfg(feature = "train")]
mod evaluate;
mod explain;
mod export;
mod gc;
#[cfg(feature = "train")]
mod generate;
mod graph;
mod init;
mod model;
mod progress;
mod remote;
mod report;
mod research_crate;
mod run;
mod run_task;
#[cfg(feature = "train")]
mod score;
mod shards;
mod shell;
mod status;
mod task;
mod tokenizer;
mod train;
mod work;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use miette::{GraphicalReportHandler, GraphicalTheme};

use crate::model::device;
use crate::remote::Remote;
use crate::{artifact, fs, shard, source, tokenizer as tokenizers, units, workflow};

/// Grinds genomes into training shards, and trains and evaluates DNA language models on them.
#[derive(Debug, Parser)]
#[command(name = "genomill", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Where to keep what is fetched from addresses; by default `GENOMILL_CACHE`, or genomill in the user's cache folder
    #[arg(long, value_name = "DIR", global = true)]
    cache: Option<PathBuf>,
    /// Where models are trained and score bases: `cpu`, `cuda` or `cuda:1`; `auto` takes the first GPU, if there is one
    #[arg(long, value_name = "DEVICE", global = true, default_value = "auto")]
    device: device::Choice,
}

const EXAMPLES: &str = "Examples:
  genomill init genome.fa.gz -o mine.yaml                a first workflow for your own sequence
  genomill run workflows/yeast.yaml                      everything, from FASTA to the report
  genomill plan workflows/yeast.yaml                     what would run, and why
  genomill run workflows/yeast.yaml --set bpe.model.bpe.vocabulary_size=4096
  genomill shards head work/yeast/shards                 rows as tokens and bases, with their places";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a workflow: what is whole and unchanged is reused
    Run(run::RunArguments),
    /// Show what a run would do with each stage, and why
    Plan(run::PlanArguments),
    /// Train the model of a workflow on the shards that are there: its stage alone, by one process or by several that
    /// torchrun or srun start
    Train(train::Arguments),
    /// Make one stage, or partitions of its work for a later run to find, here or on any machine that sees the work folder
    RunTask(run_task::Arguments),
    /// Send a workflow to a cluster as jobs, which go on without this process
    Submit(cluster::SubmitArguments),
    /// Send again what is missing: what ran out of memory or time gets more of it
    Resubmit(cluster::ResubmitArguments),
    /// Show how the jobs of a workflow do, until none is left
    Watch(cluster::WatchArguments),
    /// Take the jobs of a workflow out of the queue; what is done is kept
    Cancel(cluster::CancelArguments),
    /// Print the last lines of the logs of jobs
    Logs(cluster::LogsArguments),
    /// Write a first workflow for your FASTA files
    Init(init::Arguments),
    /// Show what there is of each stage: done, running, stopped, failed
    Status(status::Arguments),
    /// Print the graph of a workflow's stages
    Graph(graph::Arguments),
    /// Tell where an artifact comes from, back to the files
    Explain(explain::Arguments),
    /// Put two runs side by side: what differs, from settings to scores
    Compare(compare::Arguments),
    /// Say where the page of a run lies, or write one of two runs side by side
    Report(report::Arguments),
    /// Write a run as RO-Crate metadata (Provenance Run Crate)
    ExportCrate(research_crate::Arguments),
    /// Remove artifacts and leftovers that no workflow needs
    Gc(gc::Arguments),
    /// Say what this machine has and what is missing
    Doctor(doctor::Arguments),
    /// Print a JSON Schema
    Schema {
        /// Of what
        #[arg(value_enum)]
        of: SchemaOf,
    },
    /// Look into a shard folder, here or at an address
    #[command(subcommand)]
    Shards(shards::Command),
    /// Look into a tokenizer and use it
    #[command(subcommand)]
    Tokenizer(tokenizer::Command),
    /// Look at benchmark tasks before any model runs on them
    #[command(subcommand)]
    Task(task::Command),
    /// What a model costs, whether it is right, and its export
    #[command(subcommand)]
    Model(model::Command),
    /// Score models on benchmark tasks: frozen, fine-tuned, from scratch, or as they are
    #[cfg(feature = "train")]
    Evaluate(evaluate::Arguments),
    /// Draw DNA from a trained model, as FASTA
    #[cfg(feature = "train")]
    Generate(generate::Arguments),
    /// Write what a trained model expects of every base, as a table or bedGraph
    #[cfg(feature = "train")]
    Score(score::Arguments),
    /// Print completions for a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: shell::Shell,
    },
    /// Print a manual page, or write one for each command
    Man(shell::ManArguments),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaOf {
    /// Workflow files
    Workflow,
    /// manifest.json of an artifact
    Manifest,
    /// What the manifest of a shard folder says in `details`
    Shard,
    /// Files of tasks
    Tasks,
    /// What a site wants of jobs
    Profile,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Workflow(#[from] workflow::Error),
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    #[error(transparent)]
    Artifact(#[from] artifact::Error),
    #[error(transparent)]
    Shard(#[from] shard::Error),
    #[error(transparent)]
    Remote(#[from] crate::remote::Error),
    #[error(transparent)]
    Export(#[from] shard::export::Error),
    #[error(transparent)]
    Report(#[from] crate::report::Error),
    #[error(transparent)]
    Tokenizer(#[from] tokenizers::Error),
    #[error(transparent)]
    Task(#[from] crate::task::Error),
    #[error(transparent)]
    Results(#[from] crate::evaluate::result::Error),
    #[error(transparent)]
    Versus(#[from] crate::evaluate::versus::Error),
    #[cfg(feature = "train")]
    #[error(transparent)]
    Encoder(#[from] crate::evaluate::encoder::Error),
    #[cfg(feature = "train")]
    #[error(transparent)]
    Evaluate(#[from] crate::evaluate::tasks::Error),
    #[error(transparent)]
    Collective(#[from] crate::collective::Error),
    #[error(transparent)]
    Contigs(#[from] source::contigs::Error),
    #[error(transparent)]
    Fasta(#[from] source::fasta::Error),
    #[error(transparent)]
    Fs(#[from] fs::Error),
    #[error("cannot write to standard output: {0}")]
    Stdout(#[from] io::Error),
    #[error("{0}")]
    Other(String),
}

/// Runs the command line and returns its exit code.
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    device::choose(arguments.device);
    match dispatch(arguments.command, &remote::remote(arguments.cache.as_deref())) {
        Ok(()) => 0,
        Err(Error::Stdout(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            say(&explain(&error));
            match error {
                error if is_stop(&error) => 130,
                Error::Workflow(error) if error.is_out_of_time() => 124,
                _ => 1,
            }
        }
    }
}

/// Whether it is a stop that was asked for.
fn is_stop(error: &Error) -> bool {
    match error {
        Error::Workflow(workflow::Error::Interrupted { .. })
        | Error::Tokenizer(tokenizers::Error::Stopped)
        | Error::Remote(crate::remote::Error::Stopped { .. })
        | Error::Shard(shard::Error::Remote(crate::remote::Error::Stopped { .. })) => true,
        #[cfg(feature = "train")]
        Error::Evaluate(error) => error.is_stop(),
        _ => false,
    }
}

/// Prints help to stdout (0) or a usage error to stderr (2).
fn usage(error: &clap::Error) -> u8 {
    let printed = error.print();
    if printed.is_ok() && !error.use_stderr() { 0 } else { 2 }
}

fn dispatch(command: Command, remote: &Remote) -> Result<(), Error> {
    match command {
        Command::Run(arguments) => run::run(&arguments, remote),
        Command::Plan(arguments) => run::plan(&arguments, remote),
        Command::Train(arguments) => train::train(&arguments, remote),
        Command::RunTask(arguments) => run_task::run(&arguments, remote),
        Command::Submit(arguments) => cluster::submit(&arguments, remote),
        Command::Resubmit(arguments) => cluster::resubmit(&arguments, remote),
        Command::Watch(arguments) => cluster::watch(&arguments, remote),
        Command::Cancel(arguments) => cluster::cancel(&arguments),
        Command::Logs(arguments) => cluster::logs(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Status(arguments) => status::run(&arguments, remote),
        Command::Graph(arguments) => graph::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::ExportCrate(arguments) => research_crate::run(&arguments),
        Command::Gc(arguments) => gc::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Schema { of } => schema(of),
        Command::Shards(command) => shards::run(&command, remote),
        Command::Tokenizer(command) => tokenizer::run(&command),
        Command::Task(command) => task::run(&command),
        Command::Model(command) => model::run(&command),
        #[cfg(feature = "train")]
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        #[cfg(feature = "train")]
        Command::Generate(arguments) => generate::run(&arguments),
        #[cfg(feature = "train")]
        Command::Score(arguments) => score::run(&arguments),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man(arguments) => shell::man(&arguments),
    }
}

fn schema(of: SchemaOf) -> Result<(), Error> {
    let schema = match of {
        SchemaOf::Workflow => workflow::schema::workflow(),
        SchemaOf::Manifest => schemars::schema_for!(artifact::Manifest).into(),
        SchemaOf::Shard => schemars::schema_for!(shard::Details).into(),
        SchemaOf::Tasks => schemars::schema_for!(crate::task::File).into(),
        SchemaOf::Profile => schemars::schema_for!(crate::cluster::profile::Profile).into(),
    };
    print_json(&schema)
}

/// What a command that needs the trainer says where there is none.
#[cfg(not(feature = "train"))]
fn no_trainer() -> Error {
    Error::Other(crate::stage::Error::NoTrainer.to_string())
}

/// Prints a value as JSON, on stdout.
fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// The value of an environment variable, for workflows that declare it.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A line for people, on stderr; if that is closed, nobody wants it.
fn say(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// An error and its causes; a workflow's mistakes with their places.
fn explain(error: &Error) -> String {
    if let Error::Workflow(workflow::Error::Invalid(invalid)) = error {
        return diagnose(invalid);
    }
    if let Error::Workflow(workflow::Error::Failed { failures, held_up }) = error {
        let failures = failures.iter().map(|failure| format!("error: {}", units::with_causes(failure)));
        return failures.chain(workflow::held_up(held_up)).collect::<Vec<_>>().join("\n");
    }
    format!("error: {}", units::with_causes(error))
}

/// Every mistake of a workflow, each with its lines; the last line counts them.
fn diagnose(invalid: &workflow::mistake::Invalid) -> String {
    let color = io::IsTerminal::is_terminal(&io::stderr());
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(110);
    let mut text = String::new();
    for problem in &invalid.problems {
        let mut rendered = String::new();
        let shown = match handler.render_report(&mut rendered, problem) {
            Ok(()) => rendered.trim_start().trim_start_matches('×').trim_start(),
            Err(_) => &problem.message,
        };
        text += &["error: ", shown, "\n"].concat();
    }
    format!("{text}error: {invalid}")
}
