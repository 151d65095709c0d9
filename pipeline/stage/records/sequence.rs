//! The bases of records as artifacts hold them: in files of a partition's records each, which are never copied into one.
//!
//! `sequence-000000000012.parquet` holds records from number 12 on, which it counts from 0, so that a partition of which
//! nobody knows yet how many records come before it can write its file. Each row is a block of at most [`BLOCK_BASES`], in
//! order and packed ([`packed`]). Memory: a few blocks; never a contig.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BinaryBuilder, UInt64Array, UInt64Builder};
use arrow::datatypes::DataType;

use super::super::tables::{Batch, Error, Reader, Writer};
use super::{BATCH_ROWS, index};
use crate::artifact::{Artifact, FileEntry};
use crate::sequence::packed::{self, Packed};
use crate::units::Interval;

/// Bases of a block, at most.
pub const BLOCK_BASES: usize = 1 << 20;
/// Bases gathered before a batch is written.
const BATCH_BASES: usize = 8 << 20;
/// Blocks read at once: no more than one, since a partition may want some bases of it alone.
const READ_BLOCKS: usize = 1;

/// The name of the file with the records from the number `first` on.
pub fn sequence_file(first: u64) -> String {
    format!("sequence-{first:012}.parquet")
}

/// The number of the first record of a file, if it is one of [`sequence_file`]'s.
fn first_record(file: &str) -> Option<u64> {
    file.strip_prefix("sequence-")?.strip_suffix(".parquet")?.parse().ok()
}

/// The files of an artifact that hold bases, in their order, each with the number of its first record.
pub fn sequence_files(files: &[FileEntry]) -> Vec<(u64, &FileEntry)> {
    let mut found: Vec<_> = files.iter().filter_map(|file| Some((first_record(&file.path)?, file))).collect();
    found.sort_unstable_by_key(|(first, _)| *first);
    found
}

/// Writes the bases of records, block by block.
pub struct SequenceWriter {
    writer: Writer,
    first: u64,
    record: UInt64Builder,
    start: UInt64Builder,
    bases: UInt64Builder,
    bits: BinaryBuilder,
    others: BinaryBuilder,
    small: BinaryBuilder,
    pending: usize,
}

impl SequenceWriter {
    /// Creates the file of the records from the number `first` on, in a folder.
    pub fn create(folder: &Path, first: u64) -> Result<Self, Error> {
        let columns = ["record", "start", "bases"].map(|name| (name, DataType::UInt64));
        let packed = ["bits", "others", "small"].map(|name| (name, DataType::Binary));
        let columns = [columns, packed].concat();
        Ok(Self {
            writer: Writer::create(&folder.join(sequence_file(first)), &columns)?,
            first,
            record: UInt64Builder::new(),
            start: UInt64Builder::new(),
            bases: UInt64Builder::new(),
            bits: BinaryBuilder::new(),
            others: BinaryBuilder::new(),
            small: BinaryBuilder::new(),
            pending: 0,
        })
    }

    /// Appends a block that starts `start` bases into its record.
    pub fn push(&mut self, record: u64, start: u64, bases: &[u8]) -> Result<(), Error> {
        let Packed { bits, others, small } = Packed::new(bases);
        let (others, small) = (packed::others_to_bytes(&others), packed::small_to_bytes(&small));
        let columns = [&mut self.record, &mut self.start, &mut self.bases];
        let numbers = [record - self.first, start, bases.len() as u64];
        columns.into_iter().zip(numbers).for_each(|(column, number)| column.append_value(number));
        let columns = [&mut self.bits, &mut self.others, &mut self.small];
        columns
            .into_iter()
            .zip([&bits, &others, &small])
            .for_each(|(column, bytes)| column.append_value(bytes));
        self.pending += bases.len();
        if self.pending >= BATCH_BASES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.pending = 0;
        let numbers = [&mut self.record, &mut self.start, &mut self.bases];
        let numbers = numbers.map(|column| Arc::new(column.finish()) as ArrayRef);
        let packed = [&mut self.bits, &mut self.others, &mut self.small];
        let packed = packed.map(|column| Arc::new(column.finish()) as ArrayRef);
        self.writer.write([numbers, packed].concat())
    }

    /// Writes what is left and the footer.
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush()?;
        self.writer.finish()
    }
}

/// A block of bases.
#[derive(Debug)]
pub struct Block {
    /// Number of its record.
    pub record: u64,
    /// Where it starts, in bases of the record.
    pub start: u64,
    /// The bases.
    pub bases: Vec<u8>,
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.bases.len() as u64
    }
}

/// A file that holds bases.
#[derive(Debug)]
struct Part {
    /// The number of its first record.
    first: u64,
    path: PathBuf,
}

impl Part {
    /// Opens it to be read from a place on; the blocks before are not read.
    fn open_at(&self, record: u64, start: u64) -> Result<Reader, Error> {
        let place = (record.saturating_sub(self.first), start);
        let mut places = Reader::open_columns(&self.path, BATCH_ROWS, &["record", "start"])?;
        let mut before = 0;
        'blocks: while let Some(batch) = places.next_batch()? {
            let (records, starts) =
                (batch.column::<UInt64Array>("record")?, batch.column::<UInt64Array>("start")?);
            for i in 0..batch.rows() {
                if (records.value(i), starts.value(i)) > place {
                    break 'blocks;
                }
                before += 1;
            }
        }
        // The last block that begins before the place, or at it, holds it.
        Reader::open_from(&self.path, READ_BLOCKS, usize::saturating_sub(before, 1))
    }
}

/// Reads bases in order: all blocks, or intervals that ascend.
pub struct SequenceReader {
    /// The files that are not open yet.
    parts: VecDeque<Part>,
    /// The open file, and the number of its first record.
    reader: Option<(u64, Reader)>,
    blocks: VecDeque<Block>,
}

impl SequenceReader {
    /// Opens the bases of an artifact.
    pub fn open(artifact: &Artifact) -> Self {
        let parts = sequence_files(&artifact.manifest.files).into_iter();
        Self::of(parts.map(|(first, file)| Part { first, path: artifact.path(&file.path) }).collect())
    }

    /// Opens the file that a [`SequenceWriter`] of the records from the number `first` on made in a folder.
    pub fn open_file(folder: &Path, first: u64) -> Self {
        Self::of([Part { first, path: folder.join(sequence_file(first)) }].into())
    }

    fn of(parts: VecDeque<Part>) -> Self {
        Self { parts, reader: None, blocks: VecDeque::new() }
    }

    /// Opens the bases of an artifact to be read from a place on; the blocks before are not read.
    pub fn open_at(artifact: &Artifact, record: u64, start: u64) -> Result<Self, Error> {
        let mut opened = Self::open(artifact);
        opened.skip_to(record);
        if let Some(part) = opened.parts.pop_front() {
            opened.reader = Some((part.first, part.open_at(record, start)?));
        }
        Ok(opened)
    }

    /// Leaves out the files before the one that holds a record.
    fn skip_to(&mut self, record: u64) {
        let later = self.parts.partition_point(|part| part.first <= record);
        self.parts.drain(..later.saturating_sub(1));
    }

    /// The next block.
    pub fn next_block(&mut self) -> Result<Option<Block>, Error> {
        if self.blocks.is_empty() {
            self.load()?;
        }
        Ok(self.blocks.pop_front())
    }

    /// Reads the next blocks, if there are more.
    fn load(&mut self) -> Result<bool, Error> {
        loop {
            if let Some((first, reader)) = &mut self.reader {
                match reader.next_batch()? {
                    Some(batch) => {
                        blocks(&batch, *first, &mut self.blocks)?;
                        return Ok(true);
                    }
                    None => self.reader = None,
                }
            }
            let Some(part) = self.parts.pop_front() else { return Ok(false) };
            self.reader = Some((part.first, Reader::open(&part.path, READ_BLOCKS)?));
        }
    }

    /// Puts the bases of an interval into `out`; starts must not descend from call to call. Returns false when the
    /// sequence has no such interval.
    pub fn fetch(&mut self, record: u64, interval: Interval, out: &mut Vec<u8>) -> Result<bool, Error> {
        out.clear();
        if self.parts.front().is_some_and(|next| next.first <= record) {
            self.skip_to(record);
            self.reader = None;
        }
        loop {
            while self.blocks.front().is_some_and(|b| (b.record, b.end()) <= (record, interval.start)) {
                self.blocks.pop_front();
            }
            let complete = self.blocks.back().is_some_and(|b| (b.record, b.end()) >= (record, interval.end));
            if complete || !self.load()? {
                break;
            }
        }
        for block in self.blocks.iter().take_while(|b| (b.record, b.start) < (record, interval.end)) {
            if block.record == record {
                let from = interval.start.saturating_sub(block.start).min(block.bases.len() as u64);
                let to = (interval.end - block.start).min(block.bases.len() as u64);
                out.extend_from_slice(&block.bases[index(from)..index(to)]);
            }
        }
        Ok(out.len() as u64 == interval.len())
    }
}

/// Unpacks the blocks of a batch, whose records are counted from `first` on.
fn blocks(batch: &Batch, first: u64, out: &mut VecDeque<Block>) -> Result<(), Error> {
    let (record, start) = (batch.column::<UInt64Array>("record")?, batch.column::<UInt64Array>("start")?);
    let (bases, bits) = (batch.column::<UInt64Array>("bases")?, batch.column::<BinaryArray>("bits")?);
    let (others, small) = (batch.column::<BinaryArray>("others")?, batch.column::<BinaryArray>("small")?);
    for i in 0..batch.rows() {
        let others = packed::others_from_bytes(others.value(i));
        let small = packed::small_from_bytes(small.value(i));
        let bases = packed::unpack(bits.value(i), &others, &small, index(bases.value(i)));
        let bases = bases.ok_or_else(|| batch.damaged("bits"))?;
        out.push_back(Block { record: first + record.value(i), start: start.value(i), bases });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records 0 and 1 in a file, 2 in another, none in a third, 3 in a fourth.
    fn parts(folder: &Path) -> VecDeque<Part> {
        let blocks: [&[(u64, u64, &str)]; 3] =
            [&[(0, 0, "ACGT"), (0, 4, "TTTT"), (1, 0, "GG")], &[(2, 0, "CAT")], &[(3, 0, "TAGA")]];
        let part = |(first, blocks): (u64, &[(u64, u64, &str)])| {
            let mut writer = SequenceWriter::create(folder, first).unwrap();
            for (record, start, bases) in blocks {
                writer.push(*record, *start, bases.as_bytes()).unwrap();
            }
            writer.finish().unwrap();
            Part { first, path: folder.join(sequence_file(first)) }
        };
        [0, 2, 3].into_iter().zip(blocks).map(part).collect()
    }

    #[test]
    fn intervals_are_fetched_across_blocks_records_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        let all =
            [(0, 2, 6, "GTTT"), (0, 3, 8, "TTTTT"), (1, 0, 2, "GG"), (2, 1, 3, "AT"), (3, 0, 4, "TAGA")];
        // All of them, and with those left out that make the reader go through every file.
        for step in [1, 2, 4] {
            let mut reader = SequenceReader::of(parts(folder.path()));
            for (record, start, end, expected) in all.into_iter().step_by(step) {
                assert!(reader.fetch(record, Interval::new(start, end), &mut out).unwrap());
                assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
            }
            assert!(!reader.fetch(3, Interval::new(1, 9), &mut out).unwrap());
        }
    }

    #[test]
    fn blocks_come_in_order_with_the_numbers_of_their_records() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = SequenceReader::of(parts(folder.path()));
        let mut found = Vec::new();
        while let Some(block) = reader.next_block().unwrap() {
            found.push((block.record, block.start, String::from_utf8(block.bases).unwrap()));
        }
        let found: Vec<_> =
            found.iter().map(|(record, start, bases)| (*record, *start, bases.as_str())).collect();
        assert_eq!(found, [(0, 0, "ACGT"), (0, 4, "TTTT"), (1, 0, "GG"), (2, 0, "CAT"), (3, 0, "TAGA")]);
    }

    #[test]
    fn files_are_told_by_their_names_and_come_in_the_order_of_their_records() {
        let entry = |path: &str| FileEntry {
            path: path.to_owned(),
            bytes: 0,
            blake3: String::new(),
            volatile: false,
        };
        let files = [
            sequence_file(1_000_000_000_000),
            sequence_file(7),
            "sequence-x.parquet".to_owned(),
            "masks.parquet".to_owned(),
        ];
        let files: Vec<_> = files.iter().map(|path| entry(path)).collect();
        let found: Vec<u64> = sequence_files(&files).into_iter().map(|(first, _)| first).collect();
        assert_eq!(found, [7, 1_000_000_000_000]);
    }
}
