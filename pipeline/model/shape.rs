//! What a model of any family looks like, what it costs, and the presets of all families by name. Nothing is allocated.

mod cost;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::config::{Config, Preset};
use super::dnabert2::{self, Heads};
use super::hf;
use super::hyena;
use super::layout::Parameter;
use crate::fs;

/// What stands before the names of HyenaDNA's presets.
const HYENA: &str = "hyenadna-";

/// A model with every number known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Shape {
    /// An OLMo.
    Olmo(Config),
    /// A HyenaDNA.
    Hyena {
        /// Its numbers.
        hyenadna: hyena::Config,
    },
    /// A DNABERT-2 with its head for masked tokens.
    Dnabert2 {
        /// Its numbers.
        dnabert2: dnabert2::Config,
    },
}

/// A named shape of any family, such as `olmo-1m`, `hyenadna-tiny-1k` or `dnabert2-117m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Named {
    /// An OLMo.
    Olmo(Preset),
    /// A HyenaDNA.
    Hyena(hyena::Preset),
    /// A DNABERT-2.
    Dnabert2(dnabert2::Preset),
}

impl Named {
    /// Every named shape, by family, smallest first.
    pub fn all() -> impl Iterator<Item = Self> {
        let olmo = Preset::ALL.into_iter().map(Self::Olmo);
        let hyena = hyena::Preset::ALL.into_iter().map(Self::Hyena);
        olmo.chain(hyena).chain(dnabert2::Preset::ALL.into_iter().map(Self::Dnabert2))
    }
}

impl Named {
    /// This shape for `vocabulary` token ids and rows of `context` tokens.
    ///
    /// # Errors
    /// Where the shape cannot be, as `expected ...` of rows that are longer than a HyenaDNA's positions.
    pub fn shape(self, vocabulary: u32, context: u32) -> Result<Shape, String> {
        let shape = match self {
            Self::Olmo(preset) => {
                Config::resolve(Some(preset), &super::Overrides::default(), vocabulary, context)
                    .map(Shape::Olmo)
            }
            Self::Hyena(preset) => Ok(Shape::Hyena { hyenadna: preset.config().with_vocabulary(vocabulary) }),
            Self::Dnabert2(preset) => {
                preset.config(vocabulary, None).map(|dnabert2| Shape::Dnabert2 { dnabert2 })
            }
        };
        let shape = shape.map_err(|error| error.to_string())?;
        match shape.longest() {
            Some(longest) if context > longest => {
                Err(format!("rows of {context} tokens are longer than what `{self}` takes, {longest}"))
            }
            _ => Ok(shape),
        }
    }
}

impl From<Preset> for Named {
    fn from(preset: Preset) -> Self {
        Self::Olmo(preset)
    }
}

impl From<hyena::Preset> for Named {
    fn from(preset: hyena::Preset) -> Self {
        Self::Hyena(preset)
    }
}

impl From<dnabert2::Preset> for Named {
    fn from(preset: dnabert2::Preset) -> Self {
        Self::Dnabert2(preset)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Olmo(preset) => preset.fmt(f),
            Self::Hyena(preset) => write!(f, "{HYENA}{preset}"),
            Self::Dnabert2(preset) => preset.fmt(f),
        }
    }
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        super::config::by_name(&Self::all().collect::<Vec<_>>(), text)
    }
}

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|expected| format!("unknown variant `{text}`, {expected}"))
    }
}

impl From<Named> for String {
    fn from(named: Named) -> Self {
        named.to_string()
    }
}

impl JsonSchema for Named {
    fn schema_name() -> Cow<'static, str> {
        "Preset".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A named shape. An OLMo's name counts the parameters of the layers, without the embedding, up to 1b.",
            "type": "string",
            "enum": Self::all().map(|named| named.to_string()).collect::<Vec<_>>(),
        })
    }
}

impl From<Config> for Shape {
    fn from(config: Config) -> Self {
        Self::Olmo(config)
    }
}

impl Shape {
    /// The family's name.
    pub const fn family(&self) -> &'static str {
        match self {
            Self::Olmo(_) => "OLMo",
            Self::Hyena { .. } => "HyenaDNA",
            Self::Dnabert2 { .. } => "DNABERT-2",
        }
    }

    /// The model of a folder, by its `config.json`.
    pub fn read(folder: &Path) -> Result<Self, hf::Error> {
        let path = folder.join(hf::CONFIG);
        let bytes = fs::read(&path)?;
        let config = serde_json::from_slice(&bytes).map_err(|source| hf::Error::Json { path, source })?;
        if hyena::config::is_hyena(&config) {
            return Ok(Self::Hyena { hyenadna: hyena::Config::read(folder)? });
        }
        if dnabert2::is_dnabert2(&config) {
            return Ok(Self::Dnabert2 { dnabert2: dnabert2::read_config(folder)? });
        }
        hf::read_config(folder).map(Self::Olmo)
    }

    /// Number of token ids.
    pub const fn vocabulary(&self) -> u32 {
        match self {
            Self::Olmo(config) => config.vocabulary,
            Self::Hyena { hyenadna } => hyenadna.vocabulary,
            Self::Dnabert2 { dnabert2 } => dnabert2.vocabulary,
        }
    }

    /// The same model for a tokenizer of `vocabulary` ids, at most its own: of an OLMo the others are never predicted.
    #[must_use]
    pub fn of_ids(self, vocabulary: u32) -> Self {
        match self {
            Self::Olmo(config) => Self::Olmo(Config { vocabulary, ..config }),
            other => other,
        }
    }

    /// The trainable tensors.
    pub fn layout(&self) -> Vec<Parameter> {
        match self {
            Self::Olmo(config) => config.parameters(),
            Self::Hyena { hyenadna } => hyenadna.layout(None),
            Self::Dnabert2 { dnabert2 } => dnabert2.parameters(Heads { masked: true, ..Heads::default() }),
        }
    }

    /// Number of parameters, padding included.
    pub fn count(&self) -> u64 {
        self.layout().iter().map(Parameter::len).sum()
    }

    /// Tokens that the model sees at most; none where any number will do.
    pub const fn longest(&self) -> Option<u32> {
        match self {
            Self::Olmo(config) => Some(config.context),
            Self::Hyena { hyenadna } => Some(hyenadna.longest),
            Self::Dnabert2 { .. } => None,
        }
    }

    /// Whether it guesses hidden tokens instead of the next one: such a model has no bits per base.
    pub const fn is_masked(&self) -> bool {
        matches!(self, Self::Dnabert2 { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Overrides;

    #[test]
    fn every_name_means_one_shape() {
        let names = Named::all().map(|named| named.to_string()).collect::<Vec<_>>();
        assert_eq!(names.len(), 17);
        for (name, named) in names.iter().zip(Named::all()) {
            assert_eq!(name.parse(), Ok(named));
            assert_eq!(serde_json::to_string(&named).unwrap(), format!("\"{name}\""));
        }
        let error = serde_json::from_str::<Named>("\"tiny-1k\"").unwrap_err().to_string();
        assert!(error.starts_with("unknown variant `tiny-1k`, expected one of olmo-300k,"), "{error}");
    }

    #[test]
    fn shapes_are_told_apart_when_read_back() {
        let olmo = Config::resolve(Some(Preset::Olmo1m), &Overrides::default(), 100, 64).unwrap();
        let hyenadna = hyena::Preset::Tiny1k.config();
        let dnabert2 = dnabert2::Preset::Small1m.config(100, Some(3)).unwrap();
        for shape in [Shape::Olmo(olmo), Shape::Hyena { hyenadna }, Shape::Dnabert2 { dnabert2 }] {
            let text = serde_json::to_string(&shape).unwrap();
            assert_eq!(serde_json::from_str::<Shape>(&text).unwrap(), shape, "{text}");
            let work = shape.work_per_token(64) / shape.count() as f64;
            assert!((4.0..12.0).contains(&work), "{}: {work} operations per parameter", shape.family());
        }
    }
}
