//! The first phase: tokens are bytes, a merge is one pass over all of them that replaces and compacts.
//!
//! The tokens lie in segments, which threads take one after the other; a pass counts what stands beside the pair, and the table of pairs
//! follows from that. A pair that reaches over the end of a segment belongs to the one that it begins in.
//!
//! Memory: in place; a table of 256 x 256 counts.

use std::sync::Mutex;

use super::corpus::Learned;
use super::team::{self, Team, lock};
use crate::tokenizer::Error;

mod pass;

/// Stands before, between and after pieces.
pub const SEPARATOR: u8 = u8::MAX;
/// Segments are not shorter than this at the start; tests have small corpora in many segments.
const LEAST_SEGMENT: usize = if cfg!(test) { 1 << 6 } else { 1 << 18 };
const SEGMENTS_A_THREAD: usize = 8;

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
        let end = usize::try_from(learned.next()).unwrap_or(usize::MAX).min(usize::from(SEPARATOR));
        let row = &self.0[usize::from(left) << 8..][..end];
        let mut best = (0, SEPARATOR);
        for (right, &count) in (0..).zip(row) {
            if count > best.0 && learned.allows([left, right].map(u32::from), count) {
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
#[derive(Debug, Default)]
struct Best(Vec<(u64, u8)>);

impl Best {
    /// The most frequent pair that is allowed, of equals the smaller.
    fn pair(&self) -> Option<[u8; 2]> {
        let mut best = (0, None);
        for (left, &(count, right)) in (0..).zip(&self.0) {
            if count > best.0 {
                best = (count, Some([left, right]));
            }
        }
        best.1
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
    /// What will stand before it after the merge.
    last: u8,
    /// Whether its first token belongs to a pair that begins before it.
    taken: bool,
    /// What stands after it.
    beyond: [u8; 2],
    beside: Beside,
}

impl Segment<'_> {
    fn content(&self) -> &[u8] {
        &self.tokens[..self.length]
    }
}

/// What to merge into what.
#[derive(Debug, Clone, Copy)]
struct Merge {
    pair: [u8; 2],
    id: u8,
}

/// Learns merges while their numbers fit; returns what is left to learn from, and the counts of its pairs.
pub fn learn(mut tokens: Vec<u8>, learned: &mut Learned, threads: usize) -> Result<(Vec<u8>, Counts), Error> {
    let bounds = bounds(tokens.len(), threads);
    let mut counts = Counts::of_parts(&tokens, threads);
    let kernel = pass::Kernel::best();
    let segments = cut_at(&mut tokens, &bounds);
    let work = |segment: &mut Segment, merge: &Merge| kernel.merge(segment, *merge);
    team::lead(&segments, threads, &work, |team| {
        lead(team, &segments, &mut counts, learned, kernel.tokens())
    })?;
    let lengths: Vec<usize> = segments.into_iter().map(|segment| lock(&segment).length).collect();
    join(&mut tokens, &bounds, &lengths);
    Ok((tokens, counts))
}

fn lead(
    team: &Team<'_, Segment<'_>, Merge>,
    segments: &[Mutex<Segment<'_>>],
    counts: &mut Counts,
    learned: &mut Learned,
    most: u32,
) -> Result<(), Error> {
    let mut best = Best::default();
    best.add(counts, learned);
    while learned.next() < most && !learned.is_complete() {
        let Some(pair) = best.pair() else { break };
        let id = u8::try_from(learned.next()).unwrap_or(SEPARATOR);
        learned.add(pair.map(u32::from))?;
        let beside = carry_out(team, segments, Merge { pair, id });
        counts.settle(pair, id, &beside);
        best.settle(counts, pair, learned);
    }
    Ok(())
}

/// One merge on all segments at once. What stood beside its pairs.
fn carry_out(team: &Team<'_, Segment<'_>, Merge>, segments: &[Mutex<Segment<'_>>], merge: Merge) -> Beside {
    (0..segments.len()).for_each(|at| look_around(segments, at, merge));
    team.carry_out(merge);
    let mut beside = Beside::default();
    for segment in segments {
        beside.add(&lock(segment).beside, merge.id);
    }
    beside
}

/// Tells a segment what stands around it, and what a merge will make of what stands before it.
fn look_around(segments: &[Mutex<Segment<'_>>], at: usize, Merge { pair: [left, right], id }: Merge) {
    let before = tail(&segments[..at], if left == right { left } else { SEPARATOR });
    let beyond = head(&segments[at + 1..]);
    let mut segment = lock(&segments[at]);
    // Whether a pair ends before the segment, and whether one can begin with what stands before it.
    let (ends, begins) = match before.run {
        0 => (before.tokens == [left, right], before.tokens[1] == left),
        run => (run % 2 == 0, run % 2 == 1),
    };
    segment.taken = begins && segment.content().first() == Some(&right);
    segment.last = if ends || segment.taken { id } else { before.tokens[1] };
    segment.beyond = beyond;
}

/// The first two tokens of some segments.
fn head(segments: &[Mutex<Segment<'_>>]) -> [u8; 2] {
    let mut head = [SEPARATOR; 2];
    let mut found = 0;
    for segment in segments {
        for &token in lock(segment).content().iter().take(2 - found) {
            head[found] = token;
            found += 1;
        }
        if found == 2 {
            break;
        }
    }
    head
}

/// The end of some segments.
struct Tail {
    /// The last two tokens.
    tokens: [u8; 2],
    /// How many of the last tokens are the one asked for.
    run: usize,
}

/// The end of segments, and how often `token` stands there in a row; [`SEPARATOR`] is not counted.
fn tail(segments: &[Mutex<Segment<'_>>], token: u8) -> Tail {
    let mut tail = Tail { tokens: [SEPARATOR; 2], run: 0 };
    let mut seen = 0;
    for segment in segments.iter().rev() {
        for &here in lock(segment).content().iter().rev() {
            if seen < 2 {
                tail.tokens[1 - seen] = here;
            }
            let runs = token != SEPARATOR && here == token && tail.run == seen;
            tail.run += usize::from(runs);
            seen += 1;
            if seen >= 2 && !runs {
                return tail;
            }
        }
    }
    tail
}

/// Bounds of segments of about equal lengths: one for a thread that is alone, else some for each, since who is done first
/// takes the next.
fn bounds(length: usize, threads: usize) -> Vec<usize> {
    let wanted = if threads > 1 { threads * SEGMENTS_A_THREAD } else { 1 };
    let count = wanted.min(length / LEAST_SEGMENT).max(1);
    (0..=count).map(|at| length / count * at + length % count * at / count).collect()
}

/// Segments between bounds.
fn cut_at<'a>(tokens: &'a mut [u8], bounds: &[usize]) -> Vec<Mutex<Segment<'a>>> {
    let mut rest = tokens;
    let mut segments = Vec::new();
    for range in bounds.windows(2) {
        let (tokens, after) = rest.split_at_mut(range[1] - range[0]);
        rest = after;
        let (length, beside) = (tokens.len(), Beside::default());
        let (last, beyond) = (SEPARATOR, [SEPARATOR; 2]);
        let segment = Segment { tokens, length, last, taken: false, beyond, beside };
        segments.push(Mutex::new(segment));
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
