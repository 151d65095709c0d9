//! What stands in place of a model on a leaderboard: which tokens it sees, and what it makes of them without weights.
//!
//! Memory: one count of each token for each row.

use std::sync::Arc;

use super::{Error, Row};
use crate::evaluate::protocol::Baseline;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::kmer::{Config, Kmer};
use crate::tokenizer::nucleotide::Nucleotide;

/// Bases of a word of [`Baseline::Kmer`].
const WORD: u32 = 4;

/// Its tokens: single bases, or a word from every base on.
pub(super) fn tokenizer(baseline: Baseline) -> Result<Arc<dyn Tokenizer>, Error> {
    Ok(match baseline {
        Baseline::Cnn => Arc::new(Nucleotide::new()),
        Baseline::Kmer => Arc::new(Kmer::new(Config { k: WORD, overlapping: true })?),
    })
}

/// How often each of `width` tokens stands in a row, as a part of its tokens; a row one after the other.
pub(super) fn frequencies(rows: &[Row], width: usize) -> Vec<f32> {
    let mut all = vec![0.0; rows.len() * width];
    for (row, found) in rows.iter().zip(all.chunks_mut(width)) {
        let part = 1.0 / row.ids.len().max(1) as f32;
        row.ids.iter().for_each(|id| found[*id as usize] += part);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::{Encoder, Inputs, Stop, Workers};
    use super::*;
    use crate::evaluate::protocol::Pooling;

    #[test]
    fn words_are_counted_as_parts_of_all() {
        let encoder = Encoder::of_baseline(Baseline::Kmer).unwrap();
        let (rows, _) =
            encoder.rows([&b"ACGTACGT"[..], b"AAAAN", b"A"].into_iter(), &Inputs::default()).unwrap();
        let workers = Workers::start(1).unwrap();
        let found = encoder.embed(&rows, Pooling::Mean, &workers, &Stop::new(), &|_| {}).unwrap();
        let id =
            |text: &str| (0..encoder.identity().width).find(|id| encoder.tokenizer.text(*id) == Some(text));
        let of = |row: usize, text: &str| {
            found[row * encoder.identity().width as usize + id(text).unwrap() as usize]
        };
        let expected = [
            (0, "ACGT", 0.4),
            (0, "CGTA", 0.2),
            (0, "AAAA", 0.0),
            (1, "AAAA", 0.5),
            (1, "N", 0.5),
            (2, "A", 1.0),
        ];
        for (row, word, expected) in expected {
            assert!((of(row, word) - expected).abs() < 1e-6, "{word} in {row}: {}", of(row, word));
        }
    }
}
