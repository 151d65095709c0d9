//! The first phase: tokens are bytes, a merge is one pass that replaces, compacts and counts.
//!
//! Memory: in place; a table of 256 x 256 counts.

use super::corpus::Learned;
use crate::tokenizer::Error;

/// Stands before, between and after pieces.
pub const SEPARATOR: u8 = u8::MAX;
/// The most tokens of this phase, with wide registers.
const WIDE_TOKENS: u32 = 252;
/// The most tokens of this phase without: a pass costs more than places do sooner.
const NARROW_TOKENS: u32 = 40;

/// Counts of neighbours by left and right token; rows and columns of the separator are never read.
#[derive(Debug, Clone)]
struct Counts(Vec<u64>);

impl Counts {
    fn new(tokens: &[u8]) -> Self {
        let mut counts = Self(vec![0; 1 << 16]);
        for pair in tokens.windows(2) {
            *counts.at(pair[0], pair[1]) += 1;
        }
        counts
    }

    fn at(&mut self, left: u8, right: u8) -> &mut u64 {
        &mut self.0[usize::from(left) << 8 | usize::from(right)]
    }

    /// Notes that `pair` between `before` and `after` becomes `id`.
    fn replace(&mut self, [left, right]: [u8; 2], id: u8, before: u8, after: u8) {
        let change = |count: &mut u64, by: u64| *count = count.wrapping_add(by);
        change(self.at(before, left), u64::MAX);
        change(self.at(before, id), 1);
        change(self.at(right, after), u64::MAX);
        change(self.at(id, after), 1);
    }

    /// The most frequent pair that is allowed, of equals the smaller.
    fn best(&self, learned: &Learned) -> Option<[u8; 2]> {
        let end = u8::try_from(learned.next()).unwrap_or(SEPARATOR);
        let mut best = (0, None);
        for left in 0..end {
            let row = &self.0[usize::from(left) << 8..][..usize::from(end)];
            for (right, &count) in (0..).zip(row) {
                if count > best.0 && learned.allows([left, right].map(u32::from), count) {
                    best = (count, Some([left, right]));
                }
            }
        }
        best.1
    }
}

/// Learns merges while their numbers fit; returns what is left to learn from.
pub fn learn(mut tokens: Vec<u8>, learned: &mut Learned) -> Result<Vec<u8>, Error> {
    let wide = wide::is_available();
    let most = if wide { WIDE_TOKENS } else { NARROW_TOKENS };
    let mut counts = Counts::new(&tokens);
    while learned.next() < most && !learned.is_complete() {
        let Some(pair) = counts.best(learned) else { break };
        let id = u8::try_from(learned.next()).unwrap_or(SEPARATOR);
        learned.add(pair.map(u32::from))?;
        if wide {
            wide::merge(&mut tokens, pair, id, &mut counts);
        } else {
            merge(&mut tokens, pair, id, &mut counts);
        }
        *counts.at(pair[0], pair[1]) = 0;
    }
    tokens.shrink_to_fit();
    Ok(tokens)
}

/// Replaces `pair` by `id` from the left. The first and the last token are separators.
fn merge(tokens: &mut Vec<u8>, pair: [u8; 2], id: u8, counts: &mut Counts) {
    let write = merge_from(tokens, 1, 1, pair, id, counts);
    tokens.truncate(write);
}

/// The same from `read` on, writing to `write`; returns where writing ended.
fn merge_from(
    tokens: &mut [u8],
    mut read: usize,
    mut write: usize,
    pair: [u8; 2],
    id: u8,
    counts: &mut Counts,
) -> usize {
    while read < tokens.len() {
        let here = tokens[read];
        if here == pair[0] && tokens[read + 1] == pair[1] {
            counts.replace(pair, id, tokens[write - 1], tokens[read + 2]);
            tokens[write] = id;
            read += 2;
        } else {
            tokens[write] = here;
            read += 1;
        }
        write += 1;
    }
    write
}

#[cfg(target_arch = "x86_64")]
mod wide {
    //! 64 tokens at once, where the processor can.

    use std::arch::x86_64::{
        _mm512_cmpeq_epi8_mask, _mm512_loadu_epi8, _mm512_mask_blend_epi8, _mm512_maskz_compress_epi8,
        _mm512_set1_epi8, _mm512_storeu_epi8,
    };

    use super::Counts;

    pub fn is_available() -> bool {
        is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi2")
    }

    /// As [`super::merge`]. Must not be called where [`is_available`] says no; then it does what the narrow one does.
    pub fn merge(tokens: &mut Vec<u8>, pair: [u8; 2], id: u8, counts: &mut Counts) {
        if !is_available() {
            return super::merge(tokens, pair, id, counts);
        }
        // SAFETY: the features were just found.
        let (read, write) = unsafe { merge_blocks(tokens, pair, id, counts) };
        let write = super::merge_from(tokens, read, write, pair, id, counts);
        tokens.truncate(write);
    }

    /// Merges whole blocks; returns where reading and writing go on.
    #[target_feature(enable = "avx512bw,avx512vbmi2")]
    unsafe fn merge_blocks(tokens: &mut [u8], pair: [u8; 2], id: u8, counts: &mut Counts) -> (usize, usize) {
        let [left, right, new] = [pair[0], pair[1], id].map(|token| _mm512_set1_epi8(token.cast_signed()));
        let (mut read, mut write) = (1, 1);
        // Whether the first token of the block was taken by the block before.
        let mut taken = 0_u64;
        // Two tokens beyond the block are looked at.
        while read + 66 <= tokens.len() {
            let at = tokens.as_mut_ptr();
            // SAFETY: `read + 66` is within the tokens.
            let (here, next) = unsafe {
                (_mm512_loadu_epi8(at.add(read).cast()), _mm512_loadu_epi8(at.add(read + 1).cast()))
            };
            let both = _mm512_cmpeq_epi8_mask(here, left) & _mm512_cmpeq_epi8_mask(next, right) & !taken;
            let starts = if pair[0] == pair[1] { every_other(both) } else { both };
            let gone = starts << 1 | taken;
            count(tokens, read, write, (starts, taken), pair, id, counts);
            let kept = _mm512_maskz_compress_epi8(!gone, _mm512_mask_blend_epi8(starts, here, new));
            // SAFETY: `write <= read`, so that the 64 bytes end within the block, which has been loaded.
            unsafe { _mm512_storeu_epi8(tokens.as_mut_ptr().add(write).cast(), kept) };
            write += (!gone).count_ones() as usize;
            read += 64;
            taken = starts >> 63;
        }
        // A pair that reaches into the rest takes its first token along.
        (read + usize::from(taken == 1), write)
    }

    /// Of every run of ones the first, the third and so on.
    fn every_other(mut ones: u64) -> u64 {
        let mut chosen = 0;
        while ones != 0 {
            let first = ones & ones.wrapping_neg();
            chosen |= first;
            ones &= !(first | first << 1);
        }
        chosen
    }

    /// Counts the neighbours of the pairs that start in a block, before it is overwritten. `taken`: whether the first
    /// token of the block belongs to a pair of the block before.
    #[inline]
    fn count(
        tokens: &[u8],
        read: usize,
        write: usize,
        (mut starts, taken): (u64, u64),
        pair: [u8; 2],
        id: u8,
        counts: &mut Counts,
    ) {
        // Where the last pair ended: what stands before the block is what was written last.
        let mut end = if taken == 1 { 1 } else { usize::MAX };
        while starts != 0 {
            let at = starts.trailing_zeros() as usize;
            let before = match at {
                0 => tokens[write - 1],
                _ if at == end => id,
                _ => tokens[read + at - 1],
            };
            counts.replace(pair, id, before, tokens[read + at + 2]);
            end = at + 2;
            starts &= starts - 1;
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod wide {
    //! No wide registers here.

    use super::Counts;

    pub const fn is_available() -> bool {
        false
    }

    pub fn merge(tokens: &mut Vec<u8>, pair: [u8; 2], id: u8, counts: &mut Counts) {
        super::merge(tokens, pair, id, counts);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(
        tokens: &[u8],
        pair: [u8; 2],
        by: fn(&mut Vec<u8>, [u8; 2], u8, &mut Counts),
    ) -> (Vec<u8>, Counts) {
        let (mut tokens, mut counts) = (tokens.to_vec(), Counts::new(tokens));
        by(&mut tokens, pair, 9, &mut counts);
        *counts.at(pair[0], pair[1]) = 0;
        (tokens, counts)
    }

    /// Pairs of neighbours without those beside a separator.
    fn inner(counts: &Counts) -> Vec<u64> {
        let is_inner = |(at, _): &(usize, &u64)| at & 0xff != 0xff && at >> 8 != 0xff;
        counts.0.iter().enumerate().filter(is_inner).map(|(_, &count)| count).collect()
    }

    proptest! {
        #[test]
        fn wide_and_narrow_passes_agree_and_count_right(
            runs in prop::collection::vec((0_u8..4, 1_usize..90), 0..40),
            pair in [0_u8..3, 0_u8..3],
        ) {
            let mut tokens = vec![SEPARATOR];
            for (token, length) in runs {
                // Token 3 stands for a piece of two letters in turn.
                match token {
                    3 => tokens.extend((0..length).map(|at| u8::from(at % 2 == 0))),
                    _ => tokens.extend(vec![token; length % 7]),
                }
                if length % 11 == 0 {
                    tokens.push(SEPARATOR);
                }
            }
            tokens.push(SEPARATOR);
            let (narrow, narrow_counts) = merged(&tokens, pair, merge);
            let (wide, wide_counts) = merged(&tokens, pair, wide::merge);
            prop_assert_eq!(&narrow, &wide);
            prop_assert_eq!(inner(&narrow_counts), inner(&Counts::new(&narrow)));
            prop_assert_eq!(inner(&wide_counts), inner(&narrow_counts));
        }
    }
}
