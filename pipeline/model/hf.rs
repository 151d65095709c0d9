//! Folders as Hugging Face's classes `OlmoForCausalLM` and `Olmo2ForCausalLM` read and write them: `config.json`, and
//! weights in `model.safetensors`, or in several files that `model.safetensors.index.json` lists.
//!
//! transformers 4 keeps `rope_theta` at the top of the configuration and silently ignores `rope_parameters`; version 5
//! has it there. Both are written, and either is read. Memory: the configuration and the index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::config::{Config, Family, Init};
use crate::fs;

/// The configuration within a folder.
pub const CONFIG: &str = "config.json";
/// The weights within a folder.
pub const WEIGHTS: &str = "model.safetensors";
/// The list of the files that hold the weights, where there are several.
const INDEX: &str = "model.safetensors.index.json";
/// What both classes take where the configuration names none.
const ROPE_THETA: f64 = 10_000.0;

/// Why a folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file call.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// A file that is no JSON, or lacks a key.
    #[error("cannot read `{}`: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A value for which there is no code here.
    #[error("`{}`: `{key}` is {found}, expected {expected}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// Sizes that fit no model.
    #[error("`{}`: {source}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: super::config::Error,
    },
}

/// `config.json`, as far as it matters.
#[derive(Debug, Deserialize)]
struct Written {
    model_type: String,
    vocab_size: u32,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    #[serde(default)]
    num_key_value_heads: Option<u32>,
    max_position_embeddings: u32,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_parameters: Option<Rope>,
    #[serde(default)]
    rope_scaling: Option<Value>,
    #[serde(default)]
    clip_qkv: Option<f64>,
    #[serde(default)]
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    rms_norm_eps: Option<f64>,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Rope {
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_type: Option<String>,
}

/// The ids that transformers asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a sequence.
    pub begin: Option<u32>,
    /// Ends a sequence.
    pub end: Option<u32>,
    /// Fills rows.
    pub pad: Option<u32>,
}

/// The model of `folder`, whose vocabulary is every row of its embedding.
pub fn read_config(folder: &Path) -> Result<Config, Error> {
    let path = folder.join(CONFIG);
    let bytes = fs::read(&path)?;
    let written: Written =
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.clone(), source })?;
    written.config(&path)
}

/// The files of `folder` that make a model: its configuration, and its weights.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(std::iter::once(folder.join(CONFIG)).chain(weight_files(folder)?).collect())
}

/// The files that hold the weights of `folder`.
pub(super) fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = folder.join(INDEX);
    if !path.is_file() {
        return Ok(vec![folder.join(WEIGHTS)]);
    }
    let index: Index =
        serde_json::from_slice(&fs::read(&path)?).map_err(|source| Error::Json { path, source })?;
    let names = index.weight_map.into_values().collect::<BTreeSet<_>>();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

impl Written {
    fn config(self, path: &Path) -> Result<Config, Error> {
        self.check(path)?;
        let family = if self.model_type == "olmo2" { Family::Olmo2 } else { Family::Olmo };
        let (epsilon, init) = match family {
            Family::Olmo => (1e-5, Init::Mitchell),
            Family::Olmo2 => (self.rms_norm_eps.unwrap_or(1e-5), Init::Normal),
        };
        Config {
            family,
            layers: self.num_hidden_layers,
            width: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            feed_forward: self.intermediate_size,
            vocabulary: self.vocab_size,
            padded_vocabulary: self.vocab_size,
            context: self.max_position_embeddings,
            rope_theta: self.theta(),
            clip_qkv: self.clip_qkv,
            tied_head: self.tie_word_embeddings.unwrap_or(false),
            norm_epsilon: epsilon,
            init,
        }
        .checked()
        .map_err(|source| Error::Shape { path: path.to_owned(), source })
    }

    fn theta(&self) -> f64 {
        let newer = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        newer.or(self.rope_theta).unwrap_or(ROPE_THETA)
    }

    /// Refuses what would be read as another model than it is.
    fn check(&self, path: &Path) -> Result<(), Error> {
        let rope = self.rope_parameters.as_ref();
        let kind = rope.and_then(|rope| rope.rope_type.as_deref()).unwrap_or("default");
        let thetas = (self.rope_theta, rope.and_then(|rope| rope.rope_theta));
        let agree = matches!(thetas, (None, _) | (_, None)) || thetas.0 == thetas.1;
        let activation = self.hidden_act.as_deref().unwrap_or("silu");
        let scaling = self.rope_scaling.as_ref().filter(|scaling| !scaling.is_null());
        let known = ["olmo", "olmo2"].contains(&self.model_type.as_str());
        let checks = [
            ("model_type", known, self.model_type.clone(), "`olmo` or `olmo2`"),
            ("hidden_act", activation == "silu", activation.to_owned(), "`silu`"),
            ("attention_bias", self.attention_bias != Some(true), "true".to_owned(), "false"),
            ("rope_type", kind == "default", kind.to_owned(), "`default`"),
            ("rope_scaling", scaling.is_none(), scaling.map_or_else(String::new, Value::to_string), "null"),
            ("rope_theta", agree, format!("{thetas:?}"), "the same as in `rope_parameters`"),
        ];
        match checks.into_iter().find(|(_, holds, ..)| !holds) {
            None => Ok(()),
            Some((key, _, found, expected)) => {
                let (path, expected) = (path.to_owned(), expected.to_owned());
                Err(Error::Unsupported { path, key, found, expected })
            }
        }
    }
}

/// `config` as `config.json`; what `config.vocabulary` counts are all rows of the embedding there.
pub fn write_config(config: &Config, ids: SpecialIds) -> Value {
    let (class, kind) = match config.family {
        Family::Olmo => ("OlmoForCausalLM", "olmo"),
        Family::Olmo2 => ("Olmo2ForCausalLM", "olmo2"),
    };
    let mut value = json!({
        "architectures": [class],
        "model_type": kind,
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "max_position_embeddings": config.context,
        "hidden_act": "silu",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "rope_scaling": null,
        "tie_word_embeddings": config.tied_head,
        "initializer_range": 0.02,
        "use_cache": true,
        "bos_token_id": ids.begin,
        "eos_token_id": ids.end,
        "pad_token_id": ids.pad,
        "dtype": "float32",
        "torch_dtype": "float32",
    });
    let (key, own) = match config.family {
        Family::Olmo => ("clip_qkv", json!(config.clip_qkv)),
        Family::Olmo2 => ("rms_norm_eps", json!(config.norm_epsilon)),
    };
    value[key] = own;
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Overrides, Preset};

    fn folder(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG), text).unwrap();
        folder
    }

    #[test]
    fn what_is_written_is_read_back() {
        for preset in [Preset::Olmo1m, Preset::Olmo2With1b] {
            let overrides = Overrides { kv_heads: Some(2), rope_theta: Some(123.5), ..Overrides::default() };
            let config = Config::resolve(Some(preset), &overrides, 4096, 64).unwrap();
            let written = write_config(&config, SpecialIds::default());
            assert_eq!(written["rope_theta"], written["rope_parameters"]["rope_theta"]);
            let folder = folder(&written.to_string());
            assert_eq!(read_config(folder.path()).unwrap(), config, "{preset:?}");
        }
    }

    const OLMO: &str = r#""vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 32"#;

    #[test]
    fn both_places_of_theta_are_read() {
        let cases = [
            (r#""rope_theta": 500.0"#, 500.0),
            (r#""rope_parameters": {"rope_theta": 600.0, "rope_type": "default"}"#, 600.0),
            (r#""rope_theta": 7.0, "rope_scaling": null, "rope_parameters": {"rope_theta": 7.0}"#, 7.0),
            (r#""clip_qkv": 8.0"#, ROPE_THETA),
        ];
        for (text, expected) in cases {
            let folder = folder(&format!(r#"{{"model_type": "olmo", {OLMO}, {text}}}"#));
            let config = read_config(folder.path()).unwrap();
            assert_eq!(
                (config.rope_theta, config.kv_heads, config.tied_head),
                (expected, 4, false),
                "{text}"
            );
        }
    }

    #[test]
    fn other_models_are_refused() {
        let cases = [
            (r#""model_type": "llama""#, "`model_type` is llama, expected `olmo` or `olmo2`"),
            (r#""model_type": "olmo", "hidden_act": "gelu""#, "`hidden_act` is gelu"),
            (r#""model_type": "olmo", "attention_bias": true"#, "`attention_bias` is true"),
            (r#""model_type": "olmo", "rope_parameters": {"rope_type": "yarn"}"#, "`rope_type` is yarn"),
            (r#""model_type": "olmo", "rope_scaling": {"factor": 2}"#, "`rope_scaling` is {\"factor\":2}"),
            (
                r#""model_type": "olmo", "rope_theta": 1.0, "rope_parameters": {"rope_theta": 2.0}"#,
                "expected the same as in `rope_parameters`",
            ),
            (
                r#""model_type": "olmo", "num_key_value_heads": 3"#,
                "model heads 4 is no multiple of kv_heads 3",
            ),
        ];
        for (text, expected) in cases {
            let folder = folder(&format!("{{{text}, {OLMO}}}"));
            let error = read_config(folder.path()).unwrap_err().to_string();
            assert!(error.contains("config.json`") && error.contains(expected), "{error}");
        }
        let folder = folder(r#"{"model_type": "olmo"}"#);
        let error = read_config(folder.path()).unwrap_err().to_string();
        assert!(error.contains("missing field `vocab_size`"), "{error}");
    }

    #[test]
    fn an_index_names_the_files_of_the_weights() {
        let folder = folder("{}");
        assert_eq!(weight_files(folder.path()).unwrap(), [folder.path().join(WEIGHTS)]);
        let index = r#"{"metadata": {}, "weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        std::fs::write(folder.path().join(INDEX), index).unwrap();
        let names = ["1.safetensors", "2.safetensors"].map(|name| folder.path().join(name));
        assert_eq!(weight_files(folder.path()).unwrap(), names);
    }
}
