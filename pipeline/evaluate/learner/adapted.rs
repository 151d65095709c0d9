//! A network that is frozen, learned whole, or learned beside matrices of low rank, and a head on it.
//!
//! The head gives the classes of a sequence, or of every base of it. Shapes in comments: B rows, T tokens, d width, C classes.

use tch::{Device, Kind, TchError, Tensor};

use super::super::encoder::{self, Batch, Network};
use super::super::optimizer::Draws;
use super::super::protocol::{Config, Pooling, Protocol};

/// Channels of the convolutional head.
const CHANNELS: i64 = 64;
/// Positions that its convolutions see.
const KERNEL: i64 = 3;

/// What of a model is learned.
enum Adaptation {
    /// Nothing.
    Frozen,
    /// Every weight: the first of those that are learned.
    Full,
    /// The weights at these places plus `scale` times the product of two that are learned.
    Lora { places: Vec<usize>, scale: f64 },
}

/// A network, and the weights that are learned: those of the adaptation, then those of the head.
pub(in crate::evaluate) struct Adapted {
    base: Network,
    adaptation: Adaptation,
    pooling: Pooling,
    is_convolutional: bool,
    /// Whether bases have classes.
    per_base: bool,
    pub(super) weights: Vec<Tensor>,
    /// How many of them are the adaptation's.
    own: usize,
}

impl Adapted {
    /// Before the first step: a head that knows nothing, on what the network computes.
    pub(super) fn new(
        network: Network,
        config: &Config,
        (classes, per_base): (usize, bool),
        seed: u64,
    ) -> Result<Self, encoder::Error> {
        let mut draws = Draws::new(seed);
        let width = i64::from(network.width());
        let learns_all = matches!(config.protocol, Protocol::FineTune | Protocol::FromScratch);
        let network = if learns_all && config.inputs.pooling == Pooling::Pooler {
            network.with_pooler(seed)?
        } else {
            network
        };
        let base = if config.protocol == Protocol::FromScratch { network.fresh(seed)? } else { network };
        let (adaptation, mut weights) = match config.protocol {
            Protocol::FineTune | Protocol::FromScratch => (Adaptation::Full, own(base.tensors())),
            Protocol::Lora => low_rank(&base, config, &mut draws)?,
            _ => (Adaptation::Frozen, Vec::new()),
        };
        let own = weights.len();
        let is_convolutional = config.protocol == Protocol::CnnHead;
        let mut inputs = width;
        if is_convolutional {
            for channels in [width, CHANNELS] {
                weights.push(draws.uniform(&[CHANNELS, channels, KERNEL], channels * KERNEL)?);
                weights.push(draws.uniform(&[CHANNELS], channels * KERNEL)?);
            }
            inputs = CHANNELS;
        }
        let classes = i64::try_from(classes).unwrap_or(i64::MAX);
        weights.extend([draws.uniform(&[classes, inputs], inputs)?, draws.uniform(&[classes], inputs)?]);
        let (pooling, device) = (config.inputs.pooling, base.device());
        let weights = weights.into_iter().map(|weight| leaf_on(device, weight)).collect::<Result<_, _>>()?;
        Ok(Self { base, adaptation, pooling, is_convolutional, per_base, weights, own })
    }

    /// Where it computes.
    pub(super) const fn device(&self) -> Device {
        self.base.device()
    }

    /// The network with what was learned.
    pub(super) fn network(&self) -> Result<Network, TchError> {
        let learned = &self.weights[..self.own];
        Ok(match &self.adaptation {
            Adaptation::Frozen => self.base.share(),
            Adaptation::Full => self.base.with_tensors(learned.iter().map(Tensor::shallow_clone).collect()),
            Adaptation::Lora { places, scale } => {
                let mut tensors: Vec<Tensor> =
                    self.base.tensors().iter().map(Tensor::shallow_clone).collect();
                for (place, pair) in places.iter().zip(learned.chunks(2)) {
                    let change = pair[1].f_matmul(&pair[0])?.f_mul_scalar(*scale)?;
                    tensors[*place] = tensors[*place].f_add(&change)?;
                }
                self.base.with_tensors(tensors)
            }
        })
    }

    /// Scores of the classes, `[B, C]`; where bases have classes of every base, `[B * bases, C]`.
    pub(super) fn logits(&self, batch: &Batch) -> Result<Tensor, encoder::Error> {
        let (network, head) = (self.network()?, &self.weights[self.own..]);
        let last = &head[head.len() - 2..];
        let values = if self.is_convolutional || self.per_base {
            let (mut values, there) = batch.per_base(&self.hidden(&network, batch)?)?;
            if self.is_convolutional {
                values = convolved(&values, &there, &head[..4])?;
            }
            if self.per_base { values.f_flatten(0, 1)? } else { mean(&values, &there)? }
        } else {
            network.embedding(batch, self.pooling)?
        };
        Ok(values.f_linear(&last[0], Some(&last[1]))?)
    }

    /// The network's values, `[B, T, d]`; of a frozen one without a trace of how they came to be.
    fn hidden(&self, network: &Network, batch: &Batch) -> Result<Tensor, encoder::Error> {
        match self.adaptation {
            Adaptation::Frozen => tch::no_grad(|| network.encode(&batch.ids, &batch.valid)),
            _ => network.encode(&batch.ids, &batch.valid),
        }
    }
}

/// Copies whose gradients are wanted.
fn own(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|tensor| tensor.detach().copy().set_requires_grad(true)).collect()
}

/// A tensor whose gradient is wanted, on `device`.
fn leaf_on(device: Device, tensor: Tensor) -> Result<Tensor, TchError> {
    if tensor.device() == device {
        return Ok(tensor);
    }
    tensor.f_detach()?.f_to_device(device)?.f_set_requires_grad(true)
}

/// Two matrices beside each projection, `[rank, inputs]` as linear layers start and `[outputs, rank]` of zeros.
fn low_rank(
    base: &Network,
    config: &Config,
    draws: &mut Draws,
) -> Result<(Adaptation, Vec<Tensor>), TchError> {
    let rank = i64::from(config.training.lora_rank);
    let places = base.projections();
    let mut weights = Vec::new();
    for place in &places {
        let shape = base.tensors()[*place].size();
        weights.push(draws.uniform(&[rank, shape[1]], shape[1])?);
        let zeros = Tensor::f_zeros([shape[0], rank], (Kind::Float, Device::Cpu))?;
        weights.push(zeros.set_requires_grad(true));
    }
    let scale = config.training.lora_alpha / rank as f64;
    Ok((Adaptation::Lora { places, scale }, weights))
}

/// Two convolutions over the bases: `[B, bases, d]` to `[B, bases, CHANNELS]`, 0 where `there`, `[B, bases]`, is 0.
fn convolved(values: &Tensor, there: &Tensor, head: &[Tensor]) -> Result<Tensor, TchError> {
    let there = there.f_unsqueeze(1)?;
    let mut values = values.f_transpose(1, 2)?;
    for layer in head.chunks(2) {
        values = values
            .f_conv1d(&layer[0], Some(&layer[1]), 1, KERNEL / 2, 1, 1)?
            .f_gelu("none")?
            .f_mul(&there)?;
    }
    values.f_transpose(1, 2)
}

/// The mean over the bases that are there: `[B, bases, d]` to `[B, d]`.
fn mean(values: &Tensor, there: &Tensor) -> Result<Tensor, TchError> {
    let sum = values.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?;
    let bases = there.f_sum_dim_intlist([1_i64].as_slice(), true, Kind::Float)?.f_clamp_min(1.0)?;
    sum.f_div(&bases)
}
