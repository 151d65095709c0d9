//! Gradients of a step: those of its micro-batches, which threads share. Memory: the sum, and one set of gradients with
//! the activations of a micro-batch per thread.

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

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
    /// What some positions of a micro-batch add to the objective; and their losses in nats, summed over all targets and over
    /// those that stand for bases: f64, `[2]`.
    fn of(
        self,
        model: &Network,
        hidden: &Tensor,
        positions: &Range<i64>,
        batch: &Prepared,
    ) -> Result<(Tensor, Tensor), weights::Error> {
        let here =
            |all: &Tensor| all.f_flatten(0, 1)?.f_narrow(0, positions.start, positions.end - positions.start);
        let targets = here(&batch.targets)?;
        let (nats, losses) = if self.z_loss > 0.0 {
            let [nats, z] = model.nats_and_z(hidden, &targets, batch.asked.as_ref())?;
            let losses = nats.f_add(&z.f_mul_scalar(self.z_loss)?)?;
            (nats, losses)
        } else {
            let nats = model.nats_of(hidden, &targets, batch.asked.as_ref())?;
            (nats.shallow_clone(), nats)
        };
        let losses =
            batch.weights.as_ref().map_or(Ok(losses.shallow_clone()), |w| losses.f_mul(&here(w)?))?;
        let nats = nats.f_detach()?;
        let counted = nats.f_mul(&here(&batch.counted)?)?;
        let nats = Tensor::f_stack(&[nats.f_sum(Kind::Double)?, counted.f_sum(Kind::Double)?], 0)?;
        Ok((losses.f_sum(Kind::Float)?.f_div_scalar(self.weight)?, nats))
    }
}

/// What micro-batches measured, summed on their device: nobody waits for it before it is read.
pub(super) struct Measured {
    /// Loss in nats of all targets, and of those that stand for bases: f64, `[2]`.
    nats: Tensor,
    tokens: u64,
    bases: u64,
}

impl Measured {
    fn none(device: Device) -> Result<Self, TchError> {
        Ok(Self { nats: Tensor::f_zeros([2], (Kind::Double, device))?, tokens: 0, bases: 0 })
    }

    pub(super) fn add(&mut self, other: &Self) -> Result<(), TchError> {
        self.nats = self.nats.f_add(&other.nats)?;
        self.tokens += other.tokens;
        self.bases += other.bases;
        Ok(())
    }

    /// The losses, still on their device: f64, `[2]`.
    pub(super) const fn losses(&self) -> &Tensor {
        &self.nats
    }

    /// Reads it.
    pub(super) fn read(&self) -> Result<Likelihood, TchError> {
        self.of(&Vec::try_from(&self.nats)?)
    }

    /// Reads a single value and it, at once.
    pub(super) fn read_with(&self, value: &Tensor) -> Result<(f64, Likelihood), TchError> {
        let value = value.f_to_kind(Kind::Double)?.f_view([1])?;
        let read = Vec::<f64>::try_from(Tensor::f_cat(&[&value, &self.nats], 0)?)?;
        Ok((read[0], self.of(&read[1..])?))
    }

    fn of(&self, nats: &[f64]) -> Result<Likelihood, TchError> {
        let [nats, base_nats] = *nats else { return Err(TchError::Shape("expected 2 values".to_owned())) };
        Ok(Likelihood { nats, tokens: self.tokens, base_nats, bases: self.bases })
    }
}

/// Gradients of the objective over micro-batches, summed in their order, and what was measured.
pub(super) fn over(
    parts: Vec<(Batch, Targets)>,
    model: &Network,
    objective: Objective,
    workers: &Workers,
) -> Result<(Vec<Tensor>, Measured), weights::Error> {
    let parts = parts.into_iter().map(|(part, targets)| (model.share(), part, targets));
    let compute =
        |(model, part, targets): (Network, Batch, Targets)| micro_batch(&model, part, &targets, objective);
    // As many at once as there are threads, so that only so many gradients are held beside their sum.
    let (mut parts, mut sum, mut measured) = (parts.peekable(), Vec::new(), Measured::none(model.device())?);
    while parts.peek().is_some() {
        let wave = parts.by_ref().take(workers.threads()).collect();
        let (gradients, found): (Vec<_>, Vec<_>) = workers.map(wave, compute)?.into_iter().unzip();
        let before = sum.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let parameters = before.zip(by_parameter(gradients)).collect();
        sum = workers.map(parameters, |(before, parts)| add_up(before, parts.into_iter()))?;
        for found in found {
            measured.add(&found)?;
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
) -> Result<(Vec<Tensor>, Measured), weights::Error> {
    // Targets are those of whole rows: the first token of a part is predicted by the part before it.
    let prepared = model.prepare(&Batch { context: objective.context, ..batch }, targets)?;
    let loss = |hidden: &Tensor, part: Range<i64>| objective.of(model, hidden, &part, &prepared);
    let (gradients, nats) = model.gradients(&prepared, objective.checkpointing, loss)?;
    let nats = Tensor::f_stack(&nats, 0)?.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
    Ok((gradients, Measured { nats, tokens: targets.tokens, bases: targets.bases }))
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

/// The sum of tensors in their order, at least one. Only `before` is changed: a backward pass may still read the others.
pub(super) fn add_up(
    before: Option<Tensor>,
    parts: impl Iterator<Item = Tensor>,
) -> Result<Tensor, TchError> {
    let (mut sum, mut is_own) = (before, true);
    for part in parts {
        sum = Some(match sum {
            None => {
                is_own = false;
                part
            }
            Some(mut sum) if is_own => sum.f_add_(&part)?,
            Some(sum) => {
                is_own = true;
                sum.f_add(&part)?
            }
        });
    }
    sum.ok_or_else(|| TchError::Shape("no gradient to add".to_owned()))
}
