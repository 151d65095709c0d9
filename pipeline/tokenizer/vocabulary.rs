//! The texts of tokens by id, and which of them are special.

use std::collections::HashMap;

use super::Error;

/// Special tokens of the vocabularies that are trained here, in the order of their ids, from 0.
///
/// The first five are those of DNABERT-2 (for masked models), the last two are what a causal model needs; padding has
/// id 0, so that zeroed memory is padding.
pub const SPECIAL_TOKENS: [&str; 7] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]"];

/// Tokens by id: every id from 0 to `len - 1` has one text, and no text has two ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vocabulary {
    texts: Vec<Box<str>>,
    special: Vec<bool>,
    /// Bases of each, 0 for special ones.
    bases: Vec<u32>,
    ids: HashMap<Box<str>, u32>,
}

impl Vocabulary {
    /// From texts in the order of their ids.
    ///
    /// # Errors
    /// [`Error::Field`] when a text stands twice or is empty.
    pub fn new(texts: Vec<Box<str>>, special: &[u32]) -> Result<Self, Error> {
        let mut ids = HashMap::with_capacity(texts.len());
        for (id, text) in (0_u32..).zip(&texts) {
            if text.is_empty() {
                return Err(bad_token(format!("the empty text, with id {id}"), "a text"));
            }
            if let Some(other) = ids.insert(text.clone(), id) {
                return Err(bad_token(format!("`{text}` with ids {other} and {id}"), "one id per text"));
            }
        }
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let bases = texts.iter().map(|text| length(text)).collect();
        let mut vocabulary = Self { special: vec![false; texts.len()], texts, bases, ids };
        let known = vocabulary.len();
        for &id in special.iter().filter(|id| **id < known) {
            vocabulary.special[id as usize] = true;
            vocabulary.bases[id as usize] = 0;
        }
        Ok(vocabulary)
    }

    /// From `(text, id)` pairs in any order.
    ///
    /// # Errors
    /// [`Error::Hole`], [`Error::SharedId`] or [`Error::Field`] when ids and texts are not one to one, from 0 on.
    pub fn from_pairs(pairs: Vec<(String, u32)>, special: &[u32]) -> Result<Self, Error> {
        let last = pairs.iter().map(|&(_, id)| id).max().unwrap_or(0);
        let mut sorted = pairs;
        sorted.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        sorted.dedup();
        for (expected, (text, id)) in (0_u32..).zip(&sorted) {
            if *id < expected {
                let first = sorted[expected as usize - 1].0.clone();
                return Err(Error::SharedId { id: *id, first, second: text.clone() });
            }
            if *id > expected {
                return Err(Error::Hole { missing: expected, last });
            }
        }
        Self::new(sorted.into_iter().map(|(text, _)| text.into_boxed_str()).collect(), special)
    }

    /// Number of tokens.
    pub fn len(&self) -> u32 {
        u32::try_from(self.texts.len()).unwrap_or(u32::MAX)
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The text of `id`.
    pub fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize).map(AsRef::as_ref)
    }

    /// The id of `text`, special or not.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The id of a special token.
    pub fn special(&self, text: &str) -> Option<u32> {
        self.id(text).filter(|&id| self.is_special(id))
    }

    /// Whether `id` is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Number of bases that `id` stands for: the length of its text, 0 for special tokens and ids out of range.
    pub fn bases(&self, id: u32) -> u32 {
        self.bases.get(id as usize).copied().unwrap_or(0)
    }

    /// The texts in the order of their ids, each with whether it is special.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.texts.iter().map(AsRef::as_ref).zip(self.special.iter().copied())
    }

    /// Appends the bases of `id`.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id out of range.
    pub fn decode_into(&self, id: u32, bases: &mut Vec<u8>) -> Result<(), Error> {
        let text =
            self.text(id).ok_or(Error::UnknownToken { found: id, last: self.len().saturating_sub(1) })?;
        if !self.is_special(id) {
            bases.extend_from_slice(text.as_bytes());
        }
        Ok(())
    }
}

fn bad_token(found: String, expected: &str) -> Error {
    Error::Field { field: "model.vocab".into(), found, expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, u32)]) -> Vec<(String, u32)> {
        list.iter().map(|&(text, id)| (text.to_owned(), id)).collect()
    }

    #[test]
    fn ids_and_texts_are_one_to_one() {
        for (list, expected) in [
            (&[("A", 0), ("C", 1), ("T", 3)][..], "no token has id 2, though ids go up to 3"),
            (&[("A", 0), ("C", 1), ("G", 1)], "tokens `C` and `G` share id 1"),
            (&[("A", 0), ("A", 1)], "`model.vocab` is `A` with ids 0 and 1; expected one id per text"),
            (&[("A", 0), ("", 1)], "`model.vocab` is the empty text, with id 1; expected a text"),
        ] {
            assert_eq!(Vocabulary::from_pairs(pairs(list), &[]).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn special_tokens_stand_for_no_bases() {
        let vocabulary = Vocabulary::from_pairs(pairs(&[("ACG", 1), ("[PAD]", 0)]), &[0]).unwrap();
        assert_eq!([0, 1, 2].map(|id| vocabulary.bases(id)), [0, 3, 0]);
        assert_eq!((vocabulary.special("[PAD]"), vocabulary.special("ACG")), (Some(0), None));
    }
}
