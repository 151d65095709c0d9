//! What a model looks like: as written (a preset and what differs from it), then resolved (every number known).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The embedding's rows are a multiple of this, so that every matrix product has an even shape.
const VOCABULARY_MULTIPLE: u32 = 128;

/// A family of models: where the norms stand, and of which kind they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// OLMo-1: a `LayerNorm` without parameters before each branch.
    Olmo,
    /// OLMo-2: an `RMSNorm` after each branch, and on queries and keys.
    Olmo2,
}

/// How weights start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Standard deviations from the width, smaller for what deeper layers add (OLMo-1).
    Mitchell,
    /// 0.02 for every matrix (OLMo-2).
    Normal,
}

/// A named shape. The name counts the parameters of the layers, without the embedding, up to 1b.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// 4 layers of width 64.
    #[serde(rename = "olmo-300k")]
    Olmo300k,
    /// 4 layers of width 128.
    #[serde(rename = "olmo-1m")]
    Olmo1m,
    /// 6 layers of width 256.
    #[serde(rename = "olmo-6m")]
    Olmo6m,
    /// 8 layers of width 448.
    #[serde(rename = "olmo-25m")]
    Olmo25m,
    /// 12 layers of width 768.
    #[serde(rename = "olmo-110m")]
    Olmo110m,
    /// OLMo-1B: 16 layers of width 2048.
    #[serde(rename = "olmo-1b")]
    Olmo1b,
    /// OLMo-7B: 32 layers of width 4096.
    #[serde(rename = "olmo-7b")]
    Olmo7b,
    /// OLMo-2-1B: 16 layers of width 2048.
    #[serde(rename = "olmo2-1b")]
    Olmo2With1b,
    /// OLMo-2-7B: 32 layers of width 4096.
    #[serde(rename = "olmo2-7b")]
    Olmo2With7b,
}

/// A model as written: what is not given comes from the preset, or from the family's custom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// Family: `olmo` (default) or `olmo2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Number of layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u32>,
    /// Width of the residual stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Number of query heads; the width divided by it must be even.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<u32>,
    /// Number of key and value heads; divides `heads`. Default: `heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<u32>,
    /// Inner width of the feed-forward branch. Default: 4 times the width.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed_forward: Option<u32>,
    /// Base of the rotary wavelengths. Default: 10000 (olmo), 500000 (olmo2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Limit of the absolute values of queries, keys and values. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_qkv: Option<f64>,
    /// Whether the head shares the embedding's weights. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied_head: Option<bool>,
    /// How weights start. Default: `mitchell` (olmo), `normal` (olmo2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
}

/// A model with every number known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Family.
    pub family: Family,
    /// Number of layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub width: u32,
    /// Number of query heads.
    pub heads: u32,
    /// Number of key and value heads.
    pub kv_heads: u32,
    /// Inner width of the feed-forward branch.
    pub feed_forward: u32,
    /// Number of token ids; only these are ever predicted.
    pub vocabulary: u32,
    /// Rows of the embedding and of the head: `vocabulary` rounded up, the rest unused.
    pub padded_vocabulary: u32,
    /// Tokens that the model sees at most.
    pub context: u32,
    /// Base of the rotary wavelengths.
    pub rope_theta: f64,
    /// Limit of the absolute values of queries, keys and values.
    pub clip_qkv: Option<f64>,
    /// Whether the head shares the embedding's weights.
    pub tied_head: bool,
    /// Added to a variance before its root.
    pub norm_epsilon: f64,
    /// How weights start.
    pub init: Init,
}

/// Why a model cannot have this shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A size that neither the preset nor the overrides give.
    #[error("the model needs `{0}`: name a preset, such as `olmo-1m`, or give layers, width and heads")]
    Missing(&'static str),
    /// A size of zero.
    #[error("model `{0}` is 0: expected at least 1")]
    Zero(&'static str),
    /// Numbers that must divide each other and do not.
    #[error("model {what} {found} is no multiple of {of} {divisor}")]
    Indivisible {
        /// The number.
        what: &'static str,
        /// Its value.
        found: u32,
        /// The divisor.
        of: &'static str,
        /// Its value.
        divisor: u32,
    },
    /// A tokenizer of another vocabulary.
    #[error(
        "the tokenizer has {found} ids, the model {expected}: take the tokenizer that the model was trained with"
    )]
    Vocabulary {
        /// Ids of the tokenizer.
        found: u32,
        /// Ids of the model.
        expected: u32,
    },
}

/// The preset of a name; else which names there are.
pub(super) fn by_name<P: Copy + std::fmt::Display>(all: &[P], name: &str) -> Result<P, String> {
    all.iter().copied().find(|preset| preset.to_string() == name).ok_or_else(|| {
        let names = all.iter().map(P::to_string).collect::<Vec<_>>().join(", ");
        format!("expected one of {names}")
    })
}

impl std::str::FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        by_name(&Self::ALL, text)
    }
}

impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl Preset {
    /// Every preset, smallest first.
    pub const ALL: [Self; 9] = [
        Self::Olmo300k,
        Self::Olmo1m,
        Self::Olmo6m,
        Self::Olmo25m,
        Self::Olmo110m,
        Self::Olmo1b,
        Self::Olmo7b,
        Self::Olmo2With1b,
        Self::Olmo2With7b,
    ];

    /// What it stands for.
    fn overrides(self) -> Overrides {
        match self {
            Self::Olmo300k => shape(4, 64, 2),
            Self::Olmo1m => shape(4, 128, 4),
            Self::Olmo6m => shape(6, 256, 4),
            Self::Olmo25m => shape(8, 448, 7),
            Self::Olmo110m => shape(12, 768, 12),
            Self::Olmo1b => shape(16, 2048, 16),
            Self::Olmo7b => seven_billion(Family::Olmo),
            Self::Olmo2With1b => untied(Family::Olmo2, shape(16, 2048, 16)),
            Self::Olmo2With7b => seven_billion(Family::Olmo2),
        }
    }
}

fn shape(layers: u32, width: u32, heads: u32) -> Overrides {
    Overrides { layers: Some(layers), width: Some(width), heads: Some(heads), ..Overrides::default() }
}

fn untied(family: Family, shape: Overrides) -> Overrides {
    Overrides { family: Some(family), tied_head: Some(false), ..shape }
}

fn seven_billion(family: Family) -> Overrides {
    Overrides { feed_forward: Some(11008), ..untied(family, shape(32, 4096, 32)) }
}

impl Overrides {
    /// These, and where they are silent, `base`.
    fn over(&self, base: &Self) -> Self {
        Self {
            family: self.family.or(base.family),
            layers: self.layers.or(base.layers),
            width: self.width.or(base.width),
            heads: self.heads.or(base.heads),
            kv_heads: self.kv_heads.or(base.kv_heads),
            feed_forward: self.feed_forward.or(base.feed_forward),
            rope_theta: self.rope_theta.or(base.rope_theta),
            clip_qkv: self.clip_qkv.or(base.clip_qkv),
            tied_head: self.tied_head.or(base.tied_head),
            init: self.init.or(base.init),
        }
    }
}

impl Config {
    /// Completes a preset and what differs from it, for `vocabulary` token ids and rows of `context` tokens.
    pub fn resolve(
        preset: Option<Preset>,
        overrides: &Overrides,
        vocabulary: u32,
        context: u32,
    ) -> Result<Self, Error> {
        let written = overrides.over(&preset.map_or_else(Overrides::default, Preset::overrides));
        let family = written.family.unwrap_or(Family::Olmo);
        let width = written.width.ok_or(Error::Missing("width"))?;
        let heads = written.heads.ok_or(Error::Missing("heads"))?;
        let custom = Custom::of(family);
        Self {
            family,
            layers: written.layers.ok_or(Error::Missing("layers"))?,
            width,
            heads,
            kv_heads: written.kv_heads.unwrap_or(heads),
            feed_forward: written.feed_forward.unwrap_or(4 * width),
            vocabulary,
            padded_vocabulary: vocabulary.next_multiple_of(VOCABULARY_MULTIPLE),
            context,
            rope_theta: written.rope_theta.unwrap_or(custom.rope_theta),
            clip_qkv: written.clip_qkv,
            tied_head: written.tied_head.unwrap_or(true),
            norm_epsilon: custom.norm_epsilon,
            init: written.init.unwrap_or(custom.init),
        }
        .checked()
    }

    pub(super) fn checked(self) -> Result<Self, Error> {
        let sizes = [
            ("layers", self.layers),
            ("width", self.width),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("feed_forward", self.feed_forward),
            ("vocabulary", self.vocabulary),
            ("context", self.context),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(Error::Zero(name));
        }
        divides("width", self.width, "heads, doubled,", 2 * self.heads)?;
        divides("heads", self.heads, "kv_heads", self.kv_heads)?;
        Ok(self)
    }

    /// Width of one head.
    pub const fn head_width(&self) -> u32 {
        self.width / self.heads
    }

    /// Width of all keys, and of all values.
    pub const fn kv_width(&self) -> u32 {
        self.kv_heads * self.head_width()
    }
}

pub(super) fn divides(what: &'static str, found: u32, of: &'static str, divisor: u32) -> Result<(), Error> {
    if found.is_multiple_of(divisor) { Ok(()) } else { Err(Error::Indivisible { what, found, of, divisor }) }
}

/// What a family does unless told otherwise.
struct Custom {
    rope_theta: f64,
    norm_epsilon: f64,
    init: Init,
}

impl Custom {
    const fn of(family: Family) -> Self {
        match family {
            Family::Olmo => Self { rope_theta: 10_000.0, norm_epsilon: 1e-5, init: Init::Mitchell },
            Family::Olmo2 => Self { rope_theta: 500_000.0, norm_epsilon: 1e-6, init: Init::Normal },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_win_over_the_preset() {
        let overrides = Overrides { layers: Some(2), kv_heads: Some(2), ..Overrides::default() };
        let config = Config::resolve(Some(Preset::Olmo1m), &overrides, 1000, 256).unwrap();
        assert_eq!((config.layers, config.width, config.feed_forward), (2, 128, 512));
        assert_eq!((config.heads, config.kv_heads, config.kv_width()), (4, 2, 64));
        assert_eq!((config.vocabulary, config.padded_vocabulary), (1000, 1024));
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let odd = Overrides { heads: Some(3), ..Overrides::default() };
        let groups = Overrides { kv_heads: Some(3), ..Overrides::default() };
        let none = Overrides { layers: Some(0), ..Overrides::default() };
        let cases = [
            (Some(Preset::Olmo1m), odd, "model width 128 is no multiple of heads, doubled, 6"),
            (Some(Preset::Olmo1m), groups, "model heads 4 is no multiple of kv_heads 3"),
            (Some(Preset::Olmo1m), none, "model `layers` is 0: expected at least 1"),
            (
                None,
                Overrides::default(),
                "the model needs `width`: name a preset, such as `olmo-1m`, or give layers, width and heads",
            ),
        ];
        for (preset, overrides, expected) in cases {
            let error = Config::resolve(preset, &overrides, 16, 16).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn presets_are_written_by_name() {
        let names = Preset::ALL.map(|preset| serde_json::to_string(&preset).unwrap());
        assert_eq!(names[1], "\"olmo-1m\"");
        for (name, preset) in names.iter().zip(Preset::ALL) {
            assert_eq!(serde_json::from_str::<Preset>(name).unwrap(), preset);
            assert_eq!(preset.to_string().parse(), Ok(preset));
        }
    }
}
