//! Artifacts: folders that a stage publishes whole or not at all.
//!
//! An artifact holds data files and `manifest.json`, which is written last and names every file with its size and
//! blake3. Sizes are bytes. Nothing here keeps file contents in memory; hashing maps the files.

pub mod hashes;
pub mod manifest;
pub mod staging;

use std::path::{Path, PathBuf};

pub use hashes::Hashes;
pub use manifest::{Account, Counts, FileEntry, Input, Manifest, SourceFile};
use serde::Deserialize;
use serde_json::Value;
pub use staging::{Part, Staging};

use crate::fs;

/// The file that makes a folder an artifact.
pub const MANIFEST: &str = "manifest.json";

/// The schema that this version writes into [`Manifest::schema`].
pub const SCHEMA: &str = "genomill/artifact/1";

/// What can be wrong with an artifact.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file call failed.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// The folder has no manifest.
    #[error("`{}` is no artifact: it has no {MANIFEST}", .0.display())]
    Missing(PathBuf),
    /// The manifest is no JSON, or lacks a field.
    #[error("cannot read `{}`: {reason}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// The manifest has a schema that this version does not read.
    #[error("cannot read `{}`: its schema is `{found}`, this genomill reads `{SCHEMA}`", path.display())]
    Schema {
        /// The manifest.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A file is not as its manifest says.
    #[error("`{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
}

/// A published artifact.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Its folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Artifact {
    /// Opens an artifact by reading its manifest; the data files are not touched.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        if !path.is_file() {
            return Err(Error::Missing(folder.to_owned()));
        }
        let manifest = parse_manifest(&path, &fs::read(&path)?)?;
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// The path of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Compares every file with the manifest: its size always, its blake3 unless `hashes` knows the file unchanged.
    pub fn verify(&self, hashes: &Hashes) -> Result<(), Error> {
        self.manifest.files.iter().try_for_each(|entry| self.verify_file(entry, hashes))
    }

    /// Compares one file with the manifest.
    pub fn verify_file(&self, entry: &FileEntry, hashes: &Hashes) -> Result<(), Error> {
        verify_file(&self.folder, entry, hashes)
    }
}

fn parse_manifest(path: &Path, bytes: &[u8]) -> Result<Manifest, Error> {
    let malformed = |e: serde_json::Error| Error::Manifest { path: path.to_owned(), reason: e.to_string() };
    /// What every version of the layout has.
    #[derive(Deserialize)]
    struct AnyVersion {
        #[serde(default)]
        schema: Option<Value>,
    }
    // The other fields are passed over: a manifest may list a hundred thousand files.
    let any: AnyVersion = serde_json::from_slice(bytes).map_err(malformed)?;
    let found = any.schema.as_ref().and_then(Value::as_str).unwrap_or("none").to_owned();
    if found != SCHEMA {
        return Err(Error::Schema { path: path.to_owned(), found });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

fn verify_file(folder: &Path, entry: &FileEntry, hashes: &Hashes) -> Result<(), Error> {
    let path = folder.join(&entry.path);
    let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
    let Ok(metadata) = std::fs::metadata(&path) else { return Err(damaged("it is missing".to_owned())) };
    let bytes = metadata.len();
    if bytes != entry.bytes {
        return Err(damaged(format!("it has {bytes} bytes, its manifest says {}", entry.bytes)));
    }
    let found = hashes.of_seen(&path, &metadata)?;
    if found != entry.blake3 {
        return Err(damaged(format!("its blake3 is {found}, its manifest says {}", entry.blake3)));
    }
    Ok(())
}
