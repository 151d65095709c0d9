//! Passes over a segment: every pair becomes one token, what stands beside it is counted, the rest moves up.

use super::edge::Edge;
use super::{Beside, Merge, Order, Segment};

/// How to pass over tokens: by the widest registers that the processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// One token at a time.
    Narrow,
    /// 32 tokens at once: AVX2, and BMI2 to compact.
    #[cfg(target_arch = "x86_64")]
    Half,
    /// 64 tokens at once: AVX-512.
    #[cfg(target_arch = "x86_64")]
    Wide,
}

impl Kernel {
    /// Those that this processor can run, the best first.
    pub fn available() -> Vec<Self> {
        let mut kernels = vec![Self::Narrow];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
                kernels.push(Self::Half);
            }
            if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi2") {
                kernels.push(Self::Wide);
            }
        }
        kernels.reverse();
        kernels
    }

    /// The best one here.
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// The most tokens for which a pass costs less than the second phase does; tests get to the second phase soon.
    pub const fn tokens(self) -> u32 {
        match self {
            _ if cfg!(test) => 12,
            Self::Narrow => 40,
            #[cfg(target_arch = "x86_64")]
            Self::Half | Self::Wide => 252,
        }
    }

    /// Carries out an order on a segment, one pass after the other. Must be one of [`Kernel::available`].
    pub fn carry_out(self, segment: &mut Segment, order: &Order) {
        // Here and not by the leader: the memory is in the cache of the thread that worked on the segment last.
        segment.beside.clear();
        segment.beside.resize(order.count, Beside::default());
        for (number, merge) in order.merges().iter().enumerate() {
            if segment.length > 0 {
                self.pass(segment, number, *merge);
            }
        }
    }

    fn pass(self, segment: &mut Segment, number: usize, merge: Merge) {
        let Edge { last, taken, beyond } = segment.edges[number];
        let tokens = &mut segment.tokens[..segment.length];
        let beside = &mut segment.beside[number];
        let mut pass = Pass { tokens, read: usize::from(taken), write: 0, last, merge, beyond, beside };
        match self {
            Self::Narrow => {}
            // SAFETY: the features were found when the kernel was chosen.
            #[cfg(target_arch = "x86_64")]
            Self::Half => unsafe { pass.half_blocks() },
            // SAFETY: the same.
            #[cfg(target_arch = "x86_64")]
            Self::Wide => unsafe { pass.wide_blocks() },
        }
        pass.rest();
        segment.length = pass.write;
    }
}

struct Pass<'a> {
    tokens: &'a mut [u8],
    read: usize,
    write: usize,
    /// What was written last.
    last: u8,
    merge: Merge,
    beyond: [u8; 2],
    beside: &'a mut Beside,
}

impl Pass<'_> {
    /// One token after the other, to the end. The last pair may take the first token beyond it.
    fn rest(&mut self) {
        let Merge { pair: [left, right], id } = self.merge;
        while self.read < self.tokens.len() {
            let here = self.tokens[self.read];
            if here == left && self.token(self.read + 1) == right {
                self.beside.count(self.last, self.token(self.read + 2));
                self.last = id;
                self.read += 2;
            } else {
                self.last = here;
                self.read += 1;
            }
            self.tokens[self.write] = self.last;
            self.write += 1;
        }
    }

    fn token(&self, at: usize) -> u8 {
        self.tokens.get(at).copied().unwrap_or_else(|| self.beyond[at - self.tokens.len()])
    }
}

impl Beside {
    #[inline]
    fn count(&mut self, before: u8, after: u8) {
        self.before[usize::from(before)] += 1;
        self.after[usize::from(after)] += 1;
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_set1_epi8,
        _mm256_storeu_si256, _mm512_cmpeq_epi8_mask, _mm512_loadu_epi8, _mm512_mask_blend_epi8,
        _mm512_maskz_compress_epi8, _mm512_set1_epi8, _mm512_storeu_epi8, _pdep_u64, _pext_u64,
    };

    use super::{Merge, Pass};

    /// One in every byte.
    const ONES: u64 = 0x0101_0101_0101_0101;

    impl Pass<'_> {
        /// Passes over whole blocks of 64 tokens.
        #[target_feature(enable = "avx512bw,avx512vbmi2")]
        pub(super) unsafe fn wide_blocks(&mut self) {
            let Merge { pair: [left, right], id } = self.merge;
            let [lefts, rights, ids] = [left, right, id].map(|token| _mm512_set1_epi8(token.cast_signed()));
            // Whether the first token of the block was taken by the block before.
            let mut taken = 0_u64;
            // Two tokens beyond the block are looked at.
            while self.read + 66 <= self.tokens.len() {
                let at = self.tokens.as_mut_ptr();
                // SAFETY: `read + 66` is within the tokens.
                let (here, next) = unsafe {
                    (
                        _mm512_loadu_epi8(at.add(self.read).cast()),
                        _mm512_loadu_epi8(at.add(self.read + 1).cast()),
                    )
                };
                let both =
                    _mm512_cmpeq_epi8_mask(here, lefts) & _mm512_cmpeq_epi8_mask(next, rights) & !taken;
                let starts = if left == right { every_other(both) } else { both };
                let gone = starts << 1 | taken;
                self.count(starts, taken);
                let kept = _mm512_maskz_compress_epi8(!gone, _mm512_mask_blend_epi8(starts, here, ids));
                // SAFETY: `write <= read`, so that the 64 bytes end within the block, which has been loaded.
                unsafe { _mm512_storeu_epi8(self.tokens.as_mut_ptr().add(self.write).cast(), kept) };
                self.write += (!gone).count_ones() as usize;
                self.read += 64;
                taken = starts >> 63;
            }
            self.leave(taken);
        }

        /// Passes over whole blocks of 32 tokens.
        #[target_feature(enable = "avx2,bmi2,popcnt")]
        pub(super) unsafe fn half_blocks(&mut self) {
            let Merge { pair: [left, right], .. } = self.merge;
            let [lefts, rights] = [left, right].map(|token| _mm256_set1_epi8(token.cast_signed()));
            let mut taken = 0_u32;
            while self.read + 34 <= self.tokens.len() {
                let at = self.tokens.as_mut_ptr();
                // SAFETY: `read + 34` is within the tokens.
                let (here, next) = unsafe {
                    (
                        _mm256_loadu_si256(at.add(self.read).cast()),
                        _mm256_loadu_si256(at.add(self.read + 1).cast()),
                    )
                };
                let both = _mm256_and_si256(_mm256_cmpeq_epi8(here, lefts), _mm256_cmpeq_epi8(next, rights));
                let both = _mm256_movemask_epi8(both).cast_unsigned() & !taken;
                if both | taken == 0 {
                    // SAFETY: `write <= read`.
                    unsafe { _mm256_storeu_si256(at.add(self.write).cast(), here) };
                    self.write += 32;
                } else {
                    let starts = if left == right { every_other(both.into()) } else { both.into() };
                    let gone = starts << 1 | u64::from(taken);
                    self.count(starts, taken.into());
                    // SAFETY: as this function's.
                    unsafe { self.compact(starts, gone) };
                    taken = u32::from(starts >> 31 == 1);
                }
                self.read += 32;
            }
            self.leave(taken.into());
        }

        /// Writes 32 tokens, eight at a time, with the new token at `starts` and without those that are `gone`.
        #[target_feature(enable = "bmi2,popcnt")]
        unsafe fn compact(&mut self, starts: u64, gone: u64) {
            let new = ONES * u64::from(self.merge.id);
            for eight in 0..4 {
                let from = self.read + 8 * eight;
                let bytes = |bits: u64| _pdep_u64(bits >> (8 * eight), ONES) * 0xff;
                let mut word = [0; 8];
                word.copy_from_slice(&self.tokens[from..from + 8]);
                let starts = bytes(starts);
                let word = u64::from_le_bytes(word) & !starts | new & starts;
                let kept = _pext_u64(word, bytes(!gone));
                // What stands behind the kept tokens is overwritten next, or has been read.
                self.tokens[self.write..self.write + 8].copy_from_slice(&kept.to_le_bytes());
                self.write += 8 - (gone >> (8 * eight) & 0xff).count_ones() as usize;
            }
        }

        /// Leaves what is less than a block. A pair that reaches into it takes its first token along.
        fn leave(&mut self, taken: u64) {
            self.read += usize::from(taken == 1);
            if let Some(last) = self.write.checked_sub(1) {
                self.last = self.tokens[last];
            }
        }

        /// Counts what stands beside the pairs that start in a block, before it is overwritten. `taken`: whether the
        /// first token of the block belongs to a pair of the block before.
        #[inline]
        fn count(&mut self, mut starts: u64, taken: u64) {
            // Where the last pair ended: what stands before the block is what was written last.
            let mut end = if taken == 1 { 1 } else { usize::MAX };
            while starts != 0 {
                let at = starts.trailing_zeros() as usize;
                let before = match at {
                    0 => self.write.checked_sub(1).map_or(self.last, |last| self.tokens[last]),
                    _ if at == end => self.merge.id,
                    _ => self.tokens[self.read + at - 1],
                };
                self.beside.count(before, self.tokens[self.read + at + 2]);
                end = at + 2;
                starts &= starts - 1;
            }
        }
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Counts, SEPARATOR, carry_out, cut_at, may_change, team};
    use super::*;

    /// Tokens of a kind: one in a row, two in turn, any, the end of a piece.
    fn part() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0_u8..4, 0_usize..90).prop_map(|(token, length)| vec![token; length % 7 + length / 80 * 80]),
            (1_usize..90).prop_map(|length| (0..length).map(|at| u8::from(at % 2 == 0)).collect()),
            prop::collection::vec(0_u8..4, 0..60),
            Just(vec![SEPARATOR]),
        ]
    }

    /// Tokens and counts after merges of segments that are cut at the shares of 256 given; the first id is 9.
    fn merged(
        tokens: &[u8],
        pairs: &[[u8; 2]],
        kernel: Kernel,
        cuts: &[u8],
    ) -> (Vec<u8>, Vec<([u8; 2], u64)>) {
        let mut counts = count(tokens);
        let mut tokens = tokens.to_vec();
        let mut bounds: Vec<usize> = cuts.iter().map(|&cut| usize::from(cut) * tokens.len() / 256).collect();
        bounds.extend([0, tokens.len()]);
        bounds.sort_unstable();
        let segments = cut_at(&mut tokens, &bounds);
        let work = |segment: &mut Segment, order: &Order| kernel.carry_out(segment, order);
        let order = Order::new(pairs, 9);
        let beside = team::lead(&segments, 2, &work, |team| carry_out(team, &segments, order));
        for (merge, beside) in order.merges().iter().zip(&beside) {
            counts.settle(merge.pair, merge.id, beside);
        }
        let left = segments.iter().flat_map(|segment| team::lock(segment).content().to_vec()).collect();
        (left, counts.iter().collect())
    }

    /// Tokens after one merge after the other.
    fn naive(tokens: &[u8], pairs: &[[u8; 2]]) -> Vec<u8> {
        let merge = |tokens: Vec<u8>, (id, pair): (u8, &[u8; 2])| {
            let mut rest = tokens.as_slice();
            let mut merged = Vec::new();
            while let [first, after @ ..] = rest {
                let found = rest.starts_with(pair);
                merged.push(if found { id } else { *first });
                rest = if found { &rest[2..] } else { after };
            }
            merged
        };
        (9..).zip(pairs).fold(tokens.to_vec(), merge)
    }

    /// The longest start of some pairs that may be one order.
    fn sure(pairs: &[[u8; 2]]) -> &[[u8; 2]] {
        let clashes = |at: &usize| pairs[..*at].iter().any(|&before| may_change(before, pairs[*at]));
        &pairs[..(0..pairs.len()).find(clashes).unwrap_or(pairs.len())]
    }

    fn count(tokens: &[u8]) -> Counts {
        let mut counts = Counts(vec![0; 1 << 16]);
        for pair in tokens.windows(2).filter(|pair| !pair.contains(&SEPARATOR)) {
            *counts.at(pair[0], pair[1]) += 1;
        }
        counts
    }

    #[test]
    fn letters_are_counted_as_pairs_of_any_tokens_are() {
        for length in 0..20 {
            let tokens: Vec<u8> = (0..length).map(|at| [0, 1, SEPARATOR, 3, 3, 3, 2][at % 7]).collect();
            let pairs: Vec<_> = Counts::new(&tokens).iter().collect();
            assert_eq!(pairs, count(&tokens).iter().collect::<Vec<_>>(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn all_kernels_agree_wherever_segments_end_and_count_right(
            parts in prop::collection::vec(part(), 0..40),
            pairs in prop::collection::vec([0_u8..4, 0_u8..4], 1..9),
            cuts in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let tokens = [vec![SEPARATOR], parts.concat(), vec![SEPARATOR]].concat();
            let pairs = sure(&pairs);
            let (whole, counts) = merged(&tokens, pairs, Kernel::Narrow, &[]);
            prop_assert_eq!(&counts, &count(&whole).iter().collect::<Vec<_>>());
            prop_assert_eq!(&whole, &naive(&tokens, pairs));
            for kernel in Kernel::available() {
                let parts = merged(&tokens, pairs, kernel, &cuts);
                prop_assert_eq!(&parts, &(whole.clone(), counts.clone()), "{:?}", kernel);
            }
        }
    }
}
