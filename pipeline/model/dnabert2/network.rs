//! What a DNABERT-2 computes, as published, without dropout.
//!
//! Shapes in comments: B rows, T tokens, d width, H heads, D head width, V ids. Memory beside activations: `H T^2` values
//! of what distance costs, with padding `B H T^2`.

use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::layout::WORDS;
use super::{Config, Heads};
use crate::fs;
use crate::loader::IGNORED;
use crate::model::device;
use crate::model::published::Published;
use crate::model::weights::{Described, Error, Weights, started};

/// No bias, no class weights: tch wants a type for what is absent.
const NONE: Option<&Tensor> = None;
/// What is added to the scores of padding.
const UNSEEN: f64 = -10_000.0;
/// Tensors before the first layer, and of each layer.
const EMBEDDING: usize = 4;
const LAYER: usize = 11;
/// The epsilon of the masked head's norm, whatever the model's is.
const HEAD_EPSILON: f64 = 1e-12;

/// A model and its weights on one device.
#[derive(Debug)]
pub struct Dnabert2 {
    config: Config,
    heads: Heads,
    weights: Weights,
    device: Device,
}

/// What a model is asked.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Token ids, `[B, T]`.
    pub ids: &'a Tensor,
    /// 1 where there is a token and 0 where there is padding, `[B, T]`; without it all are tokens.
    pub valid: Option<&'a Tensor>,
    /// The kind of sequence that each token belongs to, `[B, T]`; without it the first.
    pub types: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(ids: &'a Tensor) -> Self {
        Self { ids, valid: None, types: None }
    }
}

impl Dnabert2 {
    /// A model with fresh weights, a function of its shape and `seed` alone.
    pub fn random(config: Config, heads: Heads, seed: u64, device: Device) -> Result<Self, Error> {
        let weights = Weights::fresh(config.parameters(heads), seed, device)?;
        Ok(Self::new(config, heads, weights, device))
    }

    /// A model with these weights, which lie on `device`.
    pub const fn new(config: Config, heads: Heads, weights: Weights, device: Device) -> Self {
        Self { config, heads, weights, device }
    }

    /// The same model again, for another thread: the weights are shared.
    #[must_use]
    pub fn share(&self) -> Self {
        Self::new(self.config.clone(), self.heads, self.weights.share(), self.device)
    }

    /// The model of the safetensors file `path`, with the heads that are in there; a name that is missing, surplus or of
    /// another shape is refused.
    pub fn read(config: Config, path: &Path, device: Device) -> Result<Self, Error> {
        Self::of_bytes(config, path, &fs::read(path)?, device)
    }

    /// The same of the bytes of the file.
    pub(super) fn of_bytes(config: Config, path: &Path, bytes: &[u8], device: Device) -> Result<Self, Error> {
        let file = open(path, bytes)?;
        check_vocabulary(&config, path, &file)?;
        let heads = heads_of(&file);
        let model = Described { path, name: config.to_string(), hint: String::new(), device };
        let weights = Weights::of_published(&file, config.parameters(heads), &[], &model)?;
        Ok(Self { config, heads, weights, device })
    }

    /// The same model with a fresh pooler where it had none.
    pub fn with_pooler(self, seed: u64) -> Result<Self, Error> {
        let heads = Heads { pooler: true, ..self.heads };
        let kept = self.config.parameters(self.heads).into_iter().zip(self.weights.tensors());
        let kept = kept.collect::<Vec<_>>();
        let weights = Weights::build(self.config.parameters(heads), |index, parameter| {
            match kept.iter().find(|(before, _)| before == parameter) {
                Some((_, tensor)) => Ok(tensor.shallow_clone()),
                None => started(index, parameter, seed, self.device),
            }
        })?;
        Ok(Self { config: self.config, heads, weights, device: self.device })
    }

    /// The same model, with gradients wanted for every weight.
    pub fn require_gradients(self) -> Result<Self, Error> {
        Ok(Self { weights: self.weights.require_gradients()?, ..self })
    }

    /// The same model with other weights, one for each of these.
    #[must_use]
    pub fn with_tensors(&self, tensors: Vec<Tensor>) -> Self {
        let (config, weights) = (self.config.clone(), self.weights.with_tensors(tensors));
        Self { config, heads: self.heads, weights, device: self.device }
    }

    /// What it looks like.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What stands on it.
    pub const fn heads(&self) -> Heads {
        self.heads
    }

    /// Its weights.
    pub const fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Its weights, to be changed in place.
    pub const fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// `config.json` and all tensors of a folder that the published classes read.
    pub fn published(&self) -> Result<(Value, Vec<(String, Tensor)>), Error> {
        Ok((self.config.to_json(), self.weights.stored()?))
    }

    /// Where it computes.
    pub const fn device(&self) -> Device {
        self.device
    }

    /// The last layer's values: `[B, T]` to `[B, T, d]`, 0 at padding. A position sees all that are no padding.
    pub fn hidden(&self, input: Input<'_>) -> Result<Tensor, TchError> {
        self.hidden_at(input, None)
    }

    /// The same, where nobody wants others than those of `places`, counted over the batch, if there are some: those are 0.
    pub(in crate::model) fn hidden_at(
        &self,
        input: Input<'_>,
        places: Option<&Tensor>,
    ) -> Result<Tensor, TchError> {
        let bias = self.bias(input)?;
        let mut x = self.embedded(input)?;
        let last = self.config.layers as usize - 1;
        for layer in 0..last {
            x = self.layer(layer, &x, &bias, None)?;
        }
        x = self.layer(last, &x, &bias, places)?;
        match input.valid {
            None => Ok(x),
            Some(valid) => x.f_mul(&valid.f_unsqueeze(-1)?.f_to_kind(x.kind())?),
        }
    }

    /// Scores of every id where a token is masked: `[.., d]` to `[.., V]`.
    pub fn masked_logits(&self, hidden: &Tensor) -> Result<Tensor, Error> {
        let all = self.weights.tensors();
        let Some([dense, dense_bias, norm, norm_bias, decoder_bias]) = self.masked_head() else {
            return Err(Error::Head("cls.predictions"));
        };
        let x = hidden.f_linear(dense, Some(dense_bias))?.f_gelu("none")?;
        let x = self.norm(&x, [norm, norm_bias], HEAD_EPSILON)?;
        Ok(x.f_linear(&all[0], Some(decoder_bias))?)
    }

    /// The mean loss in nats of the ids `labels`, `[B, T]`, where they are not [`IGNORED`]; not a number where all are.
    /// Scores of other positions are never computed.
    pub fn masked_loss(&self, hidden: &Tensor, labels: &Tensor) -> Result<Tensor, Error> {
        let (logits, labels) = self.asked(hidden, labels, &places_asked(labels)?)?;
        Ok(logits.f_cross_entropy_loss(&labels, NONE, Reduction::Mean, IGNORED, 0.0)?)
    }

    /// What `each` makes of the scores and ids where `labels`, `[B, T]` or `[N]`, are not [`IGNORED`], in its place, and 0 elsewhere:
    /// each of their shape. Scores of other positions are never computed. `places` are where that is, if somebody knows.
    pub(in crate::model) fn where_asked<const N: usize>(
        &self,
        hidden: &Tensor,
        labels: &Tensor,
        places: Option<&Tensor>,
        each: impl Fn(&Tensor, &Tensor) -> Result<[Tensor; N], TchError>,
    ) -> Result<[Tensor; N], Error> {
        let places = places.map_or_else(|| places_asked(labels), |places| Ok(places.shallow_clone()))?;
        let (logits, ids) = self.asked(hidden, labels, &places)?;
        let zeros =
            || Tensor::f_zeros([labels.numel().try_into().unwrap_or(i64::MAX)], (Kind::Float, self.device));
        let mut all = each(&logits, &ids)?;
        for values in &mut all {
            *values = zeros()?.f_index_copy(0, &places, values)?.f_view_as(labels)?;
        }
        Ok(all)
    }

    /// The scores at `places`, counted over the batch, f32, and the ids there.
    fn asked(&self, hidden: &Tensor, labels: &Tensor, places: &Tensor) -> Result<(Tensor, Tensor), Error> {
        let hidden = hidden.f_reshape([-1, self.config.width.into()])?.f_index_select(0, places)?;
        let logits = self.masked_logits(&hidden)?.f_to_kind(Kind::Float)?;
        Ok((logits, labels.f_reshape([-1])?.f_index_select(0, places)?))
    }

    /// What the pooler makes of the first position: `[B, T, d]` to `[B, d]`.
    pub fn pooled(&self, hidden: &Tensor) -> Result<Tensor, Error> {
        let places = self.heads.pooler.then(|| self.after_masked_head()).ok_or(Error::Head("bert.pooler"))?;
        let [dense, bias] = [0, 1].map(|i| &self.weights.tensors()[places + i]);
        Ok(hidden.f_select(1, 0)?.f_linear(dense, Some(bias))?.f_tanh()?)
    }

    /// Scores of the classes: `[B, d]`, pooled, to `[B, C]`.
    pub fn class_logits(&self, pooled: &Tensor) -> Result<Tensor, Error> {
        match (self.heads.classes, self.weights.tensors()) {
            (Some(_), [.., weight, bias]) => Ok(pooled.f_linear(weight, Some(bias))?),
            _ => Err(Error::Head("classifier")),
        }
    }

    fn layers_end(&self) -> usize {
        EMBEDDING + self.config.layers as usize * LAYER
    }

    fn after_masked_head(&self) -> usize {
        self.layers_end() + if self.heads.masked { 5 } else { 0 }
    }

    fn masked_head(&self) -> Option<[&Tensor; 5]> {
        let first = self.layers_end();
        self.heads.masked.then(|| [0, 1, 2, 3, 4].map(|i| &self.weights.tensors()[first + i]))
    }

    fn embedded(&self, input: Input<'_>) -> Result<Tensor, TchError> {
        let [words, types, norm, norm_bias] = [0, 1, 2, 3].map(|i| &self.weights.tensors()[i]);
        let words =
            Tensor::f_embedding(words, input.ids, self.config.pad.map_or(-1, i64::from), false, false)?;
        let types = match input.types {
            Some(ids) => Tensor::f_embedding(types, ids, -1, false, false)?,
            None => types.f_select(0, 0)?,
        };
        self.norm(&words.f_add(&types)?, [norm, norm_bias], self.config.norm_epsilon)
    }

    /// What is added to scores, `[1 or B, H, T, T]`: distance times each head's slope, and what hides padding.
    fn bias(&self, input: Input<'_>) -> Result<Tensor, TchError> {
        let slopes = Tensor::f_from_slice(&self.config.slopes())?.f_to_kind(Kind::Float)?;
        let slopes = device::sent(&slopes, self.device)?.f_reshape([1, -1, 1, 1])?;
        let at = Tensor::f_arange(input.ids.size()[1], (Kind::Float, self.device))?;
        let distance = at.f_unsqueeze(0)?.f_sub(&at.f_unsqueeze(1)?)?.f_abs()?;
        let bias = distance.f_mul(&slopes)?.f_neg()?;
        let Some(valid) = input.valid else { return Ok(bias) };
        let padding = valid.f_to_kind(Kind::Float)?.f_neg()?.f_add_scalar(1.0)?.f_mul_scalar(UNSEEN)?;
        bias.f_add(&padding.f_unsqueeze(1)?.f_unsqueeze(1)?)
    }

    /// Layer `layer`: `[B, T, d]` to `[B, T, d]`, 0 at other places than `places`, if there are some.
    fn layer(
        &self,
        layer: usize,
        x: &Tensor,
        bias: &Tensor,
        places: Option<&Tensor>,
    ) -> Result<Tensor, TchError> {
        let first = EMBEDDING + layer * LAYER;
        let at = |place: usize| &self.weights.tensors()[first + place];
        let epsilon = self.config.norm_epsilon;
        let (all, seen) = (x, self.attention([at(0), at(1)], x, bias)?);
        let chosen = |values: &Tensor| match places {
            Some(places) => values.f_flatten(0, 1)?.f_index_select(0, places),
            None => Ok(values.shallow_clone()),
        };
        let seen = chosen(&seen)?.f_linear(at(2), Some(at(3)))?;
        let x = self.norm(&seen.f_add(&chosen(all)?)?, [at(4), at(5)], epsilon)?;
        let gate_and_value = x.f_linear(at(6), NONE)?.f_chunk(2, -1)?;
        let inner = gate_and_value[0].f_gelu("none")?.f_mul(&gate_and_value[1])?;
        let x = self.norm(&inner.f_linear(at(7), Some(at(8)))?.f_add(&x)?, [at(9), at(10)], epsilon)?;
        let Some(places) = places else { return Ok(x) };
        all.f_flatten(0, 1)?.f_zeros_like()?.f_index_copy(0, places, &x)?.f_view_as(all)
    }

    fn attention(
        &self,
        [qkv, qkv_bias]: [&Tensor; 2],
        x: &Tensor,
        bias: &Tensor,
    ) -> Result<Tensor, TchError> {
        let heads = i64::from(self.config.heads);
        let qkv = x.f_linear(qkv, Some(qkv_bias))?.f_unflatten(-1, [3, heads, -1])?;
        let qkv = qkv.f_permute([2, 0, 3, 1, 4])?; // [3, B, H, T, D]
        let (q, k, v) = (qkv.f_select(0, 0)?, qkv.f_select(0, 1)?, qkv.f_select(0, 2)?);
        Tensor::f_scaled_dot_product_attention(&q, &k, &v, Some(bias), 0.0, false, None, false)?
            .f_transpose(1, 2)?
            .f_reshape(x.size())
    }

    fn norm(&self, x: &Tensor, [weight, bias]: [&Tensor; 2], epsilon: f64) -> Result<Tensor, TchError> {
        x.f_layer_norm([i64::from(self.config.width)], Some(weight), Some(bias), epsilon, true)
    }
}

/// Where something is asked, counted over the batch: where `labels`, `[B, T]` or `[N]`, are not [`IGNORED`].
fn places_asked(labels: &Tensor) -> Result<Tensor, TchError> {
    labels.f_reshape([-1])?.f_ne(IGNORED)?.f_nonzero()?.f_flatten(0, 1)
}

/// A name as the published classes have it: other trainers put `model.` or `module.` before it.
fn published(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    name.strip_prefix("module.").unwrap_or(name).to_owned()
}

pub(super) fn open<'a>(path: &Path, bytes: &'a [u8]) -> Result<Published<'a>, Error> {
    let format = |source| Error::Format { path: path.to_owned(), source };
    Published::new(bytes, published).map_err(format)
}

/// The heads of which anything is in the file.
fn heads_of(file: &Published<'_>) -> Heads {
    let classes = file.size("classifier.weight", 0);
    let bias = || file.has("classifier.").then_some(1);
    Heads { masked: file.has("cls."), pooler: file.has("bert.pooler."), classes: classes.or_else(bias) }
}

/// Refuses an embedding that fits but for the number of its rows.
fn check_vocabulary(config: &Config, path: &Path, file: &Published<'_>) -> Result<(), Error> {
    match file.shape(WORDS).as_deref() {
        Some([found, width])
            if *width == u64::from(config.width) && *found != u64::from(config.vocabulary) =>
        {
            Err(Error::Vocabulary {
                path: path.to_owned(),
                found: *found,
                expected: config.vocabulary.into(),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dnabert2::Preset;

    fn model() -> Dnabert2 {
        let config = Preset::Small300k.config(100, Some(3)).unwrap();
        let heads = Heads { masked: true, ..Heads::default() };
        Dnabert2::random(config, heads, 3, Device::Cpu).unwrap()
    }

    fn ids(rows: i64, tokens: i64) -> Tensor {
        let id = |i| 4 + i * 37 % 96;
        Tensor::from_slice(&(0..rows * tokens).map(id).collect::<Vec<i64>>()).view([rows, tokens])
    }

    fn largest(x: &Tensor) -> f64 {
        x.abs().max().double_value(&[])
    }

    #[test]
    fn what_is_padding_changes_nothing() {
        let model = model();
        let (short, long) = (ids(2, 12), Tensor::full([2, 20], 3, (Kind::Int64, Device::Cpu)));
        long.narrow(1, 0, 12).copy_(&short);
        let valid = long.ne(3);
        let alone = model.hidden(Input::from(&short)).unwrap();
        let padded = model.hidden(Input { valid: Some(&valid), ..Input::from(&long) }).unwrap();
        let off = largest(&(padded.narrow(1, 0, 12) - &alone));
        assert!(off < 2e-5, "padding changes values by {off}");
        assert!(padded.narrow(1, 12, 8).equal(&padded.narrow(1, 12, 8).zeros_like()));
        let seen = model.hidden(Input::from(&long)).unwrap();
        assert!(largest(&(seen.narrow(1, 0, 12) - alone)) > 1e-3, "padding is hidden where nobody asked");
    }

    #[test]
    fn the_last_layer_is_computed_where_it_is_asked() {
        let model = model().require_gradients().unwrap();
        let (ids, labels) = (ids(3, 10), Tensor::full([3, 10], IGNORED, (Kind::Int64, Device::Cpu)));
        let asked = [(0, 2), (1, 0), (2, 9)];
        for (row, position) in asked {
            let _asked = labels.get(row).narrow(0, position, 1).fill_(7);
        }
        let places = places_asked(&labels).unwrap();
        assert_eq!(Vec::<i64>::try_from(&places).unwrap(), [2, 10, 29]);
        let (all, some) = (None, Some(&places));
        let [all, some] = [all, some].map(|places| model.hidden_at(Input::from(&ids), places).unwrap());
        let chosen = |x: &Tensor| x.flatten(0, 1).index_select(0, &places);
        assert!(largest(&(chosen(&all) - chosen(&some))) < 1e-6);
        let sums = some.flatten(0, 1).abs().sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
        assert_eq!(sums.nonzero().flatten(0, 1), places);
        let weights = model.weights().tensors();
        let gradients = |x: &Tensor| {
            Tensor::run_backward(&[model.masked_loss(x, &labels).unwrap()], weights, false, false)
        };
        for (place, (all, some)) in gradients(&all).iter().zip(gradients(&some)).enumerate() {
            assert!(largest(&(all - some)) < 1e-6, "tensor {place}");
        }
    }

    #[test]
    fn every_position_sees_every_other_and_the_near_ones_more() {
        let model = model();
        let before = model.hidden(Input::from(&ids(1, 32))).unwrap();
        let changed = ids(1, 32);
        let _changed = changed.narrow(1, 16, 1).fill_(99);
        let moved = (model.hidden(Input::from(&changed)).unwrap() - before).square();
        let moved = moved.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Double);
        let at = |position: i64| moved.double_value(&[0, position]);
        assert!((0..32).all(|position| at(position) > 0.0));
        assert!(at(15) > at(0) && at(17) > at(31), "{} {} {} {}", at(15), at(0), at(17), at(31));
    }

    #[test]
    fn the_first_loss_is_that_of_guessing_and_only_labels_count() {
        let model = model();
        let hidden = model.hidden(Input::from(&ids(2, 32))).unwrap();
        let labels = Tensor::full([2, 32], IGNORED, (Kind::Int64, Device::Cpu));
        labels.narrow(1, 4, 9).copy_(&ids(2, 9));
        let loss = model.masked_loss(&hidden, &labels).unwrap().double_value(&[]);
        assert!((loss - f64::ln(100.0)).abs() < 0.1, "{loss}");
        let logits = model.masked_logits(&hidden.narrow(1, 4, 9)).unwrap().flatten(0, 1);
        let expected = logits.cross_entropy_for_logits(&ids(2, 9).flatten(0, 1)).double_value(&[]);
        assert!((loss - expected).abs() < 1e-6, "{loss}, expected {expected}");
    }

    #[test]
    fn a_pooler_is_added_and_what_was_there_stays() {
        let model = model();
        let error = model.pooled(&Tensor::zeros([1, 2, 64], (Kind::Float, Device::Cpu))).unwrap_err();
        assert!(error.to_string().contains("no `bert.pooler`"), "{error}");
        let before = model.weights().tensors().iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
        let model = model.with_pooler(5).unwrap();
        assert!(before.iter().zip(model.weights().tensors()).all(|(a, b)| a.equal(b)));
        let pooled = model.pooled(&model.hidden(Input::from(&ids(2, 8))).unwrap()).unwrap();
        assert_eq!(pooled.size(), [2, 64]);
        let tensors = model.weights().tensors().iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
        let again = model.with_pooler(6).unwrap();
        assert!(tensors.iter().zip(again.weights().tensors()).all(|(a, b)| a.equal(b)), "it had one");
    }
}
