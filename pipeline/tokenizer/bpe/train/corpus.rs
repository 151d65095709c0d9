//! The pieces to train on, one pass of the whole corpus per merge.
//!
//! Tokens are `u16`; `SEPARATOR` stands between pieces. Memory: 2 bytes a base.

use std::collections::HashMap;

use crate::observer::Stop;
use crate::tokenizer::Error;

const SEPARATOR: u16 = u16::MAX;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most merges.
    pub merges: usize,
    /// The longest token, in bases.
    pub max_length: u32,
    /// The rarest pair that is merged.
    pub min_frequency: u64,
}

/// Pieces as tokens.
#[derive(Debug)]
pub struct Corpus {
    tokens: Vec<u16>,
    bases: u64,
    pieces: u64,
    reverse_complement: bool,
}

type Counts = HashMap<(u16, u16), u64>;

impl Corpus {
    pub const fn new(reverse_complement: bool) -> Self {
        Self { tokens: Vec::new(), bases: 0, pieces: 0, reverse_complement }
    }

    pub const fn bases(&self) -> u64 {
        self.bases
    }

    pub const fn pieces(&self) -> u64 {
        self.pieces
    }

    pub fn push(&mut self, piece: &[u8]) {
        self.pieces += 1;
        for run in piece.split(|&base| code(base) == SEPARATOR).filter(|run| !run.is_empty()) {
            self.bases += run.len() as u64;
            self.tokens.extend(run.iter().map(|&base| code(base)));
            self.tokens.push(SEPARATOR);
            if self.reverse_complement {
                self.tokens.extend(run.iter().rev().map(|&base| 3 - code(base)));
                self.tokens.push(SEPARATOR);
            }
        }
    }

    /// The merges in order; ids are 0 to 3 for A C G T, then 4, 5, ... for the results.
    pub fn learn(
        mut self,
        limits: &Limits,
        _threads: usize,
        progress: &mut dyn FnMut(u64, u64),
        stop: &Stop,
    ) -> Result<Vec<(u32, u32)>, Error> {
        let mut lengths = vec![1_u32; 4];
        let mut merges = Vec::new();
        let mut counts = self.count();
        while merges.len() < limits.merges {
            if stop.is_requested() {
                return Err(Error::Stopped);
            }
            let Some(pair) = best(&counts, &lengths, limits) else { break };
            let Ok(id) = u16::try_from(lengths.len()) else { break };
            self.merge(pair, id, &mut counts);
            lengths.push(lengths[usize::from(pair.0)] + lengths[usize::from(pair.1)]);
            merges.push((pair.0.into(), pair.1.into()));
            progress(merges.len() as u64, limits.merges as u64);
        }
        Ok(merges)
    }

    fn count(&self) -> Counts {
        let mut counts = Counts::new();
        for pair in self.tokens.windows(2).filter(|pair| !pair.contains(&SEPARATOR)) {
            *counts.entry((pair[0], pair[1])).or_default() += 1;
        }
        counts
    }

    /// Replaces `pair` by `id` from the left, in place, and keeps `counts` true.
    fn merge(&mut self, pair: (u16, u16), id: u16, counts: &mut Counts) {
        let (mut read, mut write) = (0, 0);
        while read < self.tokens.len() {
            let here = self.tokens[read];
            let merges = here == pair.0 && self.tokens.get(read + 1) == Some(&pair.1);
            if merges {
                if write > 0 {
                    change(counts, (self.tokens[write - 1], pair.0), (self.tokens[write - 1], id));
                }
                if let Some(&next) = self.tokens.get(read + 2) {
                    change(counts, (pair.1, next), (id, next));
                }
            }
            self.tokens[write] = if merges { id } else { here };
            read += 1 + usize::from(merges);
            write += 1;
        }
        self.tokens.truncate(write);
        counts.remove(&pair);
    }
}

fn change(counts: &mut Counts, old: (u16, u16), new: (u16, u16)) {
    if old.0 == SEPARATOR || old.1 == SEPARATOR {
        return;
    }
    if let Some(count) = counts.get_mut(&old) {
        *count -= 1;
    }
    *counts.entry(new).or_default() += 1;
}

/// The most frequent pair that is short enough, of equals the smaller.
fn best(counts: &Counts, lengths: &[u32], limits: &Limits) -> Option<(u16, u16)> {
    let length = |pair: &(u16, u16)| lengths[usize::from(pair.0)] + lengths[usize::from(pair.1)];
    let allowed = counts
        .iter()
        .filter(|(pair, count)| **count >= limits.min_frequency && length(pair) <= limits.max_length);
    allowed.max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0))).map(|(pair, _)| *pair)
}

/// 0 to 3 for A C G T, else the separator.
const fn code(base: u8) -> u16 {
    match base {
        b'A' => 0,
        b'C' => 1,
        b'G' => 2,
        b'T' => 3,
        _ => SEPARATOR,
    }
}
