//! The lines of a BED file one by one: intervals that overlap stay two, and each knows its line.
//!
//! Holds 24 bytes a line, and the names of the sequences.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::{Error, Origin, hint, list};
use crate::source::bed;
use crate::units::Interval;

/// The lines of a BED file, by sequence.
#[derive(Debug, Clone)]
pub struct Lines {
    file: PathBuf,
    sequences: BTreeMap<String, Vec<Line>>,
}

/// An interval and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// 0-based, half-open; at least one base.
    pub interval: Interval,
    /// From 1.
    pub line: u64,
}

impl Lines {
    /// Reads a file, which must have an interval.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let mut reader = bed::Reader::open(file)?;
        let mut sequences: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        while let Some(line) = reader.next_line()? {
            let (sequence, interval) = (line.sequence.to_owned(), line.interval);
            sequences.entry(sequence).or_default().push(Line { interval, line: reader.line() });
        }
        if sequences.is_empty() {
            return Err(Error::None { file: file.to_owned(), expected: "interval".to_owned() });
        }
        for lines in sequences.values_mut() {
            lines.sort_unstable();
        }
        Ok(Self { file: file.to_owned(), sequences })
    }

    /// The sequences that the file names, and the intervals of each, by their starts.
    pub fn sequences(&self) -> impl Iterator<Item = (&str, &[Line])> {
        self.sequences.iter().map(|(name, lines)| (name.as_str(), lines.as_slice()))
    }

    /// The intervals of a sequence, by their starts.
    pub fn of(&self, sequence: &str) -> &[Line] {
        self.sequences.get(sequence).map_or(&[], Vec::as_slice)
    }

    /// Where a line stands.
    pub fn origin(&self, line: u64) -> Origin {
        Origin::Line { file: self.file.clone(), line }
    }

    /// Refuses the first line that reaches past the end of its sequence, which is one of `of` and has `bases` bases.
    pub fn check_end(&self, of: &Path, sequence: &str, bases: u64) -> Result<(), Error> {
        let past = self.of(sequence).iter().filter(|line| line.interval.end > bases);
        let Some(line) = past.min_by_key(|line| line.line) else { return Ok(()) };
        Err(Error::PastEnd {
            file: of.to_owned(),
            sequence: sequence.to_owned(),
            interval: line.interval,
            origin: self.origin(line.line),
            bases,
        })
    }

    /// Refuses lines of sequences that are not in `known`, which are those of `of`, a file that nobody can rename.
    pub fn check_names(&self, of: &Path, known: &[&str]) -> Result<(), Error> {
        let there: HashSet<&str> = known.iter().copied().collect();
        match self.sequences.keys().find(|name| !there.contains(name.as_str())) {
            None => Ok(()),
            Some(sequence) => {
                let hint = format!("it has {}; expected intervals and names of one assembly", list(known));
                Err(self.unknown(of, sequence, hint))
            }
        }
    }

    /// The error for a sequence that no record of the sources `of` is called by.
    pub fn no_record(&self, of: &Path, sequence: &str, known: &[&str]) -> Error {
        self.unknown(of, sequence, hint(&[sequence], known))
    }

    fn unknown(&self, of: &Path, sequence: &str, hint: String) -> Error {
        let first = self.of(sequence).iter().map(|line| line.line).min().unwrap_or_default();
        Error::UnknownSequence {
            file: of.to_owned(),
            sequence: sequence.to_owned(),
            origin: self.origin(first),
            hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_apart_and_know_where_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.bed");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Lines::read(&file)
        };
        let lines = read("# c\na\t50\t60\nb\t0\t9\na\t5\t20\na\t5\t55\n").unwrap();
        let found =
            |name| lines.of(name).iter().map(|l| (l.interval.to_string(), l.line)).collect::<Vec<_>>();
        assert_eq!(found("a"), [("5-20".into(), 4), ("5-55".into(), 5), ("50-60".into(), 2)]);
        assert_eq!(found("c"), []);
        assert_eq!(lines.sequences().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
        let shown = file.display();
        let of = Path::new("y.fa");
        lines.check_end(of, "a", 60).unwrap();
        lines.check_names(of, &["b", "a", "c"]).unwrap();
        for (error, expected) in [
            (
                lines.check_end(of, "a", 54).unwrap_err(),
                format!("cannot take `a:50-60` (`{shown}`, line 2): `a` of `y.fa` has 54 bases"),
            ),
            (
                lines.check_names(of, &["b", "chrA"]).unwrap_err(),
                format!(
                    "cannot take regions of `a` (`{shown}`, line 2): `y.fa` has no such sequence; it has `b`, `chrA`; \
                     expected intervals and names of one assembly"
                ),
            ),
            (
                lines.no_record(of, "b", &["a", "chrB"]),
                format!(
                    "cannot take regions of `b` (`{shown}`, line 3): `y.fa` has no such sequence; it has `a`, `chrB`; \
                     `rename: {{\"chrB\": \"b\"}}` in this source would make the names agree"
                ),
            ),
            (read("# c\n").unwrap_err(), format!("cannot take regions from `{shown}`: found no interval")),
            (
                read("a\t9\t9\n").unwrap_err(),
                format!(
                    "cannot read `{shown}`, line 1: found an interval of 0 bases at 9, expected a start below the end"
                ),
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }
}
