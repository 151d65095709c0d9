//! One token a base, with the ids of `HyenaDNA`'s character tokenizer.
//!
//! Ids 0 to 6 are `[CLS] [SEP] [BOS] [MASK] [PAD] [RESERVED] [UNK]`, 7 to 11 are A C G T N; ids 12 to 22, which
//! `HyenaDNA` lacks, are the other IUPAC codes, so that nothing is lost. `HyenaDNA`'s own end-of-text token is `[SEP]`,
//! which `special("[EOS]")` answers too.

use super::vocabulary::Vocabulary;
use super::{Error, Tokenizer, hf_json};

/// `HyenaDNA`'s tokens in the order of their ids.
const HYENA: [&str; 12] =
    ["[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]", "A", "C", "G", "T", "N"];
/// The codes that `HyenaDNA` does not know, with ids from 12.
const AMBIGUOUS: [&str; 11] = ["B", "D", "H", "K", "M", "R", "S", "U", "V", "W", "Y"];
const UNKNOWN: u32 = 6;
const SPECIAL: [u32; 7] = [0, 1, 2, 3, 4, 5, UNKNOWN];

/// The character tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nucleotide {
    vocabulary: Vocabulary,
    /// Id of every byte.
    ids: Box<[u32; 256]>,
}

impl Nucleotide {
    /// 23 ids; lossless on every IUPAC code.
    pub fn new() -> Self {
        Self::from_texts(HYENA.iter().chain(&AMBIGUOUS).copied())
    }

    /// `HyenaDNA`'s 12 ids and no more: codes other than A C G T N become `[UNK]` and are lost.
    pub fn hyena() -> Self {
        Self::from_texts(HYENA.into_iter())
    }

    fn from_texts(texts: impl Iterator<Item = &'static str>) -> Self {
        let texts: Vec<Box<str>> = texts.map(Into::into).collect();
        let mut ids = Box::new([UNKNOWN; 256]);
        for (id, text) in (0..).zip(&texts) {
            if let [byte] = text.as_bytes() {
                ids[usize::from(*byte)] = id;
            }
        }
        let vocabulary = Vocabulary::new(texts, &SPECIAL).unwrap_or_default();
        Self { vocabulary, ids }
    }
}

impl Default for Nucleotide {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer for Nucleotide {
    fn vocabulary_size(&self) -> u32 {
        self.vocabulary.len()
    }

    fn encode_into(&self, bases: &[u8], ids: &mut Vec<u32>) {
        ids.extend(bases.iter().map(|&base| self.ids[usize::from(base)]));
    }

    fn decode_into(&self, ids: &[u32], bases: &mut Vec<u8>) -> Result<(), Error> {
        bases.reserve(ids.len());
        ids.iter().try_for_each(|&id| self.vocabulary.decode_into(id, bases))
    }

    fn bases(&self, token: u32) -> u32 {
        self.vocabulary.bases(token)
    }

    fn bases_of(&self, ids: &[u32]) -> u64 {
        // The letters are what follows the special tokens; counts of 32 bits are added many at a time.
        let letters = UNKNOWN + 1..self.vocabulary.len();
        let count = |ids: &[u32]| ids.iter().map(|id| u32::from(letters.contains(id))).sum::<u32>();
        ids.chunks(1 << 16).map(|ids| u64::from(count(ids))).sum()
    }

    fn special(&self, text: &str) -> Option<u32> {
        self.vocabulary.special(if text == "[EOS]" { "[SEP]" } else { text })
    }

    fn text(&self, token: u32) -> Option<&str> {
        self.vocabulary.text(token)
    }

    fn to_json(&self) -> String {
        hf_json::write_words(&self.vocabulary, "[UNK]", hf_json::Words::Nucleotide)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_hyena_dna() {
        let mut ids = Vec::new();
        Nucleotide::hyena().encode_into(b"ACGTNR", &mut ids);
        assert_eq!(ids, [7, 8, 9, 10, 11, 6]);
        let nucleotide = Nucleotide::new();
        assert_eq!(nucleotide.special("[EOS]"), Some(1));
        let all: Vec<u32> = (0..40).collect();
        let sum: u64 = all.iter().map(|&id| u64::from(nucleotide.bases(id))).sum();
        assert_eq!(nucleotide.bases_of(&all), sum);
    }
}
