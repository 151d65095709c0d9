//! Which row comes when: a keyed permutation per epoch, computed and never stored.

use super::{Shuffle, mix};

/// Rounds of the Feistel network; four already pass for random, two more cost nothing here.
const ROUNDS: u64 = 6;

/// A shuffled, endless order of rows. The position is the whole state: nothing else is needed to resume.
///
/// Position `p` of rank `r` is number `p * world + r` of one global stream; every run of `len` numbers in that
/// stream is an epoch, which holds each row exactly once, in an order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Chooses the order.
    pub seed: u64,
    /// Number of rows; at least 1.
    pub len: u64,
    /// This reader's number, below `world`.
    pub rank: u64,
    /// Number of readers that share the rows; at least 1.
    pub world: u64,
}

impl Sampler {
    /// The row at `position`, below `len`.
    ///
    /// # Panics
    /// When `len` is 0.
    pub const fn index(&self, position: u64) -> u64 {
        let shuffle = Shuffle { seed: self.seed, rows: self.len, blocks: None };
        shuffle.row(position * self.world + self.rank)
    }
}

/// The image of `index` under the permutation of `0..len` that `key` names: a permutation of the next power of
/// four, walked until it lands inside (under four steps on average).
pub(super) const fn permute(index: u64, len: u64, key: u64) -> u64 {
    let half = half_bits(len);
    let mut value = feistel(index, half, key);
    while value >= len {
        value = feistel(value, half, key);
    }
    value
}

/// Half the bits, rounded up, of the largest index below `len`.
const fn half_bits(len: u64) -> u32 {
    let half = (u64::BITS - (len - 1).leading_zeros()).div_ceil(2);
    if half == 0 { 1 } else { half }
}

/// A permutation of `2 * half` bits.
const fn feistel(value: u64, half: u32, key: u64) -> u64 {
    let mask = (1 << half) - 1;
    let (mut left, mut right) = (value >> half, value & mask);
    let mut round = 0;
    while round < ROUNDS {
        (left, right) = (right, left ^ (mix(key ^ mix(right ^ (round << 56))) & mask));
        round += 1;
    }
    left << half | right
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(sampler: Sampler, epoch: u64) -> Vec<u64> {
        (epoch * sampler.len..(epoch + 1) * sampler.len).map(|p| sampler.index(p)).collect()
    }

    #[test]
    fn every_epoch_holds_every_row_once() {
        for len in [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097] {
            let sampler = Sampler { seed: 7, len, rank: 0, world: 1 };
            for number in 0..3 {
                let mut rows = epoch(sampler, number);
                rows.sort_unstable();
                assert_eq!(rows, (0..len).collect::<Vec<_>>(), "len {len}, epoch {number}");
            }
        }
    }

    #[test]
    fn ranks_share_one_stream() {
        let whole = Sampler { seed: 3, len: 100, rank: 0, world: 1 };
        for world in [2, 3, 7] {
            for number in 0..250 {
                let part = Sampler { rank: number % world, world, ..whole };
                assert_eq!(part.index(number / world), whole.index(number), "number {number} of {world}");
            }
        }
    }

    #[test]
    fn seeds_and_epochs_differ() {
        let sampler = Sampler { seed: 1, len: 1000, rank: 0, world: 1 };
        let other = Sampler { seed: 2, ..sampler };
        assert_ne!(epoch(sampler, 0), epoch(sampler, 1));
        assert_ne!(epoch(sampler, 0), epoch(other, 0));
    }

    /// Where the rows of a quarter of the positions land: close to a quarter in each quarter of the rows.
    #[test]
    fn order_is_well_mixed() {
        let sampler = Sampler { seed: 5, len: 10_000, rank: 0, world: 1 };
        let order = epoch(sampler, 0);
        for part in order.chunks(2500) {
            let low = part.iter().filter(|row| **row < 2500).count();
            assert!((525..725).contains(&low), "{low} of 2500 from the first quarter, expected about 625");
        }
        let neighbours = order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        assert!(neighbours < 12, "{neighbours} neighbours stayed together, expected about 2");
    }

    /// Part of the contract: a change would break the resume of older checkpoints.
    #[test]
    fn order_is_frozen() {
        let sampler = Sampler { seed: 42, len: 10, rank: 0, world: 1 };
        assert_eq!(epoch(sampler, 0), [9, 3, 7, 8, 0, 4, 1, 2, 5, 6]);
    }
}
