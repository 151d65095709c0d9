//! Megatron's indexed dataset, version 1: `SPLIT.bin` holds the tokens, `SPLIT.idx` the length of each document and where it
//! begins; every document is one sequence. Memory: buffers; the lengths wait in a file until their number is known.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::document::{self, Document, Sink};
use super::npy::BUFFER;
use super::{Error, Source, Written};
use crate::fs;

const MAGIC: &[u8] = b"MMIDIDX\x00\x00";
const VERSION: u64 = 1;
/// Codes of the tokens' types.
const UINT16: u8 = 8;
const INT32: u8 = 4;

pub(super) fn write(source: &Source, folder: &Path) -> Result<Written, Error> {
    if source.set.details.vocabulary_size > 1 << 31 {
        let reason = format!("ids go up to {}, its widest type is int32", source.set.details.vocabulary_size);
        return Err(source.unfit("megatron", reason));
    }
    let path = |extension: &str| folder.join(format!("{}.{extension}", source.name));
    let lengths = path("lengths");
    let mut files =
        Files { split: source.name, bin: create(path("bin"))?, lengths: create(lengths.clone())? };
    let written = document::for_each(source, &mut files)?;
    files.finish()?;
    let mut index = Index { file: create(path("idx"))?, lengths };
    index.write(source.token_bytes(), written.documents.unwrap_or(0))?;
    Ok(written)
}

/// A file that is written through a buffer, and its name for errors.
pub(super) struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

pub(super) fn create(path: PathBuf) -> Result<Output, Error> {
    let file = BufWriter::with_capacity(BUFFER, fs::create(&path)?);
    Ok(Output { path, file })
}

impl Output {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.file.write_all(bytes).map_err(fs::error("write", &self.path))?)
    }

    pub(super) fn finish(&mut self) -> Result<(), Error> {
        Ok(self.file.flush().map_err(fs::error("write", &self.path))?)
    }
}

struct Files<'a> {
    split: &'a str,
    bin: Output,
    lengths: Output,
}

impl Files<'_> {
    fn finish(mut self) -> Result<(), Error> {
        self.bin.finish()?;
        self.lengths.finish()
    }
}

impl Sink for Files<'_> {
    fn tokens(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bin.write(bytes)
    }

    fn end(&mut self, document: &Document) -> Result<(), Error> {
        let length = i32::try_from(document.tokens).map_err(|_| Error::Unfit {
            format: "megatron",
            split: self.split.to_owned(),
            reason: format!(
                "the document of row {} has {} tokens, more than 2^31",
                document.row, document.tokens
            ),
        })?;
        self.lengths.write(&length.to_le_bytes())
    }
}

struct Index {
    file: Output,
    /// Where the lengths wait; removed at the end.
    lengths: PathBuf,
}

impl Index {
    /// The head, the lengths (i32), the offsets in bytes (i64), and the first sequence of each document and the end (i64).
    fn write(&mut self, token_bytes: usize, documents: u64) -> Result<(), Error> {
        let code = if token_bytes == 4 { INT32 } else { UINT16 };
        self.file.write(&[MAGIC, &VERSION.to_le_bytes(), &[code]].concat())?;
        self.file.write(&documents.to_le_bytes())?;
        self.file.write(&(documents + 1).to_le_bytes())?;
        self.for_each_length(documents, |file, length| file.write(&length.to_le_bytes()))?;
        let mut offset = 0_u64;
        self.for_each_length(documents, |file, length| {
            let begin = offset;
            offset += u64::from(length) * token_bytes as u64;
            file.write(&begin.to_le_bytes())
        })?;
        (0..=documents).try_for_each(|document| self.file.write(&document.to_le_bytes()))?;
        self.file.finish()?;
        Ok(std::fs::remove_file(&self.lengths).map_err(fs::error("remove", &self.lengths))?)
    }

    fn for_each_length(
        &mut self,
        documents: u64,
        mut each: impl FnMut(&mut Output, u32) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut lengths = BufReader::with_capacity(BUFFER, fs::open(&self.lengths)?);
        let mut length = [0; 4];
        for _ in 0..documents {
            lengths.read_exact(&mut length).map_err(fs::error("read", &self.lengths))?;
            each(&mut self.file, u32::from_le_bytes(length))?;
        }
        Ok(())
    }
}
