//! What sequences are made of: bases, G and C, soft-masked bases, N and other codes, and how long records are.
//!
//! A look into a table and an addition for each base; four counts of a window travel in one number. What was counted of
//! some records ([`Counted`]) is added to what was counted of others, in whatever order. Memory: 50 bins of windows, 256
//! counts of codes and one count for each length that occurs, of which `n` need at least `n * n / 2` bases: 80,000 lengths,
//! some 2 MB, at most for 3 Gb.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bases of a window whose share of G and C is looked at, at most; the last one of a stretch is shorter.
pub const WINDOW: u64 = 1000;

/// Bins of the share of G and C, all of one width.
pub const GC_BINS: usize = 50;

/// What some sequence is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Records: contigs or reads.
    pub records: u64,
    /// Bases.
    pub bases: u64,
    /// The longest record, in bases.
    pub longest: Option<u64>,
    /// Half of the bases lie in records at least this long.
    pub n50: Option<u64>,
    /// G and C, in either case.
    pub gc_bases: u64,
    /// A, C, G, T and U, in either case.
    pub acgt_bases: u64,
    /// Bases written in lower case, N and other codes among them.
    pub soft_masked: u64,
    /// N, in either case.
    pub n: u64,
    /// Codes that stand for two or three bases, by their letter in upper case.
    pub codes: BTreeMap<char, u64>,
    /// Bases A, C, G, T and U by the share of G and C among those of their window, in [`GC_BINS`] bins; each window has up
    /// to [`WINDOW`] bases, beginning where its stretch begins.
    pub gc_windows: Vec<u64>,
    /// Lengths of records in bins, two to a doubling: from, to below, and how many. Empty bins are left out.
    pub lengths: Vec<(u64, u64, u64)>,
}

impl Statistics {
    /// Share of G and C among A, C, G, T and U.
    pub fn gc(&self) -> Option<f64> {
        (self.acgt_bases > 0).then(|| self.gc_bases as f64 / self.acgt_bases as f64)
    }

    /// Codes other than N that stand for several bases.
    pub fn other_codes(&self) -> u64 {
        self.codes.values().sum()
    }
}

/// What one base adds to the four counts of a window, each of 16 bits: G and C, A and T, N, lower case.
const ADDS: [u64; 256] = adds();

const GC: u32 = 0;
const AT: u32 = 16;
const N: u32 = 32;
const LOWER: u32 = 48;

const fn adds() -> [u64; 256] {
    let mut table = [0; 256];
    let letters = [(b'G', GC), (b'C', GC), (b'A', AT), (b'T', AT), (b'U', AT), (b'N', N)];
    let mut i = 0;
    while i < letters.len() {
        let (letter, shift) = letters[i];
        table[letter as usize] += 1 << shift;
        table[letter.to_ascii_lowercase() as usize] += 1 << shift;
        i += 1;
    }
    let mut letter = b'a';
    while letter <= b'z' {
        table[letter as usize] += 1 << LOWER;
        letter += 1;
    }
    table
}

/// A count out of the four in a number.
const fn field(counts: u64, shift: u32) -> u64 {
    (counts >> shift) & 0xFFFF
}

/// What was counted of some records; to be added to what was counted of others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    gc: u64,
    at: u64,
    n: u64,
    soft_masked: u64,
    /// Other codes by their byte in upper case.
    codes: BTreeMap<u8, u64>,
    gc_windows: Vec<u64>,
    /// How often each length of a record occurs.
    lengths: BTreeMap<u64, u64>,
}

impl Counted {
    /// Adds what was counted of other records.
    pub fn add(&mut self, other: &Self) {
        self.gc += other.gc;
        self.at += other.at;
        self.n += other.n;
        self.soft_masked += other.soft_masked;
        self.gc_windows.resize(GC_BINS, 0);
        self.gc_windows.iter_mut().zip(&other.gc_windows).for_each(|(sum, bases)| *sum += bases);
        other.codes.iter().for_each(|(&code, count)| *self.codes.entry(code).or_default() += count);
        other.lengths.iter().for_each(|(&length, count)| *self.lengths.entry(length).or_default() += count);
    }

    /// What that is as statistics.
    pub fn statistics(&self) -> Statistics {
        let codes: BTreeMap<char, u64> =
            self.codes.iter().map(|(&code, &count)| (char::from(code), count)).collect();
        Statistics {
            records: self.lengths.values().sum(),
            bases: self.gc + self.at + self.n + codes.values().sum::<u64>(),
            longest: self.lengths.keys().next_back().copied(),
            n50: n50(&self.lengths),
            gc_bases: self.gc,
            acgt_bases: self.gc + self.at,
            soft_masked: self.soft_masked,
            n: self.n,
            codes,
            gc_windows: self.gc_windows.clone(),
            lengths: bins(&self.lengths),
        }
    }
}

/// Counts bases, stretch by stretch.
#[derive(Debug, Clone)]
pub struct Counter {
    gc: u64,
    at: u64,
    n: u64,
    soft_masked: u64,
    /// Other codes by their byte in upper case.
    codes: [u64; 256],
    gc_windows: [u64; GC_BINS],
    lengths: BTreeMap<u64, u64>,
    /// The four counts of the open window, and its bases.
    window: u64,
    window_bases: u64,
    /// The base after the last one of the stretch.
    next: u64,
}

impl Default for Counter {
    fn default() -> Self {
        Self {
            gc: 0,
            at: 0,
            n: 0,
            soft_masked: 0,
            codes: [0; 256],
            gc_windows: [0; GC_BINS],
            lengths: BTreeMap::new(),
            window: 0,
            window_bases: 0,
            next: 0,
        }
    }
}

impl Counter {
    /// Counts bases (IUPAC codes) that begin at base `start` of the record. Where they do not follow those before, a
    /// stretch begins.
    pub fn push(&mut self, start: u64, mut bases: &[u8]) {
        if start != self.next {
            self.end_stretch();
        }
        self.next = start + bases.len() as u64;
        while !bases.is_empty() {
            let room = usize::try_from(WINDOW - self.window_bases).unwrap_or(bases.len());
            let (own, rest) = bases.split_at(room.min(bases.len()));
            self.add(own);
            if self.window_bases == WINDOW {
                self.end_window();
            }
            bases = rest;
        }
    }

    /// Ends the stretch: what comes is of another record, or lies elsewhere.
    pub fn end_stretch(&mut self) {
        self.end_window();
        self.next = 0;
    }

    /// Counts a record of this many bases.
    pub fn add_record(&mut self, bases: u64) {
        *self.lengths.entry(bases).or_default() += 1;
    }

    /// Counts bases as soft-masked that were pushed in upper case.
    pub fn add_soft_masked(&mut self, bases: u64) {
        self.soft_masked += bases;
    }

    /// What was counted; the open window is one, too.
    pub fn statistics(&self) -> Statistics {
        self.counted().statistics()
    }

    /// The same, to be added to what others counted.
    pub fn counted(&self) -> Counted {
        let mut closed = self.clone();
        closed.end_window();
        let Self { gc, at, n, soft_masked, codes, gc_windows, lengths, .. } = closed;
        let codes = (0..=u8::MAX).zip(codes).filter(|(_, count)| *count > 0).collect();
        Counted { gc, at, n, soft_masked, codes, gc_windows: gc_windows.to_vec(), lengths }
    }

    /// Adds bases of one window.
    fn add(&mut self, bases: &[u8]) {
        let counts: u64 = bases.iter().map(|&base| ADDS[usize::from(base)]).sum();
        self.window += counts;
        self.window_bases += bases.len() as u64;
        if field(counts, GC) + field(counts, AT) + field(counts, N) < bases.len() as u64 {
            let known = (0xFFFF << GC) | (0xFFFF << AT) | (0xFFFF << N);
            for base in bases.iter().filter(|&&base| ADDS[usize::from(base)] & known == 0) {
                self.codes[usize::from(base.to_ascii_uppercase())] += 1;
            }
        }
    }

    fn end_window(&mut self) {
        let (gc, at) = (field(self.window, GC), field(self.window, AT));
        if let Some(bin) = (gc * GC_BINS as u64).checked_div(gc + at) {
            self.gc_windows[usize::try_from(bin).unwrap_or(GC_BINS).min(GC_BINS - 1)] += gc + at;
        }
        self.gc += gc;
        self.at += at;
        self.n += field(self.window, N);
        self.soft_masked += field(self.window, LOWER);
        (self.window, self.window_bases) = (0, 0);
    }
}

/// Half of the bases lie in records at least this long; given how often each length occurs.
fn n50(lengths: &BTreeMap<u64, u64>) -> Option<u64> {
    let bases: u128 = lengths.iter().map(|(&length, &count)| u128::from(length) * u128::from(count)).sum();
    let mut longer: u128 = 0;
    let reaches_half = |(&length, &count): (&u64, &u64)| {
        longer += u128::from(length) * u128::from(count);
        (longer * 2 >= bases).then_some(length)
    };
    lengths.iter().rev().find_map(reaches_half)
}

/// Lengths in bins that begin at 0, 1, 2, 3, 4, 6, 8, 12, 16 ...
fn bins(lengths: &BTreeMap<u64, u64>) -> Vec<(u64, u64, u64)> {
    let mut bins: Vec<(u64, u64, u64)> = Vec::new();
    for (&length, &count) in lengths {
        if let Some((.., sum)) = bins.last_mut().filter(|(_, to, _)| length < *to) {
            *sum += count;
        } else {
            let (from, to) = bin(length);
            bins.push((from, to, count));
        }
    }
    bins
}

/// The bin of a length.
const fn bin(length: u64) -> (u64, u64) {
    let Some(doublings) = length.checked_ilog2() else { return (0, 1) };
    let low = 1 << doublings;
    let middle = low + low / 2;
    if low == middle {
        (1, 2)
    } else if length < middle {
        (low, middle)
    } else {
        (middle, low.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(stretches: &[(u64, &str)]) -> Statistics {
        let mut counter = Counter::default();
        for (start, bases) in stretches {
            counter.push(*start, bases.as_bytes());
        }
        counter.statistics()
    }

    #[test]
    fn every_code_is_counted_once() {
        let found = counted(&[(0, "ACGTUNacgtunRYSWKMBDHVry")]);
        assert_eq!((found.bases, found.gc_bases, found.acgt_bases), (24, 4, 10));
        assert_eq!((found.n, found.other_codes(), found.soft_masked), (2, 12, 8));
        assert_eq!((found.codes[&'R'], found.codes[&'V']), (2, 1));
    }

    #[test]
    fn windows_begin_where_stretches_do() {
        let (rich, poor) = ("GC".repeat(500), "AT".repeat(500));
        for (stretches, expected) in [
            (vec![(0, "A"), (1, "A")], vec![(0, 2)]),
            (vec![(0, "A"), (5, "G")], vec![(0, 1), (49, 1)]),
            (vec![(0, &rich[..]), (1000, &poor)], vec![(0, 1000), (49, 1000)]),
            (vec![(7, &rich[..500]), (507, &poor)], vec![(0, 500), (25, 1000)]),
            (vec![(0, &rich[..]), (1000, "AN")], vec![(0, 1), (49, 1000)]),
        ] {
            let found = counted(&stretches).gc_windows.into_iter().enumerate();
            let found: Vec<_> = found.filter(|(_, bases)| *bases > 0).collect();
            assert_eq!(found, expected, "{} stretches", stretches.len());
        }
    }

    #[test]
    fn a_record_may_begin_where_another_ended() {
        let mut counter = Counter::default();
        counter.push(0, b"GG");
        counter.end_stretch();
        counter.push(2, b"AA");
        assert_eq!((counter.statistics().gc_windows[0], counter.statistics().gc_windows[49]), (2, 2));
    }

    #[test]
    fn n50_weighs_by_bases() {
        for (lengths, expected) in [
            (&[][..], None),
            (&[0], Some(0)),
            (&[7], Some(7)),
            (&[1, 1, 2, 4], Some(4)),
            (&[2, 3, 4], Some(3)),
            (&[3, 3, 3, 3], Some(3)),
        ] {
            let mut counter = Counter::default();
            for &length in lengths {
                counter.add_record(length);
            }
            assert_eq!(counter.statistics().n50, expected, "{lengths:?}");
        }
    }

    #[test]
    fn bins_double_in_two_steps() {
        for (length, expected) in [
            (0, (0, 1)),
            (1, (1, 2)),
            (2, (2, 3)),
            (3, (3, 4)),
            (4, (4, 6)),
            (6, (6, 8)),
            (1023, (768, 1024)),
            (1024, (1024, 1536)),
            (u64::MAX, (3 << 62, u64::MAX)),
        ] {
            assert_eq!(bin(length), expected, "{length}");
        }
        let mut counter = Counter::default();
        for length in [5, 4, 7, 100, 5] {
            counter.add_record(length);
        }
        assert_eq!(counter.statistics().lengths, [(4, 6, 3), (6, 8, 1), (96, 128, 1)]);
    }

    /// Records of some bases, counted by one counter.
    fn of_records(records: &[String]) -> Counted {
        let mut counter = Counter::default();
        for record in records {
            counter.push(0, record.as_bytes());
            counter.end_stretch();
            counter.add_record(record.len() as u64);
        }
        counter.counted()
    }

    proptest! {
        /// Written as JSON and read again on the way, as partitions hand it on.
        #[test]
        fn what_is_counted_in_parts_adds_up_to_the_whole(
            records in prop::collection::vec("[ACGTNacgtnRy]{0,2500}", 0..6),
            cut in 0usize..6,
        ) {
            let (first, second) = records.split_at(cut.min(records.len()));
            let mut sum = Counted::default();
            for part in [second, first] {
                let text = serde_json::to_value(of_records(part)).unwrap();
                sum.add(&Counted::deserialize(&text).unwrap());
            }
            prop_assert_eq!(sum.statistics(), of_records(&records).statistics());
        }

        #[test]
        fn counts_are_those_of_a_naive_loop(bases in "[ACGTNacgtnRy]{0,4000}", cut in 0usize..4000) {
            let cut = cut.min(bases.len());
            let found = counted(&[(0, &bases[..cut]), (cut as u64, &bases[cut..])]);
            let count = |letters: &str| bases.chars().filter(|&b| letters.contains(b)).count() as u64;
            prop_assert_eq!(found.bases, bases.len() as u64);
            prop_assert_eq!(found.gc_bases, count("GCgc"));
            prop_assert_eq!(found.acgt_bases, count("ACGTacgt"));
            prop_assert_eq!(found.soft_masked, count("acgtny"));
            prop_assert_eq!((found.n, found.other_codes()), (count("Nn"), count("Ry")));
            prop_assert_eq!(found.gc_windows.iter().sum::<u64>(), found.acgt_bases);
        }
    }
}
