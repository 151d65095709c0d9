//! Annotation (GFF3, GTF) as a stream of features; holds one line.
//!
//! Both count from 1 and include the last base; a [`Feature`]'s interval is 0-based and half-open. They differ in the
//! last column, `key=value;key=value` or `key "value"; key "value";`, which shows in each line.

use std::borrow::Cow;
use std::path::Path;

use super::columns::{Error, Problem, wrong};
use super::input::{Input, Lines};
use crate::units::{Interval, Strand};

/// Columns of a feature's line.
const COLUMNS: usize = 9;

/// A feature of a sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Feature<'a> {
    /// The sequence, as the file writes it.
    pub sequence: &'a str,
    /// The program or database that made it.
    pub source: &'a str,
    /// What it is, such as `gene` or `CDS`.
    pub kind: &'a str,
    /// Where it lies.
    pub interval: Interval,
    /// Of the source's own making.
    pub score: Option<f64>,
    /// None where the feature has no strand or it is unknown.
    pub strand: Option<Strand>,
    /// For a CDS: bases to the next codon's start, 0 to 2.
    pub phase: Option<u8>,
    /// As the file has them.
    attributes: &'a str,
}

impl<'a> Feature<'a> {
    /// The value of the attribute `key`; where GFF3 has a list, its parts are separated by commas, where GTF has several
    /// values of one key, it is the first.
    pub fn attribute(&self, key: &str) -> Option<Cow<'a, str>> {
        if is_gtf(self.attributes) {
            return gtf_attribute(self.attributes, key).map(Cow::Borrowed);
        }
        let pairs = self.attributes.split(';').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find_map(|(k, value)| (k.trim() == key).then(|| decode_percent(value)))
    }
}

/// Whether attributes are `key "value";`: GFF3 has a `=` before any quotation mark.
fn is_gtf(attributes: &str) -> bool {
    attributes.find(['=', '"']).is_some_and(|at| attributes[at..].starts_with('"'))
}

/// The value of `key` among `key "value"; key 5;`; quotation marks may hold semicolons.
fn gtf_attribute<'a>(attributes: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = attributes.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once(char::is_whitespace)?;
        let (value, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(';').unwrap_or((after, "")),
        };
        if name == key {
            return Some(value.trim());
        }
        rest = after.trim_start_matches(|c: char| c == ';' || c.is_whitespace());
    }
    None
}

/// Reads a GFF3 or GTF file.
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

    /// Line of the last feature, from 1.
    pub fn line(&self) -> u64 {
        self.lines.number()
    }

    /// The next feature, none at the end of the file or of its annotation (`##FASTA`).
    ///
    /// Comments, directives and empty lines are passed.
    pub fn next_feature(&mut self) -> Result<Option<Feature<'_>>, Error> {
        loop {
            match self.lines.next_line()? {
                None => return Ok(None),
                Some(line) if line.starts_with(b"##FASTA") || line.starts_with(b">") => return Ok(None),
                Some(line) if line.is_empty() || line.starts_with(b"#") => {}
                Some(_) => break,
            }
        }
        let (file, line) = (self.lines.file(), self.lines.number());
        let feature = parse(self.lines.current());
        feature.map(Some).map_err(|problem| Error::Line { file: file.to_owned(), line, problem })
    }
}

fn parse(line: &[u8]) -> Result<Feature<'_>, Problem> {
    let line = str::from_utf8(line).map_err(|_| Problem::NotUtf8)?;
    let mut columns = [""; COLUMNS];
    let mut found = 0;
    for text in line.split('\t') {
        if let Some(column) = columns.get_mut(found) {
            *column = text;
        }
        found += 1;
    }
    if found != COLUMNS {
        return Err(Problem::Columns { found, expected: "tab-separated columns, expected 9" });
    }
    let [sequence, source, kind, start, end, score, strand, phase, attributes] = columns;
    Ok(Feature {
        sequence,
        source,
        kind,
        interval: parse_interval(start, end)?,
        score: parse_optional("score", score, "`.` or a number")?,
        strand: parse_strand(strand)?,
        phase: parse_phase(phase)?,
        attributes,
    })
}

/// From 1 and closed to 0-based and half-open.
fn parse_interval(start: &str, end: &str) -> Result<Interval, Problem> {
    let start = parse_position("start", start)?;
    let end = parse_position("end", end)?;
    if start > end {
        return Err(Problem::Backwards { start, end, expected: "not after" });
    }
    Ok(Interval::new(start - 1, end))
}

fn parse_position(column: &'static str, text: &str) -> Result<u64, Problem> {
    let position = text.parse().ok().filter(|&position| position >= 1);
    position.ok_or_else(|| wrong(column, text, "a whole number from 1"))
}

fn parse_strand(text: &str) -> Result<Option<Strand>, Problem> {
    match text {
        "." | "?" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| wrong("strand", text, "`+`, `-`, `.` or `?`")),
    }
}

fn parse_phase(text: &str) -> Result<Option<u8>, Problem> {
    let expected = "`.`, `0`, `1` or `2`";
    let phase = parse_optional("phase", text, expected)?;
    if phase.is_some_and(|phase| phase > 2) { Err(wrong("phase", text, expected)) } else { Ok(phase) }
}

/// `.` stands for nothing.
fn parse_optional<T: std::str::FromStr>(
    column: &'static str,
    text: &str,
    expected: &'static str,
) -> Result<Option<T>, Problem> {
    if text == "." {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| wrong(column, text, expected))
}

/// Replaces each `%XX` by the byte that it stands for; a `%` without two digits stays.
fn decode_percent(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let decoded = (*first == b'%').then(|| after.first_chunk().copied().and_then(parse_hex)).flatten();
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse_hex(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn reader(text: &str) -> Reader {
        Reader::new(Input::new("x.gff3", Cursor::new(text.as_bytes().to_vec())).unwrap())
    }

    #[test]
    fn features_are_half_open_and_comments_are_passed() {
        let mut reader = reader(
            "##gff-version 3\n\n#!x\r\nchrI\tSGD\tCDS\t1\t10\t.\t-\t2\tID=a%3Bb;Note=x=y,z\r\n\
             chrI\tSGD\tgene\t5\t5\t1.5\t?\t.\t.\n##FASTA\n>chrI\nACGT\n",
        );
        let feature = reader.next_feature().unwrap().unwrap();
        assert_eq!((feature.sequence, feature.source, feature.kind), ("chrI", "SGD", "CDS"));
        assert_eq!((feature.interval, feature.score), (Interval::new(0, 10), None));
        assert_eq!((feature.strand, feature.phase), (Some(Strand::Reverse), Some(2)));
        assert_eq!(feature.attribute("ID").as_deref(), Some("a;b"));
        assert_eq!(feature.attribute("Note").as_deref(), Some("x=y,z"));
        assert_eq!(feature.attribute("Parent"), None);
        assert_eq!(reader.line(), 4);
        let feature = reader.next_feature().unwrap().unwrap();
        assert_eq!((feature.interval, feature.score), (Interval::new(4, 5), Some(1.5)));
        assert_eq!((feature.strand, feature.phase), (None, None));
        assert_eq!(reader.next_feature().unwrap(), None);
    }

    #[test]
    fn wrong_lines_are_refused_by_number() {
        for (line, expected) in [
            ("a\tb\tc", "found 3 tab-separated columns, expected 9"),
            ("a\tb\tc\t1\t2\t.\t+\t.\tx\ty", "found 10 tab-separated columns, expected 9"),
            ("a\tb\tc\t0\t2\t.\t+\t.\t.", "found start `0`, expected a whole number from 1"),
            ("a\tb\tc\t-5\t2\t.\t+\t.\t.", "found start `-5`, expected a whole number from 1"),
            ("a\tb\tc\t1\tend\t.\t+\t.\t.", "found end `end`, expected a whole number from 1"),
            ("a\tb\tc\t9\t2\t.\t+\t.\t.", "found start 9 after end 2, expected a start not after the end"),
            ("a\tb\tc\t1\t2\thigh\t+\t.\t.", "found score `high`, expected `.` or a number"),
            ("a\tb\tc\t1\t2\t.\t*\t.\t.", "found strand `*`, expected `+`, `-`, `.` or `?`"),
            ("a\tb\tc\t1\t2\t.\t+\t3\t.", "found phase `3`, expected `.`, `0`, `1` or `2`"),
        ] {
            let error = reader(&format!("##gff-version 3\n{line}\n")).next_feature().unwrap_err();
            assert_eq!(error.to_string(), format!("cannot read `x.gff3`, line 2: {expected}"));
        }
    }

    #[test]
    fn attributes_of_gtf_are_read() {
        let mut reader = reader(
            "#!genome-build x\nchr1\tHAVANA\texon\t11\t20\t.\t+\t.\tgene_id \"G=1;2\"; exon_number 3; tag \"a\"; tag \"b\";\n",
        );
        let feature = reader.next_feature().unwrap().unwrap();
        assert_eq!((feature.kind, feature.interval), ("exon", Interval::new(10, 20)));
        for (key, expected) in
            [("gene_id", Some("G=1;2")), ("exon_number", Some("3")), ("tag", Some("a")), ("gene", None)]
        {
            assert_eq!(feature.attribute(key).as_deref(), expected, "{key}");
        }
    }

    proptest::proptest! {
        /// Whatever the attributes are: a value or none; never a panic.
        #[test]
        fn any_attributes_are_read(attributes in "[a-c=;\" %0-9é]{0,30}") {
            drop(reader(&format!("a\tb\tc\t1\t2\t.\t+\t.\t{attributes}\n")).next_feature().map(|feature| {
                feature.and_then(|feature| feature.attribute("a").map(Cow::into_owned))
            }));
        }
    }

    #[test]
    fn percent_codes_are_decoded() {
        for (text, expected) in
            [("a", "a"), ("%41%20b", "A b"), ("%4", "%4"), ("%zz%", "%zz%"), ("%C3%A9", "é")]
        {
            assert_eq!(decode_percent(text), expected);
        }
    }
}
