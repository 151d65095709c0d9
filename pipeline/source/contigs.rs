//! The formats of whole sequences behind one face: FASTA, 2bit and GenBank give the same events.

use std::path::Path;

use super::fasta::{self, Event};
use super::input::{Input, STDIN};
use super::{genbank, two_bit};

/// Why a file of sequences is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A FASTA file is at fault.
    #[error(transparent)]
    Fasta(#[from] fasta::Error),
    /// A FASTA file or its index is at fault.
    #[error(transparent)]
    Index(#[from] fasta::index::Error),
    /// A 2bit file is at fault.
    #[error(transparent)]
    TwoBit(#[from] two_bit::Error),
    /// A GenBank file is at fault.
    #[error(transparent)]
    GenBank(#[from] genbank::Error),
    /// Standard input, where a file is needed.
    #[error("cannot read standard input {reason}; expected a file")]
    NotAFile {
        /// What a file is needed for.
        reason: &'static str,
    },
}

impl Error {
    /// Whether only one record is at fault, so that the reader can go on with the next one.
    pub fn is_of_one_record(&self) -> bool {
        match self {
            Self::Fasta(error) => error.is_of_one_record(),
            Self::TwoBit(error) => error.is_of_one_record(),
            Self::GenBank(error) => error.is_of_one_record(),
            Self::Index(_) | Self::NotAFile { .. } => false,
        }
    }
}

/// A format of sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// FASTA.
    Fasta,
    /// UCSC 2bit.
    TwoBit,
    /// GenBank flat file.
    GenBank,
}

/// Reads a file of sequences.
pub enum Reader {
    /// FASTA.
    Fasta(Box<fasta::Reader<Input>>),
    /// UCSC 2bit.
    TwoBit(Box<two_bit::Reader>),
    /// GenBank flat file.
    GenBank(Box<genbank::Reader>),
}

impl Reader {
    /// Opens a file; blocks will be of `block_bases` bases.
    pub fn open(path: &Path, format: Format, block_bases: usize) -> Result<Self, Error> {
        Ok(match format {
            Format::Fasta => Self::Fasta(Box::new(fasta::Reader::open(path)?.with_block_bases(block_bases))),
            Format::TwoBit if path == Path::new(STDIN) => {
                return Err(Error::NotAFile { reason: "as 2bit, which is read at any place" });
            }
            Format::TwoBit => Self::TwoBit(Box::new(two_bit::Reader::open(path, block_bases)?)),
            Format::GenBank => Self::GenBank(Box::new(genbank::Reader::open(path, block_bases)?)),
        })
    }

    /// The next event, none at the end of the file. After an error of one record, [`Reader::skip_record`] comes first;
    /// after any other the reader is of no further use.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        Ok(match self {
            Self::Fasta(reader) => reader.next_event()?,
            Self::TwoBit(reader) => reader.next_event()?,
            Self::GenBank(reader) => reader.next_event()?,
        })
    }

    /// Passes what is left of the record that the last event or error is about.
    pub fn skip_record(&mut self) -> Result<(), Error> {
        match self {
            Self::Fasta(reader) => reader.skip_record()?,
            Self::TwoBit(reader) => reader.skip_record(),
            Self::GenBank(reader) => reader.skip_record()?,
        }
        Ok(())
    }
}

/// A record that is wrong, found by [`find_bad_records`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Its number, from 0, among all records of the file.
    pub record: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads a file to its end and lists the records that cannot be taken, so that a second reading can pass them before
/// any of their bases are used.
pub fn find_bad_records(path: &Path, format: Format) -> Result<Vec<BadRecord>, Error> {
    if path == Path::new(STDIN) {
        return Err(Error::NotAFile { reason: "twice, which skipping bad records needs" });
    }
    let mut reader = Reader::open(path, format, fasta::BLOCK_BASES)?;
    let (mut bad, mut records, mut in_record) = (Vec::new(), 0, false);
    loop {
        match reader.next_event() {
            Ok(Some(Event::Record(_))) => (records, in_record) = (records + 1, true),
            Ok(Some(Event::Bases(_))) => {}
            Ok(Some(Event::End { .. })) => in_record = false,
            Ok(None) => return Ok(bad),
            Err(error) if error.is_of_one_record() => {
                // Some faults show before the event that would begin the record.
                records += u64::from(!in_record);
                in_record = false;
                bad.push(BadRecord { record: records - 1, reason: error.to_string() });
                reader.skip_record()?;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_records_are_listed_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.fa");
        std::fs::write(&path, ">a\nAC\n>b\n>c\nAC-T\nACGT\n>a\nGG\n>d\nTT\n>e\n").unwrap();
        let bad = find_bad_records(&path, Format::Fasta).unwrap();
        let numbers: Vec<u64> = bad.iter().map(|bad| bad.record).collect();
        assert_eq!(numbers, [1, 2, 3, 5]);
        for (bad, expected) in bad.iter().zip(["empty", "`-`", "second record `a`", "empty"]) {
            assert!(bad.reason.contains(expected), "{bad:?}");
        }
    }
}
