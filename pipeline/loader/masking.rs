//! What a masked-language model must guess: some tokens of a row, of which most are hidden. Memory: the row's labels.

use super::{IGNORED, fraction, mix};

/// Of the tokens that are asked for, this share is replaced by the mask.
const MASKED: f64 = 0.8;
/// Up to this share by the mask or by any token; the rest stays as it is.
const MASKED_OR_OTHER: f64 = 0.9;

/// Which tokens are asked for and what the model sees in their place. A function of its fields, the epoch, the row's
/// position and the place in the row alone: nothing else is needed to resume.
#[derive(Debug, Clone, PartialEq)]
pub struct Masking {
    seed: u64,
    rate: f64,
    vocabulary: u32,
    mask: u32,
    /// Ids that may be asked for, and that may stand in their place; ascending.
    ordinary: Vec<u32>,
}

/// Why rows cannot be masked so.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MaskingError {
    /// A rate that is no share.
    #[error("the mask rate is {0}, expected a number above 0, at most 1")]
    Rate(f64),
    /// Special ids outside the vocabulary.
    #[error("the special id {found} is outside the vocabulary of {vocabulary}")]
    Special {
        /// The id.
        found: u32,
        /// Number of ids.
        vocabulary: u32,
    },
    /// A mask that could be asked for itself.
    #[error("the mask's id {0} is not among the special ids")]
    Mask(u32),
    /// Nothing to ask for.
    #[error("all {0} ids of the vocabulary are special: there is nothing to mask")]
    Nothing(u32),
    /// A row with an id outside the vocabulary.
    #[error("token {token} at index {index} of the row is outside the vocabulary")]
    Token {
        /// The id.
        token: i64,
        /// Place in the row.
        index: usize,
    },
}

/// A vocabulary as masking sees it.
#[derive(Debug, Clone, Copy)]
pub struct Ids<'a> {
    /// Number of ids.
    pub vocabulary: u32,
    /// Ids that are never asked for and never put in another's place, such as those around a row and padding.
    pub special: &'a [u32],
    /// The one of them that hides a token.
    pub mask: u32,
}

impl Masking {
    /// Asks for each token that is not special with probability `rate`.
    pub fn new(seed: u64, rate: f64, ids: Ids<'_>) -> Result<Self, MaskingError> {
        let Ids { vocabulary, special, mask } = ids;
        if !(rate > 0.0 && rate <= 1.0) {
            return Err(MaskingError::Rate(rate));
        }
        if let Some(found) = special.iter().copied().find(|id| *id >= vocabulary) {
            return Err(MaskingError::Special { found, vocabulary });
        }
        if !special.contains(&mask) {
            return Err(MaskingError::Mask(mask));
        }
        let ordinary = (0..vocabulary).filter(|id| !special.contains(id)).collect::<Vec<_>>();
        if ordinary.is_empty() {
            return Err(MaskingError::Nothing(vocabulary));
        }
        Ok(Self { seed, rate, vocabulary, mask, ordinary })
    }

    /// Hides whole tokens of `row`, the one at `position` of epoch `epoch` as all ranks count, and gives what is asked
    /// for: the ids that were there, and [`IGNORED`] elsewhere. Of the tokens asked for, 80 % become the mask, 10 % any
    /// ordinary token, and 10 % stay. A row of which nothing is asked stays as it is.
    pub fn hide(&self, row: &mut [i64], epoch: u64, position: u64) -> Result<Vec<i64>, MaskingError> {
        let key = mix(mix(mix(self.seed) ^ epoch) ^ position);
        let labels = row.iter_mut().enumerate().map(|(index, token)| {
            let id = u32::try_from(*token).ok().filter(|id| *id < self.vocabulary);
            let id = id.ok_or(MaskingError::Token { token: *token, index })?;
            let draw = mix(key ^ mix(index as u64));
            if self.ordinary.binary_search(&id).is_err() || fraction(draw) >= self.rate {
                return Ok(IGNORED);
            }
            *token = self.in_place_of(id, mix(!draw)).into();
            Ok(i64::from(id))
        });
        labels.collect()
    }

    /// What the model sees where `id` is asked for.
    fn in_place_of(&self, id: u32, draw: u64) -> u32 {
        match fraction(draw) {
            share if share < MASKED => self.mask,
            share if share < MASKED_OR_OTHER => self.any(mix(draw)),
            _ => id,
        }
    }

    /// An ordinary id. The remainder favours none by more than one part in 2^32.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of a length")]
    fn any(&self, draw: u64) -> u32 {
        self.ordinary[(draw % self.ordinary.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: [u32; 5] = [0, 1, 2, 3, 4];

    fn masking(seed: u64, rate: f64) -> Masking {
        Masking::new(seed, rate, Ids { vocabulary: 100, special: &SPECIAL, mask: 4 }).unwrap()
    }

    /// Special ids around 500 ordinary ones.
    fn row() -> Vec<i64> {
        [vec![1], (0..500).map(|i| 5 + i * 37 % 95).collect(), vec![2, 3, 3]].concat()
    }

    fn hidden(masking: &Masking, epoch: u64, position: u64) -> (Vec<i64>, Vec<i64>) {
        let mut row = row();
        let labels = masking.hide(&mut row, epoch, position).unwrap();
        (row, labels)
    }

    #[test]
    fn labels_are_what_was_there_and_nothing_special_is_asked_for() {
        for rate in [0.15, 1.0] {
            let (seen, labels) = hidden(&masking(1, rate), 0, 0);
            for ((before, seen), label) in row().into_iter().zip(seen).zip(labels) {
                let special = before < 5;
                assert!(label == IGNORED || (label == before && !special));
                assert!(label != IGNORED || seen == before, "{before} became {seen} unasked");
                assert!(special || rate < 1.0 || label == before, "{before} was not asked for");
                assert!(seen >= 4 || special, "{before} became {seen}");
            }
        }
    }

    /// 400 rows of 500 tokens: each share within 5 standard deviations.
    #[test]
    fn shares_are_as_told() {
        let masking = masking(7, 0.15);
        let (mut asked, mut masked, mut kept) = (0.0, 0.0, 0.0);
        for position in 0..400 {
            let (seen, labels) = hidden(&masking, 0, position);
            for (seen, label) in seen.into_iter().zip(labels).filter(|(_, label)| *label != IGNORED) {
                asked += 1.0;
                masked += f64::from(u8::from(seen == 4));
                kept += f64::from(u8::from(seen == label));
            }
        }
        let near = |count: f64, of: f64, share: f64| {
            (count - of * share).abs() < 5.0 * (of * share * (1.0 - share)).sqrt()
        };
        assert!(near(asked, 200_000.0, 0.15), "{asked} asked for");
        assert!(near(masked, asked, 0.8), "{masked} of {asked} masked");
        // One in 95 of the other tokens is the very token.
        assert!(near(kept, asked, 0.1 + 0.1 / 95.0), "{kept} of {asked} kept");
    }

    #[test]
    fn seed_epoch_and_position_decide_and_nothing_else() {
        let first = hidden(&masking(1, 0.15), 2, 3);
        assert_eq!(first, hidden(&masking(1, 0.15), 2, 3));
        for other in [
            hidden(&masking(2, 0.15), 2, 3),
            hidden(&masking(1, 0.15), 3, 3),
            hidden(&masking(1, 0.15), 2, 4),
            hidden(&masking(1, 0.15), 3, 2),
        ] {
            assert_ne!(first, other);
        }
        // A longer row begins as the shorter one.
        let mut short = row()[..40].to_vec();
        let labels = masking(1, 0.15).hide(&mut short, 2, 3).unwrap();
        assert_eq!((&short[..], &labels[..]), (&first.0[..40], &first.1[..40]));
    }

    /// Computed by another implementation of the same hashes: a change would break the resume of checkpoints.
    #[test]
    fn what_is_asked_for_is_frozen() {
        let (seen, labels) = hidden(&masking(42, 0.15), 0, 0);
        let asked = (0..60).filter(|i| labels[*i] != IGNORED).map(|i| (i, seen[i])).collect::<Vec<_>>();
        assert_eq!(asked, FROZEN);
    }

    const FROZEN: [(usize, i64); 8] =
        [(11, 4), (19, 4), (22, 4), (23, 4), (28, 4), (29, 4), (53, 4), (56, 69)];

    #[test]
    fn what_cannot_be_masked_is_refused() {
        let ids = Ids { vocabulary: 5, special: &SPECIAL[..4], mask: 3 };
        let cases = [
            (0.0, ids, "the mask rate is 0,"),
            (1.5, ids, "the mask rate is 1.5,"),
            (f64::NAN, ids, "the mask rate is NaN,"),
            (0.15, Ids { vocabulary: 3, ..ids }, "the special id 3 is outside the vocabulary of 3"),
            (0.15, Ids { mask: 4, ..ids }, "the mask's id 4 is not among the special ids"),
            (0.15, Ids { vocabulary: 4, ..ids }, "all 4 ids of the vocabulary are special"),
        ];
        for (rate, ids, expected) in cases {
            let error = Masking::new(1, rate, ids).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        for token in [-1, 100, 1 << 40] {
            let error = masking(1, 0.15).hide(&mut [5, token], 0, 0).unwrap_err();
            assert_eq!(error, MaskingError::Token { token, index: 1 });
        }
    }
}
