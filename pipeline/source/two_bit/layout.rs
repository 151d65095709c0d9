//! Where the parts of a 2bit file are. Numbers are of 32 bits (offsets of 64 in version 1), in the byte order that the
//! first four bytes show.

use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Error;
use crate::fs;
use crate::units::Interval;

const MAGIC: u32 = 0x1A41_2743;

/// The bases of each byte: the first in its highest bits.
const BASES: [[u8; 4]; 256] = bases_table();

const fn bases_table() -> [[u8; 4]; 256] {
    let codes = b"TCAG";
    let mut table = [[0; 4]; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = [codes[i >> 6], codes[i >> 4 & 3], codes[i >> 2 & 3], codes[i & 3]];
        i += 1;
    }
    table
}

/// A 2bit file and the list of its records.
pub(super) struct Layout<R> {
    file: PathBuf,
    reader: R,
    /// Bytes of the file.
    bytes: u64,
    big_endian: bool,
    /// Of each record: its name, and the byte at which it begins.
    records: Vec<(String, u64)>,
    /// The records, by number, whose name an earlier one has.
    duplicates: HashSet<usize>,
}

/// What a record says before its bases.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    bases: u64,
    /// Byte of the file at which the packed bases begin.
    offset: u64,
    unknown: Vec<Interval>,
    lower_case: Vec<Interval>,
}

impl Sequence {
    pub(super) fn bases(&self) -> u64 {
        self.bases
    }
}

impl<R: Read + Seek> Layout<R> {
    pub(super) fn read(file: &Path, reader: R, bytes: u64) -> Result<Self, Error> {
        let mut layout = Self {
            file: file.to_owned(),
            reader,
            bytes,
            big_endian: false,
            records: Vec::new(),
            duplicates: HashSet::new(),
        };
        layout.check_magic()?;
        let [version, count, reserved] = layout.numbers(4)?;
        if version > 1 || reserved != 0 {
            return Err(layout.damaged(4, format!("found version {version} of 2bit, expected 0 or 1")));
        }
        layout.read_records(count, version == 1)?;
        Ok(layout)
    }

    fn check_magic(&mut self) -> Result<(), Error> {
        let mut head = [0; 4];
        let got = read_up_to(&mut self.reader, &mut head).map_err(fs::error("read", &self.file))?;
        self.big_endian = u32::from_be_bytes(head) == MAGIC;
        if got == 4 && (self.big_endian || u32::from_le_bytes(head) == MAGIC) {
            return Ok(());
        }
        let found = match got {
            0 => "an empty file".to_owned(),
            got => format!("`{}`", head[..got].escape_ascii()),
        };
        Err(Error::Format { file: self.file.clone(), found })
    }

    fn read_records(&mut self, count: u32, long: bool) -> Result<(), Error> {
        let mut names = HashSet::new();
        let mut at = 16;
        for number in 0..count as usize {
            let length = self.bytes_at(at, 1)?[0];
            let name = self.bytes_at(at + 1, usize::from(length))?;
            let name = String::from_utf8(name).ok().filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| self.damaged(at, "found a name that is no text".to_owned()))?;
            at += 1 + u64::from(length);
            let offset = self.bytes_at(at, if long { 8 } else { 4 })?;
            at += offset.len() as u64;
            if !names.insert(name.clone()) {
                self.duplicates.insert(number);
            }
            self.records.push((name, self.number(&offset)));
        }
        Ok(())
    }

    /// The name of a record, none past the last.
    pub(super) fn name(&self, record: usize) -> Option<&str> {
        self.records.get(record).map(|(name, _)| name.as_str())
    }

    /// What record `record` says before its bases; it must be there.
    pub(super) fn sequence(&mut self, record: usize) -> Result<Sequence, Error> {
        let (name, start) = self.records[record].clone();
        if self.duplicates.contains(&record) {
            return Err(Error::DuplicateName { file: self.file.clone(), record: name });
        }
        let [bases] = self.numbers(start)?;
        let bases = u64::from(bases);
        let mut at = start + 4;
        let unknown = self.stretches(&mut at, bases)?;
        let lower_case = self.stretches(&mut at, bases)?;
        let offset = at + 4;
        if bases == 0 {
            return Err(Error::EmptyRecord { file: self.file.clone(), record: name });
        }
        self.expect_bytes(offset, bases.div_ceil(4))?;
        Ok(Sequence { bases, offset, unknown, lower_case })
    }

    /// A list of stretches: their number, their starts, their lengths; `at` moves past it.
    fn stretches(&mut self, at: &mut u64, bases: u64) -> Result<Vec<Interval>, Error> {
        let [count] = self.numbers(*at)?;
        let half = 4 * u64::from(count);
        self.expect_bytes(*at + 4, 2 * half)?;
        let mut numbers = Vec::new();
        for part in 0..2 {
            let bytes = self.bytes_at(*at + 4 + part * half, usize::try_from(half).unwrap_or(usize::MAX))?;
            numbers.push(bytes);
        }
        let starts = numbers[0].chunks_exact(4).map(|n| self.number(n));
        let lengths = numbers[1].chunks_exact(4).map(|n| self.number(n));
        let mut stretches: Vec<Interval> =
            starts.zip(lengths).map(|(start, length)| Interval::new(start, start + length)).collect();
        if let Some(wrong) = stretches.iter().find(|stretch| stretch.end > bases) {
            return Err(
                self.damaged(*at, format!("found a stretch {wrong}, expected one within {bases} bases"))
            );
        }
        stretches.sort_unstable();
        if let Some((a, b)) = stretches.iter().zip(stretches.iter().skip(1)).find(|(a, b)| b.start < a.end) {
            let problem = format!("found stretches {a} and {b}, expected them apart");
            return Err(self.damaged(*at, problem));
        }
        *at += 4 + 2 * half;
        Ok(stretches)
    }

    /// Puts the bases of an interval of a record into `out`: A, C, G, T and N, in lower case where the file says so.
    pub(super) fn bases(
        &mut self,
        sequence: &Sequence,
        interval: Interval,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let first = interval.start / 4;
        let count = usize::try_from(interval.end.div_ceil(4) - first).unwrap_or(usize::MAX);
        let packed = self.bytes_at(sequence.offset + first, count)?;
        out.clear();
        out.extend(packed.iter().flat_map(|&byte| BASES[usize::from(byte)]));
        out.drain(..usize::try_from(interval.start % 4).unwrap_or_default());
        out.truncate(usize::try_from(interval.len()).unwrap_or(usize::MAX));
        for_each_part(&sequence.unknown, interval, |from, to| out[from..to].fill(b'N'));
        for_each_part(&sequence.lower_case, interval, |from, to| out[from..to].make_ascii_lowercase());
        Ok(())
    }

    fn numbers<const N: usize>(&mut self, at: u64) -> Result<[u32; N], Error> {
        let bytes = self.bytes_at(at, 4 * N)?;
        let mut numbers = [0; N];
        for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *number = if self.big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) };
        }
        Ok(numbers)
    }

    /// A number of as many bytes as there are.
    fn number(&self, bytes: &[u8]) -> u64 {
        let add = |number, &byte| (number << 8) | u64::from(byte);
        if self.big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    }

    fn bytes_at(&mut self, at: u64, count: usize) -> Result<Vec<u8>, Error> {
        self.expect_bytes(at, count as u64)?;
        let mut bytes = vec![0; count];
        let read = self.reader.seek(SeekFrom::Start(at)).and_then(|_| self.reader.read_exact(&mut bytes));
        read.map_err(fs::error("read", &self.file))?;
        Ok(bytes)
    }

    /// Refuses a place past the file's end, before memory is taken for it.
    fn expect_bytes(&self, at: u64, count: u64) -> Result<(), Error> {
        match at.checked_add(count) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(self.damaged(
                at,
                format!(
                    "the file is truncated: expected {count} bytes here, and it has {} in all",
                    self.bytes
                ),
            )),
        }
    }

    fn damaged(&self, offset: u64, problem: String) -> Error {
        Error::Damaged { file: self.file.clone(), offset, problem }
    }
}

/// Calls `each` with the parts of `interval` that lie in stretches, counted from its start.
fn for_each_part(stretches: &[Interval], interval: Interval, mut each: impl FnMut(usize, usize)) {
    let first = stretches.partition_point(|stretch| stretch.end <= interval.start);
    for stretch in stretches[first..].iter().take_while(|stretch| stretch.start < interval.end) {
        let from = stretch.start.max(interval.start) - interval.start;
        let to = stretch.end.min(interval.end) - interval.start;
        let place = |bases| usize::try_from(bases).unwrap_or(usize::MAX);
        each(place(from), place(to));
    }
}

fn read_up_to(reader: &mut impl Read, out: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match reader.read(&mut out[filled..])? {
            0 => break,
            got => filled += got,
        }
    }
    Ok(filled)
}
