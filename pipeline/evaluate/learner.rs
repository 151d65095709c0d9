//! What is learned step by step: a head on a model that is frozen, whole, or beside matrices of low rank.
//!
//! One thread learns one seed, so that what comes out does not depend on the number of threads. Shapes in comments: B rows, T tokens, d
//! width, C classes. Memory: the weights that are learned four times (gradients, moments), the best ones once more, and the
//! activations of a batch.

use tch::{Kind, Reduction, TchError, Tensor};

use super::encoder::{self, BATCH, Batch, Network, Row};
use super::optimizer::{Adam, Draws};
use super::protocol::{Config, Pooling, Protocol};
use crate::observer::Stop;
use crate::sequence::kmer::spread;
use crate::train::{Decay, Schedule};

/// Channels of the convolutional head.
const CHANNELS: i64 = 64;
/// Positions that its convolutions see.
const KERNEL: i64 = 3;

/// An example as a model takes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    /// Its tokens.
    pub row: &'a Row,
    /// Those of its reverse complement, where both strands are asked.
    pub turned: Option<&'a Row>,
    /// Its class.
    pub class: u32,
}

/// A run of one seed at one learning rate.
pub(super) struct Learner<'a> {
    pub config: &'a Config,
    pub classes: usize,
    pub seed: u64,
    pub rate: f64,
    pub stop: &'a Stop,
    /// Hears of every step.
    pub told: &'a (dyn Fn() + Sync),
}

/// What was learned.
pub(super) struct Learned {
    pub model: Model,
    /// The epoch whose weights these are, from 1.
    pub epoch: u32,
    /// The mean loss on what validates, in nats; not a number where none was one.
    pub loss: f64,
}

/// What of a model is learned.
enum Adaptation {
    /// Nothing.
    Frozen,
    /// Every weight: the first of those that are learned.
    Full,
    /// The weights at these places plus `scale` times the product of two that are learned.
    Lora { places: Vec<usize>, scale: f64 },
}

/// A network, and the weights that are learned: those of the adaptation, then those of the head.
pub(super) struct Model {
    base: Network,
    adaptation: Adaptation,
    pooling: Pooling,
    is_convolutional: bool,
    weights: Vec<Tensor>,
    /// How many of them are the adaptation's.
    adapted: usize,
}

impl Learner<'_> {
    /// Learns from `train` and keeps the weights of the epoch with the lowest loss on `validation`.
    pub(super) fn learn(
        &self,
        network: Network,
        train: &[Item<'_>],
        validation: &[Item<'_>],
    ) -> Result<Learned, encoder::Error> {
        let training = &self.config.training;
        let mut model = Model::new(network, self.config, self.classes, self.seed)?;
        let mut adam = Adam::new(&model.weights, training.weight_decay)?;
        let (batch, mut best) = (training.batch as usize, None::<(f64, u32, Vec<Tensor>)>);
        let schedule = self.schedule(train.len());
        let mut order = (0..train.len()).collect::<Vec<_>>();
        let mut step = 0;
        for epoch in 1..=training.epochs {
            let salt = spread(self.seed << 16 | u64::from(epoch));
            order.sort_by_cached_key(|at| spread(*at as u64 ^ salt));
            for places in order.chunks(batch) {
                if self.stop.is_requested() {
                    return Err(encoder::Error::Stopped);
                }
                step += 1;
                let items = places.iter().map(|at| train[*at]).collect::<Vec<_>>();
                let gradients = model.gradients(&items, training.clip)?;
                adam.step(&mut model.weights, gradients, schedule.rate(step))?;
                (self.told)();
            }
            let loss = loss(&model.log_probabilities(validation, self.stop)?, validation, self.classes);
            if loss.is_finite() && best.as_ref().is_none_or(|best| loss < best.0) {
                best = Some((loss, epoch, model.state()));
            }
        }
        let (loss, epoch, state) = best.unwrap_or_else(|| (f64::NAN, training.epochs, model.state()));
        model.set(state);
        Ok(Learned { model, epoch, loss })
    }

    /// Steps of a run on `examples` examples.
    pub(super) fn steps(config: &Config, examples: usize) -> u64 {
        let epoch = examples.div_ceil(config.training.batch as usize) as u64;
        epoch * u64::from(config.training.epochs)
    }

    fn schedule(&self, examples: usize) -> Schedule {
        let steps = Self::steps(self.config, examples);
        let warmup_steps = self.config.training.warmup_steps.min(steps / 10);
        Schedule {
            decay: Decay::Linear,
            peak: self.rate,
            floor: 0.0,
            warmup_steps,
            cooldown_steps: 0,
            steps: steps + 1,
        }
    }
}

impl Model {
    /// Before the first step: a head that knows nothing, on what the network computes.
    pub(super) fn new(
        network: Network,
        config: &Config,
        classes: usize,
        seed: u64,
    ) -> Result<Self, encoder::Error> {
        let mut draws = Draws::new(seed);
        let width = i64::from(network.width());
        let base = if config.protocol == Protocol::FromScratch { network.fresh(seed)? } else { network };
        let (adaptation, mut weights) = match config.protocol {
            Protocol::FineTune | Protocol::FromScratch => (Adaptation::Full, own(base.tensors())),
            Protocol::Lora => low_rank(&base, config, &mut draws)?,
            _ => (Adaptation::Frozen, Vec::new()),
        };
        let adapted = weights.len();
        let is_convolutional = config.protocol == Protocol::CnnHead;
        let mut inputs = width;
        if is_convolutional {
            for channels in [width, CHANNELS] {
                weights.push(draws.uniform(&[CHANNELS, channels, KERNEL], channels * KERNEL)?);
                weights.push(draws.uniform(&[CHANNELS], channels * KERNEL)?);
            }
            inputs = CHANNELS;
        }
        let classes = i64::try_from(classes).unwrap_or(i64::MAX);
        weights.extend([draws.uniform(&[classes, inputs], inputs)?, draws.uniform(&[classes], inputs)?]);
        Ok(Self { base, adaptation, pooling: config.inputs.pooling, is_convolutional, weights, adapted })
    }

    /// The hidden values of a batch: `[B, T, d]`.
    pub(super) fn hidden(&self, batch: &Batch) -> Result<Tensor, encoder::Error> {
        let network = match &self.adaptation {
            Adaptation::Frozen => {
                return tch::no_grad(|| self.base.encode(&batch.ids, &batch.valid));
            }
            Adaptation::Full => self
                .base
                .with_tensors(self.weights[..self.adapted].iter().map(Tensor::shallow_clone).collect()),
            Adaptation::Lora { places, scale } => {
                let mut tensors: Vec<Tensor> =
                    self.base.tensors().iter().map(Tensor::shallow_clone).collect();
                for (place, pair) in places.iter().zip(self.weights[..self.adapted].chunks(2)) {
                    let change = pair[1].f_matmul(&pair[0])?.f_mul_scalar(*scale)?;
                    tensors[*place] = tensors[*place].f_add(&change)?;
                }
                self.base.with_tensors(tensors)
            }
        };
        network.encode(&batch.ids, &batch.valid)
    }

    /// Scores of the classes: `[B, C]`.
    fn logits(&self, batch: &Batch) -> Result<Tensor, encoder::Error> {
        let (hidden, head) = (self.hidden(batch)?, &self.weights[self.adapted..]);
        let (pooled, last) = if self.is_convolutional {
            (convolved(&hidden, batch, head)?, &head[4..])
        } else {
            (batch.pool(&hidden, self.pooling)?, head)
        };
        Ok(pooled.f_linear(&last[0], Some(&last[1]))?)
    }

    /// The gradients of the mean loss, cut to a norm of `clip`.
    fn gradients(&self, items: &[Item<'_>], clip: f64) -> Result<Vec<Tensor>, encoder::Error> {
        let rows = items.iter().map(|item| item.row).collect::<Vec<_>>();
        let labels = items.iter().map(|item| i64::from(item.class)).collect::<Vec<_>>();
        let logits = self.logits(&Batch::new(&rows)?)?;
        let labels = Tensor::f_from_slice(&labels)?;
        let loss = logits.f_cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?;
        let gradients = Tensor::f_run_backward(&[loss], &self.weights, false, false)?;
        let there = || gradients.iter().filter(|gradient| gradient.defined());
        let norms = there().map(Tensor::f_norm).collect::<Result<Vec<_>, _>>()?;
        let norm = Tensor::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?;
        if norm > clip {
            for gradient in there() {
                drop(gradient.shallow_clone().f_mul_scalar_(clip / norm)?);
            }
        }
        Ok(gradients)
    }

    /// `ln p` of every class for each item; where both strands are asked, of the mean of their probabilities.
    pub(super) fn log_probabilities(
        &self,
        items: &[Item<'_>],
        stop: &Stop,
    ) -> Result<Vec<f64>, encoder::Error> {
        let mut found = Vec::new();
        for items in items.chunks(BATCH) {
            if stop.is_requested() {
                return Err(encoder::Error::Stopped);
            }
            let of = |rows: Vec<&Row>| -> Result<Tensor, encoder::Error> {
                let logits = tch::no_grad(|| self.logits(&Batch::new(&rows)?))?;
                Ok(logits.f_to_kind(Kind::Double)?.f_log_softmax(-1, Kind::Double)?)
            };
            let mut logs = of(items.iter().map(|item| item.row).collect())?;
            let turned = items.iter().filter_map(|item| item.turned).collect::<Vec<_>>();
            if turned.len() == items.len() {
                logs = both(&logs, &of(turned)?)?;
            }
            found.extend(Vec::<f64>::try_from(logs.f_contiguous()?.f_view(-1_i64)?)?);
        }
        Ok(found)
    }

    /// Copies of the weights.
    fn state(&self) -> Vec<Tensor> {
        self.weights.iter().map(|weight| weight.detach().copy()).collect()
    }

    fn set(&mut self, state: Vec<Tensor>) {
        self.weights = state;
    }
}

/// The logarithm of the mean of two probabilities.
pub(super) fn both(forward: &Tensor, turned: &Tensor) -> Result<Tensor, TchError> {
    forward.f_logaddexp(turned)?.f_sub_scalar(std::f64::consts::LN_2)
}

/// The mean loss in nats, `ln p` of `classes` classes being given for each item.
pub(super) fn loss(logs: &[f64], items: &[Item<'_>], classes: usize) -> f64 {
    let rows = logs.chunks(classes).zip(items);
    let sum: f64 = rows.map(|(row, item)| -row[item.class as usize]).sum();
    sum / items.len() as f64
}

/// Copies whose gradients are wanted.
fn own(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|tensor| tensor.detach().copy().set_requires_grad(true)).collect()
}

/// Two matrices beside each projection, `[rank, inputs]` as linear layers start and `[outputs, rank]` of zeros.
fn low_rank(
    base: &Network,
    config: &Config,
    draws: &mut Draws,
) -> Result<(Adaptation, Vec<Tensor>), TchError> {
    let rank = i64::from(config.training.lora_rank);
    let places = base.projections();
    let mut weights = Vec::new();
    for place in &places {
        let shape = base.tensors()[*place].size();
        weights.push(draws.uniform(&[rank, shape[1]], shape[1])?);
        let zeros = Tensor::f_zeros([shape[0], rank], (Kind::Float, tch::Device::Cpu))?;
        weights.push(zeros.set_requires_grad(true));
    }
    let scale = config.training.lora_alpha / rank as f64;
    Ok((Adaptation::Lora { places, scale }, weights))
}

/// Two convolutions over the bases and their mean: `[B, T, d]` to `[B, CHANNELS]`.
fn convolved(hidden: &Tensor, batch: &Batch, head: &[Tensor]) -> Result<Tensor, TchError> {
    let (values, there) = batch.per_base(hidden)?;
    let there = there.f_unsqueeze(1)?;
    let mut values = values.f_transpose(1, 2)?;
    for layer in head[..4].chunks(2) {
        values = values
            .f_conv1d(&layer[0], Some(&layer[1]), 1, KERNEL / 2, 1, 1)?
            .f_gelu("none")?
            .f_mul(&there)?;
    }
    let sum = values.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?;
    let bases = there.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?.f_clamp_min(1.0)?;
    sum.f_div(&bases)
}

#[cfg(test)]
mod tests {
    use super::super::encoder::tests::{MODELS, open};
    use super::*;
    use crate::evaluate::protocol::Inputs;

    fn config(protocol: Protocol) -> Config {
        Config::new(protocol)
    }

    /// Sequences, half of them with a word at a random place.
    fn sequences(count: u64) -> Vec<(Vec<u8>, u32)> {
        let one = |i: u64| {
            let mut bases: Vec<u8> = (0..60).map(|j| b"ACGT"[(spread(i << 8 | j) % 4) as usize]).collect();
            let class = u32::try_from(i % 2).unwrap();
            if class == 1 {
                let at = (spread(i) % 40) as usize;
                bases[at..at + 16].copy_from_slice(b"GATTACAGGATTACAG");
            }
            (bases, class)
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn before_the_first_step_all_is_as_the_model_left_it() {
        for name in MODELS {
            let encoder = open(name);
            let made = sequences(5);
            let (rows, _) =
                encoder.rows(made.iter().map(|(bases, _)| &bases[..]), &Inputs::default()).unwrap();
            let batch = Batch::new(&rows.iter().collect::<Vec<_>>()).unwrap();
            let expected = encoder.network().encode(&batch.ids, &batch.valid).unwrap();
            for (protocol, same) in [
                (Protocol::FineTune, true),
                (Protocol::Lora, true),
                (Protocol::CnnHead, true),
                (Protocol::FromScratch, false),
            ] {
                let model = Model::new(encoder.network().share(), &config(protocol), 2, 3).unwrap();
                let off = (model.hidden(&batch).unwrap() - &expected).abs().max().double_value(&[]);
                assert_eq!(off == 0.0, same, "{name}, {protocol}: {off}");
            }
        }
    }

    /// Zeros beside the projections; once they are none, the model is another.
    #[test]
    fn what_stands_beside_projections_counts() {
        for name in MODELS {
            let encoder = open(name);
            let made = sequences(3);
            let (rows, _) =
                encoder.rows(made.iter().map(|(bases, _)| &bases[..]), &Inputs::default()).unwrap();
            let batch = Batch::new(&rows.iter().collect::<Vec<_>>()).unwrap();
            let mut model = Model::new(encoder.network().share(), &config(Protocol::Lora), 2, 3).unwrap();
            let before = model.hidden(&batch).unwrap();
            model.weights[1] = &model.weights[1] + 0.1;
            let off = (model.hidden(&batch).unwrap() - before).abs().max().double_value(&[]);
            assert!(off > 1e-4, "{name}: {off}");
        }
    }

    #[test]
    fn every_protocol_learns_a_word_and_again_the_same() {
        let encoder = open("olmo2_gqa/hf");
        let made = sequences(360);
        let (rows, _) = encoder.rows(made.iter().map(|(bases, _)| &bases[..]), &Inputs::default()).unwrap();
        let items: Vec<Item<'_>> = rows
            .iter()
            .zip(&made)
            .map(|(row, (_, class))| Item { row, turned: None, class: *class })
            .collect();
        let (train, validation) = items.split_at(300);
        for (protocol, rate, epochs) in [
            (Protocol::CnnHead, 3e-3, 6),
            (Protocol::FineTune, 1e-3, 6),
            (Protocol::Lora, 1e-2, 8),
            (Protocol::FromScratch, 3e-3, 10),
        ] {
            let mut config = config(protocol);
            config.training.epochs = epochs;
            let learn = || {
                let (stop, told) = (Stop::new(), || {});
                let learner =
                    Learner { config: &config, classes: 2, seed: 1, rate, stop: &stop, told: &told };
                learner.learn(encoder.network().share(), train, validation).unwrap()
            };
            let learned = learn();
            assert!(learned.loss < 0.6, "{protocol}: {}", learned.loss);
            if protocol == Protocol::Lora {
                let again = learn();
                assert_eq!((learned.loss, learned.epoch), (again.loss, again.epoch));
            }
        }
    }

    #[test]
    fn probabilities_of_both_strands_are_averaged() {
        let tensor = |values: [f64; 2]| Tensor::from_slice(&values).log();
        let found = both(&tensor([0.2, 0.8]), &tensor([0.6, 0.4])).unwrap().exp();
        let found = Vec::<f64>::try_from(found).unwrap();
        assert!((found[0] - 0.4).abs() < 1e-12 && (found[1] - 0.6).abs() < 1e-12, "{found:?}");
    }
}
