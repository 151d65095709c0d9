//! The trainer, from top to bottom.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tch::{Device, Kind, TchError, Tensor};

use super::adamw::{self, AdamW, Update};
use super::checkpoint::{self, Best, DataRef, State, VocabularyRef};
use super::config::{self, Config, Initialize, Resolved};
use super::events::Events;
use super::history::{self, FILE as HISTORY, Record, read_history};
use super::prediction;
use crate::fs;
use crate::loader::{self, Batch, Batches, Order, Prediction, Sampler, Targets, TokenRows, Vocabulary};
use crate::model::likelihood::{self, Likelihood, Prepared, Scorer};
use crate::model::network::Network;
use crate::model::weights::{self, Weights};
use crate::model::workers::Workers;
use crate::model::{Shape, hf};
use crate::observer::{Event, Observer, Stop, Unit};

/// Threads that read rows ahead: one fills batches far faster than they are used.
const LOADERS: usize = 1;

/// What a model is trained on.
#[derive(Clone, Copy)]
pub struct Data<'a> {
    /// Rows to train on.
    pub rows: &'a dyn TokenRows,
    /// Rows to evaluate on.
    pub validation: Option<&'a dyn TokenRows>,
    /// What the ids mean.
    pub vocabulary: &'a Vocabulary,
    /// Fingerprint of the rows: a checkpoint is bound to it.
    pub fingerprint: &'a str,
}

/// How a run reaches the world outside.
#[derive(Clone, Copy)]
pub struct Hooks<'a> {
    /// Told how the run goes.
    pub observer: &'a dyn Observer,
    /// The stage's name in events.
    pub stage: &'a str,
    /// Checked before every step.
    pub stop: &'a Stop,
    /// Threads to compute with.
    pub threads: usize,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Number of parameters, padding included.
    pub parameters: u64,
    /// The last record: steps, tokens, seconds, losses.
    pub last: Record,
    /// The whole course.
    pub history: Vec<Record>,
    /// The checkpoint of the last step.
    pub checkpoint: PathBuf,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that cannot be.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A file call.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// Rows that do not fit the vocabulary.
    #[error(transparent)]
    Rows(#[from] loader::Error),
    /// Tensors.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// A tokenizer that the model cannot be trained with.
    #[error(transparent)]
    Vocabulary(#[from] prediction::Error),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The validation rows.
    #[error("cannot evaluate on the validation rows: {0}")]
    Validation(#[source] likelihood::Error),
    /// Rows of the validation set have another length.
    #[error("validation rows have {found} tokens, training rows {expected}")]
    Context {
        /// Tokens per validation row.
        found: usize,
        /// Tokens per training row.
        expected: usize,
    },
    /// A context beyond what a model can have.
    #[error("rows of {0} tokens are too long: a model sees at most 4294967295")]
    TooLong(usize),
    /// Numbers that are none.
    #[error(
        "step {step}: the loss is {loss} and the gradients' norm {norm} at learning rate {rate:.3e}, as in the {limit} \
         steps before, which were skipped (`max_skipped_steps`); a lower `learning_rate` or a longer `warmup` may help"
    )]
    NotFinite {
        /// The step, from 1 on.
        step: u64,
        /// Mean loss in nats.
        loss: f64,
        /// Norm of the gradients.
        norm: f64,
        /// Learning rate.
        rate: f64,
        /// How many steps before this one were skipped for the same reason.
        limit: u32,
    },
    /// Somebody asked to stop.
    #[error("stopped at step {step}; a rerun goes on from `{}`", checkpoint.display())]
    Stopped {
        /// Steps done.
        step: u64,
        /// What was saved.
        checkpoint: PathBuf,
    },
    /// Rows that do not say where documents end.
    #[error("`document_mask`: the {0} rows do not say where documents end; pack them again")]
    NoDocuments(&'static str),
    /// The reading threads ended.
    #[error("step {step}: no more batches came from the rows")]
    NoBatch {
        /// The step, from 1 on.
        step: u64,
    },
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Tensors(error.into())
    }
}

/// Trains a model and leaves its last checkpoint and its history in `out`. Goes on from a checkpoint that is there.
pub fn run(config: &Config, data: Data<'_>, out: &Path, hooks: Hooks<'_>) -> Result<Summary, Error> {
    let resolved = resolve(config, data)?;
    let mut trainer = Trainer::start(&resolved, config.initialize.as_ref(), data, out, hooks)?;
    let order = Order::Shuffled(Sampler { seed: resolved.seed, len: data.rows.rows(), rank: 0, world: 1 });
    std::thread::scope(|scope| {
        let (rows, position) = (resolved.batch_rows as usize, trainer.state.progress.position);
        trainer.train(&mut Batches::start(scope, data.rows, order, rows, position, LOADERS))
    })?;
    trainer.finish()
}

fn resolve(config: &Config, data: Data<'_>) -> Result<Resolved, Error> {
    let expected = data.rows.context();
    let found = data.validation.map_or(expected, TokenRows::context);
    if found != expected {
        return Err(Error::Context { found, expected });
    }
    if config.document_mask {
        let told = |rows: &dyn TokenRows| rows.rows() == 0 || rows.document_ends(0).is_some();
        let silent = |(name, rows): (&'static str, _)| (!told(rows)).then_some(name);
        let parts = [Some(("training", data.rows)), data.validation.map(|rows| ("validation", rows))];
        if let Some(name) = parts.into_iter().flatten().find_map(silent) {
            return Err(Error::NoDocuments(name));
        }
    }
    let context = u32::try_from(expected).map_err(|_| Error::TooLong(expected))?;
    let vocabulary = u32::try_from(data.vocabulary.size()).unwrap_or(u32::MAX);
    let mut resolved = config.resolve(data.rows.rows(), context, vocabulary)?;
    match &mut resolved.model {
        Shape::Olmo(_) => {}
        Shape::Hyena { .. } => prediction::check_ids(data.vocabulary)?,
        Shape::Dnabert2 { dnabert2 } => dnabert2.pad = data.vocabulary.pad,
    }
    Ok(resolved)
}

/// A run under way.
struct Trainer<'a> {
    data: Data<'a>,
    hooks: Hooks<'a>,
    out: &'a Path,
    state: State,
    model: Network,
    /// What the model is asked of training and of validation rows.
    asked: [Prediction; 2],
    optimizer: AdamW,
    workers: Workers,
    history: Vec<Record>,
    events: Events,
    /// The newest checkpoint and its step.
    saved: Option<Saved>,
}

type Saved = (u64, PathBuf);

/// What one step measured.
struct Step {
    rate: f64,
    norm: f64,
    seconds: f64,
}

impl<'a> Trainer<'a> {
    /// Fresh, or from the newest checkpoint in `out`.
    fn start(
        config: &Resolved,
        initial: Option<&Initialize>,
        data: Data<'a>,
        out: &'a Path,
        hooks: Hooks<'a>,
    ) -> Result<Self, Error> {
        let (rows, context) = (data.rows.rows(), data.rows.context());
        let rows = DataRef { rows, context, fingerprint: data.fingerprint.to_owned() };
        let state = State::new(config, VocabularyRef::of(data.vocabulary), rows);
        let workers = Workers::start(hooks.threads)?;
        let (state, model, optimizer, saved) = match checkpoint::resume(out, &state, Device::Cpu)? {
            None => fresh(state, initial, Device::Cpu)?,
            Some(run) => {
                let saved = (run.state.progress.step, run.folder);
                let message = format!("goes on from step {}", saved.0);
                hooks.observer.event(&Event::Note { stage: Some(hooks.stage.to_owned()), message });
                (run.state, run.model, run.optimizer, Some(saved))
            }
        };
        let mut history = read_history(&out.join(HISTORY)).unwrap_or_default();
        history.retain(|record| record.step <= state.progress.step);
        let events = Events::begin(out, &history, state.progress.seconds)?;
        let model = model.require_gradients()?;
        let asked = prediction::of(&state.config, data.vocabulary, data.rows.rows())?;
        Ok(Self { data, hooks, out, state, model, asked, optimizer, workers, history, events, saved })
    }

    fn train(&mut self, batches: &mut Batches) -> Result<(), Error> {
        while self.state.progress.step < self.state.config.schedule.steps {
            if self.hooks.stop.is_requested() {
                return Err(Error::Stopped { step: self.state.progress.step, checkpoint: self.save()? });
            }
            let step = self.state.progress.step + 1;
            let batch = batches.next().ok_or(Error::NoBatch { step })?;
            let measured = self.step(step, &batch)?;
            let better = self.report(&measured)?;
            if self.is_due(self.state.config.checkpoint_every) || (better && self.state.config.keep_best) {
                self.save()?;
            }
        }
        Ok(())
    }

    /// One optimizer step on one batch.
    fn step(&mut self, step: u64, batch: &Batch) -> Result<Step, Error> {
        let began = Instant::now();
        let (gradients, measured) = self.gradients(step, batch)?;
        let (norm, scale) = adamw::clip(&gradients, self.state.config.grad_clip)?;
        let rate = self.state.config.schedule.rate(step);
        let loss = measured.loss().unwrap_or(0.0);
        if loss.is_finite() && norm.is_finite() {
            let update = Update { scale, rate, step: step - self.state.progress.skipped };
            self.optimizer.update(self.model.weights_mut(), gradients, update, &self.workers)?;
            self.state.progress.window += measured;
            self.state.progress.skipped_in_a_row = 0;
        } else {
            self.skip(step, loss, norm, rate)?;
        }
        let progress = &mut self.state.progress;
        progress.step = step;
        progress.position += batch.rows() as u64;
        progress.tokens += batch.tokens.len() as u64;
        let seconds = began.elapsed().as_secs_f64();
        progress.seconds += seconds;
        Ok(Step { rate, norm, seconds })
    }

    /// Leaves the weights as they are and says so; fails where too many steps in a row were like this one.
    fn skip(&mut self, step: u64, loss: f64, norm: f64, rate: f64) -> Result<(), Error> {
        let (progress, limit) = (&mut self.state.progress, self.state.config.max_skipped_steps);
        if progress.skipped_in_a_row >= limit {
            return Err(Error::NotFinite { step, loss, norm, rate, limit });
        }
        progress.skipped += 1;
        progress.skipped_in_a_row += 1;
        let message = format!("step {step} is skipped: the loss is {loss} and the gradients' norm {norm}");
        self.hooks.observer.event(&Event::Note { stage: Some(self.hooks.stage.to_owned()), message });
        Ok(())
    }

    /// What the steps' objective is made of.
    fn objective(&self, step: u64, weight: f64) -> Objective {
        let (config, context) = (&self.state.config, self.state.data.context);
        Objective {
            weight,
            z_loss: config.z_loss,
            checkpointing: config.activation_checkpointing,
            context: config.context_warmup.map_or(context, |warmup| warmup.context(step, context)),
        }
    }

    /// Gradients of the mean loss over the batch: those of its micro-batches, which the workers share, summed.
    fn gradients(&self, step: u64, batch: &Batch) -> Result<(Vec<Tensor>, Likelihood), Error> {
        let mut parts = batch.split(self.state.config.micro_batch_rows as usize);
        if !self.state.config.loss_weights {
            for part in &mut parts {
                part.weights.clear();
            }
        }
        let parts = parts.into_iter().map(|part| self.asked[0].ask(self.data.vocabulary, part));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let weight = parts.iter().map(|(_, targets)| targets.weight()).sum::<f64>();
        let objective = self.objective(step, if weight > 0.0 { weight } else { 1.0 });
        let parts = parts.into_iter().map(|(part, targets)| (self.model.share(), part, targets));
        let compute = |(model, part, targets): (Network, Batch, Targets)| {
            micro_batch(&model, part, &targets, objective)
        };
        // As many at once as there are threads, so that only so many gradients are held beside their sum.
        let (mut parts, mut sum, mut measured) = (parts.peekable(), Vec::new(), Likelihood::default());
        while parts.peek().is_some() {
            let wave = parts.by_ref().take(self.workers.threads()).collect();
            let (gradients, found): (Vec<_>, Vec<_>) = self.workers.map(wave, compute)?.into_iter().unzip();
            let gradients = std::iter::once(sum).filter(|sum| !sum.is_empty()).chain(gradients);
            sum = self.workers.map(by_parameter(gradients.collect()), add_up)?;
            for found in found {
                measured += found;
            }
        }
        Ok((sum, measured))
    }

    /// Tells the observer, and keeps a record where one is due; whether the validation loss was never lower.
    fn report(&mut self, measured: &Step) -> Result<bool, Error> {
        let (progress, steps) = (self.state.progress, self.state.config.schedule.steps);
        let last = progress.step == steps;
        let stage = || self.hooks.stage.to_owned();
        self.hooks.observer.event(&Event::Progress {
            stage: stage(),
            done: progress.step,
            total: Some(steps),
            unit: Unit::Steps,
        });
        let evaluate = last || self.is_due(self.state.config.evaluate_every);
        if !evaluate && !self.is_due(Some(self.state.config.log_every)) {
            return Ok(false);
        }
        let validation = if evaluate { self.validate()? } else { None };
        let record = record(&self.state, measured, validation.as_ref());
        let tokens = f64::from(self.state.config.batch_rows) * self.state.data.context as f64;
        let work = self.state.config.model.work_per_token(self.state.data.context);
        let values = values(&record, tokens / measured.seconds, work);
        self.hooks.observer.event(&Event::Metrics { stage: stage(), step: progress.step, values });
        self.events.add(self.out, &record)?;
        self.history.push(record);
        self.state.progress.window = Likelihood::default();
        Ok(self.is_best(validation.as_ref().and_then(Likelihood::loss)))
    }

    /// Whether a validation loss is the lowest so far, which it then is.
    fn is_best(&mut self, loss: Option<f64>) -> bool {
        let progress = &mut self.state.progress;
        let before = progress.best;
        let better = |loss: &f64| before.is_none_or(|best| *loss < best.loss);
        let best = loss.filter(better).map(|loss| Best { step: progress.step, loss });
        progress.best = best.or(before);
        best.is_some()
    }

    fn is_due(&self, every: Option<u64>) -> bool {
        every.is_some_and(|every| self.state.progress.step.is_multiple_of(every))
    }

    /// Sums over the validation rows. A request to stop waits for it, so that no record lacks it.
    fn validate(&self) -> Result<Option<Likelihood>, Error> {
        let Some(rows) = self.data.validation else { return Ok(None) };
        let config = &self.state.config;
        let scorer = Scorer {
            model: &self.model,
            vocabulary: self.data.vocabulary,
            prediction: &self.asked[1],
            batch_rows: config.micro_batch_rows as usize,
            workers: &self.workers,
            stop: &Stop::new(),
        };
        let mut sum = Likelihood::default();
        scorer
            .score(rows, config.evaluate_rows.unwrap_or(u64::MAX), |row| sum += row)
            .map_err(Error::Validation)?;
        Ok(Some(sum))
    }

    /// Saves the run as it is now, unless it is saved already.
    fn save(&mut self) -> Result<PathBuf, Error> {
        history::write(&self.out.join(HISTORY), &self.history)?;
        let now = self.state.progress.step;
        if let Some((step, place)) = &self.saved
            && *step == now
        {
            return Ok(place.clone());
        }
        let (weights, tokenizer) = (self.model.weights(), &self.data.vocabulary.tokenizer);
        let place = checkpoint::save(self.out, &mut self.state, weights, &self.optimizer, tokenizer)?;
        self.saved = Some((now, place.clone()));
        Ok(place)
    }

    fn finish(mut self) -> Result<Summary, Error> {
        let checkpoint = self.save()?;
        Ok(Summary {
            parameters: self.state.config.model.count(),
            last: self.history.last().cloned().unwrap_or_default(),
            history: self.history,
            checkpoint,
        })
    }
}

/// The weights are random, or those of `initial`.
fn fresh(
    state: State,
    initial: Option<&Initialize>,
    device: Device,
) -> Result<(State, Network, AdamW, Option<Saved>), Error> {
    let weights = match (&state.config.model, initial) {
        (Shape::Olmo(config), Some(Initialize { hf: folder })) => Weights::read_hf(config, folder, device)?,
        (shape, Some(Initialize { hf: folder })) => {
            Weights::read(shape.layout(), &folder.join(hf::WEIGHTS), "", device)?
        }
        (shape, None) => Weights::fresh(shape.layout(), state.config.seed, device)?,
    };
    let model = Network::new(&state.config.model, weights, device)?;
    let optimizer = AdamW::new(&state.config, device)?;
    Ok((state, model, optimizer, None))
}

/// What is minimised: the weighted mean of losses and z-losses.
#[derive(Clone, Copy)]
struct Objective {
    /// Sum of the weights of all targets of the step.
    weight: f64,
    /// Coefficient of the z-loss.
    z_loss: f64,
    /// Whether layers are computed again.
    checkpointing: bool,
    /// Tokens that are seen together.
    context: usize,
}

impl Objective {
    /// The losses of a micro-batch in nats, and its part of the objective.
    fn of(
        self,
        model: &Network,
        hidden: &Tensor,
        batch: &Prepared,
    ) -> Result<(Tensor, Tensor), weights::Error> {
        let (nats, losses) = if self.z_loss > 0.0 {
            let [nats, z] = model.nats_and_z(hidden, &batch.targets)?;
            let losses = nats.f_add(&z.f_mul_scalar(self.z_loss)?)?;
            (nats, losses)
        } else {
            let nats = model.nats_of(hidden, &batch.targets)?;
            (nats.shallow_clone(), nats)
        };
        let losses = batch.weights.as_ref().map_or(Ok(losses.shallow_clone()), |w| losses.f_mul(w))?;
        Ok((losses.f_sum(Kind::Float)?.f_div_scalar(self.weight)?, nats))
    }
}

/// A micro-batch's part of the gradients of the objective.
fn micro_batch(
    model: &Network,
    batch: Batch,
    targets: &Targets,
    objective: Objective,
) -> Result<(Vec<Tensor>, Likelihood), weights::Error> {
    // Targets are those of whole rows: the first token of a part is predicted by the part before it.
    let prepared = Prepared::new(model.device(), &Batch { context: objective.context, ..batch }, targets)?;
    let (gradients, nats) = model
        .gradients(&prepared, objective.checkpointing, |hidden| objective.of(model, hidden, &prepared))?;
    let nats = nats.f_detach()?;
    let counted = nats.f_mul(&prepared.counted)?;
    let measured = Likelihood {
        nats: nats.f_sum(Kind::Double)?.f_double_value(&[])?,
        tokens: targets.tokens,
        base_nats: counted.f_sum(Kind::Double)?.f_double_value(&[])?,
        bases: targets.bases,
    };
    Ok((gradients, measured))
}

/// Turns gradients by micro-batch into gradients by parameter.
fn by_parameter(parts: Vec<Vec<Tensor>>) -> Vec<Vec<Tensor>> {
    let mut parameters: Vec<Vec<Tensor>> = Vec::new();
    for part in parts {
        parameters.resize_with(part.len(), Vec::new);
        parameters.iter_mut().zip(part).for_each(|(parameter, gradient)| parameter.push(gradient));
    }
    parameters
}

/// The sum of some tensors, at least one, added in their order.
fn add_up(tensors: Vec<Tensor>) -> Result<Tensor, TchError> {
    let mut tensors = tensors.into_iter();
    let first = tensors.next().ok_or_else(|| TchError::Shape("no gradient to add".to_owned()))?;
    tensors.try_fold(first, |mut sum, tensor| sum.f_add_(&tensor))
}

fn record(state: &State, measured: &Step, validation: Option<&Likelihood>) -> Record {
    let progress = &state.progress;
    Record {
        step: progress.step,
        tokens: progress.tokens,
        loss: progress.window.loss().unwrap_or(0.0),
        bits_per_base: progress.window.bits_per_base(),
        learning_rate: measured.rate,
        gradient_norm: measured.norm,
        seconds: progress.seconds,
        validation_loss: validation.and_then(Likelihood::loss),
        validation_bits_per_base: validation.and_then(Likelihood::bits_per_base),
    }
}

/// The figures to show, in order.
fn values(record: &Record, tokens_per_second: f64, work_per_token: f64) -> Vec<(String, f64)> {
    let operations = tokens_per_second * work_per_token;
    let values = [
        ("loss", Some(record.loss)),
        ("bits per base", record.bits_per_base),
        ("validation loss", record.validation_loss),
        ("validation bits per base", record.validation_bits_per_base),
        ("learning rate", Some(record.learning_rate)),
        ("gradient norm", Some(record.gradient_norm)),
        ("tokens/s", Some(tokens_per_second)),
        ("GFLOP/s", Some(operations / 1e9)),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::tests_support::Rows;
    use crate::model::{self, Named, Preset};
    use crate::observer::Silent;
    use crate::tokenizer::Tokenizer;
    use crate::tokenizer::nucleotide::Nucleotide;
    use crate::train::Duration;

    const CONTEXT: u64 = 24;

    fn vocabulary() -> Vocabulary {
        let bases = [0, 0].into_iter().chain([2; 30]).collect();
        let (fingerprint, tokenizer) = ("tokenizer".to_owned(), Nucleotide::new().to_json());
        Vocabulary { bases, pad: Some(0), begin: None, fingerprint, tokenizer }
    }

    fn config(steps: u64) -> Config {
        Config {
            preset: Some(Preset::Olmo300k.into()),
            duration: Duration::Steps(steps),
            batch_rows: 4,
            log_every: Duration::Steps(1),
            learning_rate: 3e-3,
            ..Config::default()
        }
    }

    /// Asks to stop once a step is recorded.
    struct StopAt<'a>(u64, &'a Stop);

    impl Observer for StopAt<'_> {
        fn event(&self, event: &Event) {
            if matches!(event, Event::Metrics { step, .. } if *step == self.0) {
                self.1.request();
            }
        }
    }

    fn train(config: &Config, rows: &Rows, out: &Path, threads: usize) -> Result<Summary, Error> {
        train_until(config, rows, out, threads, u64::MAX)
    }

    fn train_until(
        config: &Config,
        rows: &Rows,
        out: &Path,
        threads: usize,
        step: u64,
    ) -> Result<Summary, Error> {
        let (stop, vocabulary) = (Stop::new(), vocabulary());
        let observer = StopAt(step, &stop);
        let data = Data { rows, validation: Some(rows), vocabulary: &vocabulary, fingerprint: "rows" };
        run(config, data, out, Hooks { observer: &observer, stage: "train", stop: &stop, threads })
    }

    fn losses(history: &[Record]) -> Vec<(u64, f64, Option<f64>)> {
        history.iter().map(|record| (record.step, record.loss, record.validation_loss)).collect()
    }

    fn tensors(checkpoint: &Path) -> [Vec<u8>; 2] {
        ["model.safetensors", "optimizer.safetensors"]
            .map(|name| std::fs::read(checkpoint.join(name)).unwrap())
    }

    #[test]
    fn a_stopped_run_goes_on_bit_for_bit() {
        let rows = Rows::random(10, CONTEXT, 32, 1);
        let config = Config { checkpoint_every: Some(Duration::Steps(2)), ..config(7) };
        let mut bytes = Vec::new();
        for threads in [1, 2, 3] {
            let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let expected = train(&config, &rows, whole.path(), threads).unwrap();
            let stopped = train_until(&config, &rows, parts.path(), threads, 3).unwrap_err();
            assert!(stopped.to_string().starts_with("stopped at step 3; a rerun goes on from"), "{stopped}");
            let found = train(&config, &rows, parts.path(), threads).unwrap();
            assert_eq!(losses(&found.history), losses(&expected.history), "{threads} threads");
            assert_eq!(tensors(&found.checkpoint), tensors(&expected.checkpoint), "{threads} threads");
            let saved = read_history(&parts.path().join(HISTORY)).unwrap();
            assert_eq!(losses(&saved), losses(&expected.history));
            assert_eq!(std::fs::read_dir(parts.path().join("checkpoints")).unwrap().count(), 1);
            bytes.push(tensors(&found.checkpoint));
        }
        assert!(bytes.iter().all(|run| *run == bytes[0]), "the number of threads changes the result");
    }

    #[test]
    fn a_finished_run_is_not_run_again() {
        let (rows, out) = (Rows::random(10, CONTEXT, 32, 1), tempfile::tempdir().unwrap());
        let first = train(&config(2), &rows, out.path(), 1).unwrap();
        assert_eq!(train(&config(2), &rows, out.path(), 1).unwrap(), first);
    }

    #[test]
    fn half_written_checkpoints_are_passed_over_and_removed() {
        let (rows, out) = (Rows::random(10, CONTEXT, 32, 1), tempfile::tempdir().unwrap());
        let folder = out.path().join("checkpoints");
        for name in ["part-abc", "step-00000009"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            std::fs::write(folder.join(name).join("model.safetensors"), b"half").unwrap();
        }
        let summary = train(&config(1), &rows, out.path(), 1).unwrap();
        assert_eq!(summary.checkpoint, folder.join("step-00000001"));
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    }

    #[test]
    fn checkpoints_of_other_runs_and_damaged_ones_are_refused() {
        let (rows, out) = (Rows::random(10, CONTEXT, 32, 1), tempfile::tempdir().unwrap());
        let summary = train(&config(1), &rows, out.path(), 1).unwrap();
        let refused =
            |config: &Config, rows: &Rows| train(config, rows, out.path(), 1).unwrap_err().to_string();
        let error = refused(&config(2), &rows);
        assert!(error.ends_with("has another configuration at `schedule.steps`: 1 there, 2 here"), "{error}");
        let error = refused(&config(1), &Rows::random(11, CONTEXT, 32, 1));
        assert!(error.ends_with("has another number of rows: 10 there, 11 here"), "{error}");

        let path = summary.checkpoint.join("optimizer.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = refused(&config(1), &rows);
        assert!(error.contains("optimizer.safetensors` is damaged: its blake3 is"), "{error}");
    }

    #[test]
    fn one_batch_is_learned_by_heart() {
        let (rows, out) = (Rows::random(4, CONTEXT, 32, 2), tempfile::tempdir().unwrap());
        let summary = train(&config(80), &rows, out.path(), 2).unwrap();
        let first = summary.history[0].loss;
        assert!((first - f64::ln(32.0)).abs() < 0.8, "the first loss is {first}, expected about 3.5");
        assert!(summary.last.loss < 0.1, "the last loss is {}", summary.last.loss);
        let bits = summary.last.validation_bits_per_base.unwrap();
        assert!(bits < 0.1, "{bits} bits per base");
    }

    #[test]
    fn micro_batches_change_nothing_but_memory() {
        let rows = Rows::random(10, CONTEXT, 32, 3);
        let train = |micro_batch_rows| {
            let out = tempfile::tempdir().unwrap();
            super::tests::train(&Config { micro_batch_rows, ..config(4) }, &rows, out.path(), 1).unwrap()
        };
        let (whole, parts) = (train(None), train(Some(3)));
        for (whole, part) in whole.history.iter().zip(&parts.history) {
            assert!(
                (whole.loss - part.loss).abs() < 1e-4,
                "step {}: {} {}",
                whole.step,
                whole.loss,
                part.loss
            );
            assert!((whole.gradient_norm / part.gradient_norm - 1.0).abs() < 1e-3, "step {}", whole.step);
        }
    }

    #[test]
    fn padding_is_never_predicted() {
        let out = tempfile::tempdir().unwrap();
        let mut rows = Rows::random(4, CONTEXT, 32, 4);
        rows.0.iter_mut().for_each(|row| row[1..].fill(0));
        let summary = train(&config(1), &rows, out.path(), 1).unwrap();
        assert_eq!((summary.last.loss, summary.last.bits_per_base), (0.0, None));
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let nothing = Rows(Vec::new());
        let wild = Rows::random(4, CONTEXT, 40, 5);
        let rows = Rows::random(4, CONTEXT, 32, 5);
        let fast =
            Config { learning_rate: 1e30, grad_clip: None, warmup: Some(Duration::Steps(1)), ..config(9) };
        let cases = [
            (config(1), &nothing, "there is no row to train on"),
            (config(1), &wild, "is outside the vocabulary of 32"),
            (fast, &rows, "a lower `learning_rate` or a longer `warmup` may help"),
        ];
        for (config, rows, expected) in cases {
            let out = tempfile::tempdir().unwrap();
            let error = train(&config, rows, out.path(), 1).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// Rows with a loss weight for each token.
    struct Weighed(Rows, Vec<Vec<u8>>);

    impl TokenRows for Weighed {
        fn rows(&self) -> u64 {
            self.0.rows()
        }

        fn context(&self) -> usize {
            self.0.context()
        }

        fn read_row(&self, row: u64, tokens: &mut [i64]) {
            self.0.read_row(row, tokens);
        }

        fn loss_weights(&self, row: u64) -> Option<&[u8]> {
            Some(&self.1[usize::try_from(row).unwrap()])
        }
    }

    /// The tensors and records of a run on one thread without validation.
    fn trained(config: &Config, rows: &dyn TokenRows) -> Result<([Vec<u8>; 2], Vec<Record>), Error> {
        let (stop, vocabulary, out) = (Stop::new(), vocabulary(), tempfile::tempdir().unwrap());
        let data = Data { rows, validation: None, vocabulary: &vocabulary, fingerprint: "" };
        let hooks = Hooks { observer: &Silent, stage: "train", stop: &stop, threads: 1 };
        let summary = run(config, data, out.path(), hooks)?;
        Ok((tensors(&summary.checkpoint), summary.history))
    }

    #[test]
    fn tokens_count_as_their_weights_say() {
        let rows = || Rows::random(8, CONTEXT, 32, 7);
        let weighed = |weight: &dyn Fn(usize) -> u8| {
            let row = (0..usize::try_from(CONTEXT).unwrap()).map(weight).collect::<Vec<_>>();
            Weighed(rows(), vec![row; 8])
        };
        let (plain, losses) = trained(&config(3), &rows()).unwrap();
        assert!(trained(&config(3), &weighed(&|_| 250)).unwrap().0 == plain, "weight 1 changes nothing");
        let halves = weighed(&|i| if i < 12 { 250 } else { 0 });
        let (found, measured) = trained(&config(3), &halves).unwrap();
        assert!(found != plain, "weights count");
        assert!((measured[0].loss - losses[0].loss).abs() < 1e-9, "losses are told unweighted");
        let off = Config { loss_weights: false, ..config(3) };
        assert!(trained(&off, &halves).unwrap().0 == plain, "unless nobody wants them");
        // What comes behind the last token that counts is not learnt from.
        let mut other = weighed(&|i| if i < 12 { 250 } else { 0 });
        other.0.0.iter_mut().for_each(|row| row[12..].fill(5));
        assert!(trained(&config(3), &other).unwrap().0 == found, "weight 0 is no lesson");
        assert!(trained(&config(1), &weighed(&|_| 0)).unwrap().1[0].gradient_norm == 0.0);
        let error = trained(&config(1), &weighed(&|i| if i == 3 { 251 } else { 0 })).unwrap_err().to_string();
        assert!(
            error.contains("the loss weight at index 3 is the byte 251, expected at most 250"),
            "{error}"
        );
    }

    #[test]
    fn layers_computed_again_give_the_same_run() {
        let rows = Rows::random(8, CONTEXT, 32, 7);
        let again = Config { activation_checkpointing: true, ..config(3) };
        assert!(trained(&again, &rows).unwrap().0 == trained(&config(3), &rows).unwrap().0);
    }

    #[test]
    fn z_loss_shrinks_scores_and_is_not_told_as_loss() {
        let rows = Rows::random(8, CONTEXT, 32, 7);
        let plain = trained(&config(3), &rows).unwrap();
        let (weights, history) = trained(&Config { z_loss: 0.1, ..config(3) }, &rows).unwrap();
        assert!((history[0].loss - plain.1[0].loss).abs() < 1e-6);
        assert!(weights != plain.0 && (history[0].gradient_norm - plain.1[0].gradient_norm).abs() > 1e-4);
    }

    #[test]
    fn short_contexts_come_first() {
        let rows = Rows::random(8, CONTEXT, 32, 7);
        let warmup = |from| {
            let over = Duration::Steps(4);
            let context_warmup = Some(super::super::ContextWarmup { from, over });
            Config { context_warmup, batch_rows: 8, learning_rate: 1e-9, ..config(5) }
        };
        let loss = |config| trained(&config, &rows).unwrap().1.iter().map(|r| r.loss).collect::<Vec<_>>();
        let (whole, parts) = (loss(warmup(24)), loss(warmup(6)));
        // 6, 6, 12, 12, 24 tokens: nothing is learnt, so that only what is seen makes a difference.
        let same = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(!same(parts[0], whole[0]) && !same(parts[2], whole[2]) && !same(parts[0], parts[2]));
        assert!(same(parts[0], parts[1]) && same(parts[2], parts[3]) && same(parts[4], whole[4]));

        let resolved = warmup(6).resolve(8, 24, 32).unwrap();
        let model = Network::random(&resolved.model, 0, Device::Cpu).unwrap().olmo().unwrap();
        let ids = Tensor::from_slice(&rows.0.concat()).view([-1, 24]);
        let last = Tensor::full([8, 1], crate::loader::IGNORED, (Kind::Int64, Device::Cpu));
        let targets = Tensor::cat(&[ids.narrow(1, 1, 23), last], 1);
        let nats = tch::no_grad(|| model.nats(&ids.view([-1, 6]), &targets.reshape([-1, 6])).unwrap());
        let padded = targets.eq(0).sum(Kind::Int64).int64_value(&[]);
        let paddings = rows.0.iter().flat_map(|row| &row[1..]).filter(|id| **id == 0).count();
        assert_eq!(usize::try_from(padded), Ok(paddings));
        let nats = nats.masked_fill(&targets.reshape([-1, 6]).eq(0), 0.0).sum(Kind::Double).double_value(&[]);
        let expected = nats / (8 * 23 - padded) as f64;
        assert!((parts[0] - expected).abs() < 1e-5, "{} is no {expected}", parts[0]);
    }

    /// Token 31 has no numbers in the embedding, so that every batch with it has none for its loss.
    #[test]
    fn steps_without_numbers_are_skipped_and_told_until_they_are_too_many() {
        struct Notes(std::sync::Mutex<Vec<String>>);
        impl Observer for Notes {
            fn event(&self, event: &Event) {
                if let Event::Note { message, .. } = event {
                    self.0.lock().unwrap().push(message.clone());
                }
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let overrides = crate::model::Overrides { tied_head: Some(false), ..Default::default() };
        let shape = crate::model::Config::resolve(Some(Preset::Olmo300k), &overrides, 32, 24).unwrap();
        let shape = crate::model::Config { padded_vocabulary: 32, ..shape };
        let weights = Weights::random(&shape, 1, Device::Cpu).unwrap();
        let _nan = weights.tensors()[0].narrow(0, 31, 1).fill_(f64::NAN);
        let ids = crate::model::hf::SpecialIds::default();
        let json = crate::model::hf::write_config(&shape, ids).to_string();
        std::fs::write(folder.path().join("config.json"), json).unwrap();
        weights::write(&folder.path().join("model.safetensors"), &[("", &weights)]).unwrap();

        let mut rows = Rows::random(12, CONTEXT, 31, 7);
        rows.0[5][3] = 31;
        let initialize = Some(Initialize { hf: folder.path().to_owned() });
        let config = Config { preset: None, initialize, ..config(6) };
        let run_with = |config: &Config, rows: &Rows, notes: &Notes| {
            let (stop, vocabulary, out) = (Stop::new(), vocabulary(), tempfile::tempdir().unwrap());
            let data = Data { rows, validation: None, vocabulary: &vocabulary, fingerprint: "" };
            let hooks = Hooks { observer: notes, stage: "train", stop: &stop, threads: 1 };
            let summary = run(config, data, out.path(), hooks)?;
            let (state, model) = checkpoint::load(&summary.checkpoint, Device::Cpu)?;
            Ok::<_, Error>((state, model))
        };
        let notes = Notes(std::sync::Mutex::default());
        let (state, model) = run_with(&config, &rows, &notes).unwrap();
        let notes = notes.0.into_inner().unwrap();
        assert_eq!((state.progress.skipped, state.progress.step), (2, 6), "6 steps of 4 rows are 2 epochs");
        assert!(notes.len() == 2 && notes[0].contains("is skipped: the loss is NaN"), "{notes:?}");
        let finite = |t: &Tensor| t.isfinite().all().int64_value(&[]) == 1;
        assert!(model.weights().tensors()[1..].iter().all(finite));

        rows.0.iter_mut().for_each(|row| row[3] = 31);
        let notes = Notes(std::sync::Mutex::default());
        let limited = Config { max_skipped_steps: 2, ..config };
        let error = run_with(&limited, &rows, &notes).unwrap_err().to_string();
        assert!(
            error.starts_with("step 3: the loss is NaN") && error.contains("the 2 steps before"),
            "{error}"
        );
        assert_eq!(notes.0.into_inner().unwrap().len(), 2);
    }

    #[test]
    fn the_newest_checkpoints_and_the_best_one_are_kept() {
        let (rows, out) = (Rows::random(6, CONTEXT, 32, 9), tempfile::tempdir().unwrap());
        let every = Some(Duration::Steps(1));
        let config = Config {
            checkpoint_every: every,
            evaluate_every: every,
            keep_checkpoints: 2,
            keep_best: true,
            // Better for some steps, then worse and worse.
            learning_rate: 0.3,
            warmup: Some(Duration::Steps(12)),
            decay: crate::train::schedule::Decay::Constant,
            grad_clip: None,
            ..config(12)
        };
        let summary = train(&config, &rows, out.path(), 1).unwrap();
        let best =
            summary.history.iter().min_by(|a, b| a.validation_loss.partial_cmp(&b.validation_loss).unwrap());
        let best = best.unwrap().step;
        assert!(best < 11, "the best step is {best}: the test needs a run that gets worse");
        let mut names = std::fs::read_dir(out.path().join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        names.sort_unstable();
        assert_eq!(names, [best, 11, 12].map(|step| format!("step-{step:08}")));
        let (state, _) =
            checkpoint::load(&out.path().join("checkpoints").join(&names[0]), Device::Cpu).unwrap();
        assert_eq!(state.progress.best.unwrap().step, best);
    }

    #[test]
    fn documents_must_be_told_to_be_masked() {
        let rows = Rows::random(4, CONTEXT, 32, 1);
        let error = trained(&Config { document_mask: true, ..config(1) }, &rows).unwrap_err().to_string();
        assert_eq!(
            error,
            "`document_mask`: the training rows do not say where documents end; pack them again"
        );
    }

    #[test]
    fn checkpoints_of_another_tokenizer_or_other_shards_are_refused() {
        let (rows, out) = (Rows::random(10, CONTEXT, 32, 1), tempfile::tempdir().unwrap());
        let attempt = |tokenizer: &str, fingerprint| {
            let vocabulary = Vocabulary { fingerprint: tokenizer.to_owned(), ..vocabulary() };
            let data = Data { rows: &rows, validation: None, vocabulary: &vocabulary, fingerprint };
            let hooks = Hooks { observer: &Silent, stage: "train", stop: &Stop::new(), threads: 1 };
            run(&config(1), data, out.path(), hooks).map(drop).map_err(|error| error.to_string())
        };
        attempt("bpe", "rows").unwrap();
        let error = attempt("k-mers", "rows").unwrap_err();
        assert!(error.ends_with("has another tokenizer: bpe there, k-mers here"), "{error}");
        let error = attempt("bpe", "other rows").unwrap_err();
        assert!(error.ends_with("has another set of rows: rows there, other rows here"), "{error}");
        let state = out.path().join("checkpoints/step-00000001/checkpoint.json");
        let text = std::fs::read_to_string(&state).unwrap();
        std::fs::write(&state, text.replace("genomill.checkpoint/2", "genomill.checkpoint/1")).unwrap();
        let error = attempt("bpe", "rows").unwrap_err();
        assert!(
            error.ends_with(
                "is of the format `genomill.checkpoint/1`, this genomill reads `genomill.checkpoint/2`"
            ),
            "{error}"
        );
    }

    #[test]
    fn events_need_no_listener() {
        let (stop, vocabulary, rows) = (Stop::new(), vocabulary(), Rows::random(4, CONTEXT, 32, 6));
        let data = Data { rows: &rows, validation: None, vocabulary: &vocabulary, fingerprint: "" };
        let out = tempfile::tempdir().unwrap();
        let hooks = Hooks { observer: &Silent, stage: "train", stop: &stop, threads: 1 };
        let summary = run(&config(1), data, out.path(), hooks).unwrap();
        assert_eq!((summary.last.validation_loss, summary.last.tokens), (None, 4 * CONTEXT));
    }

    /// HyenaDNA's vocabulary, and rows in which much is to be learnt: each repeats a few bases of its own.
    fn bases() -> (Vocabulary, Rows) {
        let tokenizer = Nucleotide::hyena();
        let bases = (0..tokenizer.vocabulary_size()).map(|id| tokenizer.bases(id)).collect();
        let (pad, tokenizer) = (tokenizer.special("[PAD]"), tokenizer.to_json());
        let vocabulary = Vocabulary { bases, pad, begin: None, fingerprint: "bases".to_owned(), tokenizer };
        let mut rows = Rows::random(12, CONTEXT, 4, 5);
        for row in &mut rows.0 {
            (0..row.len()).for_each(|i| row[i] = if i < 4 { row[i] + 7 } else { row[i - 4] });
        }
        rows.0[0][20..].fill(4);
        (vocabulary, rows)
    }

    fn peers() -> [Named; 2] {
        [model::hyena::Preset::Tiny1k.into(), model::dnabert2::Preset::Small300k.into()]
    }

    fn train_peer(config: &Config, out: &Path, threads: usize, step: u64) -> Result<Summary, Error> {
        let ((vocabulary, rows), stop) = (bases(), Stop::new());
        let observer = StopAt(step, &stop);
        let data =
            Data { rows: &rows, validation: Some(&rows), vocabulary: &vocabulary, fingerprint: "rows" };
        run(config, data, out, Hooks { observer: &observer, stage: "train", stop: &stop, threads })
    }

    /// Hidden tokens are the same again after a stop, and the same in every validation.
    #[test]
    fn peers_learn_and_stopped_runs_go_on_bit_for_bit() {
        for preset in peers() {
            let config = Config {
                preset: Some(preset),
                evaluate_every: Some(Duration::Steps(1)),
                mask_rate: matches!(preset, Named::Dnabert2(_)).then_some(0.3),
                ..config(8)
            };
            let mut bytes = Vec::new();
            for threads in [1, 2] {
                let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                let expected = train_peer(&config, whole.path(), threads, u64::MAX).unwrap();
                let stopped = train_peer(&config, parts.path(), threads, 3).unwrap_err();
                assert!(matches!(stopped, Error::Stopped { step: 3, .. }), "{stopped}");
                let found = train_peer(&config, parts.path(), threads, u64::MAX).unwrap();
                assert_eq!(losses(&found.history), losses(&expected.history), "{preset}");
                bytes.push(tensors(&found.checkpoint));
                assert!(bytes[0] == tensors(&expected.checkpoint) && bytes[0] == *bytes.last().unwrap());
                let loss = |record: &Record| record.validation_loss.unwrap();
                let (first, last) = (loss(&found.history[0]), loss(&found.last));
                assert!(last < 0.9 * first, "{preset}: from {first} to {last}");
                assert_eq!(found.last.validation_bits_per_base.is_some(), config.mask_rate.is_none());
            }
        }
    }

    #[test]
    fn what_peers_cannot_be_trained_on_is_refused() {
        let [hyena, masked] = peers();
        let run_with = |preset, rows: &Rows, vocabulary: &Vocabulary| {
            let out = tempfile::tempdir().unwrap();
            let data = Data { rows, validation: None, vocabulary, fingerprint: "" };
            let hooks = Hooks { observer: &Silent, stage: "train", stop: &Stop::new(), threads: 1 };
            let config = Config { preset: Some(preset), ..config(1) };
            run(&config, data, out.path(), hooks).unwrap_err().to_string()
        };
        let (vocabulary, rows) = bases();
        let long = Rows::random(2, 1027, 12, 1);
        let error = run_with(hyena, &long, &vocabulary);
        assert!(
            error.contains("rows of 1027 tokens are longer than what `hyenadna-tiny-1k` takes, 1026"),
            "{error}"
        );
        let kmer = crate::tokenizer::kmer::Config { k: 2, overlapping: false };
        let tokenizer = crate::tokenizer::kmer::Kmer::new(kmer).unwrap().to_json();
        let error = run_with(hyena, &rows, &Vocabulary { tokenizer, ..vocabulary.clone() });
        assert!(error.contains("for id 0, HyenaDNA expects `[CLS]`: take"), "{error}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/data/dnabert2_tokenizer.json");
        let tokenizer = std::fs::read_to_string(path).unwrap().replace("[MASK]", "[HIDE]");
        let error = run_with(masked, &rows, &Vocabulary { tokenizer, ..vocabulary });
        assert!(error.starts_with("the shards' tokenizer has no `[MASK]`"), "{error}");
    }

    #[test]
    fn a_peer_with_nothing_to_guess_stays_as_it_is_but_for_decay() {
        let (vocabulary, mut rows) = bases();
        rows.0.iter_mut().for_each(|row| row[..].fill(4));
        for preset in peers() {
            let out = tempfile::tempdir().unwrap();
            let data = Data { rows: &rows, validation: None, vocabulary: &vocabulary, fingerprint: "" };
            let hooks = Hooks { observer: &Silent, stage: "train", stop: &Stop::new(), threads: 1 };
            let config = Config { preset: Some(preset), z_loss: 1e-4, ..config(1) };
            let summary = run(&config, data, out.path(), hooks).unwrap();
            assert!(summary.last.gradient_norm == 0.0 && summary.last.loss == 0.0, "{preset}: {summary:?}");
        }
    }
}
