//! What is to be predicted: each token's successor, and how many bases that stands for.

use super::Batch;

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
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    /// The id that follows, or [`IGNORED`].
    pub ids: Vec<i64>,
    /// 1 where the target stands for bases, else 0.
    pub counted: Vec<f32>,
    /// Number of targets.
    pub tokens: u64,
    /// Bases that the targets stand for.
    pub bases: u64,
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

impl Targets {
    fn with_capacity(tokens: usize) -> Self {
        Self { ids: Vec::with_capacity(tokens), counted: Vec::with_capacity(tokens), tokens: 0, bases: 0 }
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
        let batch = Batch { position: 0, context: 4, tokens: vec![1, 2, 3, 1, 3, 2, 0, 0] };
        let targets = vocabulary().targets(&batch).unwrap();
        assert_eq!(targets.ids, [2, 3, 1, IGNORED, 2, IGNORED, IGNORED, IGNORED]);
        assert_eq!(targets.counted, [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!((targets.tokens, targets.bases), (4, 5));
    }

    #[test]
    fn ids_outside_the_vocabulary_are_refused() {
        for (token, shown) in [(4, "4"), (-1, "-1")] {
            let batch = Batch { position: 6, context: 2, tokens: vec![1, 1, 1, token] };
            let error = vocabulary().targets(&batch).unwrap_err().to_string();
            let expected = format!(
                "row at position 7 of the order: token {shown} at index 1 is outside the vocabulary of 4"
            );
            assert_eq!(error, expected);
        }
    }
}
