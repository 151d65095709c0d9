//! VCF as a stream of variants: their alleles, and what the file says of them. Holds one line; genotypes are passed over.
//!
//! VCF counts from 1; a [`Record`]'s position is 0-based.

use std::path::Path;

use super::columns::{Error, Problem, wrong};
use super::input::{Input, Lines};

/// A line of a VCF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The sequence, as the file writes it.
    pub sequence: &'a str,
    /// The first base of `reference`, from 0.
    pub position: u64,
    /// The third column, `.` where there is none.
    pub id: &'a str,
    /// The bases of the reference, as the file has them.
    pub reference: &'a str,
    /// The other alleles, separated by commas.
    pub alternatives: &'a str,
    /// The seventh column, such as `PASS`.
    pub filter: &'a str,
    /// The eighth column: `KEY=value` and flags, separated by semicolons.
    info: &'a str,
}

impl<'a> Record<'a> {
    /// The value of a key of the eighth column, empty of a flag; none where it is not there.
    pub fn info(&self, key: &str) -> Option<&'a str> {
        self.info.split(';').find_map(|field| {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            (name == key).then_some(value)
        })
    }
}

/// Reads a VCF file.
pub struct Reader {
    lines: Lines,
}

impl Reader {
    /// Opens a file, plain or compressed, or standard input for the path `-`.
    ///
    /// # Errors
    /// [`Error`] when it cannot be opened.
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

    /// The next variant, none at the end of the file; headers and empty lines are passed.
    ///
    /// # Errors
    /// [`Error`] with the line.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, Error> {
        loop {
            match self.lines.next_line()? {
                None => return Ok(None),
                Some(line) if line.is_empty() || line.starts_with(b"#") => {}
                Some(_) => break,
            }
        }
        let (file, line) = (self.lines.file(), self.lines.number());
        let record = parse(self.lines.current());
        record.map(Some).map_err(|problem| Error::Line { file: file.to_owned(), line, problem })
    }
}

fn parse(line: &[u8]) -> Result<Record<'_>, Problem> {
    let line = str::from_utf8(line).map_err(|_| Problem::NotUtf8)?;
    let mut columns = line.split('\t');
    let mut found = 0;
    let [sequence, position, id, reference, alternatives, _, filter, info] = [(); 8].map(|()| {
        let column = columns.next();
        found += usize::from(column.is_some());
        column.unwrap_or_default()
    });
    if found < 8 {
        return Err(Problem::Columns { found, expected: "tab-separated columns, expected at least 8" });
    }
    let place = position.parse::<u64>().ok().and_then(|position| position.checked_sub(1));
    let position = place.ok_or_else(|| wrong("position", position, "a whole number from 1"))?;
    if sequence.is_empty() {
        return Err(wrong("sequence", sequence, "a name"));
    }
    if reference.is_empty() || reference.bytes().any(|base| !base.is_ascii_alphabetic()) {
        return Err(wrong("reference", reference, "bases"));
    }
    Ok(Record { sequence, position, id, reference, alternatives, filter, info })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_or_refused() {
        for (line, expected) in [
            (
                "chr1\t5\trs1\tA\tC,G\t.\tPASS\tAF=0.1,0.2;DB\tGT\t0/1",
                Ok(("chr1", 4, "A", "C,G", Some("0.1,0.2"))),
            ),
            ("1\t1\t.\tACG\tA\t9\t.\t.", Ok(("1", 0, "ACG", "A", None))),
            ("1\t0\t.\tA\tC\t.\t.\t.", Err("found position `0`, expected a whole number from 1")),
            ("1\t5\t.\t-\tC\t.\t.\t.", Err("found reference `-`, expected bases")),
            ("1 5 . A C", Err("found 1 tab-separated columns, expected at least 8")),
        ] {
            let found = parse(line.as_bytes());
            let found =
                found.as_ref().map(|r| (r.sequence, r.position, r.reference, r.alternatives, r.info("AF")));
            assert_eq!(found.map_err(ToString::to_string), expected.map_err(str::to_owned), "{line}");
        }
        assert_eq!(parse(b"1\t5\t.\tA\tC\t.\t.\tX;DB").unwrap().info("DB"), Some(""));
    }
}
