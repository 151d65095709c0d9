//! Alignments (BAM, SAM, CRAM) as a stream of reads: the bases as the machine read them, and where they were aligned.
//!
//! Holds one record at a time (CRAM: one container, usually 10,000 records, and the contigs of the reference that it
//! needs) and the reference names of the header. Intervals are 0-based and half-open on the
//! reference. What the options leave out is counted by reason, in records and in bases.

mod bam;
pub mod consensus;
mod cram;
mod sam;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::bam::Bam;
use self::cram::Cram;
use self::sam::Sam;
use super::fasta;
use super::fastq;
use super::input::{self, Input};
use crate::sequence::{alphabet, complement};
use crate::units::{Interval, Strand};

/// Why an alignment file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes of the file cannot be had, before its first record.
    #[error(transparent)]
    Input(#[from] input::Error),
    /// Some other file.
    #[error("cannot read `{}`: expected BAM, CRAM, or SAM with a header; found {found}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What its first bytes are.
        found: String,
    },
    /// A header that is cut short or holds impossible values.
    #[error("cannot read the header of `{}`: {problem}", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: Problem,
    },
    /// The bytes of a record cannot be had; the source says why.
    #[error("cannot read record {record} of `{}`", file.display())]
    Bytes {
        /// The file.
        file: PathBuf,
        /// From 1.
        record: u64,
        /// What is wrong with the file.
        source: input::Error,
    },
    /// A record that is cut short or holds impossible values.
    #[error("cannot read record {record} of `{}`: {problem}", file.display())]
    Record {
        /// The file.
        file: PathBuf,
        /// From 1.
        record: u64,
        /// What is wrong.
        problem: Problem,
    },
    /// The reference of a consensus is at fault.
    #[error(transparent)]
    Fasta(#[from] fasta::Error),
    /// Or its index.
    #[error(transparent)]
    Index(#[from] fasta::index::Error),
    /// A read that does not fit the reference of a consensus, or the reads before it.
    #[error("cannot take record {record} of `{}` into a consensus: {problem}", file.display())]
    Consensus {
        /// The file.
        file: PathBuf,
        /// From 1.
        record: u64,
        /// What is wrong.
        problem: Box<consensus::Problem>,
    },
}

impl Error {
    /// Whether only one record is at fault, so that the reader can go on with the next one.
    pub fn is_of_one_record(&self) -> bool {
        match self {
            Self::Record { problem, .. } => !matches!(problem, Problem::Truncated | Problem::Cram(_)),
            _ => false,
        }
    }
}

/// What is wrong with a record or a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file ends within it.
    #[error("the file is truncated: it ends in the middle")]
    Truncated,
    /// Too few bytes for the lengths that it names.
    #[error("found {found} bytes, expected at least {needed} for its fields")]
    TooShort {
        /// Bytes.
        found: usize,
        /// Bytes.
        needed: usize,
    },
    /// A name that is no text.
    #[error("found a name that is no NUL-terminated UTF-8 text")]
    Name,
    /// A reference that the header does not have.
    #[error("found reference {found}, expected -1 or one of the header's {count} from 0")]
    Reference {
        /// The reference's number, from 0.
        found: i32,
        /// References in the header.
        count: usize,
    },
    /// A position before the first base.
    #[error("found position {found}, expected -1 (unknown) or a base of the reference from 0")]
    Position {
        /// From 0.
        found: i32,
    },
    /// An operation that CIGARs do not have.
    #[error("found {found} as operation {index} of the CIGAR, expected 0 to 8 (MIDNSHP=X)")]
    Operation {
        /// Its number.
        found: u32,
        /// Place in the CIGAR, from 0.
        index: usize,
    },
    /// A CIGAR of other bases.
    #[error("found a CIGAR of {found} bases, expected {expected}, those of the read")]
    Cigar {
        /// Bases that it covers on the read.
        found: u64,
        /// Bases of the read.
        expected: u64,
    },
    /// A CIGAR too long for its field.
    #[error("found a CIGAR of over 65535 operations, which stands in the tag `CG`; expected a shorter one")]
    CigarInTag,
    /// A CRAM file that names a reference it was given none of, or another one.
    #[error("{0}")]
    Cram(String),
    /// A base that is no IUPAC code.
    #[error("found `{}` as base {position}, expected an IUPAC nucleotide code", found.escape_ascii())]
    Base {
        /// The byte; `=` stands for the reference's base.
        found: u8,
        /// Base of the record as it is stored, from 0.
        position: usize,
    },
    /// Too few columns.
    #[error("found {found} tab-separated fields, expected at least 11")]
    Fields {
        /// Columns.
        found: usize,
    },
    /// A column that is not what it should be.
    #[error("found {field} `{found}`, expected {expected}")]
    Field {
        /// The column's name.
        field: &'static str,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
}

/// Which records of an alignment file become reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key that people write")]
pub struct Options {
    /// Whether secondary alignments are kept: other places of a read that is also elsewhere in the file. Default false.
    pub secondary: bool,
    /// Whether supplementary alignments are kept: parts of a read that is also elsewhere in the file. Default false.
    pub supplementary: bool,
    /// Whether reads marked as PCR or optical duplicates are kept. Default false.
    pub duplicates: bool,
    /// Whether reads that failed the sequencer's quality checks are kept. Default false.
    pub qc_failed: bool,
    /// Whether reads that are not aligned are kept. Default true.
    pub unmapped: bool,
    /// The least mapping quality of an aligned read. Default 0; 255, which means unknown, passes.
    pub min_mapping_quality: u8,
    /// Bases of a lower quality become N; reads without qualities stay as they are. Default 0: none.
    #[schemars(range(max = 93))]
    pub min_base_quality: u8,
    /// Flags that a read must have, all of them, as the sum of their bits (`samtools view -f`). Default 0: none.
    pub required_flags: u16,
    /// Flags of which a read may have none, as the sum of their bits (`samtools view -F`). Default 0: none.
    pub excluded_flags: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            secondary: false,
            supplementary: false,
            duplicates: false,
            qc_failed: false,
            unmapped: true,
            min_mapping_quality: 0,
            min_base_quality: 0,
            required_flags: 0,
            excluded_flags: 0,
        }
    }
}

/// Why a record did not become a read; where several reasons hold, the first of this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A secondary alignment.
    Secondary,
    /// A supplementary alignment.
    Supplementary,
    /// Failed the sequencer's quality checks.
    QcFailed,
    /// A PCR or optical duplicate.
    Duplicate,
    /// Not aligned.
    Unmapped,
    /// Aligned with too low a mapping quality.
    LowMappingQuality,
    /// Without a required flag, or with an excluded one.
    Flags,
    /// The file has no bases for it.
    NoBases,
}

/// A number of records and their bases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Records.
    pub records: u64,
    /// Bases.
    pub bases: u64,
}

impl Tally {
    fn add(&mut self, bases: usize) {
        self.records += 1;
        self.bases += bases as u64;
    }
}

/// What became of the records read so far; every record is in `kept` or in one of `skipped`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Records that became reads.
    pub kept: Tally,
    /// Records that did not, by reason.
    pub skipped: BTreeMap<Reason, Tally>,
    /// Bases of the kept records that became N for their low quality.
    #[serde(default)]
    pub masked: u64,
}

/// The flags of a record, as the SAM specification numbers their bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// Whether any of `bits` is set.
    const fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// Whether all of `bits` are set.
    const fn has_all(self, bits: u16) -> bool {
        self.0 & bits == bits
    }

    /// Part of a pair or of more segments.
    pub const fn is_paired(self) -> bool {
        self.has(0x1)
    }

    /// Not aligned.
    pub const fn is_unmapped(self) -> bool {
        self.has(0x4)
    }

    /// The strand of the reference that the read was aligned to.
    pub const fn strand(self) -> Strand {
        if self.has(0x10) { Strand::Reverse } else { Strand::Forward }
    }

    /// `/1` for the first of a pair, `/2` for the last, else nothing.
    pub const fn mate_suffix(self) -> &'static str {
        match (self.is_paired(), self.has(0x40), self.has(0x80)) {
            (true, true, false) => "/1",
            (true, false, true) => "/2",
            _ => "",
        }
    }
}

/// An operation of a CIGAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// One of `MIDNSHP=X`.
    pub code: u8,
    /// How many bases it is about.
    pub bases: u64,
}

impl Operation {
    /// Bases of the reference that it covers: M, D, N, = and X do.
    const fn reference_bases(self) -> u64 {
        match self.code {
            b'M' | b'D' | b'N' | b'=' | b'X' => self.bases,
            _ => 0,
        }
    }
}

/// A read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read<'a> {
    /// Its name, with `/1` or `/2` for the mates of a pair; `unnamed:N` for record N (from 1) if it has none.
    pub name: &'a str,
    /// Its bases on the strand that was sequenced: the reverse complement of what the file stores for a read on the
    /// reverse strand.
    pub bases: &'a [u8],
    /// The reference that it was aligned to.
    pub reference: Option<&'a str>,
    /// Where on the reference it was aligned.
    pub interval: Option<Interval>,
    /// How the bases that the file stores, those on the strand of the reference, were aligned; none where it does not say.
    pub cigar: &'a [Operation],
    /// Of the alignment; none when unknown.
    pub mapping_quality: Option<u8>,
    /// As the file has them.
    pub flags: Flags,
}

/// The fields of a record that decide whether it is kept.
#[derive(Debug, Clone, Copy)]
struct Summary {
    flags: Flags,
    mapping_quality: u8,
    bases: usize,
}

/// A record's buffers, used again for the next one; the bases are as the file stores them.
#[derive(Debug, Default)]
struct Fields {
    name: String,
    bases: Vec<u8>,
    /// One number a base, or nothing where the file has none or nobody wants them.
    qualities: Vec<u8>,
    wants_qualities: bool,
    reference: Option<String>,
    interval: Option<Interval>,
    cigar: Vec<Operation>,
}

impl Fields {
    /// Where a read that begins at `start`, if that is known, lies by its operations.
    fn set_interval(&mut self, start: Option<u64>) {
        let bases = self.cigar.iter().map(|operation| operation.reference_bases()).sum::<u64>();
        self.interval = self.reference.as_ref().and(start).map(|start| Interval::new(start, start + bases));
    }

    /// Keeps the buffer where there is one.
    fn set_reference(&mut self, reference: Option<&str>) {
        match (&mut self.reference, reference) {
            (Some(buffer), Some(name)) => name.clone_into(buffer),
            (field, name) => *field = name.map(ToOwned::to_owned),
        }
    }
}

/// Reads an alignment file.
pub struct Reader {
    file: PathBuf,
    format: Format,
    options: Options,
    fields: Fields,
    counts: Counts,
    /// Records read.
    records: u64,
}

enum Format {
    Bam(Box<Bam>),
    Sam(Box<Sam>),
    Cram(Box<Cram>),
}

impl Reader {
    /// Opens a file, or standard input for the path `-`.
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        Self::new(Input::open(path)?, options)
    }

    /// Opens a file whose reads may be written as differences to the FASTA file `reference`, as those of CRAM are.
    pub fn open_with_reference(
        path: &Path,
        reference: Option<&Path>,
        options: Options,
    ) -> Result<Self, Error> {
        Self::with_reference(Input::open(path)?, reference, options)
    }

    /// Reads the header; BAM, SAM and CRAM are told apart by the first bytes.
    pub fn new(input: Input, options: Options) -> Result<Self, Error> {
        Self::with_reference(input, None, options)
    }

    fn with_reference(mut input: Input, reference: Option<&Path>, options: Options) -> Result<Self, Error> {
        let file = input.file().to_owned();
        let format = match input.peek(4)? {
            b"BAM\x01" => Format::Bam(Box::new(Bam::new(input).map_err(|e| e.in_header(&file))?)),
            [b'@', a, b, b'\t'] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => {
                Format::Sam(Box::new(Sam::new(input)))
            }
            b"CRAM" => Format::Cram(Box::new(Cram::new(input, reference).map_err(|e| e.in_header(&file))?)),
            head => return Err(Error::Format { file, found: name_of_format(head) }),
        };
        let fields = Fields { wants_qualities: options.min_base_quality > 0, ..Fields::default() };
        Ok(Self { file, format, options, fields, counts: Counts::default(), records: 0 })
    }

    /// The next read, none at the end of the file. After an error of one record the next call reads the one after it;
    /// after any other the reader is of no further use.
    pub fn next_read(&mut self) -> Result<Option<Read<'_>>, Error> {
        loop {
            self.records += 1;
            let Some(summary) = self.format.advance().map_err(|e| e.in_record(&self.file, self.records))?
            else {
                return Ok(None);
            };
            if let Some(reason) = reason_to_skip(summary, self.options) {
                self.counts.skipped.entry(reason).or_default().add(summary.bases);
                continue;
            }
            self.take_fields(summary).map_err(|e| e.in_record(&self.file, self.records))?;
            self.counts.kept.add(summary.bases);
            return Ok(Some(self.read(summary)));
        }
    }

    /// The format, as its specification writes it.
    pub fn format(&self) -> &'static str {
        match self.format {
            Format::Bam(_) => "BAM",
            Format::Sam(_) => "SAM",
            Format::Cram(_) => "CRAM",
        }
    }

    /// The references of the header in its order; of SAM, once the first record was read.
    pub fn references(&self) -> Vec<&str> {
        match &self.format {
            Format::Bam(bam) => bam.references().iter().map(String::as_str).collect(),
            Format::Sam(sam) => sam.references().iter().map(String::as_str).collect(),
            Format::Cram(cram) => cram.references(),
        }
    }

    /// What became of the records so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Restores the record just read to a read.
    fn take_fields(&mut self, summary: Summary) -> Result<(), Fault> {
        let fields = &mut self.fields;
        self.format.take_fields(fields)?;
        if let Some(position) = alphabet::first_invalid(&fields.bases) {
            return Err(Problem::Base { found: fields.bases[position], position }.into());
        }
        if self.options.min_base_quality > 0 {
            let qualities = fields.qualities.iter().copied();
            self.counts.masked += fastq::mask(&mut fields.bases, qualities, self.options.min_base_quality);
        }
        if summary.flags.strand() == Strand::Reverse {
            complement::reverse_complement(&mut fields.bases);
        }
        if fields.name == "*" {
            fields.name = format!("unnamed:{}", self.records);
        }
        let suffix = summary.flags.mate_suffix();
        if !fields.name.ends_with(suffix) {
            fields.name.push_str(suffix);
        }
        Ok(())
    }

    fn read(&self, summary: Summary) -> Read<'_> {
        let aligned = !summary.flags.is_unmapped();
        Read {
            name: &self.fields.name,
            bases: &self.fields.bases,
            reference: self.fields.reference.as_deref().filter(|_| aligned),
            interval: self.fields.interval.filter(|_| aligned),
            cigar: &self.fields.cigar,
            mapping_quality: Some(summary.mapping_quality).filter(|&quality| quality != 255),
            flags: summary.flags,
        }
    }
}

impl Format {
    /// Reads the next record's bytes, none at the end of the file.
    fn advance(&mut self) -> Result<Option<Summary>, Fault> {
        match self {
            Self::Bam(bam) => bam.advance(),
            Self::Sam(sam) => sam.advance(),
            Self::Cram(cram) => cram.advance(),
        }
    }

    /// Decodes the record whose bytes were read last.
    fn take_fields(&self, fields: &mut Fields) -> Result<(), Fault> {
        match self {
            Self::Bam(bam) => bam.take_fields(fields),
            Self::Sam(sam) => sam.take_fields(fields),
            Self::Cram(cram) => cram.take_fields(fields),
        }
    }
}

/// An error that does not know yet where it is.
enum Fault {
    Input(input::Error),
    Problem(Problem),
}

impl From<input::Error> for Fault {
    fn from(error: input::Error) -> Self {
        Self::Input(error)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Fault {
    fn in_header(self, file: &Path) -> Error {
        match self {
            Self::Input(error) => Error::Input(error),
            Self::Problem(problem) => Error::Header { file: file.to_owned(), problem },
        }
    }

    fn in_record(self, file: &Path, record: u64) -> Error {
        let file = file.to_owned();
        match self {
            Self::Input(source) => Error::Bytes { file, record, source },
            Self::Problem(problem) => Error::Record { file, record, problem },
        }
    }
}

fn name_of_format(head: &[u8]) -> String {
    match head {
        [] => "an empty file".to_owned(),
        _ => format!("`{}`", head.escape_ascii()),
    }
}

fn reason_to_skip(record: Summary, options: Options) -> Option<Reason> {
    let flags = record.flags;
    let unmapped = flags.is_unmapped();
    let low = !unmapped && record.mapping_quality < options.min_mapping_quality;
    let reasons = [
        (flags.has(0x100) && !options.secondary, Reason::Secondary),
        (flags.has(0x800) && !options.supplementary, Reason::Supplementary),
        (flags.has(0x200) && !options.qc_failed, Reason::QcFailed),
        (flags.has(0x400) && !options.duplicates, Reason::Duplicate),
        (unmapped && !options.unmapped, Reason::Unmapped),
        (low, Reason::LowMappingQuality),
        (!flags.has_all(options.required_flags) || flags.has(options.excluded_flags), Reason::Flags),
        (record.bases == 0, Reason::NoBases),
    ];
    reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
}

#[cfg(test)]
mod tests;
