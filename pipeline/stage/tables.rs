//! Parquet tables of an artifact, read and written in batches. Memory: one row group (32 MiB) and one batch.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::properties::WriterProperties;

use crate::fs;

/// Bytes of a row group, before compression.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file call failed.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// Parquet's own words.
    #[error("cannot {action} table `{}`: {source}", path.display())]
    Parquet {
        /// `read` or `write`.
        action: &'static str,
        /// The table.
        path: PathBuf,
        /// What went wrong.
        source: ParquetError,
    },
    /// A column is missing or of another type.
    #[error("table `{}` has no column `{column}` of type {expected}", path.display())]
    Column {
        /// The table.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// Its Rust type.
        expected: &'static str,
    },
    /// A column's values do not fit those beside them.
    #[error("table `{}` is damaged: a value of `{column}` does not fit the row", path.display())]
    Damaged {
        /// The table.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
}

fn parquet<E: Into<ParquetError>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.to_owned();
    move |source| match source.into() {
        // A file call that failed, in the words of all others.
        ParquetError::External(error) if error.is::<std::io::Error>() => match error.downcast() {
            Ok(error) => Error::Fs(fs::error(action, &path)(*error)),
            Err(error) => Error::Parquet { action, path, source: ParquetError::External(error) },
        },
        source => Error::Parquet { action, path, source },
    }
}

/// Writes one table: batches in order, zstd, the same bytes for the same batches.
pub struct Writer {
    path: PathBuf,
    schema: Arc<Schema>,
    inner: ArrowWriter<File>,
}

impl Writer {
    /// Creates a table of the given columns; those whose type is `Utf8` are dictionary-encoded.
    pub fn create(path: &Path, columns: &[(&str, DataType)]) -> Result<Self, Error> {
        let fields = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), *name == "contig"));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let zstd = ZstdLevel::try_new(1).map_err(parquet("write", path))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(zstd))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_write_batch_size(64)
            .set_created_by(crate::TOOL.to_owned())
            .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
            .build();
        let inner = ArrowWriter::try_new(fs::create(path)?, schema.clone(), Some(properties));
        Ok(Self { path: path.to_owned(), schema, inner: inner.map_err(parquet("write", path))? })
    }

    /// Appends a batch, its columns in the order of [`Writer::create`].
    pub fn write(&mut self, columns: Vec<ArrayRef>) -> Result<(), Error> {
        let batch =
            RecordBatch::try_new(self.schema.clone(), columns).map_err(parquet("write", &self.path))?;
        self.inner.write(&batch).map_err(parquet("write", &self.path))
    }

    /// Writes the footer.
    pub fn finish(self) -> Result<(), Error> {
        self.inner.close().map(drop).map_err(parquet("write", &self.path))
    }
}

/// Reads one table in batches.
pub struct Reader {
    path: PathBuf,
    inner: ParquetRecordBatchReader,
}

impl Reader {
    /// Opens a table to be read in batches of at most `rows` rows.
    pub fn open(path: &Path, rows: usize) -> Result<Self, Error> {
        Self::start(path, builder(path)?.with_batch_size(rows))
    }

    /// Opens some columns of a table.
    pub fn open_columns(path: &Path, rows: usize, columns: &[&str]) -> Result<Self, Error> {
        let builder = builder(path)?;
        let columns = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        Self::start(path, builder.with_batch_size(rows).with_projection(columns))
    }

    /// Opens a table to be read from the row number `first` on; the row groups before are not read.
    pub fn open_from(path: &Path, rows: usize, first: usize) -> Result<Self, Error> {
        if first == 0 {
            return Self::open(path, rows);
        }
        let builder = builder(path)?;
        let lengths = builder.metadata().row_groups().iter().map(RowGroupMetaData::num_rows);
        let lengths: Vec<usize> = lengths.map(|rows| usize::try_from(rows).unwrap_or(0)).collect();
        let (mut group, mut left) = (0, first);
        while lengths.get(group).is_some_and(|&rows| rows <= left) {
            left -= lengths[group];
            group += 1;
        }
        let groups = (group..lengths.len()).collect();
        Self::start(path, builder.with_batch_size(rows).with_row_groups(groups).with_offset(left))
    }

    /// The numbers of the rows that the row groups of a table begin with.
    pub fn group_starts(path: &Path) -> Result<Vec<usize>, Error> {
        let builder = builder(path)?;
        let mut next = 0;
        let groups = builder.metadata().row_groups().iter().map(|group| {
            let start = next;
            next += usize::try_from(group.num_rows()).unwrap_or(0);
            start
        });
        Ok(groups.collect())
    }

    fn start(path: &Path, builder: ParquetRecordBatchReaderBuilder<File>) -> Result<Self, Error> {
        let inner = builder.build().map_err(parquet("read", path))?;
        Ok(Self { path: path.to_owned(), inner })
    }

    /// The next batch, or none at the end.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        let batch = self.inner.next().transpose().map_err(parquet("read", &self.path))?;
        Ok(batch.map(|batch| Batch { path: self.path.clone(), batch }))
    }
}

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, Error> {
    ParquetRecordBatchReaderBuilder::try_new(fs::open(path)?).map_err(parquet("read", path))
}

/// Some rows of a table.
pub struct Batch {
    path: PathBuf,
    batch: RecordBatch,
}

impl Batch {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The error of a value that does not fit its row.
    pub fn damaged(&self, column: &'static str) -> Error {
        Error::Damaged { path: self.path.clone(), column }
    }

    /// A column by name and type.
    pub fn column<A: Array + 'static>(&self, column: &'static str) -> Result<&A, Error> {
        let found = self.batch.column_by_name(column).and_then(|array| array.as_any().downcast_ref::<A>());
        found.ok_or_else(|| Error::Column {
            path: self.path.clone(),
            column,
            expected: std::any::type_name::<A>().rsplit("::").next().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::UInt64Array;

    use super::*;

    #[test]
    fn a_table_is_read_from_any_row_on_whatever_its_row_groups_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::UInt64, false)]));
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10)).build();
        let mut writer =
            ArrowWriter::try_new(fs::create(&path).unwrap(), schema.clone(), Some(properties)).unwrap();
        let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..35));
        writer.write(&RecordBatch::try_new(schema, vec![numbers]).unwrap()).unwrap();
        writer.close().unwrap();
        for first in [0, 1, 9, 10, 11, 29, 30, 34, 35, 40] {
            let mut reader = Reader::open_from(&path, 7, first).unwrap();
            let mut found = Vec::new();
            while let Some(batch) = reader.next_batch().unwrap() {
                found.extend_from_slice(batch.column::<UInt64Array>("n").unwrap().values());
            }
            assert_eq!(found, (first as u64..35).collect::<Vec<_>>(), "{first}");
        }
    }
}
