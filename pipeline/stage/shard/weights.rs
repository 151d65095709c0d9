//! Loss weights of tokens: soft-masked bases count less, and a token weighs what its bases weigh on average. Memory: the
//! soft-masked intervals (24 bytes each) and the names of the records.

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::records::{RECORDS, read_records};
use super::super::tokenize::Document;
use super::super::tokenizer::read_masks;
use super::super::{Error, Task};
use crate::artifact::Artifact;
use crate::shard::LossWeights;
use crate::tokenizer::Tokenizer;
use crate::units::{Interval, Strand};

/// What bases count in a trainer's loss; all others count 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LossWeight {
    /// The weight of a base that its source has in lower case, 0 to 1 in steps of 0.004; Evo 2 takes 0.1.
    soft_masked: f64,
}

impl LossWeight {
    /// The byte that stands for the weight, or why there is none.
    pub fn byte(self) -> Result<u8, String> {
        let scaled = self.soft_masked * f64::from(LossWeights::ONE);
        let near = (0..=LossWeights::ONE).find(|&byte| (f64::from(byte) - scaled).abs() < 1e-6);
        near.ok_or_else(|| format!("soft_masked is {}, expected 0 to 1 in steps of 0.004", self.soft_masked))
    }
}

/// The soft-masked bases of a set of records.
pub struct Masks {
    soft_masked: u8,
    intervals: Vec<(u64, Interval)>,
    records: HashMap<(Arc<str>, Arc<str>), u64>,
}

impl Masks {
    /// Reads the masks of the sequence that the windows of `tokens` lie on.
    pub fn read(task: &Task, tokens: &Artifact, weight: LossWeight) -> Result<Self, Error> {
        let soft_masked = weight.byte().map_err(|reason| Error::Config { key: "loss_weight", reason })?;
        let sequence = task.referenced(tokens, "sequence")?;
        let records = read_records(&sequence.path(RECORDS))?.into_iter().zip(0..);
        let records =
            records.map(|(record, number)| ((record.source.into(), record.name.into()), number)).collect();
        Ok(Self { soft_masked, intervals: read_masks(&sequence)?, records })
    }

    /// What the manifest says of the weights.
    pub fn details(&self) -> LossWeights {
        LossWeights { one: LossWeights::ONE, soft_masked: self.soft_masked }
    }

    /// A byte for each token of a window.
    pub fn weigh(&self, tokenizer: &dyn Tokenizer, document: &Document, out: &mut Vec<u8>) {
        out.clear();
        let key = (document.source.clone(), document.record.clone());
        let mut masked =
            self.records.get(&key).map(|&record| self.masked(record, document)).unwrap_or_default();
        masked.reverse();
        let (mut start, mut before) = (0, None);
        for &token in &document.tokens {
            let bases = match before {
                Some(before) => tokenizer.bases_of(&[before, token]) - tokenizer.bases_of(&[before]),
                None => tokenizer.bases_of(&[token]),
            };
            out.push(self.mean(bases, take(&mut masked, start, start + bases)));
            (start, before) = (start + bases, Some(token));
        }
    }

    /// The soft-masked parts of a window, counted from its first base as the tokens spell it, ascending.
    fn masked(&self, record: u64, document: &Document) -> Vec<Interval> {
        let window = document.interval;
        let first = self.intervals.partition_point(|(r, mask)| (*r, mask.end) <= (record, window.start));
        let here =
            self.intervals[first..].iter().take_while(|(r, mask)| *r == record && mask.start < window.end);
        let within = here.map(|(_, mask)| (mask.start.max(window.start), mask.end.min(window.end)));
        if document.strand == Strand::Forward {
            return within.map(|(from, to)| Interval::new(from - window.start, to - window.start)).collect();
        }
        let mut turned: Vec<Interval> =
            within.map(|(from, to)| Interval::new(window.end - to, window.end - from)).collect();
        turned.reverse();
        turned
    }

    /// The rounded mean of the weights of `bases` bases, `masked` of them soft-masked.
    fn mean(&self, bases: u64, masked: u64) -> u8 {
        let one = u64::from(LossWeights::ONE);
        if bases == 0 {
            return LossWeights::ONE;
        }
        let sum = (bases - masked) * one + masked * u64::from(self.soft_masked);
        u8::try_from((sum + bases / 2) / bases).unwrap_or(LossWeights::ONE)
    }
}

/// Bases of `start..end` that lie in `masked` (descending); intervals that end there are removed.
fn take(masked: &mut Vec<Interval>, start: u64, end: u64) -> u64 {
    let mut bases = 0;
    while let Some(next) = masked.last().filter(|mask| mask.start < end).copied() {
        bases += next.end.min(end) - next.start.max(start);
        if next.end > end {
            break;
        }
        masked.pop();
    }
    bases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::kmer::{Config, Kmer};

    #[test]
    fn tokens_weigh_what_their_bases_weigh_on_average() {
        let kmer = Kmer::new(Config { k: 4, overlapping: false }).unwrap();
        let records = [(("s".into(), "r".into()), 7)].into();
        let mask = |start, end| (7, Interval::new(start, end));
        let masks =
            Masks { soft_masked: 25, intervals: vec![mask(0, 3), mask(12, 16), mask(17, 18)], records };
        let mut tokens = Vec::new();
        kmer.encode_into(b"ACGTACGTACGT", &mut tokens);
        for (strand, expected) in [
            // 10-14 has 12 and 13, 14-18 has 14, 15 and 17; 25 = 250 / 10, (2 * 250 + 2 * 25 + 2) / 4 = 138.
            (Strand::Forward, [138, 81, 250]),
            (Strand::Reverse, [250, 81, 138]),
        ] {
            let interval = Interval::new(10, 22);
            let (record, source) = ("r".into(), "s".into());
            let document = Document { record, source, interval, strand, tokens: tokens.clone() };
            let mut weights = Vec::new();
            masks.weigh(&kmer, &document, &mut weights);
            assert_eq!(weights, expected, "{strand}");
        }
    }

    #[test]
    fn weights_are_whole_steps() {
        for (weight, expected) in
            [(0.1, Some(25)), (0.0, Some(0)), (1.0, Some(250)), (0.001, None), (1.1, None)]
        {
            assert_eq!(LossWeight { soft_masked: weight }.byte().ok(), expected, "{weight}");
        }
    }
}
