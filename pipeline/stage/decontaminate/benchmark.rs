//! The test sets of benchmarks: sequences from FASTA or CSV, or those that lie under the intervals of a BED file.
//!
//! Holds one sequence, of BED the lines (24 bytes each), a block of the assembly and the sequences that begin in it.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::records::index;
use super::super::{Error, Task, bare};
use crate::source::contigs::{self, Format};
use crate::source::fasta::{self, BLOCK_BASES, Event, index::Indexed};
use crate::source::region::lines::{Line, Lines};
use crate::source::{files, table};
use crate::units::Interval;

/// Bases between two intervals that are read rather than passed by opening the assembly again.
const NEAR: u64 = 64 << 10;

/// A test set: `fasta`, `csv`, or `bed` with `assembly`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Benchmark {
    /// What it is called in the report; by default the file's name without its endings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// A FASTA file, plain, gzip or bgzip; relative to the workflow file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fasta: Option<PathBuf>,
    /// A CSV file (TSV if its name says so) with a column of sequences, plain, gzip or bgzip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    csv: Option<PathBuf>,
    /// The column of a CSV file that holds the sequences. Default `sequence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    /// A BED file, plain or compressed: every interval is a test sequence, read from `assembly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bed: Option<PathBuf>,
    /// The FASTA file that the intervals of `bed` lie on; with an index beside it (`.fai`, for bgzip `.gzi` too), only they
    /// are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    assembly: Option<PathBuf>,
}

impl Benchmark {
    /// The file with the test sequences or their intervals.
    fn path(&self) -> &Path {
        let paths = [&self.fasta, &self.csv, &self.bed];
        paths.into_iter().flatten().next().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Every file that is read.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.path()).chain(self.assembly.as_deref())
    }

    /// What it is called.
    pub(super) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| files::stem(&bare(self.path())))
    }

    /// What is wrong with its keys.
    pub(super) fn problems(&self) -> Vec<&'static str> {
        let given = [&self.fasta, &self.csv, &self.bed].into_iter().flatten().count();
        let checks = [
            (given != 1, "needs one of `fasta`, `csv` and `bed`"),
            (self.column.is_some() && self.csv.is_none(), "has `column`, which only `csv` takes"),
            (
                self.bed.is_some() && self.assembly.is_none(),
                "has `bed` without `assembly`, the FASTA file that its intervals lie on",
            ),
            (self.assembly.is_some() && self.bed.is_none(), "has `assembly`, which only `bed` takes"),
        ];
        checks.into_iter().filter_map(|(holds, problem)| holds.then_some(problem)).collect()
    }

    /// Calls `each` for every test sequence.
    pub(super) fn for_each(
        &self,
        task: &Task,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = task.file(self.path());
        if self.csv.is_some() {
            let mut reader = table::Reader::open(&path, &[self.column.as_deref().unwrap_or("sequence")])?;
            while reader.next_row()? {
                each(reader.sequence(0)?)?;
            }
            return Ok(());
        }
        if let Some(assembly) = &self.assembly {
            return for_each_interval(&Lines::read(&path)?, &task.file(assembly), each);
        }
        let mut reader = fasta::Reader::open(&path)?;
        let mut sequence = Vec::new();
        while let Some(event) = reader.next_event()? {
            match event {
                Event::Record(_) => sequence.clear(),
                Event::Bases(bases) => sequence.extend_from_slice(bases),
                Event::End { .. } => each(&sequence)?,
            }
        }
        Ok(())
    }
}

/// Calls `each` with the bases under every line, sequence by sequence in the order of the assembly.
fn for_each_interval(
    lines: &Lines,
    assembly: &Path,
    each: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    match Indexed::open(assembly).map_err(contigs::Error::from)? {
        Some(indexed) => seek(lines, assembly, &indexed, each),
        None => stream(lines, assembly, each),
    }
}

/// Reads an assembly at its intervals alone.
fn seek(
    lines: &Lines,
    assembly: &Path,
    indexed: &Indexed,
    mut each: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let known: Vec<&str> = indexed.entries().iter().map(|entry| entry.name.as_str()).collect();
    lines.check_names(assembly, &known)?;
    for entry in indexed.entries() {
        lines.check_end(assembly, &entry.name, entry.bases)?;
        for near in groups(lines.of(&entry.name)) {
            let mut sweep = Sweep::new(near);
            let mut bases = indexed.bases(entry, span(near), BLOCK_BASES).map_err(contigs::Error::from)?;
            while let Some((start, block)) = bases.next_block().map_err(contigs::Error::from)? {
                sweep.block(start, block, &mut each)?;
            }
        }
    }
    Ok(())
}

/// Reads an assembly from its beginning to its end.
fn stream(
    lines: &Lines,
    assembly: &Path,
    mut each: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = contigs::Reader::open(assembly, Format::Fasta, BLOCK_BASES)?;
    let (mut known, mut sweep, mut position) = (Vec::new(), Sweep::new(&[]), 0);
    while let Some(event) = reader.next_event()? {
        match event {
            Event::Record(header) => {
                (sweep, position) = (Sweep::new(lines.of(&header.name)), 0);
                known.push(header.name.clone());
            }
            Event::Bases(bases) => {
                sweep.block(position, bases, &mut each)?;
                position += bases.len() as u64;
            }
            Event::End { bases } => {
                let name = known.last().map_or("", String::as_str);
                lines.check_end(assembly, name, bases)?;
            }
        }
    }
    lines.check_names(assembly, &known.iter().map(String::as_str).collect::<Vec<_>>()).map_err(Error::from)
}

/// What some lines cover, from the first start to the last end; they ascend by their starts.
fn span(lines: &[Line]) -> Interval {
    let start = lines.first().map_or(0, |line| line.interval.start);
    let end = lines.iter().map(|line| line.interval.end).max().unwrap_or(start);
    Interval::new(start, end)
}

/// Lines, ascending by their starts, in groups between which at least [`NEAR`] bases lie.
fn groups(mut lines: &[Line]) -> Vec<&[Line]> {
    let mut groups = Vec::new();
    while let Some(first) = lines.first() {
        let mut end = first.interval.end;
        let near = lines.iter().take_while(|line| {
            let near = line.interval.start < end.saturating_add(NEAR);
            end = end.max(line.interval.end);
            near
        });
        let (group, rest) = lines.split_at(near.count());
        groups.push(group);
        lines = rest;
    }
    groups
}

/// Gathers the bases under lines from blocks that ascend.
struct Sweep<'a> {
    /// Lines that begin behind the last block; by their starts.
    rest: &'a [Line],
    open: Vec<(Interval, Vec<u8>)>,
}

impl<'a> Sweep<'a> {
    fn new(lines: &'a [Line]) -> Self {
        Self { rest: lines, open: Vec::new() }
    }

    /// Takes a block that begins at base `start`, and calls `each` with what is complete.
    fn block(
        &mut self,
        start: u64,
        bases: &[u8],
        each: &mut impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let end = start + bases.len() as u64;
        let (begun, rest) = self.rest.split_at(self.rest.partition_point(|line| line.interval.start < end));
        self.rest = rest;
        self.open.extend(begun.iter().map(|line| (line.interval, Vec::new())));
        for (interval, sequence) in &mut self.open {
            let (from, to) = (interval.start.max(start) - start, interval.end.min(end) - start);
            sequence.extend_from_slice(&bases[index(from)..index(to)]);
        }
        self.open
            .extract_if(.., |(interval, _)| interval.end <= end)
            .try_for_each(|(_, sequence)| each(&sequence))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The sequences under the lines, sorted.
    fn under(bed: &str, assembly: &Path) -> Result<Vec<String>, String> {
        let file = assembly.with_extension("bed");
        std::fs::write(&file, bed).unwrap();
        let mut found = Vec::new();
        for_each_interval(&Lines::read(&file).unwrap(), assembly, |sequence| {
            found.push(String::from_utf8(sequence.to_vec()).unwrap());
            Ok(())
        })
        .map_err(|error| {
            error.to_string().replace(&format!("{}/", assembly.parent().unwrap().display()), "")
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// A record of `bases` bases in lines of 60, its bases, and its entry of an index.
    fn record(name: &str, bases: usize, offset: usize) -> (String, String, String) {
        let sequence: String = (0..bases).map(|i| ['A', 'C', 'G', 'T'][(i * i / 7 + i / 3) % 4]).collect();
        let lines = sequence.as_bytes().chunks(60).fold(format!(">{name}\n"), |mut text, line| {
            writeln!(text, "{}", str::from_utf8(line).unwrap()).unwrap();
            text
        });
        let entry = format!("{name}\t{bases}\t{}\t60\t61\n", offset + name.len() + 2);
        (lines, sequence, entry)
    }

    #[test]
    fn intervals_are_read_alike_with_and_without_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let assembly = folder.path().join("g.fa");
        let (first, a, a_entry) = record("a", 200_000, 0);
        let (second, _, b_entry) = record("b", 50, first.len());
        let (third, c, c_entry) = record("c", 3_000_000, first.len() + second.len());
        std::fs::write(&assembly, first + &second + &third).unwrap();
        let bed = "c\t2999990\t3000000\nc\t10\t40\nc\t20\t30\nc\t20\t30\na\t0\t7\na\t199000\t199100\nc\t1048570\t2097160\n";
        let mut expected = vec![
            &c[2_999_990..],
            &c[10..40],
            &c[20..30],
            &c[20..30],
            &a[..7],
            &a[199_000..199_100],
            &c[1_048_570..2_097_160],
        ];
        expected.sort_unstable();
        for indexed in [false, true] {
            if indexed {
                std::fs::write(folder.path().join("g.fa.fai"), format!("{a_entry}{b_entry}{c_entry}"))
                    .unwrap();
            }
            assert!(under(bed, &assembly).unwrap() == expected, "index: {indexed}");
            for (bed, message) in [
                (
                    "a\t5\t9\nb\t40\t50\nb\t40\t51\n",
                    "cannot take `b:40-51` (`g.bed`, line 3): `b` of `g.fa` has 50 bases",
                ),
                (
                    "a\t5\t9\nchrB\t0\t5\n",
                    "cannot take regions of `chrB` (`g.bed`, line 2): `g.fa` has no such sequence; it has `a`, `b`, `c`; \
                     expected intervals and names of one assembly",
                ),
            ] {
                assert_eq!(under(bed, &assembly).unwrap_err(), message, "index: {indexed}");
            }
        }
    }

    #[test]
    fn intervals_far_apart_are_read_apart() {
        let line = |start, end| Line { interval: Interval::new(start, end), line: 1 };
        let lines = [
            line(0, 500_000),
            line(10, 20),
            line(500_000 + NEAR - 1, 600_000),
            line(600_000 + NEAR, 700_000),
        ];
        let found: Vec<_> = groups(&lines).into_iter().map(|group| (group.len(), span(group))).collect();
        assert_eq!(found, [(3, Interval::new(0, 600_000)), (1, Interval::new(600_000 + NEAR, 700_000))]);
    }
}
