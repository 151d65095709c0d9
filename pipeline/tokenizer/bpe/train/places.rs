//! The second phase: a merge visits the places of the rarer of its two tokens.
//!
//! Every token of the first phase has a slot. A merged token covers the slots of its parts: its first and its last slot
//! hold its number, so that both neighbours are found from the slots beside it. The places of a token are listed in
//! order; those where it no longer stands are dropped when the list is next walked.
//!
//! Memory: 6 bytes a slot, and 8 to 16 bytes for every different pair of neighbours.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::bytes;
use super::corpus::Learned;
use crate::tokenizer::Error;

/// Between pieces.
const SEPARATOR: u16 = u16::MAX;
/// A slot that a merged token covers, neither its first nor its last.
const COVERED: u16 = u16::MAX - 1;
/// Pairs rarer than the most frequent by this factor wait outside the queue.
const QUEUED: u32 = 16;

/// Learns the rest of the merges from what the first phase left.
pub fn learn(tokens: Vec<u8>, learned: &mut Learned) -> Result<(), Error> {
    let mut places = Places::new(tokens, learned)?;
    while !learned.is_complete() {
        let Some(pair) = places.best(learned) else { break };
        let id = learned.next();
        learned.add(split(pair).map(u32::from))?;
        places.merge(split(pair), u16::try_from(id).unwrap_or(COVERED));
    }
    Ok(())
}

const fn join(left: u16, right: u16) -> u32 {
    (left as u32) << 16 | right as u32
}

const fn split(pair: u32) -> [u16; 2] {
    [(pair >> 16) as u16, (pair & 0xffff) as u16]
}

struct Places {
    slots: Vec<u16>,
    /// Slots that a token covers.
    widths: Vec<u32>,
    /// First slots of a token, ascending; some are out of date.
    lists: Vec<Vec<u32>>,
    counts: Counts,
    /// Pairs with at least `threshold` occurrences, under counts that may be too high.
    queue: BinaryHeap<(u32, Reverse<u32>)>,
    threshold: u32,
    before: Histogram,
    after: Histogram,
}

impl Places {
    fn new(tokens: Vec<u8>, learned: &Learned) -> Result<Self, Error> {
        if u32::try_from(tokens.len()).is_err() {
            return Err(Error::TooLarge { tokens: tokens.len() as u64, most: u32::MAX.into() });
        }
        let slots: Vec<u16> = tokens.iter().map(|&token| widen(token)).collect();
        drop(tokens);
        let most = learned.next() as usize + learned.limits.merges - learned.merges.len();
        Ok(Self {
            lists: list_places(&slots, learned.next() as usize),
            counts: Counts::new(&slots),
            widths: vec![1; learned.next() as usize],
            queue: BinaryHeap::new(),
            threshold: u32::MAX,
            before: Histogram::new(most),
            after: Histogram::new(most),
            slots,
        })
    }

    /// The most frequent pair that is allowed, of equals the smaller.
    fn best(&mut self, learned: &Learned) -> Option<u32> {
        let least = u32::try_from(learned.limits.min_frequency).unwrap_or(u32::MAX);
        loop {
            let Some((count, Reverse(pair))) = self.queue.pop() else {
                if !self.refill(least) {
                    return None;
                }
                continue;
            };
            let current = self.counts.get(pair);
            if current == count {
                if learned.allows(split(pair).map(u32::from), count.into()) {
                    return Some(pair);
                }
            } else {
                self.enqueue(pair, current);
            }
        }
    }

    fn enqueue(&mut self, pair: u32, count: u32) {
        if count >= self.threshold {
            self.queue.push((count, Reverse(pair)));
        }
    }

    /// Lowers the threshold to below the most frequent pair that waits; `false` when none does.
    fn refill(&mut self, least: u32) -> bool {
        let old = self.threshold;
        let waiting = |count: u32| count >= least && count < old;
        let Some(most) = self.counts.iter().map(|(_, count)| count).filter(|&count| waiting(count)).max()
        else {
            return false;
        };
        self.threshold = (most / QUEUED).max(least);
        let pairs = self.counts.iter().filter(|&(_, count)| count >= self.threshold && count < old);
        self.queue.extend(pairs.map(|(pair, count)| (count, Reverse(pair))));
        true
    }

    /// Replaces the pair by `id` from the left.
    fn merge(&mut self, pair: [u16; 2], id: u16) {
        let [left, right] = pair.map(usize::from);
        let count = self.counts.get(join(pair[0], pair[1]));
        let mut merged = Vec::with_capacity(count as usize);
        let by_left = self.lists[left].len() <= self.lists[right].len();
        let scanned = if by_left { left } else { right };
        let mut list = std::mem::take(&mut self.lists[scanned]);
        let offset = if by_left { 0 } else { self.widths[left] };
        let mut kept = 0;
        for index in 0..list.len() {
            let place = list[index];
            if let Some(&later) = list.get(index + AHEAD) {
                prefetch(&self.slots, later as usize);
            }
            if usize::from(self.slots[place as usize]) != scanned {
                continue;
            }
            if self.stands_in(pair, place, by_left) {
                self.replace(pair, place - offset, id);
                merged.push(place - offset);
            } else {
                list[kept] = place;
                kept += 1;
            }
        }
        list.truncate(kept);
        if kept * 2 < list.capacity() {
            list.shrink_to_fit();
        }
        merged.shrink_to_fit();
        self.lists[scanned] = list;
        self.lists.push(merged);
        self.widths.push(self.widths[left] + self.widths[right]);
        self.settle(pair, id);
    }

    /// Whether the left (or the right) token of a pair at `place` has the other beside it.
    fn stands_in(&self, pair: [u16; 2], place: u32, by_left: bool) -> bool {
        if by_left {
            self.slots[(place + self.widths[usize::from(pair[0])]) as usize] == pair[1]
        } else {
            self.slots[place as usize - 1] == pair[0]
        }
    }

    fn replace(&mut self, pair: [u16; 2], place: u32, id: u16) {
        let [left, right] = pair.map(|token| self.widths[usize::from(token)] as usize);
        let start = place as usize;
        let (middle, end) = (start + left, start + left + right);
        self.before.add(self.slots[start - 1]);
        self.after.add(self.slots[end]);
        self.slots[middle - 1] = COVERED;
        self.slots[middle] = COVERED;
        self.slots[start] = id;
        self.slots[end - 1] = id;
    }

    /// Counts the pairs that went and came with a merge.
    fn settle(&mut self, [left, right]: [u16; 2], id: u16) {
        self.counts.remove(join(left, right));
        self.fetch([left, right], id);
        // A pair right after another is counted as one with `left` after it first, then as one with `id` before it.
        let twins = self.before.get(id);
        for index in 0..self.before.seen.len() {
            let (token, count) = self.before.entry(index);
            if token != id {
                self.counts.subtract(join(token, left), count);
            }
            self.came(join(token, id), count);
        }
        for index in 0..self.after.seen.len() {
            let (token, count) = self.after.entry(index);
            self.counts.subtract(join(right, token), count);
            let count = if token == left { count - twins } else { count };
            self.came(join(id, token), count);
        }
        self.before.clear();
        self.after.clear();
    }

    /// Asks for the counts that will change, all at once.
    fn fetch(&self, [left, right]: [u16; 2], id: u16) {
        for &token in &self.before.seen {
            self.counts.fetch(join(token, left));
            self.counts.fetch(join(token, id));
        }
        for &token in &self.after.seen {
            self.counts.fetch(join(right, token));
            self.counts.fetch(join(id, token));
        }
    }

    fn came(&mut self, pair: u32, count: u32) {
        if count > 0 {
            self.counts.insert(pair, count);
            self.enqueue(pair, count);
        }
    }
}

/// How many places ahead are asked for.
const AHEAD: usize = 12;

/// Asks for the memory of an element, without waiting for it.
fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(element) = slice.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of an address that is valid, as of any other, changes no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _unused = (slice, index);
}

const fn widen(token: u8) -> u16 {
    if token == bytes::SEPARATOR { SEPARATOR } else { token as u16 }
}

/// Where each of `count` tokens stands.
fn list_places(slots: &[u16], count: usize) -> Vec<Vec<u32>> {
    let mut totals = vec![0; usize::from(SEPARATOR) + 1];
    for &token in slots {
        totals[usize::from(token)] += 1;
    }
    let mut places: Vec<Vec<u32>> = totals[..count].iter().map(|&total| Vec::with_capacity(total)).collect();
    for (place, &token) in (0..).zip(slots) {
        if let Some(list) = places.get_mut(usize::from(token)) {
            list.push(place);
        }
    }
    places
}

/// How often each token was seen beside the pair of a merge.
struct Histogram {
    counts: Vec<u32>,
    seen: Vec<u16>,
}

impl Histogram {
    fn new(tokens: usize) -> Self {
        Self { counts: vec![0; tokens], seen: Vec::new() }
    }

    fn add(&mut self, token: u16) {
        if token == SEPARATOR {
            return;
        }
        let count = &mut self.counts[usize::from(token)];
        if *count == 0 {
            self.seen.push(token);
        }
        *count += 1;
    }

    fn get(&self, token: u16) -> u32 {
        self.counts[usize::from(token)]
    }

    fn entry(&self, index: usize) -> (u16, u32) {
        let token = self.seen[index];
        (token, self.get(token))
    }

    fn clear(&mut self) {
        for token in self.seen.drain(..) {
            self.counts[usize::from(token)] = 0;
        }
    }
}

/// Counts by pair: a table with open addressing, at most three quarters full. Counts fit 32 bits since places do.
struct Counts {
    table: Vec<[u32; 2]>,
    used: usize,
}

/// The key of a free entry: no pair, since it is two separators.
const FREE: u32 = u32::MAX;

impl Counts {
    fn new(slots: &[u16]) -> Self {
        let mut counts = Self { table: vec![[FREE, 0]; 1 << 12], used: 0 };
        for pair in slots.windows(2).filter(|pair| !pair.contains(&SEPARATOR)) {
            *counts.entry(join(pair[0], pair[1])) += 1;
        }
        counts
    }

    fn home(&self, pair: u32) -> usize {
        let bits = self.table.len().trailing_zeros();
        (pair.wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize
    }

    /// Where `pair` is or would be.
    fn find(&self, pair: u32) -> usize {
        let mut at = self.home(pair);
        while self.table[at][0] != pair && self.table[at][0] != FREE {
            at = (at + 1) & (self.table.len() - 1);
        }
        at
    }

    fn fetch(&self, pair: u32) {
        prefetch(&self.table, self.home(pair));
    }

    fn get(&self, pair: u32) -> u32 {
        self.table[self.find(pair)][1]
    }

    fn entry(&mut self, pair: u32) -> &mut u32 {
        let mut at = self.find(pair);
        if self.table[at][0] == FREE {
            if (self.used + 1) * 4 > self.table.len() * 3 {
                self.grow();
                at = self.find(pair);
            }
            self.used += 1;
            self.table[at][0] = pair;
        }
        &mut self.table[at][1]
    }

    fn insert(&mut self, pair: u32, count: u32) {
        *self.entry(pair) = count;
    }

    fn subtract(&mut self, pair: u32, count: u32) {
        let at = self.find(pair);
        self.table[at][1] = self.table[at][1].saturating_sub(count);
    }

    fn remove(&mut self, pair: u32) {
        let at = self.find(pair);
        self.table[at][1] = 0;
    }

    fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.table.iter().filter(|entry| entry[1] > 0).map(|&[pair, count]| (pair, count))
    }

    /// Leaves pairs behind that are no more; doubles if that does not free half.
    fn grow(&mut self) {
        let living: Vec<(u32, u32)> = self.iter().collect();
        if living.len() * 2 > self.table.len() {
            self.table = vec![[FREE, 0]; self.table.len() * 2];
        } else {
            self.table.fill([FREE, 0]);
        }
        self.used = living.len();
        for (pair, count) in living {
            let at = self.find(pair);
            self.table[at] = [pair, count];
        }
    }
}
