//! Scores a model on held-out rows, beside Markov baselines fitted on the training rows and scored on the same bases; or, with
//! `tasks`, models on benchmark tasks by a protocol. Memory: the tables of the highest order (64 MiB for order 11), the model, and
//! one number per row.

mod tasks;

pub use tasks::RESULTS;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Error, File, Outcome, Stage, Task, to_json};
use crate::artifact::Counts;
use crate::evaluate::protocol::{Baseline, Inputs, Protocol, Recipe, Training, Validation};
use crate::fs;
use crate::metric::interval::{Bootstrap, Estimate, Row};
use crate::metric::markov::{self, Baselines, LARGEST_ORDER, Score};
use crate::model::Named;
use crate::observer::Unit;
use crate::report::{Evaluation, Markov, MarkovOrder, ModelScore};
use crate::shard::{Segment, ShardSet, contexts};
use crate::tokenizer::Tokenizer;
use crate::train::Precision;
use crate::units::Strand;

/// The scores within the artifact.
pub const SCORES: &str = "scores.json";

/// What to score, and on what.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that packed or fetched the shards: rows to score on. Instead of it `tasks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Tokens per row: which set to score on, where the stage packed several contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    context: Option<usize>,
    /// The stage that trained the model; without it only the baselines are scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// The splits to score on. Default: `test`.
    #[serde(default = "test_split")]
    splits: Vec<String>,
    /// The split that the baselines are fitted on. Default: `train`.
    #[serde(default = "train_split")]
    fit: String,
    /// The highest order of the Markov baselines, in bases; 0 to 16. Default 11.
    #[serde(default = "default_order")]
    #[schemars(range(max = 16))]
    markov_order: usize,
    /// Rows computed at once. Default 16.
    #[serde(default = "default_batch_rows")]
    #[schemars(range(min = 1))]
    batch_rows: u32,
    /// What the model's products of matrices are computed in, `f32` or `bf16`, as in training; in bf16 a GPU is several times as fast, and
    /// the score says so. Default: f32.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    precision: Precision,
    /// Chooses the draws of the bootstrap.
    #[serde(default)]
    seed: u64,
    /// A YAML file of tasks, or a folder of Genomic Benchmarks or GUE: what to score on in place of `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tasks: Option<PathBuf>,
    /// How models are asked; with `tasks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    /// The published recipe of a model in place of `training` and `inputs.pooling`; with `tasks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipe: Option<Recipe>,
    /// More models, by name: folders with `config.json`, weights and `tokenizer.json`; with `tasks`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    folders: BTreeMap<String, PathBuf>,
    /// A shape without weights, learned `from-scratch`; with `tasks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preset: Option<Named>,
    /// The stage that made the tokenizer of `preset`. Default: HyenaDNA's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokenizer: Option<String>,
    /// What stands on the leaderboard beside models; with `tasks`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    baselines: Vec<Baseline>,
    /// What models are given; with `tasks`.
    #[serde(default)]
    inputs: Inputs,
    /// Runs, with seeds from 0; with `tasks`. Default 5.
    #[serde(default = "default_seeds")]
    #[schemars(range(min = 1))]
    seeds: u64,
    /// What validates; with `tasks`. Default: `own`.
    #[serde(default)]
    validation: Validation,
    /// What is learned, and how; with `tasks`.
    #[serde(default)]
    training: Training,
}

/// Keys that `from` has no use for, and `tasks` has none for.
const OF_TASKS: [&str; 4] = ["inputs", "seeds", "validation", "training"];
const OF_ROWS: [&str; 6] = ["splits", "fit", "markov_order", "batch_rows", "precision", "seed"];

const fn default_seeds() -> u64 {
    5
}

fn test_split() -> Vec<String> {
    vec!["test".to_owned()]
}

fn train_split() -> String {
    "train".to_owned()
}

const fn default_order() -> usize {
    11
}

const fn default_batch_rows() -> u32 {
    16
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        let shards = self.from.iter().map(|from| ("from".to_owned(), from.clone()));
        let model = self.model.iter().map(|model| ("model".to_owned(), model.clone()));
        let tokenizer = self.tokenizer.iter().map(|stage| ("tokenizer".to_owned(), stage.clone()));
        shards.chain(model).chain(tokenizer).collect()
    }

    fn files(&self, base: &Path) -> Result<Vec<File>, Error> {
        self.files_of_tasks(base)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = self.problems_of_tasks();
        if self.markov_order > LARGEST_ORDER {
            problems
                .push(("markov_order", format!("is {}, expected 0 to {LARGEST_ORDER}", self.markov_order)));
        }
        if self.batch_rows == 0 {
            problems.push(("batch_rows", "is 0, expected at least 1".to_owned()));
        }
        if self.splits.contains(&self.fit) {
            problems.push(("splits", format!("`{}` is what the baselines are fitted on", self.fit)));
        }
        problems
    }

    fn resolved(&self) -> Value {
        let mut all = to_json(self);
        let unused: &[&str] = if self.tasks.is_some() { &OF_ROWS } else { &OF_TASKS };
        if let Some(all) = all.as_object_mut() {
            all.retain(|key, _| !unused.contains(&key.as_str()));
        }
        all
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        match &self.tasks {
            Some(tasks) => self.score_tasks(task, tasks),
            None => self.score_rows(task),
        }
    }
}

impl Config {
    fn score_rows(&self, task: &Task) -> Result<Outcome, Error> {
        let set = contexts::choose(task.input_of("from", &crate::shard::KINDS)?, self.context)?;
        let set = ShardSet::from_artifact(&set)?;
        let tokenizer = set.tokenizer()?;
        let baselines = self.fit(task, &set, tokenizer.as_ref())?;
        let mut evaluations = Vec::new();
        for split in &self.splits {
            let rows = baseline_rows(task, &set, tokenizer.as_ref(), split, &baselines)?;
            evaluations.push(self.evaluation(task, &set, split, &baselines, &rows)?);
        }
        let path = task.out.join(SCORES);
        let text = serde_json::to_vec_pretty(&evaluations).map_err(std::io::Error::other);
        let text = text.map_err(fs::error("write", &path))?;
        std::fs::write(&path, text).map_err(fs::error("write", &path))?;
        let summary = evaluations.iter().map(summary).collect::<Vec<_>>().join("; ");
        let bases = evaluations.iter().map(|e| e.bases).sum();
        let counts = Counts { bases_in: bases, bases_out: bases, ..Counts::default() };
        Ok(Outcome { counts, details: json!({ "evaluations": evaluations }), summary, ..Outcome::default() })
    }
}

fn summary(evaluation: &Evaluation) -> String {
    let markov = evaluation.markov.as_ref().and_then(Markov::best);
    let markov = markov.map(|best| format!("Markov {} {:.4}", best.name(), best.bits_per_base));
    let model = evaluation.model.as_ref().map(|model| format!("model {:.4}", model.bits_per_base));
    let parts: Vec<String> = model.into_iter().chain(markov).collect();
    format!("{}: {} bits per base", evaluation.split, parts.join(", "))
}

impl Config {
    /// Fits the baselines on every base of the training rows.
    fn fit(&self, task: &Task, set: &ShardSet, tokenizer: &dyn Tokenizer) -> Result<Baselines, Error> {
        let counts = markov::Counts::new(self.markov_order);
        let mut counts = counts.map_err(|e| Error::Config { key: "markov_order", reason: e.to_string() })?;
        let mut piece = Vec::new();
        let mut last: Option<Segment> = None;
        for_each_segment(set, &self.fit, |_, tokens, segment| {
            if !last.as_ref().is_some_and(|last| continues(last, segment)) {
                counts.observe(&piece);
                piece.clear();
            }
            decode(tokenizer, tokens, segment, &mut piece)?;
            last = Some(segment.clone());
            task.progress(counts.bases(), None, Unit::Bases);
            task.check()
        })?;
        counts.observe(&piece);
        Ok(counts.finish())
    }

    fn evaluation(
        &self,
        task: &Task,
        set: &ShardSet,
        split: &str,
        baselines: &Baselines,
        rows: &[Score],
    ) -> Result<Evaluation, Error> {
        let mut sum = Score::new(baselines.max_order());
        for row in rows {
            sum.merge(row);
        }
        let mut evaluation = Evaluation {
            split: split.to_owned(),
            scored_on: format!("the {split} split, {} rows", rows.len()),
            bases: sum.bases,
            model: None,
            markov: Some(self.markov(baselines, &sum)),
        };
        if self.model.is_some() {
            evaluation.model = Some(self.model_score(task, set, &evaluation, rows)?);
        }
        Ok(evaluation)
    }

    fn markov(&self, baselines: &Baselines, sum: &Score) -> Markov {
        let (plain, blended) = (sum.plain_bits_per_base(), sum.blended_bits_per_base());
        let pseudo_counts = baselines.pseudo_counts();
        let at = |list: &Option<Vec<f64>>, order: usize| list.as_ref().and_then(|l| l.get(order).copied());
        let order = |order: usize| MarkovOrder {
            order: order as u64,
            plain: at(&plain, order).unwrap_or(f64::NAN),
            blended: at(&blended, order),
            pseudo_count: pseudo_counts.get(order).copied(),
        };
        Markov {
            fitted_on: format!("the rows of the {} split", self.fit),
            fitted_bases: baselines.bases(),
            orders: (0..=baselines.max_order()).map(order).collect(),
        }
    }

    #[cfg(not(feature = "train"))]
    #[expect(clippy::unused_self, reason = "the other build uses it")]
    fn model_score(&self, _: &Task, _: &ShardSet, _: &Evaluation, _: &[Score]) -> Result<ModelScore, Error> {
        Err(Error::NoTrainer)
    }

    #[cfg(feature = "train")]
    fn model_score(
        &self,
        task: &Task,
        set: &ShardSet,
        so_far: &Evaluation,
        rows: &[Score],
    ) -> Result<ModelScore, Error> {
        use crate::evaluate::{self, bits_per_base};
        use crate::train::Hooks;

        let model = task.input_of("model", &["train"])?;
        let (batch_rows, precision, seed) = (self.batch_rows, self.precision, self.seed);
        let config = evaluate::Config { batch_rows, precision, seed, ..evaluate::Config::default() };
        let hooks =
            Hooks { observer: task.observer, stage: task.stage, stop: task.stop, threads: task.threads };
        let vocabulary = super::train::vocabulary(set)?;
        let held_out = super::train::rows(set, &so_far.split, evaluate::masks_documents(&model.folder)?)?;
        let score = bits_per_base(&model.folder, held_out.as_ref(), &vocabulary, &config, hooks);
        task.check()?;
        let score = score?;
        if score.bases != so_far.bases {
            let reason =
                format!("the model was scored on {} bases, the baselines on {}", score.bases, so_far.bases);
            return Err(Error::Unusable { input: model.manifest.stage.clone(), reason });
        }
        let bootstrap = Bootstrap { seed: self.seed, ..Bootstrap::default() };
        let in_bf16 = if precision == Precision::Bf16 { ", in bf16" } else { "" };
        Ok(ModelScore {
            name: format!("{}, step {}{in_bf16}", model.manifest.stage, model.manifest.details["steps"]),
            trained_on: "the rows of the train split".to_owned(),
            bits_per_base: score.bits_per_base,
            interval: score.interval,
            difference: so_far.markov.as_ref().and_then(|m| difference(m, &score.by_row, rows, bootstrap)),
        })
    }
}

/// Bits per base of the model less those of the best baseline, with its interval.
#[cfg_attr(not(feature = "train"), expect(dead_code, reason = "only models are compared"))]
fn difference(markov: &Markov, found: &[Row], rows: &[Score], bootstrap: Bootstrap) -> Option<Estimate> {
    let best = markov.best()?;
    let order = usize::try_from(best.order).ok()?;
    let bits = |row: &Score| if best.blended { row.blended[order] } else { row.plain[order] };
    let pairs = found.iter().zip(rows).map(|(a, b)| Row { bits: a.bits - bits(b), bases: a.bases });
    bootstrap.estimate(&pairs.collect::<Vec<_>>())
}

/// Whether a segment goes on where another ended.
fn continues(last: &Segment, next: &Segment) -> bool {
    let joined = match next.strand {
        Strand::Forward => last.end == next.start,
        Strand::Reverse => last.start == next.end,
    };
    joined && last.record == next.record && last.source == next.source && last.strand == next.strand
}

/// Code lengths of each row of a split. The first token of a row is context only, as it is for a model.
fn baseline_rows(
    task: &Task,
    set: &ShardSet,
    tokenizer: &dyn Tokenizer,
    split: &str,
    baselines: &Baselines,
) -> Result<Vec<Score>, Error> {
    let mut scores: BTreeMap<u64, Score> = BTreeMap::new();
    let mut piece = Vec::new();
    let total = set.rows(split)?.len();
    for_each_segment(set, split, |row, tokens, segment| {
        piece.clear();
        decode(tokenizer, tokens, segment, &mut piece)?;
        let first = tokens.first().map_or(0, |token| tokenizer.bases(*token));
        let from = if segment.token_start == 0 { first as usize } else { 0 };
        let score = scores.entry(row).or_insert_with(|| Score::new(baselines.max_order()));
        score.merge(&baselines.score_from(&piece, from));
        task.progress(row, Some(total), Unit::Items);
        task.check()
    })?;
    Ok((0..total)
        .map(|row| scores.remove(&row).unwrap_or_else(|| Score::new(baselines.max_order())))
        .collect())
}

/// Calls `each` with the row's number, its tokens and one of its segments, in order.
fn for_each_segment(
    set: &ShardSet,
    split: &str,
    mut each: impl FnMut(u64, &[u32], &Segment) -> Result<(), Error>,
) -> Result<(), Error> {
    let rows = set.rows(split)?;
    let files = set.details.splits.get(split).map(|split| split.files.as_slice()).unwrap_or_default();
    let mut row = 0;
    for file in files {
        for segments in set.segments(file)? {
            let tokens = rows.get(row).to_vec();
            segments.iter().try_for_each(|segment| each(row, &tokens, segment))?;
            row += 1;
        }
    }
    Ok(())
}

fn decode(
    tokenizer: &dyn Tokenizer,
    tokens: &[u32],
    segment: &Segment,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    Ok(tokenizer.decode_into(&tokens[segment.token_start as usize..segment.token_end as usize], out)?)
}
