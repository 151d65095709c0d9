//! What a DNABERT-2 looks like: presets, and the published `config.json`. Memory: the file.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fs;
use crate::model::config::{Error, divides};
use crate::model::hf;

/// A named shape. The name counts the parameters of the layers, of the published one all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preset {
    /// 4 layers of width 64.
    #[serde(rename = "dnabert2-300k")]
    Small300k,
    /// 4 layers of width 128.
    #[serde(rename = "dnabert2-1m")]
    Small1m,
    /// 6 layers of width 256.
    #[serde(rename = "dnabert2-6m")]
    Small6m,
    /// The published one: 12 layers of width 768.
    #[serde(rename = "dnabert2-117m")]
    Published117m,
}

/// A model with every number known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub width: u32,
    /// Number of heads; divides the width.
    pub heads: u32,
    /// Inner width of the feed-forward branch; gate and values are this wide each.
    pub feed_forward: u32,
    /// Number of token ids.
    pub vocabulary: u32,
    /// Number of kinds of sequences; the first is what everything is that nobody says otherwise of.
    pub token_types: u32,
    /// The id whose embedding learns nothing from being looked up.
    pub pad: Option<u32>,
    /// Added to a variance before its root.
    pub norm_epsilon: f64,
}

impl Preset {
    /// Every preset, smallest first.
    pub const ALL: [Self; 4] = [Self::Small300k, Self::Small1m, Self::Small6m, Self::Published117m];

    /// This shape for `vocabulary` token ids, of which `pad` fills rows.
    pub fn config(self, vocabulary: u32, pad: Option<u32>) -> Result<Config, Error> {
        let (layers, width, heads) = match self {
            Self::Small300k => (4, 64, 2),
            Self::Small1m => (4, 128, 4),
            Self::Small6m => (6, 256, 4),
            Self::Published117m => (12, 768, 12),
        };
        let feed_forward = 4 * width;
        Config { layers, width, heads, feed_forward, vocabulary, token_types: 2, pad, norm_epsilon: 1e-12 }
            .checked()
    }
}

impl Config {
    fn checked(self) -> Result<Self, Error> {
        let sizes = [
            ("layers", self.layers),
            ("width", self.width),
            ("heads", self.heads),
            ("feed_forward", self.feed_forward),
            ("vocabulary", self.vocabulary),
            ("token_types", self.token_types),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(Error::Zero(name));
        }
        divides("width", self.width, "heads", self.heads)?;
        Ok(self)
    }

    /// Refuses a tokenizer of `ids` ids where the model knows another number.
    pub const fn check_vocabulary(&self, ids: u32) -> Result<(), Error> {
        if ids == self.vocabulary {
            return Ok(());
        }
        Err(Error::Vocabulary { found: ids, expected: self.vocabulary })
    }

    /// How much each head's scores fall per token of distance: a geometric series from 2^-(8/n) on for n heads, n a power
    /// of two; other numbers take the rest from every other term of the series for twice as many.
    pub fn slopes(&self) -> Vec<f64> {
        let power = 1 << self.heads.ilog2();
        let series = |heads: u32| (1..=heads).map(move |i| (-8.0 * f64::from(i) / f64::from(heads)).exp2());
        series(power).chain(series(2 * power).step_by(2)).take(self.heads as usize).collect()
    }
}

impl Config {
    /// `config.json`, with the published keys.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["BertForMaskedLM"],
            "model_type": "bert",
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "type_vocab_size": self.token_types,
            "layer_norm_eps": self.norm_epsilon,
            "pad_token_id": self.pad,
            "hidden_act": "gelu",
            "tie_word_embeddings": true,
            "alibi_starting_size": 512,
            "attention_probs_dropout_prob": 0.0,
            "hidden_dropout_prob": 0.1,
            "max_position_embeddings": 512,
        })
    }
}

impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { layers, width, heads, vocabulary, .. } = self;
        write!(f, "DNABERT-2 of {layers} layers of width {width} with {heads} heads for {vocabulary} ids")
    }
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

/// `config.json`, as far as it matters.
#[derive(Debug, Deserialize)]
struct Written {
    vocab_size: u32,
    hidden_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    intermediate_size: u32,
    #[serde(default = "two")]
    type_vocab_size: u32,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "first")]
    pad_token_id: Option<u32>,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

// What the published class takes where the file is silent.
const fn two() -> u32 {
    2
}

const fn epsilon() -> f64 {
    1e-12
}

#[expect(clippy::unnecessary_wraps, reason = "what serde wants as a default")]
const fn first() -> Option<u32> {
    Some(0)
}

fn gelu() -> String {
    "gelu".to_owned()
}

const fn yes() -> bool {
    true
}

/// Whether `config`, a `config.json`, is that of a DNABERT-2: of a BERT with `ALiBi`.
pub fn is_dnabert2(config: &Value) -> bool {
    config.get("alibi_starting_size").is_some()
}

/// The model of `folder`, which has a `config.json` as published.
pub fn read_config(folder: &Path) -> Result<Config, hf::Error> {
    let path = folder.join(hf::CONFIG);
    let bytes = fs::read(&path)?;
    let written: Written =
        serde_json::from_slice(&bytes).map_err(|source| hf::Error::Json { path: path.clone(), source })?;
    written.check(&path)?;
    written.config().map_err(|source| hf::Error::Shape { path, source })
}

impl Written {
    /// Refuses what would be read as another model than it is.
    fn check(&self, path: &Path) -> Result<(), hf::Error> {
        let pad = self.pad_token_id.unwrap_or(0);
        let checks = [
            ("hidden_act", self.hidden_act == "gelu", self.hidden_act.clone(), "`gelu`"),
            ("tie_word_embeddings", self.tie_word_embeddings, "false".to_owned(), "true"),
            ("pad_token_id", pad < self.vocab_size, pad.to_string(), "an id of the vocabulary"),
        ];
        match checks.into_iter().find(|(_, holds, ..)| !holds) {
            None => Ok(()),
            Some((key, _, found, expected)) => {
                let (path, expected) = (path.to_owned(), expected.to_owned());
                Err(hf::Error::Unsupported { path, key, found, expected })
            }
        }
    }

    fn config(self) -> Result<Config, Error> {
        Config {
            layers: self.num_hidden_layers,
            width: self.hidden_size,
            heads: self.num_attention_heads,
            feed_forward: self.intermediate_size,
            vocabulary: self.vocab_size,
            token_types: self.type_vocab_size,
            pad: self.pad_token_id,
            norm_epsilon: self.layer_norm_eps,
        }
        .checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_paper() {
        let slopes = |heads| {
            let config = Preset::Published117m.config(4096, None).unwrap();
            Config { heads, ..config }.slopes().into_iter().map(f64::log2).collect::<Vec<_>>()
        };
        let close = |found: &[f64], expected: &[f64]| {
            found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12)
        };
        let twelve = [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, -0.5, -1.5, -2.5, -3.5];
        let cases: [(u32, &[f64]); 4] = [
            (1, &[-8.0]),
            (3, &[-4.0, -8.0, -2.0]),
            (6, &[-2.0, -4.0, -6.0, -8.0, -1.0, -3.0]),
            (12, &twelve),
        ];
        for (heads, expected) in cases {
            assert!(close(&slopes(heads), expected), "{heads} heads: {:?}", slopes(heads));
        }
    }

    #[test]
    fn presets_are_written_by_name() {
        let names = Preset::ALL.map(|preset| serde_json::to_string(&preset).unwrap());
        assert_eq!(names[3], "\"dnabert2-117m\"");
        for preset in Preset::ALL {
            let config = preset.config(4096, Some(3)).unwrap();
            assert_eq!((config.feed_forward, config.width % config.heads), (4 * config.width, 0));
        }
    }

    const SHAPE: &str = r#""vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4"#;

    fn read(text: &str) -> Result<Config, hf::Error> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(hf::CONFIG), format!("{{{text}}}")).unwrap();
        read_config(folder.path())
    }

    #[test]
    fn what_is_written_is_read_back() {
        for preset in Preset::ALL {
            let config = preset.config(4096, Some(3)).unwrap();
            let written = config.to_json().to_string();
            assert!(is_dnabert2(&config.to_json()));
            assert_eq!(read(written.trim_matches(['{', '}'])).unwrap(), config, "{preset}");
            assert_eq!(preset.to_string().parse(), Ok(preset));
        }
    }

    #[test]
    fn what_the_file_leaves_out_is_what_the_class_takes() {
        let config = read(SHAPE).unwrap();
        assert_eq!((config.token_types, config.pad, config.norm_epsilon), (2, Some(0), 1e-12));
        assert_eq!(read(&format!(r#"{SHAPE}, "pad_token_id": null"#)).unwrap().pad, None);
    }

    #[test]
    fn other_models_are_refused() {
        let cases = [
            (r#""hidden_act": "relu""#, "`hidden_act` is relu, expected `gelu`"),
            (r#""tie_word_embeddings": false"#, "`tie_word_embeddings` is false"),
            (r#""pad_token_id": 100"#, "`pad_token_id` is 100, expected an id of the vocabulary"),
            (r#""type_vocab_size": 0"#, "model `token_types` is 0"),
        ];
        for (text, expected) in cases {
            let error = read(&format!("{SHAPE}, {text}")).unwrap_err().to_string();
            assert!(error.contains("config.json`") && error.contains(expected), "{error}");
        }
        let error = read(&SHAPE.replace("_heads\": 4", "_heads\": 5")).unwrap_err().to_string();
        assert!(error.contains("model width 64 is no multiple of heads 5"), "{error}");
    }

    #[test]
    fn a_tokenizer_of_another_vocabulary_is_refused() {
        let config = Preset::Small1m.config(4096, None).unwrap();
        assert_eq!(config.check_vocabulary(4096), Ok(()));
        let error = config.check_vocabulary(1024).unwrap_err().to_string();
        assert!(error.starts_with("the tokenizer has 1024 ids, the model 4096"), "{error}");
    }
}
