//! A training run as a person writes it, and resolved: every number known.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{Duration, Pace};
use super::schedule::{self, Decay, Schedule};
use crate::model::{self, Named, Overrides, Shape, hf};

/// Share of the steps that warm up when nothing is said.
const WARMUP_SHARE: u64 = 20;

/// Share of the steps in which `wsd` falls when nothing is said.
const COOLDOWN_SHARE: u64 = 10;

/// Micro-batches per step when nothing is said: as many threads find work.
const MICRO_BATCHES: u32 = 8;

/// Tokens of a micro-batch, at least, when nothing is said: products of fewer use a processor badly, and each adds up all gradients.
const MICRO_BATCH_TOKENS: u32 = 512;

/// The same of a HyenaDNA, which makes its filters anew for each micro-batch.
const FILTERED_TOKENS: u32 = 2048;

/// Share of the tokens that a masked model is asked for when nothing is said.
const MASK_RATE: f64 = 0.15;

/// How to train a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct Config {
    /// The model's shape by name, such as `olmo-1m`, `hyenadna-tiny-1k` or `dnabert2-117m`. HyenaDNA wants shards of the
    /// tokenizer `nucleotide`; DNABERT-2 guesses hidden tokens, of any tokenizer that knows `[MASK]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Named>,
    /// The shape of an OLMo field by field; replaces what the preset says.
    #[serde(default)]
    pub model: Overrides,
    /// A model to start from instead of random weights; it brings its shape, so `preset` and `model` are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialize: Option<Initialize>,
    /// How long to train: `400 steps`, `5_000_000 tokens`, `2 epochs` or `2e15 flops`.
    #[serde(default = "one_epoch")]
    pub duration: Duration,
    /// Rows per optimizer step. Default: 16.
    #[serde(default = "default_batch_rows")]
    pub batch_rows: u32,
    /// The same in tokens, in place of `batch_rows`: as many rows as fit, at least one. Steps of any context then learn from as
    /// many tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<u32>,
    /// Rows that a thread computes at once. Threads share the micro-batches of a step, and the result does not depend
    /// on their number. Default: an eighth of `batch_rows`, or as many as have 512 tokens (of a HyenaDNA 2,048) where that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch_rows: Option<u32>,
    /// The same in tokens: as many rows as fit, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch_tokens: Option<u32>,
    /// The highest learning rate. Default: 0.001.
    #[serde(default = "default_learning_rate")]
    pub learning_rate: f64,
    /// Time until the highest learning rate. Default: a twentieth of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Duration>,
    /// How the learning rate falls after the warm-up: `cosine` (default), `linear`, `constant` or `wsd`.
    #[serde(default)]
    pub decay: Decay,
    /// The end of a run with `decay: wsd`, in which the learning rate falls. Default: a tenth of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Duration>,
    /// The last learning rate as a part of the highest. Default: 0.1.
    #[serde(default = "default_floor")]
    pub learning_rate_floor: f64,
    /// Weight decay of the matrices, times the learning rate, per step. Default: 0.1.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Whether the embedding decays too. Default: false.
    #[serde(default)]
    pub decay_embedding: bool,
    /// Whether the weights of norms decay too, as OLMo-2's do (OLMo-1 has none). Default: true.
    #[serde(default = "default_true")]
    pub decay_norms: bool,
    /// Adam's forgetting of the mean and of the mean square. Default: 0.9 and 0.95.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Added to Adam's denominator. Default: 1e-8.
    #[serde(default = "default_epsilon")]
    pub epsilon: f64,
    /// Limit of the gradients' norm. Default: 1; null for none.
    #[serde(default = "default_grad_clip")]
    pub grad_clip: Option<f64>,
    /// Coefficient of the z-loss, the mean square of the logarithm of what the scores add up to; it keeps scores small.
    /// OLMo-2 has 1e-5. Default: 0, none.
    #[serde(default)]
    pub z_loss: f64,
    /// Share of the tokens that a masked model (DNABERT-2) must guess: of these 80 % are hidden, 10 % are another token
    /// and 10 % stay. Default: 0.15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_rate: Option<f64>,
    /// Whether tokens count in the loss as the shards' `weights` say, where they say it. Default: true.
    #[serde(default = "default_true")]
    pub loss_weights: bool,
    /// Whether tokens see only their own document, where rows hold several. Default: false.
    #[serde(default)]
    pub document_mask: bool,
    /// Short contexts first. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_warmup: Option<ContextWarmup>,
    /// Whether the values between layers are computed again in the backward pass instead of being kept: less memory, a
    /// third more work, the same result. Default: false.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// What products of matrices are computed in, `f32` or `bf16`; weights, moments, norms and losses are f32 in any case. A GPU
    /// computes several times as much in bf16, a processor mostly less. Default: f32.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Steps in a row with a loss or gradients that are no numbers that are skipped and told; one more ends the run.
    /// Default: 5.
    #[serde(default = "default_skipped_steps")]
    pub max_skipped_steps: u32,
    /// Chooses the first weights and the order of the rows. Default: 0.
    #[serde(default)]
    pub seed: u64,
    /// How often to record the loss. Default: 10 steps.
    #[serde(default = "default_log_every")]
    pub log_every: Duration,
    /// How often to evaluate on the validation rows, besides at the end. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<Duration>,
    /// Validation rows to evaluate on at most. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate_rows: Option<u64>,
    /// How often to save, besides at the end. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<Duration>,
    /// Newest checkpoints to keep. Default: 1.
    #[serde(default = "default_kept")]
    pub keep_checkpoints: u32,
    /// Whether to save at every evaluation with a lower validation loss than all before, and to keep that checkpoint
    /// too. Default: false.
    #[serde(default)]
    pub keep_best: bool,
}

/// Short contexts first: rows are cut into parts that do not see each other; their length doubles until rows are whole.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContextWarmup {
    /// The first context in tokens: the rows' divided by a power of two.
    pub from: u32,
    /// Time until rows are whole.
    pub over: Duration,
}

/// Where the first weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Initialize {
    /// A folder with `config.json` and `model.safetensors` of Hugging Face's `OlmoForCausalLM` or `Olmo2ForCausalLM`, or one
    /// of a HyenaDNA or DNABERT-2 that `genomill model import` or `export` wrote.
    pub hf: PathBuf,
}

/// A training run with every number known; saved with each checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct Resolved {
    /// The model.
    pub model: Shape,
    /// The learning rate, step by step.
    pub schedule: Schedule,
    /// Rows per optimizer step.
    pub batch_rows: u32,
    /// Rows that a thread computes at once.
    pub micro_batch_rows: u32,
    /// Weight decay of the matrices.
    pub weight_decay: f64,
    /// Whether the embedding decays too.
    pub decay_embedding: bool,
    /// Whether the weights of norms decay too.
    pub decay_norms: bool,
    /// Adam's forgetting of the mean and of the mean square.
    pub betas: [f64; 2],
    /// Added to Adam's denominator.
    pub epsilon: f64,
    /// Limit of the gradients' norm.
    pub grad_clip: Option<f64>,
    /// Coefficient of the z-loss.
    pub z_loss: f64,
    /// Share of the tokens that a masked model must guess; none of other models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_rate: Option<f64>,
    /// Whether tokens count in the loss as the shards say.
    pub loss_weights: bool,
    /// Whether tokens see only their own document.
    pub document_mask: bool,
    /// Short contexts first.
    pub context_warmup: Option<schedule::ContextWarmup>,
    /// Whether layers are computed again in the backward pass.
    pub activation_checkpointing: bool,
    /// What products of matrices are computed in.
    #[serde(default)]
    pub precision: Precision,
    /// Steps in a row that are skipped.
    pub max_skipped_steps: u32,
    /// Chooses the first weights and the order of the rows.
    pub seed: u64,
    /// Steps between records.
    pub log_every: u64,
    /// Steps between evaluations.
    pub evaluate_every: Option<u64>,
    /// Validation rows to evaluate on at most.
    pub evaluate_rows: Option<u64>,
    /// Steps between checkpoints.
    pub checkpoint_every: Option<u64>,
    /// Newest checkpoints to keep.
    pub keep_checkpoints: u32,
    /// Whether the best one is kept too.
    pub keep_best: bool,
}

/// Why a run cannot be as it is written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model that cannot be.
    #[error(transparent)]
    Model(#[from] model::config::Error),
    /// A number outside its range.
    #[error("`{name}` is {found}: expected {expected}")]
    Range {
        /// The key.
        name: &'static str,
        /// Its value.
        found: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// A folder to start from that cannot be read.
    #[error(transparent)]
    Folder(#[from] hf::Error),
    /// Two shapes.
    #[error("`initialize` brings the model's shape: leave out `preset` and `model`")]
    TwoShapes,
    /// Two sizes of batches, or of micro-batches.
    #[error("`{rows}` and `{tokens}` are two sizes of the same: leave one out")]
    TwoSizes {
        /// The key of the one.
        rows: &'static str,
        /// The key of the other.
        tokens: &'static str,
    },
    /// A key for which a family has no use.
    #[error("`{key}` does not go with {model}: leave it out")]
    Foreign {
        /// The key.
        key: &'static str,
        /// The preset or the family.
        model: String,
    },
    /// Rows that are longer than the positions of a HyenaDNA.
    #[error(
        "the shards' rows of {found} tokens are longer than what `{preset}` takes, {longest} (its `l_max`): pack them with \
         a shorter `context`, or take a preset for longer rows"
    )]
    Longest {
        /// The model.
        preset: String,
        /// Tokens per row.
        found: u32,
        /// Tokens that the model sees at most.
        longest: u32,
    },
    /// A vocabulary that the embedding has no rows for.
    #[error(
        "the shards' vocabulary of {found} ids is larger than the embedding of `{}`, which has {rows} rows",
        folder.display()
    )]
    Vocabulary {
        /// The folder.
        folder: PathBuf,
        /// Number of ids.
        found: u32,
        /// Number of rows.
        rows: u32,
    },
    /// Rows that are longer than what the model can see.
    #[error(
        "the shards' rows of {found} tokens are longer than the context of `{}`, which is {limit} tokens",
        folder.display()
    )]
    Context {
        /// The folder.
        folder: PathBuf,
        /// Tokens per row.
        found: u32,
        /// Tokens that the model sees at most.
        limit: u32,
    },
    /// A first context that does not grow into the rows'.
    #[error(
        "`context_warmup.from` is {from}: expected the {context} tokens of the rows, divided by a power of two"
    )]
    ContextWarmup {
        /// The first context.
        from: u32,
        /// Tokens per row.
        context: u32,
    },
    /// A cooldown for which there is no use.
    #[error("`cooldown` goes with `decay: wsd` only")]
    Cooldown,
    /// No row to train on.
    #[error("there is no row to train on")]
    NoRows,
}

impl Error {
    /// The key to change, where it is one.
    pub const fn key(&self) -> Option<&'static str> {
        Some(match self {
            Self::Range { name, .. } => name,
            Self::Foreign { key, .. } => key,
            Self::TwoShapes => "initialize",
            Self::TwoSizes { tokens, .. } => tokens,
            Self::Cooldown => "cooldown",
            _ => return None,
        })
    }
}

const fn one_epoch() -> Duration {
    Duration::Epochs(1.0)
}

const fn default_batch_rows() -> u32 {
    16
}

const fn default_learning_rate() -> f64 {
    1e-3
}

const fn default_floor() -> f64 {
    0.1
}

const fn default_weight_decay() -> f64 {
    0.1
}

const fn default_betas() -> [f64; 2] {
    [0.9, 0.95]
}

const fn default_epsilon() -> f64 {
    1e-8
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional key")]
const fn default_grad_clip() -> Option<f64> {
    Some(1.0)
}

const fn default_true() -> bool {
    true
}

const fn default_skipped_steps() -> u32 {
    5
}

const fn default_kept() -> u32 {
    1
}

const fn default_log_every() -> Duration {
    Duration::Steps(10)
}

/// What products of matrices are computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, 8 of them of the exponent.
    Bf16,
}

impl Precision {
    /// Whether it is f32.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Config {
    /// Checks every number that needs nothing but this configuration.
    pub fn check(&self) -> Result<(), Error> {
        let positive = "a number above 0";
        let share = "a number from 0 to 1";
        let checks = [
            ("batch_rows", f64::from(self.batch_rows), self.batch_rows > 0, positive),
            ("batch_tokens", 0.0, self.batch_tokens != Some(0), positive),
            ("micro_batch_rows", 0.0, self.micro_batch_rows != Some(0), positive),
            ("micro_batch_tokens", 0.0, self.micro_batch_tokens != Some(0), positive),
            ("learning_rate", self.learning_rate, is_positive(self.learning_rate), positive),
            ("learning_rate_floor", self.learning_rate_floor, is_share(self.learning_rate_floor), share),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0.0, "a number from 0 up"),
            (
                "betas",
                self.betas[0],
                is_share(self.betas[0]) && self.betas[0] < 1.0,
                "numbers from 0 to below 1",
            ),
            (
                "betas",
                self.betas[1],
                is_share(self.betas[1]) && self.betas[1] < 1.0,
                "numbers from 0 to below 1",
            ),
            ("keep_checkpoints", 0.0, self.keep_checkpoints > 0, positive),
            (
                "mask_rate",
                self.mask_rate.unwrap_or(MASK_RATE),
                self.mask_rate.is_none_or(|rate| is_share(rate) && rate > 0.0),
                "a number above 0, at most 1",
            ),
            ("z_loss", self.z_loss, self.z_loss.is_finite() && self.z_loss >= 0.0, "a number from 0 up"),
            ("epsilon", self.epsilon, is_positive(self.epsilon), positive),
            ("grad_clip", self.grad_clip.unwrap_or(1.0), self.grad_clip.is_none_or(is_positive), positive),
        ];
        match checks.into_iter().find(|(_, _, holds, _)| !holds) {
            None if self.initialize.is_some()
                && (self.preset.is_some() || self.model != Overrides::default()) =>
            {
                Err(Error::TwoShapes)
            }
            None if let Some((key, model)) = self.preset.and_then(|preset| self.foreign_to(preset)) => {
                Err(Error::Foreign { key, model })
            }
            None if self.batch_tokens.is_some() && self.batch_rows != default_batch_rows() => {
                Err(Error::TwoSizes { rows: "batch_rows", tokens: "batch_tokens" })
            }
            None if self.micro_batch_rows.and(self.micro_batch_tokens).is_some() => {
                Err(Error::TwoSizes { rows: "micro_batch_rows", tokens: "micro_batch_tokens" })
            }
            None if self.cooldown.is_some() && self.decay != Decay::Wsd => Err(Error::Cooldown),
            None => Ok(()),
            Some((name, found, _, expected)) => Err(Error::Range { name, found, expected }),
        }
    }

    /// Rows of `context` tokens of a step.
    fn batch_rows(&self, context: u32) -> u32 {
        self.batch_tokens.map_or(self.batch_rows, |tokens| (tokens / context.max(1)).max(1))
    }

    /// Rows of `context` tokens that a thread computes at once, of the `batch` rows of a step.
    fn micro_batch_rows(&self, model: &Shape, context: u32, batch: u32) -> u32 {
        let least = if matches!(model, Shape::Hyena { .. }) { FILTERED_TOKENS } else { MICRO_BATCH_TOKENS };
        let by_tokens = || Some((self.micro_batch_tokens? / context.max(1)).clamp(1, batch));
        let usual = || batch.div_ceil(MICRO_BATCHES).max(least.div_ceil(context.max(1))).min(batch);
        self.micro_batch_rows.or_else(by_tokens).unwrap_or_else(usual)
    }

    /// Completes the configuration for `rows` rows of `context` tokens with `vocabulary` ids.
    pub fn resolve(&self, rows: u64, context: u32, vocabulary: u32) -> Result<Resolved, Error> {
        self.check()?;
        if rows == 0 {
            return Err(Error::NoRows);
        }
        let model = self.shape(vocabulary, context)?;
        if let Some((key, model)) = self.foreign(&model) {
            return Err(Error::Foreign { key, model });
        }
        let flops_per_token = model.work_per_token(context as usize);
        let batch_rows = self.batch_rows(context);
        let pace = Pace { batch_rows: batch_rows.into(), context: context.into(), rows, flops_per_token };
        let micro_batch_rows = self.micro_batch_rows(&model, context, batch_rows);
        Ok(Resolved {
            mask_rate: model.is_masked().then(|| self.mask_rate.unwrap_or(MASK_RATE)),
            model,
            schedule: self.schedule(pace),
            batch_rows,
            micro_batch_rows,
            weight_decay: self.weight_decay,
            decay_embedding: self.decay_embedding,
            decay_norms: self.decay_norms,
            betas: self.betas,
            epsilon: self.epsilon,
            grad_clip: self.grad_clip,
            z_loss: self.z_loss,
            loss_weights: self.loss_weights,
            document_mask: self.document_mask,
            context_warmup: self.context_warmup.map(|warmup| warmup.resolve(pace, context)).transpose()?,
            activation_checkpointing: self.activation_checkpointing,
            precision: self.precision,
            max_skipped_steps: self.max_skipped_steps,
            seed: self.seed,
            log_every: self.log_every.steps(pace),
            evaluate_every: self.evaluate_every.map(|every| every.steps(pace)),
            evaluate_rows: self.evaluate_rows,
            checkpoint_every: self.checkpoint_every.map(|every| every.steps(pace)),
            keep_checkpoints: self.keep_checkpoints,
            keep_best: self.keep_best,
        })
    }

    /// The first key that does not go with a preset, and the preset.
    fn foreign_to(&self, preset: Named) -> Option<(&'static str, String)> {
        let (olmo, masked) = (matches!(preset, Named::Olmo(_)), matches!(preset, Named::Dnabert2(_)));
        Some((self.foreign_key(olmo, masked)?, preset.to_string()))
    }

    /// The first key that does not go with a model, and its family.
    fn foreign(&self, model: &Shape) -> Option<(&'static str, String)> {
        let olmo = matches!(model, Shape::Olmo(_));
        Some((self.foreign_key(olmo, model.is_masked())?, model.family().to_owned()))
    }

    fn foreign_key(&self, olmo: bool, masked: bool) -> Option<&'static str> {
        let keys = [
            ("model", !olmo && self.model != Overrides::default()),
            ("document_mask", !olmo && self.document_mask),
            ("activation_checkpointing", !olmo && self.activation_checkpointing),
            ("precision", !olmo && self.precision != Precision::default()),
            ("mask_rate", !masked && self.mask_rate.is_some()),
        ];
        keys.into_iter().find_map(|(key, foreign)| foreign.then_some(key))
    }

    /// The model: that of the folder to start from, or of preset and overrides.
    fn shape(&self, vocabulary: u32, context: u32) -> Result<Shape, Error> {
        match (&self.initialize, self.preset) {
            (Some(Initialize { hf: folder }), _) => started_from(folder, vocabulary, context),
            (None, Some(Named::Hyena(preset))) => {
                let hyenadna = preset.config().with_vocabulary(vocabulary);
                let (preset, longest) = (Named::Hyena(preset).to_string(), hyenadna.longest);
                if context > longest {
                    return Err(Error::Longest { preset, found: context, longest });
                }
                Ok(Shape::Hyena { hyenadna })
            }
            (None, Some(Named::Dnabert2(preset))) => {
                Ok(Shape::Dnabert2 { dnabert2: preset.config(vocabulary, None)? })
            }
            (None, Some(Named::Olmo(preset))) => self.olmo(Some(preset), vocabulary, context),
            (None, None) => self.olmo(None, vocabulary, context),
        }
    }

    fn olmo(&self, preset: Option<model::Preset>, vocabulary: u32, context: u32) -> Result<Shape, Error> {
        Ok(Shape::Olmo(model::Config::resolve(preset, &self.model, vocabulary, context)?))
    }

    /// The same run, with `place` of every path.
    #[must_use]
    pub fn with_paths(mut self, place: impl Fn(&Path) -> PathBuf) -> Self {
        if let Some(initialize) = &mut self.initialize {
            initialize.hf = place(&initialize.hf);
        }
        self
    }

    fn schedule(&self, pace: Pace) -> Schedule {
        let steps = self.duration.steps(pace);
        let warmup = self.warmup.map_or(steps / WARMUP_SHARE, |warmup| warmup.steps(pace));
        let cooldown = self.cooldown.map_or(steps / COOLDOWN_SHARE, |cooldown| cooldown.steps(pace));
        Schedule {
            cooldown_steps: cooldown.min(steps),
            decay: self.decay,
            peak: self.learning_rate,
            floor: self.learning_rate_floor,
            warmup_steps: warmup.min(steps),
            steps,
        }
    }
}

/// The model of `folder`, if it can take such rows.
fn started_from(folder: &Path, vocabulary: u32, context: u32) -> Result<Shape, Error> {
    let found = Shape::read(folder)?;
    let folder = folder.to_owned();
    let rows = found.vocabulary();
    if vocabulary > rows {
        return Err(Error::Vocabulary { folder, found: vocabulary, rows });
    }
    match found.longest() {
        Some(limit) if context > limit => Err(Error::Context { folder, found: context, limit }),
        _ => Ok(found.of_ids(vocabulary)),
    }
}

impl ContextWarmup {
    fn resolve(self, pace: Pace, context: u32) -> Result<schedule::ContextWarmup, Error> {
        let from = self.from;
        if from == 0 || !context.is_multiple_of(from) || !(context / from).is_power_of_two() {
            return Err(Error::ContextWarmup { from, context });
        }
        Ok(schedule::ContextWarmup { from: from as usize, steps: self.over.steps(pace) })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            preset: None,
            model: Overrides::default(),
            initialize: None,
            duration: one_epoch(),
            batch_rows: default_batch_rows(),
            batch_tokens: None,
            micro_batch_rows: None,
            micro_batch_tokens: None,
            learning_rate: default_learning_rate(),
            warmup: None,
            decay: Decay::default(),
            cooldown: None,
            learning_rate_floor: default_floor(),
            weight_decay: default_weight_decay(),
            decay_embedding: false,
            decay_norms: true,
            betas: default_betas(),
            epsilon: default_epsilon(),
            grad_clip: default_grad_clip(),
            z_loss: 0.0,
            mask_rate: None,
            loss_weights: true,
            document_mask: false,
            context_warmup: None,
            activation_checkpointing: false,
            precision: Precision::default(),
            max_skipped_steps: default_skipped_steps(),
            seed: 0,
            log_every: default_log_every(),
            evaluate_every: None,
            evaluate_rows: None,
            checkpoint_every: None,
            keep_checkpoints: default_kept(),
            keep_best: false,
        }
    }
}

fn is_positive(number: f64) -> bool {
    number.is_finite() && number > 0.0
}

fn is_share(number: f64) -> bool {
    (0.0..=1.0).contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Preset, dnabert2, hyena};

    #[test]
    fn what_is_not_written_has_a_default() {
        let config: Config =
            serde_json::from_str(r#"{"preset": "olmo-1m", "duration": "200 steps"}"#).unwrap();
        let expected = Config {
            preset: Some(Preset::Olmo1m.into()),
            duration: Duration::Steps(200),
            ..Config::default()
        };
        assert_eq!(config, expected);
        let resolved = config.resolve(1000, 256, 1024).unwrap();
        assert_eq!(
            (resolved.schedule.steps, resolved.schedule.warmup_steps, resolved.micro_batch_rows),
            (200, 10, 2)
        );
        let written = serde_json::to_string(&resolved).unwrap();
        assert_eq!(serde_json::from_str::<Resolved>(&written).unwrap(), resolved);
    }

    #[test]
    fn micro_batches_are_an_eighth_or_have_enough_tokens() {
        let (olmo, hyena) = (Named::from(Preset::Olmo300k), Named::from(hyena::Preset::Small32k));
        for (preset, batch_rows, context, micro_batch_tokens, expected) in [
            (olmo, 16, 256, None, 2),
            (olmo, 8, 256, None, 2),
            (olmo, 8, 128, None, 4),
            (olmo, 1, 128, None, 1),
            (olmo, 3, 64, None, 3),
            (olmo, 64, 2048, None, 8),
            (olmo, 17, 512, None, 3),
            (olmo, 64, 512, Some(8191), 15),
            (olmo, 64, 512, Some(100), 1),
            (olmo, 64, 512, Some(65_536), 64),
            (hyena, 4, 512, None, 4),
            (hyena, 8, 1026, None, 2),
            (hyena, 16, 32_770, None, 2),
            (hyena, 4, 32_770, None, 1),
            (hyena, 4, 1024, Some(1024), 1),
        ] {
            let preset = Some(preset);
            let config = Config { preset, batch_rows, micro_batch_tokens, ..Config::default() };
            let found = config.resolve(100, context, 12).unwrap().micro_batch_rows;
            assert_eq!(found, expected, "{batch_rows} rows of {context} tokens, {micro_batch_tokens:?}");
        }
        for (batch_tokens, context, expected) in [
            (Some(2048), 512, 4),
            (Some(2048), 2048, 1),
            (Some(2048), 3000, 1),
            (Some(2047), 512, 3),
            (None, 512, 16),
        ] {
            let config = Config { preset: Some(olmo), batch_tokens, ..Config::default() };
            let found = config.resolve(100, context, 12).unwrap().batch_rows;
            assert_eq!(found, expected, "{batch_tokens:?} tokens in rows of {context}");
        }
    }

    #[test]
    fn peers_are_resolved_by_their_names() {
        let resolve = |preset: Named, context| {
            Config { preset: Some(preset), ..Config::default() }.resolve(100, context, 12)
        };
        let hyena = resolve(hyena::Preset::Tiny1k.into(), 1026).unwrap();
        assert_eq!(hyena.model, Shape::Hyena { hyenadna: hyena::Preset::Tiny1k.config() });
        assert_eq!(hyena.mask_rate, None);
        let masked = resolve(dnabert2::Preset::Small300k.into(), 4096).unwrap();
        assert_eq!((masked.mask_rate, masked.model.longest()), (Some(0.15), None));
        for resolved in [hyena, masked] {
            let written = serde_json::to_string(&resolved).unwrap();
            assert_eq!(serde_json::from_str::<Resolved>(&written).unwrap(), resolved, "{written}");
        }
        let overrides = Overrides { layers: Some(1), width: Some(8), heads: Some(1), ..Overrides::default() };
        let olmo = Config { model: overrides, mask_rate: Some(0.3), ..Config::default() };
        let error = olmo.resolve(1, 8, 8).unwrap_err().to_string();
        assert_eq!(error, "`mask_rate` does not go with OLMo: leave it out");
        let error = resolve(hyena::Preset::Tiny1k.into(), 1027).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "the shards' rows of 1027 tokens are longer than what `hyenadna-tiny-1k` takes, 1026 (its `l_max`): pack"
            ),
            "{error}"
        );
    }

    #[test]
    fn the_schema_explains_every_key() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.len(), 34);
        for (key, property) in properties {
            assert!(
                property["description"].as_str().is_some_and(|text| text.len() > 20),
                "{key}: {property}"
            );
        }
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn wrong_keys_and_numbers_are_refused() {
        let cases = [
            (r#"{"preset": "olmo-2m"}"#, "unknown variant `olmo-2m`"),
            (r#"{"batch_row": 3}"#, "unknown field `batch_row`"),
            (r#"{"model": {"depth": 3}}"#, "unknown field `depth`"),
            (r#"{"duration": "2 days"}"#, "expected a duration like"),
            (r#"{"batch_rows": 0}"#, "`batch_rows` is 0: expected a number above 0"),
            (r#"{"batch_tokens": 0}"#, "`batch_tokens` is 0: expected a number above 0"),
            (
                r#"{"batch_rows": 4, "batch_tokens": 512}"#,
                "`batch_rows` and `batch_tokens` are two sizes of the same: leave one out",
            ),
            (r#"{"micro_batch_tokens": 0}"#, "`micro_batch_tokens` is 0: expected a number above 0"),
            (
                r#"{"micro_batch_rows": 4, "micro_batch_tokens": 512}"#,
                "are two sizes of the same: leave one out",
            ),
            (r#"{"learning_rate": -1}"#, "`learning_rate` is -1: expected a number above 0"),
            (r#"{"betas": [0.9, 1]}"#, "`betas` is 1: expected numbers from 0 to below 1"),
            (r#"{"grad_clip": 0}"#, "`grad_clip` is 0: expected a number above 0"),
            (r#"{"z_loss": -1e-5}"#, "`z_loss` is -0.00001: expected a number from 0 up"),
            (r#"{"keep_checkpoints": 0}"#, "`keep_checkpoints` is 0: expected a number above 0"),
            (r#"{"cooldown": "5 steps"}"#, "`cooldown` goes with `decay: wsd` only"),
            (r#"{"preset": "dnabert2-1m", "mask_rate": 0}"#, "`mask_rate` is 0: expected a number above 0"),
            (r#"{"preset": "olmo-1m", "mask_rate": 0.3}"#, "`mask_rate` does not go with olmo-1m"),
            (
                r#"{"preset": "hyenadna-tiny-1k", "document_mask": true}"#,
                "`document_mask` does not go with hyenadna-tiny-1k: leave it out",
            ),
            (
                r#"{"preset": "hyenadna-tiny-1k", "precision": "bf16"}"#,
                "`precision` does not go with hyenadna-tiny-1k",
            ),
            (
                r#"{"preset": "dnabert2-117m", "activation_checkpointing": true}"#,
                "`activation_checkpointing` does not go with dnabert2-117m",
            ),
            (r#"{"preset": "dnabert2-117m", "model": {"layers": 2}}"#, "`model` does not go with"),
        ];
        for (text, expected) in cases {
            let error = match serde_json::from_str::<Config>(text) {
                Err(error) => error.to_string(),
                Ok(config) => {
                    let error = config.check().unwrap_err();
                    let (key, said) = (error.key().unwrap(), error.to_string());
                    assert!(said.contains(&format!("`{key}`")), "{key}: {said}");
                    said
                }
            };
            assert!(error.contains(expected), "{text}: {error}");
        }
        for from in [0, 24, 48, 512] {
            let over = Duration::Steps(3);
            let context_warmup = Some(ContextWarmup { from, over });
            let config = Config { preset: Some(Preset::Olmo1m.into()), context_warmup, ..Config::default() };
            let error = config.resolve(10, 256, 100).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "`context_warmup.from` is {from}: expected the 256 tokens of the rows, divided by a power of two"
                )
            );
        }
        let none: Config = serde_json::from_str(r#"{"grad_clip": null}"#).unwrap();
        assert_eq!(none.grad_clip, None);
    }
}
