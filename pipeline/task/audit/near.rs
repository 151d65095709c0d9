//! Test examples most of whose k-mers occur in training examples, on either strand.

use std::collections::HashSet;

use rayon::prelude::*;
use serde::Serialize;

use super::super::{Dataset, Example, Part};
use super::LEAK;
use crate::sequence::kmer::{Sample, for_each_hash};

const K: usize = 31;
/// Bytes that a k-mer takes in the set of them.
const BYTES: u64 = 16;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Near {
    /// Bases of a k-mer.
    pub k: usize,
    /// One k-mer in how many was looked at.
    pub one_in: u64,
    /// Test examples with more than half of their k-mers in training examples.
    pub examples: u64,
    /// Of each class.
    pub by_class: Vec<u64>,
    /// Test examples that are too short to tell.
    pub too_short: u64,
}

/// Counts them, and says of each test example which share of its k-mers is in the training set; `None` without bases.
pub fn near(dataset: &Dataset, memory: u64) -> Option<(Near, Vec<f64>)> {
    let bases = |example: &Example| dataset.bases(example).map_or(0, |bases| bases.len() as u64);
    let all: u64 = dataset.part(Part::Train).iter().map(bases).sum();
    if all == 0 {
        return None;
    }
    let sample = Sample::within(memory, all, BYTES);
    let mut known = HashSet::new();
    for example in dataset.part(Part::Train) {
        for_each_hash(dataset.bases(example).unwrap_or_default(), K, |_, hash| {
            if sample.takes(hash) {
                known.insert(hash);
            }
        });
    }
    let share = |example: &Example| contained(dataset.bases(example).unwrap_or_default(), &known, sample);
    let shares: Vec<Option<f64>> = dataset.part(Part::Test).par_iter().map(share).collect();
    let mut by_class = vec![0; dataset.classes.len()];
    for (example, share) in dataset.part(Part::Test).iter().zip(&shares) {
        by_class[example.class as usize] += u64::from(share.is_some_and(|share| share > LEAK));
    }
    let too_short = shares.iter().filter(|share| share.is_none()).count() as u64;
    let examples = by_class.iter().sum();
    let near = Near { k: K, one_in: sample.scale(), examples, by_class, too_short };
    Some((near, shares.into_iter().map(|share| share.unwrap_or(0.0)).collect()))
}

/// The share of k-mers that are known; `None` without a k-mer.
fn contained(bases: &[u8], known: &HashSet<u64>, sample: Sample) -> Option<f64> {
    let (mut all, mut found) = (0_u64, 0_u64);
    for_each_hash(bases, K, |_, hash| {
        if sample.takes(hash) {
            all += 1;
            found += u64::from(known.contains(&hash));
        }
    });
    (all > 0).then(|| found as f64 / all as f64)
}
