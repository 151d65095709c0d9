//! The shuffled order of rows, over all rows or in blocks, as a pure function of seed, epoch and place.
//! `schemas/order.md` is the contract, `schemas/order.json` its table; the Python package computes the same.

use super::mix;
use super::sampler::permute;

/// What the keys of an epoch are for.
const BLOCKS: u64 = 1;
const SHORT: u64 = 2;
const WINDOWS: u64 = 3;

/// A shuffled, endless order of the rows `0..rows`. Every run of `rows` numbers is an epoch, which holds each row once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shuffle {
    /// Chooses the order.
    pub seed: u64,
    /// Number of rows; at least 1.
    pub rows: u64,
    /// Keeps neighbours near each other; none shuffles all rows alike.
    pub blocks: Option<Blocks>,
}

/// Shuffles blocks of neighbouring rows, then the rows within some blocks: a disk or a cache sees few blocks at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Rows per block; at least 1.
    pub rows: u64,
    /// Blocks whose rows are mixed with each other; at least 1.
    pub window: u64,
}

impl Shuffle {
    /// The row that comes as number `number`, below `rows`. Any number costs the same.
    ///
    /// # Panics
    /// When `rows`, `blocks.rows` or `blocks.window` is 0.
    pub const fn row(&self, number: u64) -> u64 {
        let key = mix(self.seed ^ mix(number / self.rows));
        let at = number % self.rows;
        match self.blocks {
            None => permute(at, self.rows, key),
            Some(blocks) => Lay::new(self.rows, blocks, key).row(at),
        }
    }
}

/// How the blocks of an epoch lie one after the other: all of `block` rows, but for one of `tail` rows at place `short`.
struct Lay {
    key: u64,
    block: u64,
    /// Blocks of full length.
    full: u64,
    /// Rows of the short block; 0 without one.
    tail: u64,
    /// Place of the short block; past the end without one.
    short: u64,
    places: u64,
    window: u64,
}

impl Lay {
    const fn new(rows: u64, blocks: Blocks, key: u64) -> Self {
        let block = smaller(blocks.rows, rows);
        let (full, tail) = (rows / block, rows % block);
        let places = full + (tail > 0) as u64;
        let short = if tail > 0 { mix(key ^ mix(SHORT)) % places } else { places };
        Self { key, block, full, tail, short, places, window: smaller(blocks.window, places) }
    }

    /// The row at `at` of the epoch: mixed within its window, then looked up in its block.
    const fn row(&self, at: u64) -> u64 {
        let number = self.place(at) / self.window;
        let first = self.start(number * self.window);
        let last = self.start(smaller((number + 1) * self.window, self.places));
        let inner = first + permute(at - first, last - first, mix(self.key ^ mix(WINDOWS + number)));
        let place = self.place(inner);
        self.block_at(place) * self.block + (inner - self.start(place))
    }

    /// The block at a place.
    const fn block_at(&self, place: u64) -> u64 {
        if place == self.short {
            return self.full;
        }
        let rank = if place > self.short { place - 1 } else { place };
        permute(rank, self.full, mix(self.key ^ mix(BLOCKS)))
    }

    /// Rows before a place.
    const fn start(&self, place: u64) -> u64 {
        let missing = if place > self.short { self.block - self.tail } else { 0 };
        place * self.block - missing
    }

    /// The place that holds `at`.
    const fn place(&self, at: u64) -> u64 {
        let missing = if at >= self.short * self.block + self.tail { self.block - self.tail } else { 0 };
        (at + missing) / self.block
    }
}

const fn smaller(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    fn blocked(rows: u64, block: u64, window: u64) -> Shuffle {
        Shuffle { seed: 7, rows, blocks: Some(Blocks { rows: block, window }) }
    }

    #[test]
    fn every_epoch_holds_every_row_once() {
        for rows in [1, 2, 7, 16, 64, 100, 1000, 1023] {
            for (block, window) in
                [(1, 1), (1, 5), (3, 1), (8, 4), (10, 3), (64, 2), (5000, 9), (16, u64::MAX)]
            {
                let shuffle = blocked(rows, block, window);
                for epoch in 0..3 {
                    let mut found: Vec<u64> =
                        (epoch * rows..(epoch + 1) * rows).map(|n| shuffle.row(n)).collect();
                    found.sort_unstable();
                    let expected: Vec<u64> = (0..rows).collect();
                    assert_eq!(found, expected, "{rows} rows, block {block}, window {window}, epoch {epoch}");
                }
            }
        }
    }

    #[test]
    fn a_window_holds_its_blocks_only_and_mixes_them() {
        let shuffle = blocked(1024, 16, 4);
        let order: Vec<u64> = (0..1024).map(|n| shuffle.row(n)).collect();
        for window in order.chunks(64) {
            let blocks: BTreeSet<u64> = window.iter().map(|row| row / 16).collect();
            assert_eq!(blocks.len(), 4, "{window:?}");
            let changes = window.windows(2).filter(|pair| pair[0] / 16 != pair[1] / 16).count();
            assert!(changes > 30, "{changes} changes of block in a window, expected about 48");
        }
        let first = order.chunks(64).map(|window| window.iter().min().unwrap() / 16);
        assert!(first.clone().zip(first.skip(1)).any(|(a, b)| a > b), "windows ascend");
    }

    #[test]
    fn seeds_and_epochs_differ() {
        let shuffle = blocked(1000, 10, 4);
        let epoch = |shuffle: Shuffle, epoch: u64| -> Vec<u64> {
            (epoch * 1000..(epoch + 1) * 1000).map(|number| shuffle.row(number)).collect()
        };
        assert_ne!(epoch(shuffle, 0), epoch(shuffle, 1));
        assert_ne!(epoch(shuffle, 0), epoch(Shuffle { seed: 8, ..shuffle }, 0));
    }

    /// The orders of `schemas/order.json`: from these seeds, sizes and blocks, at these numbers.
    fn golden() -> Value {
        let far = 1_000_000_000_u64;
        let mut cases = Vec::new();
        for (seed, rows) in
            [(42, 10), (0, 1), (1, 2), (7, 1000), (u64::MAX, 4097), (123_456_789, 3_000_000_019)]
        {
            for blocks in [None, Some((4, 3)), Some((256, 16)), Some((1000, 1))] {
                let blocks = blocks.map(|(rows, window)| Blocks { rows, window });
                let shuffle = Shuffle { seed, rows, blocks };
                for first in [0, rows - 1, far, far * far] {
                    let found: Vec<u64> = (first..first + 12).map(|number| shuffle.row(number)).collect();
                    let (block, window) = (blocks.map(|b| b.rows), blocks.map(|b| b.window));
                    cases.push(json!({"seed": seed, "rows": rows, "block": block, "window": window,
                                      "first": first, "order": found}));
                }
            }
        }
        Value::Array(cases)
    }

    fn golden_text() -> String {
        let cases: Vec<String> = golden().as_array().unwrap().iter().map(Value::to_string).collect();
        format!("[\n{}\n]\n", cases.join(",\n"))
    }

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/order.json");

    /// Part of the contract: a change would break the resume of older checkpoints, and the Python package.
    #[test]
    fn the_order_is_that_of_the_table() {
        let kept = std::fs::read_to_string(GOLDEN).unwrap();
        if kept != golden_text() {
            let now = std::env::temp_dir().join("order.json");
            std::fs::write(&now, golden_text()).unwrap();
            panic!("schemas/order.json holds another order; the one of this code is in {}", now.display());
        }
    }
}
