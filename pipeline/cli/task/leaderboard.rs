//! `genomill task leaderboard`: results side by side, with what others have published.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, ValueEnum};

use crate::cli::{Error, print_json};
use crate::evaluate::result;
use crate::fs;
use crate::report::Leaderboard;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Folders with results of `genomill evaluate`, or of a stage that scores tasks
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
    /// Write a page to look at, in place of printing
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    html: Option<PathBuf>,
    /// Leave out what others have published
    #[arg(long)]
    ours: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for people
    Markdown,
    /// A row for each figure
    Csv,
    /// Everything
    Json,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let mut results = Vec::new();
    for path in &arguments.results {
        results.extend(result::find(path)?);
    }
    let board = Leaderboard::new(&results, !arguments.ours)?;
    if let Some(page) = &arguments.html {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let date = now.split('T').next().unwrap_or_default();
        return Ok(fs::write_atomic(page, board.page(env!("CARGO_PKG_VERSION"), date)?.as_bytes())?);
    }
    match arguments.format {
        Format::Markdown => Ok(io::stdout().write_all(board.markdown().as_bytes())?),
        Format::Csv => Ok(io::stdout().write_all(board.csv().as_bytes())?),
        Format::Json => print_json(&board),
    }
}
