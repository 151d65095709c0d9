//! Words of k bases, overlapping (DNABERT) or side by side (Nucleotide Transformer).
//!
//! Words are made of A, C, G and T only. Every other IUPAC code is a token of its own and ends the run of words, and so
//! do the bases at the end of a run that are too few for a word: nothing is lost. Words are numbered in the order
//! A, T, C, G, as both models do.
//!
//! Side by side: ids 0 to 3 are `[UNK] [PAD] [MASK] [CLS]`, then the words, then A T C G N, `[EOS]` and `[BOS]` as in
//! Nucleotide Transformer, then the other codes. Overlapping: ids 0 to 4 are `[PAD] [UNK] [CLS] [SEP] [MASK]`, then the words as in
//! DNABERT; then single bases and codes, `[BOS]` and `[EOS]`, which DNABERT lacks.
//!
//! Memory: the texts of `4^k` words; 65,536 at k = 8.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::vocabulary::Vocabulary;
use super::{Error, Tokenizer, hf_json};

/// Bases in the order in which words count.
const ORDER: [u8; 4] = *b"ATCG";
/// Single letters in the order of their ids.
const LETTERS: [&str; 16] = ["A", "T", "C", "G", "N", "B", "D", "H", "K", "M", "R", "S", "U", "V", "W", "Y"];
const BESIDE: [&str; 4] = ["[UNK]", "[PAD]", "[MASK]", "[CLS]"];
const OVERLAPPING: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// The largest k.
pub const MAX_K: u32 = 8;

/// What words to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Bases of a word, 1 to 8.
    #[schemars(range(min = 1, max = 8))]
    pub k: u32,
    /// Whether a word begins at every base (DNABERT) or at every k-th (Nucleotide Transformer).
    #[serde(default)]
    pub overlapping: bool,
}

/// The k-mer tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kmer {
    config: Config,
    vocabulary: Vocabulary,
    /// Id of the first word.
    first_word: u32,
    /// Id of every byte that stands alone.
    letters: Box<[u32; 256]>,
}

impl Kmer {
    /// Makes the vocabulary.
    ///
    /// # Errors
    /// [`Error::Option`] when `k` is not 1 to 8.
    pub fn new(config: Config) -> Result<Self, Error> {
        if !(1..=MAX_K).contains(&config.k) {
            return Err(Error::Option {
                option: "k",
                found: config.k.to_string(),
                expected: "1 to 8".into(),
            });
        }
        let before: &[&str] = if config.overlapping { &OVERLAPPING } else { &BESIDE };
        let mut texts: Vec<Box<str>> = before.iter().map(|&text| text.into()).collect();
        texts.extend((0..1 << (2 * config.k)).map(|word| word_text(word, config.k)));
        // Words of one base are the first four letters.
        let (bases, codes) = LETTERS.split_at(5);
        let bases = if config.k == 1 { &bases[4..] } else { bases };
        let after: [&[&str]; 3] = if config.overlapping {
            [bases, codes, &["[BOS]", "[EOS]"]]
        } else {
            [bases, &["[EOS]", "[BOS]"], codes]
        };
        texts.extend(after.concat().into_iter().map(Into::into));
        let special: Vec<u32> =
            (0..).zip(&texts).filter(|(_, text)| text.starts_with('[')).map(|(id, _)| id).collect();
        let vocabulary = Vocabulary::new(texts, &special)?;
        let letters = letter_ids(&vocabulary);
        let first_word = u32::try_from(before.len()).unwrap_or(0);
        Ok(Self { config, vocabulary, first_word, letters })
    }

    /// What it was made from.
    pub const fn config(&self) -> Config {
        self.config
    }

    fn words(&self) -> u32 {
        1 << (2 * self.config.k)
    }

    fn is_word(&self, id: u32) -> bool {
        id.wrapping_sub(self.first_word) < self.words()
    }

    /// Whether the word `id` continues the word `previous` by one base.
    fn continues(&self, previous: u32, id: u32) -> bool {
        let (previous, word) = (previous - self.first_word, id - self.first_word);
        (previous << 2) & (self.words() - 1) == word & !3
    }

    fn encode_run(&self, run: &[u8], ids: &mut Vec<u32>) {
        let k = self.config.k as usize;
        if run.len() < k {
            self.encode_letters(run, ids);
        } else if self.config.overlapping {
            ids.extend(run.windows(k).map(|word| self.first_word + word_index(word)));
        } else {
            let words = run.chunks_exact(k);
            let rest = words.remainder();
            ids.extend(words.map(|word| self.first_word + word_index(word)));
            self.encode_letters(rest, ids);
        }
    }

    fn encode_letters(&self, letters: &[u8], ids: &mut Vec<u32>) {
        ids.extend(letters.iter().map(|&letter| self.letters[usize::from(letter)]));
    }

    fn no_overlap(&self, index: usize, previous: u32, id: u32) -> Error {
        let text = |id| self.vocabulary.text(id).unwrap_or_default().to_owned();
        Error::NoOverlap { index, found: text(id), previous: text(previous) }
    }
}

fn letter_ids(vocabulary: &Vocabulary) -> Box<[u32; 256]> {
    let mut letters = Box::new([vocabulary.id("[UNK]").unwrap_or(0); 256]);
    for letter in LETTERS {
        if let Some(id) = vocabulary.id(letter) {
            letters[usize::from(letter.as_bytes()[0])] = id;
        }
    }
    letters
}

/// 0 to 3 in the order A, T, C, G; 4 for other bytes.
const fn code(base: u8) -> u32 {
    match base {
        b'A' => 0,
        b'T' => 1,
        b'C' => 2,
        b'G' => 3,
        _ => 4,
    }
}

fn word_index(word: &[u8]) -> u32 {
    word.iter().fold(0, |index, &base| index << 2 | code(base))
}

fn word_text(word: u32, k: u32) -> Box<str> {
    (0..k).rev().map(|i| char::from(ORDER[(word >> (2 * i)) as usize & 3])).collect::<String>().into()
}

impl Tokenizer for Kmer {
    fn vocabulary_size(&self) -> u32 {
        self.vocabulary.len()
    }

    fn encode_into(&self, bases: &[u8], ids: &mut Vec<u32>) {
        for run in bases.chunk_by(|&a, &b| code(a) < 4 && code(b) < 4) {
            if code(run[0]) < 4 { self.encode_run(run, ids) } else { self.encode_letters(run, ids) }
        }
    }

    fn decode_into(&self, ids: &[u32], bases: &mut Vec<u8>) -> Result<(), Error> {
        let mut previous = None;
        for (index, &id) in ids.iter().enumerate() {
            match previous {
                Some(before) if self.config.overlapping && self.is_word(id) => {
                    if !self.continues(before, id) {
                        return Err(self.no_overlap(index, before, id));
                    }
                    bases.push(ORDER[(id - self.first_word) as usize & 3]);
                }
                _ => self.vocabulary.decode_into(id, bases)?,
            }
            previous = self.is_word(id).then_some(id);
        }
        Ok(())
    }

    /// An overlapping word stands for its last base, though the first word of a run stands for all of its bases:
    /// [`Tokenizer::bases_of`] knows.
    fn bases(&self, token: u32) -> u32 {
        if self.config.overlapping && self.is_word(token) { 1 } else { self.vocabulary.bases(token) }
    }

    fn bases_of(&self, ids: &[u32]) -> u64 {
        let mut in_run = false;
        ids.iter()
            .map(|&id| {
                let first = self.config.overlapping && self.is_word(id) && !in_run;
                in_run = self.is_word(id);
                u64::from(if first { self.config.k } else { self.bases(id) })
            })
            .sum()
    }

    fn special(&self, text: &str) -> Option<u32> {
        self.vocabulary.special(text)
    }

    fn text(&self, token: u32) -> Option<&str> {
        self.vocabulary.text(token)
    }

    fn to_json(&self) -> String {
        hf_json::write_words(&self.vocabulary, "[UNK]", hf_json::Words::Kmer(self.config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(config: Config, bases: &str) -> String {
        let kmer = Kmer::new(config).unwrap();
        let mut ids = Vec::new();
        kmer.encode_into(bases.as_bytes(), &mut ids);
        ids.iter().map(|&id| kmer.text(id).unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_and_what_stands_between_them() {
        for (k, overlapping, bases, expected) in [
            (3, false, "ACGTACG", "ACG TAC G"),
            (3, false, "ACNGTACGG", "A C N GTA CGG"),
            (3, true, "ACGTA", "ACG CGT GTA"),
            (3, true, "ACNGTACRA", "A C N GTA TAC R A"),
            (1, false, "ACNY", "A C N Y"),
            (3, true, "", ""),
        ] {
            assert_eq!(texts(Config { k, overlapping }, bases), expected, "{bases} k={k}");
        }
    }

    #[test]
    fn ids_are_those_of_the_published_models() {
        for (overlapping, text, expected) in [
            (true, "AAAAAA", 5),
            (true, "AAAAAT", 6),
            (true, "AAAAAC", 7),
            (true, "GGGGGG", 4100),
            (false, "[CLS]", 3),
            (false, "AAAAAA", 4),
            (false, "GGGGGG", 4099),
            (false, "A", 4100),
            (false, "N", 4104),
            (false, "[EOS]", 4105),
            (false, "[BOS]", 4106),
        ] {
            let kmer = Kmer::new(Config { k: 6, overlapping }).unwrap();
            assert_eq!(kmer.vocabulary.id(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn words_that_do_not_overlap_are_refused() {
        let kmer = Kmer::new(Config { k: 3, overlapping: true }).unwrap();
        let ids = ["ACG", "TTT"].map(|text| kmer.vocabulary.id(text).unwrap());
        let error = kmer.decode_into(&ids, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "cannot decode token 1: k-mer `TTT` does not overlap `ACG` before it");
    }

    #[test]
    fn k_has_bounds() {
        for k in [0, 9] {
            let error = Kmer::new(Config { k, overlapping: false }).unwrap_err();
            assert_eq!(error.to_string(), format!("`k` is {k}; expected 1 to 8"));
        }
    }
}
