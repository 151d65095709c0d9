//! Reads file after file into the record table and the sequence.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::describe::Tally;
use super::files::{File, Format};
use super::{Error, OnBadRecord, Source, Task, to_json};
use crate::artifact::Counts;
use crate::observer::Unit;
use crate::source::alignment::consensus::{self, Consensus, Part};
use crate::source::fasta::{Event, index::Indexed};
use crate::source::fastq::{self, Pairs, bare_name};
use crate::source::input::STDIN;
use crate::source::region::Regions;
use crate::source::{alignment, contigs};
use crate::stage::records::{BLOCK_BASES, RECORDS, Record, SequenceWriter, index, write_records};
use crate::units::Interval;

/// Bad records that the manifest lists; more are only counted.
pub(super) const LISTED: usize = 1000;

/// The reason for bases between regions.
const OUTSIDE: &str = "outside the regions";

/// A record that was left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Skipped {
    source: String,
    reason: String,
}

pub(super) struct Ingest<'a> {
    task: &'a Task<'a>,
    skip: bool,
    records: Vec<Record>,
    writer: SequenceWriter,
    counts: Counts,
    skipped: Vec<Skipped>,
    skips: u64,
    /// Of the file that is being read.
    tally: Tally,
}

impl<'a> Ingest<'a> {
    pub(super) fn new(task: &'a Task<'a>, on_bad_record: OnBadRecord) -> Result<Self, Error> {
        Ok(Self {
            task,
            skip: on_bad_record == OnBadRecord::Skip,
            records: Vec::new(),
            writer: SequenceWriter::create(task.out, 0)?,
            counts: Counts::default(),
            skipped: Vec::new(),
            skips: 0,
            tally: Tally::default(),
        })
    }

    /// Reads a file and says what it holds.
    pub(super) fn file(&mut self, source: &Source, file: &File) -> Result<Value, Error> {
        self.tally = Tally::default();
        let first = self.records.len();
        let mut names = Names::new(source, self.task)?;
        let stdin = Path::new(STDIN);
        let own = file.origin.outside() == Some(stdin);
        let path = if own { stdin.to_owned() } else { self.task.locate(&file.origin)? };
        match file.format {
            Format::Contigs(format) => self.contigs(&path, file, format, &mut names)?,
            Format::Fastq => self.fastq(&path, file, source.quality.unwrap_or_default())?,
            Format::Alignment => match &source.consensus {
                None => self.alignment(&path, file, source, &mut names)?,
                Some(options) => self.consensus(&path, file, source, options, &mut names)?,
            },
        }
        names.check(&path)?;
        if self.tally.skipped > 0 {
            let (skipped, path) = (self.tally.skipped, file.origin.path().display());
            self.task
                .note(format!("{skipped} bad records of `{path}` were skipped; the manifest lists them"));
        }
        self.counts.source(&file.name).add(&self.tally.account);
        Ok(self.tally.describe(file, &self.records[first..]))
    }

    /// Writes what is left; the account, and the bad records.
    pub(super) fn finish(self) -> Result<(Counts, Vec<Skipped>), Error> {
        self.writer.finish()?;
        write_records(&self.task.out.join(RECORDS), &self.records)?;
        let mut counts = self.counts;
        counts.set("records", self.records.len() as u64);
        if self.skips > 0 {
            counts.set("bad records skipped", self.skips);
        }
        Ok((counts, self.skipped))
    }

    fn contigs(
        &mut self,
        path: &Path,
        file: &File,
        format: contigs::Format,
        names: &mut Names,
    ) -> Result<(), Error> {
        self.tally.format = match format {
            contigs::Format::Fasta => "FASTA",
            contigs::Format::TwoBit => "2bit",
            contigs::Format::GenBank => "GenBank",
        };
        let bad = if self.skip { contigs::find_bad_records(path, format)? } else { Vec::new() };
        for bad in &bad {
            self.skip_record(&file.name, bad.reason.clone());
        }
        if format == contigs::Format::Fasta
            && names.regions.is_some()
            && bad.is_empty()
            && let Some(indexed) = Indexed::open(path).map_err(contigs::Error::from)?
        {
            return self.indexed(path, file, &indexed, names);
        }
        let mut reader = contigs::Reader::open(path, format, BLOCK_BASES)?;
        let (mut number, mut name) = (0, String::new());
        let mut position = 0;
        loop {
            match reader.next_event() {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Record(header))) => {
                    number += 1;
                    if bad.binary_search_by_key(&(number - 1), |bad| bad.record).is_ok() {
                        reader.skip_record()?;
                        continue;
                    }
                    name = names.new_name(&header.name);
                    position = 0;
                    self.begin_contig(file, &name, names);
                }
                Ok(Some(Event::Bases(bases))) => {
                    self.block(names.regions.as_ref(), &name, position, bases)?;
                    position += bases.len() as u64;
                }
                Ok(Some(Event::End { bases })) => self.end_contig(path, &name, bases, names)?,
                // It was listed above.
                Err(error) if self.skip && error.is_of_one_record() => {
                    number += 1;
                    reader.skip_record()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads the regions of an indexed file alone; what comes out is what reading all of it would give.
    fn indexed(
        &mut self,
        path: &Path,
        file: &File,
        indexed: &Indexed,
        names: &mut Names,
    ) -> Result<(), Error> {
        for entry in indexed.entries() {
            let name = names.new_name(&entry.name);
            self.begin_contig(file, &name, names);
            self.end_contig(path, &name, entry.bases, names)?;
            let wanted = names.regions.as_ref().map_or(&[][..], |regions| regions.of(&name));
            let mut taken = 0;
            for interval in wanted.iter().filter_map(|interval| clip(*interval, 0, entry.bases)) {
                let bases = indexed.bases(entry, interval, BLOCK_BASES).map_err(contigs::Error::from);
                let mut bases = bases?;
                while let Some((start, bases)) = bases.next_block().map_err(contigs::Error::from)? {
                    self.take(start, bases)?;
                }
                taken += interval.len();
            }
            self.drop(OUTSIDE, entry.bases - taken);
        }
        Ok(())
    }

    /// Makes a record for a contig, unless no region is on it.
    fn begin_contig(&mut self, file: &File, name: &str, names: &mut Names) {
        self.tally.counter.end_stretch();
        names.known.push(name.to_owned());
        if names.regions.as_ref().is_none_or(|regions| regions.has(name)) {
            let contig = Some(name.to_owned());
            self.records.push(Record { source: file.name.clone(), name: name.to_owned(), contig, bases: 0 });
        }
    }

    fn end_contig(&mut self, path: &Path, name: &str, bases: u64, names: &Names) -> Result<(), Error> {
        if let Some(regions) = &names.regions {
            if !regions.has(name) {
                return Ok(());
            }
            regions.check_end(path, name, bases)?;
        }
        self.records.iter_mut().next_back().into_iter().for_each(|record| record.bases = bases);
        Ok(())
    }

    /// Takes of a block of a contig what is wanted.
    fn block(
        &mut self,
        regions: Option<&Regions>,
        name: &str,
        start: u64,
        bases: &[u8],
    ) -> Result<(), Error> {
        let Some(regions) = regions else { return self.take(start, bases) };
        let mut taken = 0;
        for wanted in
            regions.of(name).iter().filter_map(|wanted| clip(*wanted, start, start + bases.len() as u64))
        {
            self.take(wanted.start, &bases[index(wanted.start - start)..index(wanted.end - start)])?;
            taken += wanted.len();
        }
        self.drop(OUTSIDE, bases.len() as u64 - taken);
        self.task.check()
    }

    fn fastq(&mut self, path: &Path, file: &File, options: fastq::Options) -> Result<(), Error> {
        self.tally.format = "FASTQ";
        if let Some(mates) = &file.mates {
            return self.pairs(Pairs::open(path, &self.task.locate(mates)?)?, file, options);
        }
        let (mut reader, mut buffer) = (fastq::Reader::open(path)?, Vec::new());
        loop {
            match reader.next_read() {
                Ok(None) => return Ok(()),
                Ok(Some(read)) => self.fastq_read(file, read.name.to_owned(), read, options, &mut buffer)?,
                Err(error) if self.skip && error.is_of_one_record() => {
                    self.skip_record(&file.name, error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn pairs(&mut self, mut pairs: Pairs, file: &File, options: fastq::Options) -> Result<(), Error> {
        let mut buffer = Vec::new();
        loop {
            match pairs.next_pair() {
                Ok(None) => return Ok(()),
                Ok(Some((first, second))) => {
                    let name = bare_name(first.name, "/1");
                    self.fastq_read(file, format!("{name}/1"), first, options, &mut buffer)?;
                    self.fastq_read(file, format!("{name}/2"), second, options, &mut buffer)?;
                }
                Err(error) if self.skip && error.is_of_one_record() => {
                    self.skip_record(&file.name, format!("{error}; its mate is left out with it"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn fastq_read(
        &mut self,
        file: &File,
        name: String,
        read: fastq::Read,
        options: fastq::Options,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if !options.keeps(read.qualities) {
            self.drop("read: low_mean_quality", read.bases.len() as u64);
            return Ok(());
        }
        buffer.clear();
        buffer.extend_from_slice(read.bases);
        self.tally.masked += options.mask(buffer, read.qualities);
        self.take_read(file, name, None, buffer)
    }

    fn alignment(
        &mut self,
        path: &Path,
        file: &File,
        source: &Source,
        names: &mut Names,
    ) -> Result<(), Error> {
        let reference = source.reference.as_ref().map(|reference| self.task.file(reference));
        let options = source.reads.unwrap_or_default();
        let mut reader = alignment::Reader::open_with_reference(path, reference.as_deref(), options)?;
        self.tally.format = reader.format();
        loop {
            match reader.next_read() {
                Ok(None) => break,
                Ok(Some(read)) => {
                    let reference = read.reference.map(|name| names.new_name(name));
                    let place = reference.as_deref().zip(read.interval);
                    let wanted =
                        |regions: &Regions| place.is_some_and(|(name, at)| regions.overlap(name, at));
                    if names.regions.as_ref().is_none_or(wanted) {
                        let contig = read.interval.and(reference);
                        self.take_read(file, read.name.to_owned(), contig, read.bases)?;
                    } else {
                        self.drop(OUTSIDE, read.bases.len() as u64);
                    }
                }
                Err(error) if self.skip && error.is_of_one_record() => {
                    self.skip_record(&file.name, error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        names.known = reader.references().iter().map(|name| names.new_name(name)).collect();
        self.drop_reads(reader.counts());
        Ok(())
    }

    /// Counts the reads that the options leave out.
    fn drop_reads(&mut self, counts: &alignment::Counts) {
        self.tally.masked = counts.masked;
        for (reason, tally) in &counts.skipped {
            let reason = to_json(reason);
            self.drop(&format!("read: {}", reason.as_str().unwrap_or_default()), tally.bases);
        }
    }

    /// Makes a record of the consensus over each contig. The bases of reads that have votes are not part of the account, but
    /// those of the consensus.
    fn consensus(
        &mut self,
        path: &Path,
        file: &File,
        source: &Source,
        options: &consensus::Options,
        names: &mut Names,
    ) -> Result<(), Error> {
        let reference = self.task.file(&options.reference);
        let decoder = source.reference.as_ref().map(|reference| self.task.file(reference));
        let reads = alignment::Options { unmapped: false, ..source.reads.unwrap_or_default() };
        let decoder = decoder.as_deref().unwrap_or(&reference);
        let reader = alignment::Reader::open_with_reference(path, Some(decoder), reads)?;
        self.tally.format = reader.format();
        let mut consensus = Consensus::new(reader, &reference, options.clone(), self.skip)?;
        let (mut name, mut position) = (String::new(), 0);
        while let Some(part) = consensus.next_part()? {
            match part {
                Part::Contig(contig) => {
                    (name, position) = (names.new_name(contig), 0);
                    self.begin_contig(file, &name, names);
                }
                Part::Bases(bases) => {
                    self.take_pieces(position, bases)?;
                    position += bases.len() as u64;
                }
                Part::End(0) => {
                    self.records.pop();
                    self.task
                        .note(format!("reads delete all of `{name}` of {}; it has no record", file.name));
                }
                Part::End(bases) => self.end_contig(path, &name, bases, names)?,
            }
        }
        for reason in consensus.take_bad() {
            self.skip_record(&file.name, reason);
        }
        self.drop_reads(consensus.reads().counts());
        self.drop("read: unplaced", consensus.unplaced().bases);
        let used = consensus.used();
        self.task.note(format!("{} reads of {} bases have votes in {}", used.records, used.bases, file.name));
        Ok(())
    }

    /// Takes bases that may be more than a block.
    fn take_pieces(&mut self, start: u64, bases: &[u8]) -> Result<(), Error> {
        for (number, piece) in (0..).zip(bases.chunks(BLOCK_BASES)) {
            self.take(start + number * BLOCK_BASES as u64, piece)?;
        }
        Ok(())
    }

    /// Makes a read a record.
    fn take_read(
        &mut self,
        file: &File,
        name: String,
        contig: Option<String>,
        bases: &[u8],
    ) -> Result<(), Error> {
        self.tally.counter.end_stretch();
        self.records.push(Record { source: file.name.clone(), name, contig, bases: bases.len() as u64 });
        self.take(0, bases)
    }

    /// Takes bases that begin at base `start` of the last record.
    fn take(&mut self, start: u64, bases: &[u8]) -> Result<(), Error> {
        self.writer.push(self.records.len() as u64 - 1, start, bases)?;
        self.tally.add(start, bases);
        self.counts.bases_in += bases.len() as u64;
        self.counts.bases_out += bases.len() as u64;
        self.task.progress(self.counts.bases_out, None, Unit::Bases);
        self.task.check()
    }

    /// Counts bases that are not taken.
    fn drop(&mut self, reason: &str, bases: u64) {
        self.tally.account.drop_bases(reason, bases);
        self.counts.bases_in += bases;
        self.counts.drop_bases(reason, bases);
    }

    /// Lists a bad record; its bases, which may be none, are not part of the account.
    fn skip_record(&mut self, source: &str, reason: String) {
        self.skips += 1;
        self.tally.skipped += 1;
        if self.skipped.len() < LISTED {
            self.skipped.push(Skipped { source: source.to_owned(), reason });
        }
    }
}

/// What the sequences of a file are called, and which parts of them are wanted.
struct Names<'a> {
    rename: &'a BTreeMap<String, String>,
    regions: Option<Regions>,
    /// The new names of the sequences seen, in order.
    known: Vec<String>,
}

impl<'a> Names<'a> {
    fn new(source: &'a Source, task: &Task) -> Result<Self, Error> {
        let regions = source.regions.as_ref().map(|wanted| {
            let mut regions = Regions::new(wanted.flank);
            wanted.bed.iter().try_for_each(|bed| regions.add_bed(&task.file(bed)))?;
            wanted.gff.iter().try_for_each(|gff| regions.add_features(&task.file(gff), &wanted.features))?;
            wanted.intervals.iter().try_for_each(|text| regions.add_written(text))?;
            Ok::<_, Error>(regions.merged())
        });
        Ok(Self { rename: &source.rename, regions: regions.transpose()?, known: Vec::new() })
    }

    fn new_name(&self, name: &str) -> String {
        self.rename.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// Once the file is read: refuses new names for sequences that it has not, or that another one has, and regions of
    /// sequences that it has not.
    fn check(&self, path: &Path) -> Result<(), Error> {
        let known: HashSet<&str> = self.known.iter().map(String::as_str).collect();
        let refused = |reason: String| Err(Error::Config { key: "sources", reason });
        if let Some((old, new)) = self.rename.iter().find(|(_, new)| !known.contains(new.as_str())) {
            let shown = path.display();
            return refused(format!("`rename` calls `{old}` `{new}`, but `{shown}` has no sequence `{old}`"));
        }
        if known.len() < self.known.len() && !self.rename.is_empty() {
            return refused(format!("`rename` gives a sequence of `{}` the name of another", path.display()));
        }
        let names: Vec<&str> = self.known.iter().map(String::as_str).collect();
        self.regions.as_ref().map_or(Ok(()), |regions| Ok(regions.check_names(path, &names)?))
    }
}

/// The part of an interval between two places, if there is any.
fn clip(interval: Interval, start: u64, end: u64) -> Option<Interval> {
    let (start, end) = (interval.start.max(start), interval.end.min(end));
    (start < end).then(|| Interval::new(start, end))
}
