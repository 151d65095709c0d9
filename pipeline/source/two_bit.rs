//! UCSC 2bit as a stream of events like those of FASTA: two bits a base, with lists of the stretches that are N and of
//! those in lower case.
//!
//! Holds the names, and of one record the two lists (16 bytes a stretch) and a block of bases. The file must be one
//! that can be read at any place: no pipe, and not compressed.

mod layout;

use std::fs::File;
use std::path::{Path, PathBuf};

use self::layout::{Layout, Sequence};
use super::fasta::{Event, Header, MAX_BLOCK_BASES};
use crate::fs;
use crate::units::Interval;

/// Why a 2bit file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call of the system failed.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// Something else than 2bit.
    #[error("cannot read `{}`: expected 2bit, found {found}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What its first bytes are.
        found: String,
    },
    /// Numbers that cannot be, or that point past the file's end.
    #[error("cannot read `{}` at byte {offset}: {problem}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// From 0.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// A name that an earlier record has.
    #[error("cannot read `{}`: found a second record `{record}`", file.display())]
    DuplicateName {
        /// The file.
        file: PathBuf,
        /// The name.
        record: String,
    },
    /// A record without bases.
    #[error("cannot read `{}`: record `{record}` is empty; expected bases", file.display())]
    EmptyRecord {
        /// The file.
        file: PathBuf,
        /// The record's name.
        record: String,
    },
}

impl Error {
    /// Whether only one record is at fault, so that the reader can go on with the next one.
    pub fn is_of_one_record(&self) -> bool {
        matches!(self, Self::DuplicateName { .. } | Self::EmptyRecord { .. })
    }
}

/// Reads a 2bit file.
pub struct Reader {
    layout: Layout<File>,
    block_bases: u64,
    /// Records handed out or skipped.
    records: usize,
    header: Header,
    /// The record that is being read, and its bases handed out.
    current: Option<(Sequence, u64)>,
    block: Vec<u8>,
}

impl Reader {
    /// Opens a file and reads its list of records; blocks will be of `block_bases` bases.
    pub fn open(path: &Path, block_bases: usize) -> Result<Self, Error> {
        let file = fs::open(path)?;
        let bytes = file.metadata().map_err(fs::error("read", path))?.len();
        Ok(Self {
            layout: Layout::read(path, file, bytes)?,
            block_bases: block_bases.clamp(1, MAX_BLOCK_BASES) as u64,
            records: 0,
            header: Header { name: String::new(), description: String::new(), line: 0 },
            current: None,
            block: Vec::new(),
        })
    }

    /// Passes what is left of the record that the last event or error is about.
    pub fn skip_record(&mut self) {
        self.current = None;
    }

    /// The next event, none after the last record.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        let Some((sequence, position)) = &mut self.current else { return self.begin_record() };
        let bases = sequence.bases();
        if *position == bases {
            self.current = None;
            return Ok(Some(Event::End { bases }));
        }
        let end = bases.min(*position + self.block_bases);
        self.layout.bases(sequence, Interval::new(*position, end), &mut self.block)?;
        *position = end;
        Ok(Some(Event::Bases(&self.block)))
    }

    fn begin_record(&mut self) -> Result<Option<Event<'_>>, Error> {
        let Some(name) = self.layout.name(self.records) else { return Ok(None) };
        self.header.name = name.to_owned();
        self.records += 1;
        let sequence = self.layout.sequence(self.records - 1)?;
        self.current = Some((sequence, 0));
        Ok(Some(Event::Record(&self.header)))
    }
}

#[cfg(test)]
mod tests;
