//! `genomill shards`: look into a shard folder.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{Error, export};
use crate::artifact::Artifact;
use crate::shard::{ShardSet, verify};
use crate::tokenizer::Tokenizer;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the manifest says
    Info {
        /// The shard folder
        folder: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the first rows: tokens, bases and where they came from
    Head {
        /// The shard folder
        folder: PathBuf,
        /// The split
        #[arg(long, default_value = "train")]
        split: String,
        /// How many rows
        #[arg(short = 'n', long, default_value_t = 3)]
        rows: u64,
    },
    /// Read every byte and compare it with the manifest
    Verify {
        /// The shard folder
        folder: PathBuf,
    },
    /// Write the rows as what another trainer reads
    Export(export::Arguments),
}

pub fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::Info { folder, json } => info(folder, *json),
        Command::Head { folder, split, rows } => head(folder, split, *rows),
        Command::Verify { folder } => check(folder),
        Command::Export(arguments) => export::run(arguments),
    }
}

fn info(folder: &Path, json: bool) -> Result<(), Error> {
    let set = ShardSet::open(folder)?;
    let mut out = io::stdout().lock();
    if json {
        let text = serde_json::to_string_pretty(&set.details).map_err(io::Error::other)?;
        return Ok(writeln!(out, "{text}")?);
    }
    let details = &set.details;
    writeln!(out, "{}  context {} tokens of {} bytes", details.schema, details.context, details.token_bytes)?;
    writeln!(
        out,
        "vocabulary {}  tokenizer {}",
        details.vocabulary_size,
        &details.tokenizer_fingerprint[..12.min(details.tokenizer_fingerprint.len())]
    )?;
    writeln!(
        out,
        "{:<12} {:>10} {:>14} {:>14} {:>9} {:>6} {:>12}",
        "split", "rows", "tokens", "bases", "padding", "files", "bytes"
    )?;
    for (name, split) in &details.splits {
        let bytes: u64 = split.files.iter().map(|file| file.bytes).sum();
        let files = split.files.len();
        writeln!(
            out,
            "{name:<12} {:>10} {:>14} {:>14} {:>9} {files:>6} {bytes:>12}",
            split.rows, split.tokens, split.bases, split.padding
        )?;
    }
    Ok(())
}

fn head(folder: &Path, split: &str, count: u64) -> Result<(), Error> {
    let set = ShardSet::open(folder)?;
    let rows = set.rows(split)?;
    let tokenizer = set.tokenizer()?;
    let files = set.details.splits.get(split).map(|split| split.files.clone()).unwrap_or_default();
    let mut out = io::stdout().lock();
    let mut row = 0;
    for file in &files {
        if row >= count {
            break;
        }
        for segments in
            set.segments(file)?.into_iter().take(usize::try_from(count - row).unwrap_or(usize::MAX))
        {
            let tokens = rows.get(row).to_vec();
            writeln!(out, "row {row}")?;
            writeln!(out, "  tokens {}", spelled(tokenizer.as_ref(), &tokens))?;
            for s in &segments {
                writeln!(
                    out,
                    "  {}-{}  {}:{}-{}:{}  ({})",
                    s.token_start, s.token_end, s.record, s.start, s.end, s.strand, s.source
                )?;
            }
            row += 1;
        }
    }
    Ok(())
}

fn spelled(tokenizer: &dyn Tokenizer, tokens: &[u32]) -> String {
    let text = |id: &u32| format!("{id}:{}", tokenizer.text(*id).unwrap_or("?"));
    tokens.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn check(folder: &Path) -> Result<(), Error> {
    let checked = verify::verify(&Artifact::open(folder)?)?;
    let verdict = format!(
        "{} files, {} rows, {} tokens: all as the manifest says",
        checked.files, checked.rows, checked.tokens
    );
    Ok(writeln!(io::stdout(), "{verdict}")?)
}
