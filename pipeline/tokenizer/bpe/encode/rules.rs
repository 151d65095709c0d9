//! The merges among A, C, G and T, and which tokens may stand side by side.
//!
//! Tokens are numbered in the order of their making: 0 to 3 are the letters, in the order of [`LETTERS`], 4 is the result
//! of the first merge. A sequence of tokens is the encoding of its text exactly when every two neighbours are the
//! encoding of theirs.
//!
//! Two tokens are no neighbours when something merges across the gap: let `left` be the left token or a part of it that
//! ends at the gap, made into `p` by its later merge, and `right` likewise with `q`; the pair is merged first when its
//! result comes before `p`, and before `q` or as `q` (of overlapping equal pairs the left one is merged). So each pair
//! closes, to every token that ends in `left` while it stands, a [`Rules::closed`] set: `right` itself and what begins
//! with it and was made after the pair. In the order of [`Beginnings`] such a set is a range.
//!
//! Memory: about 60 bytes a token.

use std::hash::BuildHasherDefault;
use std::ops::Range;

use super::hash::Map;

/// The letters in the order of their numbers, which is that of bits 1 and 2 of their bytes.
pub const LETTERS: [u8; 4] = *b"ACTG";
/// No token, no node.
pub const NONE: u32 = u32::MAX;

/// The number of a letter.
pub const fn letter(byte: u8) -> usize {
    (byte >> 1 & 3) as usize
}

/// Merges by number of their result.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What a token was made of; a letter of itself.
    parts: Vec<[u32; 2]>,
    /// By left part, the results in their order.
    by_left: Vec<Vec<u32>>,
    results: Map<(u32, u32), u32>,
}

impl Rules {
    /// From pairs in the order of merging; `None` when a part is made after it is used, or a pair is used twice.
    pub fn new(merges: &[[u32; 2]]) -> Option<Self> {
        let mut results = Map::with_capacity_and_hasher(merges.len(), BuildHasherDefault::default());
        let mut parts: Vec<[u32; 2]> = (0..4).map(|letter| [letter; 2]).collect();
        let mut by_left = vec![Vec::new(); merges.len() + 4];
        for (token, &[left, right]) in (4..).zip(merges) {
            if left >= token || right >= token || results.insert((left, right), token).is_some() {
                return None;
            }
            parts.push([left, right]);
            by_left[left as usize].push(token);
        }
        Some(Self { parts, by_left, results })
    }

    /// Number of tokens.
    pub const fn len(&self) -> usize {
        self.parts.len()
    }

    /// All tokens, in the order of their making.
    pub fn tokens(&self) -> Range<u32> {
        0..u32::try_from(self.len()).unwrap_or(NONE)
    }

    /// The two parts of a token that is no letter.
    pub fn parts(&self, token: u32) -> Option<[u32; 2]> {
        (token >= 4).then(|| self.parts[token as usize])
    }

    /// The tokens that are made of `left` and something after it, in the order of their making.
    pub fn made_of(&self, left: u32) -> &[u32] {
        &self.by_left[left as usize]
    }

    fn result(&self, left: u32, right: u32) -> u32 {
        self.results.get(&(left, right)).copied().unwrap_or(NONE)
    }

    /// Whether the text of a token is encoded as that token, by token. Where a part never comes to be, neither does it.
    pub fn standing(&self) -> Vec<bool> {
        let mut standing = vec![true; self.len()];
        for token in self.tokens() {
            if let Some([left, right]) = self.parts(token) {
                let parts = standing[left as usize] && standing[right as usize];
                standing[token as usize] = parts && self.apart(left, right, token);
            }
        }
        standing
    }

    /// Whether no merge before `limit` crosses from `left` to `right`.
    ///
    /// Their merges are undone from the last on: what then faces the other across the gap stood there until that merge,
    /// and a pair that is merged earlier would have been merged across.
    fn apart(&self, mut left: u32, mut right: u32, mut limit: u32) -> bool {
        loop {
            if self.result(left, right) < limit {
                return false;
            }
            let later = left.max(right);
            if later < 4 {
                return true;
            }
            if left > right {
                limit = later;
                left = self.parts[left as usize][1];
            } else {
                // Of overlapping equal pairs the left one is merged, which is the one across the gap.
                limit = later + 1;
                right = self.parts[right as usize][0];
            }
        }
    }

    /// The letters of every token, as numbers; empty for one that is longer than `most`.
    pub fn texts(&self, most: usize) -> Vec<Vec<u8>> {
        let mut texts: Vec<Vec<u8>> = (0..4).map(|letter| vec![letter]).collect();
        for &[left, right] in &self.parts[4..] {
            let [left, right] = [left, right].map(|part| &texts[part as usize]);
            let fits = !left.is_empty() && !right.is_empty() && left.len() + right.len() <= most;
            texts.push(if fits { [&left[..], right].concat() } else { Vec::new() });
        }
        texts
    }
}

/// Tokens in an order in which those that begin with one another lie together: a token, then what was made of it as the
/// left part, the latest first, each followed by its own.
pub struct Beginnings {
    order: Vec<u32>,
    /// Place in the order, and how many begin with the token, itself included.
    places: Vec<(u32, u32)>,
}

impl Beginnings {
    /// Of the tokens that stand; the parts of such a token stand too.
    pub fn new(rules: &Rules, stands: &[bool]) -> Self {
        let mut places: Vec<(u32, u32)> = stands.iter().map(|&stands| (0, u32::from(stands))).collect();
        for token in rules.tokens().rev() {
            if let Some([left, _]) = rules.parts(token) {
                places[left as usize].1 += places[token as usize].1;
            }
        }
        let mut beginnings =
            Self { order: vec![NONE; stands.iter().filter(|&&stands| stands).count()], places };
        beginnings.place([0, 1, 2, 3].iter(), 0);
        for token in rules.tokens().filter(|&token| stands[token as usize]) {
            let at = beginnings.places[token as usize].0;
            beginnings.order[at as usize] = token;
            beginnings.place(rules.made_of(token).iter().rev(), at + 1);
        }
        beginnings
    }

    /// Places tokens one after the other, with room for what begins with each.
    fn place<'a>(&mut self, tokens: impl Iterator<Item = &'a u32>, mut at: u32) {
        for &token in tokens {
            self.places[token as usize].0 = at;
            at += self.places[token as usize].1;
        }
    }

    /// The tokens that may not follow the left part of `merge`, while that stands, for its sake: what begins with its
    /// right part, unless that was made into something longer before. A range of the order.
    pub fn closed(&self, rules: &Rules, merge: u32) -> Range<u32> {
        let right = rules.parts[merge as usize][1];
        let (from, count) = self.places[right as usize];
        let made = rules.made_of(right);
        let earliest = made[made.partition_point(|&made| made < merge)..].first();
        let to = earliest.map_or(from + count.min(1), |&made| {
            let (from, count) = self.places[made as usize];
            from + count
        });
        from..to
    }

    /// The tokens of a range of the order.
    pub fn tokens(&self, range: Range<u32>) -> &[u32] {
        &self.order[range.start as usize..range.end as usize]
    }
}
