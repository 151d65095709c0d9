//! The two large fields of `tokenizer.json`, kept in the order of the file.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// `model.vocab`: texts with their ids; a text that stands twice is kept twice.
pub struct Pairs(pub Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("texts with their ids")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

/// One of `model.merges`: `["A", "C"]`, or `"A C"` in older files.
pub struct Merge(pub String, pub String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "a pair of texts, or one text with a space between two")]
        enum Written {
            Pair(String, String),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Pair(left, right) => Ok(Self(left, right)),
            Written::Text(text) => match text.split_once(' ') {
                Some((left, right)) if !right.contains(' ') => Ok(Self(left.into(), right.into())),
                _ => Err(D::Error::custom(format!("merge `{text}` is not two texts with a space between"))),
            },
        }
    }
}
