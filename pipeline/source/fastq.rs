//! FASTQ as a stream of reads, alone or in pairs; holds one read of each file, which may be as long as a line
//! ([`MAX_LINE_BYTES`](super::input::MAX_LINE_BYTES)).
//!
//! A record is four lines: `@name`, bases, `+`, one quality character a base (Phred + 33). Records over more lines are
//! refused, for `@` and `+` are qualities too.

mod pairs;
mod quality;

use std::path::{Path, PathBuf};

use super::input::{self, Input, Lines};
use crate::sequence::alphabet;

pub use self::pairs::{Pairs, bare_name};
pub use self::quality::{MAX_QUALITY, Options, mask, mean_quality};

/// Characters of a wrong line that a message shows.
const SHOWN: usize = 20;

/// Why a FASTQ file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes of the file cannot be had.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// No record at all.
    #[error("cannot read `{}`: the file is empty; expected a FASTQ record", file.display())]
    EmptyFile {
        /// The file.
        file: PathBuf,
    },
    /// Lines that are no record, after which no other can be found.
    #[error("cannot read `{}`, line {line}: {problem}", file.display())]
    Frame {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        problem: FrameProblem,
    },
    /// A record of four lines that is wrong in itself; the next one can be read.
    #[error("cannot read record {record} of `{}` (line {line}, `{name}`): {problem}", file.display())]
    Record {
        /// The file.
        file: PathBuf,
        /// From 1.
        record: u64,
        /// Line of its `@`, from 1.
        line: u64,
        /// Its name.
        name: String,
        /// What is wrong.
        problem: Problem,
    },
    /// A read whose mate has another name.
    #[error("cannot pair record {record} of `{}` and `{}`: found `{first_name}` and `{second_name}`, expected one name",
        first.display(), second.display())]
    Names {
        /// The file of the first mates.
        first: PathBuf,
        /// The file of the second mates.
        second: PathBuf,
        /// From 1, in either file.
        record: u64,
        /// In the first file.
        first_name: String,
        /// In the second file.
        second_name: String,
    },
    /// Files of unequal length.
    #[error("cannot pair `{}` and `{}`: found {records} records in the first, more in the second",
        shorter.display(), longer.display())]
    Unpaired {
        /// The file that ends first.
        shorter: PathBuf,
        /// The other one.
        longer: PathBuf,
        /// Records of the shorter file.
        records: u64,
    },
}

impl Error {
    /// Whether only one record is at fault, so that the reader can go on with the next one.
    pub fn is_of_one_record(&self) -> bool {
        matches!(self, Self::Record { .. })
    }
}

/// Why lines are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameProblem {
    /// Something else where a record should begin.
    #[error("expected `@` and a name, found `{found}`")]
    NoHeader {
        /// The beginning of the line.
        found: String,
    },
    /// Nothing but blanks after `@`.
    #[error("found a header without a name; expected one after `@`")]
    NoName,
    /// A name that is no UTF-8.
    #[error("found a record name that is not UTF-8; expected text")]
    NotUtf8,
    /// Something else where the third line should be.
    #[error("expected `+` after one line of bases, found `{found}`")]
    NoPlus {
        /// The beginning of the line.
        found: String,
    },
    /// The file ends within a record.
    #[error("the file is truncated: it ends in the middle of the record")]
    Truncated,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// No bases.
    #[error("found 0 bases, expected at least 1")]
    Empty,
    /// Bases and qualities of different number.
    #[error("found {qualities} quality characters, expected {bases}, one a base")]
    Lengths {
        /// Bases.
        bases: usize,
        /// Quality characters.
        qualities: usize,
    },
    /// A base that is no IUPAC code.
    #[error("found `{}` as base {position}, expected an IUPAC nucleotide code", found.escape_ascii())]
    Base {
        /// The byte.
        found: u8,
        /// Base of the record, from 0.
        position: usize,
    },
    /// A character that is no quality.
    #[error("found `{}` as quality of base {position}, expected a character from `!` to `~`", found.escape_ascii())]
    Quality {
        /// The byte.
        found: u8,
        /// Base of the record, from 0.
        position: usize,
    },
    /// A third line that repeats another name.
    #[error("found `+{found}`, expected `+` alone or with the name of the record")]
    OtherName {
        /// What follows the `+`.
        found: String,
    },
}

/// A read as the file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read<'a> {
    /// The first word of its header.
    pub name: &'a str,
    /// IUPAC codes in the case of the file; at least 1.
    pub bases: &'a [u8],
    /// One character a base: Phred + 33.
    pub qualities: &'a [u8],
}

/// Reads a FASTQ file.
pub struct Reader {
    lines: Lines,
    header: Vec<u8>,
    /// Length of the name in `header`.
    name_bytes: usize,
    bases: Vec<u8>,
    /// The third line without its `+`.
    repeat: Vec<u8>,
    /// Line of the record's header, from 1.
    line: u64,
    /// Records read.
    records: u64,
}

impl Reader {
    /// Opens a file, plain or compressed, or standard input for the path `-`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self::new(Input::open(path)?))
    }

    /// Reads plain bytes.
    pub fn new(input: Input) -> Self {
        Self {
            lines: Lines::new(input),
            header: Vec::new(),
            name_bytes: 0,
            bases: Vec::new(),
            repeat: Vec::new(),
            line: 0,
            records: 0,
        }
    }

    /// What messages call the file.
    pub fn file(&self) -> &Path {
        self.lines.file()
    }

    /// Records read so far, bad ones included.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The next read, none at the end of the file. After an error of one record the next call reads the one after it;
    /// after any other the reader is of no further use.
    pub fn next_read(&mut self) -> Result<Option<Read<'_>>, Error> {
        if self.advance()? { Ok(Some(self.current())) } else { Ok(None) }
    }

    /// Reads the next record's lines and checks them; false at the end of the file.
    fn advance(&mut self) -> Result<bool, Error> {
        if !self.take_header()? {
            return if self.records == 0 { Err(self.empty_file()) } else { Ok(false) };
        }
        self.records += 1;
        self.take_line(|kept, line| kept.bases.extend_from_slice(line))?;
        self.take_line(|kept, line| kept.repeat.extend_from_slice(line))?;
        if self.repeat.first() != Some(&b'+') {
            return Err(self.frame(FrameProblem::NoPlus { found: shown(&self.repeat) }));
        }
        self.take_line(|_, _| {})?;
        match check(&self.header, &self.bases, &self.repeat[1..], self.lines.current()) {
            None => Ok(true),
            Some(problem) => Err(Error::Record {
                file: self.file().to_owned(),
                record: self.records,
                line: self.line,
                name: self.current().name.to_owned(),
                problem,
            }),
        }
    }

    /// The record read last.
    fn current(&self) -> Read<'_> {
        let name = str::from_utf8(&self.header[..self.name_bytes]).unwrap_or_default();
        Read { name, bases: &self.bases, qualities: self.lines.current() }
    }

    /// Takes the header line of the next record, past blank lines; false at the end of the file.
    fn take_header(&mut self) -> Result<bool, Error> {
        loop {
            match self.lines.next_line()? {
                None => return Ok(false),
                Some([]) => {}
                Some(_) => break,
            }
        }
        self.line = self.lines.number();
        let Some(header) = self.lines.current().strip_prefix(b"@") else {
            return Err(self.frame(FrameProblem::NoHeader { found: shown(self.lines.current()) }));
        };
        let bytes = header.iter().position(u8::is_ascii_whitespace).unwrap_or(header.len());
        match str::from_utf8(&header[..bytes]) {
            Ok("") => return Err(self.frame(FrameProblem::NoName)),
            Ok(_) => {}
            Err(_) => return Err(self.frame(FrameProblem::NotUtf8)),
        }
        self.name_bytes = bytes;
        self.header.clear();
        self.header.extend_from_slice(header);
        self.bases.clear();
        self.repeat.clear();
        Ok(true)
    }

    /// Reads a line that must be there.
    fn take_line(&mut self, keep: impl FnOnce(&mut Keep, &[u8])) -> Result<(), Error> {
        if self.lines.next_line()?.is_none() {
            return Err(self.frame(FrameProblem::Truncated));
        }
        keep(&mut Keep { bases: &mut self.bases, repeat: &mut self.repeat }, self.lines.current());
        Ok(())
    }

    fn frame(&self, problem: FrameProblem) -> Error {
        Error::Frame { file: self.file().to_owned(), line: self.lines.number(), problem }
    }

    fn empty_file(&self) -> Error {
        Error::EmptyFile { file: self.file().to_owned() }
    }
}

/// The buffers of a record's second and third line.
struct Keep<'a> {
    bases: &'a mut Vec<u8>,
    repeat: &'a mut Vec<u8>,
}

fn check(header: &[u8], bases: &[u8], repeat: &[u8], qualities: &[u8]) -> Option<Problem> {
    if bases.is_empty() {
        return Some(Problem::Empty);
    }
    if bases.len() != qualities.len() {
        return Some(Problem::Lengths { bases: bases.len(), qualities: qualities.len() });
    }
    if let Some(position) = alphabet::first_invalid(bases) {
        return Some(Problem::Base { found: bases[position], position });
    }
    if let Some(position) = qualities.iter().position(|byte| !(b'!'..=b'~').contains(byte)) {
        return Some(Problem::Quality { found: qualities[position], position });
    }
    let repeats = repeat.is_empty() || repeat == header || first_word(repeat) == first_word(header);
    (!repeats).then(|| Problem::OtherName { found: shown(repeat) })
}

fn first_word(line: &[u8]) -> &[u8] {
    line.split(u8::is_ascii_whitespace).next().unwrap_or_default()
}

/// The beginning of a line, for a message.
fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).escape_debug().to_string()
}

#[cfg(test)]
mod tests;
