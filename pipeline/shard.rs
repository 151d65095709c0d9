//! The shard set: rows of tokens in Parquet files that a memory map serves without decoding.
//!
//! A folder holds, per split, files `train-00000.parquet`, ...; the column `tokens` is one uncompressed PLAIN page per row
//! group, 64-byte aligned, so that a row is a slice of the file. `schemas/shard.md` is the contract. Memory: the
//! writer holds a few row groups (8 MiB of tokens each), the reader the manifest; tokens stay in the map.

pub mod against;
mod archive;
pub mod contexts;
mod encode;
pub mod export;
pub mod find;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod golden;
mod mixed;
mod output;
mod provenance;
pub mod reader;
pub mod remote;
pub mod stats;
pub mod verify;
pub mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use mixed::{Mixed, MixedSource, WindowCount};
pub use reader::{Rows, ShardSet, Tokens};
pub use writer::{Layout, Row, SplitWriter};

use crate::units::Strand;
use crate::{artifact, fs};

/// The schema that this version writes into [`Details::schema`].
pub const SCHEMA: &str = "genomill/shard/1";

/// The kinds of artifacts that hold shards: packed here, or taken over from an address.
pub const KINDS: [&str; 2] = ["shard", "fetch"];

/// Alignment of every token page, in bytes.
pub const ALIGNMENT: u64 = 64;

/// What the manifest of a shard set says of it (`details` of the artifact's manifest).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Details {
    /// Version of the layout.
    pub schema: String,
    /// `mapped`: rows are slices of the file; `archive`: the same rows, compressed.
    pub profile: String,
    /// Tokens per row.
    pub context: usize,
    /// Bytes per token, little-endian: 2, or 4 for vocabularies above 65,536.
    pub token_bytes: usize,
    /// Every token is below this.
    pub vocabulary_size: u32,
    /// Ids of special tokens by text.
    pub special: BTreeMap<String, u32>,
    /// The tokenizer's file in the folder.
    pub tokenizer: String,
    /// blake3 of the tokenizer's canonical JSON.
    pub tokenizer_fingerprint: String,
    /// How windows became rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packing: Option<Packing>,
    /// What the column `weights` says; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_weights: Option<LossWeights>,
    /// The proportions of the sources in the split `train`; absent where windows are written as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixture: Option<Mixed>,
    /// The splits by name.
    pub splits: BTreeMap<String, Split>,
}

/// [`Details::profile`] of sets whose rows are slices of their files.
pub const MAPPED: &str = "mapped";

/// [`Details::profile`] of sets whose tokens are compressed.
pub const ARCHIVE: &str = "archive";

impl Details {
    /// Bytes of a row's tokens.
    pub fn row_bytes(&self) -> usize {
        self.context * self.token_bytes
    }
}

/// How windows became rows: the mode, and the ids of special tokens around every window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packing {
    /// `none`, `concat` or `best_fit`.
    pub pack: String,
    /// Before each window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<u32>,
    /// After each window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u32>,
    /// After `end`, between windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<u32>,
    /// The token that fills rows.
    pub padding: u32,
}

/// What the column `weights` holds: a byte per token, whose weight is the byte divided by `one`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LossWeights {
    /// The byte of a token that counts in full; always [`LossWeights::ONE`] today.
    pub one: u8,
    /// The byte of a token whose bases are all soft-masked.
    pub soft_masked: u8,
}

impl LossWeights {
    /// The byte that stands for weight 1. A tenth of it is a whole number, so that 0.1 is exact.
    pub const ONE: u8 = 250;
}

/// One split of a shard set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Split {
    /// Rows of all files.
    pub rows: u64,
    /// Tokens that are no padding.
    pub tokens: u64,
    /// Bases that the tokens stand for.
    pub bases: u64,
    /// Padding tokens.
    pub padding: u64,
    /// The files, in order.
    pub files: Vec<ShardFile>,
}

/// One file of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardFile {
    /// Relative to the folder.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Hash of its content.
    pub blake3: String,
    /// Its token pages, in order; none in an archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<Page>,
    /// The blake3 of the tokens of each page, so that damage can be placed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub page_blake3: Vec<String>,
}

/// The tokens of one row group: `rows x context` tokens, row after row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page {
    /// Where the first token lies in the file, in bytes; a multiple of 64.
    pub offset: u64,
    /// Rows in it.
    pub rows: u64,
    /// Where the first weight lies, in bytes; a multiple of 64. A row has `context` weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_offset: Option<u64>,
}

/// Where a run of a row's tokens came from. Tokens outside of every segment are special tokens or padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// First token, within the row.
    pub token_start: u32,
    /// One past the last token.
    pub token_end: u32,
    /// Name of the record.
    #[serde(serialize_with = "as_text")]
    pub record: Arc<str>,
    /// Name of the record's source.
    #[serde(serialize_with = "as_text")]
    pub source: Arc<str>,
    /// First base, on the forward strand.
    pub start: u64,
    /// One past the last base.
    pub end: u64,
    /// The strand that the tokens spell.
    pub strand: Strand,
}

fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Why shards could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file call failed.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// The folder is no artifact, or its files differ from its manifest.
    #[error(transparent)]
    Artifact(#[from] artifact::Error),
    /// An object cannot be brought here.
    #[error(transparent)]
    Remote(#[from] crate::remote::Error),
    /// What an address has is at fault.
    #[error("cannot use `{address}`")]
    At {
        /// Where it is.
        address: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The folder holds another kind of artifact, or another version.
    #[error("`{}` holds no shards that this genomill reads: {reason}", path.display())]
    NotShards {
        /// The folder.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// A row that is not there.
    #[error("split `{split}` of `{}` has no row {row}, it has {rows}", path.display())]
    UnknownRow {
        /// The folder.
        path: PathBuf,
        /// The split.
        split: String,
        /// The row asked for.
        row: u64,
        /// How many there are.
        rows: u64,
    },
    /// A record that no row comes from.
    #[error("no row of `{}` comes from a record called `{record}`; there are {total}: {known}", path.display())]
    UnknownRecord {
        /// The folder.
        path: PathBuf,
        /// The name asked for.
        record: String,
        /// Some of those that there are.
        known: String,
        /// How many there are.
        total: usize,
    },
    /// The tokenizer beside the shards is at fault.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::Error),
    /// A FASTA file to compare with is at fault.
    #[error(transparent)]
    Fasta(#[from] crate::source::fasta::Error),
    /// A split that is not there.
    #[error("`{}` has no split `{found}`, it has {available}", path.display())]
    UnknownSplit {
        /// The folder.
        path: PathBuf,
        /// The name given.
        found: String,
        /// What there is.
        available: String,
    },
    /// A file is not what its manifest says.
    #[error("shard `{}` is damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What was found and what was expected.
        reason: String,
    },
    /// Parquet's own words.
    #[error("cannot {action} shard `{}`: {source}", path.display())]
    Parquet {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: parquet::errors::ParquetError,
    },
}
