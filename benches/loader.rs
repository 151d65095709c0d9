//! The loader on a shard folder: `cargo bench --bench loader -- FOLDER` (the split `train`).
//!
//! Random rows into batches of int64, and the first batch of a stream that begins at position 0 and at 10^9. Times are of
//! the clock, medians over rounds; the rows are read once before.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::path::Path;
use std::time::Instant;

use genomill::loader::{Batches, Blocks, Order, Shuffle, Stream, TokenRows};
use genomill::shard::ShardSet;

const ROUNDS: usize = 31;
const BATCH: usize = 64;
const BATCHES: usize = 300;
const FAR: u64 = 1_000_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = std::env::args().skip(1);
    let Some(folder) = arguments.into_iter().find(|argument| !argument.starts_with('-')) else {
        println!("loader: no folder given, nothing measured");
        return Ok(());
    };
    let rows = ShardSet::open(Path::new(&folder))?.rows("train")?;
    let mut buffer = vec![0; rows.context()];
    (0..rows.len()).for_each(|row| rows.read_row(row, &mut buffer));
    let plain = Shuffle { seed: 7, rows: rows.len(), blocks: None };
    let blocks = Shuffle { blocks: Some(Blocks { rows: 256, window: 16 }), ..plain };
    for (name, shuffle) in [("rows", plain), ("blocks of 256", blocks)] {
        let (near, far) = (first_batch(&rows, shuffle, 0), first_batch(&rows, shuffle, FAR));
        println!("first batch of {BATCH}, shuffled by {name}: {near:.0} us at 0, {far:.0} us at 10^9");
    }
    for threads in [1, 2] {
        let rate = rate(&rows, plain, threads);
        println!("batches of {BATCH} into int64, {threads} threads: {rate:.0} rows/s");
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Takes `count` batches from `first` on; returns the seconds from the start of the threads.
fn take(rows: &dyn TokenRows, shuffle: Shuffle, first: u64, threads: usize, count: usize) -> f64 {
    let order = Order::Shared(Stream { shuffle, first, rank: 0, world: 1 });
    let start = Instant::now();
    std::thread::scope(|scope| {
        let batches = Batches::start(scope, rows, order, BATCH, 0, threads).take(count);
        let rows: usize = batches.map(|batch| std::hint::black_box(batch).rows()).sum();
        assert_eq!(rows, count * BATCH);
        start.elapsed().as_secs_f64()
    })
}

/// Microseconds from starting one thread to its first batch.
fn first_batch(rows: &dyn TokenRows, shuffle: Shuffle, first: u64) -> f64 {
    median((0..ROUNDS).map(|_| take(rows, shuffle, first, 1, 1) * 1e6).collect())
}

fn rate(rows: &dyn TokenRows, shuffle: Shuffle, threads: usize) -> f64 {
    let count = (BATCHES * BATCH) as f64;
    median(
        (0..ROUNDS)
            .map(|round| count / take(rows, shuffle, round as u64 * 100_000, threads, BATCHES))
            .collect(),
    )
}
