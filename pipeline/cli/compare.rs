//! `genomill compare`: two runs side by side, or the cells of one matrix.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use serde_json::Value;

use super::{Error, print_json};
use crate::artifact::Artifact;
use crate::fs;
use crate::report::{Comparison, PairState, StagePair, Study, ValuePair, render_comparison};
use crate::stage::report::study::Cells;
use crate::workflow::comparison::{Compared, Difference, State, compare};
use crate::workflow::journal::{self, What};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The work folder of a run, such as work/yeast
    first: PathBuf,
    /// That of another, such as other/yeast; without one the page shows the cells of a matrix, those that failed included
    second: Option<PathBuf>,
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
    let compared = match &arguments.second {
        Some(second) => compare(&arguments.first, second)?,
        None if arguments.html.is_some() => Vec::new(),
        None => {
            let reason =
                "there is one run, expected two to compare, or `--html FILE` for the cells of its matrix";
            return Err(Error::Other(reason.to_owned()));
        }
    };
    if arguments.json {
        return print_json(&compared);
    }
    if let Some(page) = &arguments.html {
        return Ok(fs::write_atomic(page, render_comparison(&comparison(arguments, compared)?)?.as_bytes())?);
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

/// Writes a page of two runs side by side.
pub(super) fn write_page(first: PathBuf, second: PathBuf, page: PathBuf) -> Result<(), Error> {
    run(&Arguments { first, second: Some(second), json: false, html: Some(page) })
}

/// What the page shows.
fn comparison(arguments: &Arguments, compared: Vec<Compared>) -> Result<Comparison, Error> {
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
    let study = study(arguments)?;
    if study.is_none() && arguments.second.is_none() {
        let first = arguments.first.display();
        let reason = format!(
            "`{first}` has no two cells of a matrix that are scored: name another run to compare it with"
        );
        return Err(Error::Other(reason));
    }
    Ok(Comparison {
        first: arguments.first.display().to_string(),
        second: arguments.second.as_ref().map(|second| second.display().to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: now.split('T').next().unwrap_or_default().to_owned(),
        stages: compared.into_iter().map(stage).collect(),
        study,
    })
}

/// The cells of the matrices of both runs.
fn study(arguments: &Arguments) -> Result<Option<Study>, Error> {
    let mut cells = Cells::default();
    let works = std::iter::once(&arguments.first).chain(&arguments.second);
    for work in works {
        let run = arguments.second.as_ref().map(|_| run_name(work));
        let failed = journal::last(work).into_iter().filter_map(|(stage, told)| match told.what {
            What::Failed(error) => Some((stage, error)),
            _ => None,
        });
        let failed: BTreeMap<String, String> = failed.collect();
        cells
            .add(&artifacts(work)?, &failed, run.as_deref())
            .map_err(|error| Error::Other(error.to_string()))?;
    }
    Ok(cells.study())
}

/// The artifacts of a work folder, by name.
pub(super) fn artifacts(work: &Path) -> Result<Vec<Artifact>, Error> {
    let entries = std::fs::read_dir(work).map_err(fs::error("list", work))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<Artifact> = paths.filter_map(|path| Artifact::open(&path).ok()).collect();
    found.sort_by(|a, b| a.manifest.stage.cmp(&b.manifest.stage));
    Ok(found)
}

/// A run as an axis of the matrix has it: its folder, written out, so that two runs of one workflow have two names.
fn run_name(work: &Path) -> String {
    work.display().to_string()
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
