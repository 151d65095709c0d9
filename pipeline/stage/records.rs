//! Records and their sequence as artifacts hold them, and intervals on them.
//!
//! `records.parquet`: one row per record (its number is the order of reading). `sequence-*.parquet`: the bases, in the files
//! of [`sequence_file`]. `intervals.parquet` and `windows.parquet`: stretches of records, ascending. Memory: the record
//! table (names) and a few blocks; never a contig.

mod sequence;

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, StringArray, UInt64Array};
use arrow::datatypes::DataType;

pub use self::sequence::{BLOCK_BASES, Block, SequenceReader, SequenceWriter, sequence_file, sequence_files};

use super::Task;
use super::partition::Bounds;
use super::tables::{Batch, Error, Reader, Writer};
use crate::artifact::Artifact;
use crate::units::{Interval, Strand};

/// File names within an artifact.
pub const RECORDS: &str = "records.parquet";
/// Stretches of records.
pub const INTERVALS: &str = "intervals.parquet";
/// Stretches written in lower case.
pub const MASKS: &str = "masks.parquet";
/// Rows gathered before a batch is written.
const BATCH_ROWS: usize = 65_536;

/// A record as the record table holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The source that it came from.
    pub source: String,
    /// Its name there.
    pub name: String,
    /// The contig that it belongs to: itself, or the reference that a read is aligned to; none for unplaced reads.
    pub contig: Option<String>,
    /// Its length.
    pub bases: u64,
}

/// The artifact with the records and bases that an artifact's intervals lie on: itself, if it is cleaned records.
pub fn sequence_of(task: &Task, artifact: &Artifact) -> Result<Artifact, super::Error> {
    if artifact.manifest.kind == "clean" {
        Ok(artifact.clone())
    } else {
        task.referenced(artifact, "sequence")
    }
}

/// Writes a record table.
pub fn write_records(path: &Path, records: &[Record]) -> Result<(), Error> {
    let text = DataType::Utf8;
    let mut writer = Writer::create(
        path,
        &[
            ("record", DataType::UInt64),
            ("source", text.clone()),
            ("name", text.clone()),
            ("contig", text),
            ("bases", DataType::UInt64),
        ],
    )?;
    for (batch, part) in records.chunks(BATCH_ROWS).enumerate() {
        let first = (batch * BATCH_ROWS) as u64;
        writer.write(vec![
            Arc::new(UInt64Array::from_iter_values(first..first + part.len() as u64)),
            Arc::new(StringArray::from_iter_values(part.iter().map(|r| r.source.as_str()))),
            Arc::new(StringArray::from_iter_values(part.iter().map(|r| r.name.as_str()))),
            Arc::new(part.iter().map(|r| r.contig.as_deref()).collect::<StringArray>()),
            Arc::new(UInt64Array::from_iter_values(part.iter().map(|r| r.bases))),
        ])?;
    }
    writer.finish()
}

/// Reads a record table; a record's number is its index.
pub fn read_records(path: &Path) -> Result<Vec<Record>, Error> {
    let mut reader = Reader::open(path, BATCH_ROWS)?;
    let mut records = Vec::new();
    while let Some(batch) = reader.next_batch()? {
        let (source, name) = (batch.column::<StringArray>("source")?, batch.column::<StringArray>("name")?);
        let (contig, bases) = (batch.column::<StringArray>("contig")?, batch.column::<UInt64Array>("bases")?);
        records.extend((0..batch.rows()).map(|i| Record {
            source: source.value(i).to_owned(),
            name: name.value(i).to_owned(),
            contig: contig.is_valid(i).then(|| contig.value(i).to_owned()),
            bases: bases.value(i),
        }));
    }
    Ok(records)
}

/// Refuses options for a source that no record comes from.
pub fn check_sources<'a>(
    mut names: impl Iterator<Item = &'a String>,
    records: &[Record],
) -> Result<(), super::Error> {
    let unknown = names.find(|name| !records.iter().any(|record| record.source == **name));
    unknown.map_or(Ok(()), |name| {
        let reason = format!("no record comes from a source called `{name}`");
        Err(super::Error::Config { key: "sources", reason })
    })
}

/// A length in memory: it fits, or it would not be there.
pub fn index(bases: u64) -> usize {
    usize::try_from(bases).unwrap_or(usize::MAX)
}

/// A stretch of a record, with what the stages so far have said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Number of the record.
    pub record: u64,
    /// Where it lies.
    pub interval: Interval,
    /// Which strand is meant.
    pub strand: Strand,
    /// The split it belongs to; empty before the split.
    pub split: String,
}

/// Writes a table of stretches.
pub struct StretchWriter {
    writer: Writer,
    rows: Vec<Stretch>,
}

impl StretchWriter {
    /// Creates the table.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let number = DataType::UInt64;
        let columns = [
            ("record", number.clone()),
            ("start", number.clone()),
            ("end", number),
            ("strand", DataType::Utf8),
            ("split", DataType::Utf8),
        ];
        Ok(Self { writer: Writer::create(path, &columns)?, rows: Vec::new() })
    }

    /// Appends a stretch.
    pub fn push(&mut self, stretch: Stretch) -> Result<(), Error> {
        self.rows.push(stretch);
        if self.rows.len() >= BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        self.writer.write(vec![
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| r.record))),
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| r.interval.start))),
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| r.interval.end))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.strand.symbol()))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.split.as_str()))),
        ])
    }

    /// Appends all stretches of another table: the same bytes come of it as of pushing them one by one.
    pub fn append(&mut self, path: &Path) -> Result<(), Error> {
        for_each_stretch(path, |stretch| self.push(stretch))
    }

    /// Writes what is left and the footer.
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush()?;
        self.writer.finish()
    }
}

/// Calls `each` for every stretch of a table, in order.
pub fn for_each_stretch<E: From<Error>>(
    path: &Path,
    each: impl FnMut(Stretch) -> Result<(), E>,
) -> Result<(), E> {
    for_each_stretch_of(path, 0..u64::MAX, each)
}

/// Calls `each` for the stretches of a table that have these numbers, in order; those before are not read.
pub fn for_each_stretch_of<E: From<Error>>(
    path: &Path,
    numbers: Range<u64>,
    mut each: impl FnMut(Stretch) -> Result<(), E>,
) -> Result<(), E> {
    let mut left = index(numbers.end - numbers.start);
    let mut reader = Reader::open_from(path, BATCH_ROWS.min(left.max(1)), index(numbers.start))?;
    while left > 0
        && let Some(batch) = reader.next_batch()?
    {
        stretches(&batch)?.take(left).try_for_each(&mut each)?;
        left = left.saturating_sub(batch.rows());
    }
    Ok(())
}

/// Where partitions of whole records begin, among the rows of a table of stretches, when each is to have stretches of about
/// `size` bases.
pub fn bounds_of_records(path: &Path, size: u64) -> Result<Vec<u64>, Error> {
    let (mut bounds, mut last) = (Bounds::new(size), None);
    for_each_stretch::<Error>(path, |stretch| {
        let bases = stretch.interval.len();
        match last.replace(stretch.record) {
            Some(record) if record == stretch.record => bounds.push_with_last(bases),
            _ => bounds.push(bases),
        }
        Ok(())
    })?;
    Ok(bounds.finish())
}

/// The numbers of the records that some rows of a table of stretches lie on, and of those between them.
pub fn records_of(path: &Path, rows: Range<u64>) -> Result<Range<u64>, Error> {
    let mut records = 0..0;
    for_each_stretch_of::<Error>(path, rows, |stretch| {
        let start = if records.is_empty() { stretch.record } else { records.start };
        records = start..stretch.record + 1;
        Ok(())
    })?;
    Ok(records)
}

fn stretches(batch: &Batch) -> Result<impl Iterator<Item = Stretch>, Error> {
    let (record, start) = (batch.column::<UInt64Array>("record")?, batch.column::<UInt64Array>("start")?);
    let (end, strand) = (batch.column::<UInt64Array>("end")?, batch.column::<StringArray>("strand")?);
    let split = batch.column::<StringArray>("split")?;
    Ok((0..batch.rows()).map(|i| Stretch {
        record: record.value(i),
        interval: Interval::new(start.value(i), end.value(i).max(start.value(i))),
        strand: if strand.value(i) == "-" { Strand::Reverse } else { Strand::Forward },
        split: split.value(i).to_owned(),
    }))
}

/// Reads soft masks beside intervals that ascend. Memory: a batch of rows.
pub struct MaskReader {
    reader: Reader,
    /// Masks that an interval may still meet.
    masks: VecDeque<(u64, Interval)>,
}

impl MaskReader {
    /// Opens the table of masks, which ascend and do not overlap, to be read from a record on; row groups that end before
    /// it are not read.
    pub fn open_at(path: &Path, record: u64) -> Result<Self, Error> {
        let starts = Reader::group_starts(path)?;
        let first = last_before(&starts, record, |start| {
            let batch = Reader::open_from(path, 1, start)?.next_batch()?;
            let first = batch.map(|batch| stretches(&batch).map(|mut rows| rows.next()));
            Ok(first.transpose()?.flatten().map_or(u64::MAX, |mask| mask.record))
        })?;
        Ok(Self { reader: Reader::open_from(path, BATCH_ROWS, first)?, masks: VecDeque::new() })
    }

    /// Bases of an interval that are masked; starts must not descend from call to call.
    pub fn masked(&mut self, record: u64, interval: Interval) -> Result<u64, Error> {
        loop {
            while self.masks.front().is_some_and(|(of, mask)| (*of, mask.end) <= (record, interval.start)) {
                self.masks.pop_front();
            }
            let reached =
                self.masks.back().is_some_and(|(of, mask)| (*of, mask.end) >= (record, interval.end));
            if reached || !self.load()? {
                break;
            }
        }
        let met = self.masks.iter().take_while(|(of, mask)| (*of, mask.start) < (record, interval.end));
        Ok(met.map(|(_, mask)| mask.end.min(interval.end) - mask.start.max(interval.start)).sum())
    }

    fn load(&mut self) -> Result<bool, Error> {
        let Some(batch) = self.reader.next_batch()? else { return Ok(false) };
        self.masks.extend(stretches(&batch)?.map(|mask| (mask.record, mask.interval)));
        Ok(true)
    }
}

/// The last of some ascending rows whose record, as `record_of` says, is before `record`; 0 if there is none.
fn last_before(
    rows: &[usize],
    record: u64,
    record_of: impl Fn(usize) -> Result<u64, Error>,
) -> Result<usize, Error> {
    let (mut low, mut high) = (0, rows.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        if record_of(rows[middle])? < record { low = middle + 1 } else { high = middle }
    }
    Ok(low.checked_sub(1).map_or(0, |at| rows[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_sought_in_the_last_row_group_that_may_hold_the_first_of_a_record() {
        // Row groups of ten rows, and the record of the first row of each.
        let records = [0, 0, 3, 3, 7];
        let rows = [0, 10, 20, 30, 40];
        for (record, expected) in [(0, 0), (1, 10), (3, 10), (4, 30), (7, 30), (8, 40), (9, 40)] {
            let found = last_before(&rows, record, |row| Ok(records[row / 10])).unwrap();
            assert_eq!(found, expected, "record {record}");
        }
        assert_eq!(last_before(&[], 5, |_| Ok(0)).unwrap(), 0);
    }

    #[test]
    fn masks_are_met_in_part_and_across_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MASKS);
        let mut writer = StretchWriter::create(&path).unwrap();
        for (record, start, end) in [(0, 2, 5), (0, 7, 9), (2, 0, 4)] {
            let (interval, strand) = (Interval::new(start, end), Strand::Forward);
            writer.push(Stretch { record, interval, strand, split: String::new() }).unwrap();
        }
        writer.finish().unwrap();
        let all = [
            (0, 0, 3, 1),
            (0, 3, 8, 3),
            (0, 8, 20, 1),
            (1, 0, 9, 0),
            (2, 1, 3, 2),
            (2, 3, 9, 1),
            (3, 0, 1, 0),
        ];
        for from in [0, 3, 4] {
            let mut reader = MaskReader::open_at(&path, all[from].0).unwrap();
            for (record, start, end, expected) in &all[from..] {
                let found = reader.masked(*record, Interval::new(*start, *end)).unwrap();
                assert_eq!(found, *expected, "{record}:{start}-{end}");
            }
        }
    }
}
