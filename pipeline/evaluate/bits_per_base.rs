//! Bits per base of a checkpoint. Memory: the model, one batch and two numbers per row.

use std::path::Path;

use super::config::{Config, Score};
use crate::loader::{Prediction, TokenRows, Vocabulary};
use crate::metric::interval::{Bootstrap, Row};
use crate::model::device;
use crate::model::likelihood::{self, Likelihood, Scorer};
use crate::model::network::Network;
use crate::model::workers::Workers;
use crate::observer::{Event, Unit};
use crate::train::{Hooks, Precision, checkpoint};

/// Why a checkpoint could not be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A GPU that was asked for and is not there.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The rows, the tensors, or a stop.
    #[error(transparent)]
    Score(#[from] likelihood::Error),
    /// Rows that are longer than what the model can see.
    #[error("rows of {found} tokens are longer than the model's context of {limit}")]
    Context {
        /// Tokens per row.
        found: usize,
        /// Tokens that the model sees at most.
        limit: u32,
    },
    /// A batch of no rows.
    #[error("`batch_rows` is 0: expected at least 1")]
    BatchRows,
    /// A model that knows no bf16.
    #[error("`precision: bf16`: only an OLMo is computed in bf16, this model is in f32")]
    Bf16,
    /// A model that does not guess the next token.
    #[error(
        "a masked model guesses hidden tokens from both sides: it has no bits per base; its validation loss is in the \
         training stage's history"
    )]
    Masked,
    /// Nothing to divide by.
    #[error("there is no base to predict in {rows} rows")]
    NoBases {
        /// Rows scored.
        rows: usize,
    },
}

/// Scores the newest checkpoint at or under `folder` on `rows`.
pub fn bits_per_base(
    folder: &Path,
    rows: &dyn TokenRows,
    vocabulary: &Vocabulary,
    config: &Config,
    hooks: Hooks<'_>,
) -> Result<Score, Error> {
    let (state, model) = checkpoint::network(folder, device::open()?)?;
    let model = match (config.precision, model) {
        (Precision::F32, model) => model,
        (Precision::Bf16, Network::Olmo(model)) => Network::Olmo(model.in_bf16()),
        (Precision::Bf16, _) => return Err(Error::Bf16),
    };
    let workers = Workers::for_device(model.device(), hooks.threads).map_err(likelihood::Error::from)?;
    if state.config.model.is_masked() {
        return Err(Error::Masked);
    }
    checkpoint::check_vocabulary(&state, vocabulary, folder)?;
    check_sizes(rows.context(), state.config.model.longest().unwrap_or(u32::MAX), config.batch_rows)?;
    let total = config.max_rows.unwrap_or(u64::MAX).min(rows.rows());
    let mut scored = Vec::new();
    let scorer = Scorer {
        model: &model,
        vocabulary,
        prediction: &Prediction::Next,
        batch_rows: config.batch_rows as usize,
        workers: &workers,
        stop: hooks.stop,
    };
    scorer.score(rows, total, |row| {
        scored.push(row);
        progress(hooks, scored.len() as u64, total);
    })?;
    summarize(&scored, config).ok_or(Error::NoBases { rows: scored.len() })
}

/// Whether the newest checkpoint at or under `folder` was trained with tokens that see only their own document. Rows that
/// say where documents end are then scored so.
pub fn masks_documents(folder: &Path) -> Result<bool, Error> {
    Ok(checkpoint::state(folder)?.config.document_mask)
}

fn check_sizes(found: usize, limit: u32, batch_rows: u32) -> Result<(), Error> {
    if batch_rows == 0 {
        return Err(Error::BatchRows);
    }
    if found > limit as usize { Err(Error::Context { found, limit }) } else { Ok(()) }
}

fn progress(hooks: Hooks<'_>, done: u64, total: u64) {
    let stage = hooks.stage.to_owned();
    hooks.observer.event(&Event::Progress { stage, done, total: Some(total), unit: Unit::Items });
}

/// None where no base was predicted.
fn summarize(rows: &[Likelihood], config: &Config) -> Option<Score> {
    let sum = rows.iter().copied().sum::<Likelihood>();
    let bits = |row: &Likelihood| Row { bits: row.base_nats / std::f64::consts::LN_2, bases: row.bases };
    let by_row = rows.iter().map(bits).collect::<Vec<_>>();
    let bootstrap =
        Bootstrap { resamples: config.bootstrap_draws, seed: config.seed, ..Bootstrap::default() };
    Some(Score {
        tokens: sum.tokens,
        bases: sum.bases,
        loss: sum.loss()?,
        bits_per_base: sum.bits_per_base()?,
        interval: bootstrap.estimate(&by_row),
        by_row,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::tests_support::Rows;
    use crate::model::{Named, Preset, dnabert2, hyena};
    use crate::observer::{Silent, Stop};
    use crate::tokenizer::Tokenizer;
    use crate::tokenizer::nucleotide::Nucleotide;
    use crate::train::{self, Data, Duration};

    fn vocabulary(fingerprint: &str) -> Vocabulary {
        let bases = vec![0, 0, 1, 3, 5];
        Vocabulary { bases, pad: Some(0), fingerprint: fingerprint.to_owned(), ..Vocabulary::default() }
    }

    fn trained(out: &Path, hooks: Hooks<'_>) {
        let (rows, vocabulary) = (Rows::random(8, 16, 5, 1), vocabulary("a"));
        let data = Data { rows: &rows, validation: None, vocabulary: &vocabulary, fingerprint: "" };
        let config = train::Config {
            preset: Some(Preset::Olmo300k.into()),
            duration: Duration::Steps(2),
            ..train::Config::default()
        };
        train::run(&config, data, out, hooks).unwrap();
    }

    #[test]
    fn bits_are_counted_over_bases_and_refused_over_nothing() {
        let (out, stop) = (tempfile::tempdir().unwrap(), Stop::new());
        let hooks = Hooks { observer: &Silent, stage: "evaluate", stop: &stop, threads: 1 };
        trained(out.path(), hooks);
        let score = |rows: &Rows, name: &str, config: &Config| {
            bits_per_base(out.path(), rows, &vocabulary(name), config, hooks)
                .map_err(|error| error.to_string())
        };
        let rows = Rows((0..6).map(|row| (0..16).map(|i| (i + row) % 5).collect()).collect());
        let found = score(&rows, "a", &Config::default()).unwrap();
        let targets = rows.0.iter().flat_map(|row| &row[1..]);
        let bases = targets.clone().map(|id| [0, 0, 1, 3, 5][usize::try_from(*id).unwrap()]).sum::<u64>();
        assert_eq!((found.by_row.len(), found.bases), (6, bases));
        assert_eq!(found.tokens, targets.filter(|id| **id != 0).count() as u64);
        let interval = found.interval.unwrap();
        assert!(interval.low < found.bits_per_base && found.bits_per_base < interval.high);

        let half = score(&rows, "a", &Config { precision: Precision::Bf16, ..Config::default() }).unwrap();
        let off = (half.bits_per_base - found.bits_per_base).abs();
        assert!(off > 0.0 && off < 0.02 * found.bits_per_base, "bf16 is off by {off}");

        let small = Config { batch_rows: 1, max_rows: Some(2), ..Config::default() };
        assert_eq!(score(&rows, "a", &small).unwrap().by_row.len(), 2);
        let error = score(&rows, "b", &small).unwrap_err();
        assert!(error.ends_with("has another tokenizer: a there, b here"), "{error}");
        let error = score(&Rows(vec![vec![1; 17]]), "a", &small).unwrap_err();
        assert_eq!(error, "rows of 17 tokens are longer than the model's context of 16");
        let error = score(&Rows(vec![vec![1; 16]]), "a", &small).unwrap_err();
        assert_eq!(error, "there is no base to predict in 1 rows");
    }

    /// HyenaDNA has bits per base as an OLMo does; a masked model has none, and says so.
    #[test]
    fn peers_are_scored_or_refused() {
        let (stop, tokenizer) = (Stop::new(), Nucleotide::hyena());
        let hooks = Hooks { observer: &Silent, stage: "evaluate", stop: &stop, threads: 1 };
        let bases = (0..tokenizer.vocabulary_size()).map(|id| tokenizer.bases(id)).collect();
        let (pad, tokenizer) = (tokenizer.special("[PAD]"), tokenizer.to_json());
        let vocabulary = Vocabulary { bases, pad, tokenizer, ..Vocabulary::default() };
        let rows = Rows((0..8).map(|row| (0..16).map(|i| 7 + (i + row) % 4).collect()).collect());
        let score = |preset: Named| {
            let out = tempfile::tempdir().unwrap();
            let data = Data { rows: &rows, validation: None, vocabulary: &vocabulary, fingerprint: "" };
            let (preset, duration) = (Some(preset), Duration::Steps(30));
            let config = train::Config { preset, duration, batch_rows: 8, ..train::Config::default() };
            train::run(&config, data, out.path(), hooks).unwrap();
            let half = Config { precision: Precision::Bf16, ..Config::default() };
            let error = bits_per_base(out.path(), &rows, &vocabulary, &half, hooks).unwrap_err().to_string();
            assert!(error.contains("only an OLMo is computed in bf16"), "{error}");
            bits_per_base(out.path(), &rows, &vocabulary, &Config::default(), hooks)
        };
        let found = score(hyena::Preset::Tiny1k.into()).unwrap();
        assert!(found.bases == 8 * 15 && found.bits_per_base < 1.5, "{}", found.bits_per_base);
        let error = score(dnabert2::Preset::Small300k.into()).unwrap_err().to_string();
        assert!(error.contains("has no bits per base"), "{error}");
    }
}
