//! How a HyenaDNA's tensors start, as the published code starts them: normal around 0 by name, what is added to the
//! residual stream smaller in deeper models. Where that draws evenly (short convolutions), a normal one as wide is drawn.

use super::config::Config;
use super::layout::Slot;
use crate::model::layout::{Parameter, Part, Role, Start};

/// Standard deviation of matrices.
const DEVIATION: f64 = 0.02;
/// Where sines of filters start: `w`.
const FREQUENCY: f64 = 10.0;

/// The tensor of a slot as the model's layouts have it: the last dimensions together are its columns.
pub(super) fn parameter(slot: &Slot, config: &Config) -> Parameter {
    let (rows, columns) = slot.shape.split_first().map_or((1, &[][..]), |(rows, columns)| (*rows, columns));
    let columns: u64 = columns.iter().map(|&size| u64::from(size)).product();
    let part = Part { name: slot.name.clone(), rows: rows.into() };
    Parameter { role: Role::Norm, parts: vec![part], columns: Some(columns), start: start(slot, config) }
}

fn start(slot: &Slot, config: &Config) -> Start {
    let ends = |endings: &[&str]| endings.iter().any(|ending| slot.name.ends_with(ending));
    let rows = slot.shape.first().copied().unwrap_or(1).into();
    let normal = |deviation| Start::Normal { deviation, used_rows: rows };
    if ends(&["norm1.weight", "norm2.weight", "ln_f.weight"]) {
        Start::Ones
    } else if ends(&[".freq"]) {
        Start::Filled(FREQUENCY)
    } else if ends(&["filter_fn.bias"]) {
        normal(1.0)
    } else if slot.name.contains("short_filter.") {
        normal((3.0 * f64::from(config.short_filter)).sqrt().recip())
    } else if ends(&["out_proj.weight", "fc2.weight"]) {
        normal(DEVIATION / (2.0 * f64::from(config.layers)).sqrt())
    } else if ends(&[".bias"]) {
        Start::Zeros
    } else {
        normal(DEVIATION)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use crate::model::hyena::{Hyena, Preset};

    #[test]
    fn a_fresh_model_guesses_and_another_seed_is_another_model() {
        let of = |seed| Hyena::random(Preset::Tiny1k.config(), seed, Device::Cpu).unwrap();
        let ids = Tensor::from_slice(&(0..200).map(|i| 7 + i * 37 % 5).collect::<Vec<i64>>()).view([2, 100]);
        let hidden = of(1).hidden(&ids).unwrap();
        // Not the ids themselves, which the residual stream carries to the head.
        let others: Tensor = (&ids - 6).remainder(5) + 7;
        let loss =
            of(1).logits(&hidden).unwrap().flatten(0, 1).cross_entropy_for_logits(&others.flatten(0, 1));
        let loss = loss.double_value(&[]);
        assert!((loss - f64::ln(16.0)).abs() < 0.3, "{loss}");
        assert!(hidden.equal(&of(1).hidden(&ids).unwrap()) && !hidden.equal(&of(2).hidden(&ids).unwrap()));
        let freq = of(1).weights().slots().iter().position(|slot| slot.name.contains(".1.freq")).unwrap();
        let mean = of(1).weights().tensors()[freq].mean(Kind::Float).double_value(&[]);
        assert!((mean - 10.0).abs() < 1e-6);
    }
}
