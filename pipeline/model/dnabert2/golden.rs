//! Equality with the published classes on the model of `tests/golden/dnabert2`; the README there explains the limits.

use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize_to_file};
use tch::{Device, Tensor};

use super::{Dnabert2, Heads, Input, read_config};
use crate::loader::mix;
use crate::model::check::{Difference, check};
use crate::model::hf::{CONFIG, WEIGHTS};
use crate::model::weights::read_tensor;

/// The model, and what the published classes compute with it.
pub(super) fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dnabert2")
}

fn read(path: &Path) -> Result<Dnabert2, String> {
    let config = read_config(&golden()).unwrap();
    Dnabert2::read(config, path, Device::Cpu).map_err(|error| error.to_string())
}

fn stored(name: &str) -> Tensor {
    read_tensor(&golden().join("forward.safetensors"), name).unwrap()
}

fn farthest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// The tensors of the golden file: name, shape, bytes.
type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;

/// Writes the golden tensors into `path`, changed.
fn write_changed(path: &Path, change: impl Fn(&mut Tensors)) {
    let bytes = std::fs::read(golden().join(WEIGHTS)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor =
        |(name, view): (&str, TensorView<'_>)| (name.to_owned(), view.shape().to_vec(), view.data().to_vec());
    let mut tensors = file.iter().map(tensor).collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, shape, data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

/// What `check` says of the golden results where the weights are changed so.
fn check_changed(change: impl Fn(&mut Tensors)) -> Difference {
    let folder = tempfile::tempdir().unwrap();
    for name in [CONFIG, "forward.safetensors", "train.json"] {
        std::fs::copy(golden().join(name), folder.path().join(name)).unwrap();
    }
    write_changed(&folder.path().join(WEIGHTS), change);
    check(folder.path()).unwrap()
}

fn within(found: &Difference) -> Vec<bool> {
    found.results.iter().map(|result| result.off <= result.limit).collect()
}

#[test]
fn what_the_published_classes_compute_is_computed() {
    let found = check(&golden()).unwrap();
    let names = found.results.iter().map(|result| result.name.as_str()).collect::<Vec<_>>();
    let heads = ["last_hidden", "mlm_logits", "pooled", "classifier_logits"];
    let losses = ["mlm_loss", "mlm_gradients", "classifier_loss", "classifier_gradients"];
    assert_eq!(names, [heads, losses].concat());
    assert_eq!(found.batches, [[3, 40]]);
    assert!(within(&found).into_iter().all(|within| within), "{found:?}");
}

#[test]
fn rows_without_padding_and_both_kinds_of_sequences_too() {
    let model = read(&golden().join(WEIGHTS)).unwrap();
    let (ids, types) = (stored("input_ids_nopad"), stored("token_type_ids_nopad"));
    let hidden = model.hidden(Input::from(&ids)).unwrap();
    assert!(farthest(&hidden, &stored("last_hidden_nopad")) < 5e-5);
    let logits = model.masked_logits(&hidden).unwrap();
    assert!(farthest(&logits, &stored("mlm_logits_nopad")) < 2e-4);
    let typed = model.hidden(Input { types: Some(&types), ..Input::from(&ids) }).unwrap();
    assert!(farthest(&typed, &stored("last_hidden_nopad_types")) < 5e-5);
    assert!(farthest(&typed, &hidden) > 0.1, "token types do nothing");
}

/// The check can fail: a gate in the second half, or scores of another bias, are another model.
#[test]
fn a_changed_model_is_noticed() {
    let swapped = check_changed(|tensors| {
        for (name, _, data) in tensors {
            if name.ends_with("gated_layers.weight") {
                let half = data.len() / 2;
                data.rotate_left(half);
            }
        }
    });
    assert_eq!(within(&swapped), [false; 8], "{swapped:?}");
    let shifted = check_changed(|tensors| {
        for (_, _, data) in tensors.iter_mut().filter(|(name, ..)| name == "cls.predictions.decoder.bias") {
            let first = f32::from_le_bytes([data[0], data[1], data[2], data[3]]) + 1e-2;
            data[..4].copy_from_slice(&first.to_le_bytes());
        }
    });
    assert_eq!(within(&shifted)[..4], [true, false, true, true], "{shifted:?}");
}

#[test]
fn heads_are_those_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(WEIGHTS);
    let encoder = |name: &str| name.starts_with("bert.") && !name.contains("pooler");
    write_changed(&path, |tensors| tensors.retain(|(name, ..)| encoder(name)));
    assert_eq!(read(&path).unwrap().heads(), Heads::default());
    write_changed(&path, |tensors| tensors.retain(|(name, ..)| encoder(name) || name.starts_with("cls.")));
    assert_eq!(read(&path).unwrap().heads(), Heads { masked: true, ..Heads::default() });
    // A decoder that shares the embedding need not be in the file.
    write_changed(&path, |tensors| tensors.retain(|(name, ..)| !name.ends_with("decoder.weight")));
    let all = Heads { masked: true, pooler: true, classes: Some(2) };
    assert_eq!(read(&path).unwrap().heads(), all);
}

#[test]
fn every_name_that_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(WEIGHTS);
    write_changed(&path, |tensors| {
        tensors
            .retain(|(name, ..)| name != "cls.predictions.decoder.bias" && name != "bert.pooler.dense.bias");
        tensors.push(("bert.embeddings.position_embeddings.weight".to_owned(), vec![1, 2], vec![0; 8]));
        for (name, shape, data) in tensors {
            if name == "bert.encoder.layer.1.mlp.wo.weight" {
                shape.swap(0, 1);
            }
            if name == "cls.predictions.decoder.weight" {
                data[0] ^= 1;
            }
        }
    });
    let error = read(&path).unwrap_err();
    let lines = error.lines().skip(1).map(str::trim).collect::<Vec<_>>();
    let expected = [
        "`cls.predictions.decoder.weight` differs from `bert.embeddings.word_embeddings.weight`, of which it must be a copy",
        "`bert.encoder.layer.1.mlp.wo.weight` is F32 [96, 72], expected F32, F16 or BF16 [72, 96]",
        "`cls.predictions.decoder.bias` is missing, expected [128]",
        "`bert.pooler.dense.bias` is missing, expected [72]",
        "`bert.embeddings.position_embeddings.weight` (F32 [1, 2]) has no place in the model",
    ];
    assert_eq!(lines, expected, "{error}");
}

#[test]
fn files_of_another_vocabulary_or_cut_short_are_refused() {
    let mut config = read_config(&golden()).unwrap();
    config.vocabulary = 4096;
    let error = Dnabert2::read(config, &golden().join(WEIGHTS), Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("knows 128 ids, its config.json 4096: take weights"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(WEIGHTS);
    let whole = std::fs::read(golden().join(WEIGHTS)).unwrap();
    let huge = [&(1_u64 << 60).to_le_bytes()[..], &whole[8..]].concat();
    for bytes in [&whole[..whole.len() - 1], &whole[..100], &whole[..3], &huge[..], b""] {
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains("is no readable safetensors file"), "{error}");
    }
}

/// Any byte of the header may be any other: it is refused, or what it says still fits.
#[test]
fn no_header_makes_it_panic() {
    let whole = std::fs::read(golden().join(WEIGHTS)).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap());
    let config = read_config(&golden()).unwrap();
    let refused = |number: &u64| {
        let mut bytes = whole.clone();
        let place = usize::try_from(mix(*number) % header).unwrap();
        bytes[place] = bytes[place].wrapping_add(1 + mix(!*number).to_le_bytes()[0] % 255);
        Dnabert2::of_bytes(config.clone(), &golden(), &bytes, Device::Cpu).is_err()
    };
    let count = (0..400).filter(refused).count();
    assert!(count > 380, "only {count} of 400 changed headers are refused");
}
