//! Parquet for Hugging Face datasets: `data/SPLIT-00000-of-00002.parquet` with `input_ids: list<uint16>` (or uint32), one file
//! per shard file, and a dataset card that names the splits. Memory: one row group (16 MiB of tokens), and its encoded copy.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch, UInt16Array, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::{Error, Source, Tokens, Written};
use crate::fs;

/// Bytes of tokens in a row group.
const GROUP_BYTES: usize = 16 << 20;

pub(super) fn write(source: &Source, folder: &Path) -> Result<Written, Error> {
    let folder = folder.join("data");
    fs::create_dir_all(&folder)?;
    let files = source.split.files.iter().filter(|file| file.rows > 0);
    let count = files.clone().count();
    let mut first = 0;
    for (number, file) in files.enumerate() {
        let path = folder.join(format!("{}-{number:05}-of-{count:05}.parquet", source.name));
        write_file(source, &path, first..first + file.rows)?;
        first += file.rows;
    }
    Ok(Written { rows: first, tokens: first * source.context() as u64, ..Written::default() })
}

fn write_file(source: &Source, path: &Path, rows: std::ops::Range<u64>) -> Result<(), Error> {
    let fail = |e| super::super::Error::Parquet { action: "write", path: path.to_owned(), source: e };
    let per_group = (GROUP_BYTES / source.row_bytes()).max(1);
    let schema = schema(source);
    let mut writer = open(fs::create(path)?, &schema).map_err(fail)?;
    for first in rows.clone().step_by(per_group) {
        let group = first..(first + per_group as u64).min(rows.end);
        let batch = batch(source, &schema, group).map_err(fail)?;
        writer.write(&batch).and_then(|()| writer.flush()).map_err(fail)?;
    }
    writer.close().map_err(fail)?;
    Ok(())
}

fn open(file: File, schema: &SchemaRef) -> Result<ArrowWriter<File>, ParquetError> {
    let properties = WriterProperties::builder()
        .set_created_by(crate::TOOL.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(None)
        .build();
    ArrowWriter::try_new(file, schema.clone(), Some(properties))
}

fn item(source: &Source) -> Arc<Field> {
    let kind = if source.token_bytes() == 4 { DataType::UInt32 } else { DataType::UInt16 };
    Arc::new(Field::new("element", kind, false))
}

fn schema(source: &Source) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("input_ids", DataType::List(item(source)), false)]))
}

fn batch(
    source: &Source,
    schema: &SchemaRef,
    rows: std::ops::Range<u64>,
) -> Result<RecordBatch, ParquetError> {
    let count = usize::try_from(rows.end - rows.start).unwrap_or(usize::MAX);
    let (mut narrow, mut wide) = (Vec::new(), Vec::new());
    for row in rows {
        match source.rows.get(row) {
            Tokens::U16(ids) => narrow.extend_from_slice(ids),
            Tokens::U32(ids) => wide.extend_from_slice(ids),
        }
    }
    let values: ArrayRef = if source.token_bytes() == 4 {
        Arc::new(UInt32Array::from(wide))
    } else {
        Arc::new(UInt16Array::from(narrow))
    };
    let offsets = OffsetBuffer::from_repeated_length(source.context(), count);
    let lists = ListArray::try_new(item(source), offsets, values, None)?;
    Ok(RecordBatch::try_new(schema.clone(), vec![Arc::new(lists)])?)
}

/// `README.md`, from which datasets learns the splits whatever they are called.
pub(super) fn card<'a>(folder: &Path, splits: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    let splits: String =
        splits.flat_map(|split| ["  - split: ", split, "\n    path: data/", split, "-*.parquet\n"]).collect();
    let text = format!(
        "---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n\nRows of tokens of genomes, made by genomill; \
         `tokenizer.json` is their tokenizer, `manifest.json` says where they come from.\n"
    );
    Ok(fs::write_atomic(&folder.join("README.md"), text.as_bytes())?)
}
