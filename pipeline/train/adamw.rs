//! `AdamW` whose state is plain tensors, so that a checkpoint holds all of it, updated by torch's fused kernel; and the
//! clipping of gradients.

use std::ffi::{c_char, c_int, c_void};

use tch::{Device, Kind, TchError, Tensor};

use super::config::Resolved;
use crate::collective::call;
use crate::model::layout::Role;
use crate::model::weights::Weights;
use crate::model::workers::Workers;

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
    /// Whether each parameter is updated here; another rank has the moments of those that are not.
    own: Vec<bool>,
}

/// One update.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    /// Factor of the gradients.
    pub(super) scale: f64,
    /// Learning rate.
    pub(super) rate: f64,
    /// Number of the update, 1 at the first.
    pub(super) step: u64,
}

impl AdamW {
    /// Before the first step, for those of `weights` that are `own`.
    pub(super) fn new(config: &Resolved, weights: &Weights, own: Vec<bool>) -> Result<Self, TchError> {
        let zeros = |(tensor, own): (&Tensor, &bool)| {
            if *own { tensor.f_detach()?.f_zeros_like() } else { Ok(Tensor::new()) }
        };
        let moments = || {
            let zeros = weights.tensors().iter().zip(&own).map(zeros);
            Ok::<_, TchError>(weights.with_tensors(zeros.collect::<Result<_, _>>()?))
        };
        let moments = [moments()?, moments()?];
        Ok(Self::with_moments(config, moments, own))
    }

    /// With the moments of a checkpoint, which are empty for parameters that are not `own`.
    pub(super) fn with_moments(config: &Resolved, [mean, square]: [Weights; 2], own: Vec<bool>) -> Self {
        let decays = mean.layout().iter().map(|parameter| decay(config, parameter.role)).collect();
        Self { mean, square, betas: config.betas, epsilon: config.epsilon, decays, own }
    }

    /// Updates those of `weights` that are own by `gradients`; what stands there for others is not looked at. Where the device decided
    /// about it, its word is taken, and not the update's `scale`.
    pub(super) fn update(
        &mut self,
        weights: &mut Weights,
        gradients: Vec<Tensor>,
        (update, decided): (Update, Option<&Decided>),
        workers: &Workers,
    ) -> Result<(), TchError> {
        let moments = self.mean.tensors_mut().iter_mut().zip(self.square.tensors_mut());
        let state = weights.tensors_mut().iter_mut().zip(moments).zip(gradients).zip(&self.decays);
        let state = state.zip(&self.own).filter(|(_, own)| **own);
        let mut groups: Vec<Group> = Vec::new();
        for ((((weight, (mean, square)), gradient), decay), _) in state {
            // A GPU takes many at once; threads share them one by one.
            let together = weight.device() != Device::Cpu;
            let same = |group: &&mut Group| together && group.decay.to_bits() == decay.to_bits();
            let parts = [weight.shallow_clone(), gradient, mean.shallow_clone(), square.shallow_clone()];
            match groups.iter_mut().find(same) {
                Some(group) => group.parts.push(parts),
                None => groups.push(Group {
                    decay: *decay,
                    parts: vec![parts],
                    decided: decided.map(Decided::share),
                }),
            }
        }
        let (betas, epsilon) = (self.betas, self.epsilon);
        workers.map(groups, |group| group.update(update, betas, epsilon))?;
        Ok(())
    }
}

/// What a device made of the norm and the loss of a step that nobody has read yet: values on it, f32.
pub(super) struct Decided {
    /// What gradients are divided by.
    divisor: Tensor,
    /// 1 where nothing is updated, since the norm or the loss is no number, and 0 elsewhere.
    skip: Tensor,
}

impl Decided {
    /// Of the norm of the gradients and the losses, single values or more.
    pub(super) fn of(norm: &Tensor, losses: &Tensor, limit: Option<f64>) -> Result<Self, TchError> {
        let norm = norm.f_to_kind(Kind::Float)?;
        let finite = norm.f_isfinite()?.f_logical_and(&losses.f_isfinite()?.f_all()?)?;
        let divisor = match limit {
            Some(limit) => norm.f_add_scalar(CLIP_EPSILON)?.f_div_scalar(limit)?.f_clamp_min(1.0)?,
            None => norm.f_ones_like()?,
        };
        Ok(Self { divisor, skip: finite.f_logical_not()?.f_to_kind(Kind::Float)? })
    }

    fn share(&self) -> Self {
        Self { divisor: self.divisor.shallow_clone(), skip: self.skip.shallow_clone() }
    }
}

/// Parameters with one weight decay, on one device.
struct Group {
    decay: f64,
    decided: Option<Decided>,
    /// Of each parameter its weight, gradient, mean and square.
    parts: Vec<[Tensor; 4]>,
}

impl Group {
    fn update(mut self, update: Update, betas: [f64; 2], epsilon: f64) -> Result<(), TchError> {
        let Update { scale, rate, step } = update;
        let ([mean_beta, square_beta], decay) = (betas, self.decay);
        let mut pointers = |which: usize| -> Vec<*mut c_void> {
            self.parts.iter_mut().map(|parts| parts[which].as_mut_ptr().cast()).collect()
        };
        let [weights, gradients, means, squares] = std::array::from_fn(&mut pointers);
        let lists = [weights.as_ptr(), gradients.as_ptr(), means.as_ptr(), squares.as_ptr()];
        let [w, g, m, s] = lists;
        let decided = self.decided.as_mut().map(|decided| [&mut decided.divisor, &mut decided.skip]);
        let [divisor, skip] = decided.map_or([std::ptr::null_mut(); 2], |both| {
            both.map(|tensor| tensor.as_mut_ptr().cast::<c_void>())
        });
        let run = |why, room| {
            // SAFETY: four lists of as many pointers to tensors, which `self` keeps until after the call.
            unsafe {
                gm_adamw(
                    w,
                    g,
                    m,
                    s,
                    weights.len(),
                    step as f64,
                    scale,
                    divisor,
                    skip,
                    rate,
                    mean_beta,
                    square_beta,
                    decay,
                    epsilon,
                    why,
                    room,
                )
            }
        };
        call(run).map(drop).map_err(TchError::Torch)
    }
}

unsafe extern "C" {
    /// Of `adamw.cpp`.
    fn gm_adamw(
        weights: *const *mut c_void,
        gradients: *const *mut c_void,
        means: *const *mut c_void,
        squares: *const *mut c_void,
        count: usize,
        step: f64,
        scale: f64,
        divisor: *mut c_void,
        skip: *mut c_void,
        rate: f64,
        mean_beta: f64,
        square_beta: f64,
        decay: f64,
        epsilon: f64,
        why: *mut c_char,
        room: usize,
    ) -> c_int;
}

/// Matrices decay; embedding and norms where it is asked; what makes long filters never.
const fn decay(config: &Resolved, role: Role) -> f64 {
    match role {
        Role::Attention | Role::FeedForward | Role::Head => config.weight_decay,
        Role::Embedding if config.decay_embedding => config.weight_decay,
        Role::Norm if config.decay_norms => config.weight_decay,
        Role::Embedding | Role::Norm | Role::Filter => 0.0,
    }
}

/// The norm of some gradients together, at least one: a single value, still on their device.
pub(super) fn norm(gradients: &[Tensor]) -> Result<Tensor, TchError> {
    let norms = gradients.iter().map(Tensor::f_norm).collect::<Result<Vec<_>, _>>()?;
    Tensor::f_stack(&norms, 0)?.f_norm()
}

/// The factor that brings a norm down to `limit` where it is larger.
pub(super) fn scale(norm: f64, limit: Option<f64>) -> f64 {
    limit.map_or(1.0, |limit| (limit / (norm + CLIP_EPSILON)).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_clipped_together() {
        let gradients = [Tensor::from_slice(&[3.0_f32, 0.0]), Tensor::from_slice(&[4.0_f32])];
        for (limit, expected) in [(None, 1.0), (Some(10.0), 1.0), (Some(1.0), 0.2)] {
            let norm = norm(&gradients).unwrap().double_value(&[]);
            let scale = scale(norm, limit);
            assert!((norm - 5.0).abs() < 1e-6 && (scale - expected).abs() < 1e-6, "limit {limit:?}: {scale}");
        }
    }

    #[test]
    fn what_decays_is_what_olmo_lets_decay() {
        use crate::model::Preset;
        use crate::train::Config;
        let resolve = |config: Config| {
            Config { preset: Some(Preset::Olmo2With1b.into()), ..config }.resolve(1, 8, 8).unwrap()
        };
        let roles = [Role::Attention, Role::FeedForward, Role::Head, Role::Norm, Role::Embedding];
        let decays = |config: Config| {
            let config = resolve(config);
            roles.map(|role| decay(&config, role) > 0.0)
        };
        assert_eq!(
            decays(Config::default()),
            [true, true, true, true, false],
            "OLMo-2, and OLMo-1 without norms"
        );
        let newer = Config { decay_embedding: true, decay_norms: false, ..Config::default() };
        assert_eq!(decays(newer), [true, true, true, false, true]);
    }
}
