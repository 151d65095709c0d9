//! The pieces to train on, and the two phases of learning.
//!
//! While token numbers fit a byte, every merge is one pass over the whole corpus ([`bytes`]): fast, since early merges
//! are frequent and the passes run at the speed of memory. After that a merge touches only the places of its rarer token
//! ([`places`]).
//!
//! Memory: 1 byte a base and one more for every piece; then 6 bytes for each token that is left after the first phase
//! (about 3.4 bases) and 8 to 16 for every different pair of neighbours.

use super::{bytes, places};
use crate::observer::Stop;
use crate::tokenizer::Error;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most merges.
    pub merges: usize,
    /// The longest token, in bases.
    pub max_length: u32,
    /// The rarest pair that is merged.
    pub min_frequency: u64,
}

/// Merges so far; tokens are numbered 0 to 3 for A C G T, then 4, 5, ... for the results of merges.
pub struct Learned<'a> {
    pub limits: &'a Limits,
    pub merges: Vec<[u32; 2]>,
    /// Bases of every token.
    lengths: Vec<u32>,
    progress: &'a mut dyn FnMut(u64, u64),
    stop: &'a Stop,
}

impl Learned<'_> {
    /// The number of the next token.
    pub fn next(&self) -> u32 {
        u32::try_from(self.lengths.len()).unwrap_or(u32::MAX)
    }

    /// Whether all merges are made.
    pub const fn is_complete(&self) -> bool {
        self.merges.len() >= self.limits.merges
    }

    /// Whether the result of a pair is short enough, and the pair frequent enough.
    pub fn allows(&self, pair: [u32; 2], count: u64) -> bool {
        let length = pair.iter().fold(0_u32, |sum, &part| sum.saturating_add(self.lengths[part as usize]));
        count >= self.limits.min_frequency && length <= self.limits.max_length
    }

    /// Notes a merge.
    pub fn add(&mut self, pair: [u32; 2]) -> Result<(), Error> {
        if self.stop.is_requested() {
            return Err(Error::Stopped);
        }
        self.lengths.push(pair.iter().map(|&part| self.lengths[part as usize]).sum());
        self.merges.push(pair);
        (self.progress)(self.merges.len() as u64, self.limits.merges as u64);
        Ok(())
    }
}

/// Pieces as bytes: 0 to 3, and a separator before, between and after pieces.
#[derive(Debug)]
pub struct Corpus {
    tokens: Vec<u8>,
    bases: u64,
    pieces: u64,
    reverse_complement: bool,
}

impl Corpus {
    pub fn new(reverse_complement: bool) -> Self {
        Self { tokens: vec![bytes::SEPARATOR], bases: 0, pieces: 0, reverse_complement }
    }

    pub const fn bases(&self) -> u64 {
        self.bases
    }

    pub const fn pieces(&self) -> u64 {
        self.pieces
    }

    pub fn push(&mut self, piece: &[u8]) {
        self.pieces += 1;
        let from = self.tokens.len();
        self.add(piece.iter().map(|&base| CODES[usize::from(base)]));
        self.bases += self.tokens[from..].iter().filter(|&&token| token < 4).count() as u64;
        if self.reverse_complement {
            let complement = |code: u8| if code < 4 { 3 - code } else { code };
            self.add(piece.iter().rev().map(|&base| complement(CODES[usize::from(base)])));
        }
    }

    fn add(&mut self, codes: impl Iterator<Item = u8>) {
        self.tokens.extend(codes);
        self.tokens.push(bytes::SEPARATOR);
    }

    /// The merges in order.
    pub fn learn(
        self,
        limits: &Limits,
        threads: usize,
        progress: &mut dyn FnMut(u64, u64),
        stop: &Stop,
    ) -> Result<Vec<[u32; 2]>, Error> {
        let mut learned = Learned { limits, merges: Vec::new(), lengths: vec![1; 4], progress, stop };
        let tokens = bytes::learn(self.tokens, &mut learned, threads)?;
        if !learned.is_complete() {
            places::learn(tokens, &mut learned)?;
        }
        Ok(learned.merges)
    }
}

/// 0 to 3 for A C G T, else the separator.
const CODES: [u8; 256] = {
    let mut codes = [bytes::SEPARATOR; 256];
    codes[b'A' as usize] = 0;
    codes[b'C' as usize] = 1;
    codes[b'G' as usize] = 2;
    codes[b'T' as usize] = 3;
    codes
};
