//! Shard sets as the files that other trainers read with their own readers.
//!
//! Formats of rows (`hf`, `mds`, `npy`) keep every row as it is, padding included. Formats of documents (`megatron`,
//! `olmo-core`) hold the tokens of the rows one after the other, without padding, and say where documents end. The folder is
//! built in a staging folder beside its place and renamed when it is whole; `manifest.json` in it says what it was
//! made from. Splits without rows are left out. Memory: a few MiB and, for formats of documents, the provenance of one shard
//! file; for `mds` one of its shards (64 MiB).

mod document;
mod hf;
mod mds;
mod megatron;
mod npy;
mod olmo_core;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Rows, ShardSet, Split, Tokens};
use crate::artifact::{self, Artifact, Counts, Hashes, Input, Manifest, Staging, staging};
use crate::fs;

/// Version of what is written; part of the action key.
const ALGORITHM: u32 = 1;

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `SPLIT.bin` and `SPLIT.idx`: what Megatron-core's `IndexedDataset` reads, one sequence per document.
    Megatron,
    /// `SPLIT-00000.npy` (tokens without a header) and `.csv.gz` (documents): what the datasets of OLMo-core read.
    OlmoCore,
    /// `SPLIT/index.json` and shards with the column `tokens`: what mosaicml-streaming reads.
    Mds {
        /// Whether the shards are compressed with zstd.
        zstd: bool,
    },
    /// `data/SPLIT-00000-of-00001.parquet` with the column `input_ids`: what Hugging Face datasets reads.
    Hf,
    /// `SPLIT.npy`, an array of shape (rows, context).
    Npy,
}

impl Format {
    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Megatron => "megatron",
            Self::OlmoCore => "olmo-core",
            Self::Mds { .. } => "mds",
            Self::Hf => "hf",
            Self::Npy => "npy",
        }
    }

    /// Whether padding is left out.
    fn drops_padding(self) -> bool {
        matches!(self, Self::Megatron | Self::OlmoCore)
    }

    fn config(self) -> Value {
        match self {
            Self::Mds { zstd } => json!({"to": self.name(), "zstd": zstd}),
            _ => json!({"to": self.name()}),
        }
    }

    fn write(self, source: &Source, folder: &Path) -> Result<Written, Error> {
        match self {
            Self::Megatron => megatron::write(source, folder),
            Self::OlmoCore => olmo_core::write(source, folder),
            Self::Mds { zstd } => mds::write(source, folder, zstd),
            Self::Hf => hf::write(source, folder),
            Self::Npy => npy::write(source, folder),
        }
    }
}

/// What was written of a split.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Rows read.
    pub rows: u64,
    /// Tokens written.
    pub tokens: u64,
    /// Padding left out.
    pub padding_dropped: u64,
    /// Documents, in formats that tell them apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
}

/// What was exported.
#[derive(Debug)]
pub struct Exported {
    /// The new folder.
    pub artifact: Artifact,
    /// What was written, by split.
    pub splits: BTreeMap<String, Written>,
    /// Splits that have no rows.
    pub empty: Vec<String>,
}

/// Why shards could not be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file call failed.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// The source is no artifact, or its files differ from its manifest.
    #[error(transparent)]
    Artifact(#[from] artifact::Error),
    /// The source is no shard set, or is damaged.
    #[error(transparent)]
    Shard(#[from] super::Error),
    /// The place of the export is taken.
    #[error("cannot export to `{}`: it exists already; remove it or name another folder", .0.display())]
    Exists(PathBuf),
    /// The place of the export has no name of its own, such as `..`.
    #[error("cannot export to `{}`: expected the name of a new folder", .0.display())]
    NoName(PathBuf),
    /// The format cannot hold these shards.
    #[error("{format} cannot hold the split `{split}`: {reason}")]
    Unfit {
        /// The format.
        format: &'static str,
        /// The split.
        split: String,
        /// What was found and what is allowed.
        reason: String,
    },
    /// What was written is not what the manifest promises.
    #[error("split `{split}` does not add up: {what} is {found}, its manifest says {expected}")]
    Count {
        /// The split.
        split: String,
        /// What was counted.
        what: &'static str,
        /// As counted.
        found: u64,
        /// As promised.
        expected: u64,
    },
}

/// A split to be exported.
struct Source<'a> {
    set: &'a ShardSet,
    name: &'a str,
    split: &'a Split,
    rows: Rows,
}

impl Source<'_> {
    fn context(&self) -> usize {
        self.set.details.context
    }

    fn token_bytes(&self) -> usize {
        self.set.details.token_bytes
    }

    fn row_bytes(&self) -> usize {
        self.context() * self.token_bytes()
    }

    /// The name of the tokens' type in numpy.
    fn type_name(&self) -> &'static str {
        if self.token_bytes() == 4 { "uint32" } else { "uint16" }
    }

    /// What a format that keeps rows as they are has written.
    fn rows_kept(&self) -> Written {
        let rows = self.rows.len();
        Written { rows, tokens: rows * self.context() as u64, ..Written::default() }
    }

    fn unfit(&self, format: &'static str, reason: String) -> Error {
        Error::Unfit { format, split: self.name.to_owned(), reason }
    }

    /// Compares what was written with the manifest.
    fn check(&self, written: &Written, format: Format) -> Result<(), Error> {
        let split = self.split;
        let tokens = split.tokens + if format.drops_padding() { 0 } else { split.padding };
        let padding = if format.drops_padding() { split.padding } else { 0 };
        let counted = [
            ("number of rows", written.rows, split.rows),
            ("number of tokens", written.tokens, tokens),
            ("number of padding tokens left out", written.padding_dropped, padding),
        ];
        let wrong = counted.into_iter().find(|(_, found, expected)| found != expected);
        wrong.map_or(Ok(()), |(what, found, expected)| {
            Err(Error::Count { split: self.name.to_owned(), what, found, expected })
        })
    }
}

/// Appends tokens, little-endian and as wide as they are.
fn append(tokens: Tokens<'_>, bytes: &mut Vec<u8>) {
    match tokens {
        Tokens::U16(ids) => bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes())),
        Tokens::U32(ids) => bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes())),
    }
}

/// Writes every split of a shard set in another format, after checking each byte of the set.
/// `out` must not exist; it is there whole or not at all.
pub fn export(artifact: &Artifact, format: Format, out: &Path) -> Result<Exported, Error> {
    let set = ShardSet::from_artifact(artifact)?;
    let (parent, name) = place(out)?;
    artifact.verify(&Hashes::default())?;
    fs::create_dir_all(&parent)?;
    let staging = Staging::begin(&parent, &name)?;
    let exported = match write(&set, format, staging.folder()) {
        Ok((splits, empty)) => {
            let manifest = manifest(artifact, &set, format, &name, &splits);
            let artifact = staging.publish(manifest, &[], &Hashes::default())?;
            Ok(Exported { artifact, splits, empty })
        }
        Err(error) => {
            staging.abandon()?;
            Err(error)
        }
    };
    // Only if nobody else builds there.
    drop(std::fs::remove_dir(parent.join(staging::STAGING)));
    exported
}

/// The folder in which `out` is to be, and its name there.
fn place(out: &Path) -> Result<(PathBuf, String), Error> {
    if out.symlink_metadata().is_ok() {
        return Err(Error::Exists(out.to_owned()));
    }
    let whole = std::path::absolute(out).map_err(fs::error("find", out))?;
    match (whole.parent(), whole.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) => Ok((parent.to_owned(), name.to_owned())),
        _ => Err(Error::NoName(out.to_owned())),
    }
}

type Splits = (BTreeMap<String, Written>, Vec<String>);

fn write(set: &ShardSet, format: Format, folder: &Path) -> Result<Splits, Error> {
    let tokenizer = set.folder.join(&set.details.tokenizer);
    std::fs::copy(&tokenizer, folder.join("tokenizer.json")).map_err(fs::error("copy", &tokenizer))?;
    let (mut splits, mut empty) = (BTreeMap::new(), Vec::new());
    for (name, split) in &set.details.splits {
        let source = Source { set, name, split, rows: set.rows(name)? };
        if source.rows.is_empty() {
            empty.push(name.clone());
            continue;
        }
        let written = format.write(&source, folder)?;
        source.check(&written, format)?;
        splits.insert(name.clone(), written);
    }
    if format == Format::Hf {
        hf::card(folder, splits.keys())?;
    }
    Ok((splits, empty))
}

/// What the export says of itself, and of where it came from.
fn manifest(
    from: &Artifact,
    set: &ShardSet,
    format: Format,
    name: &str,
    splits: &BTreeMap<String, Written>,
) -> Manifest {
    let mut counts = Counts::default();
    counts.set("rows", splits.values().map(|split| split.rows).sum());
    counts.set("tokens", splits.values().map(|split| split.tokens).sum());
    counts.set("padding tokens dropped", splits.values().map(|split| split.padding_dropped).sum());
    let (source, config) = (&from.manifest, format.config());
    let key = json!(["export", ALGORITHM, &config, &source.content]).to_string();
    let details = &set.details;
    Manifest {
        schema: artifact::SCHEMA.to_owned(),
        tool: crate::TOOL.to_owned(),
        stage: name.to_owned(),
        kind: "export".to_owned(),
        algorithm: ALGORITHM,
        action_key: blake3::hash(key.as_bytes()).to_hex().to_string(),
        content: String::new(),
        config,
        inputs: vec![Input {
            role: "from".to_owned(),
            stage: source.stage.clone(),
            content: source.content.clone(),
        }],
        sources: vec![],
        references: vec![],
        counts,
        files: vec![],
        details: json!({
            "from_schema": details.schema,
            "context": details.context,
            "token_bytes": details.token_bytes,
            "vocabulary_size": details.vocabulary_size,
            "special": details.special,
            "tokenizer": "tokenizer.json",
            "tokenizer_fingerprint": details.tokenizer_fingerprint,
            "padding": if format.drops_padding() { "dropped" } else { "kept" },
            "splits": splits,
        }),
    }
}

#[cfg(test)]
mod tests;
