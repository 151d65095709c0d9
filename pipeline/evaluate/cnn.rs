//! The convolutional baseline of Genomic Benchmarks, learned from scratch on a task: what a model of DNA has to beat.
//!
//! Embedding of 100, three times convolution of 8 (16, 8 and 4 channels), batch norm, `ReLU` and pooling of 2, then 512 units and the
//! classes; Adam at 0.001, batches of 64. Two things differ from the published one: the loss is cross-entropy, where that one applies a
//! sigmoid twice, and the epoch is chosen by validation loss. The test set is scored once, at the end. Runs of different seeds go side by side,
//! each on one thread, and are the same on any number of threads. Memory: the bases of the task and a model for each run.

use serde::Serialize;
use tch::{Kind, TchError, Tensor};

use super::optimizer::{Adam, Draws};
use super::{answers, predictions};
use crate::metric::scores::{Metric, Scores};
use crate::metric::{self, seeds};
use crate::model::weights;
use crate::model::workers::Workers;
use crate::observer::Stop;
use crate::sequence::kmer::spread;
use crate::task::{Dataset, Example, Part};

const WIDTH: i64 = 100;
/// A, C, G, T, anything else, and what fills a row.
const SYMBOLS: i64 = 6;
const CODES: [i64; 4] = [0, 1, 2, 3];
const OTHER: i64 = 4;
const FILL: i64 = 5;
const CHANNELS: [i64; 3] = [16, 8, 4];
const KERNEL: i64 = 8;
const HIDDEN: i64 = 512;
const BATCH: usize = 64;
const RATE: f64 = 0.001;
/// The shortest row that three convolutions and poolings leave something of.
const LEAST_LENGTH: usize = 64;
/// One training example in so many validates, where the task has no validation part.
const VALIDATION: u64 = 10;

/// How to learn.
#[derive(Debug, Clone)]
pub struct Config {
    /// Seeds, one run each.
    pub seeds: Vec<u64>,
    /// Times that every example is seen.
    pub epochs: u32,
    /// Runs side by side.
    pub threads: usize,
}

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Chooses first weights, order, and what validates.
    pub seed: u64,
    /// The epoch whose weights were kept, from 1.
    pub epoch: u32,
    /// The mean loss on what validates, in nats.
    pub validation_loss: f64,
    /// On the test set.
    pub scores: Scores,
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Its name.
    pub task: String,
    /// Its version.
    pub version: u32,
    /// By seed.
    pub runs: Vec<Run>,
    /// The task's own score over all runs.
    pub summary: seeds::Summary,
    /// Test examples that are longer than any training example, and were cut.
    pub cut: u64,
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tensors.
    #[error(transparent)]
    Tensors(#[from] TchError),
    /// Threads.
    #[error(transparent)]
    Workers(#[from] weights::Error),
    /// Scores that are no numbers.
    #[error("the scores of the test set: {0}")]
    Scores(#[from] metric::Error),
    /// A task of places without bases.
    #[error("task `{task}` has no bases to learn from: give the reference that its intervals lie on")]
    NoBases {
        /// Its name.
        task: String,
    },
    /// A stop was asked for.
    #[error("stopped")]
    Stopped,
}

/// Learns and scores a task once for each seed. `told` hears the seed, the epoch and its validation loss.
///
/// # Errors
/// [`Error`] without bases, or when tensors fail.
pub fn run(
    dataset: &Dataset,
    config: &Config,
    stop: &Stop,
    told: &(dyn Fn(u64, u32, f64) + Sync),
) -> Result<Report, Error> {
    let all = || Part::ALL.into_iter().flat_map(|part| dataset.part(part));
    if all().any(|example| dataset.bases(example).is_none()) {
        return Err(Error::NoBases { task: dataset.name.clone() });
    }
    let length = |example: &Example| dataset.bases(example).map_or(0, <[u8]>::len);
    let longest = dataset.part(Part::Train).iter().map(length).max().unwrap_or(0).max(LEAST_LENGTH);
    let cut = dataset.part(Part::Test).iter().filter(|example| length(example) > longest).count() as u64;
    let workers = Workers::start(config.threads)?;
    let one = |seed| Learner { dataset, longest, seed, epochs: config.epochs, stop, told }.run();
    let runs: Vec<Run> = workers.map(config.seeds.clone(), one)?;
    let by_seed: Vec<(u64, &Scores)> = runs.iter().map(|run| (run.seed, &run.scores)).collect();
    let summary = seeds::Summary::new(dataset.metric.unwrap_or(Metric::Mcc), &by_seed);
    Ok(Report { task: dataset.name.clone(), version: dataset.version, runs, summary, cut })
}

struct Learner<'a> {
    dataset: &'a Dataset,
    /// Symbols of a row.
    longest: usize,
    seed: u64,
    epochs: u32,
    stop: &'a Stop,
    told: &'a (dyn Fn(u64, u32, f64) + Sync),
}

impl Learner<'_> {
    fn run(&self) -> Result<Run, Error> {
        let (mut train, validation) = self.parts();
        let mut model = Model::new(self.dataset.classes.len(), self.longest, self.seed)?;
        let mut best: Option<(f64, u32, Vec<Tensor>)> = None;
        for epoch in 1..=self.epochs {
            let salt = spread(self.seed << 16 | u64::from(epoch));
            train
                .sort_by_cached_key(|example| spread(example.line ^ spread(u64::from(example.class)) ^ salt));
            for batch in train.chunks(BATCH) {
                if self.stop.is_requested() {
                    return Err(Error::Stopped);
                }
                // Batch norm has nothing to norm one example by.
                if batch.len() > 1 {
                    model.step(&self.ids(batch), &labels(batch))?;
                }
            }
            let loss = self.loss(&model, &validation)?;
            (self.told)(self.seed, epoch, loss);
            if best.as_ref().is_none_or(|best| loss < best.0) {
                best = Some((loss, epoch, model.state()?));
            }
        }
        let (validation_loss, epoch, state) = best.unwrap_or((f64::NAN, 0, model.state()?));
        model.set(&state)?;
        let test: Vec<&Example> = self.dataset.part(Part::Test).iter().collect();
        Ok(Run { seed: self.seed, epoch, validation_loss, scores: self.scores(&model, &test)? })
    }

    /// What is learned from and what validates: the task's own parts, or a tenth of what is learned from, by the seed.
    fn parts(&self) -> (Vec<&Example>, Vec<&Example>) {
        let [train, validation] =
            [Part::Train, Part::Validation].map(|part| self.dataset.part(part).iter().collect::<Vec<_>>());
        if !validation.is_empty() {
            return (train, validation);
        }
        let held = |at: usize| spread(at as u64 ^ spread(self.seed)).is_multiple_of(VALIDATION);
        let (held, kept): (Vec<_>, Vec<_>) = train.into_iter().enumerate().partition(|(at, _)| held(*at));
        let strip = |examples: Vec<(usize, _)>| examples.into_iter().map(|(_, example)| example).collect();
        (strip(kept), strip(held))
    }

    /// Symbols of some examples, one row each, filled up and cut to the longest.
    fn ids(&self, examples: &[&Example]) -> Tensor {
        let mut ids = vec![FILL; examples.len() * self.longest];
        for (row, example) in ids.chunks_mut(self.longest).zip(examples) {
            let bases = self.dataset.bases(example).unwrap_or_default();
            for (id, base) in row.iter_mut().zip(bases) {
                *id = b"ACGT".iter().position(|letter| letter == base).map_or(OTHER, |at| CODES[at]);
            }
        }
        Tensor::from_slice(&ids).view([-1, size(self.longest)])
    }

    /// Log-probabilities of the classes, batch by batch.
    fn answers(&self, model: &Model, examples: &[&Example]) -> Result<Vec<f32>, TchError> {
        let mut answers = Vec::new();
        for batch in examples.chunks(16 * BATCH) {
            let logits = tch::no_grad(|| model.forward(&self.ids(batch), false))?;
            let logs = logits.f_log_softmax(-1, Kind::Float)?.f_view(-1_i64)?;
            answers.extend(Vec::<f32>::try_from(&logs)?);
        }
        Ok(answers)
    }

    /// The mean loss in nats.
    fn loss(&self, model: &Model, examples: &[&Example]) -> Result<f64, TchError> {
        let logs = self.answers(model, examples)?;
        let rows = logs.chunks(self.dataset.classes.len()).zip(examples);
        let sum: f64 = rows.map(|(row, example)| -f64::from(row[example.class as usize])).sum();
        Ok(sum / examples.len() as f64)
    }

    fn scores(&self, model: &Model, test: &[&Example]) -> Result<Scores, Error> {
        let classes = self.dataset.classes.len();
        let logs: Vec<f64> = self.answers(model, test)?.into_iter().map(f64::from).collect();
        let probabilities = answers::probabilities(&logs, classes);
        let truth: Vec<u32> = test.iter().map(|example| example.class).collect();
        let predicted = predictions::predicted(&probabilities, classes);
        Ok(answers::scored(&truth, &predicted, &probabilities, classes)?)
    }
}

/// A length as torch has it.
fn size(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn labels(examples: &[&Example]) -> Tensor {
    let labels: Vec<i64> = examples.iter().map(|example| example.class.into()).collect();
    Tensor::from_slice(&labels)
}

/// Weights that are learned, what batch norms remember, and the optimizer.
struct Model {
    weights: Vec<Tensor>,
    /// Mean and variance of each batch norm.
    norms: Vec<[Tensor; 2]>,
    adam: Adam,
}

impl Model {
    /// With first weights as `PyTorch` draws them: between plus and minus one over the root of the inputs of a unit; the embedding
    /// from -1 to 1.
    fn new(classes: usize, longest: usize, seed: u64) -> Result<Self, TchError> {
        let mut draws = Draws::new(seed);
        let mut weights = vec![draws.uniform(&[SYMBOLS, WIDTH], 1)?];
        let (mut inputs, mut length, mut norms) = (WIDTH, size(longest), Vec::new());
        for channels in CHANNELS {
            weights.push(draws.uniform(&[channels, inputs, KERNEL], inputs * KERNEL)?);
            weights.push(draws.uniform(&[channels], inputs * KERNEL)?);
            let ones = Tensor::f_ones(channels, (Kind::Float, tch::Device::Cpu))?;
            let zeros = ones.f_zeros_like()?;
            norms.push([zeros.copy(), ones.copy()]);
            weights.extend([ones.set_requires_grad(true), zeros.set_requires_grad(true)]);
            (inputs, length) = (channels, (length - KERNEL + 1) / 2);
        }
        for (units, inputs) in [(HIDDEN, inputs * length), (size(classes), HIDDEN)] {
            weights.extend([draws.uniform(&[units, inputs], inputs)?, draws.uniform(&[units], inputs)?]);
        }
        let adam = Adam::new(&weights, 0.0)?;
        Ok(Self { weights, norms, adam })
    }

    /// Logits of the classes, `[rows, classes]`, of symbols, `[rows, symbols]`.
    fn forward(&self, ids: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let mut hidden = Tensor::f_embedding(&self.weights[0], ids, -1, false, false)?.f_transpose(1, 2)?;
        for (layer, [mean, variance]) in self.weights[1..13].chunks(4).zip(&self.norms) {
            let [kernel, bias, scale, shift] = layer else { continue };
            hidden = hidden.f_conv1d(kernel, Some(bias), 1, 0, 1, 1)?;
            hidden = hidden.f_batch_norm(
                Some(scale),
                Some(shift),
                Some(mean),
                Some(variance),
                training,
                0.1,
                1e-5,
                false,
            )?;
            hidden = hidden.f_relu()?.f_max_pool1d(2, 2, 0, 1, false)?;
        }
        let hidden =
            hidden.f_flatten(1, -1)?.f_linear(&self.weights[13], Some(&self.weights[14]))?.f_relu()?;
        hidden.f_linear(&self.weights[15], Some(&self.weights[16]))
    }

    /// One step of Adam.
    fn step(&mut self, ids: &Tensor, labels: &Tensor) -> Result<(), TchError> {
        let logits = self.forward(ids, true)?;
        let loss = logits.f_cross_entropy_loss(labels, None::<Tensor>, tch::Reduction::Mean, -100, 0.0)?;
        let gradients = Tensor::f_run_backward(&[loss], &self.weights, false, false)?;
        self.adam.step(&mut self.weights, gradients, RATE)
    }

    /// A copy of the weights and of what batch norms remember.
    fn state(&self) -> Result<Vec<Tensor>, TchError> {
        let norms = self.norms.iter().flatten();
        self.weights.iter().chain(norms).map(|tensor| Ok(tensor.detach().copy())).collect()
    }

    /// Goes back to a copy.
    fn set(&mut self, state: &[Tensor]) -> Result<(), TchError> {
        let norms = self.norms.iter_mut().flatten();
        tch::no_grad(|| {
            self.weights
                .iter_mut()
                .chain(norms)
                .zip(state)
                .try_for_each(|(to, from)| to.f_copy_(from).map(drop))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::task::{Csv, Task};

    /// Sequences of 80 random bases, half of them with a word at a random place; and those that say nothing.
    fn dataset(folder: &Path, examples: u64, word: &str) -> Dataset {
        let rows = |from: u64| -> String {
            let row = |i: u64| {
                let mut bases: String =
                    (0..80).map(|j| b"ACGT"[(spread(i << 8 | j) % 4) as usize] as char).collect();
                let at = (spread(i) % 64) as usize;
                if i % 2 == 1 {
                    bases.replace_range(at..at + word.len(), word);
                }
                format!("{bases},{}\n", i % 2)
            };
            format!("sequence,label\n{}", (from..from + examples).map(row).collect::<String>())
        };
        std::fs::write(folder.join("train.csv"), rows(0)).unwrap();
        std::fs::write(folder.join("test.csv"), rows(1 << 20)).unwrap();
        let csv = Csv {
            train: "train.csv".into(),
            validation: None,
            test: "test.csv".into(),
            sequence: "sequence".into(),
            label: "label".into(),
        };
        Task { version: 1, csv: Some(csv), ..Task::default() }.read("words", folder).unwrap()
    }

    #[test]
    fn a_word_is_learned_and_runs_do_not_depend_on_threads() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), 1200, "GATTACAGGATTACAG");
        let of = |threads| {
            let config = Config { seeds: vec![1, 2], epochs: 6, threads };
            run(&dataset, &config, &Stop::new(), &|_, _, _| {}).unwrap()
        };
        let report = of(1);
        let auroc: Vec<f64> =
            report.runs.iter().map(|run| run.scores.shown(Metric::Auroc).unwrap()).collect();
        assert!(auroc.iter().all(|auroc| *auroc > 0.9), "{auroc:?}");
        assert_ne!(report.runs[0].scores, report.runs[1].scores);
        assert_eq!(report, of(2));
    }

    #[test]
    fn places_without_bases_cannot_be_learned_from() {
        let folder = tempfile::tempdir().unwrap();
        let mut dataset = dataset(folder.path(), 4, "");
        dataset.forget_bases();
        let config = Config { seeds: vec![0], epochs: 1, threads: 1 };
        let error = run(&dataset, &config, &Stop::new(), &|_, _, _| {}).unwrap_err();
        assert!(error.to_string().starts_with("task `words` has no bases to learn from"), "{error}");
    }

    #[test]
    fn a_stop_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (dataset, stop) = (dataset(folder.path(), 100, "A"), Stop::new());
        stop.request();
        let config = Config { seeds: vec![0], epochs: 1, threads: 1 };
        assert!(matches!(run(&dataset, &config, &stop, &|_, _, _| {}), Err(Error::Stopped)));
    }
}
