//! A hash for keys of a few machine words that nobody chooses to collide, and numbers for things that recur.
//!
//! Memory: of [`Numbers`] 16 to 32 bytes a thing, and the things themselves elsewhere.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map with that hash.
pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// Multiplies and folds every word.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.write_u64(chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// Numbers of things that are kept elsewhere: 0, 1, 2, ... in the order in which they first came. At most `u32::MAX - 1`
/// fit.
#[derive(Debug)]
pub struct Numbers {
    /// A power of two, at most half of them taken: half a hash, and one more than the number; 0 for a free one.
    slots: Vec<(u32, u32)>,
    count: u32,
}

impl Numbers {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self { slots: vec![(0, 0); 1024], count: 0 }
    }

    /// The number of the thing of these words, which `same` compares with an earlier one; the next number if it is new.
    pub fn of(&mut self, words: &[u32], same: impl Fn(u32) -> bool) -> u32 {
        let hash = half_hash(words);
        let mut at = self.first(hash);
        loop {
            match self.slots[at] {
                (_, 0) => return self.add(hash, at),
                (other, number) if other == hash && same(number - 1) => return number - 1,
                _ => at = self.after(at),
            }
        }
    }

    fn first(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn add(&mut self, hash: u32, at: usize) -> u32 {
        self.count += 1;
        self.slots[at] = (hash, self.count);
        if self.count as usize * 2 > self.slots.len() {
            self.grow();
        }
        self.count - 1
    }

    fn grow(&mut self) {
        let free = vec![(0, 0); self.slots.len() * 2];
        for taken in std::mem::replace(&mut self.slots, free).into_iter().filter(|slot| slot.1 != 0) {
            let mut at = self.first(taken.0);
            while self.slots[at].1 != 0 {
                at = self.after(at);
            }
            self.slots[at] = taken;
        }
    }
}

fn half_hash(words: &[u32]) -> u32 {
    let mut mix = Mix::default();
    for &word in words {
        mix.write_u32(word);
    }
    u32::try_from(mix.finish() >> 32).unwrap_or_default()
}
