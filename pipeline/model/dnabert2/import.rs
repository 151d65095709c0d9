//! Published weights of a DNABERT-2, taken over. Memory: the model twice.

use std::path::Path;

use tch::Device;

use super::config::{Config, Preset, read_config};
use super::layout::WORDS;
use super::network::{Dnabert2, open};
use crate::fs;
use crate::model::hf::CONFIG;
use crate::model::import::{Error, write};

/// The id of padding where nobody says it: what the published class takes.
const PAD: u32 = 0;
/// What files have that tell their model.
const LACKS: &str = "no config.json beside it, which says how many heads it has";

/// Writes the weights of the safetensors file `file` to the new folder `out`, under the published names and with a
/// `config.json`; gives back what it says. Without a `preset` the `config.json` beside the file tells it.
pub fn import(file: &Path, preset: Option<Preset>, out: &Path) -> Result<Config, Error> {
    let bytes = fs::read(file)?;
    let beside = file.parent().unwrap_or(Path::new(""));
    let config = match preset {
        Some(preset) => preset.config(open(file, &bytes)?.size(WORDS, 0).unwrap_or(1), Some(PAD))?,
        None if beside.join(CONFIG).is_file() => read_config(beside)?,
        None => return Err(Error::Unknown { path: file.to_owned(), family: "DNABERT-2", lacks: LACKS }),
    };
    let model = Dnabert2::of_bytes(config.clone(), file, &bytes, Device::Cpu)?;
    let (json, tensors) = model.published()?;
    write(out, &json, tensors)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dnabert2::golden::golden;
    use crate::model::hf::WEIGHTS;

    #[test]
    fn a_folder_computes_what_the_file_did() {
        let (scratch, golden) = (tempfile::tempdir().unwrap(), golden());
        let out = scratch.path().join("model");
        let config = import(&golden.join(WEIGHTS), None, &out).unwrap();
        assert_eq!(read_config(&out).unwrap(), config);
        for name in ["forward.safetensors", "train.json"] {
            std::fs::copy(golden.join(name), out.join(name)).unwrap();
        }
        let difference = crate::model::check::check(&out).unwrap();
        assert!(difference.results.len() == 8 && difference.beyond(None).is_none(), "{difference:?}");
        assert!(matches!(import(&golden.join(WEIGHTS), None, &out), Err(Error::Exists(_))));
    }

    #[test]
    fn what_is_no_such_model_is_refused_and_leaves_nothing() {
        let (scratch, file) = (tempfile::tempdir().unwrap(), golden().join(WEIGHTS));
        let (out, alone) = (scratch.path().join("model"), scratch.path().join("alone.safetensors"));
        std::fs::copy(&file, &alone).unwrap();
        let refused = |preset| import(&alone, preset, &out).unwrap_err().to_string();
        assert!(
            refused(None).contains("which DNABERT-2 it holds (no config.json beside it"),
            "{}",
            refused(None)
        );
        let error = refused(Some(Preset::Small300k));
        for expected in [
            "alone.safetensors` does not hold the weights of a DNABERT-2 of 4 layers of width 64",
            "`bert.encoder.layer.3.mlp.wo.bias` is missing, expected [64]",
            "`bert.embeddings.word_embeddings.weight` is F32 [128, 72], expected F32, F16 or BF16 [128, 64]",
        ] {
            assert!(error.contains(expected), "no {expected} in {error}");
        }
        assert!(!out.exists());
    }
}
