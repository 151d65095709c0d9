//! The rows that one of several readers takes from a shared order, from any number on.

use super::Shuffle;

/// One reader's part of a shuffled, endless order. Any number of readers can go on where any other number stopped.
///
/// Position `p` of rank `r` is number `first + p * world + r` of the order: ranks take turns, so that together they take
/// every number once. What to keep in a checkpoint is [`Stream::number`] of rank 0, the global position; a run of another
/// world size goes on with it as `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// The order that all ranks share.
    pub shuffle: Shuffle,
    /// The number at which all ranks begin.
    pub first: u64,
    /// This reader's number, below `world`.
    pub rank: u64,
    /// Number of readers that share the order; at least 1.
    pub world: u64,
}

impl Stream {
    /// The row at `position`.
    pub const fn row(&self, position: u64) -> u64 {
        self.shuffle.row(self.number(position))
    }

    /// The number in the shared order of this rank's `position`.
    pub const fn number(&self, position: u64) -> u64 {
        self.first + position * self.world + self.rank
    }

    /// The parts of `world` ranks from the global position `first` on.
    pub fn ranks(shuffle: Shuffle, first: u64, world: u64) -> impl Iterator<Item = Self> {
        (0..world).map(move |rank| Self { shuffle, first, rank, world })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::Blocks;

    fn shuffles() -> [Shuffle; 2] {
        let plain = Shuffle { seed: 3, rows: 101, blocks: None };
        [plain, Shuffle { blocks: Some(Blocks { rows: 8, window: 3 }), ..plain }]
    }

    /// What `world` ranks take together in `steps` batches of `batch` rows, in the order of their numbers.
    fn taken(shuffle: Shuffle, first: u64, world: u64, steps: u64, batch: u64) -> Vec<u64> {
        let ranks: Vec<Stream> = Stream::ranks(shuffle, first, world).collect();
        (0..steps * batch).flat_map(|p| ranks.iter().map(move |rank| rank.row(p))).collect()
    }

    #[test]
    fn any_world_size_goes_on_where_any_other_stopped() {
        for shuffle in shuffles() {
            let whole: Vec<u64> = (0..700).map(|number| shuffle.row(number)).collect();
            let mut found = Vec::new();
            for (world, steps, batch) in [(1, 3, 4), (4, 5, 3), (3, 7, 5), (8, 2, 1), (2, 11, 4), (7, 9, 3)] {
                found.extend(taken(shuffle, found.len() as u64, world, steps, batch));
            }
            assert!(found.len() > 4 * 101);
            assert_eq!(found, whole[..found.len()], "{shuffle:?}");
        }
    }

    #[test]
    fn ranks_are_disjoint_and_complete() {
        for shuffle in shuffles() {
            for world in [1, 2, 3, 5, 64] {
                let mut rows: Vec<u64> = Stream::ranks(shuffle, 0, world)
                    .flat_map(|rank| {
                        (0..).take_while(move |p| rank.number(*p) < shuffle.rows).map(move |p| rank.row(p))
                    })
                    .collect();
                rows.sort_unstable();
                assert_eq!(rows, (0..shuffle.rows).collect::<Vec<_>>(), "{world} ranks");
            }
        }
    }

    #[test]
    fn a_far_position_is_as_near_as_the_first() {
        let stream = Stream { shuffle: shuffles()[1], first: 0, rank: 1, world: 4 };
        let moved = Stream { first: stream.number(1_000_000_000) - 1, ..stream };
        for step in 0..50 {
            assert_eq!(moved.row(step), stream.row(1_000_000_000 + step));
        }
    }
}
