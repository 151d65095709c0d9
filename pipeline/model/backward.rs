//! Gradients of a loss for every weight: plainly, or layer by layer, so that only the inputs of layers are kept and each
//! layer is computed again when its turn comes (activation checkpointing). Both give the same bits.
//!
//! Scores of the vocabulary are computed, and their gradients with them, for so many positions at a time as have
//! [`SCORES`]: what they take does not grow with the batch.

use std::ops::Range;

use tch::{Kind, TchError, Tensor};

use super::cost::SCORES;
use super::olmo::Olmo;

/// What a model is asked: `[B, T]` ids, and what each position sees.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Token ids.
    pub ids: &'a Tensor,
    /// `[B, 1, T, T]`; without it a position sees all before it.
    pub mask: Option<&'a Tensor>,
}

/// The gradients, in the order of the weights, of the sum of the losses that `loss` makes of parts of the last layer's values;
/// and what else it gives back for each. A part is `[N, d]`, with its range among the `B T` positions. Memory: every activation
/// but the scores, or with `checkpointing` `B T d` values per layer and the activations of one.
pub fn gradients<R, E: From<TchError>>(
    model: &Olmo,
    input: Input<'_>,
    checkpointing: bool,
    loss: impl Fn(&Tensor, Range<i64>) -> Result<(Tensor, R), E>,
) -> Result<(Vec<Tensor>, Vec<R>), E> {
    within(i64::try_from(SCORES).unwrap_or(i64::MAX), model, input, checkpointing, loss)
}

/// The number of the parameter whose gradient comes in parts, over so many positions: that of the head, where it is the embedding
/// too or where not all scores are there at once.
pub fn in_parts(model: &Olmo, positions: usize) -> Option<usize> {
    let (config, count) = (model.config(), model.weights().tensors().len());
    let scores = positions as u64 * u64::from(config.vocabulary);
    if config.tied_head { Some(0) } else { (scores > SCORES).then(|| count - 1) }
}

/// The same with at most `scores` scores at once.
fn within<R, E: From<TchError>>(
    scores: i64,
    model: &Olmo,
    input: Input<'_>,
    checkpointing: bool,
    loss: impl Fn(&Tensor, Range<i64>) -> Result<(Tensor, R), E>,
) -> Result<(Vec<Tensor>, Vec<R>), E> {
    if checkpointing {
        return layer_by_layer(scores, model, input, loss);
    }
    let hidden = model.hidden_where(input.ids, input.mask)?;
    let head = head(scores, model, &hidden, loss)?;
    let weights = model.weights().tensors();
    let before = weights.len() - usize::from(!model.config().tied_head);
    let wanted = weights[..before].iter().collect::<Vec<_>>();
    let mut found = back(&hidden, &head.flowing, &wanted)?;
    if before < weights.len() {
        found.push(head.weight);
    } else {
        found[0] = found[0].f_add(&head.weight)?;
    }
    Ok((found, head.results))
}

/// Gradients of the last layer's values, `[B, T, d]`, and of the head's weight; and what else came of each part.
struct Head<R> {
    flowing: Tensor,
    weight: Tensor,
    results: Vec<R>,
}

fn head<R, E: From<TchError>>(
    scores: i64,
    model: &Olmo,
    hidden: &Tensor,
    loss: impl Fn(&Tensor, Range<i64>) -> Result<(Tensor, R), E>,
) -> Result<Head<R>, E> {
    let values = hidden.f_detach()?.f_flatten(0, 1)?;
    let (positions, most) = (values.size()[0], (scores / i64::from(model.config().vocabulary)).max(1));
    let (mut flowing, mut sum, mut results): (_, Option<Tensor>, _) = (Vec::new(), None, Vec::new());
    for first in (0..positions).step_by(usize::try_from(most).unwrap_or(usize::MAX)) {
        let count = most.min(positions - first);
        let part = leaf(Some(values.f_narrow(0, first, count)?))?;
        let (loss, result) = loss(&part, first..first + count)?;
        let mut found = Tensor::f_run_backward(&[loss], &[&part, model.head()], false, false)?;
        let weight = only(found.pop())?;
        sum = Some(match sum {
            Some(mut sum) => sum.f_add_(&weight)?,
            None => weight,
        });
        flowing.extend(found);
        results.push(result);
    }
    Ok(Head { flowing: Tensor::f_cat(&flowing, 0)?.f_view_as(hidden)?, weight: only(sum)?, results })
}

fn layer_by_layer<R, E: From<TchError>>(
    scores: i64,
    model: &Olmo,
    input: Input<'_>,
    loss: impl Fn(&Tensor, Range<i64>) -> Result<(Tensor, R), E>,
) -> Result<(Vec<Tensor>, Vec<R>), E> {
    let weights = model.weights().tensors();
    let mut inputs = forward(model, input)?;
    let last = leaf(inputs.pop())?;
    let normed = model.last_norm(&last)?;
    let head = head(scores, model, &normed, loss)?;
    // Behind the layers: the last norm and the head where they exist; a tied head is the embedding.
    let (behind, tied) = (model.places_of_layers().end, model.config().tied_head);
    let norm = &weights[behind..weights.len() - usize::from(!tied)];
    let wanted = std::iter::once(&last).chain(norm);
    let mut found = back(&normed, &head.flowing, &wanted.collect::<Vec<_>>())?;
    let mut after = found.split_off(1);
    let mut flowing = only(found.pop())?;

    let mut layers = Vec::new();
    for layer in (0..inputs.len()).rev() {
        let x = leaf(inputs.pop())?;
        let output = model.layer(layer, &x, input.mask)?;
        let wanted = std::iter::once(&x).chain(&weights[model.places_of_layer(layer)]).collect::<Vec<_>>();
        let mut found = back(&output, &flowing, &wanted)?;
        layers.push(found.split_off(1));
        flowing = only(found.pop())?;
    }
    let mut embedding = only(back(&model.embedded(input.ids)?, &flowing, &[&weights[0]])?.pop())?;
    if tied {
        embedding = embedding.f_add(&head.weight)?;
    } else {
        after.push(head.weight);
    }
    let layers = layers.into_iter().rev().flatten();
    Ok((std::iter::once(embedding).chain(layers).chain(after).collect(), head.results))
}

/// The input of every layer, then the output of the last.
fn forward(model: &Olmo, input: Input<'_>) -> Result<Vec<Tensor>, TchError> {
    tch::no_grad(|| {
        let mut values = vec![model.embedded(input.ids)?];
        for layer in 0..model.config().layers as usize {
            values.push(model.layer(layer, &values[layer], input.mask)?);
        }
        Ok(values)
    })
}

/// Gradients of `wanted` where those of `output` are `flowing`: the gradient of the sum of their products.
fn back(output: &Tensor, flowing: &Tensor, wanted: &[&Tensor]) -> Result<Vec<Tensor>, TchError> {
    let sum = output.f_mul(flowing)?.f_sum(Kind::Float)?;
    Tensor::f_run_backward(&[sum], wanted, false, false)
}

/// The same values as the beginning of another graph.
fn leaf(tensor: Option<Tensor>) -> Result<Tensor, TchError> {
    only(tensor)?.f_detach()?.f_set_requires_grad(true)
}

fn only(tensor: Option<Tensor>) -> Result<Tensor, TchError> {
    tensor.ok_or_else(|| TchError::Shape("no tensor where one is expected".to_owned()))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::weights::Weights;
    use crate::model::{Config, Family, Overrides, Preset};

    #[test]
    fn layer_by_layer_gives_the_same_bits() {
        let families = [
            Overrides::default(),
            Overrides { tied_head: Some(false), clip_qkv: Some(0.5), ..Overrides::default() },
            Overrides { family: Some(Family::Olmo2), ..Overrides::default() },
            Overrides {
                family: Some(Family::Olmo2),
                tied_head: Some(false),
                kv_heads: Some(1),
                ..Overrides::default()
            },
        ];
        tch::set_num_threads(1);
        for overrides in families {
            let config = Config::resolve(Some(Preset::Olmo300k), &overrides, 100, 16).unwrap();
            let weights = Weights::random(&config, 3, Device::Cpu).unwrap();
            let model = Olmo::new(config, weights, Device::Cpu).unwrap().require_gradients().unwrap();
            let ids = Tensor::from_slice(&(0..32).map(|i| i * 37 % 100).collect::<Vec<i64>>()).view([2, 16]);
            let mask = Tensor::ones([16, 16], (Kind::Bool, Device::Cpu)).tril(0).view([1, 1, 16, 16]);
            for mask in [None, Some(&mask)] {
                let loss = |hidden: &Tensor, part: Range<i64>| {
                    let ids = ids.f_flatten(0, 1)?.f_narrow(0, part.start, part.end - part.start)?;
                    Ok::<_, TchError>((
                        model.nats_of(hidden, &ids)?.f_sum(Kind::Float)?.f_div_scalar(32)?,
                        part,
                    ))
                };
                let compute = |checkpointing| {
                    gradients(&model, Input { ids: &ids, mask }, checkpointing, loss).unwrap().0
                };
                for (scores, checkpointing) in [(700, false), (1, false), (700, true)] {
                    let input = Input { ids: &ids, mask };
                    let (found, parts) = within(scores, &model, input, checkpointing, loss).unwrap();
                    let expected = if scores == 1 { 32 } else { 5 };
                    assert_eq!((parts.len(), parts.last().unwrap().end), (expected, 32));
                    for (index, (found, whole)) in found.iter().zip(compute(checkpointing)).enumerate() {
                        let off = (found - &whole).norm().double_value(&[]) / whole.norm().double_value(&[]);
                        assert!(
                            off < 1e-5,
                            "{overrides:?}, {scores} scores: tensor {index} differs by {off}"
                        );
                    }
                }
                let (plain, again) = (compute(false), compute(true));
                assert_eq!((plain.len(), again.len()), (model.weights().tensors().len(), plain.len()));
                for (index, (a, b)) in plain.iter().zip(&again).enumerate() {
                    let off = (a - b).abs().max().double_value(&[]);
                    assert!(a.equal(b), "{overrides:?}: tensor {index} differs by {off}");
                    assert!(a.abs().max().double_value(&[]) > 0.0, "{overrides:?}: tensor {index} is 0");
                }
            }
        }
    }
}
