//! Equality with the published class on the model of `tests/golden/hyenadna`; `tests/golden/README.md` explains the limits.

use std::path::PathBuf;

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::check::check;
use super::layout::CLASSES;
use super::{Error, Hyena};
use crate::model::weights::read_tensor;

/// The model, and what the published class computes with it.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hyenadna")
}

fn model() -> Hyena {
    Hyena::read(&folder(), Device::Cpu).unwrap()
}

fn stored(name: &str) -> Tensor {
    read_tensor(&folder().join("forward.safetensors"), name).unwrap()
}

fn farthest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// The longest input, a shorter one, an odd one; one row padded at the left.
#[test]
fn hidden_states_and_scores_equal_the_published_class() {
    let difference = check(&folder(), &folder().join("forward.safetensors")).unwrap();
    assert_eq!(difference.batches, [[2, 100], [2, 258], [2, 7]]);
    assert_eq!(difference.results.len(), 9, "{difference:?}");
    for result in &difference.results {
        assert!(result.off <= result.limit, "{result:?}");
    }
    let padding = stored("input_ids_L100").eq(4).sum_dim_intlist(1, false, Kind::Int64);
    assert_eq!(Vec::<i64>::try_from(padding).unwrap(), [0, 9]);
}

#[test]
fn filters_equal_those_of_the_published_class() {
    let off = farthest(&model().filters(0, 100).unwrap(), &stored("layer0_filter_kernel"));
    assert!(off < 1e-5, "filters differ by {off}");
}

#[test]
fn losses_and_gradients_equal_the_published_class() {
    let text = std::fs::read(folder().join("train.json")).unwrap();
    let train: Value = serde_json::from_slice(&text).unwrap();
    let model = model().require_gradients().unwrap();
    let ids = stored("input_ids_L258");
    let hidden = model.hidden(&ids).unwrap();
    let scores = model.logits(&hidden.narrow(1, 0, 257)).unwrap().flatten(0, 1);
    let next = scores.cross_entropy_for_logits(&ids.narrow(1, 1, 257).flatten(0, 1));
    let labels: Vec<i64> = serde_json::from_value(train["classifier_labels"].clone()).unwrap();
    let classes = model.class_scores(&hidden).unwrap().unwrap();
    let classes = classes.cross_entropy_for_logits(&Tensor::from_slice(&labels));
    compare(&model, &next, &train["lm_loss_all_positions"], &train["lm_gradients"], 0);
    compare(&model, &classes, &train["classifier_loss"], &train["classifier_gradients"], CLASSES.len());
}

/// The head for classes has `heads` tensors whose gradients are stored too.
fn compare(model: &Hyena, loss: &Tensor, expected: &Value, gradients: &Value, heads: usize) {
    let expected = expected.as_f64().unwrap();
    let off = (loss.double_value(&[]) - expected).abs();
    assert!(off < 1e-4, "the loss differs by {off}");
    let weights = model.weights();
    let count = weights.tensors().len() - CLASSES.len() + heads;
    let names = weights.layout()[..count].iter().map(|parameter| parameter.parts[0].name.as_str());
    let names = names.collect::<Vec<_>>();
    let found = Tensor::run_backward(&[loss], &weights.tensors()[..count], true, false);
    assert_eq!(names.len(), gradients.as_object().unwrap().len());
    for (name, found) in names.into_iter().zip(found) {
        let expected = &gradients[name];
        let norm = expected["l2"].as_f64().unwrap();
        let off = (found.norm().double_value(&[]) - norm).abs() / norm;
        assert!(off < 1e-3, "{name}: the gradient's norm differs by {off} of it");
        let first = found.flatten(0, -1);
        for (place, expected) in (0..).zip(expected["first"].as_array().unwrap()) {
            let off = (first.double_value(&[place]) - expected.as_f64().unwrap()).abs();
            assert!(off < 1e-3 * norm, "{name}: value {place} of the gradient differs by {off}");
        }
    }
}

#[test]
fn a_later_token_changes_nothing_before_it() {
    let (model, ids) = (model(), stored("input_ids_L100"));
    let before = model.hidden(&ids).unwrap();
    for position in [1, 50, 99] {
        let changed = ids.copy();
        let _changed = changed.narrow(1, position, 1).fill_(11);
        let after = model.hidden(&changed).unwrap();
        let off = |from, length| farthest(&after.narrow(1, from, length), &before.narrow(1, from, length));
        assert!(off(0, position) < 1e-4, "position {position} leaks");
        assert!(off(position, 1) > 1e-2, "position {position} is not seen");
    }
}

#[test]
fn inputs_longer_than_the_positions_are_refused() {
    let model = model();
    for length in [259, 0] {
        let error = model.hidden(&Tensor::zeros([1, length], (Kind::Int64, Device::Cpu))).unwrap_err();
        assert!(matches!(error, Error::Length { found, longest: 258 } if found == length), "{error}");
        assert!(error.to_string().contains("tokens, expected 1 to 258 (`l_max`"), "{error}");
    }
    assert!(model.filters(0, 259).is_err() && model.filters(2, 100).is_err());
}
