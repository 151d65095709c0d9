//! The consensus of reads over the contigs of their reference: at each place what most reads have.
//!
//! Reference and reads are streamed side by side, so both must be in one order: reads sorted by coordinate, contigs as the
//! reference has them; where it has an index (`.fai`), it is read in the order of the reads. Holds a block of the reference, 24 bytes a base from there to the furthest end of a read that
//! begins in it, and the inserted sequences of those reads.

use std::collections::btree_map::{BTreeMap, OccupiedEntry};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Error, Operation, Problem as OfRecord, Reader, Tally};
use crate::sequence::complement;
use crate::source::fasta::index::{Bases, Entry, Indexed};
use crate::source::fasta::{self, BLOCK_BASES, Event};
use crate::source::input::Input;
use crate::units::{Interval, Strand};

/// Why a read has no place in a consensus; places are 0-based.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It comes too late.
    #[error("`{name}` lies at {found}, after one at {before}; expected reads sorted by coordinate (`samtools sort`), contigs \
        in the order of `{}` unless it has an index (`samtools faidx`)", reference.display())]
    Unsorted {
        /// The read.
        name: String,
        /// Its contig and first base.
        found: String,
        /// Those of the read before it.
        before: String,
        /// The reference.
        reference: PathBuf,
    },
    /// Its contig is not there.
    #[error("`{name}` is aligned to `{contig}`, which `{}` has not", reference.display())]
    NoContig {
        /// The read.
        name: String,
        /// The contig.
        contig: String,
        /// The reference.
        reference: PathBuf,
    },
    /// It reaches past the end of its contig.
    #[error("`{name}` lies at {place}, but there `{}` has {bases} bases; is it the reference that the reads were aligned \
        to?", reference.display())]
    PastEnd {
        /// The read.
        name: String,
        /// Its contig and interval.
        place: String,
        /// Bases of the contig.
        bases: u64,
        /// The reference.
        reference: PathBuf,
    },
}

/// How reads become a consensus. Each base has one vote, and so has each deleted base; the most votes win, a tie goes to
/// the base of the reference if it is one of the tied, then to the first of A, C, G, T and deletion. Between two bases an
/// inserted sequence is taken that more of the reads across have than have none or another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Consensus")]
pub struct Options {
    /// The FASTA file that the reads are aligned to; relative to the workflow file. Without an index beside it (`.fai`, for
    /// bgzip `.gzi` too) its contigs must be in the order by which the reads are sorted. Contigs without reads are part of
    /// the consensus.
    pub reference: PathBuf,
    /// The least number of votes that make a call: from 1, default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub min_depth: u32,
    /// What stands where there are fewer votes: `unknown` (N, default) or the base of the `reference`.
    #[serde(default)]
    pub below: Below,
}

const fn one() -> u32 {
    1
}

/// What stands where too few reads lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Below {
    /// N.
    #[default]
    Unknown,
    /// The base of the reference.
    Reference,
}

/// The letters that are voted for; a vote for a deletion comes behind them.
const LETTERS: &[u8; 4] = b"ACGT";
const DELETED: usize = LETTERS.len();

/// The votes at a base of the reference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Column {
    /// For each letter and for a deletion.
    votes: [u32; 5],
    /// Reads that go on to the next base without an insertion.
    through: u32,
}

impl Column {
    /// The index of what wins, or none where there are too few votes.
    fn winner(&self, reference: u8, min_depth: u32) -> Option<usize> {
        let most = *self.votes.iter().max()?;
        if most == 0 || self.votes.iter().sum::<u32>() < min_depth {
            return None;
        }
        let own = letter(reference).filter(|&own| self.votes[own] == most);
        own.or_else(|| self.votes.iter().position(|&votes| votes == most))
    }
}

fn letter(base: u8) -> Option<usize> {
    LETTERS.iter().position(|&letter| letter == base.to_ascii_uppercase())
}

/// The votes from a base of the reference on.
#[derive(Debug, Default)]
struct Pile {
    /// The base of the first column.
    start: u64,
    columns: VecDeque<Column>,
    /// Sequences inserted behind a base, and the reads that have them.
    inserted: BTreeMap<u64, BTreeMap<Vec<u8>, u32>>,
}

impl Pile {
    fn clear(&mut self) {
        self.start = 0;
        self.columns.clear();
        self.inserted.clear();
    }

    /// Adds a read, whose operations fit its bases, and which does not begin before the first column.
    fn add(&mut self, read: &Placed) {
        let columns = index(read.interval.end.saturating_sub(self.start));
        if self.columns.len() < columns {
            self.columns.resize(columns, Column::default());
        }
        // Whether the base before belongs to the read, and what the read inserted behind it.
        let (mut joined, mut insertion) = (false, Vec::new());
        let (mut place, mut at) = (read.interval.start, 0);
        for operation in &read.cigar {
            let bases = index(operation.bases);
            match operation.code {
                b'M' | b'=' | b'X' | b'D' => {
                    let deleted = operation.code == b'D';
                    for i in 0..bases {
                        if joined {
                            self.join(place - 1, &insertion);
                        }
                        insertion.clear();
                        joined = true;
                        let vote = if deleted { Some(DELETED) } else { letter(read.bases[at + i]) };
                        let column = index(place - self.start);
                        if let Some(vote) = vote {
                            self.columns[column].votes[vote] += 1;
                        }
                        place += 1;
                    }
                    at += if deleted { 0 } else { bases };
                }
                b'N' => {
                    (joined, place) = (false, place + operation.bases);
                    insertion.clear();
                }
                b'I' => {
                    insertion.extend_from_slice(&read.bases[at..at + bases]);
                    at += bases;
                }
                b'S' => at += bases,
                _ => {}
            }
        }
    }

    /// A read that goes on from base `before` to the next one. An inserted sequence with bases that are not known has no vote.
    fn join(&mut self, before: u64, insertion: &[u8]) {
        if insertion.is_empty() {
            let column = index(before - self.start);
            self.columns[column].through += 1;
        } else if insertion.iter().all(|&base| letter(base).is_some()) {
            let sequence = insertion.to_ascii_uppercase();
            *self.inserted.entry(before).or_default().entry(sequence).or_default() += 1;
        }
    }

    /// Calls the bases of the first columns, one for each base of the reference, and takes the columns away.
    fn call(&mut self, reference: &[u8], options: &Options, out: &mut Vec<u8>) {
        for &base in reference {
            let column = self.columns.pop_front().unwrap_or_default();
            let place = self.start;
            self.start += 1;
            let inserted =
                self.inserted.first_entry().filter(|first| *first.key() == place).map(OccupiedEntry::remove);
            let Some(winner) = column.winner(base, options.min_depth) else {
                out.push(if options.below == Below::Unknown { b'N' } else { base.to_ascii_uppercase() });
                continue;
            };
            out.extend(LETTERS.get(winner));
            let best = inserted.iter().flatten().max_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0)));
            if let Some((sequence, _)) = best.filter(|(_, votes)| **votes > column.through) {
                out.extend_from_slice(sequence);
            }
        }
    }
}

/// A read that waits for its contig.
#[derive(Debug)]
struct Placed {
    /// Number of the record, from 1.
    record: u64,
    name: String,
    contig: String,
    interval: Interval,
    cigar: Vec<Operation>,
    /// On the strand of the reference.
    bases: Vec<u8>,
}

/// The contigs of a reference.
enum Contigs {
    /// In the order of the file.
    Stream(Box<fasta::Reader<Input>>),
    /// In the order of the reads.
    Indexed {
        indexed: Indexed,
        block_bases: usize,
        waiting: VecDeque<Entry>,
        /// Bases of the contig, those that are not read yet, and what reads them.
        current: Option<(u64, u64, Box<Bases>)>,
    },
}

/// A part of a reference.
enum Step<'a> {
    Contig(String),
    Bases(&'a [u8]),
    End(u64),
}

impl Contigs {
    /// Opens a reference for reads of which one has been read.
    fn open(file: &Path, reads: &Reader, block_bases: usize) -> Result<Self, Error> {
        let Some(indexed) = Indexed::open(file)? else {
            let reader = fasta::Reader::open(file)?.with_block_bases(block_bases);
            return Ok(Self::Stream(Box::new(reader)));
        };
        let ranks: HashMap<&str, usize> = reads.references().into_iter().zip(0..).collect();
        let rank = |entry: &Entry| ranks.get(entry.name.as_str()).copied();
        let mut entries = indexed.entries().to_vec();
        if !entries.iter().filter_map(rank).is_sorted() {
            entries.sort_by_key(|entry| rank(entry).unwrap_or(usize::MAX));
        }
        Ok(Self::Indexed { indexed, block_bases, waiting: entries.into(), current: None })
    }

    /// The next part, none at the end.
    fn next_step(&mut self) -> Result<Option<Step<'_>>, Error> {
        let (indexed, block_bases, waiting, current) = match self {
            Self::Indexed { indexed, block_bases, waiting, current } => {
                (indexed, *block_bases, waiting, current)
            }
            Self::Stream(reader) => {
                return Ok(reader.next_event()?.map(|event| match event {
                    Event::Record(header) => Step::Contig(header.name.clone()),
                    Event::Bases(bases) => Step::Bases(bases),
                    Event::End { bases } => Step::End(bases),
                }));
            }
        };
        if let Some((bases, ..)) = current.take_if(|(_, left, _)| *left == 0) {
            return Ok(Some(Step::End(bases)));
        }
        let Some((_, left, bases)) = current else {
            let Some(entry) = waiting.pop_front() else { return Ok(None) };
            let bases = indexed.bases(&entry, Interval::new(0, entry.bases), block_bases)?;
            *current = Some((entry.bases, entry.bases, Box::new(bases)));
            return Ok(Some(Step::Contig(entry.name)));
        };
        let block = bases.next_block()?;
        *left -= block.as_ref().map_or(*left, |(_, block)| block.len() as u64);
        Ok(Some(Step::Bases(block.map_or(&[], |(_, block)| block))))
    }
}

/// A part of a consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A contig of the reference begins.
    Contig(&'a str),
    /// Its next bases, in upper case; none where reads delete a whole block.
    Bases(&'a [u8]),
    /// The contig is over; its consensus has this many bases.
    End(u64),
}

/// The consensus of an alignment file.
pub struct Consensus {
    reads: Reads,
    reference: Contigs,
    options: Options,
    /// Contigs begun, the last of which is being read.
    begun: Vec<String>,
    /// The bases of the contig's consensus so far.
    bases: u64,
    pile: Pile,
    /// Of the contig's reads, the one that reaches furthest: record, name and place.
    furthest: (u64, String, Interval),
    out: Vec<u8>,
}

/// The reads, one of which waits for its place.
struct Reads {
    reader: Reader,
    /// Of messages.
    reference: PathBuf,
    /// Whether reads that are wrong in themselves are passed.
    skip: bool,
    bad: Vec<String>,
    used: Tally,
    unplaced: Tally,
    waiting: Option<Placed>,
    /// The contig and start of the read before.
    before: (String, u64),
}

impl Consensus {
    /// The consensus of `reads` over `reference`, the file that the options name. With `skip`, reads that are wrong in
    /// themselves are passed, and [`Consensus::take_bad`] says what was wrong.
    pub fn new(reads: Reader, reference: &Path, options: Options, skip: bool) -> Result<Self, Error> {
        let (bad, before) = (Vec::new(), (String::new(), 0));
        let (used, unplaced) = (Tally::default(), Tally::default());
        let file = reference.to_owned();
        let mut reads =
            Reads { reader: reads, reference: file, skip, bad, used, unplaced, waiting: None, before };
        reads.advance()?;
        Ok(Self {
            reference: Contigs::open(reference, &reads.reader, BLOCK_BASES)?,
            reads,
            options,
            begun: Vec::new(),
            bases: 0,
            pile: Pile::default(),
            furthest: (0, String::new(), Interval::new(0, 0)),
            out: Vec::new(),
        })
    }

    /// The next part, none at the end of the reference; after an error it is of no further use.
    pub fn next_part(&mut self) -> Result<Option<Part<'_>>, Error> {
        match self.reference.next_step()? {
            None => match &self.reads.waiting {
                None => Ok(None),
                Some(read) if self.begun.contains(&read.contig) => Err(self.reads.unsorted(read)),
                Some(read) => Err(self.reads.no_contig(read)),
            },
            Some(Step::Contig(name)) => {
                self.begun.push(name);
                self.pile.clear();
                self.furthest = (0, String::new(), Interval::new(0, 0));
                self.bases = 0;
                Ok(self.begun.last().map(|name| Part::Contig(name)))
            }
            Some(Step::Bases(reference)) => {
                let end = self.pile.start + reference.len() as u64;
                let contig = self.begun.last().map_or("", String::as_str);
                while let Some(read) = self.reads.next_before(contig, end)? {
                    self.pile.add(&read);
                    if read.interval.end > self.furthest.2.end {
                        self.furthest = (read.record, read.name, read.interval);
                    }
                }
                self.out.clear();
                self.pile.call(reference, &self.options, &mut self.out);
                self.bases += self.out.len() as u64;
                Ok(Some(Part::Bases(&self.out)))
            }
            Some(Step::End(bases)) => {
                let contig = self.begun.last().map_or("", String::as_str);
                // A read that begins behind the contig's end waits still.
                let beyond = self.reads.next_before(contig, u64::MAX)?;
                let beyond = beyond.map(|read| (read.record, read.name, read.interval));
                let furthest = beyond.as_ref().unwrap_or(&self.furthest);
                if furthest.2.end <= bases {
                    return Ok(Some(Part::End(self.bases)));
                }
                Err(Error::Consensus {
                    file: self.reads.reader.file.clone(),
                    record: furthest.0,
                    problem: Box::new(Problem::PastEnd {
                        name: furthest.1.clone(),
                        place: format!("{contig}:{}", furthest.2),
                        bases,
                        reference: self.reads.reference.clone(),
                    }),
                })
            }
        }
    }

    /// The reads behind it.
    pub fn reads(&self) -> &Reader {
        &self.reads.reader
    }

    /// Reads that have votes, and their bases.
    pub fn used(&self) -> Tally {
        self.reads.used
    }

    /// Reads that count as aligned but have no place, and their bases.
    pub fn unplaced(&self) -> Tally {
        self.reads.unplaced
    }

    /// What was wrong with the reads passed since the last call.
    pub fn take_bad(&mut self) -> Vec<String> {
        std::mem::take(&mut self.reads.bad)
    }
}

impl Reads {
    /// The waiting read, if it begins on `contig` before base `end`.
    fn next_before(&mut self, contig: &str, end: u64) -> Result<Option<Placed>, Error> {
        let is_due = |read: &mut Placed| read.contig == contig && read.interval.start < end;
        let Some(read) = self.waiting.take_if(is_due) else { return Ok(None) };
        if self.before.0 == contig && read.interval.start < self.before.1 {
            return Err(self.unsorted(&read));
        }
        self.used.add(read.bases.len());
        self.before = (read.contig.clone(), read.interval.start);
        self.advance()?;
        Ok(Some(read))
    }

    /// The error for a read that comes after the one before it, but should not.
    fn unsorted(&self, read: &Placed) -> Error {
        self.refuse(
            read,
            Problem::Unsorted {
                name: read.name.clone(),
                found: format!("{}:{}", read.contig, read.interval.start),
                before: format!("{}:{}", self.before.0, self.before.1),
                reference: self.reference.clone(),
            },
        )
    }

    /// The error for a read on a contig that the reference has not.
    fn no_contig(&self, read: &Placed) -> Error {
        let (name, contig, reference) = (read.name.clone(), read.contig.clone(), self.reference.clone());
        self.refuse(read, Problem::NoContig { name, contig, reference })
    }

    fn refuse(&self, read: &Placed, problem: Problem) -> Error {
        let file = self.reader.file.clone();
        Error::Consensus { file, record: read.record, problem: Box::new(problem) }
    }

    /// Reads on until a read that has a place waits, or to the end of the file.
    fn advance(&mut self) -> Result<(), Error> {
        while self.waiting.is_none() {
            match self.take_read() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if self.skip && error.is_of_one_record() => self.bad.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads a read, which will wait if it has a place; false at the end of the file.
    fn take_read(&mut self) -> Result<bool, Error> {
        let Some(read) = self.reader.next_read()? else { return Ok(false) };
        let (Some(contig), Some(interval)) = (read.reference, read.interval) else {
            self.unplaced.add(read.bases.len());
            return Ok(true);
        };
        let mut bases = read.bases.to_vec();
        if read.flags.strand() == Strand::Reverse {
            complement::reverse_complement(&mut bases);
        }
        let (contig, name, cigar) = (contig.to_owned(), read.name.to_owned(), read.cigar.to_vec());
        let record = self.reader.records;
        let placed = Placed { record, name, contig, interval, cigar, bases };
        if let Some(problem) = placed.problem() {
            return Err(Error::Record { file: self.reader.file.clone(), record, problem });
        }
        self.waiting = Some(placed);
        Ok(true)
    }
}

impl Placed {
    /// What keeps its operations from being followed. Those of a CIGAR that is too long for BAM stand in a tag.
    fn problem(&self) -> Option<OfRecord> {
        let covered = |codes: &[u8]| {
            self.cigar.iter().filter(|of| codes.contains(&of.code)).map(|of| of.bases).sum::<u64>()
        };
        let (found, expected) = (covered(b"MIS=X"), self.bases.len() as u64);
        let codes: Vec<u8> = self.cigar.iter().map(|operation| operation.code).collect();
        if found != expected {
            Some(OfRecord::Cigar { found, expected })
        } else if codes == *b"SN" {
            Some(OfRecord::CigarInTag)
        } else {
            None
        }
    }
}

fn index(bases: u64) -> usize {
    usize::try_from(bases).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
