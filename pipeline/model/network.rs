//! A model of any family with its weights, as the trainer and the scorers see it.
//!
//! Shapes in comments: B rows, T tokens, d width. Memory: the model, and what a batch needs.

use std::ops::Range;
use std::path::Path;

use tch::{Device, Tensor};

use super::backward::{self, Input};
use super::device;
use super::dnabert2::{self, Dnabert2, Heads};
use super::hyena::Hyena;
use super::likelihood::Prepared;
use super::loss;
use super::olmo::Olmo;
use super::shape::Shape;
use super::weights::{Error, Weights};
use crate::loader::{Batch, IGNORED, Targets};

/// A model of any family.
#[derive(Debug)]
pub enum Network {
    /// An OLMo: guesses the next token.
    Olmo(Olmo),
    /// A HyenaDNA: guesses the next token.
    Hyena(Hyena),
    /// A DNABERT-2 with its head for masked tokens: guesses hidden ones.
    Dnabert2(Dnabert2),
}

impl Network {
    /// A model with these weights, which follow the layout of `shape` and lie on `device`.
    pub fn new(shape: &Shape, weights: Weights, device: Device) -> Result<Self, Error> {
        Ok(match shape.clone() {
            Shape::Olmo(config) => Self::Olmo(Olmo::new(config, weights, device)?),
            Shape::Hyena { hyenadna } => Self::Hyena(Hyena::new(hyenadna, weights, device)?),
            Shape::Dnabert2 { dnabert2 } => {
                let heads = Heads { masked: true, ..Heads::default() };
                Self::Dnabert2(Dnabert2::new(dnabert2, heads, weights, device))
            }
        })
    }

    /// The same model with products of matrices in bf16; only an OLMo knows it.
    #[must_use]
    pub fn in_bf16(self) -> Self {
        match self {
            Self::Olmo(model) => Self::Olmo(model.in_bf16()),
            other => other,
        }
    }

    /// A model with fresh weights, a function of its shape and `seed` alone.
    pub fn random(shape: &Shape, seed: u64, device: Device) -> Result<Self, Error> {
        Self::new(shape, Weights::fresh(shape.layout(), seed, device)?, device)
    }

    /// The model of the safetensors file `path`, as [`Weights::read`] reads it.
    pub fn read(shape: &Shape, path: &Path, device: Device) -> Result<Self, Error> {
        Self::new(shape, Weights::read(shape.layout(), path, "", device)?, device)
    }

    /// The OLMo that it is; other families are refused.
    pub fn olmo(self) -> Result<Olmo, Error> {
        match self {
            Self::Olmo(model) => Ok(model),
            Self::Hyena(_) => Err(Error::Family { found: "HyenaDNA" }),
            Self::Dnabert2(_) => Err(Error::Family { found: "DNABERT-2" }),
        }
    }

    /// Its weights.
    pub const fn weights(&self) -> &Weights {
        match self {
            Self::Olmo(model) => model.weights(),
            Self::Hyena(model) => model.weights(),
            Self::Dnabert2(model) => model.weights(),
        }
    }

    /// Its weights, to be changed in place.
    pub const fn weights_mut(&mut self) -> &mut Weights {
        match self {
            Self::Olmo(model) => model.weights_mut(),
            Self::Hyena(model) => model.weights_mut(),
            Self::Dnabert2(model) => model.weights_mut(),
        }
    }

    /// Where it computes.
    pub const fn device(&self) -> Device {
        match self {
            Self::Olmo(model) => model.device(),
            Self::Hyena(model) => model.device(),
            Self::Dnabert2(model) => model.device(),
        }
    }

    /// The same model again, for another thread: the weights are shared.
    #[must_use]
    pub fn share(&self) -> Self {
        match self {
            Self::Olmo(model) => Self::Olmo(model.share()),
            Self::Hyena(model) => Self::Hyena(model.share()),
            Self::Dnabert2(model) => Self::Dnabert2(model.share()),
        }
    }

    /// The same model, with gradients wanted for every weight.
    pub fn require_gradients(self) -> Result<Self, Error> {
        Ok(match self {
            Self::Olmo(model) => Self::Olmo(model.require_gradients()?),
            Self::Hyena(model) => Self::Hyena(model.require_gradients()?),
            Self::Dnabert2(model) => Self::Dnabert2(model.require_gradients()?),
        })
    }

    /// Moves a batch and its targets to where it computes. What is asked of hidden tokens, and where there is padding, is found
    /// before that: a GPU would have to be waited for.
    pub fn prepare(&self, batch: &Batch, targets: &Targets) -> Result<Prepared, Error> {
        let mut prepared = Prepared::new(self.device(), batch, targets)?;
        if let Self::Dnabert2(model) = self {
            let asked: Vec<i64> =
                (0..).zip(&targets.ids).filter(|(_, id)| **id != IGNORED).map(|(place, _)| place).collect();
            prepared.asked = Some(device::sent(&Tensor::f_from_slice(&asked)?, self.device())?);
            let padding = model.config().pad.map(i64::from).filter(|pad| batch.tokens.contains(pad));
            prepared.valid = padding.map(|pad| prepared.ids.f_ne(pad)).transpose()?;
        }
        Ok(prepared)
    }

    /// The last layer's values of a batch: `[B, T, d]`.
    pub fn hidden(&self, batch: &Prepared) -> Result<Tensor, Error> {
        match self {
            Self::Olmo(model) => Ok(model.hidden_where(&batch.ids, batch.mask.as_ref())?),
            Self::Hyena(model) => model.hidden(&batch.ids),
            Self::Dnabert2(model) => Ok(model.hidden_at(masked_input(batch), None)?),
        }
    }

    /// Losses in nats, `-ln p`, of `targets` `[B, T]`, given the last layer's values: `[B, T]`, 0 where nothing is
    /// asked for. Of positions in a row, `[N]`, likewise. `asked` is where something is, as [`Prepared`] has it; without it a
    /// model that guesses hidden tokens looks for them.
    pub fn nats_of(
        &self,
        hidden: &Tensor,
        targets: &Tensor,
        asked: Option<&Tensor>,
    ) -> Result<Tensor, Error> {
        match self {
            Self::Olmo(model) => Ok(model.nats_of(hidden, targets)?),
            Self::Hyena(model) => Ok(loss::nats(&model.logits(hidden)?, targets)?),
            Self::Dnabert2(model) => {
                let [nats] = model
                    .where_asked(hidden, targets, asked, |scores, ids| Ok([loss::nats(scores, ids)?]))?;
                Ok(nats)
            }
        }
    }

    /// The losses, and the z-losses before their coefficient, as [`Olmo::nats_and_z`].
    pub fn nats_and_z(
        &self,
        hidden: &Tensor,
        targets: &Tensor,
        asked: Option<&Tensor>,
    ) -> Result<[Tensor; 2], Error> {
        match self {
            Self::Olmo(model) => Ok(model.nats_and_z(hidden, targets)?),
            Self::Hyena(model) => Ok(loss::nats_and_z(&model.logits(hidden)?, targets)?),
            Self::Dnabert2(model) => model.where_asked(hidden, targets, asked, loss::nats_and_z),
        }
    }

    /// The parameter of which a backward pass over so many positions has the gradient in parts, if there is one; see
    /// [`backward::in_parts`].
    pub fn in_parts(&self, positions: usize) -> Option<usize> {
        if let Self::Olmo(model) = self { backward::in_parts(model, positions) } else { None }
    }

    /// The gradients, in the order of the weights, of the sum of the losses that `loss` makes of parts of the last layer's
    /// values, and what else it gives back for each. Only an OLMo knows `checkpointing` and parts; see [`backward::gradients`].
    pub fn gradients<R>(
        &self,
        batch: &Prepared,
        checkpointing: bool,
        loss: impl Fn(&Tensor, Range<i64>) -> Result<(Tensor, R), Error>,
    ) -> Result<(Vec<Tensor>, Vec<R>), Error> {
        if let Self::Olmo(model) = self {
            let input = Input { ids: &batch.ids, mask: batch.mask.as_ref() };
            return backward::gradients(model, input, checkpointing, loss);
        }
        let hidden = match self {
            Self::Dnabert2(model) => model.hidden_at(masked_input(batch), batch.asked.as_ref())?,
            _ => self.hidden(batch)?,
        };
        let hidden = hidden.f_flatten(0, 1)?;
        let (loss, result) = loss(&hidden, 0..hidden.size()[0])?;
        Ok((Tensor::f_run_backward(&[loss], self.weights().tensors(), false, false)?, vec![result]))
    }
}

/// What a model that guesses hidden tokens sees of a batch. Without padding what distance costs is the same for all rows.
const fn masked_input(batch: &Prepared) -> dnabert2::Input<'_> {
    dnabert2::Input { ids: &batch.ids, valid: batch.valid.as_ref(), types: None }
}
