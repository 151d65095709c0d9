//! BAM: binary records, as section 4.2 of the SAM specification lays them out; little-endian throughout.

use std::io::{self, Read as _};

use super::{Fault, Fields, Flags, Operation, Problem, Summary};
use crate::source::input::{Error, Input};

/// Stands for the quality of every base of a record that has none.
const MISSING_QUALITY: u8 = 0xFF;

/// Bytes of a record before its name.
const FIXED_BYTES: usize = 32;

/// The two bases of each byte of a record.
const BASES: [[u8; 2]; 256] = bases_table();

const fn bases_table() -> [[u8; 2]; 256] {
    let codes = b"=ACMGRSVTWYHKDBN";
    let mut table = [[0; 2]; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = [codes[i >> 4], codes[i & 15]];
        i += 1;
    }
    table
}

pub(super) struct Bam {
    input: Input,
    references: Vec<String>,
    /// The record read last, without its length.
    record: Vec<u8>,
    layout: Layout,
}

/// Where the parts of a record end, in bytes of the record.
#[derive(Debug, Clone, Copy, Default)]
struct Layout {
    name: usize,
    cigar: usize,
    bases: usize,
    /// Bases, of which a byte holds two.
    base_count: usize,
}

impl Bam {
    /// Reads the header, from the magic number to the references.
    pub(super) fn new(input: Input) -> Result<Self, Fault> {
        let mut bam = Self { input, references: Vec::new(), record: Vec::new(), layout: Layout::default() };
        bam.read_exactly(4)?;
        let text = bam.read_u32()?;
        bam.pass(u64::from(text))?;
        for _ in 0..bam.read_u32()? {
            let reference = bam.read_reference()?;
            bam.references.push(reference);
        }
        Ok(bam)
    }

    pub(super) fn references(&self) -> &[String] {
        &self.references
    }

    fn read_reference(&mut self) -> Result<String, Fault> {
        let length = self.read_u32()?;
        self.read_exactly(length as usize)?;
        let name = text(&self.record)?.to_owned();
        self.read_u32()?;
        Ok(name)
    }

    /// Reads the next record's bytes.
    pub(super) fn advance(&mut self) -> Result<Option<Summary>, Fault> {
        self.record.clear();
        match self.input.read_up_to(4, &mut self.record)? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(Problem::Truncated.into()),
        }
        self.read_exactly(u32_at(&self.record, 0) as usize)?;
        self.layout = Layout::of(&self.record)?;
        Ok(Some(Summary {
            flags: Flags(u16::from_le_bytes([self.record[14], self.record[15]])),
            mapping_quality: self.record[9],
            bases: self.layout.base_count,
        }))
    }

    /// Decodes the record read last.
    pub(super) fn take_fields(&self, fields: &mut Fields) -> Result<(), Fault> {
        let Layout { name, cigar, bases, base_count } = self.layout;
        fields.name.clear();
        fields.name.push_str(text(&self.record[FIXED_BYTES..name])?);
        decode_bases(&self.record[cigar..bases], base_count, &mut fields.bases);
        fields.qualities.clear();
        let qualities = &self.record[bases..bases + base_count];
        if fields.wants_qualities && qualities.first() != Some(&MISSING_QUALITY) {
            fields.qualities.extend_from_slice(qualities);
        }
        let reference = self.reference()?;
        fields.set_reference(reference.map(String::as_str));
        take_operations(&self.record[name..cigar], &mut fields.cigar)?;
        fields.set_interval(start(i32_at(&self.record, 4))?);
        Ok(())
    }

    fn reference(&self) -> Result<Option<&String>, Problem> {
        let found = i32_at(&self.record, 0);
        if found == -1 {
            return Ok(None);
        }
        let reference = usize::try_from(found).ok().and_then(|i| self.references.get(i));
        reference.map(Some).ok_or(Problem::Reference { found, count: self.references.len() })
    }

    /// Replaces `record` by the next `count` bytes.
    fn read_exactly(&mut self, count: usize) -> Result<(), Fault> {
        self.record.clear();
        let got = self.input.read_up_to(count, &mut self.record)?;
        if got < count { Err(Problem::Truncated.into()) } else { Ok(()) }
    }

    fn read_u32(&mut self) -> Result<u32, Fault> {
        self.read_exactly(4)?;
        Ok(u32_at(&self.record, 0))
    }

    fn pass(&mut self, count: u64) -> Result<(), Fault> {
        let passed = io::copy(&mut self.input.by_ref().take(count), &mut io::sink());
        match passed.map_err(|error| Error::from_io(error, self.input.file()))? {
            passed if passed < count => Err(Problem::Truncated.into()),
            _ => Ok(()),
        }
    }
}

impl Layout {
    /// Checks that the record is as long as its lengths say.
    fn of(record: &[u8]) -> Result<Self, Problem> {
        let found = record.len();
        if found < FIXED_BYTES {
            return Err(Problem::TooShort { found, needed: FIXED_BYTES });
        }
        let base_count = u32_at(record, 16) as usize;
        let name = FIXED_BYTES + usize::from(record[8]);
        let cigar = name + 4 * usize::from(u16::from_le_bytes([record[12], record[13]]));
        let bases = cigar + base_count.div_ceil(2);
        let needed = bases + base_count;
        if found < needed {
            Err(Problem::TooShort { found, needed })
        } else {
            Ok(Self { name, cigar, bases, base_count })
        }
    }
}

fn decode_bases(packed: &[u8], count: usize, bases: &mut Vec<u8>) {
    bases.resize(2 * packed.len(), 0);
    for (pair, &byte) in bases.as_chunks_mut::<2>().0.iter_mut().zip(packed) {
        *pair = BASES[usize::from(byte)];
    }
    bases.truncate(count);
}

/// None when the position is unknown (-1).
fn start(position: i32) -> Result<Option<u64>, Problem> {
    match u64::try_from(position) {
        Ok(start) => Ok(Some(start)),
        Err(_) if position == -1 => Ok(None),
        Err(_) => Err(Problem::Position { found: position }),
    }
}

/// A CIGAR too long for its field is stored elsewhere, and one of equal length on the reference in its place.
fn take_operations(cigar: &[u8], operations: &mut Vec<Operation>) -> Result<(), Problem> {
    operations.clear();
    for (index, operation) in cigar.chunks_exact(4).enumerate() {
        let operation = u32_at(operation, 0);
        let code = b"MIDNSHP=X".get((operation & 15) as usize).copied();
        let code = code.ok_or(Problem::Operation { found: operation & 15, index })?;
        operations.push(Operation { code, bases: u64::from(operation >> 4) });
    }
    Ok(())
}

/// NUL-terminated text.
fn text(bytes: &[u8]) -> Result<&str, Problem> {
    let bytes = bytes.strip_suffix(&[0]).ok_or(Problem::Name)?;
    str::from_utf8(bytes).map_err(|_| Problem::Name)
}

/// `bytes` holds at least `at + 4` bytes.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    u32_at(bytes, at).cast_signed()
}
