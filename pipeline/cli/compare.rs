//! `genomill compare`: two runs side by side.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{Error, print_json};
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
}

/// Letters of a value that are shown.
const VALUE_LETTERS: usize = 40;

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let compared = compare(&arguments.first, &arguments.second)?;
    if arguments.json {
        return print_json(&compared);
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
