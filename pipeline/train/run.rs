//! The trainer, from top to bottom, by one process or by several ranks that share each batch.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tch::{Device, Tensor};

use super::adamw::{self, AdamW, Decided, Update};
use super::begin::{Begun, Saved, begin, resolve};
use super::checkpoint::{self, Best, State};
use super::config::{Config, Precision, Resolved};
use super::course::{Course, Steps, memory, record, values};
use super::error::Error;
use super::gradients::{self, Measured, Objective};
use super::history::Record;
use super::party::Party;
use super::prediction;
use super::ranks::Ranks;
use super::trace::Trace;
use crate::collective::{Group, START};
use crate::loader::{Batch, Batches, Order, Prediction, Sampler, Slice, Targets, TokenRows, Vocabulary};
use crate::model::gpu;
use crate::model::likelihood::{Likelihood, Scorer};
use crate::model::network::Network;
use crate::model::workers::Workers;
use crate::observer::{Event, Observer, Silent, Stop, Unit};

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

impl Hooks<'_> {
    /// Tells something that people should know.
    pub(super) fn note(&self, message: String) {
        self.observer.event(&Event::Note { stage: Some(self.stage.to_owned()), message });
    }
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

/// Trains a model and leaves its last checkpoint and its history in `out`. Goes on from a checkpoint that is there.
pub fn run(config: &Config, data: Data<'_>, out: &Path, hooks: Hooks<'_>) -> Result<Summary, Error> {
    run_shared(config, data, out, hooks, None)
}

/// The same by all ranks of a group together, each of which calls this with the same folder. Rank 0 alone tells its observer and
/// writes the course; the summary of another has none. A request to stop any of them stops all.
pub fn run_shared(
    config: &Config,
    data: Data<'_>,
    out: &Path,
    hooks: Hooks<'_>,
    group: Option<&Group>,
) -> Result<Summary, Error> {
    let Some(group) = group else { return train(config, data, out, hooks, None) };
    let hooks = if group.leads() { hooks } else { Hooks { observer: &Silent, ..hooks } };
    let result = train(config, data, out, hooks, Some(group));
    if let Err(error) = &result
        && !matches!(error, Error::Stopped { .. } | Error::Ranks(_))
    {
        group.fail(&error.to_string());
    }
    result
}

fn train(
    config: &Config,
    data: Data<'_>,
    out: &Path,
    hooks: Hooks<'_>,
    group: Option<&Group>,
) -> Result<Summary, Error> {
    let resolved = resolve(config, data)?;
    let slice = slice(&resolved, group)?;
    if let Some(group) = group.filter(|group| group.leads()) {
        group.announce(START, hooks.stage)?;
    }
    let begun = begin(&resolved, config.initialize.as_ref(), data, out, hooks, Party(group))?;
    let mut trainer = Trainer::start(begun, data, out, hooks)?;
    let order = Order::Shuffled(Sampler { seed: resolved.seed, len: data.rows.rows(), rank: 0, world: 1 });
    std::thread::scope(|scope| {
        let position = trainer.state.progress.position;
        trainer.train(&mut Batches::slices(scope, data.rows, order, slice, position, LOADERS))
    })?;
    trainer.finish()
}

/// The rows of each batch that this process computes.
fn slice(config: &Resolved, group: Option<&Group>) -> Result<Slice, Error> {
    let (rank, ranks) = group.map_or((0, 1), |group| (group.rank(), group.ranks()));
    let rows = config.batch_rows;
    if rows as usize >= ranks {
        Ok(Slice::of_rank(rows as usize, rank, ranks))
    } else {
        Err(Error::TooManyRanks { rows, ranks })
    }
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
    /// The others, if there are any.
    ranks: Option<Ranks<'a>>,
    /// What is written down; by rank 0 only.
    course: Option<Course>,
    /// The newest checkpoint and its step.
    saved: Option<Saved>,
    trace: Trace,
    /// What a GPU was asked last and has not told yet. It is read before it is needed, which mostly is when the next step's
    /// gradients are in the GPU's queue: so it never waits for us.
    asked_last: Option<Asked>,
    /// The gradients' norm of the last step that was read.
    norm: f64,
    steps: Steps,
    /// Most operations a second of what it computes on in its precision, where that is known.
    most: Option<f64>,
}

/// A step that a GPU was asked for.
struct Asked {
    step: u64,
    /// The gradients' norm, a single value.
    norm: Tensor,
    measured: Measured,
}

impl<'a> Trainer<'a> {
    fn start(begun: Begun<'a>, data: Data<'a>, out: &'a Path, hooks: Hooks<'a>) -> Result<Self, Error> {
        let Begun { state, model, optimizer, saved, ranks } = begun;
        let leads = ranks.as_ref().is_none_or(|ranks| ranks.group.leads());
        let course = leads.then(|| Course::begin(out, &state)).transpose()?;
        let workers = Workers::for_device(model.device(), hooks.threads)?;
        let bf16 = state.config.precision == Precision::Bf16;
        let most = gpu::name(model.device()).filter(|_| bf16).and_then(|name| gpu::peak(&name));
        let asked = prediction::of(&state.config, data.vocabulary, data.rows.rows())?;
        Ok(Self {
            data,
            hooks,
            out,
            state,
            model,
            asked,
            optimizer,
            workers,
            ranks,
            course,
            saved,
            trace: Trace::chosen(leads),
            asked_last: None,
            norm: 0.0,
            steps: Steps::default(),
            most,
        })
    }

    fn train(&mut self, batches: &mut Batches) -> Result<(), Error> {
        while self.state.progress.step < self.state.config.schedule.steps {
            let step = self.state.progress.step + 1;
            if let Some(note) = self.trace.step(self.model.device()) {
                self.hooks.note(note);
            }
            let began = Instant::now();
            let batch = batches.next().ok_or(Error::NoBatch { step })?;
            if !self.step(step, &batch, began)? {
                return Err(Error::Stopped { step: self.state.progress.step, checkpoint: self.save()? });
            }
            let better = self.report()?;
            if self.is_due(self.state.config.checkpoint_every) || (better && self.state.config.keep_best) {
                self.save()?;
            }
        }
        Ok(())
    }

    /// One optimizer step on a batch, or on this rank's part of it; not where somebody asked to stop. It began when its batch was asked
    /// for.
    fn step(&mut self, step: u64, batch: &Batch, began: Instant) -> Result<bool, Error> {
        let waited = began.elapsed().as_secs_f64();
        let parts = self.ask(batch)?;
        let Some(weight) = self.agree(parts.iter().map(|(_, targets)| targets.weight()).sum())? else {
            return Ok(false);
        };
        let objective = self.objective(step, if weight > 0.0 { weight } else { 1.0 });
        if self.runs_ahead() {
            self.update_unread(step, parts, objective)?;
        } else {
            let (gradients, norm, measured) = self.gradients(parts, objective)?;
            if self.take_in(step, norm, measured)? {
                let scale = adamw::scale(norm, self.state.config.grad_clip);
                self.update(step, gradients, scale, None)?;
            }
        }
        self.advance(step);
        self.spend(began);
        self.steps.count += 1;
        self.steps.waited += waited;
        Ok(true)
    }

    /// Whether a step's update is in the queue before its loss and norm are read: by a GPU that works alone.
    fn runs_ahead(&self) -> bool {
        self.ranks.is_none() && (self.model.device() != Device::Cpu || tests_run_ahead())
    }

    /// Puts the gradients of a step and its update into the GPU's queue, which decides by itself whether there is one.
    fn update_unread(
        &mut self,
        step: u64,
        parts: Vec<(Batch, Targets)>,
        objective: Objective,
    ) -> Result<(), Error> {
        let (gradients, measured) = gradients::over(parts, &self.model, objective, &self.workers)?;
        let norm = adamw::norm(&gradients)?;
        self.read_last()?;
        let decided = Decided::of(&norm, measured.losses(), self.state.config.grad_clip)?;
        self.update(step, gradients, 1.0, Some(&decided))?;
        self.asked_last = Some(Asked { step, norm, measured });
        Ok(())
    }

    /// Reads what the last step measured, if that is not done.
    fn read_last(&mut self) -> Result<(), Error> {
        let Some(Asked { step, norm, measured }) = self.asked_last.take() else { return Ok(()) };
        let (norm, measured) = measured.read_with(&norm)?;
        self.take_in(step, norm, measured).map(drop)
    }

    /// The same, and the time that it takes is the steps'.
    fn read_last_in_time(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        self.read_last()?;
        self.spend(began);
        Ok(())
    }

    /// Counts the time since then to the steps.
    fn spend(&mut self, began: Instant) {
        let seconds = began.elapsed().as_secs_f64();
        self.state.progress.seconds += seconds;
        self.steps.seconds += seconds;
    }

    /// Takes in what a step measured; whether weights are updated by it.
    fn take_in(&mut self, step: u64, norm: f64, measured: Likelihood) -> Result<bool, Error> {
        let loss = measured.loss().unwrap_or(0.0);
        self.norm = norm;
        if !(loss.is_finite() && norm.is_finite()) {
            return self.skip(step, loss, norm).map(|()| false);
        }
        self.state.progress.window += measured;
        self.state.progress.skipped_in_a_row = 0;
        Ok(true)
    }

    /// The micro-batches, each with what is asked of it.
    fn ask(&self, batch: &Batch) -> Result<Vec<(Batch, Targets)>, Error> {
        let mut parts = batch.split(self.state.config.micro_batch_rows as usize);
        if !self.state.config.loss_weights {
            for part in &mut parts {
                part.weights.clear();
            }
        }
        let parts = parts.into_iter().map(|part| self.asked[0].ask(self.data.vocabulary, part));
        Ok(parts.collect::<Result<_, _>>()?)
    }

    /// The weight of all targets of the step, of which this process has `own`; none where one is asked to stop.
    fn agree(&self, own: f64) -> Result<Option<f64>, Error> {
        let stop = self.hooks.stop.is_requested();
        let Some(ranks) = &self.ranks else { return Ok((!stop).then_some(own)) };
        let [weight, stops] = ranks.group.sum([own, f64::from(u8::from(stop))])?;
        Ok((stops < 0.5).then_some(weight))
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

    /// The gradients, their norm and what was measured; of ranks the sums, and only those gradients that it updates by.
    fn gradients(
        &self,
        parts: Vec<(Batch, Targets)>,
        objective: Objective,
    ) -> Result<(Vec<Tensor>, f64, Likelihood), Error> {
        if let Some(ranks) = &self.ranks {
            return ranks.gradients(parts, &self.model, objective, &self.workers);
        }
        let (gradients, measured) = gradients::over(parts, &self.model, objective, &self.workers)?;
        let (norm, measured) = measured.read_with(&adamw::norm(&gradients)?)?;
        Ok((gradients, norm, measured))
    }

    /// Updates the weights; ranks update those of which they have the moments, and give them to the others.
    fn update(
        &mut self,
        step: u64,
        gradients: Vec<Tensor>,
        scale: f64,
        decided: Option<&Decided>,
    ) -> Result<(), Error> {
        let rate = self.state.config.schedule.rate(step);
        let update = Update { scale, rate, step: step - self.state.progress.skipped };
        self.optimizer.update(self.model.weights_mut(), gradients, (update, decided), &self.workers)?;
        self.ranks.as_ref().map_or(Ok(()), |ranks| ranks.spread(self.model.weights_mut()))
    }

    /// Leaves the weights as they are and says so; fails where too many steps in a row were like this one.
    fn skip(&mut self, step: u64, loss: f64, norm: f64) -> Result<(), Error> {
        let (progress, limit) = (&mut self.state.progress, self.state.config.max_skipped_steps);
        if progress.skipped_in_a_row >= limit {
            let rate = self.state.config.schedule.rate(step);
            return Err(Error::NotFinite { step, loss, norm, rate, limit });
        }
        progress.skipped += 1;
        progress.skipped_in_a_row += 1;
        self.hooks.note(format!("step {step} is skipped: the loss is {loss} and the gradients' norm {norm}"));
        Ok(())
    }

    fn advance(&mut self, step: u64) {
        let (progress, rows) = (&mut self.state.progress, u64::from(self.state.config.batch_rows));
        progress.step = step;
        progress.position += rows;
        progress.tokens += rows * self.state.data.context as u64;
    }

    /// Tells the observer, and keeps a record where one is due; whether the validation loss was never lower.
    fn report(&mut self) -> Result<bool, Error> {
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
        self.read_last_in_time()?;
        let progress = self.state.progress;
        let validation = if evaluate { self.validate()? } else { None };
        let rate = self.state.config.schedule.rate(progress.step);
        let record = record(&self.state, [rate, self.norm], validation.as_ref());
        let tokens = f64::from(self.state.config.batch_rows) * self.state.data.context as f64;
        let work = self.state.config.model.work_per_token(self.state.data.context);
        let values = values(
            &record,
            std::mem::take(&mut self.steps),
            [tokens, work],
            memory(self.model.device()),
            self.most,
        );
        self.hooks.observer.event(&Event::Metrics { stage: stage(), step: progress.step, values });
        self.course.as_mut().map_or(Ok(()), |course| course.add(record))?;
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

    /// Sums over the validation rows, of which ranks score one part each. A request to stop waits for it, so that no record
    /// lacks it.
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
        let count = config.evaluate_rows.unwrap_or(u64::MAX).min(rows.rows());
        let part = self.ranks.as_ref().map_or(0..count, |ranks| {
            let (rank, all) = (ranks.group.rank() as u64, ranks.group.ranks() as u64);
            count * rank / all..count * (rank + 1) / all
        });
        let mut sum = Likelihood::default();
        scorer.score_some(rows, part, |row| sum += row).map_err(Error::Validation)?;
        let Some(ranks) = &self.ranks else { return Ok(Some(sum)) };
        Ok(Some(ranks.sum(0.0, sum)?.1))
    }

    /// Saves the run as it is now, unless it is saved already.
    fn save(&mut self) -> Result<PathBuf, Error> {
        self.read_last_in_time()?;
        let party = Party(self.ranks.as_ref().map(|ranks| ranks.group));
        let noted = self.course.as_ref().map_or(Ok(()), Course::save);
        party.agree(noted.map_err(Error::from), |()| ())?;
        let now = self.state.progress.step;
        if let Some((step, place)) = &self.saved
            && *step == now
        {
            return Ok(place.clone());
        }
        let (tensors, tokenizer) = ((self.model.weights(), &self.optimizer), &self.data.vocabulary.tokenizer);
        let place = checkpoint::save(self.out, &mut self.state, tensors, tokenizer, party)?;
        self.saved = Some((now, place.clone()));
        Ok(place)
    }

    fn finish(mut self) -> Result<Summary, Error> {
        if let Some(note) = self.trace.end() {
            self.hooks.note(note);
        }
        let checkpoint = self.save()?;
        let history = self.course.map(Course::into_history).unwrap_or_default();
        let last = history.last().cloned().unwrap_or_default();
        Ok(Summary { parameters: self.state.config.model.count(), last, history, checkpoint })
    }
}

/// Tests let a processor do what a GPU does.
#[cfg(not(test))]
const fn tests_run_ahead() -> bool {
    false
}
#[cfg(test)]
use tests::tests_run_ahead;

#[cfg(test)]
mod tests;
