//! How models are scored on tasks: one configuration for all of them. Lengths are in bases, of rows in tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod recipe;

pub use recipe::Recipe;

use crate::train::Decay;

/// How a model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Logistic regression on frozen embeddings; how much its weights are held down is chosen on the validation part.
    LinearProbe,
    /// A small convolutional network on frozen hidden values, one for each base.
    CnnHead,
    /// A linear layer on the embedding, and every weight of the model.
    FineTune,
    /// A linear layer on the embedding, and matrices of low rank beside the projections of attention (of HyenaDNA: of
    /// its operator).
    Lora,
    /// As `fine-tune`, from fresh weights of the same shape: what pretraining is worth.
    FromScratch,
    /// How likely the model finds a sequence, per base, against a threshold. Causal models only, tasks of two classes.
    ZeroShot,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::LinearProbe, Self::CnnHead, Self::FineTune, Self::Lora, Self::FromScratch, Self::ZeroShot];

    /// Whether weights are learned step by step, so that seeds make a difference.
    pub const fn is_trained(self) -> bool {
        !matches!(self, Self::LinearProbe | Self::ZeroShot)
    }
}

/// As it is written in files.
impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// What stands on a leaderboard beside models, scored by the same rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// The convolutional network of Genomic Benchmarks, `from-scratch`.
    Cnn,
    /// How often each word of four bases stands in a sequence, under the `linear-probe`.
    Kmer,
}

impl Baseline {
    /// The one protocol that it can be asked by.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Cnn => Protocol::FromScratch,
            Self::Kmer => Protocol::LinearProbe,
        }
    }
}

/// As it is written in files.
impl std::fmt::Display for Baseline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// How the hidden values of a sequence become one embedding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean over tokens that stand for bases: neither padding nor special tokens.
    #[default]
    Mean,
    /// The last token that stands for bases.
    Last,
    /// The special token in front, which the model must have.
    Cls,
    /// What a DNABERT-2 makes of that token with the layer that its classes are published with. A model that was only
    /// pretrained has none: where all weights are learned, it gets a fresh one.
    Pooler,
}

/// As it is written in files.
impl std::fmt::Display for Pooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// Which strands are asked for predictions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strands {
    /// The sequence as it stands.
    #[default]
    Forward,
    /// Both: a probability is the mean of that of the sequence and that of its reverse complement.
    Both,
}

/// What becomes of a sequence with more tokens than the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Long {
    /// It is cut at its end, and counted.
    #[default]
    Cut,
    /// The run ends with an error that names it.
    Refuse,
}

/// What becomes of codes other than A, C, G and T.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ambiguous {
    /// The tokenizer gets them as they are; they are counted.
    #[default]
    Keep,
    /// Each becomes A, C, G or T, by its place alone; they are counted.
    Random,
}

/// What is given to a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Inputs {
    /// How hidden values become an embedding. Default: `mean`.
    pub pooling: Pooling,
    /// Which strands are asked. Default: `forward`.
    pub strands: Strands,
    /// What becomes of sequences that are too long. Default: `cut`.
    pub long: Long,
    /// What becomes of codes other than A, C, G and T. Default: `keep`.
    pub ambiguous: Ambiguous,
    /// Tokens of a sequence at most, special ones included. Default: what the model takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u32>,
}

/// What happened to sequences on their way into a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Sequences.
    pub sequences: u64,
    /// Their bases.
    pub bases: u64,
    /// Tokens that stand for bases and went into the model.
    pub tokens: u64,
    /// Sequences that were cut.
    pub cut: u64,
    /// Bases that were cut off.
    pub bases_cut: u64,
    /// Sequences with codes other than A, C, G and T.
    pub ambiguous: u64,
    /// Such codes.
    pub ambiguous_bases: u64,
    /// Bases that the tokenizer does not know, which stand for nothing in the model.
    pub unknown_bases: u64,
}

impl std::ops::AddAssign for Given {
    fn add_assign(&mut self, other: Self) {
        let Self { sequences, bases, tokens, cut, bases_cut, ambiguous, ambiguous_bases, unknown_bases } =
            other;
        self.sequences += sequences;
        self.bases += bases;
        self.tokens += tokens;
        self.cut += cut;
        self.bases_cut += bases_cut;
        self.ambiguous += ambiguous;
        self.ambiguous_bases += ambiguous_bases;
        self.unknown_bases += unknown_bases;
    }
}

/// What is learned, and how: the same for every model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// Times that every training example is seen. The epoch with the lowest validation loss is kept. Default: 3.
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Examples of a step. Default: 32.
    #[schemars(range(min = 1))]
    pub batch: u32,
    /// Learning rates that the first seed tries; the one with the lowest validation loss is taken by all. Default: 3e-5, 1e-4,
    /// 3e-4, 1e-3.
    #[schemars(length(min = 1))]
    pub learning_rates: Vec<f64>,
    /// Steps until the highest learning rate, at most a tenth of all. Default: 50.
    pub warmup_steps: u64,
    /// The same as a part of all steps, in place of `warmup_steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_share: Option<f64>,
    /// How the learning rate falls. Default: `linear`.
    #[serde(skip_serializing_if = "is_linear")]
    pub decay: Decay,
    /// The last learning rate, as a part of the highest. Default: 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub floor: f64,
    /// How fast matrices shrink, times the learning rate. Default: 0.01.
    pub weight_decay: f64,
    /// The norm that gradients are cut to. Default: 1.
    pub clip: f64,
    /// Rank of `lora`. Default: 8.
    #[schemars(range(min = 1))]
    pub lora_rank: u32,
    /// What the product of the low-rank matrices is multiplied with, times the rank. Default: 16.
    pub lora_alpha: f64,
    /// Strengths of `linear-probe` that are tried, from the weakest hold on the weights to the strongest: `C` of scikit-learn. Default: 100 to 0.0001.
    #[schemars(length(min = 1))]
    pub strengths: Vec<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_linear(decay: &Decay) -> bool {
    *decay == Decay::Linear
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Default for Training {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch: 32,
            learning_rates: vec![3e-5, 1e-4, 3e-4, 1e-3],
            warmup_steps: 50,
            warmup_share: None,
            decay: Decay::Linear,
            floor: 0.0,
            weight_decay: 0.01,
            clip: 1.0,
            lora_rank: 8,
            lora_alpha: 16.0,
            strengths: vec![1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4],
        }
    }
}

/// What validates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// The task's own validation part; of a task without one a tenth of its training part, drawn by the seed.
    #[default]
    Own,
    /// A tenth of the training part, drawn by the seed, whatever the task has.
    Drawn,
    /// As `drawn`, family by family: sequences that share half of the 21-mers of the smaller one, on either strand, are learned
    /// from or validate together.
    Homology,
}

/// How every model is scored on every task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How models are asked.
    pub protocol: Protocol,
    /// The published recipe of a model, in place of `training` and `inputs.pooling`: what its authors did, and no configuration that others share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    /// What they are given.
    #[serde(default)]
    pub inputs: Inputs,
    /// Runs, with seeds from 0. Default: 5.
    #[serde(default = "five")]
    #[schemars(range(min = 1))]
    pub seeds: u64,
    /// What validates. Default: `own`.
    #[serde(default)]
    pub validation: Validation,
    /// What is learned, and how.
    #[serde(default)]
    pub training: Training,
}

const fn five() -> u64 {
    5
}

impl Config {
    /// The defaults of a protocol.
    pub fn new(protocol: Protocol) -> Self {
        let (inputs, validation, training) = (Inputs::default(), Validation::Own, Training::default());
        Self { protocol, recipe: None, inputs, seeds: five(), validation, training }
    }

    /// Whether nothing is said that a recipe says.
    fn is_plain(&self) -> bool {
        self.training == Training::default() && self.inputs.pooling == Pooling::default()
    }

    /// The protocol, and the recipe where there is one: what results of the same name were made by.
    pub fn label(&self) -> String {
        let recipe = self.recipe.map_or(String::new(), |recipe| format!(", recipe {recipe}"));
        format!("{}{recipe}", self.protocol)
    }

    /// The same for a model of `family` on a task: with what the recipe says, where there is one.
    ///
    /// # Errors
    /// The key, and why: a recipe of another family, or one that says nothing of the task.
    pub fn for_task(&self, family: &str, task: &str) -> Result<Self, (&'static str, String)> {
        let Some(recipe) = self.recipe else { return Ok(self.clone()) };
        if family != recipe.family() {
            let problem = format!("`{recipe}` is for {}, found a model of {family}", recipe.family());
            return Err(("recipe", problem));
        }
        let says = recipe.says(task);
        let says = says.ok_or_else(|| ("recipe", format!("`{recipe}` says nothing of a task `{task}`")))?;
        let max_tokens = self.inputs.max_tokens.into_iter().chain(says.max_tokens).min();
        let inputs = Inputs { pooling: says.pooling, max_tokens, ..self.inputs };
        Ok(Self { inputs, training: says.training, ..self.clone() })
    }

    /// What is wrong with values: the key, and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let training = &self.training;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let numbers = |values: &[f64]| !values.is_empty() && values.iter().all(|value| positive(*value));
        let checks = [
            ("seeds", self.seeds > 0, "is 0, expected at least 1".to_owned()),
            ("inputs.max_tokens", self.inputs.max_tokens != Some(0), "is 0, expected at least 1".to_owned()),
            ("training.epochs", training.epochs > 0, "is 0, expected at least 1".to_owned()),
            ("training.batch", training.batch > 0, "is 0, expected at least 1".to_owned()),
            ("training.lora_rank", training.lora_rank > 0, "is 0, expected at least 1".to_owned()),
            (
                "training.learning_rates",
                numbers(&training.learning_rates),
                format!("is {:?}, expected numbers above 0", training.learning_rates),
            ),
            (
                "training.strengths",
                numbers(&training.strengths),
                format!("is {:?}, expected numbers above 0", training.strengths),
            ),
            (
                "training.clip",
                positive(training.clip),
                format!("is {}, expected a number above 0", training.clip),
            ),
            (
                "training.warmup_share",
                training.warmup_share.is_none_or(|share| (0.0..=1.0).contains(&share)),
                format!("is {:?}, expected 0 to 1", training.warmup_share.unwrap_or(f64::NAN)),
            ),
            (
                "training.floor",
                (0.0..=1.0).contains(&training.floor),
                format!("is {}, expected 0 to 1", training.floor),
            ),
            (
                "training.decay",
                training.decay != Decay::Wsd,
                "is wsd, expected linear, cosine or constant".to_owned(),
            ),
            (
                "recipe",
                self.recipe.is_none() || matches!(self.protocol, Protocol::FineTune | Protocol::FromScratch),
                format!("is for `fine-tune` and `from-scratch`, found `{}`", self.protocol),
            ),
            (
                "recipe",
                self.recipe.is_none() || self.is_plain(),
                "stands beside `training` or `inputs.pooling`, which it says all of".to_owned(),
            ),
            (
                "training.weight_decay",
                training.weight_decay.is_finite() && training.weight_decay >= 0.0,
                format!("is {}, expected 0 or more", training.weight_decay),
            ),
        ];
        checks.into_iter().filter(|(_, holds, _)| !holds).map(|(key, _, why)| (key, why)).collect()
    }
}
