//! What a HyenaDNA looks like: the published shapes by name, and `config.json` with the published keys.
//!
//! Sizes are in values, lengths in tokens. Memory: the file.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fs;
use crate::model::hf::{self, CONFIG};

/// The longest input that a folder may ask for: its tables of positions are made whole.
const LONGEST: u32 = 1 << 24;

/// A published shape. `l_max`, two more than the name says, belongs to the weights: positions are parts of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preset {
    /// 2 layers of width 128, 1,026 tokens.
    #[serde(rename = "tiny-1k")]
    Tiny1k,
    /// 2 layers of width 256, 1,026 tokens.
    #[serde(rename = "tiny-1k-d256")]
    Tiny1kD256,
    /// 4 layers of width 256, 32,770 tokens.
    #[serde(rename = "small-32k")]
    Small32k,
    /// 8 layers of width 256, 160,002 tokens.
    #[serde(rename = "medium-160k")]
    Medium160k,
}

/// A HyenaDNA with every number known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of layers.
    pub layers: u32,
    /// Width of the residual stream, and number of filters.
    pub width: u32,
    /// Inner width of the feed-forward branch.
    pub feed_forward: u32,
    /// Number of token ids.
    pub vocabulary: u32,
    /// Rows of the embedding, which is the head too: `vocabulary` rounded up.
    pub padded_vocabulary: u32,
    /// The longest input, `l_max`; positions are told to filters as parts of it.
    pub longest: u32,
    /// What filters are told of a position: its part of the longest input, and a cosine and a sine for each band.
    pub features: u32,
    /// Width of the network that makes filters.
    pub filter_width: u32,
    /// Positions that the short convolution sees.
    pub short_filter: u32,
    /// Added to a variance before its root.
    pub norm_epsilon: f64,
}

/// The published keys, as far as they matter.
#[derive(Debug, Deserialize)]
struct Written {
    d_model: u32,
    n_layer: u32,
    d_inner: u32,
    vocab_size: u32,
    #[serde(default = "one")]
    pad_vocab_size_multiple: u32,
    #[serde(default = "epsilon")]
    layer_norm_epsilon: f64,
    #[serde(default)]
    max_position_embeddings: u32,
    #[serde(default)]
    attn_layer_idx: Value,
    layer: Operator,
}

/// The published keys of the operator.
#[derive(Debug, Deserialize)]
struct Operator {
    #[serde(rename = "_name_")]
    name: String,
    l_max: u32,
    emb_dim: u32,
    filter_order: u32,
    short_filter_order: u32,
    #[serde(default = "two")]
    order: u32,
    #[serde(default = "two")]
    num_inner_mlps: u32,
    #[serde(default = "yes")]
    modulate: bool,
    #[serde(default)]
    bidirectional: bool,
}

const fn one() -> u32 {
    1
}

const fn two() -> u32 {
    2
}

const fn yes() -> bool {
    true
}

const fn epsilon() -> f64 {
    1e-5
}

impl std::str::FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        crate::model::config::by_name(&Self::ALL, text)
    }
}

impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl Preset {
    /// Every preset, smallest first.
    pub const ALL: [Self; 4] = [Self::Tiny1k, Self::Tiny1kD256, Self::Small32k, Self::Medium160k];

    /// What it stands for.
    pub const fn config(self) -> Config {
        match self {
            Self::Tiny1k => published(2, 128, 1_026),
            Self::Tiny1kD256 => published(2, 256, 1_026),
            Self::Small32k => published(4, 256, 32_770),
            Self::Medium160k => published(8, 256, 160_002),
        }
    }
}

const fn published(layers: u32, width: u32, longest: u32) -> Config {
    Config {
        layers,
        width,
        feed_forward: 4 * width,
        vocabulary: 12,
        padded_vocabulary: 16,
        longest,
        features: 5,
        filter_width: 64,
        short_filter: 3,
        norm_epsilon: epsilon(),
    }
}

/// Whether `config`, a `config.json`, is that of a HyenaDNA.
pub fn is_hyena(config: &Value) -> bool {
    keys(config).pointer("/layer/_name_").is_some_and(|name| name == "hyena")
}

/// The keys of the model: those of the file, or of its `model` where the file says more than the model's keys.
fn keys(config: &Value) -> &Value {
    config.get("model").filter(|model| model.is_object()).unwrap_or(config)
}

/// The embedding's rows are a multiple of this.
const VOCABULARY_MULTIPLE: u32 = 8;

impl Config {
    /// The same for `vocabulary` token ids.
    #[must_use]
    pub const fn with_vocabulary(self, vocabulary: u32) -> Self {
        Self { vocabulary, padded_vocabulary: vocabulary.next_multiple_of(VOCABULARY_MULTIPLE), ..self }
    }

    /// The model of `folder`, by its `config.json`.
    pub fn read(folder: &Path) -> Result<Self, hf::Error> {
        let path = folder.join(CONFIG);
        let json = |source| hf::Error::Json { path: path.clone(), source };
        let value: Value = serde_json::from_slice(&fs::read(&path)?).map_err(json)?;
        Written::deserialize(keys(&value)).map_err(json)?.config(&path)
    }

    /// Itself, unless its sizes are such that [`Config::read`] refuses them.
    pub(super) fn possible(self) -> Option<Self> {
        let written = Written::deserialize(self.to_json()).ok()?;
        written.config(Path::new(CONFIG)).ok().filter(|config| *config == self)
    }

    /// `config.json`, with the published keys.
    pub fn to_json(&self) -> Value {
        json!({
            "d_model": self.width,
            "n_layer": self.layers,
            "d_inner": self.feed_forward,
            "vocab_size": self.vocabulary,
            "pad_vocab_size_multiple": if self.padded_vocabulary == self.vocabulary { 1 } else { VOCABULARY_MULTIPLE },
            "layer_norm_epsilon": self.norm_epsilon,
            "max_position_embeddings": 0,
            "residual_in_fp32": true,
            "resid_dropout": 0.0,
            "embed_dropout": 0.1,
            "layer": {
                "_name_": "hyena",
                "l_max": self.longest,
                "emb_dim": self.features,
                "filter_order": self.filter_width,
                "short_filter_order": self.short_filter,
                "modulate": true,
                "w": 10,
                "lr": 6e-4,
                "wd": 0.0,
                "lr_pos_emb": 0.0,
            },
        })
    }

    /// The preset of this shape.
    pub fn preset(&self) -> Option<Preset> {
        Preset::ALL.into_iter().find(|preset| preset.config() == *self)
    }
}

impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (layers, width, longest) = (self.layers, self.width, self.longest);
        write!(f, "{layers} layers of width {width} for at most {longest} tokens")?;
        self.preset().map_or(Ok(()), |preset| write!(f, " ({preset})"))
    }
}

impl Written {
    fn config(self, path: &Path) -> Result<Config, hf::Error> {
        self.check(path)?;
        Ok(Config {
            layers: self.n_layer,
            width: self.d_model,
            feed_forward: self.d_inner,
            vocabulary: self.vocab_size,
            padded_vocabulary: self.vocab_size.next_multiple_of(self.pad_vocab_size_multiple),
            longest: self.layer.l_max,
            features: self.layer.emb_dim,
            filter_width: self.layer.filter_order,
            short_filter: self.layer.short_filter_order,
            norm_epsilon: self.layer_norm_epsilon,
        })
    }

    /// Refuses what would be read as another model than it is, and sizes that no model has.
    fn check(&self, path: &Path) -> Result<(), hf::Error> {
        let layer = &self.layer;
        let none = self.attn_layer_idx.is_null() || self.attn_layer_idx.as_array().is_some_and(Vec::is_empty);
        let size = |key, size: u32| (key, (1..=1 << 20).contains(&size), size.to_string(), "1 to 1048576");
        let checks = [
            ("layer._name_", layer.name == "hyena", layer.name.clone(), "`hyena`"),
            ("layer.order", layer.order == 2, layer.order.to_string(), "2"),
            ("layer.num_inner_mlps", layer.num_inner_mlps == 2, layer.num_inner_mlps.to_string(), "2"),
            ("layer.modulate", layer.modulate, layer.modulate.to_string(), "true"),
            ("layer.bidirectional", !layer.bidirectional, layer.bidirectional.to_string(), "false"),
            ("max_position_embeddings", self.max_position_embeddings == 0, "not 0".to_owned(), "0"),
            ("attn_layer_idx", none, self.attn_layer_idx.to_string(), "no attention"),
            (
                "layer.emb_dim",
                (3..=1 << 10).contains(&layer.emb_dim) && layer.emb_dim % 2 == 1,
                layer.emb_dim.to_string(),
                "an odd number from 3 to 1023",
            ),
            ("layer.l_max", (1..=LONGEST).contains(&layer.l_max), layer.l_max.to_string(), "1 to 16777216"),
            size("layer.filter_order", layer.filter_order),
            size("layer.short_filter_order", layer.short_filter_order),
            size("n_layer", self.n_layer),
            size("d_model", self.d_model),
            size("d_inner", self.d_inner),
            size("vocab_size", self.vocab_size),
            size("pad_vocab_size_multiple", self.pad_vocab_size_multiple),
        ];
        match checks.into_iter().find(|(_, holds, ..)| !holds) {
            None => Ok(()),
            Some((key, _, found, expected)) => {
                let (path, expected) = (path.to_owned(), expected.to_owned());
                Err(hf::Error::Unsupported { path, key, found, expected })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG), value.to_string()).unwrap();
        Config::read(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_back() {
        for preset in Preset::ALL {
            let (config, written) = (preset.config(), preset.config().to_json());
            assert!(is_hyena(&written));
            assert_eq!(read(&written), Ok(config.clone()), "{preset}");
            assert_eq!(read(&json!({"model": written, "padded_vocab": 16})), Ok(config.clone()));
            assert_eq!((config.preset(), preset.to_string().parse()), (Some(preset), Ok(preset)));
        }
    }

    #[test]
    fn other_models_are_refused() {
        let cases = [
            ("/layer/_name_", json!("mamba"), "`layer._name_` is mamba, expected `hyena`"),
            ("/layer/modulate", json!(false), "`layer.modulate` is false, expected true"),
            ("/layer/emb_dim", json!(4), "`layer.emb_dim` is 4, expected an odd number from 3 to 1023"),
            ("/layer/l_max", json!(0), "`layer.l_max` is 0, expected 1 to 16777216"),
            ("/max_position_embeddings", json!(512), "`max_position_embeddings` is not 0, expected 0"),
            ("/n_layer", json!(0), "`n_layer` is 0, expected 1 to 1048576"),
            ("/d_model", json!("wide"), "invalid type: string \"wide\""),
        ];
        for (place, value, expected) in cases {
            let mut config = Preset::Tiny1k.config().to_json();
            *config.pointer_mut(place).unwrap() = value;
            let error = read(&config).unwrap_err();
            assert!(error.contains("config.json`") && error.contains(expected), "{error}");
        }
        assert!(!is_hyena(&json!({"model_type": "olmo", "model": "x"})));
    }
}
