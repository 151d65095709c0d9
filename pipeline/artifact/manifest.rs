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

/// The account of a stage: `bases_in == bases_out + sum of dropped`, for all of it and for every part of it.
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
    /// The same account source by source, from the stages that know the sources.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_source: BTreeMap<String, Account>,
    /// The same account split by split, from the stages behind the split.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_split: BTreeMap<String, Account>,
}

/// The part of an account that is of one source or one split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    /// Bases read.
    pub bases_in: u64,
    /// Bases that went on.
    pub bases_out: u64,
    /// Bases that did not, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, u64>,
}

impl Account {
    /// Adds `bases` that went on.
    pub fn keep(&mut self, bases: u64) {
        self.bases_in += bases;
        self.bases_out += bases;
    }

    /// Adds `bases` that were dropped for `reason`; a reason with no bases is not listed.
    pub fn drop_bases(&mut self, reason: &str, bases: u64) {
        self.bases_in += bases;
        add_dropped(&mut self.dropped, reason, bases);
    }

    /// Adds another account.
    pub fn add(&mut self, other: &Self) {
        self.bases_in += other.bases_in;
        self.bases_out += other.bases_out;
        other.dropped.iter().for_each(|(reason, &bases)| add_dropped(&mut self.dropped, reason, bases));
    }

    /// Whether nothing was lost in silence.
    pub fn balances(&self) -> bool {
        self.bases_in == self.bases_out + self.dropped.values().sum::<u64>()
    }
}

fn add_dropped(dropped: &mut BTreeMap<String, u64>, reason: &str, bases: u64) {
    if bases == 0 {
        return;
    }
    match dropped.get_mut(reason) {
        Some(sum) => *sum += bases,
        None => drop(dropped.insert(reason.to_owned(), bases)),
    }
}

impl Counts {
    /// Bases dropped for any reason.
    pub fn dropped_bases(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Adds `bases` to those dropped for `reason`; a reason with no bases is not listed.
    pub fn drop_bases(&mut self, reason: &str, bases: u64) {
        add_dropped(&mut self.dropped, reason, bases);
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
        other.by_source.iter().for_each(|(name, account)| self.source(name).add(account));
        other.by_split.iter().for_each(|(name, account)| self.split(name).add(account));
    }

    /// The account of a source.
    pub fn source(&mut self, name: &str) -> &mut Account {
        self.by_source.entry(name.to_owned()).or_default()
    }

    /// The account of a split.
    pub fn split(&mut self, name: &str) -> &mut Account {
        self.by_split.entry(name.to_owned()).or_default()
    }

    /// Whether nothing was lost in silence: as a whole, in each source and split, and between these and the whole.
    pub fn balances(&self) -> bool {
        let whole = self.whole();
        let adds_up = |parts: &BTreeMap<String, Account>| {
            let mut sum = Account::default();
            for part in parts.values() {
                sum.add(part);
            }
            parts.is_empty() || (sum == whole && parts.values().all(Account::balances))
        };
        whole.balances() && adds_up(&self.by_source) && adds_up(&self.by_split)
    }

    fn whole(&self) -> Account {
        Account { bases_in: self.bases_in, bases_out: self.bases_out, dropped: self.dropped.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Counts);

    #[test]
    fn an_account_balances_as_a_whole_and_in_its_parts() {
        let whole = || {
            let mut counts = Counts { bases_in: 10, bases_out: 7, ..Counts::default() };
            counts.drop_bases("short", 3);
            counts
        };
        let mut parts = whole();
        parts.source("a").keep(7);
        parts.source("b").drop_bases("short", 3);
        let cases: [(&str, bool, Change); 6] = [
            ("parts", true, |_| ()),
            ("a base too many", false, |counts| counts.bases_in += 1),
            ("a base too many in a part", false, |counts| counts.source("a").bases_in += 1),
            ("a part less", false, |counts| drop(counts.by_source.remove("b"))),
            ("another reason", false, |counts| {
                counts.by_source.remove("b");
                counts.source("b").drop_bases("long", 3);
            }),
            ("splits that are not all", false, |counts| counts.split("train").keep(7)),
        ];
        assert!(whole().balances());
        for (name, expected, change) in cases {
            let mut counts = parts.clone();
            change(&mut counts);
            assert_eq!(counts.balances(), expected, "{name}");
        }
        let mut twice = parts.clone();
        twice.add(&parts);
        assert!(twice.balances() && twice.by_source["b"].dropped["short"] == 6);
    }
}
