//! BPE of A, C, G and T as a finite automaton: one table look-up a base, no search, no going back.
//!
//! Let the *last token* of a prefix be the last token of its encoding. The encoding of a text is read off backwards: its
//! last token, then the last token of what stands before that, and so on. So it is enough to know the last token of
//! every prefix, and that is a function of a finite state: which tokens have begun at earlier cuts (nodes of the trie of
//! tokens), and for each of them which ends its left neighbour allows. Cuts that no continuation can use are left out,
//! and neighbours that allow the same ends are one; what remains is small: about 12,000 states for 4,096 tokens.
//!
//! Memory: 16 bytes a state and more and the trie while it is built; one state number a base while a text is encoded, in blocks.

use super::hash::Map;
use super::rules::{Matrix, NONE, Rules, letter};

/// The most states; a vocabulary that needs more is encoded otherwise.
const MAX_STATES: usize = 1 << 16;
/// The most tokens: the rows of neighbours grow with the square.
const MAX_TOKENS: usize = 17_000;
/// Parts of a text that are walked side by side, so that none waits for the memory of another.
const LANES: usize = 4;
/// Shorter texts are walked alone.
const LEAST_SPLIT: usize = 256;
/// Bases whose states are kept at once, unless no cut is certain for longer.
const BLOCK: usize = 1 << 14;

/// Where each letter leads from a state.
type Row = [u16; 4];

/// The last token of the prefix that ends in a state.
#[derive(Debug, Clone, Copy)]
struct Last {
    id: u32,
    bases: u32,
}

/// The automaton. State 0 is the start, before any base.
#[derive(Debug, Clone)]
pub struct Automaton {
    rows: Vec<Row>,
    last: Vec<Last>,
    /// How many bases before the end of the prefix the earliest and the latest open token begin, by state.
    open: Vec<Box<[u32]>>,
}

/// A token that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Begun {
    node: u32,
    /// What stands before it; `NONE` at the start of the text.
    after: u32,
    /// The ends that are allowed, as a number that is the same for the same ends.
    ends: u64,
}

/// A node of the trie of tokens.
#[derive(Debug, Clone, Copy)]
struct Node {
    next: [u32; 4],
    token: u32,
    /// Tokens that go on from here, as a range of the sorted tokens.
    below: (u32, u32),
    depth: u32,
}

struct Builder<'a> {
    nodes: Vec<Node>,
    /// Sorted place of a token; by number.
    place: Vec<u32>,
    neighbours: Matrix,
    /// Numbers of sets of ends that are larger than a word.
    large: Map<(u32, Vec<u64>), u64>,
    states: Map<Vec<Begun>, u32>,
    sets: Vec<Vec<Begun>>,
    ids: &'a [u32],
    rules: &'a Rules,
}

impl Automaton {
    /// From merges; `ids` are the ids of the rules' tokens. `None` where it would be too large.
    pub fn new(rules: &Rules, ids: &[u32]) -> Option<Self> {
        if rules.len() > MAX_TOKENS {
            return None;
        }
        let mut builder = Builder::new(rules, ids);
        let mut automaton = Self { rows: Vec::new(), last: Vec::new(), open: Vec::new() };
        while automaton.rows.len() < builder.sets.len() {
            let set = builder.sets[automaton.rows.len()].clone();
            automaton.open.push(set.iter().map(|begun| builder.nodes[begun.node as usize].depth).collect());
            automaton.last.push(builder.last(&set));
            let next = [0, 1, 2, 3].map(|base| builder.step(&set, base));
            if builder.sets.len() > MAX_STATES {
                return None;
            }
            automaton.rows.push(next.map(|state| u16::try_from(state).unwrap_or_default()));
        }
        Some(automaton)
    }

    /// Appends the ids of `run`, which is of A, C, G and T only.
    pub fn encode_into(&self, run: &[u8], scratch: &mut Vec<u16>, ids: &mut Vec<u32>) {
        let mut block = BLOCK;
        let (mut cut, mut state) = (0, 0);
        scratch.clear();
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
    fn walk(&self, state: u16, bases: &[u8], states: &mut Vec<u16>) -> u16 {
        let first = states.len();
        states.resize(first + bases.len(), 0);
        let states = &mut states[first..];
        if bases.len() < LEAST_SPLIT {
            self.walk_alone(state, bases, states);
        } else {
            self.walk_abreast(state, bases, states);
        }
        states.last().copied().unwrap_or(state)
    }

    fn walk_alone(&self, mut state: u16, bases: &[u8], states: &mut [u16]) {
        for (&base, after) in bases.iter().zip(states) {
            state = self.rows[usize::from(state)][letter(base)];
            *after = state;
        }
    }

    /// Walks parts of the text side by side, each as if it began the text; then every part is walked again from the
    /// true state until the two agree, which takes some tens of bases.
    fn walk_abreast(&self, state: u16, bases: &[u8], states: &mut [u16]) {
        let length = bases.len() / LANES;
        let mut lanes = [state, 0, 0, 0];
        let parts: [&[u8]; LANES] = std::array::from_fn(|lane| &bases[lane * length..][..length]);
        let (head, tail) = states.split_at_mut(LANES * length);
        let mut outs = head.chunks_exact_mut(length);
        if let [Some(a), Some(b), Some(c), Some(d)] = [(); LANES].map(|()| outs.next()) {
            for at in 0..length {
                for (lane, out) in [&mut *a, &mut *b, &mut *c, &mut *d].into_iter().enumerate() {
                    lanes[lane] = self.rows[usize::from(lanes[lane])][letter(parts[lane][at])];
                    out[at] = lanes[lane];
                }
            }
        }
        for lane in 1..LANES {
            let from = lane * length;
            self.mend(head[from - 1], &bases[from..LANES * length], &mut head[from..]);
        }
        let last = head.last().copied().unwrap_or(state);
        self.walk_alone(last, &bases[LANES * length..], tail);
    }

    /// Walks from `state` until the states are what they are already.
    fn mend(&self, mut state: u16, bases: &[u8], states: &mut [u16]) {
        for (&base, after) in bases.iter().zip(states) {
            state = self.rows[usize::from(state)][letter(base)];
            if *after == state {
                return;
            }
            *after = state;
        }
    }

    /// A cut that every continuation keeps: where the ways back from all open tokens meet; 0 when they do not.
    fn certain(&self, states: &[u16]) -> usize {
        let Some(&state) = states.last() else { return 0 };
        let mut cuts: Vec<usize> = Vec::new();
        for &before in &*self.open[usize::from(state)] {
            match states.len().checked_sub(before as usize) {
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
                    let last = self.last[usize::from(states[*latest - 1])];
                    *latest -= last.bases as usize;
                }
            }
        }
    }

    /// Appends the ids of a text from the states after its bases, of which the last is a cut: backwards, from several
    /// certain cuts side by side.
    fn read_off(&self, states: &[u16], ids: &mut Vec<u32>) {
        let first = ids.len();
        ids.resize(first + states.len(), 0);
        let out = &mut ids[first..];
        let cuts = self.cuts(states);
        let (mut reads, mut writes) = ([0; LANES], [0; LANES]);
        reads.copy_from_slice(&cuts[1..]);
        writes.copy_from_slice(&cuts[1..]);
        let step = |lane: usize, reads: &mut [usize; LANES], writes: &mut [usize; LANES], out: &mut [u32]| {
            let last = self.last[usize::from(states[reads[lane] - 1])];
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
    fn cuts(&self, states: &[u16]) -> [usize; LANES + 1] {
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

impl<'a> Builder<'a> {
    fn new(rules: &'a Rules, ids: &'a [u32]) -> Self {
        let tokens = (0..).take(rules.len()).filter(|&token| rules.stands(token));
        let mut texts: Vec<(Vec<u8>, u32)> = tokens.map(|token| (rules.text(token), token)).collect();
        texts.sort_unstable();
        let sorted: Vec<u32> = texts.iter().map(|(_, token)| *token).collect();
        let mut place = vec![NONE; rules.len()];
        for (at, &token) in (0..).zip(&sorted) {
            place[token as usize] = at;
        }
        let neighbours = rules.neighbours(&sorted);
        let start = vec![Begun { node: 0, after: NONE, ends: 0 }];
        Self {
            nodes: grow_trie(&texts),
            place,
            neighbours,
            large: Map::default(),
            states: Map::from_iter([(start.clone(), 0)]),
            sets: vec![start],
            ids,
            rules,
        }
    }

    /// The last token of a state, which is what its token that has no base yet stands after.
    fn last(&self, set: &[Begun]) -> Last {
        let token = set.iter().find(|begun| begun.node == 0).map_or(NONE, |begun| begun.after);
        match self.ids.get(token as usize) {
            Some(&id) => Last { id, bases: u32::try_from(self.rules.text(token).len()).unwrap_or(NONE) },
            None => Last { id: 0, bases: 1 },
        }
    }

    /// The state that `base` leads to.
    fn step(&mut self, set: &[Begun], base: usize) -> u32 {
        let mut next = Vec::with_capacity(set.len() + 1);
        let mut last = NONE;
        for begun in set {
            let node = self.nodes[begun.node as usize].next[base];
            if node == NONE {
                continue;
            }
            let token = self.nodes[node as usize].token;
            if token != NONE && self.may_follow(begun.after, token) {
                last = token;
            }
            let ends = self.ends(node, begun.after);
            if ends != 0 {
                next.push(Begun { node, after: begun.after, ends });
            }
        }
        next.push(Begun { node: 0, after: last, ends: u64::from(last) + 1 });
        self.number(next)
    }

    fn may_follow(&self, after: u32, token: u32) -> bool {
        after == NONE || self.neighbours.get(after, self.place[token as usize] as usize)
    }

    /// Which of the tokens that go on from `node` may follow: their bits, or the number of the set of bits; 0 for none.
    fn ends(&mut self, node: u32, after: u32) -> u64 {
        let (from, to) = self.nodes[node as usize].below;
        let (from, count) = (from as usize, (to - from) as usize);
        let bits = |at: usize| {
            let count = (count - at).min(64);
            if after == NONE {
                u64::MAX >> (64 - count)
            } else {
                self.neighbours.bits(after, from + at, count)
            }
        };
        if count == 0 {
            return 0;
        }
        if count <= 64 {
            return bits(0);
        }
        let set: Vec<u64> = (0..count).step_by(64).map(bits).collect();
        if set.iter().all(|&word| word == 0) {
            return 0;
        }
        let number = self.large.len() as u64 + 1;
        *self.large.entry((node, set)).or_insert(number)
    }

    /// The number of a state; states that differ only in neighbours with the same ends are one.
    fn number(&mut self, set: Vec<Begun>) -> u32 {
        let key = set
            .iter()
            .map(|begun| if begun.node == 0 { *begun } else { Begun { after: 0, ..*begun } })
            .collect();
        let new = u32::try_from(self.sets.len()).unwrap_or(NONE);
        let number = *self.states.entry(key).or_insert(new);
        if number == new {
            self.sets.push(set);
        }
        number
    }
}

/// The trie of sorted texts.
fn grow_trie(texts: &[(Vec<u8>, u32)]) -> Vec<Node> {
    let node = |depth, at| Node { next: [NONE; 4], token: NONE, below: (at, at), depth };
    let mut nodes = vec![node(0, 0)];
    for (at, (text, token)) in (0..).zip(texts) {
        let mut here = 0;
        for (depth, &base) in (1..).zip(text) {
            nodes[here].below.1 = at + 1;
            let mut next = nodes[here].next[usize::from(base)];
            if next == NONE {
                next = u32::try_from(nodes.len()).unwrap_or(NONE);
                nodes[here].next[usize::from(base)] = next;
                nodes.push(node(depth, at));
            }
            here = next as usize;
        }
        nodes[here].token = *token;
        nodes[here].below = (at + 1, at + 1);
    }
    nodes
}
