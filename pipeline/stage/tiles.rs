//! Stretches of records, cut into tiles that threads work on side by side; results come in the order of the tiles,
//! whatever the number of threads. Memory: some 8 MiB of bases and what is made of them.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::records::{SequenceReader, Stretch, for_each_stretch, index};
use super::tokenizer::fetch;
use super::{Error, Task};
use crate::artifact::Artifact;
use crate::fs;
use crate::observer::Unit;
use crate::sequence::kmer::{Sample, for_each_hash};
use crate::units::{Interval, Strand};

/// Bases of a tile, at most, without what it sees of the next one.
const TILE_BASES: u64 = 32 << 10;
/// Bases that are worked on together.
const BATCH_BASES: usize = 8 << 20;

/// A stretch of a record, with a number that says what it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Number of the record.
    pub record: u64,
    /// Where it lies.
    pub interval: Interval,
    /// A split, a row: what the caller wants to know it by.
    pub label: u32,
}

/// Some bases of a part.
#[derive(Debug)]
pub struct Tile {
    /// The part that it is cut from.
    pub part: Part,
    /// Where it begins, in bases of the record.
    pub start: u64,
    /// How many bases are its own; those after them are the next tile's.
    pub own: usize,
    /// Its bases, and as many of the next tile as were asked for and are in the part.
    pub bases: Vec<u8>,
}

impl Tile {
    /// The hashes of the sampled k-mers that begin in it.
    pub fn hashes(&self, k: usize, sample: Sample) -> Vec<u64> {
        let mut hashes = Vec::new();
        for_each_hash(&self.bases, k, |at, hash| {
            if at < self.own && sample.takes(hash) {
                hashes.push(hash);
            }
        });
        hashes
    }
}

/// Does something on as many threads as the task has.
pub fn in_pool<R: Send>(task: &Task, work: impl FnOnce() -> R + Send) -> Result<R, Error> {
    Ok(pool(task)?.install(work))
}

fn pool(task: &Task) -> Result<rayon::ThreadPool, Error> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(task.threads).build();
    Ok(pool.map_err(std::io::Error::other).map_err(fs::error("start threads for", task.out))?)
}

/// The parts of a table's rows, label by label: rows of one label that overlap or touch become one part. Rows whose label
/// is none are left out. Memory: 32 bytes a part.
pub fn covered(path: &Path, mut label: impl FnMut(&Stretch) -> Option<u32>) -> Result<Vec<Part>, Error> {
    let mut parts: Vec<Part> = Vec::new();
    let mut open: Vec<Option<usize>> = Vec::new();
    for_each_stretch::<Error>(path, |stretch| {
        let Some(label) = label(&stretch).filter(|_| !stretch.interval.is_empty()) else { return Ok(()) };
        let slot = label as usize;
        open.resize(open.len().max(slot + 1), None);
        let joins = |part: &Part| {
            part.record == stretch.record
                && (part.interval.start..=part.interval.end).contains(&stretch.interval.start)
        };
        if let Some(part) = open[slot].map(|at| &mut parts[at]).filter(|part| joins(part)) {
            part.interval.end = part.interval.end.max(stretch.interval.end);
        } else {
            open[slot] = Some(parts.len());
            parts.push(Part { record: stretch.record, interval: stretch.interval, label });
        }
        Ok(())
    })?;
    parts.sort_unstable();
    Ok(parts)
}

/// Those of ascending parts that lie on some records.
pub fn on_records(parts: &[Part], records: Range<u64>) -> &[Part] {
    let before = |record: u64| parts.partition_point(|part| part.record < record);
    &parts[before(records.start)..before(records.end)]
}

/// The hashes of the sampled k-mers of parts, each with the label of its part, in order. Memory: 16 bytes a hash.
pub fn labelled_hashes(
    task: &Task,
    sequence: &Artifact,
    parts: impl IntoIterator<Item = Part>,
    k: usize,
    sample: Sample,
) -> Result<Vec<(u64, u32)>, Error> {
    let mut entries = Vec::new();
    let work = |(): &mut (), tile: &Tile| tile.hashes(k, sample);
    let take = |tile: &Tile, hashes: Vec<u64>| {
        entries.extend(hashes.into_iter().map(|hash| (hash, tile.part.label)));
        Ok(())
    };
    for_each_tile(task, sequence, parts, k - 1, || (), work, take)?;
    Ok(entries)
}

/// Does `work` on every tile of `parts`, on every thread, and hands what comes of each to `take`, in order.
///
/// Parts must ascend by record and start. A tile sees `reach` bases beyond its own; `state` makes what a thread keeps.
pub fn for_each_tile<S, R: Send>(
    task: &Task,
    sequence: &Artifact,
    parts: impl IntoIterator<Item = Part>,
    reach: usize,
    state: impl Fn() -> S + Send + Sync,
    work: impl Fn(&mut S, &Tile) -> R + Send + Sync,
    mut take: impl FnMut(&Tile, R) -> Result<(), Error>,
) -> Result<(), Error> {
    let pool = pool(task)?;
    let mut parts = parts.into_iter().peekable();
    let (record, start) = parts.peek().map_or((0, 0), |first| (first.record, first.interval.start));
    let mut reader = SequenceReader::open_at(sequence, record, start)?;
    let (mut batch, mut pending, mut done) = (Vec::new(), 0, 0);
    let mut flush = |batch: &mut Vec<Tile>, pending: &mut usize| {
        task.check()?;
        let results: Vec<R> =
            pool.install(|| batch.par_iter().map_init(&state, |state, tile| work(state, tile)).collect());
        done += batch.iter().map(|tile| tile.own as u64).sum::<u64>();
        *pending = 0;
        batch.drain(..).zip(results).try_for_each(|(tile, result)| take(&tile, result))?;
        task.progress(done, None, Unit::Bases);
        Ok::<(), Error>(())
    };
    for part in parts {
        for start in (part.interval.start..part.interval.end).step_by(index(TILE_BASES)) {
            let own = TILE_BASES.min(part.interval.end - start);
            let interval = Interval::new(start, (start + own + reach as u64).min(part.interval.end));
            let stretch =
                Stretch { record: part.record, interval, strand: Strand::Forward, split: String::new() };
            let mut bases = Vec::new();
            fetch(&mut reader, &stretch, sequence, &mut bases)?;
            pending += bases.len();
            batch.push(Tile { part, start, own: index(own), bases });
            if pending >= BATCH_BASES {
                flush(&mut batch, &mut pending)?;
            }
        }
    }
    flush(&mut batch, &mut pending)
}
