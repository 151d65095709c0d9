//! Soft-masked bases, which are written in lower case: mostly repeats, which otherwise fill a vocabulary.

use super::{SoftMasked, bytes};

/// Bases around a masked run that help to decide whether it is kept, so that equal short runs do not share one fate.
const AROUND: usize = 32;

/// Replaces masked bases that are not to be learned from by separators.
pub fn apply(soft_masked: SoftMasked, piece: &[u8], tokens: &mut [u8]) {
    let weight = match soft_masked {
        SoftMasked::Keep => return,
        SoftMasked::Exclude => 0.0,
        SoftMasked::Weight(weight) => weight,
    };
    let mut start = 0;
    for run in piece.chunk_by(|a, b| a.is_ascii_lowercase() == b.is_ascii_lowercase()) {
        let end = start + run.len();
        if run[0].is_ascii_lowercase() {
            let around = &piece[start.saturating_sub(AROUND)..piece.len().min(end + AROUND)];
            if !is_chosen(hash(around), weight) {
                tokens[start..end].fill(bytes::SEPARATOR);
            }
        }
        start = end;
    }
}

/// Whether a hash falls into a share of all hashes.
fn is_chosen(hash: u64, share: f64) -> bool {
    ((hash >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// A hash of bytes that spreads well over 64 bits.
pub fn hash(bytes: &[u8]) -> u64 {
    let mix = |state: u64, word: u64| {
        let mixed = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    };
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let mixed = bytes.chunks(8).fold(bytes.len() as u64, |state, chunk| mix(state, word(chunk)));
    mix(mix(mixed, 0x2545_f491), 0x4f6c_dd1d)
}
