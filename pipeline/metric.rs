//! Numbers only, no tensors: bits per base, Markov baselines, scores of tasks, intervals, comparisons.
//!
//! Code lengths are in bits, losses in nats, lengths in bases. A figure that is not defined (nothing was scored, the
//! truth has one class only) is `None`, never 0 and never NaN. Examples and classes are counted from 0.
//!
//! Every score is of a whole set: nothing here averages over batches. What counts examples takes how many times each
//! of them counts, so that a bootstrap scores its resamples with the same code as the set itself. Memory: some ten
//! bytes per example and class; see [`scores`].

pub mod calibration;
pub mod classification;
pub mod compare;
pub mod correlation;
pub mod delong;
pub mod interval;
pub mod markov;
pub mod ranking;
pub mod scores;
pub mod seeds;
mod sorted;

#[cfg(test)]
mod golden;

/// The most examples that a set may have: places in it are kept in four bytes.
pub const MOST_EXAMPLES: usize = u32::MAX as usize;

/// Why a set could not be scored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fewer than two classes.
    #[error("cannot score {found} classes: expected at least 2")]
    Classes {
        /// The classes that were named.
        found: usize,
    },
    /// A class that there is not.
    #[error("the {what} of example {example} is {found}: expected a class from 0 to {last}")]
    Class {
        /// Counted from 0.
        example: usize,
        /// Whether it is a label or a predicted class.
        what: &'static str,
        /// The class found.
        found: u32,
        /// The highest class.
        last: usize,
    },
    /// Lists that should be as long as each other.
    #[error("there are {found} {what}: expected {expected}")]
    Length {
        /// What there are too many or too few of.
        what: &'static str,
        /// As many as there are.
        found: usize,
        /// As many as there should be.
        expected: usize,
    },
    /// More examples than places can be kept of.
    #[error("cannot score {found} examples at once: expected at most {MOST_EXAMPLES}")]
    TooMany {
        /// The examples found.
        found: usize,
    },
    /// A score or a value that is NaN or infinite.
    #[error("the {what} of example {example} is {found}: expected a finite number")]
    NotFinite {
        /// Counted from 0.
        example: usize,
        /// What is not finite.
        what: &'static str,
        /// NaN or an infinity.
        found: f64,
    },
    /// Two models that were not judged on the same examples.
    #[error("cannot compare in pairs: example {example} has another {what} for one model than for the other")]
    Unpaired {
        /// The first such example, counted from 0.
        example: usize,
        /// A label, or a value.
        what: &'static str,
    },
    /// A p value that is none.
    #[error("p value {index} is {found}: expected a number from 0 to 1")]
    PValue {
        /// Counted from 0.
        index: usize,
        /// The number found.
        found: f64,
    },
    /// A confusion matrix that cannot have come from a set.
    #[error(
        "not a confusion matrix of {classes} classes: expected as many columns as rows and at most {MOST_EXAMPLES} \
         examples"
    )]
    Confusion {
        /// Its rows.
        classes: usize,
    },
}

/// The mean; `None` of nothing.
fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// A list that has one entry for each of `expected` examples.
fn check_length(what: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found != expected {
        return Err(Error::Length { what, found, expected });
    }
    if expected > MOST_EXAMPLES {
        return Err(Error::TooMany { found: expected });
    }
    Ok(())
}

/// All values are finite; there are `width` of them for each example.
pub(crate) fn check_finite(what: &'static str, values: &[f64], width: usize) -> Result<(), Error> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Error::NotFinite { example: at / width, what, found: values[at] }),
        None => Ok(()),
    }
}

/// Bits per base of `nats` of code length over `bases` bases; `None` when no base was scored.
pub fn bits_per_base(nats: f64, bases: u64) -> Option<f64> {
    (bases > 0).then(|| nats / std::f64::consts::LN_2 / bases as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_per_base_counts_bases() {
        let four = 4.0_f64.ln();
        for (nats, bases, expected) in
            [(four, 1, Some(2.0)), (3.0 * four, 6, Some(1.0)), (0.0, 3, Some(0.0)), (1.0, 0, None)]
        {
            let found = bits_per_base(nats, bases);
            assert_eq!(found.map(|bits| (bits * 1e9).round()), expected.map(|bits| bits * 1e9));
        }
    }
}
