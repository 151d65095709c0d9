//! What a split holds, counted from its rows. Memory: a row, a count per token id and per source.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use super::{Error, ShardFile, ShardSet};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::info::{Info, Usage};

/// The figures of a split.
#[derive(Debug, Clone, Serialize)]
pub struct Stats {
    /// Rows.
    pub rows: u64,
    /// Tokens that stand for bases.
    pub tokens: u64,
    /// Special tokens that are no padding, by text.
    pub special: BTreeMap<String, u64>,
    /// Padding tokens, as the manifest has them.
    pub padding: u64,
    /// Share of the slots that are padding, 0 to 1.
    pub padding_share: f64,
    /// Parts of windows: segments.
    pub segments: u64,
    /// Bases by source.
    pub sources: BTreeMap<String, u64>,
    /// The mean loss weight of tokens that stand for bases; none where rows have no weights.
    pub mean_weight: Option<f64>,
    /// Use of the vocabulary.
    pub usage: Info,
}

#[derive(Default)]
struct Tally {
    usage: Usage,
    special: BTreeMap<u32, u64>,
    segments: u64,
    sources: BTreeMap<String, u64>,
    weights: u64,
}

impl Tally {
    fn merge(mut self, other: Self) -> Self {
        self.usage.merge(&other.usage);
        other.special.into_iter().for_each(|(id, count)| *self.special.entry(id).or_default() += count);
        other.sources.into_iter().for_each(|(name, bases)| *self.sources.entry(name).or_default() += bases);
        self.segments += other.segments;
        self.weights += other.weights;
        self
    }

    fn row(&mut self, tokenizer: &dyn Tokenizer, tokens: &[u32], weights: Option<&[u8]>) {
        self.usage.add(tokenizer, tokens);
        for (at, &token) in tokens.iter().enumerate() {
            if tokenizer.bases(token) == 0 {
                *self.special.entry(token).or_default() += 1;
            } else if let Some(weights) = weights {
                self.weights += u64::from(weights[at]);
            }
        }
    }
}

/// Counts the rows of a split; `listed` tokens are listed.
pub fn stats(set: &ShardSet, split: &str, listed: usize) -> Result<Stats, Error> {
    let found = set.split(split)?;
    let tokenizer = set.tokenizer()?;
    let tallies = found.files.par_iter().map(|file| tally(set, file, tokenizer.as_ref()));
    let all = tallies.collect::<Result<Vec<_>, Error>>()?.into_iter().fold(Tally::default(), Tally::merge);
    let usage = all.usage.info(tokenizer.as_ref(), listed);
    let text = |id: u32| tokenizer.text(id).unwrap_or("?").to_owned();
    let mut special: BTreeMap<String, u64> =
        all.special.into_iter().map(|(id, count)| (text(id), count)).collect();
    let pad = set.details.packing.as_ref().map(|packing| text(packing.padding));
    if let Some(count) = pad.and_then(|pad| special.get_mut(&pad)) {
        *count -= found.padding.min(*count);
    }
    special.retain(|_, count| *count > 0);
    let one = set.details.loss_weights.as_ref().map(|weights| f64::from(weights.one));
    Ok(Stats {
        rows: found.rows,
        tokens: usage.tokens,
        special,
        padding: found.padding,
        padding_share: found.padding as f64 / (found.rows.max(1) * set.details.context as u64) as f64,
        segments: all.segments,
        sources: all.sources,
        mean_weight: one.map(|one| all.weights as f64 / one / usage.tokens.max(1) as f64),
        usage,
    })
}

fn tally(set: &ShardSet, file: &ShardFile, tokenizer: &dyn Tokenizer) -> Result<Tally, Error> {
    let rows = set.rows_of(std::slice::from_ref(file))?;
    let mut tally = Tally::default();
    (0..rows.len()).for_each(|row| tally.row(tokenizer, &rows.get(row).to_vec(), rows.weights(row)));
    set.for_each_row(file, |_, segments| {
        tally.segments += segments.len() as u64;
        for segment in segments {
            let bases = segment.interval().len();
            match tally.sources.get_mut(&*segment.source) {
                Some(sum) => *sum += bases,
                None => drop(tally.sources.insert(segment.source.to_string(), bases)),
            }
        }
        Ok(())
    })?;
    Ok(tally)
}
