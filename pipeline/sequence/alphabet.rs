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
    #[cfg(target_arch = "x86_64")]
    if bases.len() >= avx2::BYTES && is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there.
        let common = unsafe { avx2::are_all_common(bases) };
        if common {
            return None;
        }
    }
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

/// Appends to `out` the bases of the lines at the beginning of `text`, up to `count` lines of `bases` bases and `bytes` bytes with their
/// end (`\n`, or `\r\n`), up to the first one that looks otherwise or holds something else than A, C, G, T and N in either case; tells
/// how many lines that is. None where there is no AVX2, or for lines of fewer than 32 bases: they have to be looked at in another way.
pub fn take_common_lines(
    text: &[u8],
    (bases, bytes): (usize, usize),
    count: usize,
    out: &mut Vec<u8>,
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if bases >= avx2::BYTES && (bytes == bases + 1 || bytes == bases + 2) && is_x86_feature_detected!("avx2")
    {
        let lines = count.min(text.len() / bytes);
        out.reserve(lines * bases);
        let room = &mut out.spare_capacity_mut()[..lines * bases];
        // SAFETY: AVX2 is there, and so is what is asked for.
        let taken = unsafe { avx2::copy_common_lines(&text[..lines * bytes], (bases, bytes), room) };
        // SAFETY: so many bytes were written.
        unsafe { out.set_len(out.len() + taken * bases) };
        return taken;
    }
    0
}

/// Bytes of the leading chunks of [`CHUNK`] bytes that hold A, C, G, T and N only, in either case.
fn leading_common_chunks(bases: &[u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there.
        return unsafe { avx2::leading(bases, b"acgtn", 0x20) };
    }
    leading_common::<CHUNK>(bases)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8,
        _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8, _mm256_shuffle_epi8,
        _mm256_storeu_si256,
    };
    use std::mem::MaybeUninit;

    /// Bytes of a vector.
    pub(super) const BYTES: usize = 32;

    /// Letters by their low halves, which must all differ; at the others one of them too, which nothing that belongs there equals.
    #[target_feature(enable = "avx2")]
    fn by_low_half(of: &[u8]) -> __m256i {
        let mut letters = [of[0]; 16];
        for letter in of {
            letters[usize::from(letter & 15)] = *letter;
        }
        // SAFETY: 16 bytes are there, and need no alignment.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(letters.as_ptr().cast()) })
    }

    /// All ones where a byte is one of the letters: a shuffle gives each byte the one letter that it can be.
    #[target_feature(enable = "avx2")]
    fn are_among(letters: __m256i, bytes: __m256i) -> __m256i {
        _mm256_cmpeq_epi8(bytes, _mm256_shuffle_epi8(letters, bytes))
    }

    /// The same for lower-case letters, in either case.
    #[target_feature(enable = "avx2")]
    fn are_common(letters: __m256i, bytes: __m256i) -> __m256i {
        are_among(letters, _mm256_or_si256(bytes, _mm256_set1_epi8(0x20)))
    }

    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8; BYTES]) -> __m256i {
        // SAFETY: the bytes are there, and need no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    /// Whether at least [`BYTES`] bytes hold A, C, G, T and N only, in either case.
    #[target_feature(enable = "avx2")]
    pub(super) fn are_all_common(bases: &[u8]) -> bool {
        let (letters, (chunks, _)) = (by_low_half(b"acgtn"), bases.as_chunks::<BYTES>());
        let last = bases.last_chunk::<BYTES>();
        let among = |all, chunk| _mm256_and_si256(all, are_common(letters, load(chunk)));
        _mm256_movemask_epi8(chunks.iter().chain(last).fold(_mm256_set1_epi8(-1), among)) == -1
    }

    /// Bytes of the leading chunks of [`super::CHUNK`] bytes that hold some letters only; with the `case` of 0x20, which must be small
    /// letters then, in either case, with 0 as they are.
    #[target_feature(enable = "avx2")]
    pub(super) fn leading(bases: &[u8], of: &[u8], case: i8) -> usize {
        let (letters, case) = (by_low_half(of), _mm256_set1_epi8(case));
        let (chunks, _) = bases.as_chunks::<{ super::CHUNK }>();
        let are = |half: &[u8; BYTES]| are_among(letters, _mm256_or_si256(load(half), case));
        let holds = |chunk: &&[u8; super::CHUNK]| {
            let (halves, _) = chunk.as_chunks::<BYTES>();
            _mm256_movemask_epi8(_mm256_and_si256(are(&halves[0]), are(&halves[1]))) == -1
        };
        super::CHUNK * chunks.iter().take_while(holds).count()
    }

    /// Copies the bases of whole lines to `out`, which has room for them, up to the first line that [`super::take_common_lines`] does not
    /// take, and tells how many there are. A line has at least [`BYTES`] bases, and is copied in steps of as many, the last of which ends
    /// with it.
    #[target_feature(enable = "avx2")]
    pub(super) fn copy_common_lines(
        text: &[u8],
        (bases, bytes): (usize, usize),
        out: &mut [MaybeUninit<u8>],
    ) -> usize {
        let letters = by_low_half(b"acgtn");
        let mut taken = 0;
        for (line, out) in text.chunks_exact(bytes).zip(out.chunks_exact_mut(bases)) {
            let (line, found) = line.split_at(bases);
            let (mut common, mut at) = (_mm256_set1_epi8(-1), 0);
            while at < bases {
                at = at.min(bases - BYTES);
                // SAFETY: both have `bases` bytes, and need no alignment.
                unsafe {
                    let some = _mm256_loadu_si256(line.as_ptr().add(at).cast());
                    _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), some);
                    common = _mm256_and_si256(common, are_common(letters, some));
                }
                at += BYTES;
            }
            let is_end = found[bytes - bases - 1] == b'\n' && (bytes == bases + 1 || found[0] == b'\r');
            if !is_end || _mm256_movemask_epi8(common) != -1 {
                break;
            }
            taken += 1;
        }
        taken
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
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there.
        let from = unsafe { avx2::leading(bases, b"ACGT", 0) };
        return from + leading(&bases[from..], is_base);
    }
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
                let found = unsafe { avx2::leading(&bases, b"acgtn", 0x20) };
                assert_eq!(found, leading_common::<CHUNK>(&bases), "byte {byte} at {at}");
            }
        }
    }

    #[test]
    fn common_lines_are_taken_up_to_the_first_other_one() {
        for bases in [32, 33, 60, 64, 65, 100] {
            for (end, bytes) in [("\n", bases + 1), ("\r\n", bases + 2)] {
                let line =
                    |at: usize| "acgtnACGTN".chars().cycle().skip(at).take(bases).collect::<String>() + end;
                let text = (0..5).map(line).collect::<String>().into_bytes();
                let expected =
                    (0..5).map(|at| line(at).trim_end().to_owned()).collect::<String>().into_bytes();
                for other in 0..5 * bytes {
                    for byte in [b'>', b'\n', b'\r', b'R', 0, 0xC1] {
                        let mut text = text.clone();
                        let same = text[other] == byte;
                        text[other] = byte;
                        let lines = if same { 5 } else { other / bytes };
                        let mut out = b"before".to_vec();
                        let taken = take_common_lines(&text, (bases, bytes), 4, &mut out);
                        #[cfg(target_arch = "x86_64")]
                        if is_x86_feature_detected!("avx2") {
                            assert_eq!(taken, lines.min(4), "{bases} bases, byte {byte} at {other}");
                        }
                        assert_eq!(out, [b"before", &expected[..taken * bases]].concat());
                    }
                }
            }
        }
        assert_eq!(take_common_lines(b"ACGT\nACGT\n", (4, 5), 2, &mut Vec::new()), 0);
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
