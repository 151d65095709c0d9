//! `AdamW` whose state is plain tensors, so that a checkpoint holds all of it; and the clipping of gradients.

use tch::{Device, TchError, Tensor};

use super::config::Resolved;
use crate::model::layout::Role;
use crate::model::weights::{self, Weights};

/// Kept from the gradients' norm so that clipping never divides by zero.
const CLIP_EPSILON: f64 = 1e-6;

/// The moments of every parameter, and what the update needs to know.
#[derive(Debug)]
pub(super) struct AdamW {
    /// Moving mean of the gradients.
    pub(super) mean: Weights,
    /// Moving mean of their squares.
    pub(super) square: Weights,
    betas: [f64; 2],
    epsilon: f64,
    /// Weight decay of each parameter.
    decays: Vec<f64>,
}

impl AdamW {
    /// Before the first step.
    pub(super) fn new(config: &Resolved, device: Device) -> Result<Self, weights::Error> {
        let moments = || Weights::zeros(&config.model, device);
        Ok(Self::with_moments(config, moments()?, moments()?))
    }

    /// With the moments of a checkpoint.
    pub(super) fn with_moments(config: &Resolved, mean: Weights, square: Weights) -> Self {
        let decays = mean.layout().iter().map(|parameter| decay(config, parameter.role)).collect();
        Self { mean, square, betas: config.betas, epsilon: config.epsilon, decays }
    }

    /// Updates `weights` by `gradients`; `step` is 1 at the first update.
    pub(super) fn update(
        &mut self,
        weights: &mut Weights,
        gradients: &[Tensor],
        rate: f64,
        step: u64,
    ) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        let moments = self.mean.tensors_mut().iter_mut().zip(self.square.tensors_mut());
        let state = weights.tensors_mut().iter_mut().zip(moments).zip(gradients).zip(&self.decays);
        for (((weight, (mean, square)), gradient), decay) in state {
            let [mean_beta, square_beta] = self.betas;
            let _weight = weight.f_mul_scalar_(1.0 - rate * decay)?;
            let _mean = mean.f_lerp_(gradient, 1.0 - mean_beta)?;
            let _square = square.f_lerp_(&gradient.f_square()?, 1.0 - square_beta)?;
            let root = square
                .f_sqrt()?
                .f_div_scalar_(unbias(square_beta, step).sqrt())?
                .f_add_scalar_(self.epsilon)?;
            let change = mean.f_mul_scalar(-rate / unbias(mean_beta, step))?;
            let _weight = weight.f_addcdiv_(&change, &root)?;
        }
        Ok(())
    }
}

/// Matrices decay, norms do not; the embedding where it is asked.
const fn decay(config: &Resolved, role: Role) -> f64 {
    match role {
        Role::Matrix | Role::Head => config.weight_decay,
        Role::Embedding if config.decay_embedding => config.weight_decay,
        Role::Embedding | Role::Norm => 0.0,
    }
}

/// The share of a moving mean that comes from gradients and not from the zeros it began with.
fn unbias(beta: f64, step: u64) -> f64 {
    1.0 - beta.powf(step as f64)
}

/// The norm of all gradients together; scales them down to `limit` where it is larger.
pub(super) fn clip(gradients: &mut [Tensor], limit: Option<f64>) -> Result<f64, TchError> {
    let norms = gradients.iter().map(Tensor::f_norm).collect::<Result<Vec<_>, _>>()?;
    let norm = Tensor::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?;
    let scale = limit.map_or(1.0, |limit| limit / (norm + CLIP_EPSILON));
    if scale < 1.0 {
        for gradient in gradients {
            let _gradient = gradient.f_mul_scalar_(scale)?;
        }
    }
    Ok(norm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_clipped_together() {
        let gradients = || [Tensor::from_slice(&[3.0_f32, 0.0]), Tensor::from_slice(&[4.0_f32])];
        for (limit, expected) in [(None, [3.0, 4.0]), (Some(10.0), [3.0, 4.0]), (Some(1.0), [0.6, 0.8])] {
            let mut clipped = gradients();
            assert!((clip(&mut clipped, limit).unwrap() - 5.0).abs() < 1e-6);
            let found = [clipped[0].double_value(&[0]), clipped[1].double_value(&[0])];
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "limit {limit:?}: {found}, expected {expected}");
            }
        }
    }
}
