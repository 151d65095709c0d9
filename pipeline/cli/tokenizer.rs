//! `genomill tokenizer`: look into a tokenizer and use it.

mod train;

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use self::train::{TrainArguments, train};
use super::Error;
use crate::sequence::alphabet;
use crate::source::fasta;
use crate::tokenizer::info::{Info, Usage};
use crate::tokenizer::{self, Tokenizer};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Learn byte-pair encoding from FASTA files
    Train(Box<TrainArguments>),
    /// Show the vocabulary, and what it does on a genome
    Info {
        /// A tokenizer.json
        file: PathBuf,
        /// FASTA files to count tokens on
        #[arg(long, value_name = "FASTA", num_args = 1..)]
        on: Vec<PathBuf>,
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

/// Bases of a piece; none for whole records.
#[derive(Debug, Clone, Copy)]
pub struct Pieces(Option<usize>);

fn pieces(text: &str) -> Result<Pieces, String> {
    let length = text.strip_prefix("fixed:").and_then(|n| n.parse().ok()).filter(|&n: &usize| n > 0);
    match (text, length) {
        ("contig", _) => Ok(Pieces(None)),
        (_, Some(length)) => Ok(Pieces(Some(length))),
        _ => Err(format!("expected `contig` or `fixed:` and a number of bases, found `{text}`")),
    }
}

pub fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::Train(arguments) => train(arguments),
        Command::Info { file, on } => info(file, on),
        Command::Encode { file, bases, text } => encode(file, bases.as_deref(), *text),
        Command::Decode { file, ids } => decode(file, ids),
    }
}

/// Hands out the records of a FASTA file, cut into pieces.
fn pieces_of<R: Read>(
    mut reader: fasta::Reader<R>,
    pieces: Pieces,
    mut each: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut piece = Vec::new();
    while let Some(event) = reader.next_event()? {
        match event {
            fasta::Event::Record(_) => {}
            fasta::Event::Bases(bases) => {
                piece.extend_from_slice(bases);
                let whole = pieces.0.map_or(0, |length| piece.len() / length * length);
                piece[..whole].chunks(pieces.0.unwrap_or(1)).try_for_each(&mut each)?;
                piece.drain(..whole);
            }
            fasta::Event::End { .. } => {
                each(&piece)?;
                piece.clear();
            }
        }
    }
    Ok(())
}

fn usage(tokenizer: &dyn Tokenizer, files: &[PathBuf]) -> Result<Info, Error> {
    let mut usage = Usage::default();
    for file in files {
        pieces_of(fasta::Reader::open(file)?, Pieces(Some(1 << 20)), |piece| {
            let mut bases = piece.to_vec();
            alphabet::normalize(&mut bases);
            let mut ids = Vec::new();
            tokenizer.encode_into(&bases, &mut ids);
            usage.add(tokenizer, &ids);
            Ok(())
        })?;
    }
    Ok(usage.info(tokenizer, 10))
}

fn show_usage(out: &mut impl Write, info: &Info) -> io::Result<()> {
    writeln!(out, "on {} bases, in pieces of at most 1 Mi", info.bases)?;
    writeln!(out, "  tokens           {}", info.tokens)?;
    writeln!(out, "  bases per token  {:.3}", info.bases_per_token.unwrap_or(f64::NAN))?;
    writeln!(out, "  unigram bits per base  {:.4}", info.unigram_bits_per_base.unwrap_or(f64::NAN))?;
    writeln!(out, "  unused tokens    {}", info.unused)?;
    writeln!(out, "most frequent tokens, with occurrences")?;
    info.most_frequent
        .iter()
        .try_for_each(|token| writeln!(out, "  {:>10}  {:>6}  {}", token.count, token.id, token.text))
}

fn info(file: &Path, on: &[PathBuf]) -> Result<(), Error> {
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
    writeln!(out, "longest tokens, in bases")?;
    for token in Usage::default().info(tokenizer.as_ref(), 10).longest {
        writeln!(out, "  {:>4}  {:>6}  {}", token.count, token.id, token.text)?;
    }
    if on.is_empty() { Ok(()) } else { Ok(show_usage(&mut out, &usage(tokenizer.as_ref(), on)?)?) }
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
