//! Equality with transformers, the peers' classes and torch on the models of `tests/golden`; its README explains the limits.

use std::ops::Range;
use std::path::PathBuf;

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::adamw::{self, AdamW, Update};
use super::config::{Config, Resolved};
use super::schedule::Decay;
use crate::loader::{Batch, IGNORED, Targets};
use crate::model::network::Network;
use crate::model::olmo::Olmo;
use crate::model::weights::{Weights, name_parts, read_tensor};
use crate::model::workers::Workers;
use crate::model::{self, Overrides, Preset, Shape, dnabert2, hf, hyena};

const MODELS: [&str; 4] = ["olmo1_tied", "olmo1_untied_clip", "olmo2", "olmo2_gqa"];

struct Golden {
    folder: PathBuf,
    config: model::Config,
}

impl Golden {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        Self { config: hf::read_config(&folder.join("hf")).unwrap(), folder }
    }

    fn model(&self) -> Olmo {
        let weights = Weights::read_hf(&self.config, &self.folder.join("hf"), Device::Cpu).unwrap();
        Olmo::new(self.config.clone(), weights, Device::Cpu).unwrap().require_gradients().unwrap()
    }

    fn weights(&self, file: &str) -> Weights {
        Weights::read(self.config.parameters(), &self.folder.join(file), "", Device::Cpu).unwrap()
    }

    fn forward(&self, name: &str) -> Tensor {
        read_tensor(&self.folder.join("forward.safetensors"), name).unwrap()
    }

    fn train_json(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.folder.join("train.json")).unwrap()).unwrap()
    }
}

/// Ids and the ids that follow them.
fn batch(golden: &Golden) -> (Tensor, Tensor) {
    let ids = golden.forward("input_ids");
    let last = Tensor::full([ids.size()[0], 1], IGNORED, (Kind::Int64, Device::Cpu));
    let targets = Tensor::cat(&[ids.narrow(1, 1, ids.size()[1] - 1), last], 1);
    (ids, targets)
}

fn loss(model: &Olmo, (ids, targets): &(Tensor, Tensor)) -> Tensor {
    let count = targets.not_equal(IGNORED).sum(Kind::Int64).int64_value(&[]);
    model.nats(ids, targets).unwrap().sum(Kind::Float) / count
}

fn gradients(model: &Olmo, loss: &Tensor) -> Vec<Tensor> {
    Tensor::run_backward(&[loss], model.weights().tensors(), false, false)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).norm().double_value(&[]) / b.norm().double_value(&[])
}

#[test]
fn logits_loss_and_gradients_equal_transformers() {
    for name in MODELS {
        let golden = Golden::new(name);
        let (model, batch) = (golden.model(), batch(&golden));
        let logits = model.logits(&model.hidden(&batch.0).unwrap()).unwrap();
        let off = largest_difference(&logits, &golden.forward("logits"));
        assert!(off < 5e-5, "{name}: logits differ by {off}");

        let loss = loss(&model, &batch);
        let off = largest_difference(&loss, &golden.forward("loss").reshape([0_i64; 0]));
        assert!(off < 5e-6, "{name}: the loss differs by {off}");

        let gradients = gradients(&model, &loss);
        let named = name_parts(model.weights().layout(), &gradients).unwrap();
        let expected = golden.weights("grads.safetensors");
        for ((part, found), (_, expected)) in named.iter().zip(expected.named().unwrap()) {
            let off = relative(found, &expected);
            assert!(off < 2e-5, "{name}: the gradient of {part} differs by {off}");
        }
    }
}

#[test]
fn ten_steps_equal_torch() {
    for name in MODELS {
        let golden = Golden::new(name);
        let (config, workers) = (settings(golden.config.clone().into()), Workers::start(1).unwrap());
        let (mut model, batch, train) = (golden.model(), batch(&golden), golden.train_json());
        let mut optimizer =
            AdamW::new(&config, model.weights(), vec![true; model.weights().layout().len()]).unwrap();
        for step in 1..=10 {
            let loss = loss(&model, &batch);
            let gradients = gradients(&model, &loss);
            let norm = adamw::norm(&gradients).unwrap().double_value(&[]);
            let scale = adamw::scale(norm, config.grad_clip);
            let update = Update { scale, rate: config.schedule.rate(step), step };
            optimizer.update(model.weights_mut(), gradients, (update, None), &workers).unwrap();

            let index = usize::try_from(step - 1).unwrap();
            let expected = train["ten_losses_before_each_step"][index].as_f64().unwrap();
            let off = (loss.double_value(&[]) - expected).abs();
            assert!(off < 4e-5, "{name}, step {step}: the loss differs by {off}");
            let expected = train["grad_norm_before_clip_each_step"][index].as_f64().unwrap();
            let off = (norm / expected - 1.0).abs();
            assert!(off < 1e-4, "{name}, step {step}: the gradients' norm differs by {off}");
        }
        let flat = |weights: &Weights| {
            Tensor::cat(&weights.tensors().iter().map(|t| t.detach().reshape([-1])).collect::<Vec<_>>(), 0)
        };
        let found = flat(model.weights());
        let expected = flat(&golden.weights("params_after_10_steps.safetensors"));
        let off = relative(&found, &expected);
        assert!(off < 5e-5, "{name}: parameters differ by {off}");
        let far = (&found - &expected).abs().gt(1e-4).sum(Kind::Int64).int64_value(&[]);
        let farthest = largest_difference(&found, &expected);
        assert!(far <= 4 && farthest < 2e-3, "{name}: {far} values are off, one by {farthest}");
    }
}

/// A peer in the folder `name`: its shape, the ids of the file `forward`, and what is asked of them.
fn peer(name: &str) -> (PathBuf, Shape, Batch, Targets) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let stored = |name: &str| read_tensor(&folder.join("forward.safetensors"), name).unwrap();
    let (shape, tokens, targets) = if name == "hyenadna" {
        let ids = stored("input_ids_L258");
        let last = Tensor::full([2, 1], IGNORED, (Kind::Int64, Device::Cpu));
        let targets = Tensor::cat(&[ids.narrow(1, 1, 257), last], 1);
        (Shape::Hyena { hyenadna: hyena::Config::read(&folder).unwrap() }, ids, targets)
    } else {
        let dnabert2 = dnabert2::read_config(&folder).unwrap();
        (Shape::Dnabert2 { dnabert2 }, stored("input_ids"), stored("mlm_labels"))
    };
    let context = usize::try_from(tokens.size()[1]).unwrap();
    let [tokens, ids] = [tokens, targets].map(|ids| Vec::<i64>::try_from(ids.flatten(0, 1)).unwrap());
    let targets = Targets { counted: vec![0.0; ids.len()], ids, ..Targets::default() };
    (folder, shape, Batch { context, tokens, ..Batch::default() }, targets)
}

/// The published classes, and torch's `AdamW` with the groups that decay.
#[test]
fn three_steps_of_peers_equal_their_classes_and_torch() {
    for name in ["hyenadna", "dnabert2"] {
        let (folder, shape, batch, targets) = peer(name);
        let config = Resolved { decay_embedding: false, ..settings(shape.clone()) };
        let model = Network::read(&shape, &folder.join(hf::WEIGHTS), Device::Cpu).unwrap();
        let (mut model, workers) = (model.require_gradients().unwrap(), Workers::start(1).unwrap());
        let batch = model.prepare(&batch, &targets).unwrap();
        let train: Value =
            serde_json::from_slice(&std::fs::read(folder.join("train.json")).unwrap()).unwrap();
        let expected = |key: &str, step: usize| train["steps"][key][step - 1].as_f64().unwrap();
        let count = batch.targets.not_equal(IGNORED).sum(Kind::Int64).int64_value(&[]);
        let mut optimizer =
            AdamW::new(&config, model.weights(), vec![true; model.weights().layout().len()]).unwrap();
        for step in 1..=3 {
            let mean = |hidden: &Tensor, _: Range<i64>| {
                let loss = model
                    .nats_of(hidden, &batch.targets.flatten(0, 1), batch.asked.as_ref())?
                    .f_sum(Kind::Float)?
                    .f_div_scalar(count)?;
                Ok((loss.shallow_clone(), loss))
            };
            let (gradients, loss) = model.gradients(&batch, false, mean).unwrap();
            let off = (loss[0].double_value(&[]) / expected("losses", step) - 1.0).abs();
            assert!(off < 1e-4, "{name}, step {step}: the loss differs by {off} of it");
            let norm = adamw::norm(&gradients).unwrap().double_value(&[]);
            let scale = adamw::scale(norm, config.grad_clip);
            let off = (norm / expected("norms", step) - 1.0).abs();
            assert!(off < 1e-3, "{name}, step {step}: the gradients' norm differs by {off} of it");
            let update = Update { scale, rate: 1e-3, step: step as u64 };
            optimizer.update(model.weights_mut(), gradients, (update, None), &workers).unwrap();
        }
        let after = &train["steps"]["parameters"];
        let named = model.weights().named().unwrap();
        assert_eq!(named.len(), after.as_object().unwrap().len(), "{name}");
        for (part, tensor) in named {
            let off = (tensor.norm().double_value(&[]) / after[&part]["l2"].as_f64().unwrap() - 1.0).abs();
            assert!(off < 5e-5, "{name}: {part} differs by {off} of its norm");
        }
    }
}

fn settings(model: Shape) -> Resolved {
    let config = Config {
        preset: Some(Preset::Olmo300k.into()),
        model: Overrides::default(),
        decay: Decay::Constant,
        warmup: None,
        decay_embedding: true,
        decay_norms: false,
        ..Config::default()
    };
    Resolved { model, ..config.resolve(16, 96, 128).unwrap() }
}
