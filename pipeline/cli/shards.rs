//! `genomill shards`: look into a shard folder.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::remote::artifact;
use super::{Error, export};
use crate::artifact::Artifact;
use crate::remote::Remote;
use crate::shard::against::{self, Genome};
use crate::shard::find::{self, Query};
use crate::shard::remote::Need;
use crate::shard::{Mixed, Segment, ShardSet, contexts, stats, verify};
use crate::tokenizer::Tokenizer;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the manifest says
    Info {
        /// The shard folder, or its address: `s3://bucket/prefix`, `https://host/prefix`; `#sha256=...` pins it
        folder: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the first rows: tokens, bases and where they came from
    Head {
        /// The shard folder, or its address: `s3://bucket/prefix`, `https://host/prefix`; `#sha256=...` pins it
        folder: PathBuf,
        /// The split
        #[arg(long, default_value = "train")]
        split: String,
        /// How many rows
        #[arg(short = 'n', long, default_value_t = 3)]
        rows: u64,
    },
    /// Read every byte and compare it with the manifest, and the tokens with the genome if one is given
    Verify {
        /// The shard folder, or its address: `s3://bucket/prefix`, `https://host/prefix`; `#sha256=...` pins it
        folder: PathBuf,
        /// A FASTA file that the rows come from; SOURCE=FILE for the rows of one source. May be given several times
        #[arg(long, value_name = "[SOURCE=]FASTA")]
        against: Vec<String>,
    },
    /// Count what the rows of a split hold
    Stats {
        /// The shard folder, or its address: `s3://bucket/prefix`, `https://host/prefix`; `#sha256=...` pins it
        folder: PathBuf,
        /// The split
        #[arg(long, default_value = "train")]
        split: String,
        /// How many of the most frequent tokens to list
        #[arg(short = 'n', long, default_value_t = 10)]
        listed: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say where a row, or one token of it, comes from: record:start-end:strand, 0-based and half-open
    Trace {
        /// The shard folder, or its address: `s3://bucket/prefix`, `https://host/prefix`; `#sha256=...` pins it
        folder: PathBuf,
        /// The row, or the row and a token in it, counted from 0
        #[arg(value_name = "ROW[:TOKEN]")]
        place: String,
        /// The split
        #[arg(long, default_value = "train")]
        split: String,
    },
    /// List the rows of every split that hold bases of a stretch of a record
    Find {
        /// The shard folder, or its address: `s3://bucket/prefix`, `https://host/prefix`; `#sha256=...` pins it
        folder: PathBuf,
        /// The stretch, 0-based and half-open as everywhere here, or a whole record: chr20:1000000-1001000, chr20
        #[arg(value_name = "RECORD[:START-END]")]
        place: Query,
        /// START and END are 1-based and both belong to the stretch, as in samtools and genome browsers
        #[arg(long)]
        one_based: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring a shard folder from its address, compare each file with the manifest, print where it lies
    Fetch {
        /// The address: <s3://bucket/prefix>, <https://host/prefix>; #sha256=... (of manifest.json) pins it
        #[arg(value_name = "ADDRESS")]
        folder: PathBuf,
        /// Only this split; may be given several times
        #[arg(long = "split", value_name = "SPLIT")]
        splits: Vec<String>,
    },
    /// Write the rows as what another trainer reads
    Export(export::Arguments),
}

pub fn run(command: &Command, remote: &Remote) -> Result<(), Error> {
    let all = |folder: &Path| artifact(folder, Need::Everything, remote);
    let set = |folder: &Path, need: Need| set(&artifact(folder, need, remote)?);
    let only = |folder: &Path, split: &String| set(folder, Need::Splits(std::slice::from_ref(split)));
    match command {
        Command::Info { folder, json } => info(&set(folder, Need::Manifest)?, *json),
        Command::Head { folder, split, rows } => head(&only(folder, split)?, split, *rows),
        Command::Verify { folder, against } => check(&all(folder)?, against),
        Command::Stats { folder, split, listed, json } => count(&only(folder, split)?, split, *listed, *json),
        Command::Trace { folder, place, split } => trace(&only(folder, split)?, split, place),
        Command::Find { folder, place, one_based, json } => {
            search(&set(folder, Need::Everything)?, place, *one_based, *json)
        }
        Command::Fetch { folder, splits } => {
            let need = if splits.is_empty() { Need::Everything } else { Need::Splits(splits) };
            Ok(writeln!(io::stdout(), "{}", artifact(folder, need, remote)?.folder.display())?)
        }
        Command::Export(arguments) => export::run(arguments, remote),
    }
}

fn set(artifact: &Artifact) -> Result<ShardSet, Error> {
    Ok(ShardSet::from_artifact(artifact)?)
}

fn info(set: &ShardSet, json: bool) -> Result<(), Error> {
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
    details.mixture.as_ref().map_or(Ok(()), |mixture| mixed(mixture, &mut out))
}

/// What there is of each source, what became of it, and its share of what is written.
fn mixed(mixture: &Mixed, out: &mut impl Write) -> Result<(), Error> {
    writeln!(
        out,
        "{:<12} {:>14} {:>14} {:>14} {:>14} {:>8} {:>8}",
        "source", "tokens", "left out", "repeated", "written", "wanted", "written"
    )?;
    for (name, source) in &mixture.sources {
        writeln!(
            out,
            "{name:<12} {:>14} {:>14} {:>14} {:>14} {:>6.1} % {:>6.1} %",
            source.available.tokens,
            source.left_out.tokens,
            source.repeated.tokens,
            source.written.tokens,
            source.share_wanted * 100.0,
            source.share_written * 100.0
        )?;
    }
    mixture.shortfalls().iter().try_for_each(|sentence| writeln!(out, "{sentence}"))?;
    Ok(())
}

fn head(set: &ShardSet, split: &str, count: u64) -> Result<(), Error> {
    let rows = set.rows(split)?;
    let tokenizer = set.tokenizer()?;
    let mut out = io::stdout().lock();
    for row in 0..count.min(rows.len()) {
        writeln!(out, "row {row}")?;
        writeln!(out, "  tokens {}", spelled(tokenizer.as_ref(), &rows.get(row).to_vec()))?;
        for segment in set.provenance(split, row)? {
            writeln!(out, "  {}", described(&segment))?;
        }
    }
    Ok(())
}

/// A segment as `0-17  chr1:0-1000:+  (genome)`.
fn described(s: &Segment) -> String {
    format!(
        "{}-{}  {}:{}-{}:{}  ({})",
        s.token_start, s.token_end, s.record, s.start, s.end, s.strand, s.source
    )
}

fn spelled(tokenizer: &dyn Tokenizer, tokens: &[u32]) -> String {
    let text = |id: &u32| format!("{id}:{}", tokenizer.text(*id).unwrap_or("?"));
    tokens.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn check(artifact: &Artifact, against: &[String]) -> Result<(), Error> {
    let (checked, faults) = verify::inspect(artifact)?;
    let mut out = io::stdout().lock();
    faults.iter().try_for_each(|fault| writeln!(out, "{fault}"))?;
    if !faults.is_empty() {
        let word = if faults.len() == 1 { "fault" } else { "faults" };
        return Err(Error::Other(format!("`{}` has {} {word}", artifact.folder.display(), faults.len())));
    }
    writeln!(
        out,
        "{} files, {} rows, {} tokens, {} bases: all as the manifest says",
        checked.files, checked.rows, checked.tokens, checked.bases
    )?;
    if against.is_empty() {
        return Ok(());
    }
    contexts::all(artifact)?.iter().try_for_each(|set| compare(set, against, &mut out))
}

fn compare(artifact: &Artifact, against: &[String], out: &mut impl Write) -> Result<(), Error> {
    let open = |text: &String| match text.split_once('=') {
        Some((source, file)) => Genome::open(Path::new(file), Some(source.to_owned())),
        None => Genome::open(Path::new(text), None),
    };
    let genomes = against.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let compared = against::compare(&ShardSet::from_artifact(artifact)?, &genomes)?;
    writeln!(out, "{} bases in {} rows: all as in the genome", compared.bases, compared.rows)?;
    for (source, bases) in &compared.left_out {
        writeln!(
            out,
            "{bases} bases of source `{source}` were not compared: no FASTA file has their records"
        )?;
    }
    Ok(())
}

fn count(set: &ShardSet, split: &str, listed: usize, json: bool) -> Result<(), Error> {
    let stats = stats::stats(set, split, listed)?;
    let mut out = io::stdout().lock();
    if json {
        let text = serde_json::to_string_pretty(&stats).map_err(io::Error::other)?;
        return Ok(writeln!(out, "{text}")?);
    }
    let per_token = stats.usage.bases_per_token.unwrap_or(0.0);
    writeln!(out, "rows      {:>14}", stats.rows)?;
    writeln!(out, "tokens    {:>14}  {per_token:.3} bases each", stats.tokens)?;
    writeln!(out, "padding   {:>14}  {:.2} % of the slots", stats.padding, stats.padding_share * 100.0)?;
    writeln!(out, "segments  {:>14}", stats.segments)?;
    let unused = stats.usage.unused;
    writeln!(out, "unused    {unused:>14}  of {} ids", stats.usage.vocabulary_size)?;
    if let Some(weight) = stats.mean_weight {
        writeln!(out, "weight    {weight:>14.4}  on average")?;
    }
    for (text, tokens) in &stats.special {
        writeln!(out, "{text:<9} {tokens:>14}")?;
    }
    for (source, bases) in &stats.sources {
        writeln!(out, "{bases:>14} bases of source {source}")?;
    }
    for token in &stats.usage.most_frequent {
        writeln!(out, "{:>14} times {}:{}", token.count, token.id, token.text)?;
    }
    Ok(())
}

fn trace(set: &ShardSet, split: &str, place: &str) -> Result<(), Error> {
    let wrong = || Error::Other(format!("expected ROW or ROW:TOKEN, two numbers from 0, found `{place}`"));
    let (row, token) = match place.split_once(':') {
        Some((row, token)) => (row, Some(token.parse::<u32>().map_err(|_| wrong())?)),
        None => (place, None),
    };
    let row: u64 = row.parse().map_err(|_| wrong())?;
    let segments = set.provenance(split, row)?;
    let mut out = io::stdout().lock();
    let Some(token) = token else {
        return Ok(segments.iter().try_for_each(|segment| writeln!(out, "{}", described(segment)))?);
    };
    let tokens = set.rows(split)?.get(row).to_vec();
    let Some(&id) = tokens.get(token as usize) else {
        let context = tokens.len();
        return Err(Error::Other(format!("row {row} has tokens 0 to {}, found {token}", context - 1)));
    };
    let tokenizer = set.tokenizer()?;
    let text = tokenizer.text(id).unwrap_or("?");
    let Some(segment) = segments.iter().find(|s| (s.token_start..s.token_end).contains(&token)) else {
        return Ok(writeln!(out, "{id}:{text} stands for no base")?);
    };
    let places = segment.places(tokenizer.as_ref(), &tokens);
    let place = places[(token - segment.token_start) as usize];
    Ok(writeln!(out, "{id}:{text}  {}:{place}:{}  ({})", segment.record, segment.strand, segment.source)?)
}

fn search(set: &ShardSet, query: &Query, one_based: bool, json: bool) -> Result<(), Error> {
    let query = if one_based { query.clone().from_one_based().map_err(Error::Other)? } else { query.clone() };
    let hits = find::find(set, &query)?;
    let mut out = io::stdout().lock();
    if json {
        let text = serde_json::to_string_pretty(&hits).map_err(io::Error::other)?;
        return Ok(writeln!(out, "{text}")?);
    }
    for h in &hits {
        writeln!(
            out,
            "{} row {}  tokens {}-{}  {}:{}-{}:{}  ({})",
            h.split, h.row, h.token_start, h.token_end, h.record, h.start, h.end, h.strand, h.source
        )?;
    }
    if hits.is_empty() {
        writeln!(out, "no row of any split holds a base of it")?;
    }
    Ok(())
}
