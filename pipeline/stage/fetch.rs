//! Takes over shards that another machine packed, from an address. Memory: the manifest and a few downloads' chunks.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, File, Outcome, Stage, Task, problem, to_json};
use crate::artifact::{Artifact, Counts, FileEntry};
use crate::fs;
use crate::remote::{self, Address};
use crate::shard::remote::{Need, open};
use crate::shard::{self, Details, ShardSet};

/// Which shards.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address that the shard folder was copied to: `s3://bucket/prefix`, `https://host/prefix`.
    shards: PathBuf,
    /// The sha256 of the `manifest.json` there, in hexadecimal; it stands for every file that the manifest names.
    /// What an address has may change, so a run without it ends with the hash of what is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-fA-F]{64}$"))]
    sha256: Option<String>,
    /// The splits to take. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    splits: Option<Vec<String>>,
}

impl Config {
    /// The address with its pin, if both are proper.
    fn address(&self) -> Option<Address> {
        let text = self.shards.to_str().filter(|_| remote::is_address(&self.shards))?;
        let pin = self.sha256.as_ref().map_or_else(String::new, |sha256| format!("#sha256={sha256}"));
        Address::parse(&format!("{text}{pin}")).ok()
    }
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn files(&self, _base: &Path) -> Result<Vec<File>, Error> {
        let file = |address: Address| {
            let manifest = address.join(crate::artifact::MANIFEST);
            let sha256 = address.sha256().map(str::to_owned);
            File { path: PathBuf::from(manifest.to_string()), address: Some(manifest), sha256 }
        };
        Ok(self.address().into_iter().map(file).collect())
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !remote::is_address(&self.shards) {
            let reason = "is no address, expected `s3://bucket/prefix` or `https://host/prefix`";
            problems.push(("shards", format!("`{}` {reason}", self.shards.display())));
        } else if let Some(problem) = problem(&self.shards) {
            problems.push(("shards", problem));
        } else if self.sha256.is_some() && File::new(&self.shards).sha256.is_some() {
            problems.push(("sha256", "the address has one already".to_owned()));
        } else if let Some(Err(reason)) = self.sha256.as_deref().map(remote::hash) {
            problems.push(("sha256", reason));
        }
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let unusable = || Error::Config { key: "shards", reason: "is no address".to_owned() };
        let address = self.address().ok_or_else(unusable)?;
        let need = self.splits.as_deref().map_or(Need::Everything, Need::Splits);
        let artifact = open(&address, need, task.remote, task.watch()).map_err(|error| match error {
            shard::Error::Remote(remote::Error::Stopped { .. }) => Error::Interrupted,
            error => error.into(),
        })?;
        let details = self.details(&artifact)?;
        let files = take_over(&artifact, &details, task.out)?;
        let bases = details.splits.values().map(|split| split.bases).sum();
        let rows: u64 = details.splits.values().map(|split| split.rows).sum();
        let counts = Counts { bases_in: bases, bases_out: bases, ..Counts::default() };
        let names = details.splits.keys().cloned().collect::<Vec<_>>().join(", ");
        let summary = format!("{rows} rows of {} tokens: {names}", details.context);
        Ok(Outcome { counts, details: to_json(&details), files, summary, ..Outcome::default() })
    }
}

impl Config {
    /// What the manifest says of the splits that are taken.
    fn details(&self, artifact: &Artifact) -> Result<Details, Error> {
        let mut details = ShardSet::from_artifact(artifact)?.details;
        if let Some(splits) = &self.splits {
            details.splits.retain(|name, _| splits.contains(name));
        }
        Ok(details)
    }
}

/// Puts the files into the artifact: as further names of those in the cache, or as copies where the cache is on
/// another file system. Neither is ever changed in place.
fn take_over(from: &Artifact, details: &Details, out: &Path) -> Result<Vec<FileEntry>, Error> {
    let of_splits =
        |path: &str| details.splits.values().any(|s| s.files.iter().any(|file| file.path == path));
    let entries = from.manifest.files.iter();
    let entries = entries.filter(|entry| entry.path == details.tokenizer || of_splits(&entry.path));
    let mut files = Vec::new();
    for entry in entries {
        let (old, new) = (from.path(&entry.path), out.join(&entry.path));
        fs::create_dir_all(new.parent().unwrap_or(out))?;
        if std::fs::hard_link(&old, &new).is_err() {
            std::fs::copy(&old, &new).map_err(fs::error("copy to", &new))?;
        }
        files.push(entry.clone());
    }
    Ok(files)
}
