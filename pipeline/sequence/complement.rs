//! Complement and reverse complement of IUPAC codes, case kept.
//!
//! Stretches of A, C, G and T go eight bases at a time: bit 1 of the letter tells C and G (which differ in `0x04`) from
//! A and T (which differ in `0x15`), in either case.

const COMPLEMENT: [u8; 256] = complement_table();

const fn complement_table() -> [u8; 256] {
    let from = b"ACGTURYSWKMBDHVN";
    let to = b"TGCAAYRSWMKVHDBN";
    let mut table = [0; 256];
    let mut byte = u8::MAX;
    while byte > 0 {
        table[byte as usize] = byte;
        byte -= 1;
    }
    let mut i = 0;
    while i < from.len() {
        table[from[i] as usize] = to[i];
        table[from[i].to_ascii_lowercase() as usize] = to[i].to_ascii_lowercase();
        i += 1;
    }
    table
}

/// The code on the other strand, in the case of `base`; a byte that is no IUPAC code is returned as it is.
///
/// U gives A, and A gives T.
pub const fn complement(base: u8) -> u8 {
    COMPLEMENT[base as usize]
}

/// Appends the reverse complement of `bases` to `out`.
pub fn reverse_complement_into(bases: &[u8], out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + bases.len(), 0);
    write_reverse_complement(bases, &mut out[from..]);
}

/// Turns `bases` into their reverse complement, in place.
pub fn reverse_complement(bases: &mut [u8]) {
    let half = bases.len() / 2;
    let (left, right) = bases.split_at_mut(half);
    if let Some(middle) = (right.len() > half).then(|| &mut right[0]) {
        *middle = complement(*middle);
    }
    let skip = right.len() - half;
    swap_complements(left, &mut right[skip..]);
}

/// Exchanges two stretches of one length, each turned round and complemented.
fn swap_complements(left: &mut [u8], right: &mut [u8]) {
    let (lefts, left_rest) = left.as_chunks_mut::<8>();
    let (right_rest, rights) = right.as_rchunks_mut::<8>();
    for (l, r) in lefts.iter_mut().zip(rights.iter_mut().rev()) {
        (*l, *r) = (reverse_complement_8(*r), reverse_complement_8(*l));
    }
    for (l, r) in left_rest.iter_mut().zip(right_rest.iter_mut().rev()) {
        (*l, *r) = (complement(*r), complement(*l));
    }
}

/// `out` has the length of `bases`.
fn write_reverse_complement(bases: &[u8], out: &mut [u8]) {
    let (chunks, rest) = bases.as_chunks::<8>();
    let (out_rest, outs) = out.as_rchunks_mut::<8>();
    for (chunk, out) in chunks.iter().zip(outs.iter_mut().rev()) {
        *out = reverse_complement_8(*chunk);
    }
    for (&base, out) in rest.iter().zip(out_rest.iter_mut().rev()) {
        *out = complement(base);
    }
}

fn reverse_complement_8(bases: [u8; 8]) -> [u8; 8] {
    if !bases.iter().fold(true, |all, &b| all & is_base_in_either_case(b)) {
        let mut turned = bases.map(complement);
        turned.reverse();
        return turned;
    }
    let word = u64::from_le_bytes(bases).swap_bytes();
    let is_c_or_g = (word >> 1) & 0x0101_0101_0101_0101;
    (word ^ 0x1515_1515_1515_1515 ^ (is_c_or_g * 0x11)).to_le_bytes()
}

#[expect(clippy::needless_bitwise_bool, reason = "without branches it becomes vector code")]
const fn is_base_in_either_case(byte: u8) -> bool {
    let folded = byte | 0x20;
    (folded == b'a') | (folded == b'c') | (folded == b'g') | (folded == b't')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_code_has_its_complement_in_its_case() {
        for (base, expected) in "ACGTURYSWKMBDHVN".chars().zip("TGCAAYRSWMKVHDBN".chars()) {
            assert_eq!(char::from(complement(base as u8)), expected, "{base}");
            let lower = complement(base.to_ascii_lowercase() as u8);
            assert_eq!(char::from(lower), expected.to_ascii_lowercase(), "{base}");
        }
        assert_eq!(complement(b'*'), b'*');
    }

    #[test]
    fn reverse_complement_turns_the_sequence_round() {
        for (input, expected) in [
            ("", ""),
            ("A", "T"),
            ("AC", "GT"),
            ("acGTNry", "ryNACgt"),
            ("AACCGGTTAACCGGTTG", "CAACCGGTTAACCGGTT"),
        ] {
            let mut bases = input.as_bytes().to_vec();
            reverse_complement(&mut bases);
            assert_eq!(String::from_utf8(bases).unwrap(), expected, "{input}");
        }
    }

    proptest! {
        #[test]
        fn twice_is_identity(bases in "[ACGTNRYSWKMBDHVacgtnryswkmbdhv]{0,200}") {
            let bases = bases.into_bytes();
            let mut twice = bases.clone();
            reverse_complement(&mut twice);
            reverse_complement(&mut twice);
            prop_assert_eq!(&twice, &bases);
        }

        #[test]
        fn both_forms_equal_the_naive_one(bases in prop_oneof!["[ACGTacgt]{0,99}", "[ACGTUNRYacgtunry]{0,99}"]) {
            let naive: Vec<u8> = bases.bytes().rev().map(complement).collect();
            let mut in_place = bases.clone().into_bytes();
            reverse_complement(&mut in_place);
            prop_assert_eq!(&in_place, &naive);
            let mut appended = b"x".to_vec();
            reverse_complement_into(bases.as_bytes(), &mut appended);
            prop_assert_eq!(&appended[1..], &naive[..]);
        }
    }
}
