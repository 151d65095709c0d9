//! Whether a DNABERT-2 computes what the published classes stored: hidden values and the scores of both heads, and where
//! there is a `train.json` their losses and the norms of the gradients. Memory: the model, its gradients and activations.

use std::path::Path;

use serde::Deserialize;
use tch::{Device, TchError, Tensor};

use super::{Dnabert2, Input, read_config};
use crate::fs;
use crate::model::check::{Compared, Comparison, Error, Stored, farthest};
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

/// Computes on the CPU what `stored`, and `train.json` in `folder`, hold the results of.
pub(in crate::model) fn check(model: &Path, stored: &Stored, folder: &Path) -> Result<Comparison, Error> {
    let config = read_config(model)?;
    let ids = stored.ids(1..=i64::MAX, config.vocabulary)?;
    let valid = stored.tensor("attention_mask", &ids.size())?;
    let model = Dnabert2::read(config, &model.join(hf::WEIGHTS), Device::Cpu)?;
    let input = Input { valid: Some(&valid), ..Input::from(&ids) };
    let mut results = tch::no_grad(|| forward(&model, input, stored))?;
    let train = folder.join(TRAIN);
    if train.is_file() {
        let bytes = fs::read(&train).map_err(weights::Error::from)?;
        let train: Train =
            serde_json::from_slice(&bytes).map_err(|source| hf::Error::Json { path: train, source })?;
        let labels = stored.tensor("mlm_labels", &ids.size())?;
        results.extend(backward(&model.require_gradients()?, input, &labels, &train)?);
    }
    let (rows, tokens) = (ids.size()[0], ids.size()[1]);
    Ok(Comparison { rows, tokens, results })
}

fn compared(name: &'static str, difference: f64, limit: f64) -> Compared {
    Compared { name, difference, limit }
}

/// Hidden values, and the scores of the heads that the model has.
fn forward(model: &Dnabert2, input: Input<'_>, stored: &Stored) -> Result<Vec<Compared>, Error> {
    let config = model.config();
    let (ids, width) = (input.ids.size(), i64::from(config.width));
    let of_each = |width: i64| [ids[0], ids[1], width];
    let hidden = model.hidden(input)?;
    let off = farthest(&hidden, &stored.tensor("last_hidden", &of_each(width))?)?;
    let mut results = vec![compared("hidden", off, HIDDEN)];
    if model.heads().masked {
        let expected = stored.tensor("mlm_logits", &of_each(config.vocabulary.into()))?;
        results.push(compared("logits", farthest(&model.masked_logits(&hidden)?, &expected)?, LOGITS));
    }
    if model.heads().pooler {
        let pooled = model.pooled(&hidden)?;
        let off = farthest(&pooled, &stored.tensor("pooled", &[ids[0], width])?)?;
        results.push(compared("pooled", off, CLASSES));
        if let Some(classes) = model.heads().classes {
            let expected = stored.tensor("classifier_logits", &[ids[0], classes.into()])?;
            results.push(compared("classes", farthest(&model.class_logits(&pooled)?, &expected)?, CLASSES));
        }
    }
    Ok(results)
}

/// The losses of both heads, and the norms of the gradients of each.
fn backward(
    model: &Dnabert2,
    input: Input<'_>,
    labels: &Tensor,
    train: &Train,
) -> Result<Vec<Compared>, Error> {
    let loss = model.masked_loss(&model.hidden(input)?, labels)?;
    let off = (loss.f_double_value(&[])? - train.mlm_loss).abs();
    let gradients = farthest_norm(model, &loss, &train.mlm_gradients)?;
    let mut results =
        vec![compared("masked loss", off, LOGITS), compared("its gradients", gradients, GRADIENTS)];

    let scores = model.class_logits(&model.pooled(&model.hidden(input)?)?)?;
    let classes = Tensor::f_from_slice(&train.classifier_labels)?;
    let loss = scores.f_cross_entropy_loss(&classes, None::<&Tensor>, tch::Reduction::Mean, -100, 0.0)?;
    let off = (loss.f_double_value(&[])? - train.classifier_loss).abs();
    results.push(compared("class loss", off, CLASSES));
    let gradients = farthest_norm(model, &loss, &train.classifier_gradients)?;
    results.push(compared("its gradients", gradients, GRADIENTS));
    Ok(results)
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
