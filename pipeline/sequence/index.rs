//! Which of many numbered things hold a k-mer: an inverted index over k-mer hashes.
//!
//! Memory: 16 bytes for each k-mer of each thing while entries are gathered, [`BYTES`] at the peak, when they become the
//! index; then 13 to 14 bytes for each k-mer and 4 for each thing that holds it. A look-up reads two places of memory.

use std::ops::Range;

use rayon::prelude::*;

/// The most that an entry takes, in bytes, while the index is made.
pub const BYTES: u64 = 36;

/// More entries than an index numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("found {found} k-mers, expected at most {}", u32::MAX)]
pub struct TooMany {
    /// Entries.
    pub found: usize,
}

/// An inverted index.
#[derive(Debug, Clone)]
pub struct Index {
    /// Hashes, ascending.
    keys: Vec<u64>,
    /// Where the holders of each key begin; one more at the end.
    starts: Vec<u32>,
    /// Who holds each key, ascending.
    holders: Vec<u32>,
    /// Where the keys of each bucket begin; one more at the end. A bucket is a key's leading bits.
    buckets: Vec<u32>,
    shift: u32,
}

impl Index {
    /// An index of pairs of a hash and the number of the thing that holds it; pairs may repeat.
    ///
    /// # Errors
    /// When there are more than `u32::MAX` different pairs.
    pub fn new(mut entries: Vec<(u64, u32)>) -> Result<Self, TooMany> {
        entries.par_sort_unstable();
        entries.dedup();
        entries.shrink_to_fit();
        let found = entries.len();
        let end = u32::try_from(found).map_err(|_| TooMany { found })?;
        let (mut keys, mut starts) = (Vec::new(), Vec::new());
        for (at, &(hash, _)) in (0..end).zip(&entries) {
            if keys.last() != Some(&hash) {
                keys.push(hash);
                starts.push(at);
            }
        }
        starts.push(end);
        let holders = entries.iter().map(|&(_, holder)| holder).collect();
        drop(entries);
        let (buckets, shift) = buckets(&keys);
        Ok(Self { keys, starts, holders, buckets, shift })
    }

    /// Different k-mers.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it holds no k-mer.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of a k-mer, by its hash.
    pub fn slot(&self, hash: u64) -> Option<usize> {
        let bucket = usize::try_from(hash >> self.shift).ok()?;
        let (from, to) = (*self.buckets.get(bucket)?, *self.buckets.get(bucket + 1)?);
        let keys = &self.keys[from as usize..to as usize];
        keys.iter().position(|&key| key == hash).map(|at| from as usize + at)
    }

    /// Who holds the k-mer of a number; ascending.
    pub fn holders(&self, slot: usize) -> &[u32] {
        &self.holders[self.range(slot)]
    }

    /// Who holds the k-mer of a hash; ascending, none if nobody does.
    pub fn holders_of(&self, hash: u64) -> &[u32] {
        self.slot(hash).map_or(&[], |slot| self.holders(slot))
    }

    fn range(&self, slot: usize) -> Range<usize> {
        self.starts[slot] as usize..self.starts[slot + 1] as usize
    }
}

/// The beginnings of the buckets of about four keys each, and by how many bits a key is shifted to give its bucket.
fn buckets(keys: &[u64]) -> (Vec<u32>, u32) {
    let bits = (keys.len() / 4).checked_ilog2().unwrap_or(0);
    let width = keys.last().map_or(0, |last| 64 - last.leading_zeros());
    let shift = width.saturating_sub(bits).min(63);
    let bucket = |key: u64| usize::try_from(key >> shift).unwrap_or(usize::MAX);
    let mut starts = vec![0; keys.last().map_or(0, |&last| bucket(last) + 1) + 1];
    for &key in keys {
        starts[bucket(key) + 1] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    (starts, shift)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_index_holds_nothing() {
        let index = Index::new(vec![]).unwrap();
        assert!(index.is_empty() && index.holders_of(0).is_empty() && index.holders_of(u64::MAX).is_empty());
    }

    proptest! {
        #[test]
        fn it_is_a_map_of_sets(
            entries in prop::collection::vec((prop_oneof![0u64..9, any::<u64>(), 0..1u64 << 50], 0u32..5), 0..300),
            others in prop::collection::vec(any::<u64>(), 0..9),
        ) {
            let mut map: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
            for &(hash, holder) in &entries {
                map.entry(hash).or_default().insert(holder);
            }
            let index = Index::new(entries).unwrap();
            prop_assert_eq!(index.len(), map.len());
            for hash in map.keys().copied().chain(others).chain(0..12) {
                let expected: Vec<u32> = map.get(&hash).into_iter().flatten().copied().collect();
                prop_assert_eq!(index.holders_of(hash), &expected[..]);
            }
            for (slot, holders) in map.values().enumerate() {
                let expected: Vec<u32> = holders.iter().copied().collect();
                prop_assert_eq!(index.holders(slot), &expected[..]);
            }
        }
    }
}
