//! The second phase: a merge visits the places of its pair.
//!
//! Every token of the first phase has a slot. A merged token covers the slots of its parts: its first and its last slot
//! hold its number, so that both neighbours are found from the slots beside it. The places of frequent pairs are listed
//! in order; one where the pair no longer stands is passed over. When no frequent pair is left, what is covered is
//! squeezed out, and rarer pairs are counted and listed.
//!
//! The slots are parted into regions, one for each thread, which list the places of pairs that begin in them. A merge
//! that does not concern the token at the end of a region happens in all regions at once.
//!
//! Memory: 2 bytes a slot, 2 for every place of a frequent pair; the rest is small ([`pairs`]).

use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::bytes;
use super::corpus::Learned;
use super::team::{self, Team, lock};
use crate::tokenizer::Error;
use histogram::Histogram;
use pairs::{Kept, Pairs};
use region::{Merge, Order, Region};
use slots::Slots;

mod histogram;
mod list;
mod pairs;
mod region;
mod slots;

/// Between pieces.
const SEPARATOR: u16 = u16::MAX;
/// A slot that a merged token covers, neither its first nor its last.
const COVERED: u16 = u16::MAX - 1;
/// Regions are not shorter than this at the start, in slots; tests have small corpora in many regions.
const LEAST_REGION: usize = if cfg!(test) { 1 << 4 } else { 1 << 16 };
/// Merges of fewer pairs than this are not worth a call to other threads.
const ALONE: u32 = if cfg!(test) { 1 << 2 } else { 1 << 7 };

/// Learns the rest of the merges from what the first phase left.
pub fn learn(
    tokens: Vec<u8>,
    counts: &bytes::Counts,
    learned: &mut Learned,
    threads: usize,
) -> Result<(), Error> {
    let pairs = Pairs::new(counts)?;
    let known = learned.next() as usize;
    let most = known + learned.limits.merges - learned.merges.len();
    let slots = Slots::new(&tokens).map_err(|source| Error::Memory { source })?;
    drop(tokens);
    let regions = threads.clamp(1, (slots.len() / LEAST_REGION).max(1));
    let regions: Vec<_> = (0..regions).map(|_| Mutex::new(Region::new(most))).collect();
    let (widths, length) = (vec![1; known], slots.len());
    let shared = RwLock::new(Shared { pairs, length, widths, lists: [Vec::new(), Vec::new()] });
    let work = |region: &mut Region, order: &Order| {
        region.carry_out(&slots, &read(&shared), order);
    };
    team::lead(&regions, threads, &work, |team| {
        let (edges, beside) = (vec![SEPARATOR; regions.len()], [Histogram::new(most), Histogram::new(most)]);
        let mut places = Places { slots: &slots, regions: &regions, shared: &shared, team, edges, beside };
        places.list();
        places.learn(learned)
    })
}

/// What the regions need to know; changes between their orders.
struct Shared {
    pairs: Pairs,
    /// Slots in use.
    length: usize,
    /// Slots that a token covers.
    widths: Vec<u32>,
    /// The lists of the frequent pairs of the newest token, by the token before it, and after it.
    lists: [Vec<(u16, u32)>; 2],
}

/// Where a rare pair is listed.
const NO_LIST: u32 = u32::MAX;

struct Places<'a> {
    slots: &'a [AtomicU16],
    regions: &'a [Mutex<Region>],
    shared: &'a RwLock<Shared>,
    team: &'a Team<'a, Region, Order>,
    /// The token that stands before the first slot of each region.
    edges: Vec<u16>,
    /// What stood before, and after, the pairs of a merge.
    beside: [Histogram; 2],
}

impl Places<'_> {
    fn learn(&mut self, learned: &mut Learned) -> Result<(), Error> {
        let least = u32::try_from(learned.limits.min_frequency).unwrap_or(u32::MAX);
        while !learned.is_complete() {
            let best = write(self.shared).pairs.best(learned);
            let Some(kept) = best else {
                if write(self.shared).pairs.lower(least) {
                    self.recount();
                    continue;
                }
                break;
            };
            let id = learned.next();
            learned.add(kept.pair.map(u32::from))?;
            self.merge(kept, u16::try_from(id).unwrap_or(COVERED));
        }
        Ok(())
    }

    fn merge(&mut self, Kept { pair, count, list }: Kept, id: u16) {
        let widths = {
            let mut shared = write(self.shared);
            let widths = pair.map(|token| shared.widths[usize::from(token)]);
            shared.widths.push(widths[0] + widths[1]);
            widths.map(|width| width as usize)
        };
        let merge = Order::Merge(Merge { pair, id, widths, list });
        if self.edges.iter().any(|edge| pair.contains(edge)) {
            self.team.carry_out_alone(merge);
            self.find_edges();
        } else if count < ALONE {
            self.team.carry_out_alone(merge);
        } else {
            self.team.carry_out(merge);
        }
        if self.settle(pair, id) {
            match count {
                0..ALONE => self.team.carry_out_alone(Order::List),
                _ => self.team.carry_out(Order::List),
            }
            self.hand_over();
        }
    }

    /// Counts the pairs that went and came with a merge. Whether some that came are to be listed.
    fn settle(&mut self, [left, right]: [u16; 2], id: u16) -> bool {
        for region in self.regions {
            let region = lock(region);
            self.beside.iter_mut().zip(&region.beside).for_each(|(all, part)| part.add_to(all));
        }
        let mut shared = write(self.shared);
        let Shared { pairs, lists: [lists_before, lists_after], .. } = &mut *shared;
        let [before, after] = &mut self.beside;
        pairs.remove([left, right]);
        lists_before.clear();
        lists_after.clear();
        before.seen().iter().for_each(|&token| pairs.expect([token, left]));
        after.seen().iter().for_each(|&token| pairs.expect([right, token]));
        // A pair right after another is counted as one with `left` after it first, then as one with `id` before it.
        let twins = before.get(id);
        before.drain(|token, count| {
            if token != id {
                pairs.subtract([token, left], count);
            }
            lists_before.extend(pairs.add([token, id], count).map(|list| (token, list)));
        });
        after.drain(|token, count| {
            pairs.subtract([right, token], count);
            let count = if token == left { count - twins } else { count };
            lists_after.extend(pairs.add([id, token], count).map(|list| (token, list)));
        });
        shared.lists.iter().any(|lists| !lists.is_empty())
    }

    /// Moves places that begin before the region that found them.
    fn hand_over(&self) {
        for region in self.regions {
            let Some((list, place)) = lock(region).reached.take() else { continue };
            let owner = self.regions.iter().rev().find(|region| lock(region).start() <= place);
            if let Some(owner) = owner {
                lock(owner).append(list, place);
            }
        }
    }

    /// Finds the token before each region.
    fn find_edges(&mut self) {
        for (edge, region) in self.edges.iter_mut().zip(self.regions) {
            let before = self.slots[..lock(region).start()].iter().rev();
            let mut tokens =
                before.map(|slot| slot.load(Ordering::Relaxed)).skip_while(|slot| *slot == COVERED);
            *edge = tokens.next().unwrap_or(SEPARATOR);
        }
    }

    /// Counts and lists the pairs that are frequent under a lower threshold.
    fn recount(&mut self) {
        self.regions.iter().for_each(|region| lock(region).forget());
        let mut shared = write(self.shared);
        let Shared { pairs, length, widths, .. } = &mut *shared;
        *length = slots::squeeze(&self.slots[..*length], widths);
        widths.fill(1);
        pairs.recount(&self.slots[..*length]);
        drop(shared);
        self.list();
    }

    /// Lists the pairs that are kept. Every slot is a token.
    fn list(&mut self) {
        let length = read(self.shared).length;
        for (region, range) in self.regions.iter().zip(parts(length, self.regions.len())) {
            lock(region).take(range);
        }
        self.team.carry_out(Order::ListAll);
        self.find_edges();
    }
}

fn read(shared: &RwLock<Shared>) -> RwLockReadGuard<'_, Shared> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shared: &RwLock<Shared>) -> RwLockWriteGuard<'_, Shared> {
    shared.write().unwrap_or_else(PoisonError::into_inner)
}

/// `0..length` in about equal parts.
fn parts(length: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let bound = move |at: usize| length / count * at + length % count * at / count;
    (0..count).map(move |at| bound(at)..bound(at + 1))
}
