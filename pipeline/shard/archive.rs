//! Unpacks an archive: its row groups are decoded on several threads into an unnamed temporary file, which is mapped in
//! place of the shard. Memory: a row group (8 MiB of tokens) per thread; disk: the tokens, as long as the split is open.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use memmap2::Mmap;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use rayon::prelude::*;

use super::reader::Mapped;
use super::{Details, Error, Page, ShardFile};
use crate::fs;

/// Unpacks a file; its rows become one page.
pub(super) fn unpack(path: &Path, entry: &ShardFile, details: &Details) -> Result<Mapped, Error> {
    let file = fs::open(path)?;
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).map_err(fail(path, 0))?;
    let groups = groups(&metadata);
    let rows: u64 = groups.iter().map(|group| group.rows).sum();
    if rows != entry.rows {
        let reason = format!("it holds {rows} rows, its manifest says {}", entry.rows);
        return Err(Error::Damaged { path: path.to_owned(), offset: 0, reason });
    }
    let spill = tempfile::tempfile().map_err(fs::error("create a temporary file to unpack", path))?;
    let weights = (rows * details.row_bytes() as u64).next_multiple_of(super::ALIGNMENT);
    let bytes =
        if details.loss_weights.is_some() { weights + rows * details.context as u64 } else { weights };
    spill.set_len(bytes.max(1)).map_err(fs::error("make room to unpack", path))?;
    let unpack = Unpack { path, metadata: &metadata, spill: &spill, details, weights };
    groups.par_iter().try_for_each(|group| unpack.group(group))?;
    // SAFETY: the file has no name, so that nobody else can change it, and nothing writes to it any more.
    let bytes = unsafe { Mmap::map(&spill) }.map_err(fs::error("map what was unpacked from", path))?;
    let weights_offset = details.loss_weights.is_some().then_some(weights);
    Ok(Mapped { bytes, pages: vec![Page { offset: 0, rows, weights_offset }] })
}

/// A row group and its place.
struct RowGroup {
    number: usize,
    first: u64,
    rows: u64,
    offset: u64,
}

fn groups(metadata: &ArrowReaderMetadata) -> Vec<RowGroup> {
    let mut first = 0;
    let groups = metadata.metadata().row_groups().iter().enumerate();
    let group = |(number, group): (usize, &parquet::file::metadata::RowGroupMetaData)| {
        let rows = u64::try_from(group.num_rows()).unwrap_or_default();
        let offset = group.columns().first().map_or(0, |column| column.byte_range().0);
        first += rows;
        RowGroup { number, first: first - rows, rows, offset }
    };
    groups.map(group).collect()
}

fn fail<E: Into<ParquetError>>(path: &Path, offset: u64) -> impl FnOnce(E) -> Error {
    let path = path.to_owned();
    move |source| {
        let reason = format!("its row group cannot be decoded: {}", source.into());
        Error::Damaged { path, offset, reason }
    }
}

struct Unpack<'a> {
    path: &'a Path,
    metadata: &'a ArrowReaderMetadata,
    spill: &'a File,
    details: &'a Details,
    /// Where weights begin in the temporary file.
    weights: u64,
}

impl Unpack<'_> {
    fn group(&self, group: &RowGroup) -> Result<(), Error> {
        let broken = || fail::<ParquetError>(self.path, group.offset);
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(fs::open(self.path)?, self.metadata.clone());
        let wanted = if self.details.loss_weights.is_some() { 2 } else { 1 };
        let mask = ProjectionMask::roots(builder.parquet_schema(), 0..wanted);
        let reader = builder.with_projection(mask).with_row_groups(vec![group.number]).build();
        let mut row = group.first;
        for batch in reader.map_err(broken())? {
            let batch = batch.map_err(fail(self.path, group.offset))?;
            self.column(&batch, 0, self.details.row_bytes(), row, 0, group)?;
            if wanted == 2 {
                self.column(&batch, 1, self.details.context, row, self.weights, group)?;
            }
            row += batch.num_rows() as u64;
        }
        if row == group.first + group.rows {
            return Ok(());
        }
        Err(broken()(ParquetError::General(format!("{} rows in place of {}", row - group.first, group.rows))))
    }

    /// Puts the values of a column where the rows from `row` on lie.
    fn column(
        &self,
        batch: &RecordBatch,
        column: usize,
        width: usize,
        row: u64,
        base: u64,
        group: &RowGroup,
    ) -> Result<(), Error> {
        let values = batch.columns().get(column).and_then(|array| array.as_fixed_size_binary_opt());
        let values = values.filter(|array| usize::try_from(array.value_length()) == Ok(width));
        let wrong = || ParquetError::General(format!("a column does not hold {width} bytes a row"));
        let values = values.ok_or_else(wrong).map_err(fail(self.path, group.offset))?;
        let bytes = &values.value_data()[..batch.num_rows() * width];
        let offset = base + row * width as u64;
        Ok(self.spill.write_all_at(bytes, offset).map_err(fs::error("unpack", self.path))?)
    }
}
