//! What a model is asked of its rows, and whether their tokenizer suits it.

use super::config::Resolved;
use crate::loader::{Ids, Masking, MaskingError, Prediction, Vocabulary};
use crate::tokenizer::nucleotide::Nucleotide;
use crate::tokenizer::{self, Tokenizer, hf_json};

/// The token that hides others.
const MASK: &str = "[MASK]";
/// Chooses what is hidden of validation rows, in every run and epoch the same.
const VALIDATION_SEED: u64 = 0x7661_6C69_6461_7465;

/// Why a tokenizer does not suit a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// Another tokenizer than the model's.
    #[error(
        "the shards' tokenizer has {found} for id {id}, HyenaDNA expects `{expected}`: take the stage `tokenizer` with \
         `model: nucleotide`, whose first ids are HyenaDNA's, or `model: hyenadna`, which has no others"
    )]
    Ids {
        /// The first id that differs.
        id: u32,
        /// Its text in the shards' tokenizer, quoted; or that there is none.
        found: String,
        /// Its text in the model's.
        expected: String,
    },
    /// Nothing to hide tokens with.
    #[error(
        "the shards' tokenizer has no `{MASK}`, with which a masked model hides tokens: take the stage `tokenizer` with \
         `model: nucleotide`, `kmer` or `bpe`, or the model's own tokenizer.json"
    )]
    NoMask,
    /// Ids that cannot be hidden so.
    #[error(transparent)]
    Masking(#[from] MaskingError),
}

/// Refuses a tokenizer whose first ids are not HyenaDNA's.
pub(super) fn check_ids(vocabulary: &Vocabulary) -> Result<(), Error> {
    let (found, published) = (hf_json::read(&vocabulary.tokenizer)?, Nucleotide::hyena());
    let differs = |id: &u32| found.text(*id) != published.text(*id);
    let Some(id) = (0..published.vocabulary_size()).find(differs) else { return Ok(()) };
    let expected = published.text(id).unwrap_or_default().to_owned();
    let found = found.text(id).map_or_else(|| "nothing".to_owned(), |text| format!("`{text}`"));
    Err(Error::Ids { id, found, expected })
}

/// What the model of `config` is asked of `rows` training rows, and of validation rows.
pub(super) fn of(config: &Resolved, vocabulary: &Vocabulary, rows: u64) -> Result<[Prediction; 2], Error> {
    let Some(rate) = config.mask_rate else { return Ok([Prediction::Next, Prediction::Next]) };
    let tokenizer = hf_json::read(&vocabulary.tokenizer)?;
    let mask = tokenizer.special(MASK).ok_or(Error::NoMask)?;
    let special = (0..tokenizer.vocabulary_size()).filter(|id| tokenizer.bases(*id) == 0).collect::<Vec<_>>();
    let ids = Ids { vocabulary: tokenizer.vocabulary_size(), special: &special, mask };
    let masking = |seed| Masking::new(seed, rate, ids);
    let training = Prediction::Masked { masking: masking(config.seed)?, rows };
    Ok([training, Prediction::Masked { masking: masking(VALIDATION_SEED)?, rows: u64::MAX }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dnabert2;
    use crate::tokenizer::kmer::{self, Kmer};
    use crate::train::Config;

    fn vocabulary(tokenizer: &dyn Tokenizer) -> Vocabulary {
        Vocabulary { tokenizer: tokenizer.to_json(), ..Vocabulary::default() }
    }

    #[test]
    fn tokenizers_of_other_ids_are_refused_by_name() {
        for tokenizer in [Nucleotide::hyena(), Nucleotide::new()] {
            check_ids(&vocabulary(&tokenizer)).unwrap();
        }
        let words = Kmer::new(kmer::Config { k: 2, overlapping: false }).unwrap();
        let error = check_ids(&vocabulary(&words)).unwrap_err().to_string();
        let expected = "for id 0, HyenaDNA expects `[CLS]`: take the stage `tokenizer`";
        assert!(error.starts_with("the shards' tokenizer has `") && error.contains(expected), "{error}");
    }

    #[test]
    fn masked_models_hide_ordinary_tokens_only_and_validation_stays_the_same() {
        let tokenizer = Nucleotide::hyena();
        let resolve = |seed| {
            let preset = Some(dnabert2::Preset::Small300k.into());
            Config { preset, seed, mask_rate: Some(0.5), ..Config::default() }.resolve(9, 64, 12).unwrap()
        };
        let [[training, validation], [other, same]] =
            [1, 2].map(|seed| of(&resolve(seed), &vocabulary(&tokenizer), 9).unwrap());
        assert!(training != other && validation == same && training != validation);
        let Prediction::Masked { masking, rows: 9 } = training else { panic!("{training:?}") };
        let mut row = (0..12).collect::<Vec<_>>();
        for position in 0..50 {
            let labels = masking.hide(&mut row, 0, position).unwrap();
            assert!(labels[..7].iter().all(|label| *label == crate::loader::IGNORED), "{labels:?}");
            row = (0..12).collect();
        }
    }
}
