//! The first phase: tokens are bytes, a merge is one pass over all of them that replaces and compacts.
//!
//! The tokens lie in segments, which threads take one after the other; a pass counts what stands beside the pair, and the table of pairs
//! follows from that. A pair that reaches over the end of a segment belongs to the one that it begins in. Merges that are sure to
//! follow each other, since none changes the count of another, are one order: a segment fits the cache of a core and is read from memory
//! once for all of them.
//!
//! Memory: in place; a table of 256 x 256 counts, and up to 32 KiB for every segment of 1 MiB.

use std::sync::Mutex;

use super::corpus::Learned;
use super::team::{self, Team, lock};
use crate::tokenizer::Error;

mod edge;
mod pass;

/// Stands before, between and after pieces.
pub const SEPARATOR: u8 = u8::MAX;
/// Segments are not shorter than this at the start; tests have small corpora in many segments.
const LEAST_SEGMENT: usize = if cfg!(test) { 1 << 6 } else { 1 << 18 };
/// Nor much longer than this: the cache of a core.
const SEGMENT: usize = LEAST_SEGMENT << 2;
const SEGMENTS_A_THREAD: usize = 8;
/// The most merges of an order.
const MERGES: usize = 8;

/// Counts of neighbours by left and right token; rows and columns of the separator are never read.
#[derive(Debug, Clone)]
pub struct Counts(Vec<u64>);

impl Counts {
    /// Of letters and separators.
    fn new(tokens: &[u8]) -> Self {
        // Four tables, since equal pairs follow each other.
        let mut tables = [[0_u64; 64]; 4];
        let few = |token: u8| usize::from(token & 7);
        let mut pairs = tokens.windows(2);
        while let Some(pair) = pairs.next() {
            tables[0][few(pair[0]) << 3 | few(pair[1])] += 1;
            for (table, pair) in tables[1..].iter_mut().zip(&mut pairs) {
                table[few(pair[0]) << 3 | few(pair[1])] += 1;
            }
        }
        let mut counts = Self(vec![0; 1 << 16]);
        for (left, right) in (0..4_u8).flat_map(|left| (0..4_u8).map(move |right| (left, right))) {
            *counts.at(left, right) = tables.iter().map(|table| table[few(left) << 3 | few(right)]).sum();
        }
        counts
    }

    /// Of letters and separators, a part on each thread.
    fn of_parts(tokens: &[u8], threads: usize) -> Self {
        let share = tokens.len().div_ceil(threads.max(1)).max(1);
        // The last pair of a part ends in the next one.
        let part = |from: usize| Self::new(&tokens[from..tokens.len().min(from + share + 1)]);
        let part = &part;
        std::thread::scope(|scope| {
            let others = (share..tokens.len()).step_by(share);
            let others: Vec<_> = others.map(|from| scope.spawn(move || part(from))).collect();
            let mut counts = part(0);
            for other in others {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                counts.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
            }
            counts
        })
    }

    fn at(&mut self, left: u8, right: u8) -> &mut u64 {
        &mut self.0[usize::from(left) << 8 | usize::from(right)]
    }

    fn get(&self, [left, right]: [u8; 2]) -> u64 {
        self.0[usize::from(left) << 8 | usize::from(right)]
    }

    /// All pairs that occur, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = ([u8; 2], u64)> {
        let pairs = (0..SEPARATOR).flat_map(|left| (0..SEPARATOR).map(move |right| [left, right]));
        pairs.map(|pair| (pair, self.get(pair))).filter(|(_, count)| *count > 0)
    }

    /// The most frequent pair of a left token that is allowed, of equals the smaller, and its count.
    fn best_of(&self, left: u8, learned: &Learned) -> (u64, u8) {
        self.next_of(left, (u64::MAX, 0), learned)
    }

    /// The pair of a left token that comes after another one, by its count and its right token.
    fn next_of(&self, left: u8, last: (u64, u8), learned: &Learned) -> (u64, u8) {
        let end = usize::try_from(learned.next()).unwrap_or(usize::MAX).min(usize::from(SEPARATOR));
        let row = &self.0[usize::from(left) << 8..][..end];
        let mut best = (0, SEPARATOR);
        for (right, &count) in (0..).zip(row) {
            let later = count < last.0 || count == last.0 && right > last.1;
            if count > best.0 && later && learned.allows([left, right].map(u32::from), count) {
                best = (count, right);
            }
        }
        best
    }

    /// Follows a merge from what stood before and after its pairs.
    fn settle(&mut self, [left, right]: [u8; 2], id: u8, beside: &Beside) {
        for token in 0..=SEPARATOR {
            let count = beside.before[usize::from(token)];
            if token != id {
                *self.at(token, left) = self.at(token, left).wrapping_sub(count);
            }
            *self.at(token, id) = count;
        }
        // A pair right after another is counted as one with `left` after it first, then as one with `id` before it.
        let twins = beside.before[usize::from(id)];
        for token in (0..=SEPARATOR).filter(|token| *token != id) {
            let count = beside.after[usize::from(token)];
            *self.at(right, token) = self.at(right, token).wrapping_sub(count);
            *self.at(id, token) = if token == left { count - twins } else { count };
        }
        *self.at(left, right) = 0;
    }
}

/// The most frequent pair of each left token, which a merge seldom changes.
#[derive(Debug, Clone, Default)]
struct Best(Vec<(u64, u8)>);

impl Best {
    /// The most frequent pair that is allowed, of equals the smaller, and its count.
    fn pair(&self) -> Option<([u8; 2], u64)> {
        let mut best = (0, None);
        for (left, &(count, right)) in (0..).zip(&self.0) {
            if count > best.0 {
                best = (count, Some(([left, right], count)));
            }
        }
        best.1
    }

    /// The pairs that are merged next, one after the other, as far as that is sure. A merge leaves the count of another pair as
    /// it is when the two share no token where they could overlap; and what it makes is no more frequent than a pair that was there,
    /// so that only one as frequent as the last could come before it.
    fn pairs(&self, counts: &Counts, learned: &Learned, most: usize) -> Vec<[u8; 2]> {
        let mut left_over = self.clone();
        let mut pairs: Vec<[u8; 2]> = Vec::new();
        while let Some((pair, count)) = left_over.pair() {
            if pairs.len() == most || pairs.iter().any(|&before| may_change(before, pair)) {
                break;
            }
            pairs.push(pair);
            left_over.0[usize::from(pair[0])] = counts.next_of(pair[0], (count, pair[1]), learned);
            if pairs.len() > 1 && left_over.pair().is_some_and(|next| next.1 == count) {
                pairs.pop();
                break;
            }
        }
        pairs
    }

    /// Follows the last merge. The counts of its tokens fell, and those of its result are new.
    fn settle(&mut self, counts: &Counts, [left, right]: [u8; 2], learned: &Learned) {
        let known = self.0.len();
        for (token, best) in (0..).zip(&mut self.0) {
            let newest = u8::try_from(known).unwrap_or(SEPARATOR);
            let count = counts.get([token, newest]);
            if token == left || token == right || best.1 == left {
                *best = counts.best_of(token, learned);
            } else if count > best.0 && learned.allows([token, newest].map(u32::from), count) {
                *best = (count, newest);
            }
        }
        self.add(counts, learned);
    }

    /// Takes in tokens that are new.
    fn add(&mut self, counts: &Counts, learned: &Learned) {
        let known = u8::try_from(self.0.len()).unwrap_or(SEPARATOR);
        let end = u8::try_from(learned.next()).unwrap_or(SEPARATOR);
        self.0.extend((known..end).map(|token| counts.best_of(token, learned)));
    }
}

/// Whether merging a pair may change how often another occurs. Of equal tokens only every other is merged, so such pairs stand alone.
fn may_change(merged: [u8; 2], [left, right]: [u8; 2]) -> bool {
    merged[0] == merged[1] || left == right || merged[0] == right || merged[1] == left
}

/// How often each token stood before (as it was replaced already) and after (as it was not yet) a pair.
#[derive(Debug, Clone)]
struct Beside {
    before: [u64; 256],
    after: [u64; 256],
}

impl Default for Beside {
    fn default() -> Self {
        Self { before: [0; 256], after: [0; 256] }
    }
}

impl Beside {
    /// Adds the counts of a segment. No token above `id` is counted but the separator.
    fn add(&mut self, other: &Self, id: u8) {
        for (counts, more) in [(&mut self.before, &other.before), (&mut self.after, &other.after)] {
            counts.iter_mut().zip(more).take(usize::from(id) + 1).for_each(|(count, more)| *count += more);
            counts[usize::from(SEPARATOR)] += more[usize::from(SEPARATOR)];
        }
    }
}

/// A part of the tokens: the first `length` of `tokens`.
#[derive(Debug)]
struct Segment<'a> {
    tokens: &'a mut [u8],
    length: usize,
    /// What stands around it, by merge of the order.
    edges: [edge::Edge; MERGES],
    /// What stood beside the pairs, by merge of the order.
    beside: Vec<Beside>,
}

impl Segment<'_> {
    fn content(&self) -> &[u8] {
        &self.tokens[..self.length]
    }
}

/// What to merge into what.
#[derive(Debug, Clone, Copy, Default)]
struct Merge {
    pair: [u8; 2],
    id: u8,
}

/// Merges to carry out one after the other.
#[derive(Debug, Clone, Copy)]
struct Order {
    merges: [Merge; MERGES],
    count: usize,
}

impl Order {
    /// Of at most [`MERGES`] pairs; `id` is that of the first result.
    fn new(pairs: &[[u8; 2]], id: u8) -> Self {
        let mut merges = [Merge::default(); MERGES];
        for ((merge, &pair), id) in merges.iter_mut().zip(pairs).zip(id..) {
            *merge = Merge { pair, id };
        }
        Self { merges, count: pairs.len() }
    }

    fn merges(&self) -> &[Merge] {
        &self.merges[..self.count]
    }
}

/// Learns merges while their numbers fit; returns what is left to learn from, and the counts of its pairs.
pub fn learn(mut tokens: Vec<u8>, learned: &mut Learned, threads: usize) -> Result<(Vec<u8>, Counts), Error> {
    let bounds = bounds(tokens.len(), threads);
    let mut counts = Counts::of_parts(&tokens, threads);
    let kernel = pass::Kernel::best();
    let segments = cut_at(&mut tokens, &bounds);
    let work = |segment: &mut Segment, order: &Order| kernel.carry_out(segment, order);
    team::lead(&segments, threads, &work, |team| {
        lead(team, &segments, &mut counts, learned, kernel.tokens())
    })?;
    let lengths: Vec<usize> = segments.into_iter().map(|segment| lock(&segment).length).collect();
    join(&mut tokens, &bounds, &lengths);
    Ok((tokens, counts))
}

fn lead(
    team: &Team<'_, Segment<'_>, Order>,
    segments: &[Mutex<Segment<'_>>],
    counts: &mut Counts,
    learned: &mut Learned,
    most: u32,
) -> Result<(), Error> {
    let mut best = Best::default();
    best.add(counts, learned);
    while learned.next() < most && !learned.is_complete() {
        let room = learned.left().min((most - learned.next()) as usize).min(MERGES);
        let pairs = best.pairs(counts, learned, room);
        if pairs.is_empty() {
            break;
        }
        let order = Order::new(&pairs, u8::try_from(learned.next()).unwrap_or(SEPARATOR));
        let beside = carry_out(team, segments, order);
        for (merge, beside) in order.merges().iter().zip(&beside) {
            debug_assert_eq!(best.pair().map(|best| best.0), Some(merge.pair), "not the next pair");
            learned.add(merge.pair.map(u32::from))?;
            counts.settle(merge.pair, merge.id, beside);
            best.settle(counts, merge.pair, learned);
        }
    }
    Ok(())
}

/// An order on all segments. What stood beside the pairs of each merge.
fn carry_out(
    team: &Team<'_, Segment<'_>, Order>,
    segments: &[Mutex<Segment<'_>>],
    order: Order,
) -> Vec<Beside> {
    edge::look_around(segments, &order);
    team.carry_out(order);
    let mut all = vec![Beside::default(); order.count];
    for segment in segments {
        let segment = lock(segment);
        for ((all, beside), merge) in all.iter_mut().zip(&segment.beside).zip(order.merges()) {
            all.add(beside, merge.id);
        }
    }
    all
}

/// Bounds of segments of about equal lengths that fit a cache, and some for each thread, since who is done first takes the next.
fn bounds(length: usize, threads: usize) -> Vec<usize> {
    let wanted = if threads > 1 { threads * SEGMENTS_A_THREAD } else { 1 };
    let count = wanted.min(length / LEAST_SEGMENT).max(length / SEGMENT).max(1);
    (0..=count).map(|at| length / count * at + length % count * at / count).collect()
}

/// Segments between bounds.
fn cut_at<'a>(tokens: &'a mut [u8], bounds: &[usize]) -> Vec<Mutex<Segment<'a>>> {
    let mut rest = tokens;
    let mut segments = Vec::new();
    for range in bounds.windows(2) {
        let (tokens, after) = rest.split_at_mut(range[1] - range[0]);
        rest = after;
        let (length, edges) = (tokens.len(), [edge::Edge::default(); MERGES]);
        segments.push(Mutex::new(Segment { tokens, length, edges, beside: Vec::new() }));
    }
    segments
}

/// Brings together what is left of the segments, and gives back the memory behind.
fn join(tokens: &mut Vec<u8>, starts: &[usize], lengths: &[usize]) {
    let mut write = 0;
    for (&start, &length) in starts.iter().zip(lengths) {
        tokens.copy_within(start..start + length, write);
        write += length;
    }
    tokens.truncate(write);
    tokens.shrink_to_fit();
}
