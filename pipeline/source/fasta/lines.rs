//! The lines of a FASTA stream: header lines whole, sequence lines as bases without their ends.

use std::io::Read;
use std::path::{Path, PathBuf};

use memchr::memchr;

use super::{Error, Header, HeaderProblem, MAX_HEADER_BYTES};
use crate::sequence::alphabet;
use crate::source::input;

/// Bytes of the file held at a time.
const WINDOW_BYTES: usize = 256 << 10;

/// The most bases that are guessed before they are checked: few enough to stay in the nearest cache.
const MAX_GUESSED_BASES: usize = 16 << 10;

/// Characters of a wrong line that a message shows.
const SHOWN: usize = 20;

/// Why [`Lines::take_bases`] stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The block is full.
    Full,
    /// A header line is next, or the file ends.
    RecordEnd,
    /// The next byte is no IUPAC code.
    Byte {
        /// The byte.
        found: u8,
        /// Its place in the line, from 1.
        column: u64,
    },
}

/// How the lines of a record look, as far as they were seen.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Bases of a line.
    bases: usize,
    /// Bytes of a line, its end included.
    bytes: usize,
}

pub(super) struct Lines<R> {
    file: PathBuf,
    reader: R,
    /// The part of the file that is held; `window[start..end]` is not yet taken.
    window: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    /// The current line, from 1, and bytes of it taken.
    line: u64,
    column: u64,
    /// Of the last whole sequence line.
    shape: Option<Shape>,
    /// Lines to guess next.
    guesses: usize,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(file: PathBuf, reader: R) -> Self {
        Self {
            file,
            reader,
            window: vec![0; WINDOW_BYTES],
            start: 0,
            end: 0,
            at_end: false,
            line: 1,
            column: 0,
            shape: None,
            guesses: 1,
        }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The current line, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Passes blank lines; fails unless a header line follows.
    pub(super) fn expect_first_header(&mut self) -> Result<(), Error> {
        loop {
            self.fill(SHOWN)?;
            match self.rest().first() {
                Some(b'>') => return Ok(()),
                Some(b'\n') => self.take_line_end(1),
                Some(b'\r' | b' ' | b'\t') => self.take(1),
                Some(_) => return Err(self.no_header()),
                None => return Err(Error::EmptyFile { file: self.file.clone() }),
            }
        }
    }

    fn no_header(&self) -> Error {
        let line = self.rest().split(|&b| b == b'\n').next().unwrap_or_default();
        let found =
            String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).trim_end().escape_debug().to_string();
        Error::NoHeader { file: self.file.clone(), line: self.line, found }
    }

    /// Takes the header line that is next; none at the end of the file.
    pub(super) fn take_header(&mut self) -> Result<Option<Header>, Error> {
        let mut searched = 0;
        let length = loop {
            if let Some(at) = memchr(b'\n', &self.rest()[searched..]) {
                break searched + at;
            }
            searched = self.rest().len();
            if searched > MAX_HEADER_BYTES {
                return Err(self.bad_header(HeaderProblem::TooLong));
            }
            if !self.fill(searched + 1)? {
                break searched;
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let header = parse_header(&self.rest()[1..length], self.line).map_err(|p| self.bad_header(p))?;
        self.take_line_end((length + 1).min(self.rest().len()));
        self.shape = None;
        Ok(Some(header))
    }

    /// Passes whole lines until a header line is next, or the file ends.
    pub(super) fn skip_to_header(&mut self) -> Result<(), Error> {
        while self.fill(1)? {
            if self.column == 0 && self.rest()[0] == b'>' {
                break;
            }
            match memchr(b'\n', self.rest()) {
                Some(at) => self.take_line_end(at + 1),
                None => self.take(self.rest().len()),
            }
        }
        self.shape = None;
        Ok(())
    }

    fn bad_header(&self, problem: HeaderProblem) -> Error {
        Error::Header { file: self.file.clone(), line: self.line, problem }
    }

    /// Appends bases to `block` until it holds `capacity`, the record ends or a byte is no IUPAC code.
    pub(super) fn take_bases(&mut self, block: &mut Vec<u8>, capacity: usize) -> Result<Stop, Error> {
        loop {
            if block.len() == capacity {
                return Ok(Stop::Full);
            }
            if self.rest().len() < self.wanted() {
                self.fill(self.wanted())?;
            }
            if self.column == 0 && self.guess_lines(block, capacity) {
                continue;
            }
            if let Some(stop) = self.take_piece(block, capacity) {
                return Ok(stop);
            }
        }
    }

    /// Bytes to hold before the next step: a whole line where its length is known, and both bytes of a line's end.
    fn wanted(&self) -> usize {
        self.shape.map_or(2, |shape| shape.bytes.clamp(2, MAX_GUESSED_BASES))
    }

    /// Takes lines of the known shape and tells whether there was one.
    fn guess_lines(&mut self, block: &mut Vec<u8>, capacity: usize) -> bool {
        let Some(shape) = self.shape else { return false };
        let room = (capacity - block.len()).min(MAX_GUESSED_BASES) / shape.bases;
        let common = alphabet::take_common_lines(self.rest(), (shape.bases, shape.bytes), room, block);
        if common > 0 {
            self.start += common * shape.bytes;
            self.line += common as u64;
            return true;
        }
        let before = block.len();
        let copied = self.copy_lines(shape, room.min(self.guesses), block);
        let right = match alphabet::first_invalid(&block[before..]) {
            None => copied,
            Some(at) => at / shape.bases,
        };
        self.guesses = if right == copied { (self.guesses * 2).min(MAX_GUESSED_BASES) } else { 1 };
        block.truncate(before + right * shape.bases);
        self.start += right * shape.bytes;
        self.line += right as u64;
        right > 0
    }

    /// Copies up to `count` lines that have the shape's line end in its place; what lies before it is not looked at.
    fn copy_lines(&self, shape: Shape, count: usize, block: &mut Vec<u8>) -> usize {
        let lines = self.rest().chunks_exact(shape.bytes).take(count);
        let mut copied = 0;
        for line in lines {
            let (bases, end) = line.split_at(shape.bases);
            if bases[0] == b'>' || (end != b"\n" && end != b"\r\n") {
                break;
            }
            block.extend_from_slice(bases);
            copied += 1;
        }
        copied
    }

    /// Takes what is held of the current line; tells when no more bases can be taken.
    fn take_piece(&mut self, block: &mut Vec<u8>, capacity: usize) -> Option<Stop> {
        let rest = &self.window[self.start..self.end];
        if rest.is_empty() || (self.column == 0 && rest[0] == b'>') {
            return Some(Stop::RecordEnd);
        }
        let piece = &rest[..rest.len().min(capacity - block.len())];
        let line_end = memchr(b'\n', piece);
        let piece = &piece[..line_end.unwrap_or(piece.len())];
        let bases = alphabet::first_invalid(piece).unwrap_or(piece.len());
        block.extend_from_slice(&piece[..bases]);
        self.take(bases);
        self.end_piece()
    }

    /// After bases, takes a line's end; tells when neither a base nor a line's end is next.
    fn end_piece(&mut self) -> Option<Stop> {
        match *self.rest() {
            [b'\n', ..] => self.take_sequence_line_end(1),
            [b'\r', b'\n', ..] => self.take_sequence_line_end(2),
            [b'\r'] if self.at_end => self.take(1),
            [found, ..] if self.is_misplaced(found) => {
                return Some(Stop::Byte { found, column: self.column + 1 });
            }
            _ => {}
        }
        None
    }

    /// Whether `found` can be neither a base nor the first byte of a line's end whose second is not yet held.
    fn is_misplaced(&self, found: u8) -> bool {
        let may_be_line_end = found == b'\r' && self.rest().len() == 1 && !self.at_end;
        !alphabet::is_iupac(found) && !may_be_line_end
    }

    fn take_sequence_line_end(&mut self, bytes: usize) {
        let bases = usize::try_from(self.column).unwrap_or(usize::MAX);
        self.shape =
            (1..=MAX_GUESSED_BASES).contains(&bases).then_some(Shape { bases, bytes: bases + bytes });
        self.take_line_end(bytes);
    }

    fn take(&mut self, bytes: usize) {
        self.start += bytes;
        self.column += bytes as u64;
    }

    /// Takes `bytes` bytes, the last of which ends the line.
    fn take_line_end(&mut self, bytes: usize) {
        self.start += bytes;
        self.line += 1;
        self.column = 0;
    }

    /// What is held and not yet taken.
    fn rest(&self) -> &[u8] {
        &self.window[self.start..self.end]
    }

    /// Holds at least `count` bytes, fewer only at the end of the file; tells whether there are that many.
    fn fill(&mut self, count: usize) -> Result<bool, Error> {
        while self.rest().len() < count && !self.at_end {
            self.make_room(count);
            let got = self.reader.read(&mut self.window[self.end..]);
            let got = got.map_err(|error| input::Error::from_io(error, &self.file))?;
            self.end += got;
            self.at_end = got == 0;
        }
        Ok(self.rest().len() >= count)
    }

    /// Moves what is held to the front, and grows the window when `count` bytes do not fit.
    fn make_room(&mut self, count: usize) {
        self.window.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.window.len() < count {
            self.window.resize(count.next_power_of_two(), 0);
        }
    }
}

/// Splits a header line, its `>` and `\n` removed.
fn parse_header(text: &[u8], line: u64) -> Result<Header, HeaderProblem> {
    if memchr(0, text).is_some() {
        return Err(HeaderProblem::Nul);
    }
    let text = text.trim_ascii();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (name, description) = text.split_at(end);
    if name.is_empty() {
        return Err(HeaderProblem::NoName);
    }
    let name = str::from_utf8(name).map_err(|_| HeaderProblem::NotUtf8)?.to_owned();
    Ok(Header { name, description: String::from_utf8_lossy(description).trim().to_owned(), line })
}
