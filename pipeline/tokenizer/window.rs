//! Encoding a window so that its tokens do not depend on where it was cut: flank, tokenize, trim.
//!
//! A window cut from a longer sequence is encoded together with `flank` bases on either side; tokens that begin in the
//! window are kept. Neighbouring windows then share every token once, whatever the cuts, provided that the flank is
//! longer than the distance at which a cut can still be felt: [`measure`] counts how often it is not.

use super::Tokenizer;

/// Tokens of a window, and the bases that they stand for: those of the tokens that begin in the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trimmed {
    /// The ids.
    pub ids: Vec<u32>,
    /// First base of the first token; 0-based in the sequence, at least the window's start.
    pub start: usize,
    /// One past the last base of the last token; may lie beyond the window's end.
    pub end: usize,
}

/// Encodes `sequence[start..end]` with up to `flank` bases on either side and keeps the tokens that begin in it.
///
/// `end` and `start` are clamped to the sequence. Tokens of overlapping k-mers begin at their last base.
pub fn encode(tokenizer: &dyn Tokenizer, sequence: &[u8], start: usize, end: usize, flank: usize) -> Trimmed {
    let end = end.min(sequence.len());
    let start = start.min(end);
    let from = start.saturating_sub(flank);
    let mut ids = Vec::new();
    tokenizer.encode_into(&sequence[from..sequence.len().min(end.saturating_add(flank))], &mut ids);
    let (before, first) = skip_to(tokenizer, &ids, from, start);
    let (kept, last) = skip_to(tokenizer, &ids[before..], first, end);
    Trimmed { ids: ids[before..before + kept].to_vec(), start: first, end: last }
}

/// Number of tokens that begin before `until`, and where the next one begins, when the first begins at `at`.
fn skip_to(tokenizer: &dyn Tokenizer, ids: &[u32], mut at: usize, until: usize) -> (usize, usize) {
    let begins_before = |id: &&u32| {
        let before = at < until;
        if before {
            at += tokenizer.bases(**id) as usize;
        }
        before
    };
    let count = ids.iter().take_while(begins_before).count();
    (count, at)
}

/// How many windows do not have the tokens of the whole sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Windows compared.
    pub windows: usize,
    /// Those with at least one token that differs.
    pub changed: usize,
}

/// Cuts `sequence` into windows of `length` bases, encodes each with `flank`, and compares with its encoding as a whole.
pub fn measure(tokenizer: &dyn Tokenizer, sequence: &[u8], length: usize, flank: usize) -> Change {
    let mut whole = Vec::new();
    tokenizer.encode_into(sequence, &mut whole);
    let (mut done, mut at) = (0, 0);
    let mut change = Change { windows: 0, changed: 0 };
    for start in (0..sequence.len()).step_by(length.max(1)) {
        let end = sequence.len().min(start + length.max(1));
        let (count, next) = skip_to(tokenizer, &whole[done..], at, end);
        let window = encode(tokenizer, sequence, start, end, flank);
        let same = window.start == at && window.ids == whole[done..done + count];
        change.windows += 1;
        change.changed += usize::from(!same);
        (done, at) = (done + count, next);
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::kmer::{Config, Kmer};

    #[test]
    fn tokens_that_begin_in_the_window_are_kept() {
        let kmer = Kmer::new(Config { k: 3, overlapping: false }).unwrap();
        for (start, end, flank, expected, range) in [
            (3, 9, 3, "GTA CGT", (3, 9)),
            (4, 9, 4, "CGT", (6, 9)),
            (4, 8, 4, "CGT", (6, 9)),
            (4, 9, 0, "TAC G T", (4, 9)),
            (9, 99, 9, "ACC", (9, 12)),
            (50, 99, 9, "", (12, 12)),
        ] {
            let window = encode(&kmer, b"ACTGTACGTACC", start, end, flank);
            let texts: Vec<&str> = window.ids.iter().map(|&id| kmer.text(id).unwrap()).collect();
            assert_eq!(
                (texts.join(" ").as_str(), (window.start, window.end)),
                (expected, range),
                "{start}-{end}"
            );
        }
    }

    #[test]
    fn a_flank_that_keeps_the_frame_changes_nothing() {
        let kmer = Kmer::new(Config { k: 3, overlapping: false }).unwrap();
        let sequence = b"ACTGTACGTACC".repeat(10);
        assert_eq!(measure(&kmer, &sequence, 8, 120), Change { windows: 15, changed: 0 });
        assert!(measure(&kmer, &sequence, 8, 0).changed > 5);
    }
}
