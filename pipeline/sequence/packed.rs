//! Bases in two bits each, with the runs of what two bits cannot say: other codes, and lower case.
//!
//! Any bytes come back as they were. Four bases are a byte, the first in its lowest bits: 0 to 3 for A C T G, the bits in
//! which those letters differ. Memory: a quarter of a byte a base, and 9 for every run.

/// Bases of a step, which is fast where none of them ends a run.
const STEP: usize = STEP_BASES as usize;
const STEP_BASES: u32 = 32;

/// Eight times the same byte.
const fn eight_of(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The bit that small letters have and capitals have not, of eight letters.
const CASE: u64 = eight_of(0x20);

/// A run of bases within what was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where it starts, in bases.
    pub start: u32,
    /// Bases.
    pub length: u32,
}

/// Packed bases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Two bits a base; what is left of the last byte is 0.
    pub bits: Vec<u8>,
    /// Runs of one other byte each, as a capital if it is a letter.
    pub others: Vec<(Run, u8)>,
    /// Runs of small letters.
    pub small: Vec<Run>,
}

impl Packed {
    /// Packs at most `u32::MAX` bases.
    pub fn new(bases: &[u8]) -> Self {
        let mut packed = Self { bits: Vec::with_capacity(bases.len().div_ceil(4)), ..Self::default() };
        let (steps, rest) = bases.as_chunks::<STEP>();
        let mut at = 0;
        for step in steps {
            packed.step(step, at);
            at += STEP_BASES;
        }
        let mut last = [b'A'; STEP];
        last[..rest.len()].copy_from_slice(rest);
        packed.step(&last, at);
        packed.bits.truncate(bases.len().div_ceil(4));
        packed
    }

    fn step(&mut self, bases: &[u8; STEP], at: u32) {
        let (mut other, mut any, mut all) = (0, 0, u64::MAX);
        let mut bits = [[0; 2]; STEP / 8];
        for (bits, &eight) in bits.iter_mut().zip(bases.as_chunks().0) {
            let eight = u64::from_le_bytes(eight);
            (other, any, all) = (other | other_than_bases(eight), any | eight, all & eight);
            *bits = join_eight(eight);
        }
        let (capitals, smalls) = (any & CASE == 0, all & CASE == CASE);
        if other != 0 || !(capitals || smalls) {
            return self.slowly(bases, at);
        }
        self.bits.extend_from_slice(bits.as_flattened());
        if smalls {
            add_small(&mut self.small, at, STEP_BASES);
        }
    }

    /// A step in which a run begins or ends.
    fn slowly(&mut self, bases: &[u8; STEP], at: u32) {
        let mut codes = [0; STEP];
        for ((code, &base), at) in codes.iter_mut().zip(bases).zip(at..) {
            let capital = base.to_ascii_uppercase();
            if matches!(capital, b'A' | b'C' | b'G' | b'T') {
                *code = capital >> 1 & 3;
            } else {
                self.other(at, capital);
            }
            if base.is_ascii_lowercase() {
                add_small(&mut self.small, at, 1);
            }
        }
        self.bits.extend(codes.as_chunks().0.iter().map(|&four| join(four)));
    }

    fn other(&mut self, at: u32, byte: u8) {
        match self.others.last_mut() {
            Some((run, last)) if *last == byte && run.start + run.length == at => run.length += 1,
            _ => self.others.push((Run { start: at, length: 1 }, byte)),
        }
    }
}

/// The `count` bases that were packed as [`Packed`] says; none when runs or bits do not fit them.
pub fn unpack(bits: &[u8], others: &[(Run, u8)], small: &[Run], count: usize) -> Option<Vec<u8>> {
    if bits.len() != count.div_ceil(4) {
        return None;
    }
    let mut bases = Vec::with_capacity(bits.len() * 4);
    for &byte in bits {
        bases.extend_from_slice(&FOUR[usize::from(byte)]);
    }
    bases.truncate(count);
    for &(run, byte) in others {
        bases.get_mut(range(run)?)?.fill(byte);
    }
    for &run in small {
        bases.get_mut(range(run)?)?.make_ascii_lowercase();
    }
    Some(bases)
}

/// Runs as bytes: where each starts, and its length.
pub fn small_to_bytes(runs: &[Run]) -> Vec<u8> {
    runs.iter().flat_map(|run| run.to_bytes()).collect()
}

/// The runs of [`small_to_bytes`]; bytes of half a run are left out.
pub fn small_from_bytes(bytes: &[u8]) -> Vec<Run> {
    bytes.as_chunks().0.iter().copied().map(Run::from_bytes).collect()
}

/// Runs as bytes: where each starts, its length, and its byte.
pub fn others_to_bytes(runs: &[(Run, u8)]) -> Vec<u8> {
    runs.iter().flat_map(|(run, byte)| run.to_bytes().into_iter().chain([*byte])).collect()
}

/// The runs of [`others_to_bytes`]; bytes of half a run are left out.
pub fn others_from_bytes(bytes: &[u8]) -> Vec<(Run, u8)> {
    let run = |&[run @ .., byte]: &[u8; 9]| (Run::from_bytes(run), byte);
    bytes.as_chunks().0.iter().map(run).collect()
}

impl Run {
    fn to_bytes(self) -> [u8; 8] {
        (u64::from(self.length) << 32 | u64::from(self.start)).to_le_bytes()
    }

    fn from_bytes([a, b, c, d, length @ ..]: [u8; 8]) -> Self {
        Self { start: u32::from_le_bytes([a, b, c, d]), length: u32::from_le_bytes(length) }
    }
}

fn add_small(runs: &mut Vec<Run>, at: u32, length: u32) {
    match runs.last_mut() {
        Some(run) if run.start + run.length == at => run.length += length,
        _ => runs.push(Run { start: at, length }),
    }
}

fn range(Run { start, length }: Run) -> Option<std::ops::Range<usize>> {
    Some(start as usize..start.checked_add(length)? as usize)
}

/// 0 if all eight bytes are A, C, G or T in either case: two bits of a letter tell which of them it could be.
const fn other_than_bases(eight: u64) -> u64 {
    let (second, third) = ((eight >> 1) & eight_of(1), (eight >> 2) & eight_of(1));
    let (c, t, g) = (second * 0x02, third * 0x15, (second & third) * 0x11);
    (eight & !CASE) ^ (eight_of(b'A') ^ c ^ t ^ g)
}

/// The two bits of each of eight bases, the first in the lowest.
const fn join_eight(eight: u64) -> [u8; 2] {
    let codes = (eight >> 1) & eight_of(3);
    let pairs = (codes | (codes >> 6)) & 0x000F_000F_000F_000F;
    let fours = (pairs | (pairs >> 12)) & 0x0000_00FF_0000_00FF;
    let [first, second, ..] = (fours | (fours >> 24)).to_le_bytes();
    [first, second]
}

/// Four codes as a byte: the product has them side by side in its highest byte.
const fn join(codes: [u8; 4]) -> u8 {
    u32::from_le_bytes(codes).wrapping_mul(1 << 24 | 1 << 18 | 1 << 12 | 1 << 6).to_le_bytes()[3]
}

/// The four bases of every byte.
const FOUR: [[u8; 4]; 256] = {
    let mut table = [[0; 4]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut at = 0;
        while at < 4 {
            table[byte][at] = b"ACTG"[byte >> (2 * at) & 3];
            at += 1;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_and_runs_are_as_written_down() {
        let run = |start, length| Run { start, length };
        for (bases, bits, others, small) in [
            ("", vec![], vec![], vec![]),
            ("ACTG", vec![0b11_10_01_00], vec![], vec![]),
            ("GA", vec![0b11], vec![], vec![]),
            ("ANNA", vec![0], vec![(run(1, 2), b'N')], vec![]),
            (
                "AnRgC",
                vec![0b11_00_00_00, 1],
                vec![(run(1, 1), b'N'), (run(2, 1), b'R')],
                vec![run(1, 1), run(3, 1)],
            ),
        ] {
            let packed = Packed::new(bases.as_bytes());
            assert_eq!(packed, Packed { bits, others, small }, "{bases}");
        }
    }

    #[test]
    fn long_runs_are_one() {
        let packed = Packed::new(&[&b"ACGT".repeat(20)[..], &b"acgt".repeat(50), &b"N".repeat(99)].concat());
        assert_eq!(packed.small, [Run { start: 80, length: 200 }]);
        assert_eq!(packed.others, [(Run { start: 280, length: 99 }, b'N')]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let whole = Packed::new(b"ACGTNNacgt");
        let run = Run { start: 9, length: 2 };
        for (broken, count) in [
            (whole.clone(), 13),
            (whole.clone(), 8),
            (Packed { others: vec![(run, b'N')], ..whole.clone() }, 10),
            (Packed { small: vec![run], ..whole.clone() }, 10),
            (Packed { small: vec![Run { start: u32::MAX, length: 2 }], ..whole.clone() }, 10),
        ] {
            assert_eq!(unpack(&broken.bits, &broken.others, &broken.small, count), None, "{broken:?}");
        }
        assert_eq!(unpack(&whole.bits, &whole.others, &whole.small, 10).unwrap(), b"ACGTNNacgt");
    }

    proptest! {
        #[test]
        fn every_byte_comes_back(runs in prop::collection::vec((any::<u8>(), prop::sample::select(&b"ACGTacgtNn"[..]), 0_usize..70, any::<bool>()), 0..40)) {
            let bases: Vec<u8> = runs
                .into_iter()
                .flat_map(|(byte, letter, length, any)| vec![if any { byte } else { letter }; length])
                .collect();
            let Packed { bits, others, small } = Packed::new(&bases);
            let others = others_from_bytes(&others_to_bytes(&others));
            let small = small_from_bytes(&small_to_bytes(&small));
            prop_assert_eq!(unpack(&bits, &others, &small, bases.len()), Some(bases));
        }
    }
}
