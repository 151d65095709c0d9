//! Many pieces at once, on several threads, in their order.
//!
//! Memory: the ids, once more while the threads' parts are put together.

use rayon::prelude::*;

use super::Tokenizer;

/// The ids of pieces, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Ids of all pieces.
    pub ids: Vec<u32>,
    /// Where the ids of each piece end.
    pub ends: Vec<usize>,
}

impl Encoded {
    /// The ids of one piece.
    pub fn piece(&self, index: usize) -> Option<&[u32]> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.ids.get(start..end)
    }

    fn push(&mut self, tokenizer: &dyn Tokenizer, piece: &[u8]) {
        tokenizer.encode_into(piece, &mut self.ids);
        self.ends.push(self.ids.len());
    }

    fn append(&mut self, other: &Self) {
        let before = self.ids.len();
        self.ids.extend_from_slice(&other.ids);
        self.ends.extend(other.ends.iter().map(|end| before + end));
    }
}

/// Encodes `pieces` on `threads` threads of the current pool; the result does not depend on their number.
pub fn encode(tokenizer: &dyn Tokenizer, pieces: &[&[u8]], threads: usize) -> Encoded {
    let parts: Vec<Encoded> = share(pieces, threads.max(1))
        .into_par_iter()
        .map(|pieces| {
            let mut encoded = Encoded::default();
            encoded.ids.reserve(pieces.iter().map(|piece| piece.len()).sum::<usize>() / 3);
            for piece in pieces {
                encoded.push(tokenizer, piece);
            }
            encoded
        })
        .collect();
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    parts.for_each(|part| all.append(&part));
    all
}

/// Cuts the list of pieces into parts of about equal bases.
fn share<'a, 'b>(pieces: &'a [&'b [u8]], parts: usize) -> Vec<&'a [&'b [u8]]> {
    let bases: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut done = 0;
    let part_of = |piece: &&[u8]| {
        let part = done * parts / bases.max(1);
        done += piece.len();
        part
    };
    let numbers: Vec<usize> = pieces.iter().map(part_of).collect();
    let mut rest = pieces;
    let count = |numbers: &[usize]| numbers.len();
    numbers.chunk_by(|a, b| a == b).map(count).map(|length| rest.split_off(..length).unwrap_or(&[])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::nucleotide::Nucleotide;

    #[test]
    fn order_is_kept_by_any_number_of_threads() {
        let pieces: Vec<&[u8]> = vec![b"ACGT", b"", b"NNNNNNNN", b"G", b"TTTTT"];
        let expected = encode(&Nucleotide::new(), &pieces, 1);
        assert_eq!((expected.ends.as_slice(), expected.piece(3)), (&[4, 4, 12, 13, 18][..], Some(&[9][..])));
        for threads in [0, 2, 3, 7, 100] {
            assert_eq!(encode(&Nucleotide::new(), &pieces, threads), expected, "{threads} threads");
        }
        assert_eq!(encode(&Nucleotide::new(), &[], 4), Encoded::default());
    }
}
