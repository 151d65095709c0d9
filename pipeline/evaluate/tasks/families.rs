//! What validates, drawn from the training part: a tenth of its examples, or of its families of sequences that share k-mers.
//!
//! Memory: of families 36 bytes for each 21-mer of the training part, at most [`MEMORY`]; above it a sample of them is looked at.

use std::collections::BTreeMap;

use crate::sequence::families::families;
use crate::sequence::index::{BYTES, TooMany};
use crate::sequence::kmer::{Sample, for_each_hash, spread};

/// One training example in so many validates.
pub(super) const VALIDATION: u64 = 10;
/// Bases of a k-mer.
const K: usize = 21;
/// The part of the k-mers of the smaller one that two members of a family share.
const SHARED: f64 = 0.5;
/// Bytes for k-mers.
const MEMORY: u64 = 2 << 30;

/// The family of every sequence: the number of its first member.
pub(super) fn of<'a>(sequences: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Vec<u32>, TooMany> {
    let bases = sequences.clone().map(|sequence| sequence.len() as u64).sum();
    let (sample, mut entries, mut count) = (Sample::within(MEMORY, bases, BYTES), Vec::new(), 0);
    for (sequence, number) in sequences.zip(0_u32..) {
        for_each_hash(sequence, K, |_, hash| {
            if sample.takes(hash) {
                entries.push((hash, number));
            }
        });
        count += 1;
    }
    families(count, entries, SHARED)
}

/// Of each of some examples whether it validates, drawn one by one.
pub(super) fn drawn(examples: usize, seed: u64) -> Vec<bool> {
    (0..examples).map(|at| spread(at as u64 ^ spread(seed)).is_multiple_of(VALIDATION)).collect()
}

/// The same, drawn family by family: in an order by the seed, those that still fit into the tenth.
pub(super) fn drawn_by_family(families: &[u32], seed: u64) -> Vec<bool> {
    let mut sizes: BTreeMap<u32, u64> = BTreeMap::new();
    for family in families {
        *sizes.entry(*family).or_default() += 1;
    }
    let room = (families.len() as u64).div_ceil(VALIDATION);
    let mut order: Vec<(u32, u64)> = sizes.into_iter().collect();
    order.sort_by_key(|(family, _)| spread(u64::from(*family) ^ spread(seed)));
    let (mut held, mut size) = (std::collections::BTreeSet::new(), 0);
    for (family, members) in order {
        if size + members <= room {
            held.insert(family);
            size += members;
        }
    }
    families.iter().map(|family| held.contains(family)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::complement::reverse_complement;

    #[test]
    fn families_stay_together_and_a_tenth_is_held() {
        let random = |salt: u64| -> Vec<u8> {
            (0..100_u64).map(|j| b"ACGT"[(spread(salt << 16 | j) % 4) as usize]).collect()
        };
        // 40 families of 1 to 4: a sequence, one that starts later, its reverse complement.
        let mut sequences = Vec::new();
        for salt in 0..40 {
            let first = random(salt);
            let later = [&first[30..], &random(salt + 100)[..30]].concat();
            let mut turned = first.clone();
            reverse_complement(&mut turned);
            let all = [first.clone(), later, turned, first];
            sequences.extend(all.into_iter().take(1 + (salt % 4) as usize));
        }
        let found = of(sequences.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(found.iter().collect::<std::collections::BTreeSet<_>>().len(), 40);
        for seed in 0..5 {
            let held = drawn_by_family(&found, seed);
            assert!(held.iter().filter(|held| **held).count().abs_diff(10) <= 1, "seed {seed}");
            for (family, held_one) in found.iter().zip(&held) {
                assert_eq!(held[*family as usize], *held_one, "a family is torn apart");
            }
            let alone = drawn(found.len(), seed);
            let torn = found.iter().zip(&alone).any(|(family, held)| alone[*family as usize] != *held);
            assert!(torn, "drawn one by one, families are torn apart");
        }
        assert_ne!(drawn_by_family(&found, 0), drawn_by_family(&found, 1));
        assert_eq!(drawn_by_family(&[0; 30], 0), [false; 30], "one family of all cannot be shared out");
    }
}
