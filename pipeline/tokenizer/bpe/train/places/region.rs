//! A range of slots and the places of the frequent pairs that begin in it.

use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use super::histogram::Histogram;
use super::list::List;
use super::pairs::Pairs;
use super::slots::prefetch;
use super::{COVERED, NO_LIST, Shared};

/// What to merge into what, and where it is listed.
#[derive(Debug, Clone, Copy)]
pub struct Merge {
    pub pair: [u16; 2],
    pub id: u16,
    /// Slots that the tokens of the pair cover.
    pub widths: [usize; 2],
    pub list: u32,
}

/// What all regions do at a time.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    Merge(Merge),
    /// List the pairs that are kept. Every slot is a token.
    ListAll,
    /// List the frequent pairs that the last merge made.
    List,
}

/// A pair that was merged: its first slot, and what stands before and after it.
struct Found {
    slot: usize,
    beside: [u16; 2],
}

pub struct Region {
    range: Range<usize>,
    /// By number of the list; places are counted from the start.
    lists: Vec<List>,
    /// The pairs of the last merge.
    found: Vec<Found>,
    /// What stood before and after them.
    pub beside: [Histogram; 2],
    /// By the token before, and by the one after the newest token: the list of the pair, if it is frequent.
    listed: [Vec<u32>; 2],
    /// A place, with its list, that was found here and begins before.
    pub reached: Option<(u32, usize)>,
}

impl Region {
    /// Without slots; there will be `most` tokens.
    pub fn new(most: usize) -> Self {
        let beside = [Histogram::new(most), Histogram::new(most)];
        let listed = [vec![NO_LIST; most], vec![NO_LIST; most]];
        Self { range: 0..0, lists: Vec::new(), found: Vec::new(), beside, listed, reached: None }
    }

    /// The first slot.
    pub const fn start(&self) -> usize {
        self.range.start
    }

    /// Has these slots from now on.
    pub fn take(&mut self, range: Range<usize>) {
        self.range = range;
    }

    /// Forgets all places.
    pub fn forget(&mut self) {
        self.lists = Vec::new();
        self.found = Vec::new();
    }

    /// Lists the pairs that begin here.
    fn list(&mut self, slots: &[AtomicU16], pairs: &Pairs) {
        let range = self.range.clone();
        // Some more than the share, for lists that are not spread evenly: one that grows is copied.
        let share = |count: u32| {
            let share = count as usize * range.len() / slots.len().max(1);
            (share + 4 * share.isqrt() + 4).min(count as usize)
        };
        self.lists = vec![List::default(); pairs.lists() as usize];
        for (list, count) in pairs.listed() {
            self.lists[list as usize] = List::with_capacity(share(count));
        }
        let finder = pairs.finder();
        let mut deal = Deal::new(self.lists.len());
        for from in range.clone().step_by(Deal::BLOCK) {
            let to = range.end.min(from + Deal::BLOCK);
            finder.for_each(&slots[from..slots.len().min(to + 1)], |place, list| deal.add(place, list));
            deal.each(|place, list| self.lists[list].push(from - range.start + place));
        }
        self.lists.iter_mut().for_each(List::shrink);
    }

    /// Adds a place to a list, the last so far, by its slot.
    pub fn append(&mut self, list: u32, slot: usize) {
        let list = list as usize;
        self.lists.resize_with(self.lists.len().max(list + 1), List::default);
        self.lists[list].push(slot - self.range.start);
    }

    pub fn carry_out(&mut self, slots: &[AtomicU16], shared: &Shared, order: &Order) {
        match order {
            Order::Merge(merge) => self.merge(slots, merge),
            Order::ListAll => self.list(&slots[..shared.length], &shared.pairs),
            Order::List => self.list_found(shared),
        }
    }

    /// Replaces the pairs that are listed here, from the left.
    fn merge(&mut self, slots: &[AtomicU16], merge: &Merge) {
        self.found.clear();
        self.beside.iter_mut().for_each(Histogram::clear);
        let Some(list) = self.lists.get_mut(merge.list as usize).map(std::mem::take) else { return };
        let start = self.start();
        let [left, right] = merge.pair;
        list.for_each(
            |place| prefetch(slots, start + place),
            |place| {
                let slot = start + place;
                let here = slots[slot].load(Ordering::Relaxed);
                if here == left && slots[slot + merge.widths[0]].load(Ordering::Relaxed) == right {
                    self.replace(slots, slot, merge);
                }
            },
        );
    }

    /// Replaces the pair that begins at `slot` and notes what stands beside it.
    #[inline]
    fn replace(&mut self, slots: &[AtomicU16], slot: usize, merge: &Merge) {
        let (middle, end) = (slot + merge.widths[0], slot + merge.widths[0] + merge.widths[1]);
        let beside = [slot - 1, end].map(|slot| slots[slot].load(Ordering::Relaxed));
        self.beside.iter_mut().zip(beside).for_each(|(histogram, token)| histogram.count(token));
        self.found.push(Found { slot, beside });
        slots[middle - 1].store(COVERED, Ordering::Relaxed);
        slots[middle].store(COVERED, Ordering::Relaxed);
        slots[slot].store(merge.id, Ordering::Relaxed);
        slots[end - 1].store(merge.id, Ordering::Relaxed);
    }

    /// Lists the frequent pairs that the last merge made.
    fn list_found(&mut self, shared: &Shared) {
        let known = self.lists.len();
        self.make_lists(shared);
        // Taken for this long only: its memory serves the next merge.
        let found = std::mem::take(&mut self.found);
        for &Found { slot, beside: [before, after] } in &found {
            let [list_before, list_after] = [(0, before), (1, after)].map(|(side, token): (usize, u16)| {
                self.listed[side].get(usize::from(token)).copied().unwrap_or(NO_LIST)
            });
            if list_before != NO_LIST {
                let place = slot - shared.widths[usize::from(before)] as usize;
                if place < self.start() {
                    self.reached = Some((list_before, place));
                } else {
                    self.append(list_before, place);
                }
            }
            if list_after != NO_LIST {
                self.append(list_after, slot);
            }
        }
        self.lists[known..].iter_mut().for_each(List::shrink);
        self.found = found;
        for (listed, lists) in self.listed.iter_mut().zip(&shared.lists) {
            for &(token, _) in lists {
                listed[usize::from(token)] = NO_LIST;
            }
        }
    }

    /// Makes room for the places of the frequent pairs of the newest token, and notes where they go.
    fn make_lists(&mut self, shared: &Shared) {
        for ((listed, lists), beside) in self.listed.iter_mut().zip(&shared.lists).zip(&self.beside) {
            for &(token, list) in lists {
                listed[usize::from(token)] = list;
                let list = list as usize;
                self.lists.resize_with(self.lists.len().max(list + 1), List::default);
                self.lists[list] = List::with_capacity(beside.get(token) as usize);
            }
        }
    }
}

/// The places of a block, sorted by list, so that what a list gets is written at once: lists are many, and each lies in
/// memory of its own.
struct Deal {
    found: Vec<(u32, u16)>,
    /// Where the places of each list end.
    ends: Vec<u32>,
    places: Vec<u16>,
}

impl Deal {
    /// Slots of a block.
    const BLOCK: usize = 1 << 16;

    fn new(lists: usize) -> Self {
        Self { found: Vec::with_capacity(Self::BLOCK), ends: vec![0; lists], places: Vec::new() }
    }

    fn add(&mut self, place: usize, list: u32) {
        self.found.push((list, u16::try_from(place).unwrap_or_default()));
    }

    /// Hands out the places, those of a list in order, and forgets them.
    fn each(&mut self, mut each: impl FnMut(usize, usize)) {
        if self.ends.len() > Self::BLOCK / 4 {
            self.found.drain(..).for_each(|(list, place)| each(place.into(), list as usize));
            return;
        }
        self.ends.fill(0);
        self.found.iter().for_each(|&(list, _)| self.ends[list as usize] += 1);
        let mut start = 0;
        for end in &mut self.ends {
            start += std::mem::replace(end, start);
        }
        self.places.resize(self.found.len(), 0);
        for (list, place) in self.found.drain(..) {
            let at = &mut self.ends[list as usize];
            self.places[*at as usize] = place;
            *at += 1;
        }
        let mut start = 0;
        for (list, &end) in self.ends.iter().enumerate() {
            let end = end as usize;
            self.places[start..end].iter().for_each(|&place| each(place.into(), list));
            start = end;
        }
    }
}
