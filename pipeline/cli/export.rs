//! `genomill shards export`: a shard set as what another trainer reads.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::remote::artifact;
use super::{Error, say};
use crate::remote::Remote;
use crate::shard::export::{Exported, Format, export};
use crate::shard::remote::Need;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The shard folder, or its address
    folder: PathBuf,
    /// For which trainer
    #[arg(long, value_enum)]
    to: To,
    /// The new folder; it must not exist
    #[arg(short, long)]
    output: PathBuf,
    /// Compress the shards with zstd (mds only)
    #[arg(long)]
    zstd: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// SPLIT.bin and SPLIT.idx for Megatron's `IndexedDataset`; documents, without padding
    Megatron,
    /// Flat tokens and .csv.gz with the documents for OLMo-core; without padding
    OlmoCore,
    /// Folders of MDS shards for mosaicml-streaming; rows as they are
    Mds,
    /// Parquet with `input_ids` for Hugging Face datasets; rows as they are
    Hf,
    /// SPLIT.npy of shape (rows, context) for numpy; rows as they are
    Npy,
}

pub fn run(arguments: &Arguments, remote: &Remote) -> Result<(), Error> {
    if arguments.zstd && arguments.to != To::Mds {
        return Err(Error::Other("--zstd goes with --to mds only".to_owned()));
    }
    let format = match arguments.to {
        To::Megatron => Format::Megatron,
        To::OlmoCore => Format::OlmoCore,
        To::Mds => Format::Mds { zstd: arguments.zstd },
        To::Hf => Format::Hf,
        To::Npy => Format::Npy,
    };
    let artifact = artifact(&arguments.folder, Need::Everything, remote)?;
    tell(&export(&artifact, format, &arguments.output)?)
}

fn tell(exported: &Exported) -> Result<(), Error> {
    for split in &exported.empty {
        say(&format!("split `{split}` has no rows and is left out"));
    }
    let mut out = io::stdout().lock();
    for (name, split) in &exported.splits {
        let documents = split.documents.map_or_else(String::new, |count| format!(" in {count} documents"));
        let padding = split.padding_dropped;
        let (rows, tokens) = (split.rows, split.tokens);
        writeln!(out, "{name}: {rows} rows, {tokens} tokens{documents}, {padding} padding tokens left out")?;
    }
    let bytes: u64 = exported.artifact.manifest.files.iter().map(|file| file.bytes).sum();
    Ok(writeln!(out, "{bytes} bytes in {}", exported.artifact.folder.display())?)
}
