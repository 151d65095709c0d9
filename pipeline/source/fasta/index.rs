//! A FASTA file with its index (`.fai`, as `samtools faidx` writes it; for BGZF also `.gzi`): single intervals without
//! the bases before them.
//!
//! Holds the index and one block of bases. An index says where bases should be; whether they are there is checked: the
//! header before a record, and the end of every line that is read.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::MAX_BLOCK_BASES;
use crate::fs;
use crate::sequence::alphabet;
use crate::source::input::{self, Input, Lines, Wrapper};
use crate::units::Interval;

/// Bytes before a record in which its header must begin.
const MAX_HEADER_BYTES: u64 = 64 << 10;

/// Characters of a wrong line that a message shows.
const SHOWN: usize = 60;

/// Why an indexed file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes of a file cannot be had.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// An index file does not open.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// A line of a `.fai` that is no entry.
    #[error("cannot read the index `{}`, line {line}: found {found}, expected name, length, offset, bases and bytes of \
        a line", file.display())]
    Entry {
        /// The index.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// What stands there.
        found: String,
    },
    /// A `.gzi` that is cut short.
    #[error("cannot read the index `{}`: found {found} bytes, expected {expected}", file.display())]
    BlockIndex {
        /// The index.
        file: PathBuf,
        /// Bytes.
        found: usize,
        /// Bytes.
        expected: u64,
    },
    /// An index of another file, or of an older state of it.
    #[error("cannot read `{record}` of `{}`: its index does not fit, {problem}; `samtools faidx` makes a new one",
        file.display())]
    Stale {
        /// The FASTA file.
        file: PathBuf,
        /// The record's name.
        record: String,
        /// What was expected where.
        problem: String,
    },
    /// A byte that is no IUPAC code.
    #[error("cannot read `{record}:{position}-{}` of `{}`: byte {found:#04X} is no IUPAC nucleotide code",
        position + 1, file.display())]
    InvalidByte {
        /// The FASTA file.
        file: PathBuf,
        /// The record's name.
        record: String,
        /// Base of the record, from 0.
        position: u64,
        /// The byte.
        found: u8,
    },
}

/// A record as the index describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The record's name.
    pub name: String,
    /// Its bases.
    pub bases: u64,
    /// Byte of the plain file at which its first base stands.
    offset: u64,
    /// Bases of a line.
    line_bases: u64,
    /// Bytes of a line, its end included.
    line_bytes: u64,
}

impl Entry {
    /// Byte of the plain file at which base `position` stands.
    fn byte_of(&self, position: u64) -> Option<u64> {
        let lines = (position / self.line_bases).checked_mul(self.line_bytes)?;
        self.offset.checked_add(lines)?.checked_add(position % self.line_bases)
    }
}

/// A FASTA file that can be read at any place.
pub struct Indexed {
    file: PathBuf,
    entries: Vec<Entry>,
    /// Of a BGZF file: where blocks begin, in the file and in the plain bytes; ascending.
    blocks: Option<Vec<(u64, u64)>>,
}

impl Indexed {
    /// Opens a file; none where it has no index, or where it is compressed in a way that has no inner places.
    pub fn open(file: &Path) -> Result<Option<Self>, Error> {
        let (entries, blocks) = (beside(file, ".fai"), beside(file, ".gzi"));
        if !entries.is_file() {
            return Ok(None);
        }
        let blocks = match Input::open(file)?.wrapper() {
            Wrapper::Plain => None,
            Wrapper::Bgzf if blocks.is_file() => Some(read_blocks(&blocks)?),
            _ => return Ok(None),
        };
        Ok(Some(Self { file: file.to_owned(), entries: read_entries(&entries)?, blocks }))
    }

    /// The records in the order of the index.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bases of an interval, which must lie on the record, in blocks that end at multiples of `block_bases`.
    pub fn bases(&self, entry: &Entry, interval: Interval, block_bases: usize) -> Result<Bases, Error> {
        self.check_header(entry)?;
        let stale = |problem: &str| self.stale(entry, problem);
        let offset = entry.byte_of(interval.start).ok_or_else(|| stale("it names an impossible place"))?;
        Ok(Bases {
            file: self.file.clone(),
            entry: entry.clone(),
            input: self.input_at(offset)?,
            position: interval.start,
            end: interval.end.min(entry.bases),
            step: block_bases.clamp(1, MAX_BLOCK_BASES) as u64,
            block: Vec::new(),
            lines: Vec::new(),
        })
    }

    /// Refuses an index that does not find the record's header right before its bases.
    fn check_header(&self, entry: &Entry) -> Result<(), Error> {
        let from = entry.offset.saturating_sub(MAX_HEADER_BYTES);
        let mut before = Vec::new();
        self.input_at(from)?.read_up_to(index(entry.offset - from), &mut before)?;
        let header =
            before.strip_suffix(b"\n").map(|lines| lines.rsplit(|&b| b == b'\n').next().unwrap_or(lines));
        let name = header.and_then(|header| header.strip_prefix(b">"));
        let name = name.and_then(|name| name.trim_ascii_start().split(u8::is_ascii_whitespace).next());
        if name == Some(entry.name.as_bytes()) {
            Ok(())
        } else {
            Err(self.stale(entry, &format!("there is no header of it before byte {}", entry.offset)))
        }
    }

    fn stale(&self, entry: &Entry, problem: &str) -> Error {
        Error::Stale { file: self.file.clone(), record: entry.name.clone(), problem: problem.to_owned() }
    }

    /// The plain bytes from `offset` on.
    fn input_at(&self, offset: u64) -> Result<Input, Error> {
        let Some(blocks) = &self.blocks else { return Ok(Input::plain_at(&self.file, offset)?) };
        let after = blocks.partition_point(|(_, plain)| *plain <= offset);
        let (start, plain) = if after == 0 { (0, 0) } else { blocks[after - 1] };
        let mut input = Input::open_at(&self.file, start)?;
        let mut passed = (&mut input).take(offset - plain);
        std::io::copy(&mut passed, &mut std::io::sink())
            .map_err(|error| input::Error::from_io(error, &self.file))?;
        Ok(input)
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    PathBuf::from(name)
}

fn read_entries(file: &Path) -> Result<Vec<Entry>, Error> {
    let (mut lines, mut entries) = (Lines::new(Input::open(file)?), Vec::new());
    let mut names = HashSet::new();
    while let Some(line) = lines.next_line()? {
        let entry = str::from_utf8(line).ok().and_then(parse_entry);
        let entry = entry.filter(|entry| names.insert(entry.name.clone()));
        let Some(entry) = entry else {
            let found = &lines.current()[..lines.current().len().min(SHOWN)];
            let found = format!("`{}`", found.escape_ascii());
            return Err(Error::Entry { file: file.to_owned(), line: lines.number(), found });
        };
        entries.push(entry);
    }
    Ok(entries)
}

fn parse_entry(line: &str) -> Option<Entry> {
    let mut columns = line.split('\t');
    let name = columns.next().filter(|name| !name.is_empty())?.to_owned();
    let mut number = || columns.next()?.parse().ok();
    let (bases, offset, line_bases, line_bytes) = (number()?, number()?, number()?, number()?);
    let possible = bases > 0 && line_bases > 0 && line_bytes > line_bases && line_bytes - line_bases <= 2;
    possible.then_some(Entry { name, bases, offset, line_bases, line_bytes })
}

/// A `.gzi`: a number of pairs, then the pairs; the first block, at 0 and 0, is not in it.
fn read_blocks(file: &Path) -> Result<Vec<(u64, u64)>, Error> {
    let bytes = fs::read(file)?;
    let (numbers, _) = bytes.as_chunks::<8>();
    let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
    let count = numbers.next().unwrap_or_default();
    let expected = count.saturating_mul(16).saturating_add(8);
    if bytes.len() as u64 != expected {
        return Err(Error::BlockIndex { file: file.to_owned(), found: bytes.len(), expected });
    }
    let mut blocks = Vec::new();
    while let (Some(start), Some(plain)) = (numbers.next(), numbers.next()) {
        blocks.push((start, plain));
    }
    blocks.sort_unstable();
    Ok(blocks)
}

/// The bases of an interval, block by block.
pub struct Bases {
    file: PathBuf,
    entry: Entry,
    input: Input,
    position: u64,
    end: u64,
    /// Blocks end at multiples of this many bases.
    step: u64,
    block: Vec<u8>,
    lines: Vec<u8>,
}

impl Bases {
    /// The next block and the base at which it starts, none at the end of the interval.
    pub fn next_block(&mut self) -> Result<Option<(u64, &[u8])>, Error> {
        let start = self.position;
        if start >= self.end {
            return Ok(None);
        }
        let end = self.end.min((start / self.step + 1) * self.step);
        let place =
            |position| self.entry.byte_of(position).ok_or_else(|| self.stale("it names an impossible place"));
        let bytes = index(place(end - 1)? - place(start)?) + 1;
        self.lines.clear();
        if self.input.read_up_to(bytes, &mut self.lines)? < bytes {
            return Err(self.stale("the file ends before it"));
        }
        self.take_lines()?;
        if let Some(at) = alphabet::first_invalid(&self.block) {
            let (file, record) = (self.file.clone(), self.entry.name.clone());
            return Err(Error::InvalidByte {
                file,
                record,
                position: start + at as u64,
                found: self.block[at],
            });
        }
        self.position = end;
        self.pass_line_end()?;
        Ok(Some((start, &self.block)))
    }

    /// Copies `lines` to `block` without the ends of lines, which must be where the index has them.
    fn take_lines(&mut self) -> Result<(), Error> {
        self.block.clear();
        let mut rest = &self.lines[..];
        let mut column = self.position % self.entry.line_bases;
        while !rest.is_empty() {
            let bases = index(self.entry.line_bases - column).min(rest.len());
            self.block.extend_from_slice(&rest[..bases]);
            rest = &rest[bases..];
            let end = index(self.entry.line_bytes - self.entry.line_bases).min(rest.len());
            if !b"\r\n".ends_with(&rest[..end]) && !b"\r\n".starts_with(&rest[..end]) {
                return Err(self.stale("lines do not end where it has them"));
            }
            rest = &rest[end..];
            column = 0;
        }
        Ok(())
    }

    /// After a block that ends with a line, passes the line's end.
    fn pass_line_end(&mut self) -> Result<(), Error> {
        if self.position < self.end && self.position.is_multiple_of(self.entry.line_bases) {
            let bytes = index(self.entry.line_bytes - self.entry.line_bases);
            let mut end = Vec::new();
            self.input.read_up_to(bytes, &mut end)?;
            if !b"\r\n".ends_with(&end) {
                return Err(self.stale("lines do not end where it has them"));
            }
        }
        Ok(())
    }

    fn stale(&self, problem: &str) -> Error {
        Error::Stale { file: self.file.clone(), record: self.entry.name.clone(), problem: problem.to_owned() }
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
