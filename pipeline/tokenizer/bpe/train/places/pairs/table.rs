//! Counts and lists by pair: a table with open addressing, at most half full, since most searches are for pairs that are not there. Memory: 12 bytes an entry.

use super::super::slots::prefetch;
use super::NO_LIST;

/// A pair, how often it occurs, and the number of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub pair: u32,
    pub count: u32,
    pub list: u32,
}

/// Holds no pair: its key would be two separators.
const FREE: Entry = Entry { pair: u32::MAX, count: 0, list: NO_LIST };
const LEAST_ENTRIES: usize = 1 << 12;

pub struct Table {
    entries: Vec<Entry>,
    used: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: vec![FREE; LEAST_ENTRIES], used: 0 }
    }
}

/// Spreads pairs over numbers of some bits.
#[inline]
pub const fn spread(pair: u32, bits: u32) -> usize {
    (pair.wrapping_mul(0x9e37_79b1) >> (u32::BITS - bits)) as usize
}

impl Table {
    /// Where `pair` is or would be.
    #[inline]
    fn find(&self, pair: u32) -> usize {
        let mut at = spread(pair, self.entries.len().trailing_zeros());
        while self.entries[at].pair != pair && self.entries[at].pair != FREE.pair {
            at = (at + 1) & (self.entries.len() - 1);
        }
        at
    }

    /// Asks for the memory of a pair, without waiting for it.
    #[inline]
    pub fn expect(&self, pair: u32) {
        prefetch(&self.entries, spread(pair, self.entries.len().trailing_zeros()));
    }

    /// A pair's entry, one that counts 0 if there is none.
    #[inline]
    pub fn get(&self, pair: u32) -> Entry {
        self.entries[self.find(pair)]
    }

    /// The list of a pair that occurs, else [`NO_LIST`].
    #[inline]
    pub fn list(&self, pair: u32) -> u32 {
        let entry = self.get(pair);
        if entry.count > 0 { entry.list } else { NO_LIST }
    }

    /// Adds a pair, or replaces it. Pairs rarer than `least` may be forgotten to make room.
    pub fn insert(&mut self, entry: Entry, least: u32) {
        *self.entry(entry.pair, least) = entry;
    }

    /// Counts a pair once.
    pub fn count(&mut self, pair: u32) {
        self.entry(pair, 1).count += 1;
    }

    fn entry(&mut self, pair: u32, least: u32) -> &mut Entry {
        let mut at = self.find(pair);
        if self.entries[at].pair == FREE.pair {
            if (self.used + 1) * 2 > self.entries.len() {
                self.forget_below(least);
                at = self.find(pair);
            }
            self.used += 1;
            self.entries[at].pair = pair;
        }
        &mut self.entries[at]
    }

    #[inline]
    pub fn subtract(&mut self, pair: u32, count: u32) {
        let at = self.find(pair);
        self.entries[at].count = self.entries[at].count.saturating_sub(count);
    }

    /// The pairs that occur.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.count > 0)
    }

    /// Forgets rarer pairs; makes room for twice as many as are left.
    pub fn forget_below(&mut self, least: u32) {
        let living: Vec<Entry> = self.iter().filter(|entry| entry.count >= least.max(1)).copied().collect();
        self.entries = vec![FREE; (living.len() * 4).next_power_of_two().max(LEAST_ENTRIES)];
        self.used = living.len();
        for entry in living {
            let at = self.find(entry.pair);
            self.entries[at] = entry;
        }
    }

    /// Gives every pair a list; returns how many there are.
    pub fn number(&mut self) -> u32 {
        let mut lists = 0;
        for entry in self.entries.iter_mut().filter(|entry| entry.count > 0) {
            entry.list = lists;
            lists += 1;
        }
        lists
    }
}
