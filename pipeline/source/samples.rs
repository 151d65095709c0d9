//! A table of samples: one file a row, with the name, the taxonomy and the weight of its source. Holds the table.
//!
//! TSV, or CSV where the first line has no tab. The first line names the columns: `path`, and if wanted `mates` (the
//! second file of paired FASTQ), `name`, `taxonomy`, `weight`; any other column is refused. Paths are relative to the
//! table.

use std::path::{Path, PathBuf};

use super::input::{self, Input};

/// The columns that a table may have.
const COLUMNS: [&str; 5] = ["path", "mates", "name", "taxonomy", "weight"];

/// The largest table that is read, in bytes.
const MAX_BYTES: usize = 256 << 20;

/// Why a table is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes of the file cannot be had.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// A table without rows, or one too large.
    #[error("cannot read `{}`: found {found}, expected {expected}", file.display())]
    Size {
        /// The file.
        file: PathBuf,
        /// What there is.
        found: String,
        /// What there should be.
        expected: String,
    },
    /// A line that is wrong.
    #[error("cannot read `{}`, line {line}: {problem}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// What was found and expected.
        problem: String,
    },
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The file; relative to what the table's own path is relative to.
    pub path: PathBuf,
    /// The file of the second mates.
    pub mates: Option<PathBuf>,
    /// What its source is called.
    pub name: Option<String>,
    /// Where it stands among living things, as the table writes it.
    pub taxonomy: Option<String>,
    /// How much it counts beside the others; finite and above 0.
    pub weight: Option<f64>,
    /// Line of the table, from 1.
    pub line: u64,
}

/// Reads a table; `path` is where it lies, `written` the same path as the workflow has it.
pub fn read(path: &Path, written: &Path) -> Result<Vec<Sample>, Error> {
    let mut bytes = Vec::new();
    if Input::open(path)?.read_up_to(MAX_BYTES + 1, &mut bytes)? > MAX_BYTES {
        let (found, expected) = (format!("more than {MAX_BYTES} bytes"), "a smaller table".to_owned());
        return Err(Error::Size { file: path.to_owned(), found, expected });
    }
    parse(path, &bytes, written.parent().unwrap_or(Path::new("")))
}

fn parse(file: &Path, bytes: &[u8], folder: &Path) -> Result<Vec<Sample>, Error> {
    let first_line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let delimiter = if first_line.contains(&b'\t') { b'\t' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let error = |line, problem| Error::Line { file: file.to_owned(), line, problem };
    let headers = reader.headers().map_err(|e| error(1, plain(&e)))?.clone();
    check_headers(&headers).map_err(|problem| error(1, problem))?;
    let mut samples = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| error(line_at(bytes, e.position()), plain(&e)))?;
        let line = line_at(bytes, record.position());
        samples.push(sample(&headers, &record, folder, line).map_err(|problem| error(line, problem))?);
    }
    if samples.is_empty() {
        let (found, expected) =
            ("no row".to_owned(), "a line of column names, and a row per file".to_owned());
        return Err(Error::Size { file: file.to_owned(), found, expected });
    }
    Ok(samples)
}

/// The line of a record, from 1; the reader's own count is one too low after `\r\n`.
fn line_at(bytes: &[u8], position: Option<&csv::Position>) -> u64 {
    let at = position.and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(0);
    let ends = bytes[at.min(bytes.len())..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let before = &bytes[..(at + ends).min(bytes.len())];
    memchr::memchr_iter(b'\n', before).count() as u64 + 1
}

/// What the CSV reader found, without its own account of the place.
fn plain(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("found {len} columns, expected {expected_len} as in the first line")
        }
        csv::ErrorKind::Utf8 { .. } => "found bytes that are not UTF-8, expected text".to_owned(),
        _ => error.to_string(),
    }
}

fn check_headers(headers: &csv::StringRecord) -> Result<(), String> {
    for (i, name) in headers.iter().enumerate() {
        if !COLUMNS.contains(&name) {
            let columns = COLUMNS.map(|column| format!("`{column}`")).join(", ");
            return Err(format!("found column `{}`, expected some of {columns}", name.escape_debug()));
        }
        if headers.iter().take(i).any(|other| other == name) {
            return Err(format!("found two columns `{name}`, expected one"));
        }
    }
    if headers.iter().any(|name| name == "path") { Ok(()) } else { Err("found no column `path`".to_owned()) }
}

fn sample(
    headers: &csv::StringRecord,
    record: &csv::StringRecord,
    folder: &Path,
    line: u64,
) -> Result<Sample, String> {
    let column = |name: &str| {
        let at = headers.iter().position(|header| header == name)?;
        record.get(at).filter(|text| !text.is_empty())
    };
    let weight = column("weight").map(|text| {
        let weight = text.parse().ok().filter(|weight: &f64| weight.is_finite() && *weight > 0.0);
        weight.ok_or_else(|| format!("found weight `{}`, expected a number above 0", text.escape_debug()))
    });
    Ok(Sample {
        path: folder.join(column("path").ok_or("found no path, expected one")?),
        mates: column("mates").map(|mates| folder.join(mates)),
        name: column("name").map(str::to_owned),
        taxonomy: column("taxonomy").map(str::to_owned),
        weight: weight.transpose()?,
        line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Sample>, String> {
        let samples = parse(Path::new("s.tsv"), text.as_bytes(), Path::new("in"));
        samples.map_err(|error| error.to_string())
    }

    #[test]
    fn rows_become_samples() {
        let expected = Sample {
            path: PathBuf::from("in/a.fa"),
            mates: None,
            name: Some("x".to_owned()),
            taxonomy: Some("Fungi; Ascomycota".to_owned()),
            weight: Some(0.5),
            line: 2,
        };
        let bare = Sample {
            path: "/b.fa".into(),
            name: None,
            taxonomy: None,
            weight: None,
            line: 3,
            ..expected.clone()
        };
        for text in [
            "path\tname\ttaxonomy\tweight\na.fa\tx\tFungi; Ascomycota\t0.5\n/b.fa\t\t\t\n",
            "path,name,taxonomy,weight\r\na.fa,x,\"Fungi; Ascomycota\",0.5\r\n/b.fa,,,\r\n",
        ] {
            assert_eq!(parsed(text).unwrap(), [expected.clone(), bare.clone()], "{text}");
        }
    }

    #[test]
    fn wrong_tables_are_refused_by_line() {
        for (text, expected) in [
            ("", "cannot read `s.tsv`, line 1: found no column `path`"),
            (
                "path\n",
                "cannot read `s.tsv`: found no row, expected a line of column names, and a row per file",
            ),
            (
                "path\tspecies\na\tb\n",
                "cannot read `s.tsv`, line 1: found column `species`, expected some of `path`, `mates`, `name`, \
                 `taxonomy`, `weight`",
            ),
            ("path,path\na,b\n", "cannot read `s.tsv`, line 1: found two columns `path`, expected one"),
            (
                "path,name\na\n",
                "cannot read `s.tsv`, line 2: found 1 columns, expected 2 as in the first line",
            ),
            ("path,name\n,b\n", "cannot read `s.tsv`, line 2: found no path, expected one"),
            (
                "path,weight\na,1\nb,-1\n",
                "cannot read `s.tsv`, line 3: found weight `-1`, expected a number above 0",
            ),
            (
                "path,weight\na,inf\n",
                "cannot read `s.tsv`, line 2: found weight `inf`, expected a number above 0",
            ),
        ] {
            assert_eq!(parsed(text).unwrap_err(), expected, "{text:?}");
        }
    }
}
