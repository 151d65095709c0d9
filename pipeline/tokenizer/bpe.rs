//! Byte pair encoding, equal merge for merge and id for id to Hugging Face's.
//!
//! In vocabularies trained here every IUPAC code is a token of its own, and only A, C, G and T are merged: an N or any
//! other code ends a run, stands for itself and comes back when decoded. Nothing becomes `[UNK]`.

use super::vocabulary::Vocabulary;
use super::{Error, Tokenizer, hf_json};

pub mod encode;
pub mod learnt;
pub mod train;

/// What a BPE tokenizer is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Texts by id.
    pub vocabulary: Vocabulary,
    /// Pairs of ids in the order in which they are merged.
    pub merges: Vec<(u32, u32)>,
    /// Id of bytes that the vocabulary lacks; `None` only where it has every IUPAC code.
    pub unknown: Option<u32>,
    /// Whether a run of unknown bytes is one token.
    pub fuse_unknown: bool,
    /// Whether white space separates words and is dropped.
    pub drop_whitespace: bool,
    /// Special tokens before a sequence.
    pub before: Vec<u32>,
    /// Special tokens after a sequence.
    pub after: Vec<u32>,
}

/// A BPE tokenizer.
#[derive(Debug, Clone)]
pub struct Bpe {
    parts: Parts,
    encoder: encode::Encoder,
}

impl Bpe {
    /// Makes the encoder's tables.
    ///
    /// # Errors
    /// [`Error::MergeOfUnknown`] or [`Error::MergeTwice`] for merges that make no sense; [`Error::Field`] when an IUPAC
    /// code would be dropped.
    pub fn new(parts: Parts) -> Result<Self, Error> {
        let encoder = encode::Encoder::new(&parts)?;
        Ok(Self { parts, encoder })
    }

    /// What it is made of.
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The merges as texts, in order.
    pub fn merges(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = |id| self.parts.vocabulary.text(id).unwrap_or_default();
        self.parts.merges.iter().map(move |&(left, right)| (text(left), text(right)))
    }
}

impl Tokenizer for Bpe {
    fn vocabulary_size(&self) -> u32 {
        self.parts.vocabulary.len()
    }

    fn encode_into(&self, bases: &[u8], ids: &mut Vec<u32>) {
        self.encoder.encode_into(bases, ids);
    }

    fn decode_into(&self, ids: &[u32], bases: &mut Vec<u8>) -> Result<(), Error> {
        ids.iter().try_for_each(|&id| self.parts.vocabulary.decode_into(id, bases))
    }

    fn bases(&self, token: u32) -> u32 {
        self.parts.vocabulary.bases(token)
    }

    fn special(&self, text: &str) -> Option<u32> {
        self.parts.vocabulary.special(text)
    }

    fn text(&self, token: u32) -> Option<&str> {
        self.parts.vocabulary.text(token)
    }

    fn template(&self) -> (&[u32], &[u32]) {
        (&self.parts.before, &self.parts.after)
    }

    fn to_json(&self) -> String {
        hf_json::write_bpe(self)
    }
}
