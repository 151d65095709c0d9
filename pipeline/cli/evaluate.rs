//! `genomill evaluate`: models on tasks by a protocol.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser, value_parser};
use serde::de::DeserializeOwned;

use super::progress::{Style, observer};
use super::run::{on_signal, threads};
use super::task::for_each_task;
use super::{Error, print_json};
use crate::evaluate::encoder::Encoder;
use crate::evaluate::protocol::{Config, Pooling, Protocol, Strands};
use crate::evaluate::result::Outcome;
use crate::evaluate::tasks::{Again, Place, evaluate};
use crate::fs;
use crate::metric::scores::Metric;
use crate::metric::seeds::Spread;
use crate::observer::{Event, Stop};
use crate::train::Hooks;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Models: folders with a checkpoint, or with config.json, weights and tokenizer; NAME=DIR names one
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// YAML files of tasks, or folders of Genomic Benchmarks or GUE
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    tasks: Vec<PathBuf>,
    /// FASTA files that the intervals of a folder of Genomic Benchmarks lie on
    #[arg(long, value_name = "FASTA", num_args = 1..)]
    reference: Vec<PathBuf>,
    /// How models are asked
    #[arg(long, value_parser = words::<Protocol>(&PROTOCOLS))]
    protocol: Protocol,
    /// A YAML file with the rest of the configuration: inputs, seeds, validation, training
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Runs, with seeds from 0
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// How hidden values become one embedding
    #[arg(long, value_parser = words::<Pooling>(&["mean", "last", "cls"]))]
    pooling: Option<Pooling>,
    /// Which strands are asked
    #[arg(long, value_parser = words::<Strands>(&["forward", "both"]))]
    strands: Option<Strands>,
    /// Times that every training example is seen
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// The folder of the results
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Where embeddings are kept; by default in the folder of the results
    #[arg(long, value_name = "DIR")]
    embeddings: Option<PathBuf>,
    /// Look at test sets again that the same model has been scored on by this protocol; the result counts it
    #[arg(long)]
    look_again: bool,
    /// Worker threads; by default one per core
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// How to show progress
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const PROTOCOLS: [&str; 6] = ["linear-probe", "cnn-head", "fine-tune", "lora", "from-scratch", "zero-shot"];

/// A value that is written as in files.
fn words<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words)
        .try_map(|word| serde_json::from_value::<T>(serde_json::Value::String(word)))
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let config = arguments.resolved()?;
    let models = named(&arguments.models)?;
    let stop = Arc::new(Stop::new());
    on_signal(&stop)?;
    let observer = observer(arguments.progress);
    let kept = arguments.embeddings.clone().unwrap_or_else(|| arguments.out.join("embeddings"));
    let mut outcomes = Vec::new();
    for (name, folder) in &models {
        let encoder = Encoder::open(name, folder)?;
        for_each_task(&arguments.tasks, &arguments.reference, |dataset| {
            let stage = format!("{}, {name}", dataset.name);
            let threads = threads(arguments.jobs);
            let hooks = Hooks { observer: observer.as_ref(), stage: &stage, stop: &stop, threads };
            let again = if arguments.look_again { Again::Always } else { Again::Refuse };
            let place = Place { out: &arguments.out, earlier: None, cache: Some(&kept), again };
            let began = Instant::now();
            let outcome = evaluate(&encoder, dataset, &config, place, hooks)?;
            let (seconds, summary) = (began.elapsed().as_secs_f64(), summary(&outcome));
            observer.event(&Event::StageFinished { stage: stage.clone(), seconds, summary });
            if !arguments.json {
                io::stdout().write_all(text(&outcome).as_bytes())?;
            }
            outcomes.push(outcome);
            Ok(())
        })?;
    }
    if arguments.json { print_json(&outcomes) } else { Ok(()) }
}

impl Arguments {
    /// The file's configuration, with what the command line says over it.
    fn resolved(&self) -> Result<Config, Error> {
        let mut config = match &self.config {
            Some(path) => read(path, self.protocol)?,
            None => Config::new(self.protocol),
        };
        config.seeds = self.seeds.unwrap_or(config.seeds);
        config.inputs.pooling = self.pooling.unwrap_or(config.inputs.pooling);
        config.inputs.strands = self.strands.unwrap_or(config.inputs.strands);
        config.training.epochs = self.epochs.unwrap_or(config.training.epochs);
        Ok(config)
    }
}

/// A configuration without its protocol.
fn read(path: &Path, protocol: Protocol) -> Result<Config, Error> {
    let text = fs::read_to_string(path)?;
    let wrong = |problem: String| Error::Other(format!("cannot read `{}`: {problem}", path.display()));
    let mut all: serde_json::Map<String, serde_json::Value> =
        serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if all.contains_key("protocol") {
        return Err(wrong("found `protocol`, which --protocol says".to_owned()));
    }
    all.insert("protocol".to_owned(), protocol.to_string().into());
    let config = serde_path_to_error::deserialize(serde_json::Value::from(all));
    config.map_err(|error| wrong(format!("`{}`: {}", error.path(), error.inner())))
}

/// Models by name: what stands before `=`, or the folder's own name.
fn named(models: &[String]) -> Result<Vec<(String, PathBuf)>, Error> {
    let one = |model: &String| match model.split_once('=') {
        Some((name, folder)) if !name.is_empty() => (name.to_owned(), PathBuf::from(folder)),
        _ => {
            let folder = PathBuf::from(model);
            let whole = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            (whole.file_name().map_or(model.clone(), |name| name.to_string_lossy().into_owned()), folder)
        }
    };
    let models: Vec<_> = models.iter().map(one).collect();
    let mut names = BTreeSet::new();
    match models.iter().find(|(name, _)| !names.insert(name)) {
        Some((name, _)) => {
            Err(Error::Other(format!("two models are called `{name}`: name one, as in other={name}")))
        }
        None => Ok(models),
    }
}

/// One line of a result.
fn summary(outcome: &Outcome) -> String {
    let spread = |all: &Spread| {
        let sd = all.sd.map_or(String::new(), |sd| format!(", sd {sd:.4}"));
        format!("{:.4}{sd}", all.mean)
    };
    let mean = outcome.summary.all.as_ref().map_or("undefined".to_owned(), spread);
    format!("{}: {} {mean} of {} runs", outcome.config.protocol, outcome.summary.metric, outcome.runs.len())
}

/// Scores for people.
fn text(outcome: &Outcome) -> String {
    let metrics = [Metric::Accuracy, Metric::Mcc, Metric::MacroF1, Metric::Auroc, Metric::Auprc];
    let (task, model) = (&outcome.task, &outcome.model);
    let mut lines = vec![format!(
        "{} (version {}): {}, {}",
        task.name, task.version, model.name, outcome.config.protocol
    )];
    let names = metrics.map(|metric| format!("{:>10}", metric.to_string()));
    lines.push(format!("  seed   chosen  epoch{}", names.concat()));
    for run in &outcome.runs {
        let scores = metrics.map(|metric| run.scores.shown(metric));
        let scores =
            scores.map(|score| score.map_or(format!("{:>10}", "-"), |score| format!("{score:>10.4}")));
        let chosen = run.chosen.map_or("-".to_owned(), |chosen| format!("{chosen:e}"));
        let epoch = run.epoch.map_or("-".to_owned(), |epoch| epoch.to_string());
        lines.push(format!("  {:>4} {chosen:>8}  {epoch:>5}{}", run.seed, scores.concat()));
    }
    if let Some(all) = &outcome.summary.all {
        let sd = all.sd.map_or("-".to_owned(), |sd| format!("{sd:.4}"));
        let (metric, mean, min, max) = (outcome.summary.metric.to_string(), all.mean, all.min, all.max);
        lines.push(format!("  {metric} of {} runs: mean {mean:.4}, sd {sd}, {min:.4} to {max:.4}", all.runs));
    }
    if let Some(clean) = outcome.clean.as_ref().and_then(|clean| clean.all) {
        let (metric, mean, clean) = (outcome.summary.metric.to_string(), clean.mean, outcome.task.clean);
        lines.push(format!(
            "  {metric} on {clean} clean examples of {}: mean {mean:.4}",
            outcome.task.examples[2]
        ));
    }
    lines.extend(outcome.notes.iter().map(|note| format!("  ! {note}")));
    lines.join("\n") + "\n\n"
}
