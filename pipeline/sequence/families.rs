//! Families of sequences that share k-mers, on either strand: whoever shares enough with a member belongs to the family.
//!
//! Two sequences are linked where they share at least a part of the k-mers of the smaller one. Memory: the index of the
//! k-mers ([`super::index`]), 4 bytes more for each of its entries, and 4 bytes a sequence for each piece of parallel work.

use rayon::prelude::*;

use super::index::{Index, TooMany};

/// A k-mer of more holders than twice this links each with this many of the first ones and of those just before it, so
/// that repeats do not cost the square of their number. What is counted is then too low, never too high.
const NEIGHBOURS: usize = 64;

/// The family of each sequence: the number of its first member.
///
/// `entries` are the k-mers of the sequences, as hash and number; all numbers are below `sequences`. Two sequences are
/// linked where they share at least `containment` (above 0 to 1) of the k-mers of the one with fewer.
///
/// # Errors
/// When there are more k-mers than an index numbers.
pub fn families(sequences: usize, entries: Vec<(u64, u32)>, containment: f64) -> Result<Vec<u32>, TooMany> {
    let index = Index::new(entries)?;
    let held = Held::new(sequences, &index);
    let links = (0..sequences)
        .into_par_iter()
        .map_init(|| vec![0; sequences], |shared, own| links(&index, &held, own, containment, shared));
    let links: Vec<Vec<u32>> = links.collect();
    let mut families = Families::new(sequences);
    for (own, links) in (0..).zip(links) {
        for other in links {
            families.join(own, other);
        }
    }
    Ok(families.finish())
}

/// The k-mers of each sequence, by their numbers in the index.
struct Held {
    starts: Vec<usize>,
    slots: Vec<u32>,
}

impl Held {
    fn new(sequences: usize, index: &Index) -> Self {
        let mut starts = vec![0; sequences + 1];
        for slot in 0..index.len() {
            index.holders(slot).iter().for_each(|&holder| starts[holder as usize + 1] += 1);
        }
        (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
        let mut next = starts.clone();
        let mut slots = vec![0; starts[sequences]];
        for (slot, number) in (0..index.len()).zip(0..) {
            for &holder in index.holders(slot) {
                slots[next[holder as usize]] = number;
                next[holder as usize] += 1;
            }
        }
        Self { starts, slots }
    }

    fn of(&self, sequence: usize) -> &[u32] {
        &self.slots[self.starts[sequence]..self.starts[sequence + 1]]
    }
}

/// The earlier sequences that `own` is linked with; `shared` is all zeros before and after.
fn links(index: &Index, held: &Held, own: usize, containment: f64, shared: &mut [u32]) -> Vec<u32> {
    let mut touched = Vec::new();
    let mut count = |others: &[u32]| {
        for &other in others {
            let count = &mut shared[other as usize];
            if *count == 0 {
                touched.push(other);
            }
            *count += 1;
        }
    };
    for &slot in held.of(own) {
        let holders = index.holders(slot as usize);
        let before = &holders[..holders.partition_point(|&holder| (holder as usize) < own)];
        if before.len() <= 2 * NEIGHBOURS {
            count(before);
        } else {
            count(&before[..NEIGHBOURS]);
            count(&before[before.len() - NEIGHBOURS..]);
        }
    }
    let enough = |&other: &u32| {
        let smaller = held.of(own).len().min(held.of(other as usize).len());
        f64::from(shared[other as usize]) >= containment * smaller as f64
    };
    let mut linked: Vec<u32> = touched.iter().copied().filter(enough).collect();
    linked.sort_unstable();
    for &other in &touched {
        shared[other as usize] = 0;
    }
    linked
}

/// Disjoint sets whose name is their least member.
pub struct Families(Vec<u32>);

impl Families {
    /// Of so many members, each by itself.
    pub fn new(members: usize) -> Self {
        Self((0..).take(members).collect())
    }

    fn root(&mut self, mut of: u32) -> u32 {
        while self.0[of as usize] != of {
            let above = self.0[self.0[of as usize] as usize];
            self.0[of as usize] = above;
            of = above;
        }
        of
    }

    /// Makes one of the sets of two members.
    pub fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b) as usize] = a.min(b);
    }

    /// The least member of each one's set.
    pub fn finish(mut self) -> Vec<u32> {
        (0..).take(self.0.len()).map(|member| self.root(member)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(sets: &[&[u64]], containment: f64) -> Vec<u32> {
        let entries = (0..).zip(sets).flat_map(|(number, set)| set.iter().map(move |&hash| (hash, number)));
        families(sets.len(), entries.collect(), containment).unwrap()
    }

    #[test]
    fn families_hold_who_shares_enough() {
        for (sets, containment, expected) in [
            (vec![], 0.5, vec![]),
            (vec![&[][..], &[]], 0.5, vec![0, 1]),
            (vec![&[1, 2, 3, 4][..], &[5], &[3, 4, 6, 7]], 0.5, vec![0, 1, 0]),
            (vec![&[1, 2, 3, 4][..], &[5], &[3, 4, 6, 7]], 0.6, vec![0, 1, 2]),
            (vec![&[1, 2, 3, 4][..], &[3], &[5]], 1.0, vec![0, 0, 2]),
            (vec![&[1, 2][..], &[3, 4], &[5, 6], &[2, 3], &[4, 5]], 0.5, vec![0; 5]),
        ] {
            assert_eq!(of(&sets, containment), expected, "{sets:?} at {containment}");
        }
    }

    #[test]
    fn many_equal_sequences_are_one_family() {
        let sets = vec![&[1, 2, 3][..]; 1000];
        assert_eq!(of(&sets, 1.0), vec![0; 1000]);
    }

    proptest! {
        #[test]
        fn links_are_those_of_all_pairs(
            sets in prop::collection::vec(prop::collection::btree_set(0u64..30, 0..8), 0..12),
            containment in 0.05f64..=1.0,
        ) {
            let vectors: Vec<Vec<u64>> = sets.iter().map(|set| set.iter().copied().collect()).collect();
            let slices: Vec<&[u64]> = vectors.iter().map(Vec::as_slice).collect();
            let mut expected: Vec<u32> = (0..).take(sets.len()).collect();
            for _ in 0..sets.len() {
                for (a, b) in (0..sets.len()).flat_map(|a| (0..sets.len()).map(move |b| (a, b))) {
                    let shared = sets[a].intersection(&sets[b]).collect::<BTreeSet<_>>().len();
                    let smaller = sets[a].len().min(sets[b].len());
                    if shared > 0 && shared as f64 >= containment * smaller as f64 {
                        expected[a] = expected[a].min(expected[b]);
                    }
                }
            }
            prop_assert_eq!(of(&slices, containment), expected);
        }
    }
}
