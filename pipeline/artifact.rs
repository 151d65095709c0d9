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
        let (path, bytes) = read_manifest(folder)?;
        Self::parse(folder, &path, &bytes)
    }

    /// The artifact that belongs into a folder, by its manifest, which was read elsewhere: at `path`.
    pub fn parse(folder: &Path, path: &Path, manifest: &[u8]) -> Result<Self, Error> {
        let manifest = parse_manifest(path, manifest)?;
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// The [`Manifest::content`] of an artifact, without the rest of its manifest, which may list a hundred thousand files.
    pub fn content(folder: &Path) -> Result<String, Error> {
        let (path, bytes) = read_manifest(folder)?;
        let Known { content, .. } = parse_known(&path, &bytes)?;
        let missing = || Error::Manifest { path, reason: "missing field `content`".to_owned() };
        content.ok_or_else(missing)
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

fn read_manifest(folder: &Path) -> Result<(PathBuf, Vec<u8>), Error> {
    let path = folder.join(MANIFEST);
    if !path.is_file() {
        return Err(Error::Missing(folder.to_owned()));
    }
    let bytes = fs::read(&path)?;
    Ok((path, bytes))
}

/// The fields of a manifest that are read without the others.
#[derive(Deserialize)]
struct Known {
    schema: Option<Value>,
    content: Option<String>,
}

/// Reads these, and refuses another schema than ours.
fn parse_known(path: &Path, bytes: &[u8]) -> Result<Known, Error> {
    let known: Known = serde_json::from_slice(bytes).map_err(malformed(path))?;
    let found = known.schema.as_ref().and_then(Value::as_str).unwrap_or("none");
    if found == SCHEMA {
        return Ok(known);
    }
    Err(Error::Schema { path: path.to_owned(), found: found.to_owned() })
}

fn parse_manifest(path: &Path, bytes: &[u8]) -> Result<Manifest, Error> {
    parse_known(path, bytes)?;
    serde_json::from_slice(bytes).map_err(malformed(path))
}

fn malformed(path: &Path) -> impl FnOnce(serde_json::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Manifest { path, reason: error.to_string() }
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
