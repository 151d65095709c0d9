//! BED as a stream of intervals; holds one line.
//!
//! BED is 0-based and half-open, as intervals are here. Lines need three columns, separated by tabs (or by blanks where
//! the line has no tab); comments, `track` and `browser` lines and empty ones are passed.

use std::path::Path;

use super::columns::{Error, Problem, wrong};
use super::input::{Input, Lines};
use crate::units::{Interval, Strand};

/// A line of a BED file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The sequence, as the file writes it.
    pub sequence: &'a str,
    /// Where on it; at least one base.
    pub interval: Interval,
    /// The fourth column, where there is one.
    pub name: Option<&'a str>,
    /// The sixth column, where there is one and it is no `.`.
    pub strand: Option<Strand>,
    /// The tenth column of ten: how far from the start the summit of a narrowPeak lies, in bases; none for -1.
    pub summit: Option<u64>,
}

/// Reads a BED file.
pub struct Reader {
    lines: Lines,
}

impl Reader {
    /// Opens a file, plain or compressed, or standard input for the path `-`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self::new(Input::open(path)?))
    }

    /// Reads plain bytes.
    pub fn new(input: Input) -> Self {
        Self { lines: Lines::new(input) }
    }

    /// Number of the last line, from 1.
    pub fn line(&self) -> u64 {
        self.lines.number()
    }

    /// The next interval, none at the end of the file.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, Error> {
        loop {
            match self.lines.next_line()? {
                None => return Ok(None),
                Some(line) if is_passed(line) => {}
                Some(_) => break,
            }
        }
        let (file, line) = (self.lines.file(), self.lines.number());
        let parsed = parse(self.lines.current());
        parsed.map(Some).map_err(|problem| Error::Line { file: file.to_owned(), line, problem })
    }
}

fn is_passed(line: &[u8]) -> bool {
    let is_word = |word: &[u8]| {
        line.strip_prefix(word).is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
    };
    line.trim_ascii().is_empty() || line.starts_with(b"#") || is_word(b"track") || is_word(b"browser")
}

fn parse(line: &[u8]) -> Result<Line<'_>, Problem> {
    let line = str::from_utf8(line).map_err(|_| Problem::NotUtf8)?;
    let mut columns = [None; 10];
    let mut found = 0;
    let mut keep = |text| {
        if let Some(column) = columns.get_mut(found) {
            *column = Some(text);
        }
        found += 1;
    };
    if line.contains('\t') {
        line.split('\t').for_each(&mut keep);
    } else {
        line.split_ascii_whitespace().for_each(&mut keep);
    }
    let [Some(sequence), Some(start), Some(end), name, _, strand, _, _, _, summit] = columns else {
        return Err(Problem::Columns {
            found,
            expected: "columns, expected at least 3: sequence, start, end",
        });
    };
    if sequence.is_empty() {
        return Err(wrong("sequence", sequence, "a name"));
    }
    let (interval, strand) = (parse_interval(start, end)?, parse_strand(strand)?);
    let summit = summit.filter(|_| found == 10).and_then(|summit| summit.parse().ok());
    let summit = summit.filter(|&summit| summit < interval.end - interval.start);
    Ok(Line { sequence, interval, name, strand, summit })
}

fn parse_interval(start: &str, end: &str) -> Result<Interval, Problem> {
    let (start, end) = (parse_position("start", start)?, parse_position("end", end)?);
    match start.cmp(&end) {
        std::cmp::Ordering::Less => Ok(Interval::new(start, end)),
        std::cmp::Ordering::Equal => Err(Problem::Empty { at: start }),
        std::cmp::Ordering::Greater => Err(Problem::Backwards { start, end, expected: "below" }),
    }
}

fn parse_position(column: &'static str, text: &str) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let position = text.parse().ok().filter(|_| digits);
    position.ok_or_else(|| wrong(column, text, "a whole number from 0"))
}

fn parse_strand(text: Option<&str>) -> Result<Option<Strand>, Problem> {
    match text {
        None | Some("." | "") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| wrong("strand", text, "`+`, `-` or `.`")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn reader(bytes: &[u8]) -> Reader {
        Reader::new(Input::new("x.bed", Cursor::new(bytes.to_vec())).unwrap())
    }

    #[test]
    fn intervals_are_read_and_other_lines_passed() {
        let mut reader = reader(
            b"# c\ntrack name=x\nbrowser position chr1\n\nchr1\t0\t10\ta b\t0\t-\tmore\r\ntrack2 5 6 n 0 .\n",
        );
        let line = reader.next_line().unwrap().unwrap();
        assert_eq!((line.sequence, line.interval), ("chr1", Interval::new(0, 10)));
        assert_eq!((line.name, line.strand), (Some("a b"), Some(Strand::Reverse)));
        assert_eq!(reader.line(), 5);
        let line = reader.next_line().unwrap().unwrap();
        assert_eq!((line.sequence, line.interval, line.strand), ("track2", Interval::new(5, 6), None));
        assert_eq!(reader.next_line().unwrap(), None);
    }

    #[test]
    fn wrong_lines_are_refused_by_number() {
        for (line, expected) in [
            ("chr1\t5", "found 2 columns, expected at least 3: sequence, start, end"),
            ("chr1\t-5\t9", "found start `-5`, expected a whole number from 0"),
            ("chr1\t+5\t9", "found start `+5`, expected a whole number from 0"),
            ("chr1\t5\tend", "found end `end`, expected a whole number from 0"),
            (
                "chr1\t5\t99999999999999999999",
                "found end `99999999999999999999`, expected a whole number from 0",
            ),
            ("chr1\t9\t5", "found start 9 after end 5, expected a start below the end"),
            ("chr1\t9\t9", "found an interval of 0 bases at 9, expected a start below the end"),
            ("\t9\t10", "found sequence ``, expected a name"),
            ("chr1\t5\t9\tn\t0\tplus", "found strand `plus`, expected `+`, `-` or `.`"),
        ] {
            let error = reader(format!("#\n{line}\n").as_bytes()).next_line().unwrap_err();
            assert_eq!(error.to_string(), format!("cannot read `x.bed`, line 2: {expected}"));
        }
        let error = reader(b"chr\xFF\t1\t2\n").next_line().unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read `x.bed`, line 1: found bytes that are not UTF-8, expected text"
        );
    }

    proptest::proptest! {
        /// Whatever the bytes are: intervals, or an error; never a panic.
        #[test]
        fn any_bytes_are_read_or_refused(text in "[chr0-9\t \n.+-]{0,80}") {
            let mut reader = reader(text.as_bytes());
            while let Ok(Some(line)) = reader.next_line() {
                assert!(!line.interval.is_empty());
            }
        }
    }
}
