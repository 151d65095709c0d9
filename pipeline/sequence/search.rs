//! Finds where given sequences lie in others, on both strands, by the canonical k-mers that they share.
//!
//! A target sequence is looked for as a whole, or in pieces of 512 to 1024 bases if it is longer. A piece is found
//! where a stretch of its length (and an eighth more, for insertions) holds at least a share of its k-mers, each counted
//! once; where what is searched is shorter than the piece, a share of what is searched. Memory: the index of the
//! targets ([`super::index`], one thing for each piece), 4 bytes a piece for each thread, 8 bytes for each base of what
//! is searched at once that begins a k-mer of a target.

use std::collections::HashMap;

use super::index::{Index, TooMany};
use super::kmer::for_each_hash;

/// The longest sequence that is looked for as a whole, in bases.
pub const PIECE_BASES: usize = 1024;

/// What is looked for, and how.
#[derive(Debug)]
pub struct Targets {
    k: usize,
    /// The share of k-mers that makes a find, above 0 and at most 1.
    threshold: f64,
    pieces: Vec<Piece>,
    index: Index,
}

/// A sequence that is looked for, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    sequence: u32,
    bases: u32,
    /// Different k-mers.
    kmers: u32,
}

/// Gathers what is looked for.
#[derive(Debug)]
pub struct Gather {
    k: usize,
    pieces: Vec<Piece>,
    entries: Vec<(u64, u32)>,
}

impl Gather {
    /// To look for k-mers of `k` bases.
    pub fn new(k: usize) -> Self {
        Self { k, pieces: Vec::new(), entries: Vec::new() }
    }

    /// Adds a sequence under a number; false if it has no k-mer and cannot be found.
    pub fn add(&mut self, sequence: u32, bases: &[u8]) -> bool {
        let before = self.pieces.len();
        let parts = bases.len().div_ceil(PIECE_BASES).max(1);
        for part in 0..parts {
            let (from, to) = (part * bases.len() / parts, (part + 1) * bases.len() / parts);
            let to = if part + 1 < parts { (to + self.k - 1).min(bases.len()) } else { to };
            self.add_piece(sequence, &bases[from..to]);
        }
        self.pieces.len() > before
    }

    fn add_piece(&mut self, sequence: u32, bases: &[u8]) {
        let number = count(self.pieces.len());
        let mut hashes = Vec::with_capacity(bases.len());
        for_each_hash(bases, self.k, |_, hash| hashes.push(hash));
        hashes.sort_unstable();
        hashes.dedup();
        if !hashes.is_empty() {
            self.pieces.push(Piece { sequence, bases: count(bases.len()), kmers: count(hashes.len()) });
            self.entries.extend(hashes.into_iter().map(|hash| (hash, number)));
        }
    }

    /// Makes them ready to be found where at least `threshold` of their k-mers are.
    ///
    /// # Errors
    /// When they have more k-mers than an index numbers.
    pub fn finish(self, threshold: f64) -> Result<Targets, TooMany> {
        Ok(Targets { k: self.k, threshold, pieces: self.pieces, index: Index::new(self.entries)? })
    }
}

/// A number of bases or pieces, which an [`Index`] bounds.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Where a piece was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// First base.
    pub start: usize,
    /// One past the last base.
    pub end: usize,
    /// The piece.
    pub piece: u32,
    /// Whether all of its k-mers are there.
    pub whole: bool,
}

/// What a thread keeps between two searches: for each piece the k-mers seen.
#[derive(Debug, Clone)]
pub struct Counter(Vec<u32>);

/// A k-mer of a piece that can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    piece: u32,
    at: u32,
    slot: u32,
}

impl Targets {
    /// Bases beyond those that a find begins in which [`Targets::find`] must see.
    pub fn reach(&self) -> usize {
        let longest = self.pieces.iter().map(|piece| span(*piece, self.k)).max();
        longest.unwrap_or(0) + self.k
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// The number of the sequence that a piece belongs to.
    pub fn sequence_of(&self, piece: usize) -> u32 {
        self.pieces[piece].sequence
    }

    /// For one thread.
    pub fn counter(&self) -> Counter {
        Counter(vec![0; self.pieces.len()])
    }

    /// Finds the pieces that begin in the first `own` bases of `bases`, which is the beginning of a stretch that has room
    /// for `room` k-mers. The finds of one piece do not overlap; all are ordered by piece, then by place.
    pub fn find(&self, bases: &[u8], own: usize, room: u64, counter: &mut Counter) -> Vec<Found> {
        let mut seen: Vec<(u32, u32)> = Vec::new();
        for_each_hash(bases, self.k, |at, hash| {
            if let Some(slot) = self.index.slot(hash) {
                seen.push((count(at), count(slot)));
            }
        });
        let hits = self.hits_of_candidates(&seen, room, counter);
        let mut found = Vec::new();
        for hits in hits.chunk_by(|a, b| a.piece == b.piece) {
            self.places(hits, own, room, &mut found);
        }
        found
    }

    /// The hits of the pieces that have enough of them, by piece and place. Counting first keeps repeats, of which
    /// thousands of pieces may have a part, from filling memory.
    fn hits_of_candidates(&self, seen: &[(u32, u32)], room: u64, counter: &mut Counter) -> Vec<Hit> {
        let mut touched = Vec::new();
        for &(_, slot) in seen {
            for &piece in self.index.holders(slot as usize) {
                let count = &mut counter.0[piece as usize];
                if *count == 0 {
                    touched.push(piece);
                }
                *count += 1;
            }
        }
        for &piece in &touched {
            if counter.0[piece as usize] < self.needed(piece, room) {
                counter.0[piece as usize] = 0;
            }
        }
        let mut hits = Vec::new();
        for &(at, slot) in seen {
            let pieces = self.index.holders(slot as usize).iter();
            let candidates = pieces.filter(|&&piece| counter.0[piece as usize] > 0);
            hits.extend(candidates.map(|&piece| Hit { piece, at, slot }));
        }
        for &piece in &touched {
            counter.0[piece as usize] = 0;
        }
        hits.sort_unstable();
        hits
    }

    /// How many different k-mers of a piece make a find in a stretch with room for so many.
    fn needed(&self, piece: u32, room: u64) -> u32 {
        let possible = u64::from(self.pieces[piece as usize].kmers).min(room);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
        let needed = (self.threshold * possible as f64).ceil() as u32;
        needed.max(1)
    }

    /// The places that hold enough of the k-mers of one piece; `hits` are its own, by place.
    fn places(&self, hits: &[Hit], own: usize, room: u64, found: &mut Vec<Found>) {
        let Some(&Hit { piece, .. }) = hits.first() else { return };
        let (needed, first) = (self.needed(piece, room), found.len());
        let Piece { kmers, .. } = self.pieces[piece as usize];
        let span = span(self.pieces[piece as usize], self.k);
        let mut inside: HashMap<u32, u32> = HashMap::new();
        let mut next = 0;
        for from in hits {
            if from.at as usize >= own {
                break;
            }
            while let Some(hit) = hits.get(next).filter(|hit| hit.at as usize - (from.at as usize) < span) {
                *inside.entry(hit.slot).or_default() += 1;
                next += 1;
            }
            if inside.len() >= needed as usize {
                let (start, end) = (from.at as usize, hits[next - 1].at as usize + self.k);
                let whole = inside.len() >= kmers as usize;
                match found[first..].last_mut().filter(|last| last.end >= start) {
                    Some(last) => *last = Found { end, whole: last.whole | whole, ..*last },
                    None => found.push(Found { start, end, piece, whole }),
                }
            }
            if let Some(count) = inside.get_mut(&from.slot) {
                *count -= 1;
                if *count == 0 {
                    inside.remove(&from.slot);
                }
            }
        }
    }
}

/// Over how many places the k-mers of a find may begin.
fn span(piece: Piece, k: usize) -> usize {
    let places = (piece.bases as usize + 1).saturating_sub(k);
    places + places / 8
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::complement::reverse_complement;
    use super::*;

    fn targets(k: usize, threshold: f64, sequences: &[&str]) -> Targets {
        let mut gather = Gather::new(k);
        for (number, bases) in (0..).zip(sequences) {
            gather.add(number, bases.as_bytes());
        }
        gather.finish(threshold).unwrap()
    }

    fn find(targets: &Targets, bases: &str) -> Vec<(usize, usize, u32, bool)> {
        let room = (bases.len() + 1).saturating_sub(targets.k) as u64;
        let found = targets.find(bases.as_bytes(), bases.len(), room, &mut targets.counter());
        found.into_iter().map(|f| (f.start, f.end, f.piece, f.whole)).collect()
    }

    #[test]
    fn targets_are_found_on_both_strands() {
        let (target, other) = ("ACGGTCATTA", "TAATGACCGT");
        for (threshold, bases, expected) in [
            (1.0, format!("GGGGG{target}CCCCC"), vec![(5, 15, 0, true)]),
            (1.0, format!("GGGGG{other}CCCCC"), vec![(5, 15, 0, true)]),
            (1.0, format!("GGGGG{}CCCCC", target.to_lowercase()), vec![(5, 15, 0, true)]),
            (1.0, "GGGGGACGGTCATTCCCCC".to_owned(), vec![]),
            (0.7, "GGGGGACGGTCATTCCCCC".to_owned(), vec![(5, 14, 0, false)]),
            (0.7, "GGGGGACGGTCNNTTACCC".to_owned(), vec![]),
            (1.0, format!("{target}GG{other}"), vec![(0, 10, 0, true), (12, 22, 0, true)]),
            (1.0, "CATTA".to_owned(), vec![(0, 5, 0, false)]),
            (1.0, "CAT".to_owned(), vec![]),
        ] {
            assert_eq!(find(&targets(4, threshold, &[target]), &bases), expected, "{bases} at {threshold}");
        }
    }

    #[test]
    fn repeated_kmers_count_once() {
        let targets = targets(3, 0.5, &["AAAAAAAACGTCAGCT"]);
        assert_eq!(find(&targets, "AAAAAAAAAAAAAAAA"), []);
        assert_eq!(find(&targets, "CCAACGTCAGCC").len(), 1);
    }

    #[test]
    fn long_sequences_are_looked_for_in_pieces() {
        let mut gather = Gather::new(11);
        let long: Vec<u8> =
            (0..3000u32).map(|i| b"ACGT"[(super::super::kmer::spread(i.into()) >> 62) as usize]).collect();
        assert!(gather.add(7, &long));
        assert!(!gather.add(8, b"ACGTNACGT"));
        let targets = gather.finish(0.5).unwrap();
        assert_eq!(targets.pieces(), 3);
        assert!((0..3).all(|piece| targets.sequence_of(piece) == 7));
        let found = find(&targets, std::str::from_utf8(&long[400..2010]).unwrap());
        let pieces: Vec<_> = found.iter().map(|&(.., piece, whole)| (piece, whole)).collect();
        assert_eq!(pieces, [(0, false), (1, true)]);
    }

    /// Bases that some window of the span, beginning with a hit, gives to a find.
    fn naive(targets: &Targets, bases: &str) -> Vec<Vec<bool>> {
        let k = targets.k;
        let room = (bases.len() + 1).saturating_sub(k) as u64;
        let mut places = Vec::new();
        for_each_hash(bases.as_bytes(), k, |at, hash| places.push((at, hash)));
        let mut marked = Vec::new();
        for (number, piece) in (0..).zip(&targets.pieces) {
            let mut mark = vec![false; bases.len()];
            let own = |hash: u64| targets.index.holders_of(hash).contains(&number);
            for &(from, _) in places.iter().filter(|(_, hash)| own(*hash)) {
                let inside = || {
                    places
                        .iter()
                        .filter(|&&(at, hash)| at >= from && at < from + span(*piece, k) && own(hash))
                };
                let different: HashSet<u64> = inside().map(|&(_, hash)| hash).collect();
                if different.len() >= targets.needed(number, room) as usize {
                    mark[from..inside().next_back().unwrap().0 + k].fill(true);
                }
            }
            marked.push(mark);
        }
        marked
    }

    proptest! {
        #[test]
        fn it_finds_what_looking_everywhere_finds(
            bases in "[ACGT]{0,30}[ACN]{0,9}[ACGT]{0,30}",
            cuts in prop::collection::vec((0usize..60, 5usize..20, any::<bool>()), 1..4),
            threshold in 0.1f64..=1.0,
            tile in 1usize..30,
        ) {
            let pieces = cuts.iter().map(|&(from, length, turn)| {
                let from = from.min(bases.len());
                let mut piece = bases.as_bytes()[from..(from + length).min(bases.len())].to_vec();
                if turn { reverse_complement(&mut piece) }
                String::from_utf8(piece).unwrap()
            });
            let pieces: Vec<String> = pieces.collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let targets = targets(4, threshold, &pieces);
            let expected = naive(&targets, &bases);
            let room = (bases.len() + 1).saturating_sub(4) as u64;
            let mut marked = vec![vec![false; bases.len()]; targets.pieces()];
            let mut counter = targets.counter();
            for from in (0..bases.len()).step_by(tile) {
                let to = (from + tile + targets.reach()).min(bases.len());
                for found in targets.find(&bases.as_bytes()[from..to], tile, room, &mut counter) {
                    marked[found.piece as usize][from + found.start..from + found.end].fill(true);
                }
            }
            prop_assert_eq!(marked, expected);
        }
    }
}
