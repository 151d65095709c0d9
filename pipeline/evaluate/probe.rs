//! Logistic regression on frozen embeddings. Memory: the features of all examples as doubles, for each thread 20 copies of
//! the weights.

use tch::{Kind, TchError, Tensor};

use super::encoder;
use super::learner::both;
use super::logistic::{Logistic, Scale};
use super::result::Tried;
use crate::model::workers::Workers;

/// Embeddings of some examples, one row each, and their classes.
#[derive(Debug, Clone)]
pub(super) struct Embedded<'a> {
    /// Values of one embedding after the other.
    pub values: &'a [f32],
    /// Those of the reverse complements, where both strands are asked.
    pub turned: Option<&'a [f32]>,
    pub classes: &'a [u32],
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Probed {
    /// By strength, in the order given.
    pub tried: Vec<Tried>,
    /// The one with the lowest loss, the strongest hold of equal ones.
    pub chosen: Tried,
    /// `ln p` of every class for each test example.
    pub logs: Vec<f64>,
}

/// Fits the training examples once for each strength, takes the one that validates best, and asks it for the test examples.
pub(super) fn probe(
    [train, validation, test]: [&Embedded<'_>; 3],
    width: usize,
    classes: usize,
    strengths: &[f64],
    workers: &Workers,
) -> Result<Probed, encoder::Error> {
    let table =
        |values: &[f32]| Tensor::f_from_slice(values)?.f_view([-1, i64::try_from(width).unwrap_or(i64::MAX)]);
    let scale = Scale::of(&table(train.values)?)?;
    let scaled = |values: &[f32]| -> Result<Tensor, TchError> { scale.apply(&table(values)?) };
    let features = scaled(train.values)?;
    let parts = strengths.iter().map(|strength| (features.shallow_clone(), *strength)).collect();
    let fitted = workers.map(parts, |(features, strength)| {
        Ok::<_, TchError>((strength, Logistic::fit(&features, train.classes, classes, strength)?))
    })?;
    let logs = |model: &Logistic, of: &Embedded<'_>| -> Result<Vec<f64>, TchError> {
        let mut logs = model.log_probabilities(&scaled(of.values)?)?;
        if let Some(turned) = of.turned {
            logs = both(&logs, &model.log_probabilities(&scaled(turned)?)?)?;
        }
        Vec::<f64>::try_from(logs.f_to_kind(Kind::Double)?.f_contiguous()?.f_view(-1_i64)?)
    };
    let mut best: Option<(f64, f64, &Logistic)> = None;
    let mut tried = Vec::new();
    for (strength, model) in &fitted {
        let loss = mean_loss(&logs(model, validation)?, validation.classes, classes);
        tried.push(Tried { value: *strength, loss: Some(loss).filter(|loss| loss.is_finite()) });
        if best.is_none_or(|best| loss <= best.0) {
            best = Some((loss, *strength, model));
        }
    }
    let (loss, strength, model) = best.ok_or_else(|| TchError::Shape("no strength was given".to_owned()))?;
    let chosen = Tried { value: strength, loss: Some(loss).filter(|loss| loss.is_finite()) };
    Ok(Probed { tried, chosen, logs: logs(model, test)? })
}

fn mean_loss(logs: &[f64], truth: &[u32], classes: usize) -> f64 {
    let sum: f64 = logs.chunks(classes).zip(truth).map(|(row, class)| -row[*class as usize]).sum();
    sum / truth.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::kmer::spread;

    #[test]
    fn the_strength_that_validates_best_is_taken() {
        // One feature tells the classes apart, forty do not.
        let width = 41;
        let made = |count: u64, salt: u64| -> (Vec<f32>, Vec<u32>) {
            let classes: Vec<u32> = (0..count).map(|i| u32::try_from(i % 2).unwrap()).collect();
            let noise = |i: u64| (spread(i ^ salt << 32) >> 40) as f32 / (1 << 23) as f32 - 1.0;
            let row = |i: u64| {
                (0..width).map(
                    move |j| if j == 0 { i as f32 % 2.0 + 0.8 * noise(i * 64) } else { noise(i * 64 + j) },
                )
            };
            ((0..count).flat_map(row).collect(), classes)
        };
        let parts = [made(60, 1), made(400, 2), made(400, 3)];
        let embedded = parts.each_ref().map(|(values, classes)| Embedded { values, turned: None, classes });
        let [train, validation, test] = &embedded;
        let workers = Workers::start(2).unwrap();
        let strengths = [1e3, 1.0, 0.03, 1e-5];
        let found = probe([train, validation, test], 41, 2, &strengths, &workers).unwrap();
        let losses: Vec<f64> = found.tried.iter().map(|tried| tried.loss.unwrap()).collect();
        assert_eq!(found.chosen.loss, losses.iter().copied().reduce(f64::min));
        assert!([1.0, 0.03].contains(&found.chosen.value), "{:?}", found.tried);
        let right =
            found.logs.chunks(2).zip(&parts[2].1).filter(|(row, class)| (row[1] > row[0]) == (**class == 1));
        let right = right.count();
        assert!(right > 280, "{right} of 400");
    }
}
