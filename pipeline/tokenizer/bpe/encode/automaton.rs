//! BPE of A, C, G and T as a finite automaton: one table look-up a base, no search, no going back.
//!
//! Let the *last token* of a prefix be the last token of its encoding. The encoding of a text is read off backwards: its
//! last token, then the last token of what stands before that, and so on. So it is enough to know the last token of
//! every prefix, and that is a function of a finite state ([`states`]).
//!
//! Memory: about 40 bytes a state, of which there are three to five a token; one state number a base while a text is
//! encoded, in blocks. Making the automaton takes some 150 bytes a state for a moment. Where that would be more than
//! 500 MB, there is no automaton.

use super::rules::{Rules, letter};
use states::States;

mod followers;
mod states;

/// Parts of a text that are walked side by side, so that none waits for the memory of another.
const LANES: usize = 4;
/// Shorter texts are walked alone.
const LEAST_SPLIT: usize = 256;
/// Longer texts are walked in twice as many parts.
const LONG: usize = 1 << 12;
/// Bases whose states are kept at once, unless no cut is certain for longer.
const BLOCK: usize = 1 << 14;
/// States for which memory is kept from one text to the next.
const MOST_KEPT: usize = 1 << 16;

/// The number of a state: of 16 bits where they suffice, for the table then fits a nearer memory.
pub trait Number: Copy + Eq + Default + 'static {
    /// From a number that fits.
    fn new(state: u32) -> Self;
    /// As an index.
    fn index(self) -> usize;
}

impl Number for u16 {
    fn new(state: u32) -> Self {
        Self::try_from(state).unwrap_or_default()
    }

    fn index(self) -> usize {
        usize::from(self)
    }
}

impl Number for u32 {
    fn new(state: u32) -> Self {
        state
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// The states of the block that a thread is encoding.
#[derive(Debug, Default)]
pub struct Scratch {
    narrow: Vec<u16>,
    wide: Vec<u32>,
}

/// The automaton.
#[derive(Debug, Clone)]
pub enum Automaton {
    /// Of at most 65,536 states.
    Narrow(Table<u16>),
    /// Of more.
    Wide(Table<u32>),
}

impl Automaton {
    /// From merges; `ids` are the ids of the rules' tokens. `None` where it would be too large.
    pub fn new(rules: &Rules, ids: &[u32]) -> Option<Self> {
        let states = States::new(rules)?;
        let narrow = states.rows.len() <= 1 << 16;
        Some(if narrow { Self::Narrow(Table::new(states, ids)) } else { Self::Wide(Table::new(states, ids)) })
    }

    /// As if there were more than 65,536 states.
    #[cfg(test)]
    pub fn wide(rules: &Rules, ids: &[u32]) -> Option<Self> {
        Some(Self::Wide(Table::new(States::new(rules)?, ids)))
    }

    /// Appends the ids of `run`, which is of A, C, G and T only.
    pub fn encode_into(&self, run: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        match self {
            Self::Narrow(table) => table.encode_into(run, &mut scratch.narrow, ids),
            Self::Wide(table) => table.encode_into(run, &mut scratch.wide, ids),
        }
    }
}

/// The last token of the prefix that ends in a state.
#[derive(Debug, Clone, Copy)]
struct Last {
    id: u32,
    bases: u32,
}

/// The states. State 0 is the start, before any base.
#[derive(Debug, Clone)]
pub struct Table<S> {
    /// Where each letter leads.
    rows: Vec<[S; 4]>,
    last: Vec<Last>,
    open: states::Open,
}

impl<S: Number> Table<S> {
    fn new(states: States, ids: &[u32]) -> Self {
        let id = |token: u32| ids.get(token as usize).copied().unwrap_or_default();
        let last = |&(token, bases): &(u32, u32)| Last { id: id(token), bases };
        Self {
            rows: states.rows.iter().map(|row| row.map(S::new)).collect(),
            last: states.last.iter().map(last).collect(),
            open: states.open,
        }
    }

    /// Appends the ids of `run`, which is of A, C, G and T only.
    pub fn encode_into(&self, run: &[u8], scratch: &mut Vec<S>, ids: &mut Vec<u32>) {
        let mut block = BLOCK;
        let (mut cut, mut state) = (0, S::default());
        scratch.clear();
        scratch.shrink_to(MOST_KEPT);
        // `scratch[i]` is the state after base `cut + i`.
        while cut + scratch.len() < run.len() {
            let from = cut + scratch.len();
            let to = run.len().min(cut + block);
            state = self.walk(state, &run[from..to], scratch);
            let certain = if to == run.len() { scratch.len() } else { self.certain(scratch) };
            self.read_off(&scratch[..certain], ids);
            scratch.drain(..certain);
            cut += certain;
            block = if certain == 0 { block * 2 } else { BLOCK };
        }
    }

    /// Appends the state after every base; returns the last.
    fn walk(&self, state: S, bases: &[u8], states: &mut Vec<S>) -> S {
        let first = states.len();
        states.resize(first + bases.len(), S::default());
        let states = &mut states[first..];
        match bases.len() {
            ..LEAST_SPLIT => self.walk_alone(state, bases, states),
            LEAST_SPLIT..LONG => self.walk_abreast::<LANES>(state, bases, states),
            LONG.. => self.walk_abreast::<{ 2 * LANES }>(state, bases, states),
        }
        states.last().copied().unwrap_or(state)
    }

    fn walk_alone(&self, mut state: S, bases: &[u8], states: &mut [S]) {
        for (&base, after) in bases.iter().zip(states) {
            state = self.rows[state.index()][letter(base)];
            *after = state;
        }
    }

    /// Walks `L` parts of the text side by side, each as if it began the text; then every part is walked again from the
    /// true state until the two agree, which takes some tens of bases.
    fn walk_abreast<const L: usize>(&self, state: S, bases: &[u8], states: &mut [S]) {
        let length = bases.len() / L;
        let (head, tail) = states.split_at_mut(L * length);
        self.walk_lanes::<L>(state, bases, head, length);
        for from in (1..L).map(|lane| lane * length) {
            self.mend(head[from - 1], &bases[from..L * length], &mut head[from..]);
        }
        let last = head.last().copied().unwrap_or(state);
        self.walk_alone(last, &bases[L * length..], tail);
    }

    fn walk_lanes<const L: usize>(&self, state: S, bases: &[u8], states: &mut [S], length: usize) {
        let mut outs = states.chunks_exact_mut(length);
        let outs: [&mut [S]; L] = std::array::from_fn(|_| outs.next().unwrap_or_default());
        let parts: [&[u8]; L] = std::array::from_fn(|lane| &bases[lane * length..][..length]);
        let mut lanes = [S::default(); L];
        lanes[0] = state;
        for at in 0..length {
            for lane in 0..L {
                lanes[lane] = self.rows[lanes[lane].index()][letter(parts[lane][at])];
                outs[lane][at] = lanes[lane];
            }
        }
    }

    /// Walks from `state` until the states are what they are already.
    fn mend(&self, mut state: S, bases: &[u8], states: &mut [S]) {
        for (&base, after) in bases.iter().zip(states) {
            state = self.rows[state.index()][letter(base)];
            if *after == state {
                return;
            }
            *after = state;
        }
    }

    /// A cut that every continuation keeps: where the ways back from all open tokens meet; 0 when they do not.
    fn certain(&self, states: &[S]) -> usize {
        let Some(&state) = states.last() else { return 0 };
        let mut cuts: Vec<usize> = Vec::new();
        for &before in self.open.of(state.index()) {
            match states.len().checked_sub(usize::from(before)) {
                Some(cut) => cuts.push(cut),
                None => return 0,
            }
        }
        loop {
            cuts.sort_unstable();
            cuts.dedup();
            match cuts[..] {
                [] | [0, ..] => return 0,
                [cut] => return cut,
                [.., ref mut latest] => {
                    let last = self.last[states[*latest - 1].index()];
                    *latest -= last.bases as usize;
                }
            }
        }
    }

    /// Appends the ids of a text from the states after its bases, of which the last is a cut: backwards, from several
    /// certain cuts side by side.
    fn read_off(&self, states: &[S], ids: &mut Vec<u32>) {
        let first = ids.len();
        ids.resize(first + states.len(), 0);
        let out = &mut ids[first..];
        let cuts = self.cuts(states);
        let (mut reads, mut writes) = ([0; LANES], [0; LANES]);
        reads.copy_from_slice(&cuts[1..]);
        writes.copy_from_slice(&cuts[1..]);
        let step = |lane: usize, reads: &mut [usize; LANES], writes: &mut [usize; LANES], out: &mut [u32]| {
            let last = self.last[states[reads[lane] - 1].index()];
            writes[lane] -= 1;
            out[writes[lane]] = last.id;
            reads[lane] -= last.bases as usize;
        };
        while (0..LANES).all(|lane| reads[lane] > cuts[lane]) {
            (0..LANES).for_each(|lane| step(lane, &mut reads, &mut writes, out));
        }
        let mut length = 0;
        for lane in 0..LANES {
            while reads[lane] > cuts[lane] {
                step(lane, &mut reads, &mut writes, out);
            }
            out.copy_within(writes[lane]..cuts[lane + 1], length);
            length += cuts[lane + 1] - writes[lane];
        }
        ids.truncate(first + length);
    }

    /// Certain cuts that part a text in about equal lanes, with its two ends.
    fn cuts(&self, states: &[S]) -> [usize; LANES + 1] {
        let mut cuts = [0; LANES + 1];
        cuts[LANES] = states.len();
        if states.len() >= LEAST_SPLIT {
            for lane in 1..LANES {
                cuts[lane] = self.certain(&states[..states.len() / LANES * lane]).max(cuts[lane - 1]);
            }
        }
        cuts
    }
}
