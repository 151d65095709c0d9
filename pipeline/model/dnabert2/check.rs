//! Whether a DNABERT-2 computes what the published classes stored: hidden values and the scores of both heads, and where
//! there is a `train.json` their losses and the norms of the gradients. Memory: the model, its gradients and activations.

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Reduction, TchError, Tensor};

use super::{Dnabert2, Input, read_config};
use crate::fs;
use crate::loader::IGNORED;
use crate::model::check::{Compared, Difference, Error, fits, result};
use crate::model::weights::read_tensor;
use crate::model::{hf, weights};

/// What training computes first.
const TRAIN: &str = "train.json";

// What rounding may do, by kind.
const HIDDEN: f64 = 5e-5;
const LOGITS: f64 = 2e-4;
const CLASSES: f64 = 2e-5;
const GRADIENTS: f64 = 1e-3;

/// `train.json`, as far as it matters: losses, and gradients by name.
#[derive(Deserialize)]
struct Train {
    mlm_loss: f64,
    mlm_gradients: Gradients,
    classifier_labels: Vec<i64>,
    classifier_loss: f64,
    classifier_gradients: Gradients,
}

type Gradients = std::collections::BTreeMap<String, Gradient>;

#[derive(Deserialize)]
struct Gradient {
    l2: f64,
}

/// Results and where they are stored.
struct Stored<'a> {
    path: &'a Path,
    results: Vec<Compared>,
}

impl Stored<'_> {
    /// Compares what was found with the tensor `name`.
    fn compare(&mut self, name: &str, found: &Tensor, limit: f64) -> Result<(), Error> {
        let stored = read_tensor(self.path, name)?;
        self.results.push(result(self.path, name.to_owned(), found, &stored, limit)?);
        Ok(())
    }

    /// Notes how far a number is off.
    fn note(&mut self, name: &str, off: f64, limit: f64) {
        self.results.push(Compared { name: name.to_owned(), off, limit });
    }
}

/// Computes on the CPU, with the model of `folder`, what the file `forward`, and `train.json` beside it, hold.
pub(in crate::model) fn check(folder: &Path, forward: &Path) -> Result<Difference, Error> {
    let config = read_config(folder).map_err(weights::Error::from)?;
    let ids = read_tensor(forward, "input_ids")?;
    fits(forward, "input_ids", &ids, 1..=u32::MAX, config.vocabulary)?;
    let valid = read_tensor(forward, "attention_mask")?;
    if valid.size() != ids.size() {
        let (path, name) = (forward.to_owned(), "attention_mask".to_owned());
        let (found, expected) = (format!("{:?}", valid.size()), format!("{:?}", ids.size()));
        return Err(Error::Inputs { path, name, found, expected });
    }
    let model = Dnabert2::read(config, &folder.join(hf::WEIGHTS), Device::Cpu)?;
    let input = Input { valid: Some(&valid), ..Input::from(&ids) };
    let mut stored = Stored { path: forward, results: Vec::new() };
    tch::no_grad(|| compare_values(&model, input, &mut stored))?;
    let train = forward.with_file_name(TRAIN);
    if train.is_file() {
        compare_gradients(&model.require_gradients()?, input, &read_train(&train)?, &mut stored)?;
    }
    Ok(Difference { batches: vec![[ids.size()[0], ids.size()[1]]], results: stored.results })
}

fn read_train(path: &Path) -> Result<Train, weights::Error> {
    let json = |source| hf::Error::Json { path: path.to_owned(), source };
    Ok(serde_json::from_slice(&fs::read(path)?).map_err(json)?)
}

/// Hidden values, and the scores of the heads that the model has.
fn compare_values(model: &Dnabert2, input: Input<'_>, stored: &mut Stored<'_>) -> Result<(), Error> {
    let hidden = model.hidden(input)?;
    stored.compare("last_hidden", &hidden, HIDDEN)?;
    if model.heads().masked {
        stored.compare("mlm_logits", &model.masked_logits(&hidden)?, LOGITS)?;
    }
    if model.heads().pooler {
        let pooled = model.pooled(&hidden)?;
        stored.compare("pooled", &pooled, CLASSES)?;
        if model.heads().classes.is_some() {
            stored.compare("classifier_logits", &model.class_logits(&pooled)?, CLASSES)?;
        }
    }
    Ok(())
}

/// The losses of both heads, and the norms of the gradients of each.
fn compare_gradients(
    model: &Dnabert2,
    input: Input<'_>,
    train: &Train,
    stored: &mut Stored<'_>,
) -> Result<(), Error> {
    let labels = read_tensor(stored.path, "mlm_labels")?;
    let loss = model.masked_loss(&model.hidden(input)?, &labels)?;
    stored.note("mlm_loss", (loss.f_double_value(&[])? - train.mlm_loss).abs(), LOGITS);
    stored.note("mlm_gradients", farthest_norm(model, &loss, &train.mlm_gradients)?, GRADIENTS);

    let scores = model.class_logits(&model.pooled(&model.hidden(input)?)?)?;
    let classes = Tensor::f_from_slice(&train.classifier_labels)?;
    let loss = scores.f_cross_entropy_loss(&classes, None::<&Tensor>, Reduction::Mean, IGNORED, 0.0)?;
    stored.note("classifier_loss", (loss.f_double_value(&[])? - train.classifier_loss).abs(), CLASSES);
    stored.note("classifier_gradients", farthest_norm(model, &loss, &train.classifier_gradients)?, GRADIENTS);
    Ok(())
}

/// The largest relative difference of the norms of the gradients of `loss`; not a number where other tensors have one.
fn farthest_norm(model: &Dnabert2, loss: &Tensor, expected: &Gradients) -> Result<f64, TchError> {
    let (layout, tensors) = (model.weights().layout(), model.weights().tensors());
    let names = layout.iter().map(|parameter| parameter.parts[0].name.as_str());
    let wanted = names.zip(tensors).filter(|(name, _)| expected.contains_key(*name)).collect::<Vec<_>>();
    if wanted.len() != expected.len() {
        return Ok(f64::NAN);
    }
    let inputs = wanted.iter().map(|(_, tensor)| *tensor).collect::<Vec<_>>();
    let gradients = Tensor::f_run_backward(&[loss], &inputs, false, false)?;
    let off = wanted.iter().zip(gradients).map(|((name, _), gradient)| {
        Ok((gradient.f_norm()?.f_double_value(&[])? / expected[*name].l2 - 1.0).abs())
    });
    off.collect::<Result<Vec<_>, TchError>>().map(|off| off.into_iter().fold(0.0, largest))
}

/// The larger one; not a number where one is none.
const fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}
