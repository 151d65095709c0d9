//! Tables (CSV; TSV by the file's name), plain, gzip or BGZF, as benchmarks and taxonomies come. The first row names the
//! columns. Holds one row.

use std::io;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ErrorKind, ReaderBuilder, Trim};

use super::input::{self, Input};
use crate::sequence::alphabet;
use crate::units::Strand;

/// Why a table is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes of the file cannot be had.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// No column has the name that was asked for.
    #[error("cannot read `{}`, line 1: found no column `{column}`; there are {found}", file.display())]
    Column {
        /// The file.
        file: PathBuf,
        /// The name.
        column: String,
        /// The names of the columns, in words.
        found: String,
    },
    /// A row that is longer or shorter than the first one, or no CSV.
    #[error("cannot read `{}`, line {line}: {problem}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Reads some columns of a table.
pub struct Reader {
    file: PathBuf,
    inner: csv::Reader<Input>,
    /// The places of the columns that were asked for.
    columns: Vec<usize>,
    row: ByteRecord,
}

impl Reader {
    /// Opens a table to read the columns of these names.
    pub fn open(path: &Path, columns: &[&str]) -> Result<Self, Error> {
        let input = Input::open(path)?;
        let file = input.file().to_owned();
        let delimiter = if is_tsv(&file) { b'\t' } else { b',' };
        let mut inner = ReaderBuilder::new().delimiter(delimiter).trim(Trim::All).from_reader(input);
        let headers = inner.byte_headers().map_err(|error| refuse(&file, error))?;
        let names: Vec<String> =
            headers.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let place = |column: &&str| {
            names.iter().position(|name| name == column).ok_or_else(|| {
                let found = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                let found = if found.is_empty() { "none".to_owned() } else { found };
                Error::Column { file: file.clone(), column: (*column).to_owned(), found }
            })
        };
        let columns = columns.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Self { file, inner, columns, row: ByteRecord::new() })
    }

    /// The place of one more column, if there is one of this name.
    pub fn optional(&mut self, column: &str) -> Option<usize> {
        let headers = self.inner.byte_headers().ok()?;
        let place = headers.iter().position(|name| name == column.as_bytes())?;
        self.columns.push(place);
        Some(self.columns.len() - 1)
    }

    /// The row's line, from 1.
    pub fn line(&self) -> u64 {
        self.row.position().map_or(0, csv::Position::line)
    }

    /// Goes to the next row; false at the end.
    pub fn next_row(&mut self) -> Result<bool, Error> {
        self.inner.read_byte_record(&mut self.row).map_err(|error| refuse(&self.file, error))
    }

    /// A column of the row, by its place among those that were asked for: at least one IUPAC code.
    pub fn sequence(&self, column: usize) -> Result<&[u8], Error> {
        let sequence = self.field(column);
        if sequence.is_empty() {
            return Err(self.wrong("found an empty sequence, expected bases".to_owned()));
        }
        alphabet::first_invalid(sequence).map_or(Ok(sequence), |at| {
            let found = sequence[at];
            Err(self.wrong(format!(
                "base {at} of the sequence is byte {found:#04X}, which is no IUPAC nucleotide code"
            )))
        })
    }

    /// A column of the row, by its place among those that were asked for: text that is not empty.
    pub fn text(&self, column: usize) -> Result<&str, Error> {
        let text = std::str::from_utf8(self.field(column));
        let text =
            text.map_err(|_| self.wrong("found bytes that are not UTF-8, expected text".to_owned()))?;
        if text.is_empty() {
            Err(self.wrong("found an empty column, expected text".to_owned()))
        } else {
            Ok(text)
        }
    }

    /// A column of the row: a number, not below 0.
    pub fn number(&self, column: usize) -> Result<u64, Error> {
        let text = self.text(column)?;
        text.parse().map_err(|_| self.wrong(format!("found `{text}`, expected a number of bases")))
    }

    /// A column of the row: a strand, which may be empty.
    pub fn strand(&self, column: usize) -> Result<Option<Strand>, Error> {
        if self.field(column).is_empty() {
            return Ok(None);
        }
        self.text(column)?.parse().map(Some).map_err(|problem| self.wrong(problem))
    }

    fn field(&self, column: usize) -> &[u8] {
        self.columns.get(column).and_then(|&place| self.row.get(place)).unwrap_or_default()
    }

    /// What is wrong with this row.
    pub fn wrong(&self, problem: String) -> Error {
        Error::Row { file: self.file.clone(), line: self.line(), problem }
    }
}

/// Whether a file's name, without `.gz` or `.bgz`, ends in `.tsv`.
fn is_tsv(file: &Path) -> bool {
    let ends = |path: &Path, endings: &[&str]| {
        path.extension().is_some_and(|found| endings.iter().any(|ending| found.eq_ignore_ascii_case(ending)))
    };
    let plain = if ends(file, &["gz", "bgz"]) { file.with_extension("") } else { file.to_owned() };
    ends(&plain, &["tsv"])
}

fn refuse(file: &Path, error: csv::Error) -> Error {
    let line = error.position().map_or(1, csv::Position::line);
    let problem = match error.into_kind() {
        ErrorKind::Io(error) => return input::Error::from_io(error, file).into(),
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("found {len} columns, expected {expected_len}")
        }
        other => io::Error::other(format!("{other:?}")).to_string(),
    };
    Error::Row { file: file.to_owned(), line, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let shorten = |error: Error| error.to_string().replace(folder.path().to_str().unwrap(), "");
        let mut reader = Reader::open(&path, &["sequence"]).map_err(shorten)?;
        let mut found = Vec::new();
        while reader.next_row().map_err(shorten)? {
            found.push(String::from_utf8(reader.sequence(0).map_err(shorten)?.to_vec()).unwrap());
        }
        Ok(found)
    }

    #[test]
    fn one_column_is_read() {
        for (name, text, expected) in [
            ("t.csv", "sequence,label\nACGT,1\nacn,0\n", Ok(vec!["ACGT", "acn"])),
            ("t.csv", "id,sequence\r\n1,\"AC\"\r\n2, GT \r\n", Ok(vec!["AC", "GT"])),
            ("t.csv", "sequence\n", Ok(vec![])),
            ("t.tsv", "label\tsequence\n1\tAC\n", Ok(vec!["AC"])),
            ("t.csv", "", Err("cannot read `/t.csv`, line 1: found no column `sequence`; there are none")),
            (
                "t.csv",
                "id,seq\n1,A\n",
                Err("cannot read `/t.csv`, line 1: found no column `sequence`; there are `id`, `seq`"),
            ),
            (
                "t.csv",
                "sequence,label\nAC,1\nAC\n",
                Err("cannot read `/t.csv`, line 3: found 1 columns, expected 2"),
            ),
            (
                "t.csv",
                "sequence,label\nAC,1\n,1\n",
                Err("cannot read `/t.csv`, line 3: found an empty sequence, expected bases"),
            ),
            (
                "t.csv",
                "sequence\nACE\n",
                Err(
                    "cannot read `/t.csv`, line 2: base 2 of the sequence is byte 0x45, which is no IUPAC nucleotide code",
                ),
            ),
        ] {
            let expected =
                expected.map(|rows| rows.into_iter().map(str::to_owned).collect()).map_err(str::to_owned);
            assert_eq!(read(name, text), expected, "{text:?}");
        }
    }

    #[test]
    fn several_columns_are_read_as_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, "contig,size,genus\na,1,Homo\nb,2,\n").unwrap();
        let mut reader = Reader::open(&path, &["genus", "contig"]).unwrap();
        assert!(reader.next_row().unwrap());
        assert_eq!((reader.text(0).unwrap(), reader.text(1).unwrap()), ("Homo", "a"));
        assert!(reader.next_row().unwrap());
        let error = reader.text(0).unwrap_err().to_string();
        assert!(error.ends_with("line 3: found an empty column, expected text"), "{error}");
        assert!(!reader.next_row().unwrap());
    }

    #[test]
    fn tabs_follow_the_name() {
        for (name, expected) in
            [("a.tsv", true), ("a.TSV.gz", true), ("a.csv.gz", false), ("a.gz", false), ("tsv", false)]
        {
            assert_eq!(is_tsv(Path::new(name)), expected, "{name}");
        }
    }
}
