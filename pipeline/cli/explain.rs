//! `genomill explain`: where an artifact comes from.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{Error, print_json};
use crate::artifact::{Counts, Input};
use crate::report::count;
use crate::workflow::lineage::{Lineage, Made, Source, State, Step};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The artifact's folder, such as work/yeast/shards
    artifact: PathBuf,
    /// The folder that the workflow's paths start from; by default that of the workflow file of the last run
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Digits of a hash that are shown.
const SHORT: usize = 12;

/// Letters of a value of the configuration that are shown.
const VALUE_LETTERS: usize = 60;

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let lineage = Lineage::trace(&arguments.artifact, arguments.base.as_deref())?;
    if arguments.json {
        return print_json(&lineage);
    }
    let mut out = io::stdout().lock();
    for (number, step) in lineage.steps.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        tell(&mut out, step)?;
    }
    Ok(())
}

fn tell(out: &mut impl Write, step: &Step) -> io::Result<()> {
    let Some(made) = &step.made else {
        writeln!(out, "{}", step.stage)?;
        line(out, "content", short(&step.content))?;
        let state = words(&step.state);
        return line(out, "artifact", &format!("{state}; what it was made from is not known here"));
    };
    writeln!(out, "{}  {} (algorithm {}), by {}", step.stage, made.kind, made.algorithm, made.tool)?;
    line(out, "content", short(&step.content))?;
    for input in &made.inputs {
        line(
            out,
            "made from",
            &format!("{} as `{}`, content {}", input.stage, input.role, short(&input.content)),
        )?;
    }
    for reference in &made.references {
        line(out, "refers to", &format!("{}, content {}", reference.stage, short(&reference.content)))?;
    }
    for source in &made.sources {
        line(out, "file", &file(source))?;
    }
    let config = config(made);
    if !config.is_empty() {
        line(out, "config", &config)?;
    }
    account(out, &made.counts)
}

fn line(out: &mut impl Write, key: &str, value: &str) -> io::Result<()> {
    writeln!(out, "  {key:<9}  {value}")
}

fn short(hash: &str) -> &str {
    hash.get(..SHORT).unwrap_or(hash)
}

fn words(state: &State) -> String {
    match state {
        State::Same => "unchanged".to_owned(),
        State::Changed { now } => format!("CHANGED since: {now}"),
        State::Gone { reason } => format!("GONE: {reason}"),
        State::NotChecked { reason } => format!("not checked: {reason}"),
    }
}

/// Path, size, hashes, and whether it is still the same.
fn file(source: &Source) -> String {
    let file = &source.file;
    let known = (!file.blake3.is_empty())
        .then(|| format!("{} bytes, blake3 {}", count(file.bytes), short(&file.blake3)));
    let pinned = file.sha256.as_ref().map(|sha256| format!("sha256 {}", short(sha256)));
    let parts = [Some(file.path.clone()), known, pinned, Some(words(&source.state))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What the configuration says, without what is empty and without the stages that it reads from.
fn config(made: &Made) -> String {
    let key_of = |input: &Input| input.role.split('.').next().unwrap_or_default().to_owned();
    let inputs: Vec<String> = made.inputs.iter().map(key_of).collect();
    let Value::Object(map) = &made.config else { return String::new() };
    let said = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    let parts = map.iter().filter(|(key, value)| said(value) && !inputs.contains(key));
    parts.map(|(key, value)| format!("{key}: {}", shortened(value))).collect::<Vec<_>>().join(", ")
}

fn shortened(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= VALUE_LETTERS {
        return text;
    }
    text.chars().take(VALUE_LETTERS - 1).chain(['…']).collect()
}

fn account(out: &mut impl Write, counts: &Counts) -> io::Result<()> {
    if counts.bases_in == 0 {
        return Ok(());
    }
    line(out, "bases", &format!("{} in, {} out", count(counts.bases_in), count(counts.bases_out)))?;
    for (reason, bases) in &counts.dropped {
        line(out, "dropped", &format!("{} bases: {reason}", count(*bases)))?;
    }
    Ok(())
}
