//! Gradients of a loss for every weight: plainly, or layer by layer, so that only the inputs of layers are kept and each
//! layer is computed again when its turn comes (activation checkpointing). Both give the same bits.

use tch::{Kind, TchError, Tensor};

use super::olmo::Olmo;

/// What a model is asked: `[B, T]` ids, and what each position sees.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Token ids.
    pub ids: &'a Tensor,
    /// `[B, 1, T, T]`; without it a position sees all before it.
    pub mask: Option<&'a Tensor>,
}

/// The gradients, in the order of the weights, of the loss that `loss` makes of the last layer's values `[B, T, d]`; and
/// what else it gives back. Memory: every activation, or with `checkpointing` `B T d` values per layer and the
/// activations of one.
pub fn gradients<R, E: From<TchError>>(
    model: &Olmo,
    input: Input<'_>,
    checkpointing: bool,
    loss: impl Fn(&Tensor) -> Result<(Tensor, R), E>,
) -> Result<(Vec<Tensor>, R), E> {
    if checkpointing {
        return layer_by_layer(model, input, loss);
    }
    let (loss, result) = loss(&model.hidden_where(input.ids, input.mask)?)?;
    Ok((Tensor::f_run_backward(&[loss], model.weights().tensors(), false, false)?, result))
}

fn layer_by_layer<R, E: From<TchError>>(
    model: &Olmo,
    input: Input<'_>,
    loss: impl Fn(&Tensor) -> Result<(Tensor, R), E>,
) -> Result<(Vec<Tensor>, R), E> {
    let weights = model.weights().tensors();
    let mut inputs = forward(model, input)?;
    let last = leaf(inputs.pop())?;
    let (loss, result) = loss(&model.last_norm(&last)?)?;
    // Behind the layers: the last norm and the head where they exist; a tied head is the embedding.
    let behind = model.places_of_layers().end;
    let tied = model.config().tied_head;
    let wanted = std::iter::once(&last).chain(weights[..1].iter().filter(|_| tied)).chain(&weights[behind..]);
    let mut found = Tensor::f_run_backward(&[loss], &wanted.collect::<Vec<_>>(), false, false)?;
    let after = found.split_off(1 + usize::from(tied));
    let of_head = if tied { found.pop() } else { None };
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
    let embedding = only(back(&model.embedded(input.ids)?, &flowing, &[&weights[0]])?.pop())?;
    let embedding = of_head.map_or_else(|| Ok(embedding.shallow_clone()), |head| embedding.f_add(&head))?;
    let layers = layers.into_iter().rev().flatten();
    Ok((std::iter::once(embedding).chain(layers).chain(after).collect(), result))
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
                let loss = |hidden: &Tensor| {
                    Ok::<_, TchError>((model.nats_of(hidden, &ids)?.f_mean(Kind::Float)?, ()))
                };
                let compute = |checkpointing| {
                    gradients(&model, Input { ids: &ids, mask }, checkpointing, loss).unwrap().0
                };
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
