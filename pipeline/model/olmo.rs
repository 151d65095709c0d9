//! OLMo-1 and OLMo-2: decoders without biases, with rotary positions and a gated feed-forward branch.
//!
//! Shapes in comments: B rows, T tokens, d width, H query heads, K key and value heads, D head width, V ids.

use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::config::{Config, Family};
use super::rotary::Rotary;
use super::weights::{Error, Weights};
use crate::loader::IGNORED;

/// No class weights, no mask: tch wants a type for what is absent.
const NONE: Option<&Tensor> = None;

/// A model and its weights on one device.
#[derive(Debug)]
pub struct Olmo {
    config: Config,
    weights: Weights,
    rotary: Rotary,
    device: Device,
}

/// Views of one layer's tensors; the norms are OLMo-2's.
struct Layer<'a> {
    qkv: &'a Tensor,
    output: &'a Tensor,
    gate_up: &'a Tensor,
    down: &'a Tensor,
    norms: Option<[&'a Tensor; 4]>,
}

impl Olmo {
    /// A model with these weights.
    pub fn new(config: Config, weights: Weights, device: Device) -> Result<Self, Error> {
        let (context, head_width) = (config.context.into(), config.head_width().into());
        let rotary = Rotary::new(context, head_width, config.rope_theta, device)?;
        Ok(Self { config, weights, rotary, device })
    }

    /// The same model, with gradients wanted for every weight.
    pub fn require_gradients(self) -> Result<Self, Error> {
        Ok(Self { weights: self.weights.require_gradients()?, ..self })
    }

    /// What it looks like.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Its weights.
    pub const fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Its weights, to be changed in place.
    pub const fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// Where it computes.
    pub const fn device(&self) -> Device {
        self.device
    }

    /// The last layer's values for token ids: `[B, T]` to `[B, T, d]`. A position sees itself and those before it.
    pub fn hidden(&self, ids: &Tensor) -> Result<Tensor, TchError> {
        let embedding = &self.weights.tensors()[0];
        let mut x = Tensor::f_embedding(embedding, ids, -1, false, false)?;
        for layer in self.layers() {
            x = self.layer(&layer, &x)?;
        }
        match self.config.family {
            Family::Olmo => self.layer_norm(&x),
            Family::Olmo2 => self.rms_norm(&x, &self.weights.tensors()[self.first_after_layers()]),
        }
    }

    /// Scores of every id of the vocabulary: `[.., d]` to `[.., V]`. The padding of the head is never computed.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        let tensors = self.weights.tensors();
        let head = if self.config.tied_head { &tensors[0] } else { &tensors[tensors.len() - 1] };
        hidden.f_linear(&head.f_narrow(0, 0, self.config.vocabulary.into())?, NONE)
    }

    /// Losses in nats, `-ln p`, of `targets` given `ids`, both `[B, T]`: `[B, T]`, 0 where nothing is predicted.
    pub fn nats(&self, ids: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
        let logits = self.logits(&self.hidden(ids)?)?.f_to_kind(Kind::Float)?.f_flatten(0, 1)?;
        logits
            .f_cross_entropy_loss(&targets.f_flatten(0, 1)?, NONE, Reduction::None, IGNORED, 0.0)?
            .f_view_as(targets)
    }

    /// Index of the first tensor after the layers.
    fn first_after_layers(&self) -> usize {
        1 + self.config.layers as usize * self.tensors_per_layer()
    }

    const fn tensors_per_layer(&self) -> usize {
        match self.config.family {
            Family::Olmo => 4,
            Family::Olmo2 => 8,
        }
    }

    fn layers(&self) -> impl Iterator<Item = Layer<'_>> {
        self.weights.tensors()[1..self.first_after_layers()]
            .chunks_exact(self.tensors_per_layer())
            .map(Layer::of)
    }

    /// `[B, T, d]` to `[B, T, d]`.
    fn layer(&self, layer: &Layer<'_>, x: &Tensor) -> Result<Tensor, TchError> {
        match layer.norms {
            None => {
                let x = x.f_add(&self.attention(layer, &self.layer_norm(x)?)?)?;
                x.f_add(&feed_forward(layer, &self.layer_norm(&x)?)?)
            }
            Some([_, _, after_attention, after_feed_forward]) => {
                let x = x.f_add(&self.rms_norm(&self.attention(layer, x)?, after_attention)?)?;
                x.f_add(&self.rms_norm(&feed_forward(layer, &x)?, after_feed_forward)?)
            }
        }
    }

    fn attention(&self, layer: &Layer<'_>, x: &Tensor) -> Result<Tensor, TchError> {
        let (query_heads, heads) = (i64::from(self.config.heads), i64::from(self.config.kv_heads));
        let (q, k, v) = self.queries_keys_values(layer, x)?;
        let qk = Tensor::f_cat(&[q, k], -1)?;
        let qk = self.rotary.turn(&self.split_heads(&qk)?)?; // [B, H + K, T, D]
        let (q, k) = (qk.f_narrow(1, 0, query_heads)?, qk.f_narrow(1, query_heads, heads)?);
        let grouped = query_heads != heads;
        let v = self.split_heads(&v)?;
        Tensor::f_scaled_dot_product_attention(&q, &k, &v, NONE, 0.0, true, None, grouped)?
            .f_transpose(1, 2)?
            .f_reshape(x.size())?
            .f_linear(layer.output, NONE)
    }

    /// `[B, T, H D]`, `[B, T, K D]` and `[B, T, K D]`, clipped or normed where the model does so.
    fn queries_keys_values(
        &self,
        layer: &Layer<'_>,
        x: &Tensor,
    ) -> Result<(Tensor, Tensor, Tensor), TchError> {
        let (width, kv) = (i64::from(self.config.width), i64::from(self.config.kv_width()));
        let mut qkv = x.f_linear(layer.qkv, NONE)?;
        if let Some(limit) = self.config.clip_qkv {
            qkv = qkv.f_clamp(-limit, limit)?;
        }
        let (q, k, v) =
            (qkv.f_narrow(-1, 0, width)?, qkv.f_narrow(-1, width, kv)?, qkv.f_narrow(-1, width + kv, kv)?);
        Ok(match layer.norms {
            None => (q, k, v),
            Some([q_norm, k_norm, ..]) => (self.rms_norm(&q, q_norm)?, self.rms_norm(&k, k_norm)?, v),
        })
    }

    /// `[B, T, heads D]` to `[B, heads, T, D]`.
    fn split_heads(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_unflatten(-1, [-1, i64::from(self.config.head_width())])?.f_transpose(1, 2)
    }

    fn layer_norm(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_layer_norm([i64::from(self.config.width)], NONE, NONE, self.config.norm_epsilon, true)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
        x.f_rms_norm(weight.size(), Some(weight), self.config.norm_epsilon)
    }
}

impl<'a> Layer<'a> {
    fn of(tensors: &'a [Tensor]) -> Self {
        let norms = (tensors.len() == 8).then(|| [&tensors[4], &tensors[5], &tensors[6], &tensors[7]]);
        Self { qkv: &tensors[0], output: &tensors[1], gate_up: &tensors[2], down: &tensors[3], norms }
    }
}

/// `down(silu(gate x) * up x)`.
fn feed_forward(layer: &Layer<'_>, x: &Tensor) -> Result<Tensor, TchError> {
    let gate_up = x.f_linear(layer.gate_up, NONE)?.f_chunk(2, -1)?;
    gate_up[0].f_silu()?.f_mul(&gate_up[1])?.f_linear(layer.down, NONE)
}
