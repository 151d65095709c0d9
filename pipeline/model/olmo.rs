//! OLMo-1 and OLMo-2: decoders without biases, with rotary positions and a gated feed-forward branch.
//!
//! Shapes in comments: B rows, T tokens, d width, H query heads, K key and value heads, D head width, V ids.

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use super::config::{Config, Family};
use super::rotary::Rotary;
use super::weights::{Error, Weights};
use super::{fused, loss};

/// No class weights, no mask: tch wants a type for what is absent.
const NONE: Option<&Tensor> = None;

/// A model and its weights on one device.
#[derive(Debug)]
pub struct Olmo {
    config: Config,
    weights: Weights,
    rotary: Rotary,
    device: Device,
    /// What products of matrices are computed in, [`Kind::Float`] or [`Kind::BFloat16`]; all else is f32.
    products: Kind,
    /// Whether kernels of our own are there for it.
    fused: bool,
}

/// Keys and values of the positions that a model has seen, so that they need not be computed again.
#[derive(Debug, Default)]
pub struct Cache {
    /// Keys and values of each layer, `[B, K, seen, D]`.
    layers: Vec<[Tensor; 2]>,
    seen: i64,
}

/// What positions see, and which they are.
#[derive(Default)]
struct Sight<'a> {
    /// What each sees; without it itself and all before it.
    mask: Option<&'a Tensor>,
    /// The first position.
    first: i64,
    /// Keys and values of the positions before; takes in those of these.
    past: Option<&'a mut Option<[Tensor; 2]>>,
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
        Ok(Self { config, weights, rotary, device, products: Kind::Float, fused: false })
    }

    /// The same model, with products of matrices (attention and the scores of the vocabulary too) in bf16. Its weights stay f32, and so do norms,
    /// the sums along the layers, and losses. On a GPU what lies between products is computed by kernels of our own, where they can be
    /// used, and the last layer's values come in bf16.
    #[must_use]
    pub fn in_bf16(self) -> Self {
        Self { products: Kind::BFloat16, fused: fused::ready(self.device).is_ok(), ..self }
    }

    /// The same model, with gradients wanted for every weight.
    pub fn require_gradients(self) -> Result<Self, Error> {
        Ok(Self { weights: self.weights.require_gradients()?, ..self })
    }

    /// The same model again, for another thread: the weights are shared.
    #[must_use]
    pub fn share(&self) -> Self {
        let (weights, rotary) = (self.weights.share(), self.rotary.share());
        Self { config: self.config.clone(), weights, rotary, ..*self }
    }

    /// The same model with other weights, one for each of these.
    #[must_use]
    pub fn with_tensors(&self, tensors: Vec<Tensor>) -> Self {
        Self { weights: self.weights.with_tensors(tensors), ..self.share() }
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
        self.hidden_where(ids, None)
    }

    /// The same where a position sees what `mask`, `[B, 1, T, T]`, lets it see, such as its own document.
    pub fn hidden_where(&self, ids: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
        let x = self.embedded(ids)?;
        if self.norms_as_it_adds() {
            return self.hidden_fused(&x, mask);
        }
        let layers = 0..self.config.layers as usize;
        let x = layers.into_iter().try_fold(x, |x, layer| self.layer(layer, &x, mask))?;
        self.last_norm(&x)
    }

    /// The same given the values before the first layer, where each sum and the norm behind it are one operation.
    fn hidden_fused(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
        let epsilon = self.config.norm_epsilon;
        let (mut x, mut normed) = (x.shallow_clone(), fused::norm(x, epsilon)?);
        for layer in 0..self.config.layers as usize {
            let layer = Layer::of(&self.weights.tensors()[self.places_of_layer(layer)]);
            let branch = self.attention(&layer, &normed, Sight { mask, ..Sight::default() })?;
            (x, normed) = fused::add_and_norm(&x, &branch, epsilon)?;
            (x, normed) = fused::add_and_norm(&x, &self.feed_forward(&layer, &normed)?, epsilon)?;
        }
        Ok(normed)
    }

    /// Whether a sum and the norm behind it are one operation: the norms have no weights then.
    const fn norms_as_it_adds(&self) -> bool {
        self.fused && matches!(self.config.family, Family::Olmo) && fused::norms(self.config.width as i64)
    }

    /// The same for ids that follow those in `cache`, which takes them in. Memory: the cache holds 2 values per layer,
    /// position and key or value.
    pub fn hidden_after(&self, ids: &Tensor, cache: &mut Cache) -> Result<Tensor, TchError> {
        let (first, time) = (cache.seen, ids.size()[1]);
        let mut x = self.embedded(ids)?;
        let mut before = std::mem::take(&mut cache.layers).into_iter();
        for layer in 0..self.config.layers as usize {
            let mut past = before.next();
            let sight = Sight { mask: None, first, past: Some(&mut past) };
            x = self.layer_seeing(layer, &x, sight)?;
            cache.layers.extend(past);
        }
        cache.seen += time;
        self.last_norm(&x)
    }

    /// Values of token ids before the first layer: `[B, T]` to `[B, T, d]`.
    pub(super) fn embedded(&self, ids: &Tensor) -> Result<Tensor, TchError> {
        Tensor::f_embedding(&self.weights.tensors()[0], ids, -1, false, false)
    }

    /// The norm after the last layer: `[B, T, d]` to `[B, T, d]`.
    pub(super) fn last_norm(&self, x: &Tensor) -> Result<Tensor, TchError> {
        match self.config.family {
            Family::Olmo => self.layer_norm(x),
            Family::Olmo2 => self.rms_norm(x, &self.weights.tensors()[self.places_of_layers().end]),
        }
    }

    /// Scores of every id of the vocabulary: `[.., d]` to `[.., V]`. The padding of the head is never computed.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        self.linear(hidden, &self.head().f_narrow(0, 0, self.config.vocabulary.into())?)
    }

    /// The head's weight, `[V, d]` with its padding: the embedding where it is tied.
    pub(super) fn head(&self) -> &Tensor {
        let tensors = self.weights.tensors();
        if self.config.tied_head { &tensors[0] } else { &tensors[tensors.len() - 1] }
    }

    /// Losses in nats, `-ln p`, of `targets` given `ids`, both `[B, T]`: `[B, T]`, 0 where nothing is predicted.
    pub fn nats(&self, ids: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
        self.nats_of(&self.hidden(ids)?, targets)
    }

    /// The same given the last layer's values, `[B, T, d]`.
    pub fn nats_of(&self, hidden: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
        loss::nats(&self.scores(hidden)?, targets)
    }

    /// The losses in nats, and the squares of the logarithms of what the scores of each position add up to (the z-loss
    /// before its coefficient): both `[B, T]`, 0 where nothing is predicted.
    pub fn nats_and_z(&self, hidden: &Tensor, targets: &Tensor) -> Result<[Tensor; 2], TchError> {
        loss::nats_and_z(&self.scores(hidden)?, targets)
    }

    /// Scores as losses take them: those of the padding, where they are there, are out of the question. A GPU multiplies matrices in
    /// bf16 far faster whose sizes 8 divides, as that of the padded head is.
    fn scores(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        let (all, seen) = (self.head().size()[0], i64::from(self.config.vocabulary));
        if !self.fused || all == seen {
            return self.logits(hidden);
        }
        let padding = Tensor::f_zeros([all], (Kind::Float, self.device))?;
        drop(padding.f_narrow(0, seen, all - seen)?.f_fill_(f64::NEG_INFINITY)?);
        self.linear(hidden, self.head())?.f_add(&padding)
    }

    /// Places of the layers' tensors among all.
    pub(super) fn places_of_layers(&self) -> Range<usize> {
        1..1 + self.config.layers as usize * self.tensors_per_layer()
    }

    /// Places of the tensors of one layer among all.
    pub(super) fn places_of_layer(&self, layer: usize) -> Range<usize> {
        let count = self.tensors_per_layer();
        1 + layer * count..1 + (layer + 1) * count
    }

    const fn tensors_per_layer(&self) -> usize {
        match self.config.family {
            Family::Olmo => 4,
            Family::Olmo2 => 8,
        }
    }

    /// Layer `layer`: `[B, T, d]` to `[B, T, d]`.
    pub(super) fn layer(&self, layer: usize, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
        self.layer_seeing(layer, x, Sight { mask, ..Sight::default() })
    }

    fn layer_seeing(&self, layer: usize, x: &Tensor, sight: Sight<'_>) -> Result<Tensor, TchError> {
        let layer = Layer::of(&self.weights.tensors()[self.places_of_layer(layer)]);
        match layer.norms {
            None if self.norms_as_it_adds() => {
                let epsilon = self.config.norm_epsilon;
                let branch = self.attention(&layer, &fused::norm(x, epsilon)?, sight)?;
                let (x, normed) = fused::add_and_norm(x, &branch, epsilon)?;
                x.f_add(&self.feed_forward(&layer, &normed)?)
            }
            None => {
                let x = x.f_add(&self.attention(&layer, &self.layer_norm(x)?, sight)?)?;
                x.f_add(&self.feed_forward(&layer, &self.layer_norm(&x)?)?)
            }
            Some([_, _, after_attention, after_feed_forward]) => {
                let x = x.f_add(&self.rms_norm(&self.attention(&layer, x, sight)?, after_attention)?)?;
                x.f_add(&self.rms_norm(&self.feed_forward(&layer, &x)?, after_feed_forward)?)
            }
        }
    }

    fn attention(&self, layer: &Layer<'_>, x: &Tensor, mut sight: Sight<'_>) -> Result<Tensor, TchError> {
        let (query_heads, heads) = (i64::from(self.config.heads), i64::from(self.config.kv_heads));
        let [q, k, v] = self.queries_keys_values(layer, x, sight.first)?;
        let grouped = query_heads != heads;
        let (k, v) = sight.with_past(k, v)?;
        let later = sight.mask.is_none().then(|| self.after(q.size()[2], k.size()[2])).transpose()?.flatten();
        let mask = sight.mask.or(later.as_ref());
        let seen =
            Tensor::f_scaled_dot_product_attention(&q, &k, &v, mask, 0.0, mask.is_none(), None, grouped)?;
        self.linear(&seen.f_transpose(1, 2)?.f_reshape(x.size())?, layer.output)
    }

    /// Queries, `[B, H, T, D]`, and keys and values, `[B, K, T, D]`, clipped or normed where the model does so; queries and keys turned
    /// by their positions.
    fn queries_keys_values(
        &self,
        layer: &Layer<'_>,
        x: &Tensor,
        first: i64,
    ) -> Result<[Tensor; 3], TchError> {
        let (query_heads, heads) = (i64::from(self.config.heads), i64::from(self.config.kv_heads));
        let mut qkv = self.linear(x, layer.qkv)?;
        if let Some(limit) = self.config.clip_qkv {
            qkv = qkv.f_clamp(-limit, limit)?;
        }
        if self.fused && layer.norms.is_none() && fused::turns(self.config.head_width().into()) {
            let [q, k, v] = fused::split_and_turn(&qkv, self.rotary.tables(), first, [query_heads, heads])?;
            return Ok([q.f_transpose(1, 2)?, k.f_transpose(1, 2)?, v.f_transpose(1, 2)?]);
        }
        let (qk, v) = self.normed_queries_and_keys(layer, &qkv)?;
        let qk = self.rotary.turn(&self.split_heads(&qk)?, first)?; // [B, H + K, T, D]
        let [q, k] = parts(&qk.f_to_kind(self.products)?, [query_heads, heads], 1)?;
        Ok([q, k, self.split_heads(&v)?])
    }

    /// Queries and keys side by side, `[B, T, (H + K) D]`, normed where the model does so, and values, `[B, T, K D]`.
    fn normed_queries_and_keys(&self, layer: &Layer<'_>, qkv: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        let (width, kv) = (i64::from(self.config.width), i64::from(self.config.kv_width()));
        let Some([q_norm, k_norm, ..]) = layer.norms else {
            let [qk, v] = parts(qkv, [width + kv, kv], -1)?;
            return Ok((qk, v));
        };
        let [q, k, v] = parts(qkv, [width, kv, kv], -1)?;
        Ok((Tensor::f_cat(&[self.rms_norm(&q, q_norm)?, self.rms_norm(&k, k_norm)?], -1)?, v))
    }

    /// `[B, T, heads D]` to `[B, heads, T, D]`.
    fn split_heads(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_unflatten(-1, [-1, i64::from(self.config.head_width())])?.f_transpose(1, 2)
    }

    fn layer_norm(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_layer_norm([i64::from(self.config.width)], NONE, NONE, self.config.norm_epsilon, true)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
        x.f_to_kind(Kind::Float)?.f_rms_norm(weight.size(), Some(weight), self.config.norm_epsilon)
    }

    /// `x` times a matrix of weights, in the kind that products have.
    fn linear(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
        if self.products == Kind::Float {
            return x.f_linear(weight, NONE);
        }
        x.f_to_kind(self.products)?.f_linear(&weight.f_to_kind(self.products)?, NONE)
    }

    /// `down(silu(gate x) * up x)`.
    fn feed_forward(&self, layer: &Layer<'_>, x: &Tensor) -> Result<Tensor, TchError> {
        let gate_up = self.linear(x, layer.gate_up)?;
        if self.fused && fused::gates(gate_up.size().last().map_or(1, |both| both / 2)) {
            return self.linear(&fused::gate(&gate_up)?, layer.down);
        }
        let gate_up = gate_up.f_chunk(2, -1)?;
        self.linear(&gate_up[0].f_silu()?.f_mul(&gate_up[1])?, layer.down)
    }

    /// What the last `time` of `seen` positions see; none where these are all.
    fn after(&self, time: i64, seen: i64) -> Result<Option<Tensor>, TchError> {
        let all = || Tensor::f_ones([time, seen], (Kind::Bool, self.device))?.f_tril(seen - time);
        (time < seen).then(all).transpose()
    }
}

/// Views of `x` that follow each other along `dimension`. One operation, so that backward their gradients are put together once.
fn parts<const N: usize>(x: &Tensor, sizes: [i64; N], dimension: i64) -> Result<[Tensor; N], TchError> {
    let parts = x.f_split_with_sizes(sizes, dimension)?;
    parts.try_into().map_err(|_| TchError::Shape("a split gave another number of parts".to_owned()))
}

impl<'a> Layer<'a> {
    fn of(tensors: &'a [Tensor]) -> Self {
        let norms = (tensors.len() == 8).then(|| [&tensors[4], &tensors[5], &tensors[6], &tensors[7]]);
        Self { qkv: &tensors[0], output: &tensors[1], gate_up: &tensors[2], down: &tensors[3], norms }
    }
}

impl Sight<'_> {
    /// The keys and values before, and these.
    fn with_past(&mut self, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor), TchError> {
        let Some(past) = self.past.as_deref_mut() else { return Ok((k, v)) };
        let [k, v] = match past.take() {
            None => [k, v],
            Some([keys, values]) => [Tensor::f_cat(&[keys, k], 2)?, Tensor::f_cat(&[values, v], 2)?],
        };
        *past = Some([k.shallow_clone(), v.shallow_clone()]);
        Ok((k, v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::IGNORED;
    use crate::model::config::Init;
    use crate::model::{Overrides, Preset};

    fn model(overrides: &Overrides) -> Olmo {
        let config = Config::resolve(Some(Preset::Olmo300k), overrides, 100, 32).unwrap();
        let weights = Weights::random(&config, 3, Device::Cpu).unwrap();
        Olmo::new(config, weights, Device::Cpu).unwrap()
    }

    fn families() -> [Overrides; 3] {
        let olmo2 = Overrides { family: Some(Family::Olmo2), ..Overrides::default() };
        let grouped = Overrides { kv_heads: Some(1), tied_head: Some(false), ..olmo2 };
        [Overrides::default(), olmo2, grouped]
    }

    fn ids() -> Tensor {
        Tensor::from_slice(&(0..64).map(|i| i * 37 % 100).collect::<Vec<i64>>()).view([2, 32])
    }

    /// Normal weights start near the loss of guessing; those of Mitchell half a nat above it, since their scores
    /// have a variance of 1 (and a tied head expects the same token again).
    #[test]
    fn the_first_loss_is_that_of_guessing() {
        let inits = [(Init::Normal, 0.0, 0.1), (Init::Mitchell, 0.5, 0.45)];
        for (overrides, (init, above, tolerance)) in families().iter().flat_map(|f| inits.map(|i| (f, i))) {
            let model = model(&Overrides { init: Some(init), ..*overrides });
            let targets = (ids() * 7 + 3).remainder(100);
            let loss = model.nats(&ids(), &targets).unwrap().mean(Kind::Float).double_value(&[]);
            let expected = f64::ln(100.0) + above;
            assert!((loss - expected).abs() < tolerance, "{overrides:?}: {loss}, expected about {expected}");
        }
    }

    #[test]
    fn a_later_token_changes_nothing_before_it() {
        for overrides in families() {
            let model = model(&overrides);
            let before = model.hidden(&ids()).unwrap();
            for position in [1, 17, 31] {
                let changed = ids();
                let _changed = changed.narrow(1, position, 1).fill_(99);
                let after = model.hidden(&changed).unwrap();
                let same = |from, len| after.narrow(1, from, len).equal(&before.narrow(1, from, len));
                assert!(same(0, position), "{overrides:?}: position {position} leaks");
                assert!(!same(position, 1), "{overrides:?}: position {position} is not seen");
            }
        }
    }

    #[test]
    fn padding_takes_no_probability() {
        let model = model(&Overrides::default());
        let logits = model.logits(&model.hidden(&ids()).unwrap()).unwrap();
        assert_eq!(logits.size(), [2, 32, 100]);
        assert_eq!(model.weights().tensors()[0].size(), [128, 64]);
    }

    #[test]
    fn targets_left_out_cost_nothing() {
        let model = model(&Overrides::default());
        let targets = ids();
        let _targets = targets.narrow(1, 10, 5).fill_(IGNORED);
        let nats = model.nats(&ids(), &targets).unwrap();
        assert!(nats.narrow(1, 10, 5).equal(&nats.narrow(1, 10, 5).zeros_like()));
        assert!(nats.narrow(1, 0, 10).min().double_value(&[]) > 0.0);
    }

    #[test]
    fn what_is_cached_is_what_is_computed_again() {
        for overrides in families() {
            let model = model(&overrides);
            let expected = model.hidden(&ids()).unwrap();
            for steps in [vec![32], vec![7, 1, 1, 23], vec![1; 32]] {
                let (mut cache, mut first) = (Cache::default(), 0);
                for step in steps {
                    let found = model.hidden_after(&ids().narrow(1, first, step), &mut cache).unwrap();
                    let off = (found - expected.narrow(1, first, step)).abs().max().double_value(&[]);
                    assert!(off < 2e-5, "{overrides:?}, {step} from {first}: {off}");
                    first += step;
                }
            }
        }
    }

    #[test]
    fn products_in_bf16_are_near_those_in_f32_and_so_are_gradients() {
        for overrides in families() {
            let (exact, near) = (model(&overrides), model(&overrides).in_bf16());
            let gradients = |model: Olmo| {
                let model = model.require_gradients().unwrap();
                let hidden = model.hidden(&ids()).unwrap();
                assert_eq!(hidden.kind(), Kind::Float);
                let loss = model.nats_of(&hidden, &ids()).unwrap().mean(Kind::Float);
                let found = Tensor::run_backward(&[&loss], model.weights().tensors(), false, false);
                (loss.double_value(&[]), found)
            };
            let ((exact, expected), (near, found)) = (gradients(exact), gradients(near));
            assert!(
                (exact - near).abs() < 0.02 * exact && exact.to_bits() != near.to_bits(),
                "{exact} {near}"
            );
            for (index, (expected, found)) in expected.iter().zip(&found).enumerate() {
                assert_eq!(found.kind(), Kind::Float);
                let off = (expected - found).norm().double_value(&[]) / expected.norm().double_value(&[]);
                assert!(off < 0.05, "{overrides:?}: gradient {index} is off by {off}");
            }
        }
    }

    #[test]
    fn z_is_the_square_of_the_logarithmic_sum() {
        let model = model(&Overrides::default());
        let hidden = model.hidden(&ids()).unwrap();
        let targets = ids();
        let _targets = targets.narrow(1, 10, 5).fill_(IGNORED);
        let [nats, z] = model.nats_and_z(&hidden, &targets).unwrap();
        let off = (nats - model.nats_of(&hidden, &targets).unwrap()).abs().max().double_value(&[]);
        assert!(off < 1e-5, "losses differ by {off}");
        let logits = model.logits(&hidden).unwrap();
        let sum = logits.exp().sum_dim_intlist([-1_i64].as_slice(), false, Kind::Double).log();
        let off = (z.narrow(1, 0, 10) - sum.square().narrow(1, 0, 10)).abs().max().double_value(&[]);
        assert!(off < 1e-4, "z differs by {off}");
        assert!(z.narrow(1, 10, 5).equal(&z.narrow(1, 10, 5).zeros_like()));
    }

    #[test]
    fn feed_forward_equals_the_formula() {
        let model = model(&Overrides::default());
        let layer = Layer::of(&model.weights().tensors()[model.places_of_layer(0)]);
        let x = Tensor::arange(64, (Kind::Float, Device::Cpu)).view([1, 1, 64]) / 64.0 - 0.3;
        let found = model.feed_forward(&layer, &x).unwrap();

        let row = |matrix: &Tensor, row: i64, x: &[f64]| -> f64 {
            x.iter()
                .enumerate()
                .map(|(i, x)| x * matrix.double_value(&[row, i64::try_from(i).unwrap()]))
                .sum()
        };
        let x = (0..64).map(|i| x.double_value(&[0, 0, i])).collect::<Vec<_>>();
        let inner = |i| {
            let (gate, up) = (row(layer.gate_up, i, &x), row(layer.gate_up, 256 + i, &x));
            gate / (1.0 + (-gate).exp()) * up
        };
        let inner = (0..256).map(inner).collect::<Vec<_>>();
        for output in 0..64 {
            let (found, expected) = (found.double_value(&[0, 0, output]), row(layer.down, output, &inner));
            assert!((found - expected).abs() < 1e-5, "output {output}: {found}, expected {expected}");
        }
    }
}
