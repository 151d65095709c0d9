//! `genomill score`: the log-likelihood of every base of FASTA records. Memory: one record.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Error, run, say};
use crate::evaluate::per_base::{self, Scorer};
use crate::model::device;
use crate::model::workers::Workers;
use crate::sequence::alphabet;
use crate::source::fasta;
use crate::train::checkpoint;

#[derive(Debug, Args)]
pub struct Arguments {
    /// A checkpoint, or a folder with some: the newest is taken
    checkpoint: PathBuf,
    /// The sequences, plain or compressed; `-` is standard input
    fasta: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Tsv)]
    format: Format,
    /// The strands to read
    #[arg(long, value_enum, default_value_t = Strands::Both)]
    strand: Strands,
    /// Windows that a thread computes at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Worker threads; by default one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    jobs: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// record, position (from 0), base, and ln p on each strand; `.` where nothing is said
    Tsv,
    /// record, start, end, ln p (the mean of the strands); places of which nothing is said are left out
    Bedgraph,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strands {
    /// Both
    Both,
    /// As in the file
    Forward,
    /// The reverse complement
    Reverse,
}

/// `ln p` of each base, in the order of the file.
type Likelihoods = Vec<Option<f64>>;

/// A record and what the model says of it on the strands that were read.
struct Scored {
    name: String,
    bases: Vec<u8>,
    strands: Vec<Likelihoods>,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let other = |error: checkpoint::Error| Error::Other(error.to_string());
    let folder = checkpoint::find(&arguments.checkpoint).map_err(other)?;
    let device = device::open().map_err(|error| Error::Other(error.to_string()))?;
    let (state, model) = checkpoint::network(&folder, device).map_err(other)?;
    if state.config.model.is_masked() {
        let text =
            "a masked model guesses hidden tokens from both sides: it does not say how likely a sequence is";
        return Err(Error::Other(text.to_owned()));
    }
    let tokenizer = checkpoint::tokenizer(&folder, &state).map_err(other)?;
    let workers = Workers::for_device(device, run::threads(arguments.jobs));
    let workers = workers.map_err(|error| Error::Other(error.to_string()))?;
    let scorer = Scorer {
        model: &model,
        context: state.window(),
        tokenizer: tokenizer.as_ref(),
        begin: state.vocabulary.begin,
        batch_rows: arguments.rows as usize,
        workers: &workers,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    header(&mut out, arguments)?;
    let mut reader = fasta::Reader::open(&arguments.fasta)?;
    let (mut name, mut bases) = (String::new(), Vec::new());
    while let Some(event) = reader.next_event()? {
        match event {
            fasta::Event::Record(header) => name.clone_from(&header.name),
            fasta::Event::Bases(block) => bases.extend_from_slice(block),
            fasta::Event::End { .. } => {
                let scored = score(&scorer, arguments.strand, &name, std::mem::take(&mut bases))?;
                write(&mut out, arguments.format, &scored)?;
                tell(&scored);
            }
        }
    }
    Ok(out.flush()?)
}

fn score(scorer: &Scorer<'_>, strands: Strands, name: &str, mut bases: Vec<u8>) -> Result<Scored, Error> {
    alphabet::normalize(&mut bases);
    let forward = (strands != Strands::Reverse).then(|| scorer.forward(name, &bases));
    let reverse = (strands != Strands::Forward).then(|| scorer.reverse(name, &bases));
    let strands = forward.into_iter().chain(reverse).collect::<Result<Vec<_>, per_base::Error>>();
    let strands = strands.map_err(|error| Error::Other(error.to_string()))?;
    Ok(Scored { name: name.to_owned(), bases, strands })
}

fn header(out: &mut impl Write, arguments: &Arguments) -> io::Result<()> {
    let strands = match arguments.strand {
        Strands::Both => "forward\treverse",
        Strands::Forward => "forward",
        Strands::Reverse => "reverse",
    };
    match arguments.format {
        Format::Tsv => writeln!(out, "record\tposition\tbase\t{strands}"),
        Format::Bedgraph => {
            writeln!(out, "track type=bedGraph name=\"ln p\" description=\"ln p of each base\"")
        }
    }
}

fn write(out: &mut impl Write, format: Format, scored: &Scored) -> io::Result<()> {
    match format {
        Format::Tsv => table(out, scored),
        Format::Bedgraph => bedgraph(out, scored),
    }
}

fn table(out: &mut impl Write, Scored { name, bases, strands }: &Scored) -> io::Result<()> {
    for (position, base) in bases.iter().enumerate() {
        write!(out, "{name}\t{position}\t{}", char::from(*base))?;
        for strand in strands {
            match strand[position] {
                Some(likelihood) => write!(out, "\t{likelihood:.5}")?,
                None => write!(out, "\t.")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// One line for neighbours of one value.
fn bedgraph(out: &mut impl Write, Scored { name, bases, strands }: &Scored) -> io::Result<()> {
    let at = |position: usize| mean(strands.iter().filter_map(|strand| strand[position]));
    let values = (0..bases.len()).map(at).collect::<Vec<_>>();
    let mut start = 0;
    for same in values.chunk_by(|a, b| a == b) {
        let end = start + same.len();
        if let Some(value) = same[0] {
            writeln!(out, "{name}\t{start}\t{end}\t{value:.5}")?;
        }
        start = end;
    }
    Ok(())
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// What the record takes, on stderr.
fn tell(Scored { name, bases, strands }: &Scored) {
    let all = strands.iter().flatten().copied().flatten();
    let count = all.clone().count();
    let bits = -all.sum::<f64>() / std::f64::consts::LN_2 / count.max(1) as f64;
    let (length, strands) = (bases.len(), strands.len());
    say(&format!(
        "{name}: {length} bases, strands read: {strands}, {bits:.4} bits per base of {count} scored"
    ));
}
