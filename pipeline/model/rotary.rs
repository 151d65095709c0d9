//! Rotary positions: each pair (i, i + half) of a head's values turns by an angle that grows with the position.

use tch::{Device, Kind, TchError, Tensor};

/// Cosines and sines for every position, f32, `[context, head width / 2]`.
#[derive(Debug)]
pub(super) struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// Angles `position / theta^(2 i / head_width)`.
    pub(super) fn new(context: i64, head_width: i64, theta: f64, device: Device) -> Result<Self, TchError> {
        let options = (Kind::Float, device);
        let exponents =
            Tensor::f_arange_start_step(0, head_width, 2, options)?.f_div_scalar(head_width as f64)?;
        let frequencies = exponents.f_mul_scalar(theta.ln())?.f_exp()?.f_reciprocal()?;
        let angles = Tensor::f_arange(context, options)?.f_outer(&frequencies)?;
        Ok(Self { cos: angles.f_cos()?, sin: angles.f_sin()? })
    }

    /// The same tables again.
    pub(super) fn share(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }

    /// Cosines and sines.
    pub(super) const fn tables(&self) -> [&Tensor; 2] {
        [&self.cos, &self.sin]
    }

    /// Turns `x`, `[.., time, head width]`, whose first position is `first`.
    pub(super) fn turn(&self, x: &Tensor, first: i64) -> Result<Tensor, TchError> {
        let time = x.size()[x.dim() - 2];
        let (cos, sin) = (self.cos.f_narrow(0, first, time)?, self.sin.f_narrow(0, first, time)?);
        let halves = x.f_to_kind(Kind::Float)?.f_chunk(2, -1)?;
        let (low, high) = (&halves[0], &halves[1]);
        let turned_low = low.f_mul(&cos)?.f_sub(&high.f_mul(&sin)?)?;
        let turned_high = high.f_mul(&cos)?.f_add(&low.f_mul(&sin)?)?;
        Tensor::f_cat(&[turned_low, turned_high], -1)?.f_to_kind(x.f_kind()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_formula_pair_by_pair() {
        let (time, width, theta) = (5, 6, 100.0);
        let rotary = Rotary::new(8, width, theta, Device::Cpu).unwrap();
        let x = Tensor::arange(time * width, (Kind::Float, Device::Cpu)).reshape([1, 1, time, width]) / 7.0;
        let turned = rotary.turn(&x, 0).unwrap();
        let later = rotary.turn(&x.narrow(2, 2, 3), 2).unwrap();
        assert!(later.equal(&turned.narrow(2, 2, 3)));
        let half = width / 2;
        for position in 0..time {
            for i in 0..half {
                let angle = position as f64 / f64::powf(theta, 2.0 * i as f64 / width as f64);
                let (a, b) =
                    (x.double_value(&[0, 0, position, i]), x.double_value(&[0, 0, position, i + half]));
                let expected = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()];
                for (value, index) in expected.into_iter().zip([i, i + half]) {
                    let found = turned.double_value(&[0, 0, position, index]);
                    assert!(
                        (found - value).abs() < 1e-5,
                        "position {position}, value {index}: {found} {value}"
                    );
                }
            }
        }
    }
}
