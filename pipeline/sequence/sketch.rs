//! Finds sequences that share most of their k-mers with an earlier one, by `MinHash` sketches.
//!
//! A sketch has the least hash of each of `bins` equal parts of all hashes (one-permutation hashing); an empty bin takes
//! the value of another one, chosen by its number (optimal densification). The share of bins in which two sketches agree
//! estimates the Jaccard similarity of the two sets of k-mers with a standard error of at most 0.5 / sqrt(bins).
//! Candidates agree in all rows of a band of the sketch. Memory: 4 bytes a bin and some 25 bytes a band for each sketch
//! that is kept.

use std::collections::HashMap;

use super::kmer::{for_each_hash, spread};

/// No k-mer fell into the bin.
const EMPTY: u32 = u32::MAX;

/// The most that may be missed of pairs whose similarity is the threshold.
const MISSED: f64 = 0.01;

/// The least hash of each bin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch(Vec<u32>);

impl Sketch {
    /// Of no k-mer.
    ///
    /// # Panics
    /// When `bins` is no power of two from 2 to 65,536.
    pub fn new(bins: usize) -> Self {
        assert!(bins.is_power_of_two() && (2..=1 << 16).contains(&bins), "{bins} bins");
        Self(vec![EMPTY; bins])
    }

    /// With these values in its bins, as [`Self::values`] has them.
    pub const fn of_values(values: Vec<u32>) -> Self {
        Self(values)
    }

    /// The least value of each bin.
    pub fn values(&self) -> &[u32] {
        &self.0
    }

    /// Adds the k-mers of `bases`, those that begin in the first `own` of them.
    pub fn add(&mut self, bases: &[u8], own: usize, k: usize) {
        let bits = self.0.len().trailing_zeros();
        for_each_hash(bases, k, |at, hash| {
            if at < own {
                let bin = usize::try_from(hash >> (64 - bits)).unwrap_or_default();
                let value = u32::try_from((hash << bits) >> 32).unwrap_or_default().min(EMPTY - 1);
                self.0[bin] = self.0[bin].min(value);
            }
        });
    }

    /// Adds the k-mers of another sketch with as many bins.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(bin, other)| *bin = (*bin).min(*other));
    }

    /// Every bin with a value; none if there is no k-mer.
    fn filled(&self) -> Option<Vec<u32>> {
        if self.0.iter().all(|&value| value == EMPTY) {
            return None;
        }
        let other = |bin: usize| {
            let tries = (1..).map(|attempt| spread((bin as u64) << 32 | attempt));
            let mut bins = tries.map(|hash| usize::try_from(hash % self.0.len() as u64).unwrap_or_default());
            bins.find(|&bin| self.0[bin] != EMPTY).map_or(EMPTY, |bin| self.0[bin])
        };
        let fill = |(bin, &value): (usize, &u32)| if value == EMPTY { other(bin) } else { value };
        Some(self.0.iter().enumerate().map(fill).collect())
    }
}

/// A sketch that another one resembles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// What it was kept as.
    pub of: u32,
    /// The estimated Jaccard similarity, from 0 to 1.
    pub similarity: f64,
}

/// Sketches that were kept, to be found again.
#[derive(Debug)]
pub struct Kept {
    bins: usize,
    rows: usize,
    threshold: f64,
    numbers: Vec<u32>,
    sketches: Vec<u32>,
    /// The sketch kept last with these rows in that band, counted from 1.
    last: HashMap<u64, u32>,
    /// For each sketch and band the sketch kept before it with the same rows, from 1; 0: none.
    before: Vec<u32>,
}

impl Kept {
    /// To find sketches whose similarity is at least `threshold`, above 0 and at most 1.
    pub fn new(bins: usize, threshold: f64) -> Self {
        Self {
            bins,
            rows: rows(bins, threshold),
            threshold,
            numbers: Vec::new(),
            sketches: Vec::new(),
            last: HashMap::new(),
            before: Vec::new(),
        }
    }

    /// The share of pairs at the threshold that are missed, because they agree in no band.
    pub fn missed(&self) -> f64 {
        missed(self.bins, self.rows, self.threshold)
    }

    /// The kept sketch that resembles this one most, the earliest of equals; if there is none, it is kept as `number`.
    pub fn find_or_keep(&mut self, sketch: &Sketch, number: u32) -> Option<Near> {
        let filled = sketch.filled()?;
        let keys: Vec<u64> =
            (0..).zip(filled.chunks(self.rows)).map(|(band, rows)| key(band, rows)).collect();
        if let Some((agreeing, of)) = self.best(&filled, &keys) {
            return Some(Near { of: self.numbers[of], similarity: agreeing as f64 / self.bins as f64 });
        }
        self.numbers.push(number);
        self.sketches.extend(filled);
        let own = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        for key in keys {
            self.before.push(self.last.insert(key, own).unwrap_or(0));
        }
        None
    }

    /// The bins that agree with the best kept sketch, and which one that is.
    fn best(&self, filled: &[u32], keys: &[u64]) -> Option<(usize, usize)> {
        let needed = self.threshold * self.bins as f64;
        let mut candidates = Vec::new();
        for (band, key) in keys.iter().enumerate() {
            let mut next = self.last.get(key).copied().unwrap_or(0) as usize;
            while next > 0 {
                candidates.push(next - 1);
                next = self.before[(next - 1) * keys.len() + band] as usize;
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        let agreeing = |of: usize| {
            let kept = &self.sketches[of * self.bins..(of + 1) * self.bins];
            (kept.iter().zip(filled).filter(|(a, b)| a == b).count(), of)
        };
        let near = candidates.into_iter().map(agreeing).filter(|(bins, _)| *bins as f64 >= needed);
        near.min_by_key(|&(bins, of)| (self.bins - bins, of))
    }
}

fn key(band: u64, rows: &[u32]) -> u64 {
    rows.iter().fold(spread(band), |key, &row| spread(key.rotate_left(17) ^ u64::from(row)))
}

/// The most rows a band may have for pairs at the threshold to be found but for one in a hundred.
fn rows(bins: usize, threshold: f64) -> usize {
    let possible = std::iter::successors(Some(bins), |rows| Some(rows / 2)).take_while(|&rows| rows > 0);
    possible.into_iter().find(|&rows| missed(bins, rows, threshold) <= MISSED).unwrap_or(1)
}

fn missed(bins: usize, rows: usize, threshold: f64) -> f64 {
    (1.0 - threshold.powf(rows as f64)).powf((bins / rows) as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::complement::reverse_complement;
    use super::*;

    fn random(bases: usize, seed: u64) -> Vec<u8> {
        (0..bases as u64).map(|i| b"ACGT"[(spread(seed << 32 | i) >> 62) as usize]).collect()
    }

    fn sketch(bases: &[u8], bins: usize) -> Sketch {
        let mut sketch = Sketch::new(bins);
        sketch.add(bases, bases.len(), 15);
        sketch
    }

    /// The Jaccard similarity of the sets of 15-mers.
    fn jaccard(a: &[u8], b: &[u8]) -> f64 {
        let set = |bases: &[u8]| {
            let mut set = HashSet::new();
            for_each_hash(bases, 15, |_, hash| {
                set.insert(hash);
            });
            set
        };
        let (a, b) = (set(a), set(b));
        a.intersection(&b).count() as f64 / a.union(&b).count() as f64
    }

    #[test]
    fn bands_follow_the_threshold() {
        for (threshold, expected) in [(1.0, 128), (0.9, 8), (0.8, 4), (0.5, 2), (0.1, 1)] {
            assert_eq!(rows(128, threshold), expected, "{threshold}");
        }
    }

    #[test]
    fn similar_sequences_are_found_and_others_kept() {
        let mut kept = Kept::new(128, 0.8);
        let first = random(2000, 1);
        let mut changed = first.clone();
        (300..303).for_each(|at| changed[at] = b'A');
        let mut turned = changed.clone();
        reverse_complement(&mut turned);
        assert_eq!(kept.find_or_keep(&sketch(&first, 128), 10), None);
        assert_eq!(kept.find_or_keep(&sketch(&random(2000, 2), 128), 11), None);
        for bases in [&first, &changed, &turned] {
            let near = kept.find_or_keep(&sketch(bases, 128), 12).unwrap();
            assert_eq!(near.of, 10);
            assert!((near.similarity - jaccard(&first, bases)).abs() < 0.15, "{near:?}");
        }
        assert_eq!(kept.find_or_keep(&sketch(&first[..700], 128), 13), None, "a third of the k-mers");
        assert_eq!(kept.find_or_keep(&sketch(b"ACGTN", 128), 14), None, "no k-mer");
        assert_eq!(kept.numbers, [10, 11, 13]);
    }

    #[test]
    fn estimates_are_right_on_average() {
        for (bases, overlap) in [(2000, 1000), (150, 100)] {
            let mut sum = (0.0, 0.0);
            for seed in 0..200 {
                let long = random(2 * bases - overlap, seed);
                let (a, b) = (&long[..bases], &long[bases - overlap..]);
                let (x, y) = (sketch(a, 128).filled().unwrap(), sketch(b, 128).filled().unwrap());
                sum.0 += x.iter().zip(&y).filter(|(x, y)| x == y).count() as f64 / 128.0;
                sum.1 += jaccard(a, b);
            }
            assert!((sum.0 - sum.1).abs() / 200.0 < 0.02, "{sum:?}");
        }
    }

    proptest! {
        #[test]
        fn blocks_do_not_matter(bases in "[ACGTN]{0,300}", block in 1usize..90) {
            let bases = bases.as_bytes();
            let mut merged = Sketch::new(32);
            for from in (0..bases.len()).step_by(block) {
                let mut part = Sketch::new(32);
                part.add(&bases[from..(from + block + 14).min(bases.len())], block, 15);
                merged.merge(&part);
            }
            prop_assert_eq!(merged, sketch(bases, 32));
        }
    }
}
