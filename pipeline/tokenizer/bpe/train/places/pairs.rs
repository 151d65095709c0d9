//! The pairs that may be merged next, with their counts and the numbers of their lists.
//!
//! A pair never becomes more frequent after the merge that made it. So only pairs that occur at least `threshold` times
//! are kept; when none of them is left, the threshold is lowered and pairs are counted anew.
//!
//! Memory: some 20 to 40 bytes for every pair kept, of which there are at most as many as slots by threshold.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU16, Ordering};

use super::super::corpus::Learned;
use super::{NO_LIST, SEPARATOR, bytes};
use crate::tokenizer::Error;
use table::{Entry, Table, spread};

mod table;

/// The first threshold is the count of the most frequent pair over this: low, since its counts come from the first phase.
const FIRST: u32 = 64;
/// The threshold is lowered by this factor,
const LOWER: u32 = 4;
/// and by the other from here on, where lists are many and short.
const LOW: u32 = 64;
const LOWER_LOW: u32 = 2;

const fn join([left, right]: [u16; 2]) -> u32 {
    (left as u32) << 16 | right as u32
}

const fn split(pair: u32) -> [u16; 2] {
    [(pair >> 16) as u16, (pair & 0xffff) as u16]
}

/// A pair, how often it occurs, and the number of the list of its places.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub pair: [u16; 2],
    pub count: u32,
    pub list: u32,
}

/// Pairs under their counts; those of the queue may be too high.
pub struct Pairs {
    table: Table,
    queue: BinaryHeap<(u32, Reverse<u32>)>,
    threshold: u32,
    lists: u32,
}

impl Pairs {
    /// The most frequent pairs of those that the first phase left.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when one occurs more than `u32::MAX` times.
    pub fn new(counts: &bytes::Counts) -> Result<Self, Error> {
        let most = counts.iter().map(|(_, count)| count).max().unwrap_or(0);
        let most = u32::try_from(most).map_err(|_| Error::TooLarge { pairs: most, most: u32::MAX.into() })?;
        let threshold = (most / FIRST).max(1);
        let mut pairs = Self { table: Table::default(), queue: BinaryHeap::new(), threshold, lists: 0 };
        for (pair, count) in counts.iter() {
            pairs.add(pair.map(u16::from), u32::try_from(count).unwrap_or(u32::MAX));
        }
        Ok(pairs)
    }

    /// The most frequent pair that is allowed, of equals the smaller; `None` if no pair is kept.
    pub fn best(&mut self, learned: &Learned) -> Option<Kept> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let current = self.table.get(pair);
            if current.count == count {
                if learned.allows(split(pair).map(u32::from), count.into()) {
                    return Some(Kept { pair: split(pair), count, list: current.list });
                }
            } else if current.count >= self.threshold {
                self.queue.push((current.count, Reverse(pair)));
            }
        }
        None
    }

    /// Keeps a new pair, if it is frequent enough: the number of its list.
    pub fn add(&mut self, pair: [u16; 2], count: u32) -> Option<u32> {
        if count < self.threshold {
            return None;
        }
        let (pair, list) = (join(pair), self.lists);
        self.table.insert(Entry { pair, count, list }, self.threshold);
        self.queue.push((count, Reverse(pair)));
        self.lists += 1;
        Some(list)
    }

    /// Asks for the memory of a pair that will be subtracted.
    #[inline]
    pub fn expect(&self, pair: [u16; 2]) {
        self.table.expect(join(pair));
    }

    pub fn subtract(&mut self, pair: [u16; 2], count: u32) {
        self.table.subtract(join(pair), count);
    }

    pub fn remove(&mut self, pair: [u16; 2]) {
        self.table.subtract(join(pair), u32::MAX);
    }

    /// Number of lists.
    pub const fn lists(&self) -> u32 {
        self.lists
    }

    /// The lists of the pairs kept, with their counts.
    pub fn listed(&self) -> impl Iterator<Item = (u32, u32)> {
        self.table.iter().map(|entry| (entry.list, entry.count))
    }

    /// Finds the lists of the pairs kept.
    pub fn finder(&self) -> Finder<'_> {
        Finder { bytes: self.by_bytes(), table: &self.table }
    }

    /// The lists by pairs of bytes, while all tokens are bytes.
    fn by_bytes(&self) -> Option<Vec<u32>> {
        let mut lists = vec![NO_LIST; 1 << 16];
        for entry in self.table.iter() {
            if split(entry.pair).iter().any(|token| *token > u16::from(u8::MAX)) {
                return None;
            }
            lists[bytes_of(entry.pair)] = entry.list;
        }
        Some(lists)
    }

    /// Lowers the threshold, but not below `least`; `false` when it is there already.
    pub fn lower(&mut self, least: u32) -> bool {
        let by = if self.threshold > LOW { LOWER } else { LOWER_LOW };
        let lower = (self.threshold / by).max(least);
        lower < std::mem::replace(&mut self.threshold, lower)
    }

    /// Counts the pairs that occur often enough among slots that each hold a token. A first round counts by hash, to
    /// leave out most that do not.
    pub fn recount(&mut self, slots: &[AtomicU16]) {
        let cells =
            (slots.len() * 8 / self.threshold as usize).clamp(1 << 12, (slots.len() / 4).max(1 << 12));
        let mut sketch = vec![0_u32; cells.next_power_of_two()];
        let bits = sketch.len().trailing_zeros();
        let cell = |pair: u32| spread(pair, bits);
        neighbours(slots).flatten().for_each(|pair| sketch[cell(pair)] += 1);
        self.table = Table::default();
        for pair in neighbours(slots).flatten().filter(|&pair| sketch[cell(pair)] >= self.threshold) {
            self.table.count(pair);
        }
        drop(sketch);
        self.table.forget_below(self.threshold);
        self.lists = self.table.number();
        self.queue = self.table.iter().map(|entry| (entry.count, Reverse(entry.pair))).collect();
    }
}

/// Finds the lists of pairs.
pub struct Finder<'a> {
    bytes: Option<Vec<u32>>,
    table: &'a Table,
}

impl Finder<'_> {
    /// Hands out the places, among slots that each hold a token, of the pairs kept, with their lists.
    pub fn for_each(&self, slots: &[AtomicU16], mut each: impl FnMut(usize, u32)) {
        for (place, pair) in (0..).zip(neighbours(slots)) {
            let Some(pair) = pair else { continue };
            let list = match &self.bytes {
                Some(lists) => lists[bytes_of(pair)],
                None => self.table.list(pair),
            };
            if list != NO_LIST {
                each(place, list);
            }
        }
    }
}

/// A pair of tokens, as a number of 16 bits if both are bytes.
const fn bytes_of(pair: u32) -> usize {
    let [left, right] = split(pair);
    ((left as usize) << 8 | right as usize) & 0xffff
}

/// All neighbours in order; none beside a separator.
fn neighbours(slots: &[AtomicU16]) -> impl Iterator<Item = Option<u32>> {
    slots.windows(2).map(|pair| {
        let [left, right] = [&pair[0], &pair[1]].map(|slot| slot.load(Ordering::Relaxed));
        (left != SEPARATOR && right != SEPARATOR).then_some(join([left, right]))
    })
}
