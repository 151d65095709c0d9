//! Lines of columns (BED, GFF3, GTF): what may be wrong with them, and how it is told.

use std::path::PathBuf;

use super::input;

/// Characters of a wrong column that a message shows.
const SHOWN: usize = 40;

/// Why a file of lines of columns is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes of the file cannot be had.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// A line that is not what it should be.
    #[error("cannot read `{}`, line {line}: {problem}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        problem: Problem,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Bytes that are no text.
    #[error("found bytes that are not UTF-8, expected text")]
    NotUtf8,
    /// Too few or too many columns.
    #[error("found {found} {expected}")]
    Columns {
        /// Columns.
        found: usize,
        /// What separates columns and how many there may be.
        expected: &'static str,
    },
    /// A column that is not what it should be.
    #[error("found {column} `{found}`, expected {expected}")]
    Column {
        /// The column's name.
        column: &'static str,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// An end before its start; both as in the file.
    #[error("found start {start} after end {end}, expected a start {expected} the end")]
    Backwards {
        /// As in the file.
        start: u64,
        /// As in the file.
        end: u64,
        /// `below`, or `not after` where the last base counts.
        expected: &'static str,
    },
    /// An interval that holds no base.
    #[error("found an interval of 0 bases at {at}, expected a start below the end")]
    Empty {
        /// Its start and end, from 0.
        at: u64,
    },
}

/// A column that is not what it should be.
pub fn wrong(column: &'static str, found: &str, expected: &'static str) -> Problem {
    let found = found.chars().take(SHOWN).collect::<String>().escape_debug().to_string();
    Problem::Column { column, found, expected }
}
