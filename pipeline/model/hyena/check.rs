//! Whether a HyenaDNA computes what another implementation stored: `input_ids*` `[B, L]`, and for each of these
//! `hidden*` `[B, L, d]`, `lm_logits*` `[B, L, V]` and `classifier_logits*` `[B, classes]`, as far as they are there.
//! Memory: both of them.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Tensor};

use super::network::Hyena;
use crate::model::check::{Difference, Error, fits, result};
use crate::model::weights::read_all;

/// What begins the names of inputs.
const INPUTS: &str = "input_ids";
/// Results and how far rounding lets them be off: the sine of ten times a value makes much of little.
const LIMITS: [(&str, f64); 3] = [("hidden", 1e-4), ("lm_logits", 3e-4), ("classifier_logits", 1e-5)];

/// Computes on the CPU, with the model of `folder`, what the file `forward` holds.
pub fn check(folder: &Path, forward: &Path) -> Result<Difference, Error> {
    let model = Hyena::read(folder, Device::Cpu)?;
    let stored = read_all(forward)?;
    let mut difference = Difference::default();
    for (name, ids) in &stored {
        if let Some(which) = name.strip_prefix(INPUTS) {
            let (rows, vocabulary) = (1..=model.config().longest, model.config().padded_vocabulary);
            fits(forward, name, ids, rows, vocabulary)?;
            difference.batches.push([ids.size()[0], ids.size()[1]]);
            let found = tch::no_grad(|| compute(&model, ids))?;
            for ((kind, limit), found) in LIMITS.into_iter().zip(found) {
                compare(forward, &stored, format!("{kind}{which}"), found, limit, &mut difference)?;
            }
        }
    }
    difference.checked(forward, INPUTS)
}

/// In the order of [`LIMITS`].
fn compute(model: &Hyena, ids: &Tensor) -> Result<[Option<Tensor>; 3], super::Error> {
    let hidden = model.hidden(ids)?;
    let (logits, classes) = (model.logits(&hidden)?, model.class_scores(&hidden)?);
    Ok([Some(hidden), Some(logits), classes])
}

fn compare(
    path: &Path,
    stored: &BTreeMap<String, Tensor>,
    name: String,
    found: Option<Tensor>,
    limit: f64,
    difference: &mut Difference,
) -> Result<(), Error> {
    if let Some((stored, found)) = stored.get(&name).zip(found) {
        difference.results.push(result(path, name, &found, stored, limit)?);
    }
    Ok(())
}
