//! Counts of one order: a cell for each base after each context.

use std::collections::BTreeMap;

use super::kmer::mask;

/// 4^(k+1) counts in 4 bytes each; the four bases of a context are neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// The lower 32 bits of each count.
    cells: Vec<u32>,
    /// The upper 32 bits of the few counts that have any.
    carries: BTreeMap<usize, u64>,
}

/// How often a base followed its context, and how often the context had any base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) base: u64,
    pub(super) context: u64,
}

impl Seen {
    /// The same without one occurrence, of which there must be one.
    pub(super) fn leave_one_out(self) -> Self {
        Self { base: self.base - 1, context: self.context - 1 }
    }

    /// The probability of the base, where `prior` weighs as much as `strength` occurrences of the context.
    pub(super) fn probability(self, prior: f64, strength: f64) -> f64 {
        (self.base as f64 + strength * prior) / (self.context as f64 + strength)
    }
}

impl Table {
    /// An empty table of order `order`.
    pub(super) fn new(order: usize) -> Self {
        Self { cells: vec![0; mask(order) + 1], carries: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn add(&mut self, cell: usize, count: u64) {
        let sum = u64::from(self.cells[cell]) + count;
        #[expect(clippy::cast_possible_truncation, reason = "the upper half goes to the carries")]
        let low = sum as u32;
        self.cells[cell] = low;
        if sum >> 32 > 0 {
            *self.carries.entry(cell).or_default() += sum >> 32;
        }
    }

    pub(super) fn count(&self, cell: usize) -> u64 {
        let high = if self.carries.is_empty() { 0 } else { self.carries.get(&cell).copied().unwrap_or(0) };
        u64::from(self.cells[cell]) | high << 32
    }

    pub(super) fn seen(&self, cell: usize) -> Seen {
        let first = cell & !3;
        Seen { base: self.count(cell), context: (first..first + 4).map(|cell| self.count(cell)).sum() }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        (0..other.len()).for_each(|cell| self.add(cell, other.count(cell)));
    }

    /// Adds the counts of the order above, whose cells with the same latest bases fall together.
    pub(super) fn add_marginals(&mut self, above: &Self) {
        let last = self.len() - 1;
        (0..above.len()).for_each(|cell| self.add(cell & last, above.count(cell)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_beyond_32_bits() {
        let mut table = Table::new(1);
        table.add(5, u64::from(u32::MAX));
        table.add(5, 2);
        table.add(6, 7);
        assert_eq!((table.count(5), table.count(6)), ((1 << 32) + 1, 7));
        let mut twice = table.clone();
        twice.merge(&table);
        assert_eq!(twice.seen(5), Seen { base: (2 << 32) + 2, context: (2 << 32) + 16 });
        let mut below = Table::new(0);
        below.add_marginals(&twice);
        assert_eq!((below.count(1), below.count(2)), ((2 << 32) + 2, 14));
    }

    #[test]
    fn count_may_itself_exceed_32_bits() {
        let mut table = Table::new(0);
        table.add(0, 3 << 33 | 9);
        assert_eq!(table.count(0), 3 << 33 | 9);
    }
}
