//! What a vocabulary does on a text: a look at it, and how well it compresses.

use serde::{Deserialize, Serialize};

use super::Tokenizer;

/// A token with its text and a number that says why it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Occurrences, or bases.
    pub count: u64,
}

/// Use of a vocabulary on a text. Special tokens are left out of every figure but `vocabulary_size`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Info {
    /// Number of ids.
    pub vocabulary_size: u32,
    /// Bases of the text.
    pub bases: u64,
    /// Tokens of the text.
    pub tokens: u64,
    /// Bases per token; none for an empty text.
    pub bases_per_token: Option<f64>,
    /// Bits per base of the unigram model of these tokens: entropy of a token over its mean length; none for an empty
    /// text.
    pub unigram_bits_per_base: Option<f64>,
    /// Tokens that do not occur, special tokens left out.
    pub unused: u32,
    /// The most frequent tokens, with occurrences.
    pub most_frequent: Vec<Listed>,
    /// The longest tokens of the vocabulary, with their bases.
    pub longest: Vec<Listed>,
}

/// Counts of tokens, gathered piece by piece.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Usage {
    counts: Vec<u64>,
    bases: u64,
}

impl Usage {
    /// Adds the ids of a piece.
    pub fn add(&mut self, tokenizer: &dyn Tokenizer, ids: &[u32]) {
        self.counts.resize(tokenizer.vocabulary_size() as usize, 0);
        self.bases += tokenizer.bases_of(ids);
        for &id in ids.iter().filter(|&&id| tokenizer.bases(id) > 0) {
            self.counts[id as usize] += 1;
        }
    }

    /// Adds what was counted elsewhere with the same tokenizer.
    pub fn merge(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.bases += other.bases;
    }

    /// Occurrences of a token; 0 for special tokens.
    pub fn count(&self, id: u32) -> u64 {
        self.counts.get(id as usize).copied().unwrap_or(0)
    }

    /// Sums up; lists are of up to `listed` tokens.
    pub fn info(&self, tokenizer: &dyn Tokenizer, listed: usize) -> Info {
        let count = |id: u32| self.count(id);
        let ids = || (0..tokenizer.vocabulary_size()).filter(|&id| tokenizer.bases(id) > 0);
        let tokens: u64 = self.counts.iter().sum();
        let list = |value: &dyn Fn(u32) -> u64| {
            let mut all: Vec<(u64, u32)> =
                ids().map(|id| (value(id), id)).filter(|item| item.0 > 0).collect();
            all.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
            let named =
                |(count, id)| Listed { id, text: tokenizer.text(id).unwrap_or_default().into(), count };
            all.into_iter().take(listed).map(named).collect()
        };
        Info {
            vocabulary_size: tokenizer.vocabulary_size(),
            bases: self.bases,
            tokens,
            bases_per_token: (tokens > 0).then(|| self.bases as f64 / tokens as f64),
            unigram_bits_per_base: self.bits().map(|bits| bits / self.bases as f64),
            unused: u32::try_from(ids().filter(|&id| count(id) == 0).count()).unwrap_or(u32::MAX),
            most_frequent: list(&count),
            longest: list(&|id| tokenizer.bases(id).into()),
        }
    }

    /// Bits per base of this text under the unigram model of another one, in which every token occurs half a time more
    /// than it does; none for an empty text.
    pub fn bits_per_base_under(&self, tokenizer: &dyn Tokenizer, model: &Self) -> Option<f64> {
        let occurs = |id: u32| model.count(id) as f64 + 0.5;
        let ids = || (0..tokenizer.vocabulary_size()).filter(|&id| tokenizer.bases(id) > 0);
        let total: f64 = ids().map(occurs).sum();
        let bits: f64 = ids().map(|id| self.count(id) as f64 * (total / occurs(id)).log2()).sum();
        (self.bases > 0).then(|| bits / self.bases as f64)
    }

    /// Bits of the whole text under its own unigram model; none for an empty text.
    fn bits(&self) -> Option<f64> {
        let total = self.counts.iter().sum::<u64>() as f64;
        let used = self.counts.iter().filter(|&&count| count > 0);
        (self.bases > 0).then(|| used.map(|&count| count as f64 * (total / count as f64).log2()).sum())
    }
}

/// Encodes a text and sums up.
pub fn describe(tokenizer: &dyn Tokenizer, pieces: &[&[u8]], listed: usize) -> Info {
    let mut usage = Usage::default();
    let mut ids = Vec::new();
    for piece in pieces {
        ids.clear();
        tokenizer.encode_into(piece, &mut ids);
        usage.add(tokenizer, &ids);
    }
    usage.info(tokenizer, listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::kmer::{Config, Kmer};
    use crate::tokenizer::nucleotide::Nucleotide;

    #[test]
    fn four_equal_bases_take_two_bits() {
        let info = describe(&Nucleotide::new(), &[b"ACGT", b"TGCA"], 2);
        assert_eq!((info.bases, info.tokens, info.unused), (8, 8, 12));
        assert_eq!((info.bases_per_token, info.unigram_bits_per_base), (Some(1.0), Some(2.0)));
        assert_eq!(info.most_frequent[0], Listed { id: 7, text: "A".into(), count: 2 });
        assert_eq!(info.most_frequent.len(), 2);
    }

    #[test]
    fn the_model_of_another_text_costs_at_least_as_much() {
        let tokenizer = Nucleotide::new();
        let usage = |text: &[u8]| {
            let (mut usage, mut ids) = (Usage::default(), Vec::new());
            tokenizer.encode_into(text, &mut ids);
            usage.add(&tokenizer, &ids);
            usage
        };
        let (text, alike, other) = (usage(b"AACG"), usage(&b"AACG".repeat(10_000)), usage(&b"T".repeat(100)));
        let under = |model: &Usage| text.bits_per_base_under(&tokenizer, model).unwrap();
        assert!((under(&alike) - 1.5).abs() < 1e-3, "{}", under(&alike));
        assert!(under(&other) > 7.0, "{}", under(&other));
        assert_eq!(Usage::default().bits_per_base_under(&tokenizer, &alike), None);
    }

    #[test]
    fn nothing_has_no_mean() {
        let info = describe(&Nucleotide::new(), &[], 5);
        assert_eq!((info.tokens, info.bases_per_token, info.unigram_bits_per_base), (0, None, None));
        assert_eq!(info.most_frequent, []);
    }

    #[test]
    fn longest_tokens_are_listed_and_parts_add_up() {
        let kmer = Kmer::new(Config { k: 2, overlapping: false }).unwrap();
        let whole = describe(&kmer, &[b"ACAC", b"GGT"], 3);
        assert_eq!(whole.longest[0], Listed { id: 4, text: "AA".into(), count: 2 });
        assert_eq!((whole.bases, whole.tokens), (7, 4));
        let mut parts = Usage::default();
        for piece in [&b"GGT"[..], b"ACAC"] {
            let (mut usage, mut ids) = (Usage::default(), Vec::new());
            kmer.encode_into(piece, &mut ids);
            usage.add(&kmer, &ids);
            parts.merge(&usage);
        }
        assert_eq!(parts.info(&kmer, 3), whole);
    }
}
