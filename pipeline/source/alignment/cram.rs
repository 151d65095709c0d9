//! CRAM, read by noodles: containers of records that are written as differences to a reference.
//!
//! Holds one container of records, and of the reference the contigs that it names. Each contig is checked against the
//! MD5 that the header has for it. What is wrong with a container is told of its first record.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::vec;

use md5::{Digest as _, Md5};
use noodles::cram::io::reader::Container;
use noodles::fasta::record::{Definition, Sequence};
use noodles::fasta::repository::Adapter;
use noodles::sam::alignment::RecordBuf;
use noodles::sam::alignment::record::cigar::{Op, op::Kind};
use noodles::sam::header::record::value::map::reference_sequence::tag;
use noodles::{cram, fasta as fasta_records, sam};

use super::{Fault, Fields, Flags, Operation, Problem, Summary};
use crate::source::fasta;
use crate::source::input::{self, Input};

pub(super) struct Cram {
    reader: cram::io::Reader<Input>,
    header: sam::Header,
    reference: fasta_records::Repository,
    container: Container,
    records: vec::IntoIter<RecordBuf>,
    /// The record read last.
    record: RecordBuf,
}

impl Cram {
    /// Reads the header; contigs of the FASTA file `reference` are read when a record needs them.
    pub(super) fn new(input: Input, reference: Option<&Path>) -> Result<Self, Fault> {
        let mut reader = cram::io::Reader::new(input);
        let header = guarded(|| reader.read_header())?;
        let contigs = Contigs {
            file: reference.map(Path::to_owned),
            checksums: checksums(&header),
            reader: Mutex::new(None),
        };
        Ok(Self {
            reader,
            header,
            reference: fasta_records::Repository::new(contigs),
            container: Container::default(),
            records: Vec::new().into_iter(),
            record: RecordBuf::default(),
        })
    }

    pub(super) fn references(&self) -> Vec<&str> {
        let names = self.header.reference_sequences().keys();
        names.filter_map(|name| str::from_utf8(name.as_ref()).ok()).collect()
    }

    /// Reads the next record.
    pub(super) fn advance(&mut self) -> Result<Option<Summary>, Fault> {
        loop {
            if let Some(record) = self.records.next() {
                self.record = record;
                return Ok(Some(Summary {
                    flags: Flags(self.record.flags().bits()),
                    mapping_quality: self.record.mapping_quality().map_or(255, u8::from),
                    bases: self.record.sequence().len(),
                }));
            }
            let Some(records) = guarded(|| self.read_container())? else { return Ok(None) };
            self.records = records.into_iter();
        }
    }

    /// The records of the next container, none at the end of the file.
    fn read_container(&mut self) -> io::Result<Option<Vec<RecordBuf>>> {
        if self.reader.read_container(&mut self.container)? == 0 {
            return Ok(None);
        }
        if self.reference.len() > 1 {
            self.reference.clear();
        }
        self.decode_container().map(Some).map_err(|error| match error.kind() {
            // Of the container, not of the file.
            io::ErrorKind::UnexpectedEof => io::Error::other("found a container that does not decode"),
            _ => error,
        })
    }

    fn decode_container(&self) -> io::Result<Vec<RecordBuf>> {
        let compression = self.container.compression_header()?;
        let mut records = Vec::new();
        for slice in self.container.slices() {
            let slice = slice?;
            let (core, external) = slice.decode_blocks()?;
            let reference = self.reference.clone();
            for record in slice.records(reference, &self.header, &compression, &core, &external)? {
                records.push(RecordBuf::try_from_alignment_record(&self.header, &record)?);
            }
        }
        Ok(records)
    }

    /// Decodes the record read last.
    pub(super) fn take_fields(&self, fields: &mut Fields) -> Result<(), Fault> {
        let record = &self.record;
        let name = record.name().map_or(&b"*"[..], |name| name.as_ref());
        str::from_utf8(name).map_err(|_| Problem::Name)?.clone_into(&mut fields.name);
        fields.bases.clear();
        fields.bases.extend_from_slice(record.sequence().as_ref());
        fields.qualities.clear();
        fields.qualities.extend_from_slice(record.quality_scores().as_ref());
        let reference = record.reference_sequence(&self.header).transpose().map_err(fault)?;
        let reference = reference.map(|(name, _)| str::from_utf8(name));
        let reference = reference.transpose().map_err(|_| Problem::Name)?;
        fields.set_reference(reference);
        fields.cigar.clear();
        let operations: &[Op] = record.cigar().as_ref();
        fields.cigar.extend(operations.iter().map(|op| operation(*op)));
        fields.set_interval(record.alignment_start().map(|start| start.get() as u64 - 1));
        Ok(())
    }
}

fn operation(op: Op) -> Operation {
    let code = match op.kind() {
        Kind::Match => b'M',
        Kind::Insertion => b'I',
        Kind::Deletion => b'D',
        Kind::Skip => b'N',
        Kind::SoftClip => b'S',
        Kind::HardClip => b'H',
        Kind::Pad => b'P',
        Kind::SequenceMatch => b'=',
        Kind::SequenceMismatch => b'X',
    };
    Operation { code, bases: op.len() as u64 }
}

/// Calls noodles, which panics on some damaged files.
fn guarded<T>(read: impl FnOnce() -> io::Result<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(fault),
        Err(_) => Err(Problem::Cram("found a container that does not decode".to_owned()).into()),
    }
}

fn fault(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Problem::Truncated.into(),
        _ => match error.downcast::<input::Error>() {
            Ok(error) => Fault::Input(error),
            Err(error) => Problem::Cram(error.to_string()).into(),
        },
    }
}

/// The MD5 that a header has for its contigs.
fn checksums(header: &sam::Header) -> HashMap<Vec<u8>, String> {
    let contigs = header.reference_sequences().iter();
    let with_checksum = contigs.filter_map(|(name, contig)| {
        let checksum = contig.other_fields().get(&tag::MD5_CHECKSUM)?;
        Some((AsRef::<[u8]>::as_ref(name).to_owned(), checksum.to_string().to_lowercase()))
    });
    with_checksum.collect()
}

/// The contigs of a reference, read from its FASTA file in the order in which they are asked for.
///
/// The file is read on from the contig before, and from its beginning once when the contig does not follow: a CRAM file
/// sorted by coordinate reads its reference once.
struct Contigs {
    file: Option<PathBuf>,
    checksums: HashMap<Vec<u8>, String>,
    /// Locked by nobody; noodles wants what can be shared.
    reader: Mutex<Option<fasta::Reader<Input>>>,
}

impl Adapter for Contigs {
    fn get(&mut self, name: &[u8]) -> Option<io::Result<fasta_records::Record>> {
        Some(self.read(name).map_err(io::Error::other))
    }
}

impl Contigs {
    fn read(&mut self, name: &[u8]) -> Result<fasta_records::Record, String> {
        let text = String::from_utf8_lossy(name).into_owned();
        let Some(file) = self.file.clone() else {
            return Err(format!(
                "reads are written as differences to `{text}`; expected a `reference` for this source"
            ));
        };
        let found = self.find(&file, &text).map_err(|error| error.to_string())?;
        let shown = file.display();
        let bases =
            found.ok_or_else(|| format!("`{shown}` has no sequence `{text}`, to which reads are aligned"))?;
        let checksum = checksum(&bases);
        match self.checksums.get(name) {
            Some(expected) if *expected != checksum => Err(format!(
                "`{text}` of `{shown}` has MD5 {checksum}, expected {expected}: it is another reference"
            )),
            _ => Ok(fasta_records::Record::new(Definition::new(name, None), Sequence::from(bases))),
        }
    }

    /// The bases of a contig in upper case, none where the file has no such contig.
    fn find(&mut self, file: &Path, name: &str) -> Result<Option<Vec<u8>>, fasta::Error> {
        let kept = self.reader.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = kept
            && let Some(bases) = read_contig(reader, name)?
        {
            return Ok(Some(bases));
        }
        let reader = kept.insert(fasta::Reader::open(file)?);
        read_contig(reader, name)
    }
}

/// Reads on until the end of the contig; none at the end of the file.
fn read_contig(reader: &mut fasta::Reader<Input>, name: &str) -> Result<Option<Vec<u8>>, fasta::Error> {
    let (mut wanted, mut contig) = (false, Vec::new());
    while let Some(event) = reader.next_event()? {
        match event {
            fasta::Event::Record(header) => wanted = header.name == name,
            fasta::Event::Bases(bases) if wanted => contig.extend_from_slice(bases),
            fasta::Event::End { .. } if wanted => {
                contig.make_ascii_uppercase();
                return Ok(Some(contig));
            }
            fasta::Event::Bases(_) | fasta::Event::End { .. } => {}
        }
    }
    Ok(None)
}

/// As the SAM specification has it: of the upper-case bases, in hexadecimal.
fn checksum(bases: &[u8]) -> String {
    let mut text = String::new();
    for byte in Md5::digest(bases) {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text
}
