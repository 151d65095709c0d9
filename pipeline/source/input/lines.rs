//! A text file line by line.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{Error, Input, RAW_BYTES};

/// The longest line that is read, its end included.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// The lines of a text file, numbered from 1; holds one line.
pub struct Lines {
    reader: BufReader<Input>,
    buffer: Vec<u8>,
    number: u64,
}

impl Lines {
    /// The lines of `input`.
    pub fn new(input: Input) -> Self {
        Self { reader: BufReader::with_capacity(RAW_BYTES, input), buffer: Vec::new(), number: 0 }
    }

    /// What messages call the file.
    pub fn file(&self) -> &Path {
        self.reader.get_ref().file()
    }

    /// Number of the last line read, from 1; 0 before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its end (`\n` or `\r\n`), none at the end of the file.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, Error> {
        self.buffer.clear();
        self.number += 1;
        let mut limited = self.reader.by_ref().take(MAX_LINE_BYTES as u64);
        let read = limited.read_until(b'\n', &mut self.buffer);
        match read.map_err(|error| Error::from_io(error, self.file()))? {
            0 => return Ok(None),
            MAX_LINE_BYTES if !self.buffer.ends_with(b"\n") => {
                return Err(Error::LongLine { file: self.file().to_owned(), line: self.number });
            }
            _ => {}
        }
        Ok(Some(self.current()))
    }

    /// The line read last, without its end.
    pub fn current(&self) -> &[u8] {
        let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}
