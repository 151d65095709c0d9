//! What stands around segments while the merges of an order are carried out: found beforehand, on a few tokens of both sides, so
//! that a segment can be worked on without its neighbours.

use std::sync::Mutex;

use super::{Merge, Order, SEPARATOR, Segment};
use crate::tokenizer::bpe::train::team::lock;

/// What stands around a segment.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// What will stand before it after the merge.
    pub last: u8,
    /// Whether its first token belongs to a pair that begins before it.
    pub taken: bool,
    /// What stands after it before the merge.
    pub beyond: [u8; 2],
}

impl Default for Edge {
    fn default() -> Self {
        Self { last: SEPARATOR, taken: false, beyond: [SEPARATOR; 2] }
    }
}

/// Tells every segment what stands around it before and after each merge of an order.
pub fn look_around(segments: &[Mutex<Segment<'_>>], order: &Order) {
    for at in 0..=segments.len() {
        let mut window = Window::new(segments, at, order);
        for (number, merge) in order.merges().iter().enumerate() {
            if let Some(before) = at.checked_sub(1) {
                lock(&segments[before]).edges[number].beyond = window.beyond();
            }
            let taken = window.merge(*merge);
            if let Some(segment) = segments.get(at) {
                let edge = &mut lock(segment).edges[number];
                (edge.taken, edge.last) = (taken, window.last());
            }
        }
    }
}

/// Some tokens around the start of a segment.
struct Window {
    tokens: Vec<u8>,
    /// Where the segment starts in them.
    start: usize,
}

impl Window {
    /// Of so many tokens that what is not seen beyond its ends, which can change two tokens with every merge, does not reach the
    /// start of the segment nor the two tokens there.
    fn new(segments: &[Mutex<Segment<'_>>], at: usize, order: &Order) -> Self {
        let wanted = 2 * order.count + 4;
        let mut tokens = before(&segments[..at], wanted, order.merges());
        tokens.reverse();
        let start = tokens.len();
        for segment in &segments[at..] {
            let missing = start + wanted - tokens.len();
            tokens.extend(lock(segment).content().iter().take(missing));
            if tokens.len() == start + wanted {
                break;
            }
        }
        Self { tokens, start }
    }

    /// The first two tokens of the segment.
    fn beyond(&self) -> [u8; 2] {
        [0, 1].map(|at| self.tokens.get(self.start + at).copied().unwrap_or(SEPARATOR))
    }

    /// What stands before the segment.
    fn last(&self) -> u8 {
        self.start.checked_sub(1).map_or(SEPARATOR, |last| self.tokens[last])
    }

    /// Merges; whether a pair takes the first token of the segment.
    fn merge(&mut self, Merge { pair: [left, right], id }: Merge) -> bool {
        let (mut read, mut write, mut start, mut taken) = (0, 0, None, false);
        while read < self.tokens.len() {
            if read == self.start {
                start = Some(write);
            }
            let merges = self.tokens[read] == left && self.tokens.get(read + 1) == Some(&right);
            self.tokens[write] = if merges { id } else { self.tokens[read] };
            write += 1;
            if merges && read + 1 == self.start {
                (start, taken) = (Some(write), true);
            }
            read += 1 + usize::from(merges);
        }
        self.tokens.truncate(write);
        self.start = start.unwrap_or(write);
        taken
    }
}

/// The last tokens of some segments, the last first. When they are all of a pair of equal tokens, as many as leave whole pairs
/// before them.
fn before(segments: &[Mutex<Segment<'_>>], wanted: usize, merges: &[Merge]) -> Vec<u8> {
    let mut tokens = Vec::new();
    let twin = merges.iter().find(|merge| merge.pair[0] == merge.pair[1]).map(|merge| merge.pair[0]);
    let mut more = 0;
    for segment in segments.iter().rev() {
        for &token in lock(segment).content().iter().rev() {
            if tokens.len() < wanted {
                tokens.push(token);
            } else if twin == Some(token) && tokens.iter().all(|&last| last == token) {
                more += 1;
            } else {
                tokens.truncate(tokens.len() - more % 2);
                return tokens;
            }
        }
    }
    tokens.truncate(tokens.len() - more % 2);
    tokens
}
