//! Gradients of a step: those of its micro-batches, which threads share. Memory: the sum, and one set of gradients with
//! the activations of a micro-batch per thread.

use tch::{Kind, TchError, Tensor};

use crate::loader::{Batch, Targets};
use crate::model::likelihood::{Likelihood, Prepared};
use crate::model::network::Network;
use crate::model::weights;
use crate::model::workers::Workers;

/// What is minimised: the weighted mean of losses and z-losses.
#[derive(Clone, Copy)]
pub(super) struct Objective {
    /// Sum of the weights of all targets of the step.
    pub(super) weight: f64,
    /// Coefficient of the z-loss.
    pub(super) z_loss: f64,
    /// Whether layers are computed again.
    pub(super) checkpointing: bool,
    /// Tokens that are seen together.
    pub(super) context: usize,
}

impl Objective {
    /// The losses of a micro-batch in nats, and its part of the objective.
    fn of(
        self,
        model: &Network,
        hidden: &Tensor,
        batch: &Prepared,
    ) -> Result<(Tensor, Tensor), weights::Error> {
        let (nats, losses) = if self.z_loss > 0.0 {
            let [nats, z] = model.nats_and_z(hidden, &batch.targets)?;
            let losses = nats.f_add(&z.f_mul_scalar(self.z_loss)?)?;
            (nats, losses)
        } else {
            let nats = model.nats_of(hidden, &batch.targets)?;
            (nats.shallow_clone(), nats)
        };
        let losses = batch.weights.as_ref().map_or(Ok(losses.shallow_clone()), |w| losses.f_mul(w))?;
        Ok((losses.f_sum(Kind::Float)?.f_div_scalar(self.weight)?, nats))
    }
}

/// Gradients of the objective over micro-batches, summed in their order, and what was measured.
pub(super) fn over(
    parts: Vec<(Batch, Targets)>,
    model: &Network,
    objective: Objective,
    workers: &Workers,
) -> Result<(Vec<Tensor>, Likelihood), weights::Error> {
    let parts = parts.into_iter().map(|(part, targets)| (model.share(), part, targets));
    let compute =
        |(model, part, targets): (Network, Batch, Targets)| micro_batch(&model, part, &targets, objective);
    // As many at once as there are threads, so that only so many gradients are held beside their sum.
    let (mut parts, mut sum, mut measured) = (parts.peekable(), Vec::new(), Likelihood::default());
    while parts.peek().is_some() {
        let wave = parts.by_ref().take(workers.threads()).collect();
        let (gradients, found): (Vec<_>, Vec<_>) = workers.map(wave, compute)?.into_iter().unzip();
        let gradients = std::iter::once(sum).filter(|sum| !sum.is_empty()).chain(gradients);
        sum = workers.map(by_parameter(gradients.collect()), add_up)?;
        for found in found {
            measured += found;
        }
    }
    Ok((sum, measured))
}

/// A micro-batch's part of the gradients of the objective.
pub(super) fn micro_batch(
    model: &Network,
    batch: Batch,
    targets: &Targets,
    objective: Objective,
) -> Result<(Vec<Tensor>, Likelihood), weights::Error> {
    // Targets are those of whole rows: the first token of a part is predicted by the part before it.
    let prepared = Prepared::new(model.device(), &Batch { context: objective.context, ..batch }, targets)?;
    let (gradients, nats) = model
        .gradients(&prepared, objective.checkpointing, |hidden| objective.of(model, hidden, &prepared))?;
    let nats = nats.f_detach()?;
    let counted = nats.f_mul(&prepared.counted)?;
    let measured = Likelihood {
        nats: nats.f_sum(Kind::Double)?.f_double_value(&[])?,
        tokens: targets.tokens,
        base_nats: counted.f_sum(Kind::Double)?.f_double_value(&[])?,
        bases: targets.bases,
    };
    Ok((gradients, measured))
}

/// Turns gradients by micro-batch into gradients by parameter.
fn by_parameter(parts: Vec<Vec<Tensor>>) -> Vec<Vec<Tensor>> {
    let mut parameters: Vec<Vec<Tensor>> = Vec::new();
    for part in parts {
        parameters.resize_with(part.len(), Vec::new);
        parameters.iter_mut().zip(part).for_each(|(parameter, gradient)| parameter.push(gradient));
    }
    parameters
}

/// The sum of some tensors, at least one, added in their order.
fn add_up(tensors: Vec<Tensor>) -> Result<Tensor, TchError> {
    let mut tensors = tensors.into_iter();
    let first = tensors.next().ok_or_else(|| TchError::Shape("no gradient to add".to_owned()))?;
    tensors.try_fold(first, |mut sum, tensor| sum.f_add_(&tensor))
}
