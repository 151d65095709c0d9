//! A model on a task by a protocol: from examples to `result.json`.
//!
//! The test set is scored once, at the end of each seed, and what is chosen is chosen on the validation part alone. A second look at it
//! with the same model and protocol must be asked for, and is counted. What is done is kept seed by seed, so that a run that was
//! stopped goes on. Embeddings are kept by their content, for other runs. Memory: the bases and tokens of the task, its embeddings,
//! what the protocol takes for each thread, and before that up to 1 GB of k-mers to tell copies by.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tch::Tensor;

mod error;
mod families;
mod looks;

pub use error::Error;
pub use looks::LOOKS;
use looks::{Look, forget, looks};

use super::answers;
use super::encoder::{self, Encoder, Network, Row};
use super::learner::{Base, Item, Learned, Learner, Target, truth};
use super::predictions::{self, Predictions};
use super::probe::{self, Embedded};
use super::protocol::{Config, Given, Long, Protocol, Strands, Validation};
use super::result::{FILE, FORMAT, Identity, Outcome, Run, TaskOf, Tried};
use super::zero_shot::Threshold;
use crate::fs;
use crate::metric::interval::Bootstrap;
use crate::metric::scores::{Metric, Scores, Windowed};
use crate::metric::{self, seeds};
use crate::model::weights;
use crate::model::workers::Workers;
use crate::observer::{Event, Unit};
use crate::sequence::complement::reverse_complement_into;
use crate::task::{Dataset, Example, Kind, Part, UNLABELLED, audit};
use crate::train::Hooks;

/// Version of what comes out for the same input.
const ALGORITHM: u32 = 1;
/// Where results go.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The folder of all results; those of a task, protocol and model lie in a folder of their own.
    pub out: &'a Path,
    /// Results that these take the place of: looks are counted from there on.
    pub earlier: Option<&'a Path>,
    /// Where embeddings are kept, if anywhere.
    pub cache: Option<&'a Path>,
    /// What becomes of a test set that was looked at before.
    pub again: Again,
}

/// What becomes of a test set that the same model was scored on by the same protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// A result of the same content is taken as it is; with another configuration, weights or data nothing is looked at.
    Refuse,
    /// A result of the same content is taken as it is, else it is looked at again, which is counted.
    IfOther,
    /// It is looked at again, which is counted.
    Always,
}

/// The tokens of one part.
#[derive(Default)]
struct Sample<'a> {
    rows: Vec<Row>,
    /// Of the reverse complements, where both strands are asked.
    turned: Vec<Row>,
    /// Of pairs: what they are compared with, and its reverse complements.
    against: [Vec<Row>; 2],
    classes: Vec<u32>,
    /// Of each example the classes of its bases, where bases have classes.
    labels: Vec<&'a [u8]>,
    /// Hash of the sequences.
    content: String,
}

/// A seed that is done, in a file of its own until all are.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    run: Run,
}

/// A model at work on a task; its tensors, which threads do not share, stand beside.
struct Work<'a> {
    model: &'a Identity,
    dataset: &'a Dataset,
    config: &'a Config,
    place: Place<'a>,
    hooks: Hooks<'a>,
    workers: Workers,
    /// Train, validation and test.
    samples: [Sample<'a>; 3],
    /// Of each test example whether it shares nothing much with what is learned from.
    clean: Vec<bool>,
    given: Given,
    /// The family of each training example, where they stay together.
    families: Vec<u32>,
    key: String,
    folder: PathBuf,
}

/// The folder of a task, protocol (as [`Config::label`] says it) and model among results.
fn folder(out: &Path, task: &str, protocol: &str, model: &str) -> PathBuf {
    let plain = |text: &str| -> String {
        let kept = |c: char| if c.is_ascii_alphanumeric() || "._+-@=".contains(c) { c } else { '-' };
        text.chars().map(kept).collect()
    };
    out.join(plain(task)).join(plain(&protocol.replace(", ", "+"))).join(plain(model))
}

/// Scores a model on a task and writes what comes of it; what is there already, of the same content, is taken as it is.
///
/// # Errors
/// [`Error`]; nothing is written of a test set that must not be looked at again.
pub fn evaluate(
    encoder: &Encoder,
    dataset: &Dataset,
    config: &Config,
    place: Place<'_>,
    hooks: Hooks<'_>,
) -> Result<Outcome, Error> {
    if let Some((key, problem)) = config.problems().into_iter().next() {
        return Err(Error::Config { key, problem });
    }
    let model = encoder.identity();
    let wrong = |(key, problem)| Error::Config { key, problem };
    let config = &config.for_task(&model.family, &dataset.name).map_err(wrong)?;
    check(encoder, dataset, config)?;
    let folder = folder(place.out, &dataset.name, &config.label(), &model.name);
    let task = task_of(dataset);
    let key = key(model, &task, config);
    let (mut before, is_done) = (looks(&folder)?, folder.join(FILE).is_file());
    if let (true, Some(earlier)) = (before.is_empty(), place.earlier) {
        before = looks(&self::folder(earlier, &dataset.name, &config.label(), &model.name))?;
    }
    let is_same = before.last().is_some_and(|look: &Look| look.key == key);
    if is_same && is_done && place.again != Again::Always {
        return Ok(super::result::read(&folder.join(FILE))?);
    }
    if !before.is_empty() && !is_same && place.again == Again::Refuse {
        let (model, protocol, looks) = (model.name.clone(), config.protocol, before.len());
        return Err(Error::Looked { task: dataset.name.clone(), model, protocol, looks, place: folder });
    }
    let device = encoder.network().map_or(tch::Device::Cpu, Network::device);
    let workers = Workers::for_device(device, hooks.threads)?;
    let (samples, given) = samples(encoder, dataset, config)?;
    let model = &encoder.identity_for(longest(&samples[0].rows), dataset.classes.len())?;
    // A run that was stopped goes on: the same look.
    fs::create_dir_all(&folder)?;
    if !is_same || is_done {
        forget(&folder)?;
        before.push(Look { key: key.clone() });
    }
    fs::write_json(&folder.join(LOOKS), serde_json::to_vec_pretty(&before))?;
    let looks = u32::try_from(before.len()).unwrap_or(u32::MAX);
    let clean = match dataset.kind {
        Kind::Sequences => audit::clean(dataset, &audit::Options::default()),
        Kind::Bases | Kind::Pairs => vec![true; dataset.part(Part::Test).len()],
    };
    let task = TaskOf { clean: clean.iter().filter(|clean| **clean).count() as u64, ..task };
    let families = match config.validation {
        Validation::Homology => {
            let bases = |example| dataset.bases(example).unwrap_or_default();
            families::of(dataset.part(Part::Train).iter().map(bases))?
        }
        Validation::Own | Validation::Drawn => Vec::new(),
    };
    let work =
        Work { model, dataset, config, place, hooks, workers, samples, clean, given, families, key, folder };
    work.run(encoder, task, looks)
}

/// Refuses what cannot be scored.
fn check(encoder: &Encoder, dataset: &Dataset, config: &Config) -> Result<(), Error> {
    encoder.check(config.protocol, config.inputs.pooling)?;
    let task = || dataset.name.clone();
    for example in Part::ALL.into_iter().flat_map(|part| dataset.part(part)) {
        match dataset.bases(example) {
            None => return Err(Error::NoBases { task: task() }),
            Some([]) => {
                let (file, line) = (dataset.file(example).to_owned(), example.line);
                return Err(Error::Empty { task: task(), file, line });
            }
            Some(_) => {}
        }
    }
    check_kind(encoder, dataset, config)?;
    // Of bases some class may be rare: it is said, and the others are scored.
    if dataset.kind == Kind::Sequences
        && let Some((part, class, examples)) = unseen(dataset).into_iter().next()
    {
        return Err(Error::Unseen { task: task(), class, examples, part: part.name() });
    }
    if config.protocol == Protocol::ZeroShot {
        if !encoder.identity().causal {
            return Err(Error::Masked { model: encoder.identity().name.clone() });
        }
        if dataset.classes.len() != 2 {
            return Err(Error::NotTwo { task: task(), classes: dataset.classes.len() });
        }
    }
    Ok(())
}

/// Classes that nothing is learned of: the part that has them, and how many examples, or bases.
fn unseen(dataset: &Dataset) -> Vec<(Part, String, u64)> {
    let learned = dataset.counts(Part::Train);
    let of = |part| {
        let counts = dataset.counts(part).into_iter().zip(&learned).zip(&dataset.classes);
        let unseen = counts.filter(|((here, learned), _)| *here > 0 && **learned == 0);
        unseen.map(|((here, _), class)| (part, class.clone(), here)).collect::<Vec<_>>()
    };
    [Part::Test, Part::Validation].into_iter().flat_map(of).collect()
}

/// Refuses a protocol, or a model, that is not for what has classes here.
fn check_kind(encoder: &Encoder, dataset: &Dataset, config: &Config) -> Result<(), Error> {
    let (what, expected, holds) = match dataset.kind {
        Kind::Sequences => return Ok(()),
        Kind::Bases => (
            "bases",
            "a model with a network, any protocol but `zero-shot`, and the strand `forward`",
            config.protocol != Protocol::ZeroShot
                && encoder.network().is_some()
                && config.inputs.strands == Strands::Forward,
        ),
        Kind::Pairs => ("variants", "the protocol `zero-shot`", config.protocol == Protocol::ZeroShot),
    };
    let (task, model) = (dataset.name.clone(), encoder.identity().name.clone());
    if holds { Ok(()) } else { Err(Error::Kind { task, what, model, expected }) }
}

/// The task and its content.
fn task_of(dataset: &Dataset) -> TaskOf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{:?}", dataset.classes).as_bytes());
    for part in Part::ALL {
        hasher.update(part.name().as_bytes());
        for example in dataset.part(part) {
            let bases = dataset.bases(example).unwrap_or_default();
            hasher
                .update(&(bases.len() as u64).to_le_bytes())
                .update(bases)
                .update(&example.class.to_le_bytes())
                .update(dataset.labels(example).unwrap_or_default())
                .update(dataset.against(example).unwrap_or_default());
        }
    }
    TaskOf {
        name: dataset.name.clone(),
        version: dataset.version,
        content: hasher.finalize().to_hex().to_string(),
        metric: dataset.metric.unwrap_or(Metric::Mcc),
        kind: dataset.kind,
        classes: dataset.classes.clone(),
        examples: Part::ALL.map(|part| dataset.part(part).len() as u64),
        clean: 0,
    }
}

/// Hash of all that the figures depend on: of the model its weights and tokenizer, not its name.
fn key(model: &Identity, task: &TaskOf, config: &Config) -> String {
    let of =
        serde_json::json!([ALGORITHM, model.weights, model.tokenizer, task.content, task.metric, config]);
    blake3::hash(of.to_string().as_bytes()).to_hex().to_string()
}

/// The tokens of every part.
fn samples<'a>(
    encoder: &Encoder,
    dataset: &'a Dataset,
    config: &Config,
) -> Result<([Sample<'a>; 3], Given), Error> {
    let mut given = Given::default();
    let mut inputs = config.inputs;
    if encoder.is_cut_to_training() {
        let lengths = dataset.part(Part::Train).iter().map(|example| dataset.length(example));
        let longest = lengths.max().map(|longest| u32::try_from(longest).unwrap_or(u32::MAX));
        inputs.max_tokens = inputs.max_tokens.into_iter().chain(longest).min();
    }
    if dataset.kind != Kind::Sequences {
        // What is cut off has no answer, and what is cut beside a variant changes what it is compared by.
        inputs.long = Long::Refuse;
    }
    let inputs = &inputs;
    let mut both = |sequences: &mut dyn Iterator<Item = &'a [u8]>| -> Result<[Vec<Row>; 2], Error> {
        let (mut rows, mut turned, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for bases in sequences {
            let (row, of) = encoder.rows(std::iter::once(bases), inputs)?;
            rows.extend(row);
            given += of;
            if inputs.strands == Strands::Both {
                other.clear();
                reverse_complement_into(bases, &mut other);
                turned.extend(encoder.rows(std::iter::once(&other[..]), inputs)?.0);
            }
        }
        Ok([rows, turned])
    };
    let mut of = |part| -> Result<Sample<'a>, Error> {
        let examples = dataset.part(part);
        let bases = || examples.iter().map(|example| dataset.bases(example).unwrap_or_default());
        let mut hasher = blake3::Hasher::new();
        bases().for_each(|bases| {
            hasher.update(&(bases.len() as u64).to_le_bytes()).update(bases);
        });
        let [rows, turned] = both(&mut bases())?;
        let against = both(&mut examples.iter().filter_map(|example| dataset.against(example)))?;
        let classes = examples.iter().map(|example| example.class).collect();
        let labels: Vec<&[u8]> = examples.iter().filter_map(|example| dataset.labels(example)).collect();
        for (row, labels) in rows.iter().zip(&labels) {
            let (found, expected) = (row.bases.iter().map(|bases| *bases as usize).sum(), labels.len());
            if found != expected {
                return Err(Error::Lost { task: dataset.name.clone(), found, expected });
            }
        }
        let content = hasher.finalize().to_hex().to_string();
        Ok(Sample { rows, turned, against, classes, labels, content })
    };
    let samples = [of(Part::Train)?, of(Part::Validation)?, of(Part::Test)?];
    Ok((samples, given))
}

/// Tokens of the longest row.
fn longest(rows: &[Row]) -> usize {
    rows.iter().map(|row| row.ids.len()).max().unwrap_or(0)
}

impl Sample<'_> {
    fn items(&self) -> Vec<Item<'_>> {
        let target = |at: usize| match self.labels.get(at) {
            Some(labels) => Target::Bases(labels),
            None => Target::Class(self.classes[at]),
        };
        let item = |(at, row)| Item { row, turned: self.turned.get(at), target: target(at) };
        self.rows.iter().enumerate().map(item).collect()
    }
}

/// What was answered, and how it came to be.
struct Answered {
    run: Run,
    predictions: Predictions,
}

impl Work<'_> {
    fn run(&self, encoder: &Encoder, task: TaskOf, looks: u32) -> Result<Outcome, Error> {
        let runs = match (self.config.protocol, self.dataset.kind) {
            (Protocol::ZeroShot, Kind::Pairs) => vec![self.kept(0, || self.variants(encoder))?],
            (Protocol::ZeroShot, _) => vec![self.kept(0, || self.zero_shot(encoder))?],
            (Protocol::LinearProbe, Kind::Sequences) => self.probes(encoder)?,
            _ => {
                let base = encoder.base(longest(&self.samples[0].rows));
                base.map_or_else(|| Ok(Vec::new()), |base| self.trained(&base))?
            }
        };
        let by_seed: Vec<(u64, &Scores)> = runs.iter().map(|run| (run.seed, &run.scores)).collect();
        let summary = seeds::Summary::new(task.metric, &by_seed);
        let cleans: Option<Vec<(u64, &Scores)>> =
            runs.iter().map(|run| Some((run.seed, run.clean.as_ref()?))).collect();
        let clean = cleans.map(|cleans| seeds::Summary::new(task.metric, &cleans));
        let outcome = Outcome {
            clean,
            format: FORMAT.to_owned(),
            genomill: env!("CARGO_PKG_VERSION").to_owned(),
            key: self.key.clone(),
            model: self.model.clone(),
            task,
            config: self.config.clone(),
            given: self.given,
            notes: self.notes(&runs, &summary, looks),
            runs,
            summary,
            looks,
        };
        fs::write_json(&self.folder.join(FILE), serde_json::to_vec_pretty(&outcome))?;
        for run in &outcome.runs {
            let path = self.path_of(run.seed);
            std::fs::remove_file(&path).map_err(fs::error("remove", &path))?;
        }
        Ok(outcome)
    }

    fn notes(&self, runs: &[Run], summary: &seeds::Summary, looks: u32) -> Vec<String> {
        let (mut notes, given) = (Vec::new(), &self.given);
        let protocol = self.config.protocol;
        if !self.seeds_matter() && self.config.seeds > 1 {
            notes.push(format!("one run: seeds make no difference to `{protocol}` here"));
        }
        if given.cut > 0 {
            notes.push(format!("{} sequences were cut, by {} bases in all", given.cut, given.bases_cut));
        }
        if given.ambiguous > 0 {
            notes.push(format!(
                "{} sequences have codes other than A, C, G and T, {} in all",
                given.ambiguous, given.ambiguous_bases
            ));
        }
        if given.unknown_bases > 0 {
            notes.push(format!("{} bases are unknown to the tokenizer", given.unknown_bases));
        }
        notes.extend(self.notes_of_kind());
        let dropped = self.dataset.dropped.iter();
        notes.extend(dropped.map(|(reason, count)| format!("left out of the task: {count} ({reason})")));
        if self.config.validation == Validation::Homology {
            let mut sizes = std::collections::HashMap::<u32, u64>::new();
            self.families.iter().for_each(|family| *sizes.entry(*family).or_default() += 1);
            let (families, largest) = (sizes.len(), sizes.values().max().copied().unwrap_or(0));
            notes.push(format!(
                "validation by {families} families of training examples, the largest of {largest}"
            ));
        }
        notes.extend(self.notes_of_choice(runs));
        if !summary.collapsed.is_empty() {
            notes.push(format!("collapsed: seeds {:?}", summary.collapsed));
        }
        if looks > 1 {
            notes.push(format!("look {looks} at this test set by this model and protocol"));
        }
        notes
    }

    /// Where the outermost value that was tried was chosen, each time once.
    fn notes_of_choice(&self, runs: &[Run]) -> Vec<String> {
        let is_logistic =
            self.config.protocol == Protocol::LinearProbe && self.dataset.kind == Kind::Sequences;
        let key = if is_logistic { "strengths" } else { "learning_rates" };
        let said = |run: &Run| {
            let (edge, value) = (run.edge()?, run.chosen?);
            Some(format!(
                "the {edge} of `training.{key}`, {value}, validates best: one beyond it may be better"
            ))
        };
        let mut notes: Vec<_> = runs.iter().filter_map(said).collect();
        notes.sort_unstable();
        notes.dedup();
        notes
    }

    /// What a reader should know of tasks in which other things than sequences have classes.
    fn notes_of_kind(&self) -> Vec<String> {
        match self.dataset.kind {
            Kind::Sequences => Vec::new(),
            Kind::Bases => {
                let bases: u64 = self.dataset.counts(Part::Test).iter().sum();
                let windows = self.samples[2].rows.len();
                let all = format!("every base has a class: {bases} bases in {windows} windows, intervals over windows");
                let unseen = unseen(self.dataset).into_iter().filter(|(part, ..)| *part == Part::Test);
                let said = |(_, class, bases)| format!("`{class}` has {bases} bases in test and none to learn from");
                std::iter::once(all).chain(unseen.map(said)).collect()
            }
            Kind::Pairs => vec![
                "a variant is taken for positive where it is less likely than the reference: nothing was learned or chosen"
                    .to_owned(),
            ],
        }
    }

    /// Whether seeds make a difference.
    fn seeds_matter(&self) -> bool {
        let is_probe = self.config.protocol == Protocol::LinearProbe;
        let is_learned_by_steps = is_probe && self.dataset.kind == Kind::Bases;
        self.config.protocol.is_trained() || is_learned_by_steps || (is_probe && self.draws_validation())
    }

    fn draws_validation(&self) -> bool {
        self.config.validation != Validation::Own || self.samples[1].rows.is_empty()
    }

    /// Places in the training part of what is learned from and of what validates, where that is drawn.
    fn drawn(&self, seed: u64) -> Result<[Vec<usize>; 2], Error> {
        let held = match self.config.validation {
            Validation::Homology => families::drawn_by_family(&self.families, seed),
            Validation::Own | Validation::Drawn => families::drawn(self.samples[0].rows.len(), seed),
        };
        let (held, kept): (Vec<_>, Vec<_>) = (0..self.samples[0].rows.len()).partition(|at| held[*at]);
        if held.is_empty() || kept.is_empty() {
            let (task, examples) = (self.dataset.name.clone(), self.samples[0].rows.len());
            return Err(Error::NoValidation { task, examples });
        }
        Ok([kept, held])
    }

    /// What is learned from and what validates.
    fn parts(&self, seed: u64) -> Result<[Vec<Item<'_>>; 2], Error> {
        let train = self.samples[0].items();
        if !self.draws_validation() {
            return Ok([train, self.samples[1].items()]);
        }
        Ok(self.drawn(seed)?.map(|places| places.into_iter().map(|at| train[at]).collect()))
    }

    /// The run of a seed that is done, or else as `compute` does it, kept for a run that goes on.
    fn kept(&self, seed: u64, compute: impl FnOnce() -> Result<Answered, Error>) -> Result<Run, Error> {
        if let Some(run) = self.done(seed) {
            return Ok(run);
        }
        let Answered { run, predictions } = compute()?;
        predictions.write(&self.folder.join(&run.predictions))?;
        let kept = Kept { key: self.key.clone(), run };
        fs::write_json(&self.path_of(seed), serde_json::to_vec_pretty(&kept))?;
        Ok(kept.run)
    }

    fn path_of(&self, seed: u64) -> PathBuf {
        self.folder.join(format!("seed-{seed}.json"))
    }

    fn done(&self, seed: u64) -> Option<Run> {
        let kept: Kept = serde_json::from_slice(&std::fs::read(self.path_of(seed)).ok()?).ok()?;
        (kept.key == self.key && self.folder.join(&kept.run.predictions).is_file()).then_some(kept.run)
    }

    /// Scores of the test set.
    fn answered(
        &self,
        seed: u64,
        scores: Vec<f64>,
        chosen: Option<f64>,
        tried: Vec<Tried>,
        learned: Option<(u32, f64)>,
    ) -> Result<Answered, Error> {
        let (truth, classes) = (truth(&self.samples[2].items()), self.dataset.classes.len());
        let predicted = predictions::predicted(&scores, classes);
        let wrong = |source| Error::Scores { task: self.dataset.name.clone(), seed, source };
        let (scored, clean) = if self.dataset.kind == Kind::Bases {
            metric::check_finite("score", &scores, classes).map_err(wrong)?;
            (self.of_bases(&truth, &predicted).map_err(wrong)?, None)
        } else {
            let scored = answers::scored(&truth, &predicted, &scores, classes).map_err(wrong)?;
            (scored, self.on_clean(&truth, &predicted, &scores, classes).map_err(wrong)?)
        };
        let run = Run {
            seed,
            chosen,
            tried,
            epoch: learned.map(|(epoch, _)| epoch).filter(|epoch| *epoch > 0),
            validation_loss: learned.map(|(_, loss)| loss).filter(|loss| loss.is_finite()),
            scores: scored,
            clean,
            predictions: format!("predictions-{seed}.parquet"),
        };
        let lines = self.dataset.part(Part::Test).iter().map(|example| example.line).collect();
        let predictions = match self.dataset.kind {
            // The scores of every class of every base would be larger than the genome.
            Kind::Bases => Predictions { lines: self.places(), labels: truth, predicted, scores: Vec::new() },
            Kind::Sequences | Kind::Pairs => Predictions { lines, labels: truth, predicted, scores },
        };
        Ok(Answered { run, predictions })
    }

    /// Where the bases of the test set that have a class lie on their sequences, from 1.
    fn places(&self) -> Vec<u64> {
        let examples = self.dataset.part(Part::Test).iter().zip(&self.samples[2].labels);
        let of = |(example, labels): (&Example, &&[u8])| {
            let start = example.place.map_or(0, |place| place.interval.start);
            let labelled = labels.iter().zip(start + 1..).filter(|(label, _)| **label != UNLABELLED);
            labelled.map(|(_, place)| place).collect::<Vec<_>>()
        };
        examples.flat_map(of).collect()
    }

    /// Scores of classes of bases, window by window.
    fn of_bases(&self, mut truth: &[u32], mut predicted: &[u32]) -> Result<Scores, metric::Error> {
        let mut windows = Vec::new();
        for labels in &self.samples[2].labels {
            let bases = labels.iter().filter(|label| **label != UNLABELLED).count();
            let (window, rest) = (truth.split_at(bases), predicted.split_at(bases));
            windows.push((window.0, rest.0));
            (truth, predicted) = (window.1, rest.1);
        }
        let answers = Windowed::new(self.dataset.classes.len(), windows.into_iter())?;
        Ok(Scores::of_windows(&answers, Some(&Bootstrap::default())))
    }

    /// Scores of the clean test examples; none where all are, or none is.
    fn on_clean(
        &self,
        truth: &[u32],
        predicted: &[u32],
        scores: &[f64],
        classes: usize,
    ) -> Result<Option<Scores>, metric::Error> {
        let places: Vec<usize> = (0..truth.len()).filter(|at| self.clean[*at]).collect();
        if places.len() == truth.len() || places.is_empty() {
            return Ok(None);
        }
        let of = |values: &[u32]| places.iter().map(|at| values[*at]).collect::<Vec<_>>();
        let scores =
            places.iter().flat_map(|at| &scores[at * classes..][..classes]).copied().collect::<Vec<_>>();
        answers::scored(&of(truth), &of(predicted), &scores, classes).map(Some)
    }

    fn progress(&self, done: u64, total: u64, unit: Unit) {
        let stage = self.hooks.stage.to_owned();
        self.hooks.observer.event(&Event::Progress { stage, done, total: Some(total), unit });
    }

    /// `ln p` of rows, and of how many bases; `before` rows are done of `total`.
    fn likelihoods(
        &self,
        encoder: &Encoder,
        rows: &[Row],
        [before, total]: [u64; 2],
    ) -> Result<Vec<(f32, u32)>, Error> {
        let told = |done| self.progress(before + done, total, Unit::Items);
        let found = encoder.likelihoods(rows, &self.workers, self.hooks.stop, &told)?;
        found.ok_or_else(|| Error::Masked { model: self.model.name.clone() })
    }

    fn zero_shot(&self, encoder: &Encoder) -> Result<Answered, Error> {
        let total: u64 =
            self.samples.iter().map(|sample| (sample.rows.len() + sample.turned.len()) as u64).sum();
        let mut before = 0;
        let mut of = |rows: &[Row]| -> Result<Vec<f32>, Error> {
            let found = self.likelihoods(encoder, rows, [before, total])?;
            before += rows.len() as u64;
            Ok(found.into_iter().map(|(sum, bases)| sum / bases as f32).collect())
        };
        let mut both = |sample: &Sample<'_>| -> Result<Vec<f32>, Error> {
            let forward = of(&sample.rows)?;
            if sample.turned.is_empty() {
                return Ok(forward);
            }
            Ok(forward.into_iter().zip(of(&sample.turned)?).map(|(a, b)| f32::midpoint(a, b)).collect())
        };
        let [train, _, test] = &self.samples;
        let not_two =
            || Error::NotTwo { task: self.dataset.name.clone(), classes: self.dataset.classes.len() };
        let threshold = Threshold::of(&both(train)?, &train.classes).ok_or_else(not_two)?;
        let scores = both(test)?.into_iter().flat_map(|likelihood| threshold.scores(likelihood)).collect();
        self.answered(0, scores, None, Vec::new(), None)
    }

    /// How much less likely variants are than the reference in the same surroundings, in nats; of both strands the mean.
    fn variants(&self, encoder: &Encoder) -> Result<Answered, Error> {
        let test = &self.samples[2];
        let mut strands = vec![[&test.rows, &test.against[0]]];
        if !test.turned.is_empty() {
            strands.push([&test.turned, &test.against[1]]);
        }
        let (mut before, mut ratios) = (0, vec![0.0; test.rows.len()]);
        let total = (2 * strands.len() * test.rows.len()) as u64;
        for strand in &strands {
            for (rows, sign) in strand.iter().zip([1.0, -1.0]) {
                let found = self.likelihoods(encoder, rows, [before, total])?;
                before += rows.len() as u64;
                let part = sign / strands.len() as f64;
                ratios.iter_mut().zip(found).for_each(|(ratio, (sum, _))| *ratio += part * f64::from(sum));
            }
        }
        let scores = ratios.into_iter().flat_map(|ratio| [ratio, -ratio]).collect();
        self.answered(0, scores, None, Vec::new(), None)
    }

    fn probes(&self, encoder: &Encoder) -> Result<Vec<Run>, Error> {
        let seeds = if self.seeds_matter() { self.config.seeds } else { 1 };
        let missing: Vec<u64> = (0..seeds).filter(|seed| self.done(*seed).is_none()).collect();
        let embedded = if missing.is_empty() { None } else { Some(self.embeddings(encoder)?) };
        (0..seeds)
            .map(|seed| {
                self.kept(seed, || {
                    let none = Vec::new();
                    self.probe(seed, embedded.as_ref().unwrap_or(&none))
                })
            })
            .collect()
    }

    /// Embeddings of train, validation and test, and of the reverse complements.
    fn embeddings(&self, encoder: &Encoder) -> Result<Vec<[Vec<f32>; 2]>, Error> {
        let total: u64 =
            self.samples.iter().map(|sample| (sample.rows.len() + sample.turned.len()) as u64).sum();
        let mut before = 0;
        let mut all = Vec::new();
        for sample in &self.samples {
            let mut of = |rows: &[Row], strand| -> Result<Vec<f32>, Error> {
                let told = |done| self.progress(before + done, total, Unit::Items);
                let found = self.cached(encoder, rows, &format!("{} {strand}", sample.content), &told)?;
                before += rows.len() as u64;
                Ok(found)
            };
            all.push([of(&sample.rows, "forward")?, of(&sample.turned, "turned")?]);
        }
        Ok(all)
    }

    /// Embeddings of some rows, from where they are kept if they are there and whole.
    fn cached(
        &self,
        encoder: &Encoder,
        rows: &[Row],
        content: &str,
        told: &dyn Fn(u64),
    ) -> Result<Vec<f32>, Error> {
        const NAME: &str = "embeddings";
        let compute = || {
            Ok::<_, Error>(encoder.embed(
                rows,
                self.config.inputs.pooling,
                &self.workers,
                self.hooks.stop,
                told,
            )?)
        };
        let Some(cache) = self.place.cache.filter(|_| !rows.is_empty()) else { return compute() };
        let model = self.model;
        let of = serde_json::json!([ALGORITHM, model.weights, model.tokenizer, self.config.inputs, content]);
        let path = cache.join(format!("{}.safetensors", blake3::hash(of.to_string().as_bytes()).to_hex()));
        let shape = [rows.len(), model.width as usize].map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        // A file that cannot be read is made anew.
        if let Some(found) = weights::read_tensor(&path, NAME).ok().filter(|found| found.size() == shape) {
            return Ok(Vec::try_from(found.view(-1_i64)).map_err(encoder::Error::from)?);
        }
        let values = compute()?;
        fs::create_dir_all(cache)?;
        let part = fs::temporary_file(cache)?.into_temp_path();
        let tensor = Tensor::f_from_slice(&values).and_then(|tensor| tensor.f_view(shape));
        weights::write_named(&part, vec![(NAME.to_owned(), tensor.map_err(encoder::Error::from)?)])?;
        part.persist(&path).map_err(|error| fs::error("rename to", &path)(error.error))?;
        Ok(values)
    }

    fn probe(&self, seed: u64, embeddings: &[[Vec<f32>; 2]]) -> Result<Answered, Error> {
        let width = self.model.width as usize;
        let part = |part: usize| Table::whole(&embeddings[part], &self.samples[part].classes);
        let (train, validation) = if self.draws_validation() {
            self.drawn(seed)?.map(|places| part(0).only(&places, width)).into()
        } else {
            (part(0), part(1))
        };
        let test = part(2);
        let [train, validation, test] = [&train, &validation, &test].map(Table::embedded);
        let (classes, strengths) = (self.dataset.classes.len(), &self.config.training.strengths);
        let found = probe::probe([&train, &validation, &test], width, classes, strengths, &self.workers)?;
        let scores = answers::probabilities(&found.logs, classes);
        let loss = found.chosen.loss.unwrap_or(f64::NAN);
        self.answered(seed, scores, Some(found.chosen.value), found.tried, Some((0, loss)))
    }

    /// The first seed tries every learning rate, then the others take the best, side by side.
    fn trained(&self, base: &Base) -> Result<Vec<Run>, Error> {
        let (rates, seeds) = (&self.config.training.learning_rates, self.config.seeds);
        let of_run = Learner::steps(self.config, self.parts(0)?[0].len());
        let total = of_run * (rates.len() as u64 + seeds - 1);
        let steps = AtomicU64::new(0);
        // In examples: what goes by steps is expected to tell its losses too.
        let batch = u64::from(self.config.training.batch);
        let told = || {
            let done = steps.fetch_add(1, Ordering::Relaxed) + 1;
            self.progress(done * batch, total.max(done) * batch, Unit::Items);
        };
        let first = self.kept(0, || self.tuned(base, &told))?;
        steps.fetch_max(of_run * rates.len() as u64, Ordering::Relaxed);
        let missing: Vec<u64> = (1..seeds).filter(|seed| self.done(*seed).is_none()).collect();
        steps.fetch_add(of_run * (seeds - 1 - missing.len() as u64), Ordering::Relaxed);
        let parts = missing.into_iter().map(|seed| (base.share(), seed)).collect();
        let rate = first.chosen.unwrap_or(rates[0]);
        self.workers.map(parts, |(base, seed)| {
            let learned = self.learned(base, seed, rate, &told)?;
            self.kept(seed, || self.asked(seed, &learned, rate, Vec::new())).map(drop)
        })?;
        Ok(std::iter::once(first).chain((1..seeds).filter_map(|seed| self.done(seed))).collect())
    }

    /// The first seed at the learning rate that validates best.
    fn tuned(&self, base: &Base, told: &(dyn Fn() + Sync)) -> Result<Answered, Error> {
        let rates = &self.config.training.learning_rates;
        let parts = rates.iter().map(|rate| (base.share(), *rate)).collect();
        let learned = self.workers.map(parts, |(base, rate)| self.learned(base, 0, rate, told))?;
        let finite = |loss: f64| Some(loss).filter(|loss| loss.is_finite());
        let tried = rates
            .iter()
            .zip(&learned)
            .map(|(rate, learned)| Tried { value: *rate, loss: finite(learned.loss) });
        let tried = tried.collect();
        let order = |loss: f64| finite(loss).unwrap_or(f64::INFINITY);
        let best = rates.iter().zip(&learned).min_by(|a, b| order(a.1.loss).total_cmp(&order(b.1.loss)));
        let none = || Error::Config { key: "training.learning_rates", problem: "is empty".to_owned() };
        let (rate, best) = best.ok_or_else(none)?;
        self.asked(0, best, *rate, tried)
    }

    fn learned(&self, base: Base, seed: u64, rate: f64, told: &(dyn Fn() + Sync)) -> Result<Learned, Error> {
        let [train, validation] = self.parts(seed)?;
        let (config, classes, stop) = (self.config, self.dataset.classes.len(), self.hooks.stop);
        let per_base = self.dataset.kind == Kind::Bases;
        Ok(Learner { config, classes, per_base, seed, rate, stop, told }.learn(base, &train, &validation)?)
    }

    /// The answers to the test set of what was learned.
    fn asked(&self, seed: u64, learned: &Learned, rate: f64, tried: Vec<Tried>) -> Result<Answered, Error> {
        let logs = learned.model.log_probabilities(&self.samples[2].items(), self.hooks.stop)?;
        let scores = answers::probabilities(&logs, self.dataset.classes.len());
        self.answered(seed, scores, Some(rate), tried, Some((learned.epoch, learned.loss)))
    }
}

/// Embeddings of some examples: of both strands, where both are asked, and their classes.
struct Table<'a> {
    strands: [Cow<'a, [f32]>; 2],
    classes: Cow<'a, [u32]>,
}

impl<'a> Table<'a> {
    fn whole(strands: &'a [Vec<f32>; 2], classes: &'a [u32]) -> Self {
        let [forward, turned] = strands;
        Self { strands: [forward.into(), turned.into()], classes: classes.into() }
    }

    /// Those at some places, of `width` values each.
    fn only(&self, places: &[usize], width: usize) -> Self {
        let strand = |values: &Cow<'_, [f32]>| {
            let rows = places.iter().filter_map(|at| values.get(at * width..(at + 1) * width));
            rows.flatten().copied().collect::<Vec<_>>().into()
        };
        let classes = places.iter().map(|at| self.classes[*at]).collect::<Vec<_>>();
        Self { strands: self.strands.each_ref().map(strand), classes: classes.into() }
    }

    fn embedded(&self) -> Embedded<'_> {
        let [values, turned] = &self.strands;
        let turned = Some(&turned[..]).filter(|turned| !turned.is_empty());
        Embedded { values, turned, classes: &self.classes }
    }
}

#[cfg(test)]
mod tests;
