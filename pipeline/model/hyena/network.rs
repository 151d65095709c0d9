//! HyenaDNA's forward pass, f32 throughout.
//!
//! Shapes in comments: B rows, L tokens, d width, F features of a position, V rows of the embedding. Memory: what one
//! layer computes, a small multiple of B L d values, or with gradients what all do. Filters, L d values, are made anew
//! for every layer and input.

use std::f64::consts::TAU;
use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind, TchError, Tensor};

use super::config::Config;
use super::layout::PER_LAYER;
use super::weights;
use crate::model::hf::WEIGHTS;
use crate::model::weights::{Error, Weights};

/// What a filter keeps where it has decayed.
const SHIFT: f64 = 0.05;
/// The slowest and the fastest filter have decayed to `TARGET` at these parts of the longest input.
const DECAYED: [f64; 2] = [1.5, 0.3];
/// See [`DECAYED`].
const TARGET: f64 = 1e-2;

/// A model and its weights on one device.
#[derive(Debug)]
pub struct Hyena {
    config: Config,
    weights: Weights,
    tables: Tables,
    device: Device,
}

/// What filters are told of positions; a function of the configuration alone.
#[derive(Debug)]
pub(super) struct Tables {
    /// Parts of the longest input, `[longest, 1]`.
    times: Tensor,
    /// `[longest, F]`.
    features: Tensor,
    /// How fast each filter decays, `[d]`.
    deltas: Tensor,
}

/// A matrix or the like, and what is added afterwards.
type Affine<'a> = [&'a Tensor; 2];

/// Views of one layer's tensors.
struct Layer<'a> {
    in_proj: Affine<'a>,
    out_proj: Affine<'a>,
    short: Affine<'a>,
    skip: &'a Tensor,
    filter: Filter<'a>,
    norms: [Affine<'a>; 2],
    feed_forward: [Affine<'a>; 2],
}

/// The network that makes a layer's filters.
struct Filter<'a> {
    hidden: [Affine<'a>; 3],
    frequency: &'a Tensor,
    last: &'a Tensor,
}

impl Hyena {
    /// A model with these weights, which lie on `device`.
    pub fn new(config: Config, weights: Weights, device: Device) -> Result<Self, Error> {
        let tables = Tables::new(&config, device)?;
        Ok(Self { config, weights, tables, device })
    }

    /// The model of `folder`: `config.json` with the published keys, and `model.safetensors`.
    pub fn read(folder: &Path, device: Device) -> Result<Self, Error> {
        let config = Config::read(folder)?;
        let weights = weights::read(&config, &folder.join(WEIGHTS), device)?;
        Self::new(config, weights, device)
    }

    /// The same model, with gradients wanted for every weight.
    pub fn require_gradients(self) -> Result<Self, Error> {
        Ok(Self { weights: self.weights.require_gradients()?, ..self })
    }

    /// The same model with other weights, one for each of these.
    #[must_use]
    pub fn with_tensors(&self, tensors: Vec<Tensor>) -> Self {
        Self { weights: self.weights.with_tensors(tensors), ..self.share() }
    }

    /// The same model again, for another thread: the weights are shared.
    #[must_use]
    pub fn share(&self) -> Self {
        let (weights, tables) = (self.weights.share(), self.tables.share());
        Self { config: self.config.clone(), weights, tables, device: self.device }
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

    /// `config.json` and all tensors of a folder that the published class reads.
    pub fn published(&self) -> Result<(Value, Vec<(String, Tensor)>), Error> {
        Ok((self.config.to_json(), weights::stored(&self.config, &self.weights)?))
    }

    /// Where it computes.
    pub const fn device(&self) -> Device {
        self.device
    }

    /// The values behind the last norm for token ids: `[B, L]` to `[B, L, d]`. A position sees itself and those before
    /// it, padding among them. Refuses more tokens than the positions that the weights were made for.
    pub fn hidden(&self, ids: &Tensor) -> Result<Tensor, Error> {
        let found = ids.size().get(1).copied().unwrap_or(0);
        if !(1..=i64::from(self.config.longest)).contains(&found) {
            return Err(Error::Length { found, longest: self.config.longest });
        }
        let mut x = Tensor::f_embedding(self.embedding(), ids, -1, false, false)?;
        for tensors in self.layers() {
            x = self.layer(&Layer::of(tensors), &x)?;
        }
        Ok(self.norm(self.last_norm(), &x)?)
    }

    /// Scores of every row of the embedding, the padding of the vocabulary included: `[.., d]` to `[.., V]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        hidden.f_linear(self.embedding(), None::<&Tensor>)
    }

    /// Scores of classes, by the mean over all positions, padding included: `[B, L, d]` to `[B, classes]`. None
    /// without a head for classes.
    pub fn class_scores(&self, hidden: &Tensor) -> Result<Option<Tensor>, TchError> {
        let [weight, bias] = &self.weights.tensors()[self.layers_end() + 2..] else { return Ok(None) };
        affine(&hidden.f_mean_dim(1, false, Kind::Float)?, [weight, bias]).map(Some)
    }

    /// The filters of layer `layer` for inputs of `length` tokens, `[length, d]`.
    pub fn filters(&self, layer: u32, length: u32) -> Result<Tensor, Error> {
        if !(1..=self.config.longest).contains(&length) {
            return Err(Error::Length { found: length.into(), longest: self.config.longest });
        }
        let tensors = self.layers().nth(layer as usize);
        let tensors = tensors.ok_or_else(|| TchError::Shape(format!("the model has no layer {layer}")))?;
        Ok(self.filters_of(&Layer::of(tensors).filter, length.into())?)
    }

    fn embedding(&self) -> &Tensor {
        &self.weights.tensors()[0]
    }

    const fn layers_end(&self) -> usize {
        1 + self.config.layers as usize * PER_LAYER
    }

    /// The tensors of each layer.
    fn layers(&self) -> impl Iterator<Item = &[Tensor]> {
        self.weights.tensors()[1..self.layers_end()].chunks_exact(PER_LAYER)
    }

    fn last_norm(&self) -> Affine<'_> {
        [0, 1].map(|place| &self.weights.tensors()[self.layers_end() + place])
    }

    /// `[B, L, d]` to `[B, L, d]`.
    fn layer(&self, layer: &Layer<'_>, x: &Tensor) -> Result<Tensor, TchError> {
        let x = x.f_add(&self.operator(layer, &self.norm(layer.norms[0], x)?)?)?;
        let [up, down] = layer.feed_forward;
        let inner = affine(&self.norm(layer.norms[1], &x)?, up)?.f_gelu("tanh")?;
        x.f_add(&affine(&inner, down)?)
    }

    /// The Hyena operator: `[B, L, d]` to `[B, L, d]`.
    fn operator(&self, layer: &Layer<'_>, x: &Tensor) -> Result<Tensor, TchError> {
        let length = x.size()[1];
        let parts = affine(x, layer.in_proj)?.f_transpose(1, 2)?; // [B, 3 d, L]
        let parts = short_convolution(&parts, layer.short)?.f_chunk(3, 1)?;
        let [outer, inner, value] = [&parts[0], &parts[1], &parts[2]]; // [B, d, L]
        let filters = self.filters_of(&layer.filter, length)?.f_transpose(0, 1)?;
        let value = long_convolution(&value.f_mul(inner)?, &filters, layer.skip)?;
        affine(&value.f_mul(outer)?.f_transpose(1, 2)?, layer.out_proj)
    }

    /// `[length, d]`.
    fn filters_of(&self, filter: &Filter<'_>, length: i64) -> Result<Tensor, TchError> {
        let mut x = self.tables.features.f_narrow(0, 0, length)?;
        for hidden in filter.hidden {
            x = affine(&x, hidden)?.f_mul(filter.frequency)?.f_sin()?;
        }
        let times = self.tables.times.f_narrow(0, 0, length)?;
        let decay = times.f_neg()?.f_mul(&self.tables.deltas.f_abs()?)?.f_exp()?;
        x.f_linear(filter.last, None::<&Tensor>)?.f_mul(&decay.f_add_scalar(SHIFT)?)
    }

    fn norm(&self, [weight, bias]: Affine<'_>, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_layer_norm(weight.size(), Some(weight), Some(bias), self.config.norm_epsilon, true)
    }
}

impl Tables {
    /// The tables of `config`. Memory: `longest` times F and a few values.
    pub(super) fn new(config: &Config, device: Device) -> Result<Self, TchError> {
        let (longest, bands) = (i64::from(config.longest), i64::from((config.features - 1) / 2));
        let line = |from: f64, to: f64, steps| Tensor::f_linspace(from, to, steps, (Kind::Float, device));
        let times = line(0.0, 1.0, longest)?.f_unsqueeze(1)?;
        let turns = line(0.0, (longest - 1) as f64, longest)?.f_mul_scalar(TAU)?.f_div_scalar(longest)?;
        let frequencies = line(1e-4, (bands - 1) as f64, bands)?;
        let angles = turns.f_unsqueeze(1)?.f_mul(&frequencies)?;
        let features = Tensor::f_cat(&[&times, &angles.f_cos()?, &angles.f_sin()?.f_neg()?], 1)?;
        let [slowest, fastest] = DECAYED.map(|part| TARGET.ln() / part);
        Ok(Self { times, features, deltas: line(slowest, fastest, config.width.into())? })
    }

    fn share(&self) -> Self {
        let [times, features, deltas] = self.all().map(Tensor::shallow_clone);
        Self { times, features, deltas }
    }

    /// In the order of [`Config::tables`].
    pub(super) const fn all(&self) -> [&Tensor; 3] {
        [&self.times, &self.features, &self.deltas]
    }
}

impl<'a> Layer<'a> {
    /// In the order of [`Config::layout`].
    fn of(tensors: &'a [Tensor]) -> Self {
        let pair = |first: usize| [&tensors[first], &tensors[first + 1]];
        let filter =
            Filter { hidden: [pair(7), pair(10), pair(12)], frequency: &tensors[9], last: &tensors[14] };
        Self {
            in_proj: pair(0),
            out_proj: pair(2),
            short: pair(4),
            skip: &tensors[6],
            filter,
            norms: [pair(15), pair(21)],
            feed_forward: [pair(17), pair(19)],
        }
    }
}

fn affine(x: &Tensor, [weight, bias]: Affine<'_>) -> Result<Tensor, TchError> {
    x.f_linear(weight, Some(bias))
}

/// Each channel of `[B, C, L]` by itself: a position sees itself and a few before it.
fn short_convolution(x: &Tensor, [weight, bias]: Affine<'_>) -> Result<Tensor, TchError> {
    let (channels, length, seen) = (x.size()[1], x.size()[2], weight.size()[2]);
    x.f_conv1d(weight, Some(bias), 1, seen - 1, 1, channels)?.f_narrow(2, 0, length)
}

/// `x` `[B, d, L]` with `filters` `[d, L]`: a position sees itself and all before it; plus `x` times `skip` `[d]`.
/// Transforms have 2 L values, so that the end of a product does not reach its beginning.
fn long_convolution(x: &Tensor, filters: &Tensor, skip: &Tensor) -> Result<Tensor, TchError> {
    let length = x.size()[2];
    let size = 2 * length;
    let filters = filters.f_fft_rfft(size, -1, "backward")?.f_div_scalar(size)?;
    let product = x.f_fft_rfft(size, -1, "backward")?.f_mul(&filters)?;
    let y = product.f_fft_irfft(size, -1, "forward")?.f_narrow(-1, 0, length)?;
    y.f_add(&x.f_mul(&skip.f_unsqueeze(-1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern, from -0.5 to 0.5.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 997) as f32 / 997.0 - 0.5).collect()
    }

    #[test]
    fn the_long_convolution_is_the_plain_sum() {
        let (rows, width) = (2, 3);
        for length in [1_usize, 2, 7, 32, 101] {
            let (x, filter, skip) =
                (values(rows * width * length, 1), values(width * length, 2), values(width, 3));
            let mut expected = Vec::new();
            for (series, x) in x.chunks_exact(length).enumerate() {
                let channel = series % width;
                let filter = &filter[channel * length..][..length];
                expected.extend((0..length).map(|t| {
                    let sum: f32 = (0..=t).map(|before| x[t - before] * filter[before]).sum();
                    sum + x[t] * skip[channel]
                }));
            }
            let tensor = |values: &[f32], shape: &[usize]| {
                let shape = shape.iter().map(|&n| i64::try_from(n).unwrap()).collect::<Vec<_>>();
                Tensor::from_slice(values).view(&shape[..])
            };
            let found = long_convolution(
                &tensor(&x, &[rows, width, length]),
                &tensor(&filter, &[width, length]),
                &tensor(&skip, &[width]),
            );
            let found = Vec::<f32>::try_from(found.unwrap().reshape([-1])).unwrap();
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(
                    (found - expected).abs() < 1e-5,
                    "length {length}, value {index}: {found}, {expected}"
                );
            }
        }
    }
}
