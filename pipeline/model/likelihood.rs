//! How well a model predicts rows: nats, tokens and bases per row. Memory: one batch
//! per thread.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::device;
use super::network::Network;
use super::weights;
use super::workers::Workers;
use crate::loader::{self, Batch, Batches, Order, Prediction, Targets, TokenRows, Vocabulary};
use crate::observer::Stop;

/// Sums over the targets of one row, or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    /// Loss of all targets, in nats.
    pub nats: f64,
    /// Number of targets.
    pub tokens: u64,
    /// Loss of the targets that stand for bases, in nats.
    pub base_nats: f64,
    /// Bases that the targets stand for.
    pub bases: u64,
}

/// Why rows could not be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Rows that do not fit the vocabulary.
    #[error(transparent)]
    Rows(#[from] loader::Error),
    /// A tensor call.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// Somebody asked to stop.
    #[error("stopped before the last row was scored")]
    Stopped,
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Tensors(error.into())
    }
}

impl Likelihood {
    /// Mean loss per target in nats; none without targets.
    pub fn loss(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nats / self.tokens as f64)
    }

    /// Bits per base; none without bases.
    pub fn bits_per_base(&self) -> Option<f64> {
        (self.bases > 0).then(|| self.base_nats / std::f64::consts::LN_2 / self.bases as f64)
    }
}

impl std::ops::AddAssign for Likelihood {
    fn add_assign(&mut self, other: Self) {
        self.nats += other.nats;
        self.tokens += other.tokens;
        self.base_nats += other.base_nats;
        self.bases += other.bases;
    }
}

impl std::iter::Sum for Likelihood {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |mut sum, part| {
            sum += part;
            sum
        })
    }
}

/// A batch as tensors on the model's device, all `[rows, context]`.
#[derive(Debug)]
pub struct Prepared {
    /// Token ids.
    pub ids: Tensor,
    /// Target ids.
    pub targets: Tensor,
    /// 1 where the target stands for bases.
    pub counted: Tensor,
    /// The weight of each target in the loss; none where all count in full.
    pub weights: Option<Tensor>,
    /// `[rows, 1, context, context]`: what each position sees, where rows hold several documents.
    pub mask: Option<Tensor>,
    /// Of a model that guesses hidden tokens, where something is asked, counted over the batch: `[N]`.
    pub asked: Option<Tensor>,
    /// Of a model that has to be told of padding, 1 where there is a token; none where all are.
    pub valid: Option<Tensor>,
}

impl Prepared {
    /// Moves a batch and its targets to `device`; what only some models ask for is left out, see [`Network::prepare`].
    pub fn new(device: Device, batch: &Batch, targets: &Targets) -> Result<Self, tch::TchError> {
        let context = i64::try_from(batch.context).unwrap_or(i64::MAX);
        let place = |tensor: Tensor| device::sent(&tensor, device)?.f_view([-1, context]);
        let weights = &targets.weights;
        let weights = (!weights.is_empty()).then(|| place(Tensor::f_from_slice(weights)?)).transpose()?;
        let several = batch.documents.chunks(batch.context).any(|row| row.first() != row.last());
        let documents = several.then(|| place(Tensor::f_from_slice(&batch.documents)?)).transpose()?;
        let mask = documents.map(|documents| within(&documents)).transpose()?;
        Ok(Self {
            weights,
            mask,
            ids: place(Tensor::f_from_slice(&batch.tokens)?)?,
            targets: place(Tensor::f_from_slice(&targets.ids)?)?,
            counted: place(Tensor::f_from_slice(&targets.counted)?)?,
            asked: None,
            valid: None,
        })
    }
}

/// What each position sees of its own document: itself and what comes before it; `[B, T]` to `[B, 1, T, T]`.
fn within(documents: &Tensor) -> Result<Tensor, tch::TchError> {
    let same = documents.f_unsqueeze(2)?.f_eq_tensor(&documents.f_unsqueeze(1)?)?;
    same.f_tril(0)?.f_unsqueeze(1)
}

/// A model at work on rows, a batch per worker at a time.
#[derive(Clone, Copy)]
pub struct Scorer<'a> {
    /// The model.
    pub model: &'a Network,
    /// What the ids mean.
    pub vocabulary: &'a Vocabulary,
    /// What it is asked.
    pub prediction: &'a Prediction,
    /// Rows that a worker computes at once, at least one.
    pub batch_rows: usize,
    /// Who computes.
    pub workers: &'a Workers,
    /// Checked before every batch.
    pub stop: &'a Stop,
}

impl Scorer<'_> {
    /// Scores the first `rows` rows of `data` (at most all), and hands each row's sums to `each` in order.
    pub fn score(&self, data: &dyn TokenRows, rows: u64, each: impl FnMut(Likelihood)) -> Result<(), Error> {
        self.score_some(data, 0..rows, each)
    }

    /// The same of some rows of `data`, those that there are.
    pub fn score_some(
        &self,
        data: &dyn TokenRows,
        rows: Range<u64>,
        mut each: impl FnMut(Likelihood),
    ) -> Result<(), Error> {
        let order = Order::Sequential { rows: rows.end.min(data.rows()) };
        std::thread::scope(|scope| {
            let mut batches = Batches::start(scope, data, order, self.batch_rows, rows.start, 1);
            loop {
                let parts = batches.by_ref().take(self.workers.threads()).collect::<Vec<_>>();
                if parts.is_empty() {
                    return Ok(());
                }
                self.score_batches(parts)?.into_iter().for_each(&mut each);
            }
        })
    }

    /// The sums of each row.
    fn score_batches(&self, batches: Vec<Batch>) -> Result<Vec<Likelihood>, Error> {
        if self.stop.is_requested() {
            return Err(Error::Stopped);
        }
        let parts = batches.into_iter().map(|batch| (self.model.share(), batch)).collect();
        let (vocabulary, prediction) = (self.vocabulary, self.prediction);
        let score = |(model, batch): (Network, Batch)| score_batch(&model, vocabulary, prediction, batch);
        let scored = self.workers.map(parts, score)?;
        Ok(scored.into_iter().flatten().collect())
    }
}

/// The sums of each row.
fn score_batch(
    model: &Network,
    vocabulary: &Vocabulary,
    prediction: &Prediction,
    batch: Batch,
) -> Result<Vec<Likelihood>, Error> {
    let (batch, targets) = prediction.ask(vocabulary, batch)?;
    let prepared = model.prepare(&batch, &targets)?;
    let hidden = tch::no_grad(|| model.hidden(&prepared))?;
    let nats = tch::no_grad(|| model.nats_of(&hidden, &prepared.targets, prepared.asked.as_ref()))?;
    let nats = nats.f_to_kind(Kind::Double)?;
    let all = Vec::<f64>::try_from(nats.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?)?;
    let counted =
        nats.f_mul(&prepared.counted)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?;
    let counted = Vec::<f64>::try_from(counted)?;
    let rows = batch.tokens.chunks(batch.context).zip(targets.ids.chunks(batch.context));
    let rows = rows.zip(all.into_iter().zip(counted));
    Ok(rows
        .map(|((row, targets), (nats, base_nats))| {
            let (tokens, bases) = prediction.in_row(vocabulary, row, targets);
            Likelihood { nats, tokens, base_nats, bases }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::olmo::Olmo;
    use crate::model::weights::Weights;
    use crate::model::{Config, Family, Overrides, Preset};

    /// A row of three documents gives each of them what it gets alone in a row.
    #[test]
    fn a_document_sees_nothing_of_its_neighbours() {
        for family in [Family::Olmo, Family::Olmo2] {
            let overrides = Overrides { family: Some(family), ..Overrides::default() };
            let config = Config::resolve(Some(Preset::Olmo300k), &overrides, 100, 16).unwrap();
            let weights = Weights::random(&config, 3, Device::Cpu).unwrap();
            let model = Olmo::new(config, weights, Device::Cpu).unwrap();
            let vocabulary = Vocabulary { bases: vec![1; 100], ..Vocabulary::default() };
            let batch = |tokens: &[i64], documents: Vec<i64>| {
                let batch =
                    Batch { context: tokens.len(), tokens: tokens.to_vec(), documents, ..Batch::default() };
                let targets = vocabulary.targets(&batch).unwrap();
                Prepared::new(Device::Cpu, &batch, &targets).unwrap()
            };
            let tokens = (0..12).map(|i| i * 37 % 100).collect::<Vec<i64>>();
            let row = batch(&tokens, vec![0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]);
            let hidden = model.hidden_where(&row.ids, row.mask.as_ref()).unwrap();
            for (start, length) in [(0, 4), (4, 3), (7, 5)] {
                let alone = batch(&tokens[start..start + length], vec![0; length]);
                assert!(alone.mask.is_none());
                let (start, length) = (i64::try_from(start).unwrap(), i64::try_from(length).unwrap());
                let expected = model.hidden(&alone.ids).unwrap();
                let off = (hidden.narrow(1, start, length) - expected).abs().max().double_value(&[]);
                assert!(off < 1e-5, "{family:?}, document at {start}: {off}");
            }
            let seen = model.hidden(&row.ids).unwrap();
            assert!(!seen.narrow(1, 4, 3).allclose(&hidden.narrow(1, 4, 3), 1e-3, 1e-3, false));
        }
    }
}
