//! The few types that every room shares: strands and intervals.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A strand of a double-stranded sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Strand {
    /// As the record is written.
    #[serde(rename = "+")]
    Forward,
    /// The reverse complement of the record.
    #[serde(rename = "-")]
    Reverse,
}

impl Strand {
    /// `+` or `-`.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Forward => "+",
            Self::Reverse => "-",
        }
    }
}

impl fmt::Display for Strand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

impl FromStr for Strand {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "+" => Ok(Self::Forward),
            "-" => Ok(Self::Reverse),
            other => Err(format!("expected strand `+` or `-`, found `{other}`")),
        }
    }
}

/// An interval of a record: 0-based, half-open, in bases of the forward strand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interval {
    /// First base.
    pub start: u64,
    /// One past the last base; never below `start`.
    pub end: u64,
}

impl Interval {
    /// # Panics
    /// When `end < start`.
    pub const fn new(start: u64, end: u64) -> Self {
        assert!(start <= end, "interval ends before it starts");
        Self { start, end }
    }

    /// Length in bases.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether it holds no base.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether the two share at least one base.
    pub const fn overlaps(self, other: Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.start < other.end && other.start < self.end
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_touching_do_not_overlap() {
        for (a, b, expected) in [((0, 5), (5, 9), false), ((0, 6), (5, 9), true), ((3, 3), (0, 9), false)] {
            assert_eq!(Interval::new(a.0, a.1).overlaps(Interval::new(b.0, b.1)), expected, "{a:?} {b:?}");
        }
    }
}
