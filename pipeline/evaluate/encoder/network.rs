//! Networks as encoders: token ids go in, hidden values come out.
//!
//! Shapes in comments: B rows, T tokens, d width, V rows of the embedding.

use tch::{Kind, Tensor};

use super::{Batch, Error};
use crate::evaluate::protocol::Pooling;
use crate::model::dnabert2::{Dnabert2, Heads, Input};
use crate::model::hyena::Hyena;
use crate::model::layout::{Parameter, Role};
use crate::model::network::Network;
use crate::model::olmo::Olmo;
use crate::model::weights::Weights;
use crate::model::{self, Named, Overrides, Shape, device};

/// A network of a named shape for `vocabulary` ids, an OLMo for at most `context` tokens; its weights are the first ones of seed 0.
pub(super) fn fresh(preset: Named, vocabulary: u32, context: u32) -> Result<Network, Error> {
    let shape = match preset {
        Named::Olmo(preset) => {
            Shape::Olmo(model::Config::resolve(Some(preset), &Overrides::default(), vocabulary, context)?)
        }
        Named::Hyena(preset) => Shape::Hyena { hyenadna: preset.config().with_vocabulary(vocabulary) },
        Named::Dnabert2(preset) => {
            let config = preset.config(vocabulary, None)?;
            let model = Dnabert2::random(config, Heads::default(), 0, device::open()?)?;
            return Ok(Network::Dnabert2(model));
        }
    };
    Ok(Network::random(&shape, 0, device::open()?)?)
}

impl Network {
    /// The family's name.
    pub const fn family(&self) -> &'static str {
        match self {
            Self::Olmo(_) => "OLMo",
            Self::Hyena(_) => "HyenaDNA",
            Self::Dnabert2(_) => "DNABERT-2",
        }
    }

    /// Whether a position sees none behind it.
    pub const fn is_causal(&self) -> bool {
        !matches!(self, Self::Dnabert2(_))
    }

    /// Tokens that it takes at most; none where nothing but memory is in the way.
    pub fn context(&self) -> Option<u32> {
        match self {
            Self::Olmo(model) => Some(model.config().context),
            Self::Hyena(model) => Some(model.config().longest),
            Self::Dnabert2(_) => None,
        }
    }

    /// Width of the hidden values.
    pub fn width(&self) -> u32 {
        match self {
            Self::Olmo(model) => model.config().width,
            Self::Hyena(model) => model.config().width,
            Self::Dnabert2(model) => model.config().width,
        }
    }

    /// Ids that it knows.
    pub fn vocabulary(&self) -> u32 {
        match self {
            Self::Olmo(model) => model.config().vocabulary,
            Self::Hyena(model) => model.config().padded_vocabulary,
            Self::Dnabert2(model) => model.config().vocabulary,
        }
    }

    /// The last layer's values: `[B, T]` to `[B, T, d]`. What is not `valid`, `[B, T]`, stands at the end of rows and
    /// changes nothing before it.
    pub fn encode(&self, ids: &Tensor, valid: &Tensor) -> Result<Tensor, Error> {
        Ok(match self {
            Self::Olmo(model) => model.hidden(ids)?,
            Self::Hyena(model) => model.hidden(ids)?,
            Self::Dnabert2(model) => model.hidden(Input { ids, valid: Some(valid), types: None })?,
        })
    }

    /// One embedding of each row: `[B, d]`.
    pub fn embedding(&self, batch: &Batch, pooling: Pooling) -> Result<Tensor, Error> {
        let hidden = self.encode(&batch.ids, &batch.valid)?;
        match (pooling, self) {
            (Pooling::Pooler, Self::Dnabert2(model)) => Ok(model.pooled(&hidden)?),
            _ => Ok(batch.pool(&hidden, pooling)?),
        }
    }

    /// The same network, with a fresh pooler if it is to have one and has none.
    pub fn with_pooler(self, seed: u64) -> Result<Self, Error> {
        Ok(match self {
            Self::Dnabert2(model) => Self::Dnabert2(model.with_pooler(seed)?),
            other => other,
        })
    }

    /// What each position expects of the next, `ln p`: `[B, T, d]` to `[B, T, V]`; none of models that are not causal.
    pub fn expectations(&self, hidden: &Tensor) -> Result<Option<Tensor>, Error> {
        let logits = match self {
            Self::Olmo(model) => model.logits(hidden)?,
            Self::Hyena(model) => model.logits(hidden)?,
            Self::Dnabert2(_) => return Ok(None),
        };
        Ok(Some(logits.f_log_softmax(-1, Kind::Float)?))
    }

    /// Its weights.
    pub fn tensors(&self) -> &[Tensor] {
        self.weights().tensors()
    }

    /// The same network with other weights, one for each of these.
    #[must_use]
    pub fn with_tensors(&self, tensors: Vec<Tensor>) -> Self {
        match self {
            Self::Olmo(model) => Self::Olmo(model.with_tensors(tensors)),
            Self::Hyena(model) => Self::Hyena(model.with_tensors(tensors)),
            Self::Dnabert2(model) => Self::Dnabert2(model.with_tensors(tensors)),
        }
    }

    /// The same shape with fresh weights, a function of `seed` alone.
    pub fn fresh(&self, seed: u64) -> Result<Self, Error> {
        let device = self.device();
        let weights = Weights::fresh(self.weights().layout().to_vec(), seed, device)?;
        Ok(match self {
            Self::Olmo(model) => Self::Olmo(Olmo::new(model.config().clone(), weights, device)?),
            Self::Hyena(model) => Self::Hyena(Hyena::new(model.config().clone(), weights, device)?),
            Self::Dnabert2(model) => {
                let (config, heads) = (model.config().clone(), model.heads());
                Self::Dnabert2(Dnabert2::new(config, heads, weights, device))
            }
        })
    }

    /// Places of the matrices that `lora` stands beside: the projections of attention, or of HyenaDNA's operator.
    pub fn projections(&self) -> Vec<usize> {
        let places = self.weights().layout().iter().enumerate();
        places.filter(|(_, parameter)| self.is_projection(parameter)).map(|(place, _)| place).collect()
    }

    fn is_projection(&self, parameter: &Parameter) -> bool {
        let ends = |ending: &str| parameter.parts.iter().any(|part| part.name.ends_with(ending));
        match self {
            Self::Hyena(_) => ends("mixer.in_proj.weight") || ends("mixer.out_proj.weight"),
            Self::Olmo(_) | Self::Dnabert2(_) => parameter.role == Role::Attention,
        }
    }

    /// Parameters.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|tensor| tensor.numel() as u64).sum()
    }
}
