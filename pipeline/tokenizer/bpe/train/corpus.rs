//! The pieces to train on, and the two phases of learning.
//!
//! While token numbers fit a byte, every merge is one pass over the whole corpus ([`bytes`]): fast, since early merges
//! are frequent and the passes run at the speed of memory. After that a merge touches only the places of its pair
//! ([`places`]).
//!
//! Memory: 1 byte a base and one more for every piece; then 2 bytes for each token that is left after the first phase
//! (about 3.4 bases) and 2 for every place of a frequent pair: at most 2 bytes a base in all, 3 where the processor has no wide registers.

use serde::{Deserialize, Serialize};

use super::{SoftMasked, bytes, mask, places};
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
        self.left() == 0
    }

    /// How many merges are to be made yet.
    pub const fn left(&self) -> usize {
        self.limits.merges.saturating_sub(self.merges.len())
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

/// Of a part of the pieces: what else there is to say than the bases that it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pieces: u64,
    seen: u64,
    limit: u64,
}

/// Pieces as bytes: 0 to 3, and a separator before, between and after pieces.
#[derive(Debug)]
pub struct Corpus {
    tokens: Vec<u8>,
    pieces: u64,
    /// A, C, G and T that were pushed and not masked out.
    seen: u64,
    soft_masked: SoftMasked,
    sample: Sample,
}

impl Corpus {
    /// `most`: the most bases to keep.
    pub fn new(soft_masked: SoftMasked, most: Option<u64>) -> Self {
        let sample = Sample::new(most.unwrap_or(u64::MAX));
        Self { tokens: vec![bytes::SEPARATOR], pieces: 0, seen: 0, soft_masked, sample }
    }

    /// Bases kept.
    pub const fn bases(&self) -> u64 {
        self.sample.kept
    }

    /// Bases seen.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    pub const fn pieces(&self) -> u64 {
        self.pieces
    }

    /// Says how many bases will be pushed at most: where that is far more than may be kept, runs that will hardly be
    /// among those kept are left out from the beginning.
    pub fn expect(&mut self, bases: u64) {
        self.sample.expect(bases);
    }

    /// What is kept, as letters with an N wherever a run ends, in blocks of some bytes.
    pub fn blocks(&self, bytes: usize) -> impl Iterator<Item = Vec<u8>> {
        let letter = |&token: &u8| b"ACGT".get(usize::from(token)).copied().unwrap_or(b'N');
        self.tokens[1..].chunks(bytes).map(move |block| block.iter().map(letter).collect())
    }

    /// What else there is to say.
    pub const fn part(&self) -> Part {
        Part { pieces: self.pieces, seen: self.seen, limit: self.sample.limit }
    }

    /// Takes in what another one keeps, block by block: what comes of it is as if what the other was given had been
    /// pushed here.
    pub fn append<E>(
        &mut self,
        part: Part,
        blocks: impl Iterator<Item = Result<Vec<u8>, E>>,
    ) -> Result<(), E> {
        let from = self.tokens.len();
        for block in blocks {
            self.tokens.extend(block?.iter().map(|&base| code(base)));
        }
        self.pieces += part.pieces;
        self.seen += part.seen;
        let bases = bases_of(&self.tokens[from..]);
        self.sample.join(&mut self.tokens, from, bases, part.limit);
        Ok(())
    }

    pub fn push(&mut self, piece: &[u8]) {
        self.pieces += 1;
        let from = self.tokens.len();
        self.tokens.extend(piece.iter().map(|&base| code(base)));
        mask::apply(self.soft_masked, piece, &mut self.tokens[from..]);
        self.tokens.push(bytes::SEPARATOR);
        let bases = bases_of(&self.tokens[from..]);
        self.seen += bases;
        self.sample.take(&mut self.tokens, from, bases);
    }

    /// The merges in order.
    pub fn learn(
        mut self,
        limits: &Limits,
        both_strands: bool,
        threads: usize,
        progress: &mut dyn FnMut(u64, u64),
        stop: &Stop,
    ) -> Result<Vec<[u32; 2]>, Error> {
        if both_strands {
            let complement = |&code: &u8| if code < 4 { 3 - code } else { code };
            self.tokens.extend_from_within(1..);
            let half = self.tokens.len() / 2 + 1;
            self.tokens[half..].iter_mut().for_each(|code| *code = complement(code));
            let last = self.tokens.len() - 1;
            self.tokens[half..last].reverse();
        }
        let mut learned = Learned { limits, merges: Vec::new(), lengths: vec![1; 4], progress, stop };
        let (tokens, counts) = bytes::learn(self.tokens, &mut learned, threads)?;
        if !learned.is_complete() {
            places::learn(tokens, &counts, &mut learned, threads)?;
        }
        Ok(learned.merges)
    }
}

fn bases_of(tokens: &[u8]) -> u64 {
    (tokens.len() - memchr::memchr_iter(bytes::SEPARATOR, tokens).count()) as u64
}

/// Which runs between separators are kept: those whose hash is below a limit that is lowered, by an eighth at a time, as
/// soon as more bases are kept than may be. So the sample depends on the runs and not on their order, and holds between
/// seven eighths of what it may and all of it, as far as runs are short.
#[derive(Debug)]
struct Sample {
    most: u64,
    kept: u64,
    limit: u64,
}

impl Sample {
    const fn new(most: u64) -> Self {
        Self { most, kept: 0, limit: u64::MAX }
    }

    /// As if 16 times what may be kept would come of `bases` that are pushed: so that too little is kept only where less
    /// than a sixteenth of them are letters that are not masked out.
    fn expect(&mut self, bases: u64) {
        while (u128::from(self.limit) * u128::from(bases)) >> 64 > u128::from(self.most) * 16 {
            self.lower();
        }
    }

    fn lower(&mut self) {
        self.limit -= (self.limit / 8).max(1);
    }

    /// Takes in the runs from `from` on, which hold `bases` and are those of another sample whose limit is `limit`.
    fn join(&mut self, tokens: &mut Vec<u8>, from: usize, bases: u64, limit: u64) {
        self.kept += bases;
        if limit < self.limit {
            self.limit = limit;
            self.thin(tokens, 1);
        } else if self.limit < limit {
            self.thin(tokens, from);
        }
        self.settle(tokens);
    }

    /// Takes in the runs from `from` on, which hold `bases`.
    fn take(&mut self, tokens: &mut Vec<u8>, from: usize, bases: u64) {
        self.kept += bases;
        if self.limit < u64::MAX {
            self.thin(tokens, from);
        }
        self.settle(tokens);
    }

    /// Lowers the limit until no more is kept than may be.
    fn settle(&mut self, tokens: &mut Vec<u8>) {
        while self.kept > self.most && self.limit > 0 {
            self.lower();
            self.thin(tokens, 1);
        }
    }

    /// Removes the runs from `from` on whose hash is not below the limit.
    fn thin(&mut self, tokens: &mut Vec<u8>, from: usize) {
        let (mut read, mut write) = (from, from);
        while read < tokens.len() {
            let rest = &tokens[read..];
            let length = rest.iter().position(|&token| token == bytes::SEPARATOR).unwrap_or(rest.len());
            if mask::hash(&rest[..length]) < self.limit {
                tokens.copy_within(read..=read + length, write);
                write += length + 1;
            } else {
                self.kept -= length as u64;
            }
            read += length + 1;
        }
        tokens.truncate(write);
    }
}

/// 0 to 3 for A C G T of either case, else the separator: arithmetic, which the compiler does on many bases at once.
const fn code(base: u8) -> u8 {
    let letter = base.to_ascii_uppercase();
    // A C T G differ in these two bits of their numbers.
    let bits = letter >> 1 & 3;
    let known = letter == b'A' || letter == b'C' || letter == b'G' || letter == b'T';
    if known { bits ^ bits >> 1 } else { bytes::SEPARATOR }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> Vec<Vec<u8>> {
        (0..400_u32)
            .map(|i| {
                (0..50).map(|j| b"ACGT"[(i.wrapping_mul(2_654_435_761) >> (j % 30)) as usize & 3]).collect()
            })
            .collect()
    }

    #[test]
    fn letters_have_codes() {
        for base in 0..=u8::MAX {
            let letter = |(_, letter): &(u8, &u8)| **letter == base.to_ascii_uppercase();
            let expected = (0..).zip(b"ACGT").find(letter).map_or(bytes::SEPARATOR, |(code, _)| code);
            assert_eq!(code(base), expected, "{base}");
        }
    }

    #[test]
    fn a_sample_does_not_depend_on_order() {
        let mut kept = [0, 1].map(|reversed| {
            let mut corpus = Corpus::new(SoftMasked::Keep, Some(5000));
            let mut pieces = pieces();
            if reversed == 1 {
                pieces.reverse();
            }
            for piece in &pieces {
                corpus.push(piece);
            }
            assert!((3500..=5000).contains(&corpus.bases()), "{}", corpus.bases());
            assert_eq!(corpus.seen(), 20_000);
            let mut runs: Vec<Vec<u8>> =
                corpus.tokens.split(|&t| t == bytes::SEPARATOR).map(Into::into).collect();
            runs.sort();
            runs
        });
        let [a, b] = &mut kept;
        assert_eq!(a, b);
    }

    #[test]
    fn parts_come_to_the_same_as_the_whole() {
        let pieces = pieces();
        // Without a limit, with one that some of the parts reach too, and one that is foreseen.
        for (most, expected) in
            [(None, None), (Some(5000), None), (Some(900), None), (Some(300), Some(20_000))]
        {
            let corpus = || {
                let mut corpus = Corpus::new(SoftMasked::Keep, most);
                corpus.expect(expected.unwrap_or(0));
                corpus
            };
            let push = |mut corpus: Corpus, pieces: &[Vec<u8>]| {
                for piece in pieces {
                    corpus.push(piece);
                }
                corpus
            };
            let whole = push(corpus(), &pieces);
            for cuts in [&[0, 400][..], &[0, 37, 38, 38, 250, 400]] {
                let mut joined = corpus();
                for cut in cuts.windows(2) {
                    let part = push(corpus(), &pieces[cut[0]..cut[1]]);
                    let blocks = part.blocks(77).map(Ok::<_, ()>);
                    joined.append(part.part(), blocks).unwrap();
                }
                assert_eq!(joined.tokens, whole.tokens, "{most:?} {cuts:?}");
                assert_eq!((joined.part(), joined.bases()), (whole.part(), whole.bases()));
            }
        }
    }

    #[test]
    fn a_sample_that_is_foreseen_keeps_as_much() {
        let kept = |expected: u64| {
            let mut corpus = Corpus::new(SoftMasked::Keep, Some(300));
            corpus.expect(expected);
            let limit = corpus.sample.limit;
            for piece in pieces() {
                corpus.push(&piece);
            }
            (limit, corpus.bases())
        };
        let (before, without) = kept(0);
        let (after, with) = kept(20_000);
        assert_eq!((before, with), (u64::MAX, without));
        // 16 times 300 of 20,000 bases, to within an eighth.
        assert!((0.2..=0.24).contains(&(after as f64 / u64::MAX as f64)), "{after}");
    }

    #[test]
    fn soft_masked_bases_are_kept_cut_out_or_thinned() {
        for (soft_masked, expected) in [
            (SoftMasked::Keep, 8),
            (SoftMasked::Exclude, 4),
            (SoftMasked::Weight(0.0), 4),
            (SoftMasked::Weight(1.0), 8),
        ] {
            let mut corpus = Corpus::new(soft_masked, None);
            corpus.push(b"ACggNttGT");
            assert_eq!(corpus.bases(), expected, "{soft_masked:?}");
        }
        let mut corpus = Corpus::new(SoftMasked::Weight(0.25), None);
        for piece in pieces() {
            corpus.push(&piece.to_ascii_lowercase());
        }
        assert!((3000..7000).contains(&corpus.bases()), "{}", corpus.bases());
    }
}
