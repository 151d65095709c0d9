//! Published weights, taken over into a folder that this program, and the published class, read. Memory: the model twice.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::Tensor;

use super::hf::{self, CONFIG, WEIGHTS};
use super::weights::{self, write_named};
use crate::fs;

/// Why weights could not be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tensors.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// A configuration beside the weights.
    #[error(transparent)]
    Folder(#[from] hf::Error),
    /// Sizes that fit no model.
    #[error(transparent)]
    Shape(#[from] super::config::Error),
    /// A file call.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// The folder is there.
    #[error("cannot import to `{}`: it exists already; remove it or name another folder", .0.display())]
    Exists(PathBuf),
    /// Neither a preset nor the file says what model it is.
    #[error(
        "`{}` does not tell which {family} it holds ({lacks}): check that it is one, or name its preset",
        path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Whose weights it should hold.
        family: &'static str,
        /// What would tell.
        lacks: &'static str,
    },
}

/// Writes the new folder `out`: `config.json`, and the tensors.
pub(super) fn write(out: &Path, config: &Value, tensors: Vec<(String, Tensor)>) -> Result<(), Error> {
    if out.exists() {
        return Err(Error::Exists(out.to_owned()));
    }
    fs::write_folder(out, |part| {
        fs::write_json(&part.join(CONFIG), serde_json::to_vec_pretty(config))?;
        Ok(write_named(&part.join(WEIGHTS), tensors)?)
    })
}
