//! Two FASTQ files whose records belong together, the first mates in one and the second mates in the other.

use std::path::Path;

use super::{Error, Read, Reader};

/// Reads two files side by side.
pub struct Pairs {
    first: Reader,
    second: Reader,
}

impl Pairs {
    /// Opens both files, plain or compressed.
    pub fn open(first: &Path, second: &Path) -> Result<Self, Error> {
        Ok(Self { first: Reader::open(first)?, second: Reader::open(second)? })
    }

    /// Reads from two readers.
    pub fn new(first: Reader, second: Reader) -> Self {
        Self { first, second }
    }

    /// The next two mates, none at the end of both files; their names agree but for `/1` and `/2`.
    ///
    /// After an error of one record the next call reads the pair after it: both mates were read.
    pub fn next_pair(&mut self) -> Result<Option<(Read<'_>, Read<'_>)>, Error> {
        let (first, second) = (self.first.advance(), self.second.advance());
        match (first, second) {
            // What keeps either file from being read further comes before what is wrong with one record.
            (Err(error), _) | (_, Err(error)) if !error.is_of_one_record() => Err(error),
            (Ok(false), Ok(false)) => Ok(None),
            (Ok(false), _) => Err(unpaired(&self.first, &self.second)),
            (_, Ok(false)) => Err(unpaired(&self.second, &self.first)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(true), Ok(true)) => self.current().map(Some),
        }
    }

    /// The pair read last, if it is one.
    fn current(&self) -> Result<(Read<'_>, Read<'_>), Error> {
        let (first, second) = (self.first.current(), self.second.current());
        if bare_name(first.name, "/1") == bare_name(second.name, "/2") {
            return Ok((first, second));
        }
        Err(Error::Names {
            first_name: first.name.to_owned(),
            second_name: second.name.to_owned(),
            first: self.first.file().to_owned(),
            second: self.second.file().to_owned(),
            record: self.first.records(),
        })
    }
}

fn unpaired(shorter: &Reader, longer: &Reader) -> Error {
    Error::Unpaired {
        shorter: shorter.file().to_owned(),
        longer: longer.file().to_owned(),
        records: shorter.records(),
    }
}

/// A name without the mark of its mate.
pub fn bare_name<'a>(name: &'a str, mark: &str) -> &'a str {
    name.strip_suffix(mark).unwrap_or(name)
}
