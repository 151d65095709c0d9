//! How often each token was seen beside the pair of a merge. Memory: 4 bytes a token.

use super::SEPARATOR;

pub struct Histogram {
    counts: Vec<u32>,
    seen: Vec<u16>,
}

impl Histogram {
    pub fn new(tokens: usize) -> Self {
        Self { counts: vec![0; tokens], seen: Vec::new() }
    }

    /// Counts a token; separators are none.
    #[inline]
    pub fn count(&mut self, token: u16) {
        if token != SEPARATOR {
            self.add(token, 1);
        }
    }

    #[inline]
    fn add(&mut self, token: u16, more: u32) {
        let count = &mut self.counts[usize::from(token)];
        if *count == 0 {
            self.seen.push(token);
        }
        *count += more;
    }

    pub fn get(&self, token: u16) -> u32 {
        self.counts[usize::from(token)]
    }

    /// The tokens that were counted.
    pub fn seen(&self) -> &[u16] {
        &self.seen
    }

    /// Hands out what was counted, and forgets it.
    pub fn drain(&mut self, mut each: impl FnMut(u16, u32)) {
        for token in self.seen.drain(..) {
            each(token, std::mem::take(&mut self.counts[usize::from(token)]));
        }
    }

    /// Adds what was counted to another.
    pub fn add_to(&self, other: &mut Self) {
        self.seen.iter().for_each(|&token| other.add(token, self.get(token)));
    }

    /// Forgets what was counted.
    pub fn clear(&mut self) {
        self.drain(|_, _| {});
    }
}
