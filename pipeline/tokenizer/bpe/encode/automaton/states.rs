//! The states: what of a prefix decides which tokens may still be its last.
//!
//! At a cut after which a token may have begun, the last token before it tells which tokens may follow ([`Followers`]);
//! the bases since then lead into that trie. The nodes that the open cuts have reached are the state. Cuts of which
//! nothing goes on are forgotten, and nodes from which the same goes on are one; what remains is small: about 11,000
//! states for 4,096 tokens, 140,000 for 32,000.
//!
//! Memory: about 80 bytes a state; their number is limited.

use super::super::hash::Numbers;
use super::super::rules::{NONE, Rules};
use super::followers::Followers;

/// The most states.
const MAX_STATES: usize = 1 << 21;
/// The most open cuts of all states together.
const MAX_OPEN: usize = 1 << 24;
/// The longest token: tries are walked by functions that call themselves once a base.
const MAX_BASES: usize = 2000;

/// The states, the start first.
pub struct States {
    /// Where each letter leads from a state.
    pub rows: Vec<[u32; 4]>,
    /// The last token of the prefix that ends in a state, and its length; of the start a token of one base.
    pub last: Vec<(u32, u32)>,
    /// The open cuts.
    pub open: Open,
}

/// How many bases before the end of the prefix its open cuts lie, by state, the earliest cut first.
#[derive(Debug, Clone, Default)]
pub struct Open {
    depths: Vec<u16>,
    /// Where those of a state end.
    ends: Vec<u32>,
}

impl Open {
    /// Those of a state; the last is always 0.
    pub fn of(&self, state: usize) -> &[u16] {
        let start = if state == 0 { 0 } else { self.ends[state - 1] };
        &self.depths[start as usize..self.ends[state] as usize]
    }
}

/// States that are known, and those among them from which no step was taken yet.
struct Builder {
    followers: Followers,
    numbers: Numbers,
    /// By state the nodes of its open cuts, the earliest cut first; then the last token.
    words: Vec<u32>,
    /// Where those of a state end.
    ends: Vec<usize>,
}

impl States {
    /// `None` where there would be too many, or a token is too long.
    pub fn new(rules: &Rules) -> Option<Self> {
        let texts = rules.texts(MAX_BASES);
        let stands = rules.standing();
        if texts.iter().any(Vec::is_empty) {
            return None;
        }
        let mut builder = Builder {
            followers: Followers::new(rules, &texts, &stands)?,
            numbers: Numbers::new(),
            words: Vec::new(),
            ends: Vec::new(),
        };
        let mut states = Self { rows: Vec::new(), last: Vec::new(), open: Open::default() };
        builder.number(&[NONE]);
        let (mut set, mut next) = (Vec::new(), Vec::new());
        while states.rows.len() < builder.ends.len() {
            let token = builder.read(states.rows.len(), &mut set);
            let bases = texts.get(token as usize).map_or(1, Vec::len);
            states.last.push((token, u32::try_from(bases).ok()?));
            states.open.push(&set, &builder.followers)?;
            states.rows.push([0, 1, 2, 3].map(|base| builder.step(&set, base, &mut next)));
            if builder.ends.len() > MAX_STATES || builder.words.len() > MAX_OPEN {
                return None;
            }
        }
        Some(states)
    }
}

impl Open {
    /// Adds those of the next state.
    fn push(&mut self, set: &[u32], followers: &Followers) -> Option<()> {
        for &node in set {
            self.depths.push(u16::try_from(followers.node(node).depth).ok()?);
        }
        self.ends.push(u32::try_from(self.depths.len()).ok()?);
        Some(())
    }
}

impl Builder {
    /// Reads the nodes of a state, with the one where a token may begin at its end; returns its last token.
    fn read(&self, state: usize, set: &mut Vec<u32>) -> u32 {
        let start = if state == 0 { 0 } else { self.ends[state - 1] };
        set.clear();
        set.extend_from_slice(&self.words[start..self.ends[state]]);
        let last = set.pop().unwrap_or(NONE);
        set.extend(self.followers.root(last));
        last
    }

    /// The state that `base` leads to.
    fn step(&mut self, set: &[u32], base: usize, next: &mut Vec<u32>) -> u32 {
        next.clear();
        let mut last = NONE;
        for &node in set {
            let link = self.followers.node(node).next[base];
            let token = match link.node() {
                Some(node) => {
                    next.push(node);
                    self.followers.node(node).token
                }
                None => link.end().unwrap_or(NONE),
            };
            last = last.min(token);
        }
        next.push(last);
        self.number(next)
    }

    /// The number of a state.
    fn number(&mut self, words: &[u32]) -> u32 {
        let Self { numbers, words: all, ends, .. } = self;
        let of = |state: u32| {
            let start = if state == 0 { 0 } else { ends[state as usize - 1] };
            &all[start..ends[state as usize]]
        };
        let number = numbers.of(words, |other| of(other) == words);
        if number as usize == ends.len() {
            all.extend_from_slice(words);
            ends.push(all.len());
        }
        number
    }
}
