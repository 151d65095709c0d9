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
use std::sync::{Mutex, PoisonError, RwLock};

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
    let slots = Slots::new(&tokens, threads).map_err(|source| Error::Memory { source })?;
    drop(tokens);
    let regions = threads.clamp(1, (slots.len() / LEAST_REGION).max(1));
    let regions: Vec<_> = (0..regions).map(|_| Mutex::new(Region::new(most))).collect();
    let shared = RwLock::new(Shared { widths: vec![1; known], lists: [Vec::new(), Vec::new()] });
    let work = |region: &mut Region, order: &Order| {
        region.carry_out(&slots, &shared.read().unwrap_or_else(PoisonError::into_inner), order);
    };
    team::lead(&regions, threads, &work, |team| {
        let (edges, beside) = (vec![SEPARATOR; regions.len()], [Histogram::new(most), Histogram::new(most)]);
        let length = slots.len();
        let mut places =
            Places { slots: &slots, length, regions: &regions, shared: &shared, edges, pairs, beside };
        places.list();
        places.learn(team, learned)
    })
}

/// What the regions need to know; changes between their orders.
struct Shared {
    /// Slots that a token covers.
    widths: Vec<u32>,
    /// The lists of the frequent pairs of the newest token, by the token before it, and after it.
    lists: [Vec<(u16, u32)>; 2],
}

/// Where a rare pair is listed.
const NO_LIST: u32 = u32::MAX;

struct Places<'a> {
    slots: &'a [AtomicU16],
    /// Slots in use.
    length: usize,
    regions: &'a [Mutex<Region>],
    shared: &'a RwLock<Shared>,
    /// The token that stands before the first slot of each region.
    edges: Vec<u16>,
    pairs: Pairs,
    /// What stood before, and after, the pairs of a merge.
    beside: [Histogram; 2],
}

impl Places<'_> {
    fn learn(&mut self, team: &Team<'_, Region, Order>, learned: &mut Learned) -> Result<(), Error> {
        let least = u32::try_from(learned.limits.min_frequency).unwrap_or(u32::MAX);
        while !learned.is_complete() {
            let Some(kept) = self.pairs.best(learned) else {
                if self.pairs.lower(least) {
                    self.recount();
                    continue;
                }
                break;
            };
            let id = learned.next();
            learned.add(kept.pair.map(u32::from))?;
            self.merge(team, kept, u16::try_from(id).unwrap_or(COVERED));
        }
        Ok(())
    }

    fn merge(&mut self, team: &Team<'_, Region, Order>, Kept { pair, count, list }: Kept, id: u16) {
        let widths = {
            let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
            let widths = pair.map(|token| shared.widths[usize::from(token)]);
            shared.widths.push(widths[0] + widths[1]);
            widths.map(|width| width as usize)
        };
        let merge = Order::Merge(Merge { pair, id, widths, list });
        if self.edges.iter().any(|edge| pair.contains(edge)) {
            team.carry_out_alone(merge);
            self.find_edges();
        } else if count < ALONE {
            team.carry_out_alone(merge);
        } else {
            team.carry_out(merge);
        }
        if self.settle(pair, id) {
            match count {
                0..ALONE => team.carry_out_alone(Order::List),
                _ => team.carry_out(Order::List),
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
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let [lists_before, lists_after] = &mut shared.lists;
        let ([before, after], pairs) = (&mut self.beside, &mut self.pairs);
        pairs.remove([left, right]);
        lists_before.clear();
        lists_after.clear();
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
        {
            let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
            self.regions.iter().for_each(|region| lock(region).forget());
            self.length = slots::squeeze(&self.slots[..self.length], &shared.widths);
            shared.widths.fill(1);
        }
        self.pairs.recount(&self.slots[..self.length]);
        self.list();
    }

    /// Lists the pairs that are kept. Every slot is a token.
    fn list(&mut self) {
        let (regions, slots, pairs) = (self.regions, &self.slots[..self.length], &self.pairs);
        let list = |(region, range): (&Mutex<Region>, Range<usize>)| lock(region).list(slots, range, pairs);
        let list = &list;
        std::thread::scope(|scope| {
            let mut shares = regions.iter().zip(parts(slots.len(), regions.len()));
            let first = shares.next();
            shares.for_each(|share| drop(scope.spawn(move || list(share))));
            first.map(list);
        });
        self.find_edges();
    }
}

/// `0..length` in about equal parts.
fn parts(length: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let bound = move |at: usize| length / count * at + length % count * at / count;
    (0..count).map(move |at| bound(at)..bound(at + 1))
}
