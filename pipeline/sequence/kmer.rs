//! Canonical k-mers: of k bases and their reverse complement the smaller one, at two bits a base, so that both strands
//! have the same ones. Bytes other than A, C, G, T and U in either case end a run. Memory: a few numbers.

/// The longest k-mer that fits 64 bits.
pub const MAX_K: usize = 32;

/// No base.
const NONE: u8 = 4;

const CODES: [u8; 256] = codes();

const fn codes() -> [u8; 256] {
    let mut table = [NONE; 256];
    let bases = b"ACGT";
    let mut code = 0;
    while code < 4 {
        table[bases[code as usize] as usize] = code;
        table[bases[code as usize].to_ascii_lowercase() as usize] = code;
        code += 1;
    }
    table[b'U' as usize] = 3;
    table[b'u' as usize] = 3;
    table
}

/// Follows the k-mers of a sequence base by base.
#[derive(Debug, Clone)]
pub struct Kmers {
    k: usize,
    mask: u64,
    forward: u64,
    reverse: u64,
    /// Bases since the last byte that is none.
    run: usize,
}

impl Kmers {
    /// At the beginning of a sequence.
    ///
    /// # Panics
    /// When `k` is 0 or above [`MAX_K`].
    pub fn new(k: usize) -> Self {
        assert!((1..=MAX_K).contains(&k), "k is {k}, expected 1 to {MAX_K}");
        Self { k, mask: u64::MAX >> (64 - 2 * k), forward: 0, reverse: 0, run: 0 }
    }

    /// Takes the next byte; the k-mer that ends with it, if there is one.
    pub fn push(&mut self, byte: u8) -> Option<u64> {
        let code = CODES[usize::from(byte)];
        if code == NONE {
            self.run = 0;
            return None;
        }
        let code = u64::from(code);
        self.forward = (self.forward << 2 | code) & self.mask;
        self.reverse = self.reverse >> 2 | (3 - code) << (2 * (self.k - 1));
        self.run += 1;
        (self.run >= self.k).then(|| self.forward.min(self.reverse))
    }
}

/// Calls `each` with the place and the hash of every k-mer, in order.
pub fn for_each_hash(bases: &[u8], k: usize, mut each: impl FnMut(usize, u64)) {
    let mut kmers = Kmers::new(k);
    for (end, &base) in bases.iter().enumerate() {
        if let Some(kmer) = kmers.push(base) {
            each(end + 1 - k, spread(kmer));
        }
    }
}

/// Spreads k-mers evenly over 64 bits; two k-mers never share a hash.
pub const fn spread(kmer: u64) -> u64 {
    let hash = kmer ^ 0x5851_F42D_4C95_7F2D;
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}

/// Which k-mers stand for all of them: those whose hash falls into a fixed share of all hashes. The same k-mer is
/// sampled or not wherever it occurs, so shares of the sample estimate shares of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    scale: u64,
}

impl Sample {
    /// One k-mer in `scale`, at least 1: all of them.
    pub const fn one_in(scale: u64) -> Self {
        Self { scale: if scale == 0 { 1 } else { scale } }
    }

    /// The largest sample of `kmers` k-mers that takes at most `memory` bytes at `bytes` a k-mer.
    pub fn within(memory: u64, kmers: u64, bytes: u64) -> Self {
        Self::one_in(kmers.saturating_mul(bytes).div_ceil(memory.max(1)))
    }

    /// One k-mer in how many.
    pub const fn scale(self) -> u64 {
        self.scale
    }

    /// Whether a hash is sampled.
    pub const fn takes(self, hash: u64) -> bool {
        hash <= u64::MAX / self.scale
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::complement::reverse_complement_into;
    use super::*;

    fn hashes(bases: &[u8], k: usize) -> Vec<(usize, u64)> {
        let mut found = Vec::new();
        for_each_hash(bases, k, |at, hash| found.push((at, hash)));
        found
    }

    #[test]
    fn kmers_are_read_where_they_are() {
        for (bases, k, expected) in [
            ("", 1, vec![]),
            ("ACG", 4, vec![]),
            ("A", 1, vec![(0, 0)]),
            ("T", 1, vec![(0, 0)]),
            ("ACGT", 4, vec![(0, 0b00_01_10_11)]),
            ("acgu", 4, vec![(0, 0b00_01_10_11)]),
            ("TTNAC", 2, vec![(0, 0), (3, 0b00_01)]),
            ("GGRCC", 2, vec![(0, 0b01_01), (3, 0b01_01)]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(at, kmer)| (at, spread(kmer))).collect();
            assert_eq!(hashes(bases.as_bytes(), k), expected, "{bases}, k {k}");
        }
    }

    #[test]
    fn samples_have_their_share() {
        let count = |sample: Sample| (0..100_000).filter(|&kmer| sample.takes(spread(kmer))).count();
        assert_eq!(count(Sample::one_in(0)), 100_000);
        assert_eq!(count(Sample::one_in(1)), 100_000);
        assert!((9_700..10_300).contains(&count(Sample::one_in(10))), "{}", count(Sample::one_in(10)));
        assert_eq!(Sample::within(320, 10, 32).scale(), 1);
        assert_eq!(Sample::within(319, 10, 32).scale(), 2);
    }

    proptest! {
        #[test]
        fn both_strands_have_the_same_kmers(bases in "[ACGTNacgtn]{0,120}", k in 1usize..=32) {
            let mut other = Vec::new();
            reverse_complement_into(bases.as_bytes(), &mut other);
            let places = bases.len() + 1;
            let mut turned: Vec<_> =
                hashes(&other, k).into_iter().map(|(at, hash)| (places - k - 1 - at, hash)).collect();
            turned.reverse();
            prop_assert_eq!(hashes(bases.as_bytes(), k), turned);
        }

        #[test]
        fn equal_hashes_are_equal_sequences(a in "[ACGT]{9}", b in "[ACGT]{9}") {
            let mut other = Vec::new();
            reverse_complement_into(b.as_bytes(), &mut other);
            let same = a == b || a.as_bytes() == other;
            prop_assert_eq!(hashes(a.as_bytes(), 9) == hashes(b.as_bytes(), 9), same);
        }
    }
}
