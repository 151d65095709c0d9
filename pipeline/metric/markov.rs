//! Order-k Markov models of DNA: the baselines that a language model must beat.
//!
//! An order-k model predicts a base from the k bases before it. [`Counts`] counts (k+1)-mers of the training bases in
//! one pass for all orders from 0 to a maximum; [`Baselines`] scores held-out bases with two models per order:
//!
//! - *plain*: the counts of order k and a pseudo-count: `p(b|c) = (n(cb) + s/4) / (n(c) + s)`;
//! - *blended*: the same with the blended model of order k-1 in the place of 1/4, so that rare contexts lean on
//!   shorter ones: `p(b|c) = (n(cb) + s * p(b|c without its oldest base)) / (n(c) + s)`.
//!
//! The strength `s` (in bases per context; `s/4` is the pseudo-count) is chosen for each order and model among the
//! powers of two from 1/4 to 4096: the one with the smallest leave-one-out code length of the training bases, which is
//! how well each training base is predicted by the counts of all the others. Held-out bases choose nothing.
//!
//! Input is upper-case `ACGT`. Any other byte is a boundary: it is neither predicted nor counted, and no context
//! crosses it or the ends of a piece. Fewer than k bases after a boundary, order k predicts with the longest context
//! there is, so all orders score the same bases.
//!
//! Memory: 16/3 * 4^(k+1) bytes for maximum order k, 90 MB for 11 (64 MiB of them the largest table), and as much
//! again as the order below while [`Counts::finish`] runs; see [`memory`]. Each parallel [`Counts`] has its own.

mod kmer;
mod table;

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use kmer::{Window, complement};
use table::Table;

/// The largest order that can be asked for: its largest table takes 64 GiB.
pub const LARGEST_ORDER: usize = 16;

/// The weights that a prior may have, in bases per context.
const STRENGTHS: [f64; 15] =
    [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// Cells that one task reads while strengths are chosen: enough to be worth a task, and a whole number of contexts.
const CELLS_PER_TASK: usize = 1 << 16;

/// Why a baseline could not be fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The order asked for is too large.
    #[error("cannot fit a Markov model of order {found}: expected an order from 0 to {LARGEST_ORDER}")]
    Order {
        /// The order asked for.
        found: usize,
    },
    /// Counts of unlike orders.
    #[error("cannot merge Markov counts up to order {right} into counts up to order {left}")]
    Merge {
        /// Maximum order of the counts that were to grow.
        left: usize,
        /// Maximum order of the counts that were to be added.
        right: usize,
    },
}

/// Bytes that [`Counts`] of a maximum order take.
pub const fn memory(max_order: usize) -> u64 {
    let mut bytes = 0;
    let mut order = 0;
    while order <= max_order {
        bytes += 4 << (2 * (order + 1));
        order += 1;
    }
    bytes
}

/// Counts of training bases after their contexts, for all orders up to a maximum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Until [`Self::finish`], the table of an order below the maximum holds only the bases that had no longer context.
    tables: Vec<Table>,
    bases: u64,
}

impl Counts {
    /// No counts, for orders 0 to `max_order`.
    pub fn new(max_order: usize) -> Result<Self, Error> {
        if max_order > LARGEST_ORDER {
            return Err(Error::Order { found: max_order });
        }
        Ok(Self { tables: (0..=max_order).map(Table::new).collect(), bases: 0 })
    }

    /// The largest order counted.
    pub fn max_order(&self) -> usize {
        self.tables.len() - 1
    }

    /// Bases counted so far; both strands count twice.
    pub fn bases(&self) -> u64 {
        self.bases
    }

    /// Counts the bases of a piece of sequence.
    pub fn observe(&mut self, piece: &[u8]) {
        self.observe_codes(piece.iter().map(|&byte| kmer::code(byte)));
    }

    /// Counts the bases of a piece and of its reverse complement.
    pub fn observe_both_strands(&mut self, piece: &[u8]) {
        self.observe(piece);
        self.observe_codes(piece.iter().rev().map(|&byte| kmer::code(byte).map(complement)));
    }

    fn observe_codes(&mut self, codes: impl Iterator<Item = Option<usize>>) {
        let max_order = self.max_order();
        let mut window = Window::default();
        for code in codes {
            if window.push(code) {
                let order = window.order(max_order);
                self.tables[order].add(window.cell(order), 1);
                self.bases += 1;
            }
        }
    }

    /// Adds counts made elsewhere. The order of merging does not matter.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        let (left, right) = (self.max_order(), other.max_order());
        if left != right {
            return Err(Error::Merge { left, right });
        }
        for (table, other) in self.tables.iter_mut().zip(&other.tables) {
            table.merge(other);
        }
        self.bases += other.bases;
        Ok(())
    }

    /// Completes the counts of the lower orders and chooses the strengths.
    pub fn finish(mut self) -> Baselines {
        for order in (1..self.tables.len()).rev() {
            let (below, from) = self.tables.split_at_mut(order);
            below[order - 1].add_marginals(&from[0]);
        }
        let (plain, blended) = choose_strengths(&self.tables);
        Baselines { tables: self.tables, plain, blended, bases: self.bases }
    }
}

/// Fitted models of order 0 to a maximum.
#[derive(Debug, Clone, PartialEq)]
pub struct Baselines {
    tables: Vec<Table>,
    /// Strength of the uniform prior, by order.
    plain: Vec<f64>,
    /// Strength of the order below, by order.
    blended: Vec<f64>,
    bases: u64,
}

impl Baselines {
    /// The largest order fitted.
    pub fn max_order(&self) -> usize {
        self.tables.len() - 1
    }

    /// Bases that the models were fitted on; both strands count twice.
    pub fn bases(&self) -> u64 {
        self.bases
    }

    /// The pseudo-count that each plain model adds to each of the four counts, by order.
    pub fn pseudo_counts(&self) -> Vec<f64> {
        self.plain.iter().map(|strength| strength / 4.0).collect()
    }

    /// How many bases the order below is worth in each context of a blended model, by order.
    pub fn blend_strengths(&self) -> &[f64] {
        &self.blended
    }

    /// Code lengths of all bases of a piece.
    pub fn score(&self, piece: &[u8]) -> Score {
        self.score_from(piece, 0)
    }

    /// Code lengths of the bases `from..` of a piece; those before are context only.
    ///
    /// A language model that does not predict the first token of a row is compared on the bases of the others.
    pub fn score_from(&self, piece: &[u8], from: usize) -> Score {
        let mut plain = vec![CodeLength::default(); self.tables.len()];
        let mut blended = plain.clone();
        let mut window = Window::default();
        let mut bases = 0;
        for (index, &byte) in piece.iter().enumerate() {
            if window.push(kmer::code(byte)) && index >= from {
                self.score_base(&window, &mut plain, &mut blended);
                bases += 1;
            }
        }
        let bits = |lengths: Vec<CodeLength>| lengths.into_iter().map(CodeLength::bits).collect();
        Score { bases, plain: bits(plain), blended: bits(blended) }
    }

    fn score_base(&self, window: &Window, plain: &mut [CodeLength], blended: &mut [CodeLength]) {
        let (mut by_plain, mut by_blended) = (0.25, 0.25);
        let longest = window.order(self.max_order());
        for order in 0..=self.max_order() {
            if order <= longest {
                let seen = self.tables[order].seen(window.cell(order));
                by_plain = seen.probability(0.25, self.plain[order]);
                by_blended = seen.probability(by_blended, self.blended[order]);
            }
            plain[order].add(by_plain);
            blended[order].add(by_blended);
        }
    }
}

/// A sum of code lengths that takes few logarithms: of a product of probabilities, before it becomes too small.
#[derive(Debug, Clone, Copy)]
struct CodeLength {
    bits: f64,
    product: f64,
}

impl Default for CodeLength {
    fn default() -> Self {
        Self { bits: 0.0, product: 1.0 }
    }
}

impl CodeLength {
    fn add(&mut self, probability: f64) {
        self.product *= probability;
        if self.product < 1e-100 {
            *self = Self { bits: self.bits(), product: 1.0 };
        }
    }

    fn bits(self) -> f64 {
        self.bits - self.product.log2()
    }
}

/// Code lengths of scored bases, in bits, by order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Bases scored, the same ones by every model.
    pub bases: u64,
    /// Bits by the plain model of each order.
    pub plain: Vec<f64>,
    /// Bits by the blended model of each order.
    pub blended: Vec<f64>,
}

impl Score {
    /// Nothing scored yet, for orders 0 to `max_order`.
    pub fn new(max_order: usize) -> Self {
        Self { bases: 0, plain: vec![0.0; max_order + 1], blended: vec![0.0; max_order + 1] }
    }

    /// Adds the code lengths of other bases, order by order.
    pub fn merge(&mut self, other: &Self) {
        self.bases += other.bases;
        add_each(&mut self.plain, &other.plain);
        add_each(&mut self.blended, &other.blended);
    }

    /// Bits per base of the plain model of each order; `None` when no base was scored.
    pub fn plain_bits_per_base(&self) -> Option<Vec<f64>> {
        self.per_base(&self.plain)
    }

    /// Bits per base of the blended model of each order; `None` when no base was scored.
    pub fn blended_bits_per_base(&self) -> Option<Vec<f64>> {
        self.per_base(&self.blended)
    }

    fn per_base(&self, bits: &[f64]) -> Option<Vec<f64>> {
        (self.bases > 0).then(|| bits.iter().map(|bits| bits / self.bases as f64).collect())
    }
}

fn add_each(sums: &mut [f64], terms: &[f64]) {
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
}

/// The strengths of the plain and of the blended models, by order.
fn choose_strengths(tables: &[Table]) -> (Vec<f64>, Vec<f64>) {
    let (mut plain, mut blended) = (Vec::new(), Vec::new());
    let mut below = Prior::Uniform;
    for table in tables {
        plain.push(best_strength(table, &Prior::Uniform));
        let strength = best_strength(table, &below);
        blended.push(strength);
        if blended.len() < tables.len() {
            below = Prior::Order(left_out_probabilities(table, &below, strength));
        }
    }
    (plain, blended)
}

/// What a model believes of a base before it looks at the counts of its order.
enum Prior {
    /// A quarter each.
    Uniform,
    /// The blended model of the order below, one probability for each of its cells, with one occurrence left out.
    Order(Vec<f64>),
}

impl Prior {
    fn of(&self, cell: usize) -> f64 {
        match self {
            Self::Uniform => 0.25,
            Self::Order(probabilities) => probabilities[cell & (probabilities.len() - 1)],
        }
    }
}

/// The strength with the smallest leave-one-out code length; the smaller one of equals.
fn best_strength(table: &Table, prior: &Prior) -> f64 {
    let mut bits = [0.0; STRENGTHS.len()];
    // Sums are added in the order of the table, so that threads do not change the last digits.
    for task in tasks(table).map(|cells| left_out_bits(table, prior, cells)).collect::<Vec<_>>() {
        add_each(&mut bits, &task);
    }
    let best = (0..bits.len()).min_by(|&a, &b| bits[a].total_cmp(&bits[b]));
    STRENGTHS[best.unwrap_or(0)]
}

/// The leave-one-out code length of some cells, in bits, with each strength.
fn left_out_bits(table: &Table, prior: &Prior, cells: Range<usize>) -> [f64; STRENGTHS.len()] {
    let mut bits = [0.0; STRENGTHS.len()];
    for cell in cells {
        let seen = table.seen(cell);
        if seen.base == 0 {
            continue;
        }
        let (times, left, prior) = (seen.base as f64, seen.leave_one_out(), prior.of(cell));
        for (bits, strength) in bits.iter_mut().zip(STRENGTHS) {
            *bits -= times * left.probability(prior, strength).log2();
        }
    }
    bits
}

/// The blended probability of each cell that was seen, with one of its occurrences left out.
fn left_out_probabilities(table: &Table, prior: &Prior, strength: f64) -> Vec<f64> {
    let of = |cell| {
        let seen = table.seen(cell);
        if seen.base == 0 { 0.0 } else { seen.leave_one_out().probability(prior.of(cell), strength) }
    };
    (0..table.len()).into_par_iter().map(of).collect()
}

fn tasks(table: &Table) -> impl IndexedParallelIterator<Item = Range<usize>> {
    let cells = table.len();
    (0..cells.div_ceil(CELLS_PER_TASK))
        .into_par_iter()
        .map(move |task| task * CELLS_PER_TASK..cells.min((task + 1) * CELLS_PER_TASK))
}

#[cfg(test)]
mod tests;
