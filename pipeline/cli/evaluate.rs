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
use crate::evaluate::encoder::{self, Encoder};
use crate::evaluate::protocol::{Baseline, Config, Pooling, Protocol, Recipe, Strands};
use crate::evaluate::result::Outcome;
use crate::evaluate::tasks::{Again, Place, evaluate};
use crate::fs;
use crate::metric::scores::Metric;
use crate::metric::seeds::Spread;
use crate::model::Named;
use crate::observer::{Event, Stop};
use crate::task::Kind;
use crate::tokenizer::nucleotide::Nucleotide;
use crate::tokenizer::{self, Tokenizer};
use crate::train::Hooks;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Models: folders with a checkpoint, or with config.json, weights and tokenizer; NAME=DIR names one
    #[arg(required_unless_present_any = ["preset", "baseline"], value_name = "MODEL")]
    models: Vec<String>,
    /// Shapes without weights, for from-scratch, such as hyenadna-tiny-1k; NAME=SHAPE names one
    #[arg(long, value_name = "SHAPE", num_args = 1..)]
    preset: Vec<String>,
    /// The tokenizer of these shapes: a tokenizer.json, `hyenadna` or `nucleotide`
    #[arg(long, value_name = "FILE", requires = "preset")]
    tokenizer: Option<PathBuf>,
    /// What stands on the leaderboard beside models: cnn (from-scratch), kmer (linear-probe)
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = words::<Baseline>(&["cnn", "kmer"]))]
    baseline: Vec<Baseline>,
    /// YAML files of tasks, or folders of Genomic Benchmarks or GUE
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    tasks: Vec<PathBuf>,
    /// FASTA files that the intervals of a folder of Genomic Benchmarks lie on
    #[arg(long, value_name = "FASTA", num_args = 1..)]
    reference: Vec<PathBuf>,
    /// How models are asked
    #[arg(long, value_parser = words::<Protocol>(&PROTOCOLS))]
    protocol: Protocol,
    /// The published recipe of a model in place of the common training
    #[arg(long, value_name = "NAME", value_parser = words::<Recipe>(&["hyenadna", "dnabert2", "cnn"]))]
    recipe: Option<Recipe>,
    /// A YAML file with the rest of the configuration: inputs, seeds, validation, training
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Runs, with seeds from 0
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// How hidden values become one embedding
    #[arg(long, value_parser = words::<Pooling>(&["mean", "last", "cls", "pooler"]))]
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
    let asked = arguments.asked(config.inputs.max_tokens)?;
    let stop = Arc::new(Stop::new());
    on_signal(&stop)?;
    let observer = observer(arguments.progress);
    let kept = arguments.embeddings.clone().unwrap_or_else(|| arguments.out.join("embeddings"));
    let mut outcomes = Vec::new();
    for (name, open) in &asked {
        let encoder = open.encoder(name)?;
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

/// What is to be scored.
enum Open {
    /// The model of a folder.
    Folder(PathBuf),
    /// A shape without weights.
    Shape { preset: Named, tokenizer: Option<Arc<dyn Tokenizer>>, max_tokens: Option<u32> },
    /// A baseline.
    Baseline(Baseline),
}

impl Open {
    fn encoder(&self, name: &str) -> Result<Encoder, encoder::Error> {
        match self {
            Self::Folder(folder) => Encoder::open(name, folder),
            Self::Shape { preset, tokenizer, max_tokens } => {
                Encoder::of_preset(name, *preset, tokenizer.clone(), *max_tokens)
            }
            Self::Baseline(baseline) => Encoder::of_baseline(*baseline),
        }
    }
}

impl Arguments {
    /// Models, shapes and baselines by name.
    fn asked(&self, max_tokens: Option<u32>) -> Result<Vec<(String, Open)>, Error> {
        let tokenizer = self.tokenizer.as_deref().map(tokenizer).transpose()?;
        let shape = |text: &String| {
            let (name, preset) = text.split_once('=').unwrap_or((text, text));
            let preset = preset.parse::<Named>().map_err(|expected| {
                Error::Other(format!("unknown shape `{preset}` of --preset, {expected}"))
            })?;
            let shape = Open::Shape { preset, tokenizer: tokenizer.clone(), max_tokens };
            Ok::<_, Error>((name.to_owned(), shape))
        };
        let folders = self.models.iter().map(|model| Ok(folder(model)));
        let baselines = self.baseline.iter().map(|one| Ok((one.to_string(), Open::Baseline(*one))));
        let all =
            folders.chain(self.preset.iter().map(shape)).chain(baselines).collect::<Result<Vec<_>, _>>()?;
        let mut names = BTreeSet::new();
        match all.iter().find(|(name, _)| !names.insert(name)) {
            Some((name, _)) => {
                Err(Error::Other(format!("two models are called `{name}`: name one, as in other={name}")))
            }
            None => Ok(all),
        }
    }

    /// The file's configuration, with what the command line says over it.
    fn resolved(&self) -> Result<Config, Error> {
        let mut config = match &self.config {
            Some(path) => read(path, self.protocol)?,
            None => Config::new(self.protocol),
        };
        config.recipe = self.recipe.or(config.recipe);
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

/// A model's name, what stands before `=` or the folder's own, and its folder.
fn folder(model: &str) -> (String, Open) {
    match model.split_once('=') {
        Some((name, folder)) if !name.is_empty() => (name.to_owned(), Open::Folder(folder.into())),
        _ => {
            let folder = PathBuf::from(model);
            let whole = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            let name = whole.file_name().map(|name| name.to_string_lossy().into_owned());
            (name.unwrap_or_else(|| model.to_owned()), Open::Folder(folder))
        }
    }
}

/// A tokenizer by its name, or that of a file.
fn tokenizer(name: &Path) -> Result<Arc<dyn Tokenizer>, Error> {
    Ok(match name.to_str() {
        Some("hyenadna") => Arc::new(Nucleotide::hyena()),
        Some("nucleotide") => Arc::new(Nucleotide::new()),
        _ => tokenizer::open(name)?.into(),
    })
}

/// One line of a result.
fn summary(outcome: &Outcome) -> String {
    let spread = |all: &Spread| {
        let sd = all.sd.map_or(String::new(), |sd| format!(", sd {sd:.4}"));
        format!("{:.4}{sd}", all.mean)
    };
    let mean = outcome.summary.all.as_ref().map_or("undefined".to_owned(), spread);
    format!("{}: {} {mean} of {} runs", outcome.config.label(), outcome.summary.metric, outcome.runs.len())
}

/// The recall of every class, the mean over runs.
fn recalls(outcome: &Outcome) -> Vec<String> {
    let of = |(at, class): (usize, &String)| {
        let classes = outcome.runs.iter().filter_map(|run| run.scores.classes.get(at));
        let recalls: Vec<f64> = classes.clone().filter_map(|class| class.recall).collect();
        let bases = classes.map(|class| class.examples).next().unwrap_or(0);
        let mean = recalls.iter().sum::<f64>() / recalls.len() as f64;
        let mean = if recalls.is_empty() { "-".to_owned() } else { format!("{mean:.4}") };
        format!("  recall of `{class}` ({bases} bases): {mean}")
    };
    outcome.task.classes.iter().enumerate().map(of).collect()
}

/// Scores for people.
fn text(outcome: &Outcome) -> String {
    let metrics = [Metric::Accuracy, Metric::Mcc, Metric::MacroF1, Metric::Auroc, Metric::Auprc];
    let (task, model) = (&outcome.task, &outcome.model);
    let mut lines =
        vec![format!("{} (version {}): {}, {}", task.name, task.version, model.name, outcome.config.label())];
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
    if task.kind == Kind::Bases {
        lines.extend(recalls(outcome));
    }
    lines.extend(outcome.notes.iter().map(|note| format!("  ! {note}")));
    lines.join("\n") + "\n\n"
}
