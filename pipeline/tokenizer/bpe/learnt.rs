//! What share of the sequence a vocabulary is learnt from, and why not from the rest. Counts are bases.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::train::{Config, Trainer};
use crate::tokenizer::Error;

/// Counts pieces on their way to a trainer.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Account {
    pushed: u64,
    letters: u64,
}

/// What was learnt from, and what was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learnt {
    /// Bases read, of any code.
    pub read: u64,
    /// Bases learnt from.
    pub bases: u64,
    /// Bases left out, by reason; `read` is the sum of these and `bases`.
    pub left_out: Vec<(String, u64)>,
}

impl Account {
    /// Adds a piece to the trainer and counts it.
    pub fn push(&mut self, trainer: &mut Trainer, piece: &[u8]) {
        self.pushed += piece.len() as u64;
        let letter = |base: &&u8| matches!(base.to_ascii_uppercase(), b'A' | b'C' | b'G' | b'T');
        self.letters += piece.iter().filter(letter).count() as u64;
        trainer.push(piece);
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: Self) {
        self.pushed += other.pushed;
        self.letters += other.letters;
    }

    /// Bases pushed so far.
    pub const fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Settles what became of all that was pushed.
    ///
    /// # Errors
    /// [`Error::NothingLearnt`] when all of it is left out.
    pub fn learnt(&self, config: &Config, trainer: &Trainer) -> Result<Learnt, Error> {
        let (seen, bases) = (trainer.bases_seen(), trainer.bases());
        let reasons = [
            ("codes other than A, C, G and T".to_owned(), self.pushed - self.letters),
            ("soft-masked".to_owned(), self.letters.saturating_sub(seen)),
            (limit(config), seen - bases),
        ];
        let left_out = reasons.into_iter().filter(|(_, bases)| *bases > 0).collect();
        let learnt = Learnt { read: self.pushed, bases, left_out };
        if learnt.bases == 0 && learnt.read > 0 { Err(Error::NothingLearnt(learnt)) } else { Ok(learnt) }
    }
}

/// Which of two limits it is that leaves something out.
fn limit(config: &Config) -> String {
    match (config.sample, config.memory) {
        (Some(sample), _) if config.most_bases() == Some(sample) => {
            format!("sampled out, `sample` is {sample} bases")
        }
        (_, Some(memory)) => format!("sampled out, `memory` is {memory} bytes"),
        _ => "sampled out".to_owned(),
    }
}

impl fmt::Display for Learnt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.left_out.is_empty() {
            return write!(f, "learnt from {} bases", self.bases);
        }
        let share = 100.0 * self.bases as f64 / self.read as f64;
        write!(f, "learnt from {} of {} bases ({share:.1} %; left out: ", self.bases, self.read)?;
        for (i, (reason, bases)) in self.left_out.iter().enumerate() {
            write!(f, "{}{bases} {reason}", if i == 0 { "" } else { "; " })?;
        }
        write!(f, ")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::bpe::train::SoftMasked;

    fn learnt(config: &Config, pieces: &[&[u8]]) -> Result<Learnt, Error> {
        let mut trainer = Trainer::new(config.clone()).unwrap();
        let mut account = Account::default();
        for piece in pieces {
            account.push(&mut trainer, piece);
        }
        account.learnt(config, &trainer)
    }

    #[test]
    fn every_base_is_learnt_from_or_left_out_for_a_reason() {
        let pieces: Vec<Vec<u8>> = (0..100_u32)
            .map(|i| (0..20).map(|j| b"ACGT"[(i * 7 + i * j % 11) as usize % 4]).collect())
            .collect();
        let mut pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        pieces.push(b"acgtNNRY");
        let masked = Config { soft_masked: SoftMasked::Exclude, ..Config::default() };
        let sampled = Config { sample: Some(500), ..masked.clone() };
        let little = Config { memory: Some((64 << 20) + 1500), sample: Some(1000), ..Config::default() };
        for (config, reasons) in [
            (Config::default(), &["4 codes other"][..]),
            (masked, &["4 codes other", "; 4 soft-masked"]),
            (sampled, &["4 soft-masked", " sampled out, `sample` is 500 bases"]),
            (little, &[" sampled out, `memory` is 67110364 bytes"]),
        ] {
            let learnt = learnt(&config, &pieces).unwrap();
            let left_out: u64 = learnt.left_out.iter().map(|(_, bases)| bases).sum();
            assert_eq!((learnt.read, learnt.bases + left_out), (2008, 2008), "{learnt}");
            for reason in reasons {
                assert!(learnt.to_string().contains(reason), "{learnt}, expected {reason}");
            }
        }
    }

    #[test]
    fn nothing_is_refused_with_the_reason() {
        let config = Config { memory: Some(1000), ..Config::default() };
        let error = learnt(&config, &[b"ACGTN"]).unwrap_err().to_string();
        assert!(
            error.starts_with("nothing to train on: learnt from 0 of 5 bases (0.0 %; left out: 1 codes"),
            "{error}"
        );
        assert!(error.ends_with("4 sampled out, `memory` is 1000 bytes)"), "{error}");
    }

    #[test]
    fn all_of_it_is_said_in_short() {
        assert_eq!(learnt(&Config::default(), &[b"ACGT", b"AC"]).unwrap().to_string(), "learnt from 6 bases");
    }
}
