//! Published weights, taken over into a folder that this program, and the published class, read. Memory: the model twice.

use std::path::Path;

use tch::Device;

use super::config::{Config, Preset};
use super::weights;
use crate::model::import::{Error, write};

/// What files have that tell their model.
const LACKS: &str = "no embedding, layers, `l_max` or sizes that can be";

/// Writes the weights of the safetensors file `file` to the new folder `out`, under the published names and with a
/// `config.json`; gives back what it says. Without a `preset` the shapes of the tensors tell it.
pub fn import(file: &Path, preset: Option<Preset>, out: &Path) -> Result<Config, Error> {
    let config = match preset {
        Some(preset) => preset.config(),
        None => weights::config_of(file)?.ok_or_else(|| Error::Unknown {
            path: file.to_owned(),
            family: "HyenaDNA",
            lacks: LACKS,
        })?,
    };
    let stored = weights::stored(&config, &weights::read(&config, file, Device::Cpu)?)?;
    write(out, &config.to_json(), stored)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hf::WEIGHTS;
    use crate::model::hyena::golden::folder;
    use crate::model::weights::read_all;

    #[test]
    fn a_folder_has_all_that_the_published_class_stores() {
        let (scratch, file) = (tempfile::tempdir().unwrap(), folder().join(WEIGHTS));
        let out = scratch.path().join("new/model");
        let config = import(&file, None, &out).unwrap();
        assert_eq!((&config, &Config::read(&out).unwrap()), (&Config::read(&folder()).unwrap(), &config));
        let (before, after) = (read_all(&file).unwrap(), read_all(&out.join(WEIGHTS)).unwrap());
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (name, before) in before {
            let off = (&before - &after[&name]).abs().max().double_value(&[]);
            let table = name.contains("pos_emb") || name.contains("deltas");
            assert!(
                before.size() == after[&name].size() && off <= if table { 1e-5 } else { 0.0 },
                "{name}: {off}"
            );
        }
        assert!(matches!(import(&file, None, &out), Err(Error::Exists(_))));
    }

    #[test]
    fn what_cannot_be_taken_over_leaves_nothing() {
        let (scratch, file) = (tempfile::tempdir().unwrap(), folder().join(WEIGHTS));
        let out = scratch.path().join("model");
        let error = import(&file, Some(Preset::Tiny1k), &out).unwrap_err().to_string();
        let hint = "\n  it seems to hold 2 layers of width 64 for at most 258 tokens, which is no preset";
        assert!(error.ends_with(hint), "{error}");
        let other = folder().join("forward.safetensors");
        let error = import(&other, None, &out).unwrap_err().to_string();
        assert!(error.contains("forward.safetensors` does not tell which HyenaDNA it holds"), "{error}");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
