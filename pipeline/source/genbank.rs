//! The sequence of GenBank flat files as a stream of events like those of FASTA; holds one line and one block of bases.
//!
//! A record's name is its accession with version (`VERSION`), or else the name in its `LOCUS` line. Of the annotation
//! nothing is read. Lengths are checked against the `LOCUS` line.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::fasta::{Event, Header, MAX_BLOCK_BASES};
use super::input::{self, Input, Lines};
use crate::sequence::alphabet;

/// Characters of a wrong line that a message shows.
const SHOWN: usize = 40;

/// Why a GenBank file is refused.
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
    /// A record that is wrong in itself; the next one can be read.
    #[error("cannot read record `{record}` of `{}` (line {line}): {problem}", file.display())]
    Record {
        /// The file.
        file: PathBuf,
        /// Where it shows, from 1.
        line: u64,
        /// The record's name.
        record: String,
        /// What is wrong.
        problem: RecordProblem,
    },
}

impl Error {
    /// Whether only one record is at fault, so that the reader can go on with the next one.
    pub fn is_of_one_record(&self) -> bool {
        matches!(self, Self::Record { .. })
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Something else where a record should begin.
    #[error("expected `LOCUS`, a name and a length, found `{found}`")]
    NoLocus {
        /// The beginning of the line.
        found: String,
    },
    /// No record at all.
    #[error("the file is empty; expected a GenBank record")]
    Empty,
    /// The file ends within a record.
    #[error("the file is truncated: it ends before the `//` of record `{record}`")]
    Truncated {
        /// The record's name.
        record: String,
    },
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordProblem {
    /// Amino acids.
    #[error("found a protein (`aa`), expected nucleotides (`bp`)")]
    Protein,
    /// No `ORIGIN` with bases.
    #[error(
        "found no bases after `ORIGIN`; expected the sequence itself (NCBI offers it as `GenBank (full)`)"
    )]
    NoSequence,
    /// Another number of bases than the `LOCUS` line has.
    #[error("found {found} bases, expected {expected} as in its `LOCUS` line")]
    Length {
        /// Bases.
        found: u64,
        /// Bases.
        expected: u64,
    },
    /// A byte of a sequence line that is no IUPAC code.
    #[error("found `{}` as base {position}, expected an IUPAC nucleotide code", found.escape_ascii())]
    Base {
        /// The byte.
        found: u8,
        /// Base of the record, from 0.
        position: u64,
    },
    /// A name that an earlier record has.
    #[error("found a second record of this name")]
    DuplicateName,
}

/// Reads a GenBank file.
pub struct Reader {
    lines: Lines,
    block_bases: usize,
    block: Vec<u8>,
    /// Bases of the block that were handed out.
    handed_out: usize,
    header: Header,
    /// As the record's `LOCUS` line has it.
    length: u64,
    state: State,
    /// Bases of the record handed out.
    bases: u64,
    names: HashSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A `LOCUS` line is next.
    Between,
    /// Bases are next.
    InSequence,
    /// The `//` was read, the block not yet handed out.
    Ending,
}

impl Reader {
    /// Opens a file, plain or compressed, or standard input for the path `-`.
    pub fn open(path: &Path, block_bases: usize) -> Result<Self, Error> {
        Ok(Self::new(Input::open(path)?, block_bases))
    }

    /// Reads plain bytes, in blocks of `block_bases` bases.
    pub fn new(input: Input, block_bases: usize) -> Self {
        Self {
            lines: Lines::new(input),
            block_bases: block_bases.clamp(1, MAX_BLOCK_BASES),
            block: Vec::new(),
            handed_out: 0,
            header: Header { name: String::new(), description: String::new(), line: 0 },
            length: 0,
            state: State::Between,
            bases: 0,
            names: HashSet::new(),
        }
    }

    /// Passes what is left of the record that the last event or error is about.
    pub fn skip_record(&mut self) -> Result<(), Error> {
        self.block.clear();
        self.handed_out = 0;
        while self.state != State::Between {
            if self.state == State::Ending || is_end(self.next_line()?) {
                self.state = State::Between;
            }
        }
        Ok(())
    }

    /// The next event, none at the end of the file. After an error of one record, [`Reader::skip_record`] comes first;
    /// after any other the reader is of no further use.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        if self.state == State::Between {
            return if self.begin_record()? { Ok(Some(Event::Record(&self.header))) } else { Ok(None) };
        }
        self.block.drain(..self.handed_out);
        self.handed_out = 0;
        while self.state == State::InSequence && self.block.len() < self.block_bases {
            self.take_sequence_line()?;
        }
        self.handed_out = self.block.len().min(self.block_bases);
        if self.handed_out > 0 {
            self.bases += self.handed_out as u64;
            return Ok(Some(Event::Bases(&self.block[..self.handed_out])));
        }
        if self.bases == 0 {
            return Err(self.record(RecordProblem::NoSequence));
        }
        if self.bases != self.length {
            return Err(self.record(RecordProblem::Length { found: self.bases, expected: self.length }));
        }
        self.state = State::Between;
        Ok(Some(Event::End { bases: self.bases }))
    }

    /// Reads up to the line before the bases; false at the end of the file.
    fn begin_record(&mut self) -> Result<bool, Error> {
        loop {
            match self.lines.next_line()? {
                None if self.names.is_empty() => return Err(self.line(Problem::Empty)),
                None => return Ok(false),
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(_) => break,
            }
        }
        let Some(locus) = Locus::parse(self.lines.current()) else {
            let found = shown(self.lines.current());
            return Err(self.line(Problem::NoLocus { found }));
        };
        self.header = Header { name: locus.name, description: String::new(), line: self.lines.number() };
        (self.length, self.bases, self.state) = (locus.length, 0, State::InSequence);
        self.block.clear();
        self.handed_out = 0;
        self.take_annotation()?;
        if !self.names.insert(self.header.name.clone()) {
            return Err(self.record(RecordProblem::DuplicateName));
        }
        if locus.is_protein { Err(self.record(RecordProblem::Protein)) } else { Ok(true) }
    }

    /// Takes the lines from `LOCUS` up to and with `ORIGIN`, or `//`.
    fn take_annotation(&mut self) -> Result<(), Error> {
        loop {
            let line = self.next_line()?;
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            match (line.first().is_some_and(u8::is_ascii_uppercase), words.next()) {
                (true, Some(b"ORIGIN")) => return Ok(()),
                (true, Some(b"VERSION")) => {
                    if let Some(name) = words.next().and_then(|word| str::from_utf8(word).ok()) {
                        self.header.name = name.to_owned();
                    }
                }
                _ if is_end(line) => {
                    self.state = State::Ending;
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Takes a line of bases, `  61 acgtacgtac gtac`, or the `//` after the last.
    fn take_sequence_line(&mut self) -> Result<(), Error> {
        if is_end(self.next_line()?) {
            self.state = State::Ending;
            return Ok(());
        }
        let line = self.lines.current().trim_ascii_start();
        let number = line.iter().take_while(|b| b.is_ascii_digit()).count();
        let from = self.block.len();
        self.block.extend(line[number..].iter().filter(|b| !b.is_ascii_whitespace()));
        match alphabet::first_invalid(&self.block[from..]) {
            None => Ok(()),
            Some(at) => {
                let position = self.bases + (from + at) as u64;
                Err(self.record(RecordProblem::Base { found: self.block[from + at], position }))
            }
        }
    }

    /// The next line, which must be there.
    fn next_line(&mut self) -> Result<&[u8], Error> {
        if self.lines.next_line()?.is_none() {
            return Err(self.line(Problem::Truncated { record: self.header.name.clone() }));
        }
        Ok(self.lines.current())
    }

    fn line(&self, problem: Problem) -> Error {
        Error::Line { file: self.lines.file().to_owned(), line: self.lines.number(), problem }
    }

    fn record(&self, problem: RecordProblem) -> Error {
        let (file, line) = (self.lines.file().to_owned(), self.lines.number());
        Error::Record { file, line, record: self.header.name.clone(), problem }
    }
}

fn is_end(line: &[u8]) -> bool {
    line.trim_ascii_end() == b"//"
}

/// A `LOCUS` line.
struct Locus {
    name: String,
    length: u64,
    is_protein: bool,
}

impl Locus {
    /// `LOCUS name length bp ...`
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(line).ok()?.split_ascii_whitespace();
        let name = words.next().filter(|word| *word == "LOCUS").and(words.next())?.to_owned();
        let length = words.next()?.parse().ok()?;
        let unit = words.next()?;
        matches!(unit, "bp" | "aa" | "rc").then_some(Self { name, length, is_protein: unit == "aa" })
    }
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).trim_end().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn record(name: &str, length: u64, rest: &str) -> String {
        format!(
            "LOCUS       {name}  {length} bp    DNA     circular PHG 05-JUL-2018\nDEFINITION  x.\n            ORIGIN \
             of it.\nFEATURES             Location/Qualifiers\n     source          1..{length}\n{rest}"
        )
    }

    fn read(text: &str, block: usize) -> Result<Vec<(String, String)>, Error> {
        let mut reader = Reader::new(Input::new("x.gb", Cursor::new(text.to_owned())).unwrap(), block);
        let mut records: Vec<(String, String)> = Vec::new();
        while let Some(event) = reader.next_event()? {
            match event {
                Event::Record(header) => records.push((header.name.clone(), String::new())),
                Event::Bases(bases) => records.last_mut().unwrap().1 += str::from_utf8(bases).unwrap(),
                Event::End { bases } => assert_eq!(records.last().unwrap().1.len() as u64, bases),
            }
        }
        Ok(records)
    }

    #[test]
    fn bases_come_back_in_any_blocks() {
        let first =
            record("AB1", 14, "VERSION     AB1.2\nORIGIN      \n        1 acgtacgtac gt\n       13 nn\n//\n");
        let second = record("AB2", 3, "ORIGIN\r\n 1 acg\r\n//\r\n\r\n");
        let expected =
            [("AB1.2", "acgtacgtacgtnn"), ("AB2", "acg")].map(|(n, b)| (n.to_owned(), b.to_owned()));
        for block in [1, 5, 100] {
            assert_eq!(read(&format!("{first}{second}"), block).unwrap(), expected, "blocks of {block}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            (String::new(), "cannot read `x.gb`, line 1: the file is empty; expected a GenBank record"),
            (
                ">a\nACGT\n".to_owned(),
                "cannot read `x.gb`, line 1: expected `LOCUS`, a name and a length, found `>a`",
            ),
            (
                record("A", 4, "ORIGIN\n 1 acgt\n"),
                "cannot read `x.gb`, line 8: the file is truncated: it ends before the `//` of record `A`",
            ),
            (
                record("A", 5, "ORIGIN\n 1 acgt\n//\n"),
                "cannot read record `A` of `x.gb` (line 8): found 4 bases, expected 5 as in its `LOCUS` line",
            ),
            (
                record("A", 4, "ORIGIN\n 1 ac-t\n//\n"),
                "cannot read record `A` of `x.gb` (line 7): found `-` as base 2, expected an IUPAC nucleotide code",
            ),
            (
                record("A", 4, "CONTIG      join(B.1:1..4)\n//\n"),
                "cannot read record `A` of `x.gb` (line 7): found no bases after `ORIGIN`; expected the sequence itself \
                 (NCBI offers it as `GenBank (full)`)",
            ),
        ] {
            assert_eq!(read(&text, 100).unwrap_err().to_string(), expected);
        }
        let protein = record("A", 4, "ORIGIN\n 1 acgt\n//\n").replace("bp", "aa");
        assert!(read(&protein, 100).unwrap_err().to_string().contains("found a protein"));
    }

    #[test]
    fn the_record_after_a_bad_one_can_be_read() {
        let bad = record("A", 4, "ORIGIN\n 1 ac-t\n//\n");
        let text =
            bad.clone() + &record("A", 4, "ORIGIN\n 1 acgt\n//\n") + &record("B", 1, "ORIGIN\n 1 a\n//\n");
        let mut reader = Reader::new(Input::new("x.gb", Cursor::new(text)).unwrap(), 100);
        assert!(matches!(reader.next_event().unwrap(), Some(Event::Record(_))));
        for problem in ["found `-`", "second record"] {
            let error = reader.next_event().unwrap_err();
            assert!(error.is_of_one_record() && error.to_string().contains(problem), "{error}");
            reader.skip_record().unwrap();
        }
        assert!(matches!(reader.next_event().unwrap(), Some(Event::Record(header)) if header.name == "B"));
    }
}
