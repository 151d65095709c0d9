//! Where the tokens of rows came from, and where documents end: the columns beside the tokens. Memory: the rows asked for,
//! at most those of a row group beyond them.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray};
use arrow::datatypes::{UInt32Type, UInt64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::{Error, Segment, ShardFile, ShardSet};
use crate::fs;
use crate::tokenizer::Tokenizer;
use crate::units::{Interval, Strand};

/// Rows decoded at once.
const BATCH_ROWS: usize = 1024;

impl ShardSet {
    /// Where the tokens of each row of a file came from.
    pub fn segments(&self, file: &ShardFile) -> Result<Vec<Vec<Segment>>, Error> {
        let mut rows = Vec::new();
        self.for_each_row(file, |_, segments| {
            rows.push(segments);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Calls `each` with the number within the file and the provenance of every row of it, in order.
    pub fn for_each_row(
        &self,
        file: &ShardFile,
        mut each: impl FnMut(u64, Vec<Segment>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = self.folder.join(&file.path);
        for_each_list(&path, "segments", |row, list| each(row, segments(list.as_struct())))
    }

    /// Calls `each` with the number within the file and the documents of every row of it, in order; see
    /// [`ShardSet::documents`]. Sets made before there was such a column have none.
    pub fn for_each_documents(
        &self,
        file: &ShardFile,
        mut each: impl FnMut(u64, &[u32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.details.packing.is_none() {
            return Ok(());
        }
        let path = self.folder.join(&file.path);
        for_each_list(&path, "documents", |row, list| each(row, list.as_primitive::<UInt32Type>().values()))
    }

    /// Where the tokens of one row of a split came from.
    pub fn provenance(&self, split: &str, row: u64) -> Result<Vec<Segment>, Error> {
        let lists = self.one(split, row, "segments")?;
        Ok(segments(lists.value(0).as_struct()))
    }

    /// Where the documents of a row end: cumulative numbers of tokens, ascending, the last one `context`. A document is
    /// a window, or the part of one that lies in the row, with the special tokens around it; the padding at the end of
    /// a row is a document of its own. So attention may be masked across them, and positions may start again.
    pub fn documents(&self, split: &str, row: u64) -> Result<Vec<u32>, Error> {
        let lists = self.one(split, row, "documents")?;
        Ok(lists.value(0).as_primitive::<UInt32Type>().values().to_vec())
    }

    /// The list of one row in a column, as a list of length 1.
    fn one(&self, split: &str, row: u64, column: &'static str) -> Result<ListArray, Error> {
        let (file, within) = self.place(split, row)?;
        let path = self.folder.join(&file.path);
        let batch = columns(&path, column, within, Some(1))?.next();
        let gone = || Error::Damaged {
            path: path.clone(),
            offset: 0,
            reason: format!("column `{column}` has no row {within}, the manifest says {} rows", file.rows),
        };
        list(&path, batch.ok_or_else(gone)?)
    }

    /// The file that holds a row of a split, and the row's number within it.
    pub fn place(&self, split: &str, row: u64) -> Result<(&ShardFile, u64), Error> {
        let found = self.split(split)?;
        let mut first = 0;
        for file in &found.files {
            if row < first + file.rows {
                return Ok((file, row - first));
            }
            first += file.rows;
        }
        let (path, split) = (self.folder.clone(), split.to_owned());
        Err(Error::UnknownRow { path, split, row, rows: first })
    }
}

impl Segment {
    /// Where it lies.
    pub fn interval(&self) -> Interval {
        Interval::new(self.start, self.end.max(self.start))
    }

    /// Where each of its tokens lies; `row` are the tokens of its row. Of overlapping k-mers each token but the first of
    /// a window stands for its last base.
    pub fn places(&self, tokenizer: &dyn Tokenizer, row: &[u32]) -> Vec<Interval> {
        let tokens = &row[self.token_start as usize..self.token_end as usize];
        let mut done = 0;
        let place = |bases: u64| {
            let (from, to) = (done, (done + bases).min(self.interval().len()));
            done = to;
            match self.strand {
                Strand::Forward => Interval::new(self.start + from, self.start + to),
                Strand::Reverse => Interval::new(self.end - to, self.end - from),
            }
        };
        steps(tokenizer, tokens, self.interval().len()).into_iter().map(place).collect()
    }
}

/// Bases that each token adds to those before it, when all of them add `total`.
fn steps(tokenizer: &dyn Tokenizer, tokens: &[u32], total: u64) -> Vec<u64> {
    let step = |pair: &[u32]| tokenizer.bases_of(pair).saturating_sub(tokenizer.bases_of(&pair[..1]));
    let rest: Vec<u64> = tokens.windows(2).map(step).collect();
    let first = total.saturating_sub(rest.iter().sum());
    tokens.iter().take(1).map(|_| first).chain(rest).collect()
}

fn fail<E: Into<ParquetError>>(path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.to_owned();
    move |source| Error::Parquet { action: "read", path, source: source.into() }
}

/// Reads one column from a row on; only the row groups that are needed.
fn columns(
    path: &Path,
    column: &'static str,
    first: u64,
    count: Option<usize>,
) -> Result<ParquetRecordBatchReader, Error> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(fs::open(path)?).map_err(fail(path))?;
    let fields = builder.parquet_schema().root_schema().get_fields();
    let root = fields.iter().position(|field| field.name() == column);
    let missing = || ParquetError::General(format!("it has no column `{column}`"));
    let root = root.ok_or_else(missing).map_err(fail(path))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), [root]);
    let mut builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
    if let Some(count) = count {
        let (mut group, mut within) = (0, first);
        for meta in builder.metadata().row_groups() {
            let rows = u64::try_from(meta.num_rows()).unwrap_or_default();
            if within < rows {
                break;
            }
            within -= rows;
            group += 1;
        }
        let groups = if group < builder.metadata().num_row_groups() { vec![group] } else { Vec::new() };
        let offset = usize::try_from(within).unwrap_or(usize::MAX);
        builder = builder.with_row_groups(groups).with_offset(offset).with_limit(count);
    }
    builder.build().map_err(fail(path))
}

/// Calls `each` with the number and the list of every row of a column.
fn for_each_list(
    path: &Path,
    column: &'static str,
    mut each: impl FnMut(u64, &ArrayRef) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut row = 0;
    for batch in columns(path, column, 0, None)? {
        let lists = list(path, batch)?;
        for i in 0..lists.len() {
            each(row, &lists.value(i))?;
            row += 1;
        }
    }
    Ok(())
}

fn list(path: &Path, batch: Result<RecordBatch, arrow::error::ArrowError>) -> Result<ListArray, Error> {
    let batch = batch.map_err(fail(path))?;
    let lists = batch.column(0).as_list_opt::<i32>().cloned();
    lists.ok_or_else(|| fail(path)(ParquetError::General("its provenance is no list".to_owned())))
}

fn segments(structs: &StructArray) -> Vec<Segment> {
    let u32s = |i: usize| structs.column(i).as_primitive::<UInt32Type>();
    let u64s = |i: usize| structs.column(i).as_primitive::<UInt64Type>();
    let text = |i: usize, row: usize| structs.column(i).as_string::<i32>().value(row);
    let segment = |row: usize| Segment {
        token_start: u32s(0).value(row),
        token_end: u32s(1).value(row),
        record: text(2, row).into(),
        source: text(3, row).into(),
        start: u64s(4).value(row),
        end: u64s(5).value(row),
        strand: if text(6, row) == "-" { Strand::Reverse } else { Strand::Forward },
    };
    (0..structs.len()).map(segment).collect()
}
