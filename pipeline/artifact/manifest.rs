//! What an artifact says about itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The contents of `manifest.json`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Version of this layout.
    pub schema: String,
    /// The tool that wrote it, with its version.
    pub tool: String,
    /// Name of the stage in its workflow.
    pub stage: String,
    /// What kind of stage it is: `ingest`, `shard`, ...
    pub kind: String,
    /// Version of the stage's algorithm: a change of it changes the output.
    pub algorithm: u32,
    /// blake3 of kind, algorithm, resolved configuration and input contents: equal keys mean equal artifacts.
    pub action_key: String,
    /// blake3 over the names and hashes of the files that are not volatile, and over what they refer to.
    pub content: String,
    /// The configuration with every default filled in.
    pub config: Value,
    /// Artifacts that it was made from.
    pub inputs: Vec<Input>,
    /// Files from outside the work folder that it was made from.
    pub sources: Vec<SourceFile>,
    /// Artifacts without which this one has no meaning: intervals refer to the sequence that they lie on.
    pub references: Vec<Input>,
    /// Bases in, bases out and what was dropped.
    pub counts: Counts,
    /// Every file of the folder but this one.
    pub files: Vec<FileEntry>,
    /// What only this kind of stage has to say.
    pub details: Value,
}

/// An artifact that another one was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// What it serves as: `from`, `tokenizer`, ...
    pub role: String,
    /// Name of the stage that made it.
    pub stage: String,
    /// Its [`Manifest::content`].
    pub content: String,
}

/// A file from outside the work folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceFile {
    /// As the workflow writes it: a path or an address.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Hash of its content.
    pub blake3: String,
    /// The hash that the workflow pins an address to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A file of the artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileEntry {
    /// Relative to the folder, with `/`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Hash of its content.
    pub blake3: String,
    /// Holds wall times or the like, so that two equal runs differ in it; no part of [`Manifest::content`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub volatile: bool,
}

/// The account of a stage: `bases_in == bases_out + sum of dropped`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Bases read.
    pub bases_in: u64,
    /// Bases that went on.
    pub bases_out: u64,
    /// Bases that did not, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Records, windows, tokens, rows ... by name.
    #[serde(default)]
    pub other: BTreeMap<String, u64>,
}

impl Counts {
    /// Bases dropped for any reason.
    pub fn dropped_bases(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Adds `bases` to those dropped for `reason`; a reason with no bases is not listed.
    pub fn drop_bases(&mut self, reason: &str, bases: u64) {
        if bases > 0 {
            *self.dropped.entry(reason.to_owned()).or_default() += bases;
        }
    }

    /// Records a count that is not an account of bases.
    pub fn set(&mut self, name: &str, count: u64) {
        self.other.insert(name.to_owned(), count);
    }

    /// Adds another account.
    pub fn add(&mut self, other: &Self) {
        self.bases_in += other.bases_in;
        self.bases_out += other.bases_out;
        other.dropped.iter().for_each(|(reason, &bases)| self.drop_bases(reason, bases));
        for (name, count) in &other.other {
            *self.other.entry(name.clone()).or_default() += count;
        }
    }

    /// Whether nothing was lost in silence.
    pub fn balances(&self) -> bool {
        self.bases_in == self.bases_out + self.dropped_bases()
    }
}
