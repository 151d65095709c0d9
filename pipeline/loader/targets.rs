//! What is to be predicted: each token's successor, and how many bases that stands for; or tokens that are hidden.

use super::{Batch, Masking, MaskingError};
use crate::shard::LossWeights;

/// The target id of a position that predicts nothing; torch's loss leaves it out.
pub const IGNORED: i64 = -100;

/// What the loss must know of a tokenizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// Bases that each id stands for; 0 for special tokens, and for tokens whose bases shall not count (such as
    /// those that cover N). Its length is the vocabulary's size.
    pub bases: Vec<u32>,
    /// The id that fills short rows, never to be predicted.
    pub pad: Option<u32>,
    /// The id before every window of the training rows, where there is one.
    pub begin: Option<u32>,
    /// Fingerprint of the tokenizer: a checkpoint is bound to it.
    pub fingerprint: String,
    /// The tokenizer itself, as the text of its `tokenizer.json`; checkpoints keep it.
    pub tokenizer: String,
}

/// The targets of a batch, position by position. The last position of a row has none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Targets {
    /// The id that follows, or [`IGNORED`].
    pub ids: Vec<i64>,
    /// 1 where the target stands for bases, else 0.
    pub counted: Vec<f32>,
    /// The weight of the target in the loss, 0 where there is none; empty where all count in full.
    pub weights: Vec<f32>,
    /// Number of targets.
    pub tokens: u64,
    /// Bases that the targets stand for.
    pub bases: u64,
}

/// What a model is asked of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Prediction {
    /// Each token's successor.
    Next,
    /// Tokens that are hidden, otherwise in every epoch.
    Masked {
        /// Which.
        masking: Masking,
        /// Rows per epoch.
        rows: u64,
    },
}

impl Prediction {
    /// The batch as the model sees it, and its targets. Hidden tokens stand for no bases.
    pub fn ask(&self, vocabulary: &Vocabulary, mut batch: Batch) -> Result<(Batch, Targets), Error> {
        let targets = match self {
            Self::Next => vocabulary.targets(&batch)?,
            Self::Masked { masking, rows } => vocabulary.hidden(masking, *rows, &mut batch)?,
        };
        Ok((batch, targets))
    }

    /// Targets in one row, and the bases that they stand for.
    pub fn in_row(&self, vocabulary: &Vocabulary, row: &[i64], targets: &[i64]) -> (u64, u64) {
        match self {
            Self::Next => vocabulary.targets_in_row(row),
            Self::Masked { .. } => (targets.iter().filter(|id| **id != IGNORED).count() as u64, 0),
        }
    }
}

/// Why rows and vocabulary do not fit each other.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An id outside the vocabulary.
    #[error(
        "row at position {row} of the order: token {token} at index {index} is outside the vocabulary of {size}"
    )]
    UnknownToken {
        /// Position in the order.
        row: u64,
        /// Index in the row.
        index: usize,
        /// The id.
        token: i64,
        /// Number of ids.
        size: usize,
    },
    /// Rows that cannot be masked.
    #[error(transparent)]
    Masking(#[from] MaskingError),
    /// A loss weight above 1.
    #[error(
        "row at position {row} of the order: the loss weight at index {index} is the byte {found}, \
         expected at most {} (weight 1)",
        LossWeights::ONE
    )]
    Weight {
        /// Position in the order.
        row: u64,
        /// Index in the row.
        index: usize,
        /// The byte.
        found: u8,
    },
}

impl Vocabulary {
    /// Number of ids.
    pub fn size(&self) -> usize {
        self.bases.len()
    }

    /// The targets of `batch`.
    pub fn targets(&self, batch: &Batch) -> Result<Targets, Error> {
        let mut targets = Targets::with_capacity(batch.tokens.len());
        for (row, tokens) in batch.tokens.chunks(batch.context).enumerate() {
            self.check(tokens, batch.position + row as u64)?;
            tokens.iter().skip(1).for_each(|token| self.push(*token, &mut targets));
            targets.push(IGNORED, None);
        }
        targets.weights = weights(batch, &targets.ids, 1)?;
        Ok(targets)
    }

    /// Hides tokens of `batch`, whose epochs have `rows` rows; the targets are what they were.
    fn hidden(&self, masking: &Masking, rows: u64, batch: &mut Batch) -> Result<Targets, Error> {
        let mut targets = Targets::with_capacity(batch.tokens.len());
        for (position, tokens) in (batch.position..).zip(batch.tokens.chunks_mut(batch.context)) {
            self.check(tokens, position)?;
            for label in masking.hide(tokens, position / rows.max(1), position % rows.max(1))? {
                targets.push(label, (label != IGNORED).then_some(0));
            }
        }
        targets.weights = weights(batch, &targets.ids, 0)?;
        Ok(targets)
    }

    /// Targets in one row, and the bases that they stand for. Ids outside the vocabulary count as no bases.
    pub fn targets_in_row(&self, row: &[i64]) -> (u64, u64) {
        let pad = self.pad.map_or(IGNORED, i64::from);
        let targets = row.iter().skip(1).filter(|token| **token != pad);
        targets.fold((0, 0), |(tokens, bases), token| {
            (tokens + 1, bases + u64::from(self.bases_of(*token).unwrap_or(0)))
        })
    }

    fn check(&self, tokens: &[i64], row: u64) -> Result<(), Error> {
        match tokens.iter().position(|token| self.bases_of(*token).is_none()) {
            None => Ok(()),
            Some(index) => Err(Error::UnknownToken { row, index, token: tokens[index], size: self.size() }),
        }
    }

    fn bases_of(&self, token: i64) -> Option<u32> {
        self.bases.get(usize::try_from(token).ok()?).copied()
    }

    fn push(&self, token: i64, targets: &mut Targets) {
        match self.pad {
            Some(pad) if token == i64::from(pad) => targets.push(IGNORED, None),
            _ => targets.push(token, self.bases_of(token)),
        }
    }
}

/// The weights of the targets `ids`, each that of its token, `ahead` places further.
fn weights(batch: &Batch, ids: &[i64], ahead: usize) -> Result<Vec<f32>, Error> {
    if let Some(at) = batch.weights.iter().position(|byte| *byte > LossWeights::ONE) {
        let row = batch.position + (at / batch.context) as u64;
        return Err(Error::Weight { row, index: at % batch.context, found: batch.weights[at] });
    }
    let weight =
        |byte: u8, id: i64| if id == IGNORED { 0.0 } else { f32::from(byte) / f32::from(LossWeights::ONE) };
    let next = batch.weights.iter().skip(ahead).copied();
    let next = next.chain((!batch.weights.is_empty()).then_some(0));
    Ok(next.zip(ids).map(|(byte, id)| weight(byte, *id)).collect())
}

impl Targets {
    /// What the loss is divided by: the sum of the weights of all targets.
    pub fn weight(&self) -> f64 {
        if self.weights.is_empty() {
            return self.tokens as f64;
        }
        self.weights.iter().map(|weight| f64::from(*weight)).sum()
    }

    fn with_capacity(tokens: usize) -> Self {
        let (ids, counted) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
        Self { ids, counted, weights: Vec::new(), tokens: 0, bases: 0 }
    }

    fn push(&mut self, id: i64, bases: Option<u32>) {
        let count = bases.unwrap_or(0);
        self.ids.push(id);
        self.counted.push(if count > 0 { 1.0 } else { 0.0 });
        self.tokens += u64::from(bases.is_some());
        self.bases += u64::from(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        Vocabulary { bases: vec![0, 0, 1, 3], pad: Some(0), ..Vocabulary::default() }
    }

    #[test]
    fn targets_follow_and_padding_is_left_out() {
        let batch = Batch { context: 4, tokens: vec![1, 2, 3, 1, 3, 2, 0, 0], ..Batch::default() };
        let targets = vocabulary().targets(&batch).unwrap();
        assert_eq!(targets.ids, [2, 3, 1, IGNORED, 2, IGNORED, IGNORED, IGNORED]);
        assert_eq!(targets.counted, [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!((targets.tokens, targets.bases), (4, 5));
        assert!(targets.weights.is_empty() && (targets.weight() - 4.0).abs() < 1e-12);
    }

    #[test]
    fn a_target_weighs_what_its_token_does() {
        let weights = vec![250, 25, 0, 125, 250, 50, 0, 0];
        let batch = Batch { context: 4, tokens: vec![1, 2, 3, 1, 3, 2, 0, 0], weights, ..Batch::default() };
        let targets = vocabulary().targets(&batch).unwrap();
        assert_eq!(targets.weights, [0.1, 0.0, 0.5, 0.0, 0.2, 0.0, 0.0, 0.0]);
        assert!((targets.weight() - 0.8).abs() < 1e-6);
        let above = Batch { position: 3, weights: vec![250, 250, 250, 250, 250, 255, 0, 0], ..batch };
        let error = vocabulary().targets(&above).unwrap_err().to_string();
        assert!(
            error.starts_with("row at position 4 of the order: the loss weight at index 1 is the byte 255"),
            "{error}"
        );
    }

    #[test]
    fn ids_outside_the_vocabulary_are_refused() {
        for (token, shown) in [(4, "4"), (-1, "-1")] {
            let tokens = vec![1, 1, 1, token];
            let batch = Batch { position: 6, context: 2, tokens, ..Batch::default() };
            let error = vocabulary().targets(&batch).unwrap_err().to_string();
            let expected = format!(
                "row at position 7 of the order: token {shown} at index 1 is outside the vocabulary of 4"
            );
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn hidden_tokens_are_asked_for_where_they_stood() {
        let ids = super::super::Ids { vocabulary: 4, special: &[0, 1], mask: 1 };
        let masking = Masking::new(3, 0.5, ids).unwrap();
        let prediction = Prediction::Masked { masking: masking.clone(), rows: 3 };
        let tokens = vec![2, 3, 0, 0, 3, 2, 2, 3];
        let weights = vec![250, 25, 0, 0, 125, 250, 50, 0];
        let batch = Batch { position: 2, context: 4, tokens: tokens.clone(), weights, ..Batch::default() };
        let (seen, targets) = prediction.ask(&vocabulary(), batch.clone()).unwrap();
        // Rows 2 of the first epoch and 0 of the second.
        let mut expected = tokens.clone();
        let (first, second) = expected.split_at_mut(4);
        let labels = [masking.hide(first, 0, 2).unwrap(), masking.hide(second, 1, 0).unwrap()].concat();
        assert_eq!((&seen.tokens, &targets.ids), (&expected, &labels));
        let asked = labels.iter().filter(|label| **label != IGNORED).count();
        assert!(asked > 0 && targets.tokens == asked as u64 && targets.bases == 0);
        for (place, label) in labels.iter().enumerate() {
            let weight = f32::from(batch.weights[place]) / 250.0;
            let expected = if *label == IGNORED { 0.0 } else { weight };
            assert!((targets.weights[place] - expected).abs() < 1e-6, "place {place}");
        }
        let of_row = |row: usize| prediction.in_row(&vocabulary(), &[], &labels[row * 4..][..4]).0;
        assert_eq!(of_row(0) + of_row(1), asked as u64);
        let wild = Batch { tokens: vec![2, 2, 2, 9, 2, 2, 2, 2], ..batch };
        let error = prediction.ask(&vocabulary(), wild).unwrap_err().to_string();
        assert!(
            error.starts_with("row at position 2 of the order: token 9 at index 3 is outside"),
            "{error}"
        );
    }
}
