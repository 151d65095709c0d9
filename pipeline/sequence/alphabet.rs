//! The IUPAC nucleotide alphabet: which bytes are bases, and how they are written.
//!
//! The kernels look at [`CHUNK`] bytes at a time with comparisons only, which the compiler turns into vector code (with AVX2
//! a shuffle does it); a table decides the rare chunk that holds something else than A, C, G, T and N.

/// Bytes that a kernel looks at together.
const CHUNK: usize = 64;

/// Every IUPAC nucleotide code in upper case: the bases, U, and what stands for several bases.
pub const IUPAC: &[u8; 16] = b"ACGTURYSWKMBDHVN";

const IS_IUPAC: [bool; 256] = is_iupac_table();

const fn is_iupac_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut i = 0;
    while i < IUPAC.len() {
        table[IUPAC[i] as usize] = true;
        table[IUPAC[i].to_ascii_lowercase() as usize] = true;
        i += 1;
    }
    table
}

/// Whether `byte` is an IUPAC nucleotide code, in either case.
pub const fn is_iupac(byte: u8) -> bool {
    IS_IUPAC[byte as usize]
}

/// The bases that an upper-case IUPAC code stands for, U as T; none for other bytes.
pub const fn bases_of(code: u8) -> &'static [u8] {
    match code {
        b'A' => b"A",
        b'C' => b"C",
        b'G' => b"G",
        b'T' | b'U' => b"T",
        b'R' => b"AG",
        b'Y' => b"CT",
        b'S' => b"CG",
        b'W' => b"AT",
        b'K' => b"GT",
        b'M' => b"AC",
        b'B' => b"CGT",
        b'D' => b"AGT",
        b'H' => b"ACT",
        b'V' => b"ACG",
        b'N' => b"ACGT",
        _ => b"",
    }
}

/// The index of the first byte that is no IUPAC nucleotide code in either case.
pub fn first_invalid(bases: &[u8]) -> Option<usize> {
    let mut at = leading_common_chunks(bases);
    while at < bases.len() {
        at += leading_common::<8>(&bases[at..]);
        let next = &bases[at..bases.len().min(at + 8)];
        if let Some(invalid) = next.iter().position(|&b| !is_iupac(b)) {
            return Some(at + invalid);
        }
        at += next.len();
        at += leading_common_chunks(&bases[at..]);
    }
    None
}

/// Bytes of the leading chunks of [`CHUNK`] bytes that hold A, C, G, T and N only, in either case.
fn leading_common_chunks(bases: &[u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there.
        return unsafe { avx2::leading_common(bases) };
    }
    leading_common::<CHUNK>(bases)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8,
        _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8, _mm256_shuffle_epi8,
    };

    /// As [`super::leading_common`]. The low halves of a, c, g, t and n all differ: a shuffle gives each byte the one letter
    /// that it can be, or 0.
    #[target_feature(enable = "avx2")]
    pub(super) fn leading_common(bases: &[u8]) -> usize {
        let mut letters = [0_u8; 16];
        b"acgtn".iter().for_each(|letter| letters[usize::from(letter & 15)] = *letter);
        // SAFETY: 16 bytes are there, and need no alignment.
        let letters = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(letters.as_ptr().cast()) });
        let (case, (chunks, _)) = (_mm256_set1_epi8(0x20), bases.as_chunks::<{ super::CHUNK }>());
        let is_common = |half: &[u8; 32]| -> __m256i {
            // SAFETY: 32 bytes are there, and need no alignment.
            let folded = _mm256_or_si256(unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }, case);
            _mm256_cmpeq_epi8(folded, _mm256_shuffle_epi8(letters, folded))
        };
        let holds = |chunk: &&[u8; super::CHUNK]| {
            let (halves, _) = chunk.as_chunks::<32>();
            _mm256_movemask_epi8(_mm256_and_si256(is_common(&halves[0]), is_common(&halves[1]))) == -1
        };
        super::CHUNK * chunks.iter().take_while(holds).count()
    }
}

/// Bytes of the leading chunks of `N` bytes that hold A, C, G, T and N only, in either case.
fn leading_common<const N: usize>(bases: &[u8]) -> usize {
    let (chunks, _) = bases.as_chunks::<N>();
    N * chunks.iter().take_while(|chunk| chunk.iter().fold(true, |all, &b| all & is_common(b))).count()
}

/// A, C, G, T or N, in either case.
#[expect(clippy::needless_bitwise_bool, reason = "without branches it becomes vector code")]
const fn is_common(byte: u8) -> bool {
    let folded = byte | 0x20;
    (folded == b'a') | (folded == b'c') | (folded == b'g') | (folded == b't') | (folded == b'n')
}

/// Whether `byte` is an upper-case A, C, G or T.
#[expect(clippy::needless_bitwise_bool, reason = "without branches it becomes vector code")]
pub const fn is_base(byte: u8) -> bool {
    (byte == b'A') | (byte == b'C') | (byte == b'G') | (byte == b'T')
}

/// Length of the stretch of upper-case A, C, G and T at the beginning of `bases`.
pub fn leading_bases(bases: &[u8]) -> usize {
    leading(bases, is_base)
}

/// Length of the stretch of upper-case N at the beginning of `bases`.
pub fn leading_n(bases: &[u8]) -> usize {
    leading(bases, |base| base == b'N')
}

/// Length of the stretch at the beginning of `bases` whose bytes all satisfy `belongs`, a test without branches.
pub(super) fn leading(bases: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    let (chunks, _) = bases.as_chunks::<CHUNK>();
    let all_belong = |chunk: &&[u8; CHUNK]| chunk.iter().fold(true, |all, &b| all & belongs(b));
    let from = chunks.iter().take_while(all_belong).count() * CHUNK;
    let tail = bases[from..].iter().position(|&b| !belongs(b));
    tail.map_or(bases.len(), |at| from + at)
}

/// Writes IUPAC codes as upper-case DNA, in place: lower case becomes upper case, U becomes T.
///
/// Bytes that are no IUPAC codes come out as some other byte.
pub fn normalize(bases: &mut [u8]) {
    for base in bases {
        let upper = *base & 0xDF;
        *base = if upper == b'U' { b'T' } else { upper };
    }
}

#[cfg(test)]
mod tests {
    use super::super::complement::complement;
    use super::*;

    #[test]
    fn iupac_has_sixteen_letters_in_two_cases() {
        assert_eq!((0..=255).filter(|&b| is_iupac(b)).count(), 32);
        for byte in *b"ACGTURYSWKMBDHVNacgturyswkmbdhvn" {
            assert!(is_iupac(byte), "{}", char::from(byte));
        }
    }

    #[test]
    fn codes_complement_as_their_bases_do() {
        for &code in IUPAC {
            let mut bases: Vec<u8> = bases_of(code).iter().map(|&base| complement(base)).collect();
            bases.sort_unstable();
            assert_eq!(bases_of(complement(code)), bases, "{}", char::from(code));
        }
        assert!((0..=255).filter(|byte| !IUPAC.contains(byte)).all(|byte| bases_of(byte).is_empty()));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_shuffle_knows_every_byte() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        for byte in 0..=255 {
            for at in [0, 31, 32, 63, 64] {
                let mut bases = vec![b'n'; 128];
                bases[at] = byte;
                // SAFETY: AVX2 is there.
                let found = unsafe { avx2::leading_common(&bases) };
                assert_eq!(found, leading_common::<CHUNK>(&bases), "byte {byte} at {at}");
            }
        }
    }

    #[test]
    fn first_invalid_finds_every_byte_at_every_place() {
        for byte in 0..=255 {
            for at in [0, 1, 63, 64, 65, 127, 128, 140] {
                let mut bases = vec![b'a'; 141];
                bases[at] = byte;
                assert_eq!(first_invalid(&bases), (!is_iupac(byte)).then_some(at), "byte {byte} at {at}");
            }
        }
        assert_eq!(first_invalid(b""), None);
    }

    #[test]
    fn leading_bases_stops_at_every_byte_at_every_place() {
        for byte in 0..=255 {
            for at in [0, 1, 63, 64, 65, 140] {
                let mut bases = vec![b'T'; 141];
                bases[at] = byte;
                let expected = if b"ACGT".contains(&byte) { 141 } else { at };
                assert_eq!(leading_bases(&bases), expected, "byte {byte} at {at}");
            }
        }
        assert_eq!(leading_bases(b""), 0);
    }

    #[test]
    fn normalize_folds_case_and_uracil() {
        for (input, expected) in
            [("", ""), ("acgtnACGTN", "ACGTNACGTN"), ("uU", "TT"), ("ryswkmbdhv", "RYSWKMBDHV")]
        {
            let mut bases = input.as_bytes().to_vec();
            normalize(&mut bases);
            assert_eq!(bases, expected.as_bytes(), "{input}");
        }
    }
}
