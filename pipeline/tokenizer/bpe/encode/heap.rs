//! BPE as it is defined: of all pairs merge the one of lowest rank, the leftmost of equals, until none is left.
//!
//! Right for any alphabet, in O(n log n) time; 24 bytes a letter while a run is merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hash::Map;

/// What a pair becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    /// Position in the list of merges: the lowest goes first.
    pub rank: u32,
    /// The token that replaces the pair.
    pub id: u32,
}

/// Merges by pair.
#[derive(Debug, Clone, Default)]
pub struct Merges(Map<(u32, u32), Merge>);

/// A token of the run, linked to its neighbours; `NONE` at the ends. A slot that was merged away has id `NONE`.
#[derive(Clone, Copy)]
struct Slot {
    id: u32,
    previous: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;
/// Letters that are merged at once; runs are far shorter, or fit a `u32` as positions all the same.
type Queue = BinaryHeap<Reverse<(u32, u32, u32, u32)>>;

impl Merges {
    /// From a table of pairs.
    pub const fn new(table: Map<(u32, u32), Merge>) -> Self {
        Self(table)
    }

    /// What `left` and `right` become.
    pub fn get(&self, left: u32, right: u32) -> Option<Merge> {
        self.0.get(&(left, right)).copied()
    }

    /// Appends the ids of a run of letters.
    pub fn encode_into(&self, run: &[u8], letter: impl Fn(u8) -> u32, ids: &mut Vec<u32>) {
        let mut slots = link(run, letter);
        let mut queue = Queue::with_capacity(slots.len());
        for left in 0..slots.len().saturating_sub(1) {
            self.queue_pair(&slots, left, &mut queue);
        }
        while let Some(Reverse((rank, left, a, b))) = queue.pop() {
            self.merge(&mut slots, &mut queue, rank, left as usize, (a, b));
        }
        ids.extend(slots.iter().map(|slot| slot.id).filter(|&id| id != NONE));
    }

    fn queue_pair(&self, slots: &[Slot], left: usize, queue: &mut Queue) {
        let (a, next) = (slots[left].id, slots[left].next);
        if next != NONE {
            let b = slots[next as usize].id;
            if let Some(merge) = self.get(a, b) {
                queue.push(Reverse((merge.rank, position(left), a, b)));
            }
        }
    }

    /// Merges the pair at `left`, if it still is the pair that was queued.
    fn merge(&self, slots: &mut [Slot], queue: &mut Queue, rank: u32, left: usize, pair: (u32, u32)) {
        let Slot { id, previous, next } = slots[left];
        if id != pair.0 || next == NONE || slots[next as usize].id != pair.1 {
            return;
        }
        let Some(merge) = self.get(pair.0, pair.1).filter(|merge| merge.rank == rank) else { return };
        let after = slots[next as usize].next;
        slots[next as usize].id = NONE;
        slots[left] = Slot { id: merge.id, previous, next: after };
        if after != NONE {
            slots[after as usize].previous = position(left);
        }
        self.queue_pair(slots, left, queue);
        if previous != NONE {
            self.queue_pair(slots, previous as usize, queue);
        }
    }
}

fn link(run: &[u8], letter: impl Fn(u8) -> u32) -> Vec<Slot> {
    let last = run.len().saturating_sub(1);
    let slot = |(at, &byte): (usize, &u8)| Slot {
        id: letter(byte),
        previous: if at == 0 { NONE } else { position(at - 1) },
        next: if at == last { NONE } else { position(at + 1) },
    };
    run.iter().enumerate().map(slot).collect()
}

fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}
