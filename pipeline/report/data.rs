//! What a report shows. Everything but the first four fields may be missing or empty.
//!
//! Lengths are in bases, sizes in bytes, times in seconds, losses in nats per token, code lengths in bits per base.

use serde::{Deserialize, Serialize};

use crate::metric::interval::Estimate;
use crate::sequence::statistics::Statistics;

use super::Histogram;

/// All that a report shows, in the order of the page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Name of the workflow.
    pub workflow: String,
    /// One or two sentences on the workflow, by its author.
    pub description: Option<String>,
    /// Version of this program, such as `0.1.0`.
    pub version: String,
    /// When the report was made, as it is to be printed.
    pub date: String,
    /// Where it ran.
    pub machine: Option<Machine>,
    /// The stages, in the order of the workflow file.
    pub stages: Vec<Stage>,
    /// The stages that failed in this run: the page does without what they would have made.
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// What was read.
    pub sources: Vec<Source>,
    /// What the sequences of each source and of each split are made of.
    #[serde(default)]
    pub sequences: Vec<Sequence>,
    /// What became of the bases of each source and of each split, stage by stage.
    #[serde(default)]
    pub accounts: Vec<Account>,
    /// Distributions of lengths: contigs or reads of each source, chunks.
    pub lengths: Vec<Histogram>,
    /// The vocabulary and its use.
    pub tokens: Option<Tokens>,
    /// Several vocabularies side by side, in place of `tokens`.
    pub vocabularies: Option<Vocabularies>,
    /// Train, validation and test.
    pub splits: Vec<Split>,
    /// What the splits have in common.
    pub leaks: Vec<Leaks>,
    /// Benchmarks whose test sequences were looked for in the training data.
    pub contamination: Vec<Contamination>,
    /// The files of the shard set.
    pub shards: Vec<Shard>,
    /// The proportions of the sources in the training rows, of each set that mixes them.
    pub mixtures: Vec<Mixture>,
    /// How the model was trained.
    pub training: Option<Training>,
    /// Bits per base, one for each set of held-out bases.
    pub evaluations: Vec<Evaluation>,
    /// The models of a matrix side by side.
    #[serde(default)]
    pub study: Option<super::Study>,
    /// What was found of tasks before models were scored on them.
    #[serde(default)]
    pub audits: Vec<super::Audited>,
    /// Scores of models on tasks.
    pub leaderboard: Option<super::Leaderboard>,
    /// What to type to get the same again.
    pub commands: Vec<Command>,
}

/// The machine that the workflow ran on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that the program could use.
    pub cores: u64,
    /// Main memory in bytes.
    pub memory: u64,
    /// Model of the GPU, if one was used.
    pub accelerator: Option<String>,
}

/// A stage that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its name in the workflow.
    pub stage: String,
    /// Why, with its causes.
    pub error: String,
}

/// One stage of the workflow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name in the workflow.
    pub name: String,
    /// What it uses: `ingest`, `clean`.
    pub kind: String,
    /// Names of the stages that it reads from. Names that no stage has are not drawn.
    pub inputs: Vec<String>,
    /// Whether it ran this time.
    pub status: Status,
    /// Why it ran or was reused.
    pub reason: Option<String>,
    /// Wall time of the run that made the artifact, in seconds.
    pub wall_seconds: Option<f64>,
    /// What went in and what came out.
    pub counts: Vec<Count>,
    /// What was left out.
    pub dropped: Vec<Dropped>,
    /// The resolved config, as text.
    pub config: Option<String>,
    /// The action key, in hexadecimal; the page shows its first 12 digits.
    pub action_key: Option<String>,
}

/// What became of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It ran.
    #[default]
    Ran,
    /// Its artifact of an earlier run was whole and still right.
    Reused,
}

/// A quantity before and after a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// What is counted: `records`, `bases`, `tokens`, `rows`.
    pub unit: String,
    /// How many went in.
    pub before: Option<u64>,
    /// How many came out.
    pub after: Option<u64>,
}

/// What a stage left out, for one reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// Why: `shorter than 1,000 bases`.
    pub reason: String,
    /// What is counted.
    pub unit: String,
    /// How many.
    pub count: u64,
}

/// An input of the workflow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The stage that read it, or the file's name.
    pub name: String,
    /// `FASTA`, `BAM`.
    pub format: String,
    /// What a record is: `contigs`, `reads`.
    pub record: String,
    /// Number of records.
    pub records: u64,
    /// Bases of all records.
    pub bases: u64,
    /// The longest record, in bases.
    pub longest: Option<u64>,
    /// Half of the bases lie in records at least this long.
    pub n50: Option<u64>,
    /// Share of G and C among A, C, G and T, from 0 to 1.
    pub gc: Option<f64>,
    /// Bases that are none of A, C, G and T.
    pub ambiguous: Option<u64>,
    /// Size of the input, in bytes.
    pub bytes: Option<u64>,
}

/// The sequences of a source as they were read, or those of a split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sequence {
    /// Which of the two it is.
    pub part: Part,
    /// The name of the source or of the split.
    pub name: String,
    /// The stage that read the source, or made the split.
    pub stage: String,
    /// What they are made of.
    pub statistics: Statistics,
    /// What stages found twice in it.
    pub duplicates: Vec<Duplicates>,
    /// What other splits have of it.
    pub shared: Vec<Shared>,
}

/// A part of the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What a source holds.
    #[default]
    Source,
    /// What a split holds.
    Split,
}

/// What a stage found twice in a source, or in it and in one before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicates {
    /// The stage.
    pub stage: String,
    /// What was compared: `windows`, `intervals`.
    pub unit: String,
    /// How many were compared.
    pub compared: u64,
    /// Those of them that are equal to an earlier one.
    pub exact: u64,
    /// Those of them that are near an earlier one.
    pub near: u64,
}

/// Windows of a split that another split shares, as a stage found them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The stage.
    pub stage: String,
    /// The other split.
    pub within: String,
    /// Windows that were judged.
    pub windows: u64,
    /// Those of them that the other one shares.
    pub shared: u64,
}

/// What a stage did to the bases of a source or of a split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Which of the two it is.
    pub part: Part,
    /// The name of the source or of the split.
    pub name: String,
    /// The stage.
    pub stage: String,
    /// Bases in.
    pub before: u64,
    /// Bases out.
    pub after: u64,
    /// Bases dropped, by reason.
    pub dropped: Vec<Dropped>,
}

/// A vocabulary, and how the tokens of the corpus use it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// How the text is cut: `byte-pair encoding`, `6-mers`.
    pub kind: String,
    /// Where the vocabulary comes from: `trained on the train split (8,631,543 bases)`.
    pub origin: Option<String>,
    /// Ids, special tokens included.
    pub vocabulary: u64,
    /// Special tokens among them.
    pub special: u64,
    /// The tokens that were counted: `train split`.
    pub corpus: Option<String>,
    /// Tokens in the corpus.
    pub tokens: u64,
    /// Bases that they stand for.
    pub bases: u64,
    /// How often each token occurs in the corpus, in any order, zeros included; special tokens left out.
    pub frequencies: Vec<u64>,
    /// Tokens by their length in bases.
    pub lengths: Vec<TokenLength>,
    /// The longest tokens, to be shown as they are.
    pub longest: Vec<Token>,
    /// The most frequent tokens, to be shown as they are.
    pub frequent: Vec<Token>,
}

/// Vocabularies on the same sequence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Vocabularies {
    /// The split whose tokens are counted.
    pub split: String,
    /// Its bases.
    pub bases: u64,
    /// The vocabularies, in the order to show them.
    pub rows: Vec<Vocabulary>,
}

/// What a vocabulary does on sequence that it is compared on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// What tells it from the others: `vocabulary=1024`.
    pub name: String,
    /// How the text is cut: `bpe`, `kmer`.
    pub kind: String,
    /// Ids, special tokens included.
    pub size: u64,
    /// Bases per token.
    pub bases_per_token: Option<f64>,
    /// Bits per base under the unigram model of the tokens themselves.
    pub unigram_bits_per_base: Option<f64>,
    /// Bits per base under the unigram model of the train split.
    pub train_unigram_bits_per_base: Option<f64>,
    /// Tokens that do not occur.
    pub unused: Option<u64>,
    /// Size of all shards, in bytes.
    pub shard_bytes: Option<u64>,
    /// Bases in all shards.
    pub shard_bases: Option<u64>,
    /// Bases encoded in a second by one thread.
    pub bases_per_second: Option<f64>,
}

/// The tokens of one length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLength {
    /// Bases per token.
    pub bases: u64,
    /// Tokens of the vocabulary that have this length.
    pub vocabulary: u64,
    /// Tokens of the corpus that have this length.
    pub corpus: u64,
}

/// A token worth showing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: u64,
    /// Its bases.
    pub text: String,
    /// How often it occurs in the corpus.
    pub count: u64,
}

/// One part of the data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// `train`, `validation`, `test`.
    pub name: String,
    /// Names of its contigs, or as many of them as are worth showing.
    pub contigs: Vec<String>,
    /// Number of its contigs or reads.
    pub records: u64,
    /// Its bases.
    pub bases: u64,
    /// Rows of tokens made from it.
    pub rows: Option<u64>,
    /// Tokens in these rows.
    pub tokens: Option<u64>,
    /// Bases that these tokens stand for.
    pub token_bases: Option<u64>,
}

/// What the splits have in common, on either strand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Leaks {
    /// The stage whose splits were compared.
    pub from: String,
    /// Length of the k-mers, in bases.
    pub k: u64,
    /// One k-mer in how many was compared; 1: all.
    pub scale: u64,
    /// The share of a window's k-mers that makes it shared, from 0 to 1.
    pub window_share: f64,
    /// Every ordered pair of splits, by name.
    pub pairs: Vec<Leak>,
}

/// What a split has in common with another one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// The split whose k-mers and windows are looked for.
    pub of: String,
    /// The split in which they are looked for.
    pub within: String,
    /// Different k-mers of `of` that were compared.
    pub kmers: u64,
    /// Those of them that occur in `within`.
    pub shared_kmers: u64,
    /// Standard error of the share of k-mers, from 0 to 1; 0 where all were compared.
    pub standard_error: f64,
    /// Windows of `of` that hold a k-mer that was compared.
    pub windows: u64,
    /// Those of them that are shared.
    pub shared_windows: u64,
}

/// What was found of a benchmark's test set in the training data, on either strand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contamination {
    /// The benchmark.
    pub benchmark: String,
    /// The stage that looked for it, where there are several.
    pub stage: Option<String>,
    /// Test sequences.
    pub sequences: u64,
    /// Their bases.
    pub bases: u64,
    /// Test sequences without a k-mer, which cannot be found.
    pub short: u64,
    /// Test sequences that were found.
    pub found: u64,
    /// Test sequences all of whose k-mers were found.
    pub whole: u64,
    /// Places in the data where they were.
    pub places: u64,
    /// Bases of these places; those that another benchmark shares count for both.
    pub place_bases: u64,
}

/// One shard file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// The file's name.
    pub file: String,
    /// The split that it belongs to.
    pub split: String,
    /// Rows.
    pub rows: u64,
    /// Tokens, padding left out.
    pub tokens: u64,
    /// Bases that they stand for.
    pub bases: Option<u64>,
    /// Size of the file, in bytes.
    pub bytes: u64,
}

/// The proportions in which the sources of a shard set stand in its training rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mixture {
    /// The set, where there are several.
    pub set: Option<String>,
    /// How often a window is written at most.
    pub repeat: u64,
    /// What flattened the shares.
    pub temperature: Option<f64>,
    /// The sources.
    pub sources: Vec<MixedSource>,
    /// Sentences on the sources that are less than was wanted.
    pub shortfalls: Vec<String>,
}

/// What became of a source; in tokens of its windows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MixedSource {
    /// Its name.
    pub name: String,
    /// What there is.
    pub available: u64,
    /// What is not written.
    pub left_out: u64,
    /// What is written again.
    pub repeated: u64,
    /// What is written.
    pub written: u64,
    /// Bases that these stand for.
    pub bases: u64,
    /// Share of what there is of all sources, 0 to 1.
    pub share_available: f64,
    /// Share that was wanted.
    pub share_wanted: f64,
    /// Share of what is written.
    pub share_written: f64,
}

/// A training run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Name of the model: `olmo-tiny`.
    pub model: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Where it was trained: `cpu`, `cuda:0`.
    pub device: String,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Seconds of training.
    pub wall_seconds: Option<f64>,
    /// Other settings and results, as name and value: `layers` `4`.
    pub facts: Vec<Fact>,
    /// Loss of the training batches.
    pub train_loss: Vec<Point>,
    /// Loss of the validation split.
    pub validation_loss: Vec<Point>,
    /// Learning rate.
    pub learning_rate: Vec<Point>,
    /// Loss of a model that holds all tokens for equally likely: ln of the vocabulary.
    pub uniform_loss: Option<f64>,
}

/// A name and a value, shown as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What.
    pub name: String,
    /// The value.
    pub value: String,
}

/// A value after some optimizer steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Optimizer steps done.
    pub step: u64,
    /// The value.
    pub value: f64,
}

/// Bits per base on one set of held-out bases, all models scored on the same ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The held-out set: `test`.
    pub split: String,
    /// What it is, to be read after "on": `chrXVI, 948,066 bases in 1,920 rows`.
    pub scored_on: String,
    /// Bases scored.
    pub bases: u64,
    /// The trained model.
    pub model: Option<ModelScore>,
    /// The baselines.
    pub markov: Option<Markov>,
}

/// Bits per base of a language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelScore {
    /// Name of the model and where its weights stem from: `olmo-tiny, step 600`.
    pub name: String,
    /// What it was trained on, to be read after "trained on": `the train split (8,631,543 bases)`.
    pub trained_on: String,
    /// Bits per base on all scored bases.
    pub bits_per_base: f64,
    /// Its interval.
    pub interval: Option<Estimate>,
    /// Bits per base of the model less those of the best baseline, paired row by row: below 0 the model is better.
    pub difference: Option<Estimate>,
}

/// Bits per base of Markov models, fitted on training bases only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Markov {
    /// What they were fitted on, to be read after "fitted on": `the train split, both strands`.
    pub fitted_on: String,
    /// Bases counted.
    pub fitted_bases: u64,
    /// The models, by ascending order.
    pub orders: Vec<MarkovOrder>,
}

/// The Markov models of one order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MarkovOrder {
    /// Bases of context.
    pub order: u64,
    /// Bits per base of the plain model.
    pub plain: f64,
    /// Bits per base of the model blended with the orders below.
    pub blended: Option<f64>,
    /// Pseudo-count of the plain model.
    pub pseudo_count: Option<f64>,
}

/// A command line and what it does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What it does.
    pub purpose: String,
    /// What to type.
    pub line: String,
}
