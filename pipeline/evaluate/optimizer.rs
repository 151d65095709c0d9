//! Adam on plain tensors, and first values: what heads and baselines are learned with. Memory: two copies of the weights.

use tch::{TchError, Tensor};

use crate::sequence::kmer::spread;

/// The moments of every weight.
pub(super) struct Adam {
    moments: Vec<[Tensor; 2]>,
    steps: i32,
    /// How fast matrices shrink, times the learning rate.
    decay: f64,
}

impl Adam {
    /// Before the first step.
    pub(super) fn new(weights: &[Tensor], decay: f64) -> Result<Self, TchError> {
        let zeros = |weight: &Tensor| weight.detach().f_zeros_like();
        let moments = weights.iter().map(|weight| Ok([zeros(weight)?, zeros(weight)?]));
        Ok(Self { moments: moments.collect::<Result<_, TchError>>()?, steps: 0, decay })
    }

    /// One step; a gradient that is not defined leaves its weight alone.
    pub(super) fn step(
        &mut self,
        weights: &mut [Tensor],
        gradients: Vec<Tensor>,
        rate: f64,
    ) -> Result<(), TchError> {
        self.steps += 1;
        let [first, second] = [0.9_f64, 0.999].map(|forget| 1.0 - forget.powi(self.steps));
        let decay = self.decay;
        tch::no_grad(|| {
            for ((weight, gradient), [mean, square]) in
                weights.iter_mut().zip(gradients).zip(&mut self.moments)
            {
                if !gradient.defined() {
                    continue;
                }
                drop(mean.f_mul_scalar_(0.9)?.f_add_(&gradient.f_mul_scalar(0.1)?)?);
                drop(square.f_mul_scalar_(0.999)?.f_add_(&gradient.f_square()?.f_mul_scalar(0.001)?)?);
                if decay > 0.0 && weight.dim() > 1 {
                    drop(weight.f_mul_scalar_(1.0 - rate * decay)?);
                }
                let root = square.f_div_scalar(second)?.f_sqrt()?.f_add_scalar(1e-8)?;
                drop(weight.f_sub_(&mean.f_div(&root)?.f_mul_scalar(rate / first)?)?);
            }
            Ok(())
        })
    }
}

/// First values, as `PyTorch` draws them: a function of the seed and of how many were drawn before.
pub(super) struct Draws {
    seed: u64,
    drawn: u64,
}

impl Draws {
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// Between plus and minus one over the root of the inputs of a unit; gradients are wanted.
    pub(super) fn uniform(&mut self, shape: &[i64], inputs: i64) -> Result<Tensor, TchError> {
        let bound = 1.0 / (inputs as f32).sqrt();
        let values: Vec<f32> = (0..shape.iter().product::<i64>())
            .map(|_| {
                self.drawn += 1;
                ((spread(self.drawn ^ spread(self.seed)) >> 40) as f32 / (1 << 23) as f32 - 1.0) * bound
            })
            .collect();
        Ok(Tensor::from_slice(&values).f_view(shape)?.set_requires_grad(true))
    }
}
