//! `genomill tokenizer`: look into a tokenizer and use it.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Error;
use crate::sequence::alphabet;
use crate::tokenizer::{self, Tokenizer};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the vocabulary's size, its special tokens and its longest tokens
    Info {
        /// A tokenizer.json
        file: PathBuf,
    },
    /// Encode lines of bases from stdin, or the sequence given
    Encode {
        /// A tokenizer.json
        file: PathBuf,
        /// The bases; by default each line of stdin
        bases: Option<String>,
        /// Print the tokens' texts
        #[arg(long)]
        text: bool,
    },
    /// Decode lines of ids from stdin, or the ids given
    Decode {
        /// A tokenizer.json
        file: PathBuf,
        /// The ids; by default each line of stdin
        ids: Vec<u32>,
    },
}

pub fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::Info { file } => info(file),
        Command::Encode { file, bases, text } => encode(file, bases.as_deref(), *text),
        Command::Decode { file, ids } => decode(file, ids),
    }
}

fn info(file: &Path) -> Result<(), Error> {
    let tokenizer = tokenizer::open(file)?;
    let mut out = io::stdout().lock();
    let size = tokenizer.vocabulary_size();
    writeln!(out, "vocabulary   {size}")?;
    writeln!(out, "fingerprint  {}", tokenizer.fingerprint().to_hex())?;
    let special: Vec<String> = (0..size)
        .filter(|&id| tokenizer.bases(id) == 0)
        .filter_map(|id| Some(format!("{} {id}", tokenizer.text(id)?)))
        .collect();
    writeln!(out, "special      {}", special.join(", "))?;
    let mut ids: Vec<u32> = (0..size).collect();
    ids.sort_by_key(|&id| (std::cmp::Reverse(tokenizer.bases(id)), id));
    writeln!(out, "longest tokens, in bases")?;
    for id in ids.into_iter().take(10) {
        writeln!(out, "  {:>4}  {id:>6}  {}", tokenizer.bases(id), tokenizer.text(id).unwrap_or_default())?;
    }
    Ok(())
}

/// Each line of stdin, or the one text given.
fn lines(given: Option<&str>) -> Box<dyn Iterator<Item = io::Result<String>>> {
    match given {
        Some(text) => Box::new(std::iter::once(Ok(text.to_owned()))),
        None => Box::new(io::stdin().lock().lines()),
    }
}

fn encode(file: &Path, bases: Option<&str>, text: bool) -> Result<(), Error> {
    let tokenizer = tokenizer::open(file)?;
    let mut out = io::stdout().lock();
    for (number, line) in (1..).zip(lines(bases)) {
        let mut line = line?.into_bytes();
        if let Some(position) = alphabet::first_invalid(&line) {
            let found = char::from(line[position]);
            return Err(Error::Other(format!(
                "cannot encode line {number}: `{found}` at base {position} is no IUPAC code"
            )));
        }
        alphabet::normalize(&mut line);
        let mut ids = Vec::new();
        tokenizer.encode_into(&line, &mut ids);
        writeln!(out, "{}", printed(tokenizer.as_ref(), &ids, text))?;
    }
    Ok(())
}

fn printed(tokenizer: &dyn Tokenizer, ids: &[u32], text: bool) -> String {
    let word = |id: &u32| if text { tokenizer.text(*id).unwrap_or("?").to_owned() } else { id.to_string() };
    ids.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn decode(file: &Path, given: &[u32]) -> Result<(), Error> {
    let tokenizer = tokenizer::open(file)?;
    let mut out = io::stdout().lock();
    let text = given.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    for (number, line) in (1..).zip(lines((!given.is_empty()).then_some(&text))) {
        let ids: Result<Vec<u32>, _> = line?.split_whitespace().map(str::parse).collect();
        let ids = ids.map_err(|e| Error::Other(format!("cannot decode line {number}: expected ids, {e}")))?;
        let mut bases = Vec::new();
        tokenizer.decode_into(&ids, &mut bases)?;
        writeln!(out, "{}", String::from_utf8_lossy(&bases))?;
    }
    Ok(())
}
