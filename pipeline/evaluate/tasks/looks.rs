//! Who looked at a test set, with what: a list beside the result, kept for the next who asks.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::result;
use super::Error;
use crate::fs;

/// Who looked at a test set before: beside the result, and kept for the next.
pub const LOOKS: &str = "looks.json";

/// What a look at a test set was made with.
#[derive(Serialize, Deserialize)]
pub(super) struct Look {
    /// Hash of all that the figures depended on.
    pub key: String,
}

/// The looks that a folder of results knows of.
pub(super) fn looks(folder: &Path) -> Result<Vec<Look>, Error> {
    let path = folder.join(LOOKS);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let malformed = |error: serde_json::Error| result::Error::Malformed {
        path: path.clone(),
        problem: error.to_string(),
    };
    Ok(serde_json::from_slice(&fs::read(&path)?).map_err(malformed)?)
}

/// Removes what an earlier look left.
pub(super) fn forget(folder: &Path) -> Result<(), Error> {
    let entries = std::fs::read_dir(folder).map_err(fs::error("list", folder))?;
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.file_name().is_some_and(|name| name != LOOKS) {
            std::fs::remove_file(&path).map_err(fs::error("remove", &path))?;
        }
    }
    Ok(())
}
