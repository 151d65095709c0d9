//! `genomill model`: what a model costs, whether it computes what another implementation does, its export, and the import of
//! published weights.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Error, print_json};
use crate::model::{Named, Shape};
#[cfg(feature = "train")]
use crate::model::{dnabert2, hyena};
use crate::report::count;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show parameters, memory, work and speed of a preset; nothing is allocated
    Info(InfoArguments),
    /// Compare with what another implementation computed: FOLDER/hf or FOLDER is the model (OLMo, HyenaDNA, DNABERT-2),
    /// FOLDER/forward.safetensors its results
    Check(CheckArguments),
    /// Write a checkpoint as a folder that another library opens
    Export(ExportArguments),
    /// Take over published weights, name by name, into a folder for `model check` and the library
    Import(ImportArguments),
}

#[derive(Debug, Args)]
pub struct InfoArguments {
    /// The shape's name, such as olmo-1b, hyenadna-tiny-1k or dnabert2-117m
    preset: Named,
    /// Token ids
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    vocab: u32,
    /// Tokens per row
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    context: u32,
    /// Rows that each thread computes at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    rows: u32,
    /// Threads (or devices that share nothing) that compute at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    threads: u32,
    /// Share of the peak that is reached
    #[arg(long, default_value_t = 0.4, value_parser = share)]
    mfu: f64,
    /// Peak of the device in TFLOP/s; by default that of an H100 or H200 in dense bf16
    #[arg(long, value_name = "TFLOPS", default_value_t = 989.0, value_parser = positive)]
    peak: f64,
    /// Say how long this many tokens take
    #[arg(long, value_name = "N", value_parser = crate::units::parse_tokens)]
    tokens: Option<u64>,
    /// Devices that share these tokens
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The folder with the model, or hf/, and forward.safetensors
    folder: PathBuf,
    /// The largest difference of any result that is no failure; by default what rounding explains of each
    #[arg(long, value_parser = positive)]
    tolerance: Option<f64>,
}

#[derive(Debug, Args)]
pub struct ExportArguments {
    /// A checkpoint, or a folder with some: the newest is taken
    checkpoint: PathBuf,
    /// For which library
    #[arg(long, value_enum, default_value_t = To::Hf)]
    to: To,
    /// The new folder; it must not exist
    output: PathBuf,
    /// The model's licence, as Hugging Face names it, such as cc-by-4.0; for the card
    #[arg(long, value_name = "ID")]
    license: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum To {
    /// Hugging Face transformers: `AutoModelForCausalLM` and `AutoTokenizer`
    Hf,
}

#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Whose weights they are
    #[arg(long, value_enum)]
    from: Peer,
    /// The safetensors file with the published names
    file: PathBuf,
    /// The new folder; it must not exist
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The preset that the weights must be of, such as tiny-1k or dnabert2-117m; by default the tensors' shapes say what
    /// a HyenaDNA is, and the config.json beside the file what a DNABERT-2 is
    #[arg(long)]
    preset: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Peer {
    /// HyenaDNA
    Hyenadna,
    /// DNABERT-2
    Dnabert2,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    positive(text).ok().filter(|n| *n <= 1.0).ok_or_else(|| "expected a number above 0, at most 1".to_owned())
}

pub fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::Info(arguments) => info(arguments),
        Command::Check(arguments) => check(arguments),
        Command::Export(arguments) => export(arguments),
        Command::Import(arguments) => import(arguments),
    }
}

/// What a device does at a share of its peak.
struct Speed {
    tokens_per_second: f64,
    /// For the tokens asked for, on all devices.
    seconds: Option<f64>,
}

impl Speed {
    fn of(arguments: &InfoArguments, shape: &Shape) -> Self {
        let rate = arguments.mfu * arguments.peak * 1e12 / shape.work(arguments.context).per_token as f64;
        let all = rate * f64::from(arguments.devices);
        Self { tokens_per_second: rate, seconds: arguments.tokens.map(|tokens| tokens as f64 / all) }
    }
}

fn info(arguments: &InfoArguments) -> Result<(), Error> {
    let shape = arguments.preset.shape(arguments.vocab, arguments.context).map_err(Error::Other)?;
    let speed = Speed::of(arguments, &shape);
    if !arguments.json {
        return Ok(tell(&mut io::stdout().lock(), arguments, &shape, &speed)?);
    }
    let (parameters, memory) = (shape.parts(), shape.memory(arguments.context));
    let (rows, threads) = (arguments.rows.into(), arguments.threads.into());
    let recomputes = matches!(shape, Shape::Olmo(_));
    print_json(&json!({
        "preset": arguments.preset,
        "family": shape.family(),
        "model": shape,
        "parameters": parameters,
        "parameters_total": parameters.total(),
        "memory": memory,
        "memory_total": memory.total(rows, threads, false),
        "memory_total_with_checkpointing": recomputes.then(|| memory.total(rows, threads, true)),
        "flop": shape.work(arguments.context),
        "tokens_per_second": speed.tokens_per_second,
        "seconds": speed.seconds,
    }))
}

/// What stands in the place of attention, and in that of the head.
const fn names(shape: &Shape) -> [&'static str; 3] {
    match shape {
        Shape::Olmo(config) if !config.tied_head => ["embedding", "attention", "in attention, not halved"],
        Shape::Olmo(_) => ["embedding, which is the head too", "attention", "in attention, not halved"],
        Shape::Hyena { .. } => [
            "embedding, which is the head too",
            "operators, in place of attention",
            "in long convolutions, by transforms",
        ],
        Shape::Dnabert2 { .. } => ["embedding, which is the head too", "attention", "in attention"],
    }
}

fn tell(out: &mut impl Write, arguments: &InfoArguments, shape: &Shape, speed: &Speed) -> io::Result<()> {
    let context = arguments.context;
    let (parameters, memory, work) = (shape.parts(), shape.memory(context), shape.work(context));
    let (rows, threads) = (arguments.rows, arguments.threads);
    let total = |checkpointing| memory.total(rows.into(), threads.into(), checkpointing);
    let recomputes = matches!(shape, Shape::Olmo(_));
    let [embedding, attention, mixing] = names(shape);
    let bytes = " bytes";
    let lines = [
        (embedding.to_owned(), parameters.embedding, "", true),
        (attention.to_owned(), parameters.attention, "", true),
        ("networks that make filters".to_owned(), parameters.filters, "", parameters.filters > 0),
        ("feed-forward".to_owned(), parameters.feed_forward, "", true),
        ("norms and biases".to_owned(), parameters.norms, "", true),
        ("head".to_owned(), parameters.head, "", true),
        ("parameters".to_owned(), parameters.total(), "", true),
        ("weights, f32".to_owned(), memory.weights, bytes, true),
        ("gradients".to_owned(), memory.gradients, bytes, true),
        ("moments of AdamW".to_owned(), memory.optimizer, bytes, true),
        ("activations of a row".to_owned(), memory.activations_per_row, bytes, true),
        (
            "  with activation checkpointing".to_owned(),
            memory.checkpointed_activations_per_row,
            bytes,
            recomputes,
        ),
        (format!("to train, {rows} rows, threads: {threads}"), total(false), bytes, true),
        ("  with activation checkpointing".to_owned(), total(true), bytes, recomputes),
        ("a token, forward and backward".to_owned(), work.per_token, " FLOP", true),
        (format!("  of these {mixing}"), work.attention_per_token, " FLOP", true),
    ];
    for (name, value, unit, _) in lines.iter().filter(|(.., shown)| *shown) {
        let value = format!("{}{unit}", count(*value));
        writeln!(out, "  {name:<44} {value:>26}")?;
    }
    let (share, peak) = (100.0 * arguments.mfu, arguments.peak);
    writeln!(out, "  {:.0} tokens/s at {share} % of {peak} TFLOP/s", speed.tokens_per_second)?;
    match (arguments.tokens, speed.seconds) {
        (Some(tokens), Some(seconds)) => writeln!(
            out,
            "  {:.1} h for {} tokens, devices: {}",
            seconds / 3600.0,
            count(tokens),
            arguments.devices
        ),
        _ => Ok(()),
    }
}

#[cfg(not(feature = "train"))]
fn check(_: &CheckArguments) -> Result<(), Error> {
    Err(super::no_trainer())
}

#[cfg(feature = "train")]
fn check(arguments: &CheckArguments) -> Result<(), Error> {
    let found = crate::model::check::check(&arguments.folder);
    let found = found.map_err(|error| Error::Other(error.to_string()))?;
    let mut out = io::stdout().lock();
    for [rows, tokens] in &found.batches {
        writeln!(out, "compared      {rows} rows of {tokens} tokens")?;
    }
    for result in &found.results {
        writeln!(out, "{:<24} differs by {:.3e} at most", result.name, result.off)?;
    }
    let Some(beyond) = found.beyond(arguments.tolerance) else { return Ok(()) };
    let (name, off, limit) = (beyond.name, beyond.off, beyond.limit);
    Err(Error::Other(format!("{name}: the largest difference is {off:.3e}, expected at most {limit:.3e}")))
}

#[cfg(not(feature = "train"))]
fn export(_: &ExportArguments) -> Result<(), Error> {
    Err(super::no_trainer())
}

#[cfg(feature = "train")]
fn export(arguments: &ExportArguments) -> Result<(), Error> {
    let To::Hf = arguments.to;
    let mut provenance = provenance::of(&arguments.checkpoint);
    provenance.license.clone_from(&arguments.license);
    let checkpoint = crate::train::export::to_hf(&arguments.checkpoint, &arguments.output, &provenance);
    let checkpoint = checkpoint.map_err(|error| Error::Other(error.to_string()))?;
    let (from, to) = (checkpoint.display(), arguments.output.display());
    Ok(writeln!(io::stdout(), "`{from}` is in {to}")?)
}

#[cfg(not(feature = "train"))]
fn import(_: &ImportArguments) -> Result<(), Error> {
    Err(super::no_trainer())
}

#[cfg(feature = "train")]
fn import(arguments: &ImportArguments) -> Result<(), Error> {
    let (file, out) = (&arguments.file, &arguments.output);
    let found = match arguments.from {
        Peer::Hyenadna => hyena::import::import(file, preset(arguments)?, out)
            .map(|config| format!("{config}, {} parameters", count(config.parameters()))),
        Peer::Dnabert2 => {
            dnabert2::import::import(file, preset(arguments)?, out).map(|config| config.to_string())
        }
    };
    let found = found.map_err(|error| Error::Other(error.to_string()))?;
    Ok(writeln!(io::stdout(), "`{}` is in {}: {found}", file.display(), out.display())?)
}

/// The preset asked for, as the peer calls its own.
#[cfg(feature = "train")]
fn preset<P: std::str::FromStr<Err = String>>(arguments: &ImportArguments) -> Result<Option<P>, Error> {
    let parsed = arguments.preset.as_deref().map(str::parse).transpose();
    parsed.map_err(|expected: String| Error::Other(format!("--preset: {expected}")))
}

#[cfg(feature = "train")]
mod provenance {
    //! What the work folder around a checkpoint knows of it.

    use std::path::Path;

    use crate::artifact::Artifact;
    use crate::report::{Evaluation, Markov};
    use crate::train::export::{Provenance, Score};
    use crate::workflow::lineage::Lineage;

    /// Folders between a checkpoint and its artifact, both counted.
    const DEPTH: usize = 3;

    /// Nothing where the checkpoint lies in no artifact.
    pub fn of(checkpoint: &Path) -> Provenance {
        let folder = std::path::absolute(checkpoint).unwrap_or_else(|_| checkpoint.to_owned());
        let artifact = folder.ancestors().take(DEPTH).find_map(|folder| Artifact::open(folder).ok());
        let Some(artifact) = artifact else { return Provenance::default() };
        let Ok(lineage) = Lineage::trace(&artifact.folder, None) else { return Provenance::default() };
        let made = lineage.steps.iter().filter_map(|step| step.made.as_ref());
        let sources = made.flat_map(|made| made.sources.iter().map(|source| source.file.clone()));
        let mut sources = sources.collect::<Vec<_>>();
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        sources.dedup();
        Provenance { sources, scores: scores(&lineage.work, &artifact.manifest.content), license: None }
    }

    /// What the evaluations of this very model in a work folder say.
    fn scores(work: &Path, content: &str) -> Vec<Score> {
        let folders = std::fs::read_dir(work).into_iter().flatten().filter_map(Result::ok);
        let mut artifacts =
            folders.filter_map(|entry| Artifact::open(&entry.path()).ok()).collect::<Vec<_>>();
        artifacts.sort_by(|a, b| a.manifest.stage.cmp(&b.manifest.stage));
        let of_it = |artifact: &&Artifact| {
            let inputs = &artifact.manifest.inputs;
            inputs.iter().any(|input| input.role == "model" && input.content == content)
        };
        let evaluations = artifacts.iter().filter(of_it).flat_map(|artifact| {
            let found = artifact.manifest.details.get("evaluations").cloned().unwrap_or_default();
            serde_json::from_value::<Vec<Evaluation>>(found).unwrap_or_default()
        });
        evaluations.filter_map(score).collect()
    }

    fn score(evaluation: Evaluation) -> Option<Score> {
        let best = evaluation.markov.as_ref().and_then(Markov::best);
        Some(Score {
            bits_per_base: evaluation.model?.bits_per_base,
            baseline: best.map(|best| (format!("Markov {}", best.name()), best.bits_per_base)),
            on: evaluation.scored_on,
        })
    }
}
