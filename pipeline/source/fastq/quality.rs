//! Base qualities: Phred numbers, of which 10 means one error in 10, 20 one in 100.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The character of quality 0.
const ZERO: u8 = b'!';

/// The highest quality that FASTQ can write.
pub const MAX_QUALITY: u8 = b'~' - ZERO;

/// What low qualities mean for a read of a FASTQ file.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Bases of a lower quality become N. Default 0: none.
    #[schemars(range(max = 93))]
    pub min_base_quality: u8,
    /// Reads of a lower mean quality are left out; the mean is that of the error probabilities, as a quality. Default 0:
    /// none.
    #[schemars(range(min = 0, max = 93))]
    pub min_mean_quality: f64,
}

/// Writes N for bases whose quality (a number, not its character) is below `least`; returns how many other codes did
/// become N.
pub fn mask(bases: &mut [u8], qualities: impl Iterator<Item = u8>, least: u8) -> u64 {
    let mut masked = 0;
    for (base, quality) in bases.iter_mut().zip(qualities) {
        if quality < least && !matches!(*base, b'N' | b'n') {
            *base = b'N';
            masked += 1;
        }
    }
    masked
}

/// The quality of a read's mean error probability; `characters` are as FASTQ has them, at least 1.
pub fn mean_quality(characters: &[u8]) -> f64 {
    let errors: f64 =
        characters.iter().map(|&c| 10_f64.powf(-f64::from(c.saturating_sub(ZERO)) / 10.0)).sum();
    -10.0 * (errors / characters.len() as f64).log10()
}

impl Options {
    /// Whether a read with these quality characters is kept.
    pub fn keeps(&self, characters: &[u8]) -> bool {
        // The mean of equal qualities may be off by a rounding error.
        self.min_mean_quality <= 0.0 || mean_quality(characters) >= self.min_mean_quality - 1e-9
    }

    /// Masks the bases of a read with these quality characters; returns how many became N.
    pub fn mask(&self, bases: &mut [u8], characters: &[u8]) -> u64 {
        if self.min_base_quality == 0 {
            return 0;
        }
        mask(bases, characters.iter().map(|c| c.saturating_sub(ZERO)), self.min_base_quality)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_qualities_become_n() {
        for (bases, qualities, least, expected, masked) in [
            ("ACGT", "IIII", 20, "ACGT", 0),
            ("ACGT", "I5I4", 20, "ACGN", 1),
            ("ACnT", "!!!!", 1, "NNnN", 3),
            ("ACGT", "!!!!", 0, "ACGT", 0),
        ] {
            let options = Options { min_base_quality: least, ..Options::default() };
            let mut found = bases.as_bytes().to_vec();
            assert_eq!(options.mask(&mut found, qualities.as_bytes()), masked, "{bases}");
            assert_eq!(found, expected.as_bytes());
        }
    }

    #[test]
    fn the_mean_is_that_of_the_errors() {
        for (characters, expected) in [("++++", 10.0), ("5555", 20.0), ("+5", 12.596), ("~~~!", 6.0206)] {
            let found = mean_quality(characters.as_bytes());
            assert!((found - expected).abs() < 1e-3, "{characters}: {found}");
        }
        let options = Options { min_mean_quality: 20.0, ..Options::default() };
        assert!(options.keeps(b"555") && !options.keeps(b"554"));
    }
}
