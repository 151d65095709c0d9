//! The log-likelihood of every base of a sequence, in nats. Memory: the sequence's tokens, the model, a batch per thread.
//!
//! A token's log-likelihood is shared equally by its bases. Sequences longer than the model's context are seen in windows
//! that overlap by half: but for the first window, only the second half of each counts, so that every token has at least
//! half a context before it (where there are so many).

use tch::Kind;

use crate::loader::{Batch, IGNORED, Targets};
use crate::model::network::Network;
use crate::model::weights;
use crate::model::workers::Workers;
use crate::sequence::complement::reverse_complement;
use crate::tokenizer::Tokenizer;

/// Why a sequence could not be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tensors.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// A tokenizer that loses bases.
    #[error(
        "the tokens of `{record}` stand for {found} of its {expected} bases: the tokenizer does not know all of its codes"
    )]
    Lost {
        /// The record.
        record: String,
        /// Bases of the tokens.
        found: u64,
        /// Bases of the record.
        expected: usize,
    },
}

/// A model at work on sequences.
#[derive(Clone, Copy)]
pub struct Scorer<'a> {
    /// The model.
    pub model: &'a Network,
    /// Tokens that it sees together.
    pub context: usize,
    /// Its tokenizer.
    pub tokenizer: &'a dyn Tokenizer,
    /// The id before every window of its training rows, where there is one.
    pub begin: Option<u32>,
    /// Windows that a worker computes at once, at least one.
    pub batch_rows: usize,
    /// Who computes.
    pub workers: &'a Workers,
}

/// Some tokens that are seen together, of which those from `counts_from` on count; numbers of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    start: usize,
    end: usize,
    counts_from: usize,
}

impl Scorer<'_> {
    /// For every base, 5' to 3' on the strand given, what the model expected of it: `ln p`; none of the first token's
    /// bases (unless the model knows a token that begins rows), and none of bases other than A, C, G and T.
    pub fn forward(&self, record: &str, bases: &[u8]) -> Result<Vec<Option<f64>>, Error> {
        let mut ids = Vec::new();
        self.tokenizer.encode_into(bases, &mut ids);
        let found = self.tokenizer.bases_of(&ids);
        if found != bases.len() as u64 {
            return Err(Error::Lost { record: record.to_owned(), found, expected: bases.len() });
        }
        let likelihoods = self.tokens(&ids)?;
        let shared = ids.iter().zip(likelihoods).flat_map(|(id, likelihood)| {
            let count = self.tokenizer.bases(*id);
            let each = likelihood.map(|sum| sum / f64::from(count));
            std::iter::repeat_n(each, count as usize)
        });
        let known = |base: &u8| b"ACGT".contains(base);
        Ok(shared.zip(bases).map(|(likelihood, base)| likelihood.filter(|_| known(base))).collect())
    }

    /// The same for the other strand; likelihoods stand in the order of the bases given.
    pub fn reverse(&self, record: &str, bases: &[u8]) -> Result<Vec<Option<f64>>, Error> {
        let mut other = bases.to_vec();
        reverse_complement(&mut other);
        let mut likelihoods = self.forward(record, &other)?;
        likelihoods.reverse();
        Ok(likelihoods)
    }

    /// `ln p` of every token; none of the first without a token that begins rows.
    fn tokens(&self, ids: &[u32]) -> Result<Vec<Option<f64>>, Error> {
        let begin = self.begin;
        let length = self.context - usize::from(begin.is_some());
        let windows = windows(ids.len(), length.max(1));
        let batches =
            windows.chunks(self.batch_rows.max(1)).map(|batch| (self.model.share(), batch.to_vec()));
        let scored =
            self.workers.map(batches.collect(), |(model, batch)| self::batch(&model, begin, ids, &batch));
        let mut found = vec![None; ids.len()];
        for (window, likelihoods) in windows.iter().zip(scored?.into_iter().flatten()) {
            let skip = window.counts_from - window.start;
            for (token, likelihood) in (window.counts_from..window.end).zip(&likelihoods[skip..]) {
                found[token] = *likelihood;
            }
        }
        Ok(found)
    }
}

/// `ln p` of every token of some windows, all of one length.
fn batch(
    model: &Network,
    begin: Option<u32>,
    ids: &[u32],
    windows: &[Window],
) -> Result<Vec<Vec<Option<f64>>>, weights::Error> {
    let row = |window: &Window| {
        let tokens = begin.iter().chain(&ids[window.start..window.end]);
        tokens.map(|id| i64::from(*id)).collect::<Vec<_>>()
    };
    let rows = windows.iter().map(row).collect::<Vec<_>>();
    let length = rows.first().map_or(1, Vec::len);
    let of_row = |nats: &[f64]| {
        let known = nats[..length - 1].iter().map(|nats| Some(-nats));
        // Without a token before it nothing is said of the first.
        begin.is_none().then_some(None).into_iter().chain(known).collect()
    };
    Ok(nats(model, &rows)?.chunks(length).map(of_row).collect())
}

/// Losses of the ids that follow, row after row; the last of each row is 0.
fn nats(model: &Network, rows: &[Vec<i64>]) -> Result<Vec<f64>, weights::Error> {
    let ids = rows.iter().flat_map(|row| row[1..].iter().copied().chain([IGNORED])).collect::<Vec<_>>();
    let context = rows.first().map_or(1, Vec::len);
    let batch = Batch { context, tokens: rows.concat(), ..Batch::default() };
    let targets = Targets { counted: vec![1.0; ids.len()], ids, ..Targets::default() };
    let batch = model.prepare(&batch, &targets)?;
    let nats = tch::no_grad(|| model.nats_of(&model.hidden(&batch)?, &batch.targets, batch.asked.as_ref()))?;
    Ok(Vec::try_from(nats.f_to_kind(Kind::Double)?.f_flatten(0, -1)?)?)
}

/// Windows of `length` tokens over `tokens` tokens; the last one ends with the last token.
fn windows(tokens: usize, length: usize) -> Vec<Window> {
    let step = (length / 2).max(1);
    let mut windows = vec![Window { start: 0, end: length.min(tokens), counts_from: 0 }];
    while let Some(last) = windows.last().filter(|last| last.end < tokens) {
        let end = (last.end + step).min(tokens);
        windows.push(Window { start: end - length, end, counts_from: last.end });
    }
    windows.retain(|window| window.end > window.start);
    windows
}

#[cfg(test)]
mod tests {
    use tch::{Device, Tensor};

    use super::*;
    use crate::model::olmo::Olmo;
    use crate::model::weights::Weights;
    use crate::model::{Config, Overrides, Preset};
    use crate::tokenizer::kmer::{self, Kmer};
    use crate::tokenizer::nucleotide::Nucleotide;

    #[test]
    fn windows_count_every_token_once_with_half_a_context_before_it() {
        for (tokens, length) in
            [(0, 8), (1, 8), (7, 8), (8, 8), (9, 8), (11, 8), (12, 8), (100, 8), (5, 1), (9, 3)]
        {
            let windows = windows(tokens, length);
            let counted =
                windows.iter().flat_map(|window| window.counts_from..window.end).collect::<Vec<_>>();
            assert_eq!(counted, (0..tokens).collect::<Vec<_>>(), "{tokens} by {length}");
            assert!(windows.iter().all(|w| w.end - w.start == length.min(tokens)));
            assert!(windows.iter().skip(1).all(|w| w.counts_from - w.start >= length / 2));
        }
    }

    fn model(tokenizer: &dyn Tokenizer) -> Olmo {
        let config =
            Config::resolve(Some(Preset::Olmo300k), &Overrides::default(), tokenizer.vocabulary_size(), 16)
                .unwrap();
        let weights = Weights::random(&config, 3, Device::Cpu).unwrap();
        Olmo::new(config, weights, Device::Cpu).unwrap()
    }

    /// Token by token, each after those of its window, with `ln softmax` by hand.
    #[test]
    fn bases_get_what_the_model_says_of_their_tokens() {
        let kmer = Kmer::new(kmer::Config { k: 3, overlapping: false }).unwrap();
        let tokenizers: [&dyn Tokenizer; 2] = [&Nucleotide::new(), &kmer];
        let bases = b"ACGTTGCANACGGTCATTGACCATTGACNTTACGATCAGGCATCAGTTAGCAGCATTAGCAGCATTTACGACGA";
        for (tokenizer, begin) in tokenizers.iter().flat_map(|t| [(t, None), (t, Some(2))]) {
            let (model, workers) = (model(*tokenizer), Workers::start(2).unwrap());
            let network = Network::Olmo(model.share());
            let scorer = Scorer {
                model: &network,
                context: 16,
                tokenizer: *tokenizer,
                begin,
                batch_rows: 2,
                workers: &workers,
            };
            let found = scorer.forward("x", bases).unwrap();
            let mut ids = Vec::new();
            tokenizer.encode_into(bases, &mut ids);
            let length = 16 - usize::from(begin.is_some());
            let mut position = 0;
            for (index, id) in ids.iter().enumerate() {
                let all = windows(ids.len(), length);
                let window = all.iter().find(|w| (w.counts_from..w.end).contains(&index)).unwrap();
                let before = begin.iter().chain(&ids[window.start..index]).map(|id| i64::from(*id));
                let before = before.collect::<Vec<_>>();
                let expected = (!before.is_empty()).then(|| {
                    let row = Tensor::from_slice(&before).unsqueeze(0);
                    let scores = model.logits(&model.hidden(&row).unwrap()).unwrap().select(1, -1);
                    scores.log_softmax(-1, Kind::Double).double_value(&[0, i64::from(*id)])
                });
                let count = tokenizer.bases(*id) as usize;
                for base in position..position + count {
                    let each = expected.filter(|_| bases[base] != b'N').map(|sum| sum / count as f64);
                    match (found[base], each) {
                        (Some(a), Some(b)) => assert!((a - b).abs() < 1e-4, "base {base}: {a}, expected {b}"),
                        (a, b) => assert_eq!(a, b, "base {base}"),
                    }
                }
                position += count;
            }
            assert_eq!(position, bases.len());
            let mut other = bases.to_vec();
            reverse_complement(&mut other);
            let mut expected = scorer.forward("x", &other).unwrap();
            expected.reverse();
            assert_eq!(scorer.reverse("x", bases).unwrap(), expected);
        }
    }

    #[test]
    fn what_a_tokenizer_loses_is_told() {
        let tokenizer = Nucleotide::hyena();
        let (network, workers) = (Network::Olmo(model(&tokenizer)), Workers::start(1).unwrap());
        let scorer = Scorer {
            model: &network,
            context: 16,
            tokenizer: &tokenizer,
            begin: None,
            batch_rows: 2,
            workers: &workers,
        };
        let error = scorer.forward("chr1", b"ACRT").unwrap_err().to_string();
        assert!(error.starts_with("the tokens of `chr1` stand for 3 of its 4 bases"), "{error}");
        assert_eq!(scorer.forward("chr1", b"").unwrap(), []);
        assert_eq!(scorer.forward("chr1", b"A").unwrap(), [None]);
    }
}
