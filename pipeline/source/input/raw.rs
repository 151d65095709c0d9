//! The bytes of a file as they lie on disk, buffered and counted.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use super::{Damage, Error};
use crate::fs;

/// Bytes of a file held at a time.
pub const RAW_BYTES: usize = 128 << 10;

/// A buffered stream that knows its file's name and how many bytes were taken.
pub(super) struct Raw {
    file: PathBuf,
    inner: Box<dyn Read + Send>,
    buffer: Box<[u8]>,
    /// The bytes of `buffer` not yet taken.
    start: usize,
    end: usize,
    taken: u64,
}

impl Raw {
    pub(super) fn new(file: PathBuf, inner: Box<dyn Read + Send>) -> Self {
        Self { file, inner, buffer: vec![0; RAW_BYTES].into(), start: 0, end: 0, taken: 0 }
    }

    /// Counts from byte `offset` of the file on, at which `inner` stands.
    pub(super) fn starting_at(mut self, offset: u64) -> Self {
        self.taken = offset;
        self
    }

    /// The file's name.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Bytes taken so far: the offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.taken
    }

    /// Something wrong at byte `offset`.
    pub(super) fn damaged(&self, offset: u64, damage: Damage) -> Error {
        Error::Damaged { file: self.file.clone(), offset, damage }
    }

    /// The next `count` bytes, fewer at the end of the file, without taking them.
    pub(super) fn peek(&mut self, count: usize) -> Result<&[u8], Error> {
        while self.end - self.start < count && self.fill_more()? > 0 {}
        let end = self.end.min(self.start + count);
        Ok(&self.buffer[self.start..end])
    }

    /// Appends the next `count` bytes to `out`; false when the file ends before.
    pub(super) fn take_into(&mut self, count: usize, out: &mut Vec<u8>) -> Result<bool, Error> {
        let mut missing = count;
        while missing > 0 {
            if self.start == self.end && self.fill_more()? == 0 {
                break;
            }
            let got = missing.min(self.end - self.start);
            out.extend_from_slice(&self.buffer[self.start..self.start + got]);
            self.consume(got);
            missing -= got;
        }
        Ok(missing == 0)
    }

    /// Reads once behind the bytes that are there, which move to the front; 0 at the end of the file.
    fn fill_more(&mut self) -> Result<usize, Error> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let got = read_uninterrupted(&mut self.inner, &mut self.buffer[self.end..]);
        let got = got.map_err(fs::error("read", &self.file))?;
        self.end += got;
        Ok(got)
    }
}

impl Read for Raw {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && out.len() >= RAW_BYTES {
            let got = read_uninterrupted(&mut self.inner, out);
            let got = got.map_err(|e| Error::from(fs::error("read", &self.file)(e)))?;
            self.taken += got as u64;
            return Ok(got);
        }
        let there = self.fill_buf()?;
        let count = out.len().min(there.len());
        out[..count].copy_from_slice(&there[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Raw {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.fill_more()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.taken += count as u64;
    }
}

fn read_uninterrupted(reader: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(out) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
