//! `genomill compare`: two runs side by side.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use serde_json::Value;

use super::{Error, print_json};
use crate::fs;
use crate::report::{Comparison, PairState, StagePair, ValuePair, render_comparison};
use crate::workflow::comparison::{Compared, Difference, State, compare};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The work folder of a run, such as work/yeast
    first: PathBuf,
    /// That of another, such as other/yeast
    second: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a page to look at, in place of printing
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
}

/// Letters of a value that are shown.
const VALUE_LETTERS: usize = 40;

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let compared = compare(&arguments.first, &arguments.second)?;
    if arguments.json {
        return print_json(&compared);
    }
    if let Some(page) = &arguments.html {
        return Ok(fs::write_atomic(page, render_comparison(&comparison(arguments, compared))?.as_bytes())?);
    }
    let mut out = io::stdout().lock();
    let width = compared.iter().map(|stage| stage.stage.len()).max().unwrap_or(0);
    for stage in &compared {
        writeln!(out, "{:width$}  {}", stage.stage, words(stage))?;
        for difference in &stage.differences {
            writeln!(out, "  {}", line(difference))?;
        }
    }
    Ok(())
}

/// What the page shows.
fn comparison(arguments: &Arguments, compared: Vec<Compared>) -> Comparison {
    let value = |difference: Difference| ValuePair {
        change: difference.change(),
        path: difference.path,
        first: difference.first,
        second: difference.second,
    };
    let stage = |stage: Compared| StagePair {
        name: stage.stage,
        state: match stage.state {
            State::Same => PairState::Same,
            State::Differs => PairState::Differs,
            State::OnlyFirst => PairState::OnlyFirst,
            State::OnlySecond => PairState::OnlySecond,
        },
        differences: stage.differences.into_iter().map(value).collect(),
    };
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    Comparison {
        first: arguments.first.display().to_string(),
        second: arguments.second.display().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: now.split('T').next().unwrap_or_default().to_owned(),
        stages: compared.into_iter().map(stage).collect(),
    }
}

fn words(stage: &Compared) -> &'static str {
    match stage.state {
        State::Same => "the same",
        State::Differs => "differs",
        State::OnlyFirst => "only in the first run",
        State::OnlySecond => "only in the second run",
    }
}

/// `details.splits.test.tokens: 213471 -> 180000 (-15.7 %)`.
fn line(difference: &Difference) -> String {
    let change = difference.change().map(|share| format!(" ({:+.1} %)", share * 100.0));
    let (first, second) = (shown(&difference.first), shown(&difference.second));
    format!("{}: {first} -> {second}{}", difference.path, change.unwrap_or_default())
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    if text.chars().count() <= VALUE_LETTERS {
        return text;
    }
    text.chars().take(VALUE_LETTERS).chain(['…']).collect()
}
