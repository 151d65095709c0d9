//! Finds windows that are too simple or too lopsided to learn from: by a DUST score, by entropy, by the share of G and C.
//!
//! Both scores count the triplets of A, C, G and T in a window: l triplets, c of each kind. The DUST score is the sum of
//! c (c - 1) / 2, by l - 1: about l / 128 for random sequence, l / 2 for a single repeated base. The entropy is that of the
//! triplets, in bits: 0 for a single repeated base, at most 6. Memory: the counts of a window, and 32 bytes for each run of
//! windows of the open stretch that fail.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Interval;

/// What a window must have to be kept; a window that fails is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Length of a window, in bases, at least 8. Windows begin with the stretch that they belong to; a last one of less
    /// than half this length goes the way of the one before it. Default 64.
    #[serde(default = "default_window")]
    #[schemars(range(min = 8))]
    pub window: u64,
    /// The highest DUST score: in windows of 64 bases random sequence has 0.5, poly-A 31, and dustmasker's level 20 is 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dust: Option<f64>,
    /// The lowest entropy of triplets, in bits: in windows of 64 bases random sequence has about 5.3, a repeat of two
    /// bases 1, poly-A 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_entropy: Option<f64>,
    /// The lowest share of G and C among A, C, G and T, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_gc: Option<f64>,
    /// The highest share of G and C among A, C, G and T, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_gc: Option<f64>,
}

const fn default_window() -> u64 {
    64
}

impl Filter {
    /// What is wrong with it, if anything.
    pub fn problem(&self) -> Option<String> {
        let share = |gc: Option<f64>| gc.is_none_or(|gc| (0.0..=1.0).contains(&gc));
        if self.window < 8 {
            Some(format!("`window` is {}, expected at least 8 bases", self.window))
        } else if !share(self.min_gc) || !share(self.max_gc) {
            Some("`min_gc` and `max_gc` are shares from 0 to 1".to_owned())
        } else if self.min_gc.unwrap_or(0.0) > self.max_gc.unwrap_or(1.0) {
            Some("`min_gc` is above `max_gc`".to_owned())
        } else {
            None
        }
    }

    fn judge(&self, counts: &Triplets) -> Option<Failure> {
        if self.max_dust.is_some_and(|most| counts.dust() > most) {
            Some(Failure::Dust)
        } else if self.min_entropy.is_some_and(|least| counts.entropy() < least) {
            Some(Failure::Entropy)
        } else if counts.gc().is_some_and(|gc| {
            self.min_gc.is_some_and(|least| gc < least) || self.max_gc.is_some_and(|most| gc > most)
        }) {
            Some(Failure::Gc)
        } else {
            None
        }
    }
}

/// Why a window is dropped; of several reasons the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its DUST score is too high.
    Dust,
    /// Its entropy is too low.
    Entropy,
    /// Its share of G and C is out of range.
    Gc,
}

/// What is said of a window: why it fails, if it does.
type Verdict = Option<Failure>;

/// Follows a stretch of sequence window by window.
#[derive(Debug, Clone)]
pub struct Windows {
    filter: Filter,
    counts: Triplets,
    /// Where the open window begins, in bases of the record.
    start: u64,
    /// Bases of the open window.
    bases: u64,
    /// What was said of the window before, if there is one.
    before: Option<Verdict>,
    failed: Vec<(Interval, Failure)>,
}

impl Windows {
    /// Before any stretch.
    pub fn new(filter: Filter) -> Self {
        Self { filter, counts: Triplets::default(), start: 0, bases: 0, before: None, failed: Vec::new() }
    }

    /// A stretch begins at base `at` of the record.
    pub fn begin(&mut self, at: u64) {
        *self = Self { failed: std::mem::take(&mut self.failed), start: at, ..Self::new(self.filter) };
    }

    /// Its next bases.
    pub fn push(&mut self, mut bases: &[u8]) {
        while !bases.is_empty() {
            let room = usize::try_from(self.filter.window - self.bases).unwrap_or(usize::MAX);
            let (now, later) = bases.split_at(room.min(bases.len()));
            for &base in now {
                self.counts.push(base);
            }
            self.advance(now.len() as u64);
            bases = later;
        }
    }

    /// Its next bases are N.
    pub fn push_n(&mut self, mut bases: u64) {
        while bases > 0 {
            let now = bases.min(self.filter.window - self.bases);
            self.counts.push(b'N');
            self.advance(now);
            bases -= now;
        }
    }

    fn advance(&mut self, bases: u64) {
        self.bases += bases;
        if self.bases == self.filter.window {
            self.end_window();
        }
    }

    fn end_window(&mut self) {
        let whole = self.bases * 2 >= self.filter.window;
        let failure = self.before.filter(|_| !whole).unwrap_or_else(|| self.filter.judge(&self.counts));
        let end = self.start + self.bases;
        if let Some(failure) = failure {
            match self.failed.last_mut().filter(|(last, why)| last.end == self.start && *why == failure) {
                Some((last, _)) => last.end = end,
                None => self.failed.push((Interval::new(self.start, end), failure)),
            }
        }
        (self.start, self.bases, self.before) = (end, 0, Some(failure));
        self.counts = Triplets::default();
    }

    /// The stretch ends; its windows that failed, in order.
    pub fn end(&mut self) -> Vec<(Interval, Failure)> {
        if self.bases > 0 {
            self.end_window();
        }
        std::mem::take(&mut self.failed)
    }
}

/// The triplets and bases of a window.
#[derive(Debug, Clone, Copy)]
struct Triplets {
    counts: [u32; 64],
    bases: [u32; 4],
    last: usize,
    /// Bases since the last byte that is none of A, C, G and T.
    run: u32,
}

impl Default for Triplets {
    fn default() -> Self {
        Self { counts: [0; 64], bases: [0; 4], last: 0, run: 0 }
    }
}

impl Triplets {
    fn push(&mut self, base: u8) {
        let code = match base {
            b'A' => 0,
            b'C' => 1,
            b'G' => 2,
            b'T' => 3,
            _ => {
                self.run = 0;
                return;
            }
        };
        self.bases[code] += 1;
        self.last = (self.last << 2 | code) & 63;
        self.run += 1;
        if self.run >= 3 {
            self.counts[self.last] += 1;
        }
    }

    fn total(&self) -> f64 {
        f64::from(self.counts.iter().sum::<u32>())
    }

    fn dust(&self) -> f64 {
        let pairs: f64 = self.counts.iter().map(|&c| f64::from(c) * (f64::from(c) - 1.0) / 2.0).sum();
        pairs / (self.total() - 1.0).max(1.0)
    }

    /// In bits; 6 where there is no triplet, for nothing is known of it.
    fn entropy(&self) -> f64 {
        let total = self.total();
        if total == 0.0 {
            return 6.0;
        }
        let shares = self.counts.iter().filter(|&&count| count > 0).map(|&count| f64::from(count) / total);
        shares.map(|share| -share * share.log2()).sum()
    }

    fn gc(&self) -> Option<f64> {
        let [a, c, g, t] = self.bases.map(f64::from);
        let all = a + c + g + t;
        (all > 0.0).then(|| (c + g) / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triplets(bases: &str) -> Triplets {
        let mut triplets = Triplets::default();
        bases.bytes().for_each(|base| triplets.push(base));
        triplets
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    #[test]
    fn scores_are_those_of_the_definition() {
        for (bases, dust, entropy, gc) in [
            ("", 0.0, 6.0, None),
            ("NNN", 0.0, 6.0, None),
            ("AC", 0.0, 6.0, Some(0.5)),
            ("ACG", 0.0, 0.0, Some(2.0 / 3.0)),
            ("AAAAAAAAAA", 4.0, 0.0, Some(0.0)),
            ("ACACACACAC", 12.0 / 7.0, 1.0, Some(0.5)),
            (
                "ACGTACNACG",
                1.0 / 4.0,
                2.0f64.mul_add(-(2.0f64 / 5.0).log2() / 5.0, 3.0 * 5.0f64.log2() / 5.0),
                Some(5.0 / 9.0),
            ),
        ] {
            let found = triplets(bases);
            assert!(close(found.dust(), dust), "{bases}: {}", found.dust());
            assert!(close(found.entropy(), entropy), "{bases}: {}", found.entropy());
            assert_eq!(found.gc(), gc, "{bases}");
        }
    }

    fn failed(filter: Filter, start: u64, bases: &str, block: usize) -> Vec<(u64, u64, Failure)> {
        let mut windows = Windows::new(filter);
        windows.begin(start);
        for block in bases.as_bytes().chunks(block) {
            windows.push(block);
        }
        windows.end().into_iter().map(|(i, why)| (i.start, i.end, why)).collect()
    }

    #[test]
    fn windows_fail_one_by_one() {
        let none = Filter { window: 8, max_dust: None, min_entropy: None, min_gc: None, max_gc: None };
        let dust = Filter { max_dust: Some(1.0), ..none };
        for (filter, bases, expected) in [
            (none, "AAAAAAAA", vec![]),
            (dust, "AAAAAAAA", vec![(5, 13, Failure::Dust)]),
            (dust, "ACGGTCATAAAAAAAAAAAAAAAA", vec![(13, 29, Failure::Dust)]),
            (dust, "AAAAAAAAACGGTCATAAAAAAAA", vec![(5, 13, Failure::Dust), (21, 29, Failure::Dust)]),
            (dust, "AAAAAAAAACG", vec![(5, 16, Failure::Dust)]),
            (dust, "ACGGTCATAAA", vec![]),
            (dust, "AAAAAAA", vec![(5, 12, Failure::Dust)]),
            (Filter { min_entropy: Some(1.5), ..none }, "ACACACACACGGTCAT", vec![(5, 13, Failure::Entropy)]),
            (Filter { min_gc: Some(0.3), ..none }, "ATTATTATACGGTCAT", vec![(5, 13, Failure::Gc)]),
            (Filter { max_gc: Some(0.6), ..none }, "ATTATTATGCGGTCGC", vec![(13, 21, Failure::Gc)]),
        ] {
            for block in 1..20 {
                assert_eq!(failed(filter, 5, bases, block), expected, "{bases} in blocks of {block}");
            }
        }
    }

    #[test]
    fn filters_are_checked() {
        let filter = |text: &str| serde_json::from_str::<Filter>(text).unwrap();
        assert_eq!(filter("{}").window, 64);
        for (text, expected) in [
            ("{}", None),
            (r#"{"window": 7}"#, Some("`window` is 7, expected at least 8 bases")),
            (r#"{"min_gc": 20}"#, Some("`min_gc` and `max_gc` are shares from 0 to 1")),
            (r#"{"min_gc": 0.6, "max_gc": 0.4}"#, Some("`min_gc` is above `max_gc`")),
        ] {
            assert_eq!(filter(text).problem().as_deref(), expected, "{text}");
        }
    }
}
