//! What is learned step by step: a network with a head on it, or the convolutional baseline.
//!
//! One thread learns one seed, so that what comes out does not depend on the number of threads. Shapes in comments: B rows, T tokens, d
//! width, C classes. Memory: the weights that are learned four times (gradients, moments), the best ones once more, and the
//! activations of a batch.

use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::cnn::Cnn;
use super::encoder::{self, BATCH, Batch, Network, Row};
use super::optimizer::Adam;
use super::protocol::Config;
use crate::model::device::sent;
use crate::observer::Stop;
use crate::sequence::kmer::spread;
use crate::task::UNLABELLED;
use crate::train::Schedule;

/// The label of what has no class.
const NO_LABEL: i64 = -100;

mod adapted;

use adapted::Adapted;

/// An example as a model takes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    /// Its tokens.
    pub row: &'a Row,
    /// Those of its reverse complement, where both strands are asked.
    pub turned: Option<&'a Row>,
    /// What it is.
    pub target: Target<'a>,
}

/// What an example is to be taken for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// The class of the whole.
    Class(u32),
    /// The class of each base, [`UNLABELLED`] of one that has none.
    Bases(&'a [u8]),
}

/// A run of one seed at one learning rate.
pub(super) struct Learner<'a> {
    pub config: &'a Config,
    pub classes: usize,
    /// Whether bases have classes.
    pub per_base: bool,
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

/// What is learned from.
pub(super) enum Base {
    /// A network.
    Network(Network),
    /// The convolutional baseline for rows of at most so many bases.
    Cnn { longest: usize },
}

/// What is learned: weights, and what they compute.
pub(super) enum Model {
    Adapted(Adapted),
    Cnn(Cnn),
}

impl Base {
    /// The same again, for another thread.
    pub(super) fn share(&self) -> Self {
        match self {
            Self::Network(network) => Self::Network(network.share()),
            Self::Cnn { longest } => Self::Cnn { longest: *longest },
        }
    }
}

impl Learner<'_> {
    /// Learns from `train` and keeps the weights of the epoch with the lowest loss on `validation`.
    pub(super) fn learn(
        &self,
        base: Base,
        train: &[Item<'_>],
        validation: &[Item<'_>],
    ) -> Result<Learned, encoder::Error> {
        let training = &self.config.training;
        let mut model = Model::new(base, self.config, (self.classes, self.per_base), self.seed)?;
        let mut adam = Adam::new(model.weights(), training.weight_decay)?;
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
                if places.len() >= model.least() {
                    let items = places.iter().map(|at| train[*at]).collect::<Vec<_>>();
                    let gradients = model.gradients(&items, training.clip)?;
                    adam.step(model.weights_mut(), gradients, schedule.rate(step))?;
                }
                (self.told)();
            }
            let logs = model.log_probabilities(validation, self.stop)?;
            let loss = loss(&logs, &truth(validation), self.classes);
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
        let training = &self.config.training;
        let warmup_steps = match training.warmup_share {
            Some(share) => part_of(steps, share),
            None => training.warmup_steps.min(steps / 10),
        };
        Schedule {
            decay: training.decay,
            peak: self.rate,
            floor: training.floor,
            warmup_steps,
            cooldown_steps: 0,
            steps: steps + 1,
        }
    }
}

impl Model {
    /// Before the first step: a head that knows nothing, on what the network computes; or a fresh baseline. `per_base` says
    /// whether bases have classes.
    fn new(
        base: Base,
        config: &Config,
        (classes, per_base): (usize, bool),
        seed: u64,
    ) -> Result<Self, encoder::Error> {
        Ok(match base {
            Base::Network(network) => {
                Self::Adapted(Adapted::new(network, config, (classes, per_base), seed)?)
            }
            Base::Cnn { longest } => Self::Cnn(Cnn::new(classes, longest, seed)?),
        })
    }

    fn weights(&self) -> &[Tensor] {
        match self {
            Self::Adapted(model) => &model.weights,
            Self::Cnn(model) => &model.weights,
        }
    }

    fn weights_mut(&mut self) -> &mut [Tensor] {
        match self {
            Self::Adapted(model) => &mut model.weights,
            Self::Cnn(model) => &mut model.weights,
        }
    }

    /// Where it computes; the baseline is small, and stays on the processor.
    const fn device(&self) -> Device {
        match self {
            Self::Adapted(model) => model.device(),
            Self::Cnn(_) => Device::Cpu,
        }
    }

    /// Examples of a step at least: batch norm has nothing to norm one by.
    const fn least(&self) -> usize {
        match self {
            Self::Adapted(_) => 1,
            Self::Cnn(_) => 2,
        }
    }

    /// Scores of the classes, `[B, C]`; where bases have classes of every base, `[B * bases, C]`.
    fn logits(&self, batch: &Batch, training: bool) -> Result<Tensor, encoder::Error> {
        match self {
            Self::Adapted(model) => model.logits(batch),
            Self::Cnn(model) => Ok(model.logits(batch, training)?),
        }
    }

    /// The gradients of the mean loss, cut to a norm of `clip`.
    fn gradients(&self, items: &[Item<'_>], clip: f64) -> Result<Vec<Tensor>, encoder::Error> {
        let rows = items.iter().map(|item| item.row).collect::<Vec<_>>();
        let logits = self.logits(&Batch::new(&rows, self.device())?, true)?;
        let labels = sent(&Tensor::f_from_slice(&labels(items))?, logits.device())?;
        let loss = logits.f_cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, NO_LABEL, 0.0)?;
        let gradients = Tensor::f_run_backward(&[loss], self.weights(), false, false)?;
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

    /// `ln p` of every class for each item, or for each base with a class; where both strands are asked, of the mean of their
    /// probabilities.
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
                let logits = tch::no_grad(|| self.logits(&Batch::new(&rows, self.device())?, false))?;
                Ok(logits.f_to_kind(Kind::Double)?.f_log_softmax(-1, Kind::Double)?)
            };
            let mut logs = of(items.iter().map(|item| item.row).collect())?;
            let turned = items.iter().filter_map(|item| item.turned).collect::<Vec<_>>();
            if turned.len() == items.len() {
                logs = both(&logs, &of(turned)?)?;
            }
            if items.iter().any(|item| matches!(item.target, Target::Bases(_))) {
                let labels = sent(&Tensor::f_from_slice(&labels(items))?, logs.device())?;
                let places = labels.f_ne(NO_LABEL)?.f_nonzero()?.f_flatten(0, 1)?;
                logs = logs.f_index_select(0, &places)?;
            }
            found.extend(Vec::<f64>::try_from(logs.f_contiguous()?.f_view(-1_i64)?)?);
        }
        Ok(found)
    }

    /// Copies of all that was learned.
    fn state(&self) -> Vec<Tensor> {
        let norms = match self {
            Self::Adapted(_) => &[][..],
            Self::Cnn(model) => model.norms.as_slice(),
        };
        self.weights().iter().chain(norms.iter().flatten()).map(|tensor| tensor.detach().copy()).collect()
    }

    fn set(&mut self, state: Vec<Tensor>) {
        let mut state = state.into_iter();
        self.weights_mut().iter_mut().zip(&mut state).for_each(|(to, from)| *to = from);
        if let Self::Cnn(model) = self {
            model.norms.iter_mut().flatten().zip(state).for_each(|(to, from)| *to = from);
        }
    }
}

/// A part of some steps, from 0 to 1, rounded down.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no more than the steps")]
fn part_of(steps: u64, share: f64) -> u64 {
    (steps as f64 * share.clamp(0.0, 1.0)) as u64
}

/// The logarithm of the mean of two probabilities.
pub(super) fn both(forward: &Tensor, turned: &Tensor) -> Result<Tensor, TchError> {
    forward.f_logaddexp(turned)?.f_sub_scalar(std::f64::consts::LN_2)
}

/// The mean loss in nats, `ln p` of `classes` classes being given for each that has one.
pub(super) fn loss(logs: &[f64], truth: &[u32], classes: usize) -> f64 {
    let sum: f64 = logs.chunks(classes).zip(truth).map(|(row, class)| -row[*class as usize]).sum();
    sum / truth.len() as f64
}

/// The classes of items, or of their bases that have one.
pub(super) fn truth(items: &[Item<'_>]) -> Vec<u32> {
    let mut all = Vec::new();
    for item in items {
        match item.target {
            Target::Class(class) => all.push(class),
            Target::Bases(labels) => {
                let labels = labels.iter().filter(|label| **label != UNLABELLED);
                all.extend(labels.map(|label| u32::from(*label)));
            }
        }
    }
    all
}

/// The classes of a batch, as scores have them: one an item, or those of all bases, filled up to the longest.
fn labels(items: &[Item<'_>]) -> Vec<i64> {
    let longest = items.iter().map(|item| match item.target {
        Target::Class(_) => 1,
        Target::Bases(labels) => labels.len(),
    });
    let longest = longest.max().unwrap_or(0);
    let mut all = Vec::with_capacity(items.len() * longest);
    for item in items {
        match item.target {
            Target::Class(class) => all.push(i64::from(class)),
            Target::Bases(labels) => {
                let label = |label: &u8| if *label == UNLABELLED { NO_LABEL } else { i64::from(*label) };
                let filled = labels.iter().map(label).chain(std::iter::repeat(NO_LABEL));
                all.extend(filled.take(longest));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::encoder::tests::{MODELS, open};
    use super::super::encoder::{Encoder, Row};
    use super::*;
    use crate::evaluate::protocol::{Baseline, Inputs, Pooling, Protocol};
    use crate::model::{Named, device, hyena};
    use crate::tokenizer::Tokenizer;
    use crate::tokenizer::nucleotide::Nucleotide;

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

    fn adapted(encoder: &Encoder, protocol: Protocol) -> Adapted {
        Adapted::new(encoder.network().unwrap().share(), &config(protocol), (2, false), 3).unwrap()
    }

    fn hidden(model: &Adapted, batch: &Batch) -> Tensor {
        model.network().unwrap().encode(&batch.ids, &batch.valid).unwrap()
    }

    #[test]
    fn before_the_first_step_all_is_as_the_model_left_it() {
        for name in MODELS {
            let encoder = open(name);
            let made = sequences(5);
            let (rows, _) =
                encoder.rows(made.iter().map(|(bases, _)| &bases[..]), &Inputs::default()).unwrap();
            let batch = Batch::new(&rows.iter().collect::<Vec<_>>(), Device::Cpu).unwrap();
            let expected = encoder.network().unwrap().encode(&batch.ids, &batch.valid).unwrap();
            for (protocol, same) in [
                (Protocol::FineTune, true),
                (Protocol::Lora, true),
                (Protocol::CnnHead, true),
                (Protocol::FromScratch, false),
            ] {
                let model = adapted(&encoder, protocol);
                let off = (hidden(&model, &batch) - &expected).abs().max().double_value(&[]);
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
            let batch = Batch::new(&rows.iter().collect::<Vec<_>>(), Device::Cpu).unwrap();
            let mut model = adapted(&encoder, Protocol::Lora);
            let before = hidden(&model, &batch);
            model.weights[1] = &model.weights[1] + 0.1;
            let off = (hidden(&model, &batch) - before).abs().max().double_value(&[]);
            assert!(off > 1e-4, "{name}: {off}");
        }
    }

    /// The loss on what validates, and the epoch, of examples with a word and without one.
    fn learned(encoder: &Encoder, config: &Config, rate: f64) -> (f64, u32) {
        let made = sequences(360);
        let rows = encoder.rows(made.iter().map(|(bases, _)| &bases[..]), &config.inputs).unwrap().0;
        let item =
            |(row, (_, class)): (_, &(_, u32))| Item { row, turned: None, target: Target::Class(*class) };
        let items: Vec<Item<'_>> = rows.iter().zip(&made).map(item).collect();
        let longest = rows.iter().map(|row: &Row| row.ids.len()).max().unwrap();
        let (train, validation) = items.split_at(300);
        let (stop, told) = (Stop::new(), || {});
        let learner =
            Learner { config, classes: 2, per_base: false, seed: 1, rate, stop: &stop, told: &told };
        let learned = learner.learn(encoder.base(longest).unwrap(), train, validation).unwrap();
        (learned.loss, learned.epoch)
    }

    #[test]
    fn every_protocol_learns_a_word_and_again_the_same() {
        let encoder = open("olmo2_gqa/hf");
        for (protocol, rate, epochs) in [
            (Protocol::CnnHead, 3e-3, 6),
            (Protocol::FineTune, 1e-3, 6),
            (Protocol::Lora, 1e-2, 8),
            (Protocol::FromScratch, 3e-3, 10),
        ] {
            let mut config = config(protocol);
            config.training.epochs = epochs;
            let (loss, epoch) = learned(&encoder, &config, rate);
            assert!(loss < 0.6, "{protocol}: {loss}");
            if protocol == Protocol::Lora {
                assert_eq!(learned(&encoder, &config, rate), (loss, epoch));
            }
        }
    }

    /// Run by itself (`--ignored`), since the device is that of the whole process.
    #[test]
    #[ignore = "needs CUDA"]
    fn a_gpu_learns_what_the_processor_learns() {
        // Torch looks for CUDA once, and before it computes.
        device::cuda().as_ref().unwrap();
        let names = ["olmo2_gqa/hf", "hyenadna", "dnabert2"];
        let protocols = [Protocol::FineTune, Protocol::Lora, Protocol::CnnHead, Protocol::FromScratch];
        for (name, protocol) in names.iter().flat_map(|name| protocols.map(|protocol| (name, protocol))) {
            let on = |choice: device::Choice| {
                device::choose(choice);
                let encoder = open(name);
                let mut config = config(protocol);
                config.training.epochs = 2;
                let (loss, _) = learned(&encoder, &config, 1e-3);
                let place = encoder.network().unwrap().device();
                device::choose(device::Choice::Auto);
                (loss, place)
            };
            let ((expected, _), (found, place)) = (on(device::Choice::Cpu), on(device::Choice::Cuda(0)));
            assert_eq!(place, Device::Cuda(0));
            assert!((found - expected).abs() < 2e-2, "{name}, {protocol}: {found}, expected {expected}");
        }
    }

    /// Of both peers: all weights, beside low-rank matrices, and from a shape alone; of DNABERT-2 through its pooler; and the
    /// baseline.
    #[test]
    fn peers_and_the_baseline_learn_a_word() {
        let ids: Arc<dyn Tokenizer> = Arc::new(Nucleotide::hyena());
        let tiny = Named::Hyena(hyena::Preset::Tiny1k);
        let tiny = Encoder::of_preset("x", tiny, Some(ids), None).unwrap();
        let (mean, pooler) = (Pooling::Mean, Pooling::Pooler);
        let cnn = || Encoder::of_baseline(Baseline::Cnn).unwrap();
        for (what, encoder, protocol, pooling, rate, epochs) in [
            ("hyenadna", open("hyenadna"), Protocol::FineTune, mean, 1e-3, 3),
            ("hyenadna", open("hyenadna"), Protocol::Lora, mean, 1e-2, 4),
            ("dnabert2", open("dnabert2"), Protocol::FineTune, pooler, 1e-3, 2),
            ("dnabert2", open("dnabert2"), Protocol::Lora, pooler, 1e-2, 2),
            ("dnabert2", open("dnabert2"), Protocol::FromScratch, pooler, 1e-3, 6),
            ("hyenadna-tiny-1k", tiny, Protocol::FromScratch, mean, 1e-3, 3),
            ("cnn", cnn(), Protocol::FromScratch, mean, 1e-3, 6),
        ] {
            let mut config = config(protocol);
            (config.training.epochs, config.inputs.pooling) = (epochs, pooling);
            let (loss, _) = learned(&encoder, &config, rate);
            assert!(loss < 0.55, "{what}, {protocol}: {loss}");
        }
    }

    /// Bases from a word on have the one class, those before it the other, some none; in windows of unlike length.
    #[test]
    fn classes_of_bases_are_learned_and_those_without_one_are_not_asked_for() {
        let made: Vec<(Vec<u8>, Vec<u8>)> = (0..120_u64)
            .map(|i| {
                let length = 40 + (spread(i) % 20) as usize;
                let mut bases: Vec<u8> =
                    (0..length as u64).map(|j| b"AC"[(spread(i << 8 | j) % 2) as usize]).collect();
                let at = (spread(i + 999) % 40) as usize;
                bases[at..].iter_mut().for_each(|base| *base = if *base == b'A' { b'T' } else { b'G' });
                let labels = (0..length).map(|j| if j % 7 == 0 { UNLABELLED } else { u8::from(j >= at) });
                (bases, labels.collect())
            })
            .collect();
        for (name, protocol) in [
            ("hyenadna", Protocol::LinearProbe),
            ("olmo2_gqa/hf", Protocol::CnnHead),
            ("olmo2_gqa/hf", Protocol::FineTune),
        ] {
            let mut config = config(protocol);
            config.training.epochs = 5;
            let encoder = open(name);
            let rows = encoder.rows(made.iter().map(|(bases, _)| &bases[..]), &config.inputs).unwrap().0;
            let items: Vec<Item<'_>> = rows
                .iter()
                .zip(&made)
                .map(|(row, (_, labels))| Item { row, turned: None, target: Target::Bases(labels) })
                .collect();
            let (train, validation) = items.split_at(100);
            let (stop, told) = (Stop::new(), || {});
            let learner = Learner {
                config: &config,
                classes: 2,
                per_base: true,
                seed: 1,
                rate: 1e-2,
                stop: &stop,
                told: &told,
            };
            let learned = learner.learn(encoder.base(60).unwrap(), train, validation).unwrap();
            let (truth, logs) =
                (truth(validation), learned.model.log_probabilities(validation, &stop).unwrap());
            assert_eq!(logs.len(), 2 * truth.len());
            assert_eq!(
                truth.len(),
                made[100..].iter().map(|(_, l)| l.iter().filter(|l| **l < 2).count()).sum::<usize>()
            );
            let right =
                logs.chunks(2).zip(&truth).filter(|(row, class)| (row[1] > row[0]) == (**class == 1)).count();
            assert!(
                right as f64 > 0.8 * truth.len() as f64,
                "{name}, {protocol}: {right} of {}",
                truth.len()
            );
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
