//! Many pieces at once, on several threads, handed on in their order.
//!
//! Pieces are dealt in parts of about [`PART_BASES`] bases, whatever the number of threads. A round encodes a few parts a
//! thread, each into its own buffer; then the round's parts are handed on, first to last, and the buffers used again. So
//! no ids are copied, and memory is fresh only once.
//!
//! Memory: the ids of one round, [`PARTS`] parts a thread, each of [`PART_BASES`] bases or of one longer piece.

use rayon::prelude::*;

use super::Tokenizer;

/// Bases of a part, unless one piece is longer.
const PART_BASES: usize = 1 << 18;
/// Parts a thread in a round, so that no thread waits long for another at its end.
const PARTS: usize = 8;

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

    /// The ids of every piece, in order.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.ends.len()).map(|index| self.piece(index).unwrap_or_default())
    }

    fn fill(&mut self, tokenizer: &dyn Tokenizer, pieces: &[&[u8]]) {
        self.ids.clear();
        self.ends.clear();
        for piece in pieces {
            tokenizer.encode_into(piece, &mut self.ids);
            self.ends.push(self.ids.len());
        }
    }
}

/// Encodes `pieces` on the threads of the current pool and hands their ids to `each`, part by part, in order. Neither the
/// ids nor the parts depend on the number of threads.
///
/// # Errors
/// The first of `each`, after which nothing more is encoded.
pub fn encode<E>(
    tokenizer: &dyn Tokenizer,
    pieces: &[&[u8]],
    mut each: impl FnMut(&Encoded) -> Result<(), E>,
) -> Result<(), E> {
    let parts = share(pieces);
    let mut buffers = vec![Encoded::default(); parts.len().min(PARTS * rayon::current_num_threads())];
    for round in parts.chunks(buffers.len().max(1)) {
        let work = buffers.par_iter_mut().zip(round).with_max_len(1);
        work.for_each(|(buffer, pieces)| buffer.fill(tokenizer, pieces));
        buffers[..round.len()].iter().try_for_each(&mut each)?;
    }
    Ok(())
}

/// Cuts the list of pieces into parts that end with the piece that fills them.
fn share<'a, 'b>(pieces: &'a [&'b [u8]]) -> Vec<&'a [&'b [u8]]> {
    let (mut parts, mut start, mut bases) = (Vec::new(), 0, 0);
    for (at, piece) in pieces.iter().enumerate() {
        bases += piece.len();
        if bases >= PART_BASES || at + 1 == pieces.len() {
            parts.push(&pieces[start..=at]);
            (start, bases) = (at + 1, 0);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::nucleotide::Nucleotide;

    fn on(threads: usize, pieces: &[&[u8]]) -> Vec<Encoded> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut parts = Vec::new();
        pool.install(|| {
            encode(&Nucleotide::new(), pieces, |part| {
                parts.push(part.clone());
                Ok::<(), ()>(())
            })
        })
        .unwrap();
        parts
    }

    #[test]
    fn order_is_kept_by_any_number_of_threads() {
        let long = b"ACGTN".repeat(40_000);
        let pieces: Vec<&[u8]> = (0..60).map(|i| &long[i * 7..][..i * i * 50]).collect();
        let expected = on(1, &pieces);
        assert!(expected.len() > 10, "{} parts", expected.len());
        let ids = expected.iter().flat_map(Encoded::pieces);
        let alone = pieces.iter().map(|piece| {
            let mut ids = Vec::new();
            Nucleotide::new().encode_into(piece, &mut ids);
            ids
        });
        assert!(ids.eq(alone));
        for threads in [2, 3, 7] {
            assert_eq!(on(threads, &pieces), expected, "{threads} threads");
        }
        assert_eq!(on(2, &[]), []);
        assert_eq!(on(2, &[b""]), [Encoded { ids: Vec::new(), ends: vec![0] }]);
    }

    #[test]
    fn an_error_ends_it() {
        let piece = vec![b'A'; PART_BASES];
        let mut seen = 0;
        let failed = encode(&Nucleotide::new(), &[&piece[..]; 5], |_| {
            seen += 1;
            if seen == 2 { Err("full") } else { Ok(()) }
        });
        assert_eq!((failed, seen), (Err("full"), 2));
    }
}
