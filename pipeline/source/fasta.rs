//! FASTA as a stream of events: a record begins, blocks of its bases follow, it ends.
//!
//! Holds one window of the file (grown for a longer header line, up to [`MAX_HEADER_BYTES`]) and one block of bases,
//! never a record; and the name of every record, to refuse a second one. Every byte is checked: what comes out are
//! IUPAC codes in the case of the file.
//!
//! Speed: lines of a record mostly have one length, so the reader guesses where the next ones end. With AVX2 each is copied and
//! checked in one pass as long as it holds A, C, G, T and N only; other lines are copied, and
//! all of the copies checked together. A line end within a guessed line is no IUPAC code, so the check finds wrong
//! guesses; these lines are then read one by one. Guesses double in number while they hold.

pub mod index;
mod lines;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Read;
use std::path::{Path, PathBuf};

use self::lines::{Lines, Stop};
use super::input::{self, Input};

/// Bases of a block, unless the reader is told otherwise.
pub const BLOCK_BASES: usize = 256 << 10;

/// The most bases that a block may hold.
pub const MAX_BLOCK_BASES: usize = 1 << 20;

/// The longest header line that is read.
pub const MAX_HEADER_BYTES: usize = 1 << 20;

/// Why a FASTA file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes of the file cannot be had.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// No record at all.
    #[error("cannot read `{}`: the file is empty; expected a FASTA record", file.display())]
    EmptyFile {
        /// The file.
        file: PathBuf,
    },
    /// Text before the first header.
    #[error("cannot read `{}`, line {line}: expected `>` before the first record, found `{found}`", file.display())]
    NoHeader {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// The beginning of the line.
        found: String,
    },
    /// A header line that names no record, is too long or is no text.
    #[error("cannot read `{}`, line {line}: {problem}", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        problem: HeaderProblem,
    },
    /// A name that an earlier record has.
    #[error("cannot read `{}`, line {line}: found a second record `{record}`; the first is at line {first}",
        file.display())]
    DuplicateName {
        /// The file.
        file: PathBuf,
        /// Line of the second header, from 1.
        line: u64,
        /// The name.
        record: String,
        /// Line of the first header, from 1.
        first: u64,
    },
    /// A header without bases.
    #[error("cannot read `{}`, line {line}: record `{record}` is empty; expected bases after its header",
        file.display())]
    EmptyRecord {
        /// The file.
        file: PathBuf,
        /// Line of the header, from 1.
        line: u64,
        /// The record's name.
        record: String,
    },
    /// A byte of a sequence line that is no IUPAC code.
    #[error("cannot read `{record}:{position}-{}` of `{}` (line {line}, column {column}): {}",
        position + 1, file.display(), describe(*found))]
    InvalidByte {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// Byte of the line, from 1.
        column: u64,
        /// The record's name.
        record: String,
        /// Base of the record, from 0.
        position: u64,
        /// The byte.
        found: u8,
    },
}

impl Error {
    /// Whether only one record is at fault, so that the reader can go on with the next one.
    pub fn is_of_one_record(&self) -> bool {
        matches!(self, Self::DuplicateName { .. } | Self::EmptyRecord { .. } | Self::InvalidByte { .. })
    }
}

/// What is wrong with a header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// Nothing but blanks after `>`.
    #[error("found a header without a name; expected one after `>`")]
    NoName,
    /// Longer than [`MAX_HEADER_BYTES`].
    #[error("found a header line of more than {MAX_HEADER_BYTES} bytes; expected a shorter one")]
    TooLong,
    /// A NUL byte.
    #[error("found a NUL byte in a header; expected text")]
    Nul,
    /// A name that is no UTF-8.
    #[error("found a record name that is not UTF-8; expected text")]
    NotUtf8,
}

/// A byte that is no IUPAC code, in words.
fn describe(found: u8) -> String {
    let name = match found {
        0 => "NUL".to_owned(),
        b'\r' => "carriage return".to_owned(),
        b'\t' => "tab".to_owned(),
        b' ' => "blank".to_owned(),
        0x21..=0x7E => format!("`{}`", char::from(found)),
        _ => return format!("byte {found:#04X} is no IUPAC nucleotide code"),
    };
    format!("byte {found:#04X} ({name}) is no IUPAC nucleotide code")
}

/// A header line: `>name description`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The first word.
    pub name: String,
    /// What follows it, without blanks around; bytes that are no UTF-8 are replaced by U+FFFD.
    pub description: String,
    /// Line of the file, from 1.
    pub line: u64,
}

/// What the reader found next.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A record begins.
    Record(&'a Header),
    /// Its next bases, in the case of the file; all blocks but a record's last are full.
    Bases(&'a [u8]),
    /// The record is over; it has this many bases, at least 1.
    End {
        /// Bases of the record.
        bases: u64,
    },
}

/// Reads a FASTA stream.
pub struct Reader<R> {
    lines: Lines<R>,
    block: Vec<u8>,
    block_bases: usize,
    header: Header,
    /// Bases of the record handed out; none between records.
    bases: Option<u64>,
    /// Line of each record's header, by name.
    names: HashMap<String, u64>,
}

impl Reader<Input> {
    /// Opens a file, plain or compressed, or standard input for the path `-`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let input = Input::open(path)?;
        Ok(Self::new(input.file().to_owned(), input))
    }
}

impl<R: Read> Reader<R> {
    /// Reads plain bytes; `file` is what messages call them.
    pub fn new(file: impl Into<PathBuf>, reader: R) -> Self {
        Self {
            lines: Lines::new(file.into(), reader),
            block: Vec::with_capacity(BLOCK_BASES),
            block_bases: BLOCK_BASES,
            header: Header { name: String::new(), description: String::new(), line: 0 },
            bases: None,
            names: HashMap::new(),
        }
    }

    /// Makes blocks of `bases` bases, at least 1 and at most [`MAX_BLOCK_BASES`].
    #[must_use]
    pub fn with_block_bases(mut self, bases: usize) -> Self {
        self.block_bases = bases.clamp(1, MAX_BLOCK_BASES);
        self.block.reserve_exact(self.block_bases);
        self
    }

    /// Passes what is left of the record that the last event or error is about; the next event is the next record's.
    pub fn skip_record(&mut self) -> Result<(), Error> {
        self.bases = None;
        self.lines.skip_to_header()
    }

    /// The next event, none at the end of the file. After an error of one record, [`Reader::skip_record`] comes first;
    /// after any other the reader is of no further use.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        let Some(before) = self.bases else { return self.begin_record() };
        self.block.clear();
        let stop = self.lines.take_bases(&mut self.block, self.block_bases)?;
        let bases = before + self.block.len() as u64;
        match stop {
            Stop::Byte { found, column } if self.block.is_empty() => Err(self.invalid(found, column, before)),
            _ if !self.block.is_empty() => {
                self.bases = Some(bases);
                Ok(Some(Event::Bases(&self.block)))
            }
            _ if bases == 0 => Err(self.empty_record()),
            _ => {
                self.bases = None;
                Ok(Some(Event::End { bases }))
            }
        }
    }

    fn begin_record(&mut self) -> Result<Option<Event<'_>>, Error> {
        if self.names.is_empty() {
            self.lines.expect_first_header()?;
        }
        let Some(header) = self.lines.take_header()? else { return Ok(None) };
        match self.names.entry(header.name.clone()) {
            Entry::Vacant(entry) => entry.insert(header.line),
            Entry::Occupied(entry) => {
                return Err(Error::DuplicateName {
                    file: self.lines.file().to_owned(),
                    line: header.line,
                    first: *entry.get(),
                    record: header.name,
                });
            }
        };
        self.header = header;
        self.bases = Some(0);
        Ok(Some(Event::Record(&self.header)))
    }

    fn empty_record(&self) -> Error {
        Error::EmptyRecord {
            file: self.lines.file().to_owned(),
            line: self.header.line,
            record: self.header.name.clone(),
        }
    }

    fn invalid(&self, found: u8, column: u64, position: u64) -> Error {
        Error::InvalidByte {
            file: self.lines.file().to_owned(),
            line: self.lines.line(),
            column,
            record: self.header.name.clone(),
            position,
            found,
        }
    }
}

#[cfg(test)]
mod tests;
