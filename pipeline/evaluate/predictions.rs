//! What a model answered for every test example, as a Parquet table: `example` (from 0, in the order of the task), `line` of its file,
//! `label`, `predicted`, and `score_<class>` for each class. Where bases have classes: a row for each base that has one, `line` its place on its sequence,
//! from 1, and no scores. Memory: the table.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::fs;

/// Answers for all examples of a test set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predictions {
    /// The line of each example in its file, or the place of each base on its sequence, from 1.
    pub lines: Vec<u64>,
    /// The class of each.
    pub labels: Vec<u32>,
    /// What each was taken for.
    pub predicted: Vec<u32>,
    /// A row of one score for each class, for each example.
    pub scores: Vec<f64>,
}

/// The classes that scores speak for, of which there is a row of `classes` for each example; the first of equal ones.
pub fn predicted(scores: &[f64], classes: usize) -> Vec<u32> {
    let best =
        |row: &[f64]| (0..).zip(row).fold((0, f64::MIN), |a, b| if *b.1 > a.1 { (b.0, *b.1) } else { a }).0;
    scores.chunks(classes.max(1)).map(best).collect()
}

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file call.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// Parquet's own words.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Parquet {
        /// `read` or `write`.
        action: &'static str,
        /// The table.
        path: PathBuf,
        /// What went wrong.
        source: ParquetError,
    },
    /// A table of other columns.
    #[error("`{}` is no table of predictions: `{column}` is missing or of another type", path.display())]
    Column {
        /// The table.
        path: PathBuf,
        /// The column.
        column: String,
    },
}

impl Predictions {
    /// Number of classes.
    pub fn classes(&self) -> usize {
        if self.labels.is_empty() { 0 } else { self.scores.len() / self.labels.len() }
    }

    /// The scores as metrics take them: of two classes that of the second alone.
    pub fn metric_scores(&self) -> Vec<f64> {
        match self.classes() {
            2 => self.scores.chunks(2).map(|row| row[1]).collect(),
            _ => self.scores.clone(),
        }
    }

    /// Writes the table.
    ///
    /// # Errors
    /// [`Error`] when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let classes = self.classes();
        let column = |class: usize| self.scores.iter().skip(class).step_by(classes.max(1)).copied();
        let mut fields = vec![
            Field::new("example", DataType::UInt32, false),
            Field::new("line", DataType::UInt64, false),
            Field::new("label", DataType::UInt32, false),
            Field::new("predicted", DataType::UInt32, false),
        ];
        let count = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values(0..count)),
            Arc::new(UInt64Array::from(self.lines.clone())),
            Arc::new(UInt32Array::from(self.labels.clone())),
            Arc::new(UInt32Array::from(self.predicted.clone())),
        ];
        for class in 0..classes {
            fields.push(Field::new(format!("score_{class}"), DataType::Float64, false));
            columns.push(Arc::new(Float64Array::from_iter_values(column(class))));
        }
        let failed = |source| Error::Parquet { action: "write", path: path.to_owned(), source };
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|error| failed(error.into()))?;
        let zstd = ZstdLevel::try_new(1).map_err(failed)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(zstd));
        let properties = properties.set_created_by(crate::TOOL.to_owned()).build();
        let mut writer = ArrowWriter::try_new(fs::create(path)?, schema, Some(properties)).map_err(failed)?;
        writer.write(&batch).map_err(failed)?;
        writer.close().map(drop).map_err(failed)
    }

    /// Reads a table.
    ///
    /// # Errors
    /// [`Error`] when it cannot be read or has other columns.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Parquet { action: "read", path: path.to_owned(), source };
        let file: File = fs::open(path)?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
        let reader = reader.build().map_err(failed)?;
        let mut found = Self::default();
        for batch in reader {
            let batch = batch.map_err(|error| failed(error.into()))?;
            found.lines.extend(values::<UInt64Array>(&batch, "line", path)?.values());
            found.labels.extend(values::<UInt32Array>(&batch, "label", path)?.values());
            found.predicted.extend(values::<UInt32Array>(&batch, "predicted", path)?.values());
            let classes = batch.num_columns().saturating_sub(4);
            let columns =
                (0..classes).map(|class| values::<Float64Array>(&batch, &format!("score_{class}"), path));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            found.scores.extend(
                (0..batch.num_rows()).flat_map(|row| columns.iter().map(move |column| column.value(row))),
            );
        }
        Ok(found)
    }
}

/// A column of a known type, without gaps.
fn values<'a, A: Array + 'static>(batch: &'a RecordBatch, name: &str, path: &Path) -> Result<&'a A, Error> {
    let column = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<A>());
    column
        .filter(|column| column.null_count() == 0)
        .ok_or_else(|| Error::Column { path: path.to_owned(), column: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.parquet");
        for classes in [2_usize, 3] {
            let scores = (0..4 * classes).map(|i| i as f64 / 7.0).collect();
            let of = Predictions {
                lines: vec![2, 3, 4, 5],
                labels: vec![0, 1, 1, 0],
                predicted: vec![0, 1, 0, 0],
                scores,
            };
            of.write(&path).unwrap();
            let found = Predictions::read(&path).unwrap();
            assert_eq!(found, of);
            assert_eq!(
                (found.classes(), found.metric_scores().len()),
                (classes, if classes == 2 { 4 } else { 12 })
            );
        }
        std::fs::write(&path, "no table").unwrap();
        let error = Predictions::read(&path).unwrap_err().to_string();
        assert!(error.contains("p.parquet`"), "{error}");
    }
}
