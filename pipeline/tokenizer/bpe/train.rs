//! Learns merges from pieces of sequence, exactly as Hugging Face's `BpeTrainer` does.
//!
//! Of all pairs of neighbouring tokens the most frequent is merged, of equals the one with the smaller (left, right)
//! ids, until the vocabulary is full or the best pair is rarer than `min_frequency`. A pair is counted at every position,
//! overlaps included (`AAA` holds `AA` twice), in 64 bits; merging goes from the left. The result depends on the pieces
//! as a set, not on their order nor on the number of threads.
//!
//! A piece is a run of sequence that no merge leaves; N and every other code that is not A, C, G or T ends one too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bpe, Parts};
use crate::observer::Stop;
use crate::tokenizer::vocabulary::{SPECIAL_TOKENS, Vocabulary};
use crate::tokenizer::{Error, IUPAC};
use crate::units;

mod bytes;
mod corpus;
mod mask;
mod places;
mod team;

pub use corpus::Part;

/// The most tokens that a vocabulary may have: ids fit 16 bits.
pub const MAX_VOCABULARY_SIZE: u32 = 65_536;

/// Memory that learning takes whatever the corpus, in bytes.
const FIXED_MEMORY: u64 = 64 << 20;

/// Bytes that learning takes for a base at most: 2 with wide registers, more without. The same everywhere, so that a sample
/// does not depend on the machine.
const BYTES_A_BASE: u64 = 3;

/// Which single letters are tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Alphabet {
    /// All 16 IUPAC codes: nothing is lost.
    #[default]
    Iupac,
    /// A C G T N; other codes become `[UNK]` and are lost.
    Acgtn,
    /// A C G T; N and other codes become `[UNK]` and are lost.
    Acgt,
}

impl Alphabet {
    /// The letters, in the order of their ids.
    pub const fn letters(self) -> &'static [u8] {
        match self {
            Self::Iupac => IUPAC,
            Self::Acgtn => b"ACGNT",
            Self::Acgt => b"ACGT",
        }
    }
}

/// What is learned from soft-masked bases (lower case).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SoftMasked {
    /// As much as from others.
    #[default]
    Keep,
    /// Nothing: they end a piece.
    Exclude,
    /// This share, 0 to 1, of the masked runs, chosen by their sequence.
    Weight(f64),
}

/// What to learn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Number of ids, special tokens and letters included; at most 65,536.
    #[schemars(range(max = 65_536))]
    pub vocabulary_size: u32,
    /// The longest token, in bases; null: no limit.
    pub max_token_length: Option<u32>,
    /// A pair that occurs fewer times is not merged.
    pub min_frequency: u64,
    /// Special tokens in the order of their ids, from 0; `[UNK]` is one of them unless the alphabet is `iupac`.
    pub special_tokens: Vec<String>,
    /// Which single letters are tokens.
    pub alphabet: Alphabet,
    /// Whether every piece is counted on both strands.
    pub reverse_complement: bool,
    /// What is learned from bases in lower case.
    pub soft_masked: SoftMasked,
    /// The most bases to learn from, as a number or as a text such as `2Gb`; null: all. Pieces are kept or left out
    /// whole, by their sequence, whatever their order.
    #[serde(deserialize_with = "units::bases")]
    #[schemars(with = "units::Amount")]
    pub sample: Option<u64>,
    /// The most bytes of memory to learn in, as a number or as a text such as `8GB`; null: no bound. What would not fit
    /// is left out, as by `sample`.
    #[serde(deserialize_with = "units::bytes")]
    #[schemars(with = "units::Amount")]
    pub memory: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocabulary_size: 4096,
            max_token_length: None,
            min_frequency: 0,
            special_tokens: SPECIAL_TOKENS.map(Into::into).to_vec(),
            alphabet: Alphabet::default(),
            reverse_complement: false,
            soft_masked: SoftMasked::default(),
            sample: None,
            memory: None,
        }
    }
}

impl Config {
    /// Whether the vocabulary holds the special tokens and the letters, and fits 16 bits.
    ///
    /// # Errors
    /// [`Error::Option`] with the option that cannot be honoured.
    pub fn check(&self) -> Result<(), Error> {
        let least = self.first_merge();
        // Token numbers start with four bases, and two numbers of 16 bits have another use.
        let most = MAX_VOCABULARY_SIZE.min(least.saturating_add(MAX_VOCABULARY_SIZE - 6));
        if !(least..=most).contains(&self.vocabulary_size) {
            let (special, letters) = (self.special_tokens.len(), self.alphabet.letters().len());
            let expected = format!("{least} ({special} special tokens and {letters} letters) to {most}");
            return Err(option("vocabulary_size", self.vocabulary_size.to_string(), expected));
        }
        if self.max_token_length.is_some_and(|length| length < 2) {
            return Err(option("max_token_length", "below 2".into(), "2 bases or more".into()));
        }
        if let SoftMasked::Weight(weight) = self.soft_masked
            && !(0.0..=1.0).contains(&weight)
        {
            return Err(option("soft_masked.weight", weight.to_string(), "0 to 1".into()));
        }
        self.check_special_tokens()
    }

    /// The most bases to learn from, by sample and memory.
    pub fn most_bases(&self) -> Option<u64> {
        let strands = if self.reverse_complement { 2 } else { 1 };
        let fitting =
            self.memory.map(|memory| memory.saturating_sub(FIXED_MEMORY) / (BYTES_A_BASE * strands));
        match (self.sample, fitting) {
            (Some(sample), Some(fitting)) => Some(sample.min(fitting)),
            (sample, fitting) => sample.or(fitting),
        }
    }

    fn check_special_tokens(&self) -> Result<(), Error> {
        for (index, text) in self.special_tokens.iter().enumerate() {
            let twice = self.special_tokens[..index].contains(text);
            if twice || !text.bytes().any(|byte| !byte.is_ascii_alphanumeric()) {
                let expected = "texts that differ and hold a character that is no letter, such as `[PAD]`";
                return Err(option("special_tokens", format!("`{text}`"), expected.into()));
            }
        }
        if self.alphabet != Alphabet::Iupac && self.unknown().is_none() {
            return Err(option("special_tokens", "without `[UNK]`".into(), "one for other codes".into()));
        }
        Ok(())
    }

    /// Id of the first token that a merge makes.
    fn first_merge(&self) -> u32 {
        u32::try_from(self.special_tokens.len() + self.alphabet.letters().len()).unwrap_or(u32::MAX)
    }

    fn unknown(&self) -> Option<u32> {
        (0..).zip(&self.special_tokens).find(|(_, text)| *text == "[UNK]").map(|(id, _)| id)
    }

    fn texts(&self) -> Vec<Box<str>> {
        let special = self.special_tokens.iter().map(|text| text.as_str().into());
        special.chain(self.alphabet.letters().iter().map(|&b| char::from(b).to_string().into())).collect()
    }
}

fn option(option: &'static str, found: String, expected: String) -> Error {
    Error::Option { option, found, expected }
}

/// Collects pieces, then learns.
#[derive(Debug)]
pub struct Trainer {
    config: Config,
    corpus: corpus::Corpus,
}

impl Trainer {
    /// Without pieces.
    ///
    /// # Errors
    /// Those of [`Config::check`].
    pub fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        Ok(Self { corpus: corpus::Corpus::new(config.soft_masked, config.most_bases()), config })
    }

    /// Adds a piece: IUPAC bytes, of which lower case is soft-masked. Codes other than A, C, G and T end it and begin another.
    pub fn push(&mut self, piece: &[u8]) {
        self.corpus.push(piece);
    }

    /// Says how many bases will be pushed at most, so that a small sample of them takes little memory from the beginning.
    pub fn expect(&mut self, bases: u64) {
        self.corpus.expect(bases);
    }

    /// What is kept to learn from, as letters with an N wherever a piece ends, in blocks of some bytes; and what else
    /// [`append`](Self::append) needs.
    pub fn part(&self, bytes: usize) -> (Part, impl Iterator<Item = Vec<u8>>) {
        (self.corpus.part(), self.corpus.blocks(bytes))
    }

    /// Takes in what another trainer, of the same configuration and expectation, keeps: what is learned is the same as if
    /// its pieces had been pushed here.
    ///
    /// # Errors
    /// The first of the blocks'; this trainer is of no use after it.
    pub fn append<E>(
        &mut self,
        part: Part,
        blocks: impl Iterator<Item = Result<Vec<u8>, E>>,
    ) -> Result<(), E> {
        self.corpus.append(part, blocks)
    }

    /// A, C, G and T to learn from: those of the sample.
    pub const fn bases(&self) -> u64 {
        self.corpus.bases()
    }

    /// A, C, G and T that were pushed, without those that are masked out.
    pub const fn bases_seen(&self) -> u64 {
        self.corpus.seen()
    }

    /// Learns the merges. `progress` hears how many of how many merges are done. `threads` never changes the result.
    ///
    /// # Errors
    /// [`Error::NothingToTrainOn`] without a base; [`Error::Stopped`] when asked to stop.
    pub fn finish(
        self,
        threads: usize,
        progress: &mut dyn FnMut(u64, u64),
        stop: &Stop,
    ) -> Result<Bpe, Error> {
        if self.corpus.bases() == 0 {
            return Err(Error::NothingToTrainOn { pieces: self.corpus.pieces() });
        }
        let limits = corpus::Limits {
            merges: (self.config.vocabulary_size - self.config.first_merge()) as usize,
            max_length: self.config.max_token_length.unwrap_or(u32::MAX),
            min_frequency: self.config.min_frequency.max(1),
        };
        let merges = self.corpus.learn(&limits, self.config.reverse_complement, threads, progress, stop)?;
        assemble(&self.config, &merges)
    }
}

/// The tokenizer of merges whose ids are 0 to 3 for A C G T and 4, 5, ... for their results in order.
fn assemble(config: &Config, merges: &[[u32; 2]]) -> Result<Bpe, Error> {
    let mut texts = config.texts();
    let first = config.first_merge();
    let id = |token: u32| match b"ACGT".get(token as usize) {
        Some(letter) => letter_id(config, *letter),
        None => token - 4 + first,
    };
    let merges: Vec<(u32, u32)> = merges.iter().map(|&[left, right]| (id(left), id(right))).collect();
    for &(left, right) in &merges {
        let whole = [&*texts[left as usize], &*texts[right as usize]].concat();
        texts.push(whole.into());
    }
    let special: Vec<u32> = (0..).take(config.special_tokens.len()).collect();
    let vocabulary = Vocabulary::new(texts, &special)?;
    Bpe::new(Parts { vocabulary, merges, unknown: config.unknown(), ..Parts::default() })
}

fn letter_id(config: &Config, letter: u8) -> u32 {
    let position = config.alphabet.letters().iter().position(|&other| other == letter).unwrap_or(0);
    u32::try_from(config.special_tokens.len() + position).unwrap_or(u32::MAX)
}
