//! Writes the files of a split. Memory: one row group, and its encoded copy.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, ListArray, StringArray, StructArray, UInt32Array, UInt64Array,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use super::{ALIGNMENT, Error, Page, Segment, ShardFile, Split};
use crate::artifact::hashes::hash_file;
use crate::fs;

/// Bytes of tokens in a row group.
const PAGE_BYTES: usize = 16 << 20;

/// Writes a split as files of a target size.
pub struct SplitWriter {
    folder: PathBuf,
    name: String,
    layout: Layout,
    rows_per_file: u64,
    file: Option<FileWriter>,
    split: Split,
}

/// What the files of a set share.
#[derive(Debug, Clone, Copy)]
struct Layout {
    context: usize,
    token_bytes: usize,
}

impl Layout {
    fn row_bytes(self) -> usize {
        self.context * self.token_bytes
    }
}

impl SplitWriter {
    /// Starts a split of rows of `context` tokens of `token_bytes` bytes, in files of about `file_bytes` of tokens.
    pub fn new(folder: &Path, name: &str, context: usize, token_bytes: usize, file_bytes: u64) -> Self {
        let layout = Layout { context, token_bytes };
        let rows_per_file = (file_bytes / layout.row_bytes() as u64).max(1);
        let (folder, name) = (folder.to_owned(), name.to_owned());
        Self { folder, name, layout, rows_per_file, file: None, split: Split::default() }
    }

    /// Appends a row: its `context` tokens, of which the last `padding` are padding, and where they came from.
    ///
    /// # Panics
    /// When the row has not `context` tokens.
    pub fn push(&mut self, tokens: &[u32], padding: usize, segments: Vec<Segment>) -> Result<(), Error> {
        assert_eq!(tokens.len(), self.layout.context, "a row has exactly `context` tokens");
        self.split.rows += 1;
        self.split.padding += padding as u64;
        self.split.tokens += (tokens.len() - padding) as u64;
        self.split.bases += segments.iter().map(|segment| segment.end - segment.start).sum::<u64>();
        let mut file = match self.file.take() {
            Some(file) => file,
            None => FileWriter::create(&self.folder, self.next_name(), self.layout)?,
        };
        file.push(tokens, segments)?;
        if file.rows >= self.rows_per_file {
            self.split.files.push(file.finish()?);
        } else {
            self.file = Some(file);
        }
        Ok(())
    }

    fn next_name(&self) -> String {
        format!("{}-{:05}.parquet", self.name, self.split.files.len())
    }

    /// Finishes the last file. A split without rows has one file without rows.
    pub fn finish(mut self) -> Result<Split, Error> {
        if self.file.is_none() && self.split.files.is_empty() {
            self.file = Some(FileWriter::create(&self.folder, self.next_name(), self.layout)?);
        }
        if let Some(file) = self.file.take() {
            self.split.files.push(file.finish()?);
        }
        Ok(self.split)
    }
}

struct FileWriter {
    path: PathBuf,
    name: String,
    layout: Layout,
    schema: SchemaRef,
    inner: SerializedFileWriter<File>,
    factory: ArrowRowGroupWriterFactory,
    tokens: Vec<u8>,
    segments: Vec<Vec<Segment>>,
    pages: Vec<Page>,
    rows: u64,
}

impl FileWriter {
    fn create(folder: &Path, name: String, layout: Layout) -> Result<Self, Error> {
        let path = folder.join(&name);
        let fail = |source| Error::Parquet { action: "write", path: path.clone(), source };
        let schema = schema(layout);
        let properties = Arc::new(properties(layout).map_err(fail)?);
        let parquet = ArrowSchemaConverter::new().convert(&schema).map_err(fail)?;
        let inner = SerializedFileWriter::new(fs::create(&path)?, parquet.root_schema_ptr(), properties)
            .map_err(fail)?;
        let factory = ArrowRowGroupWriterFactory::new(&inner, schema.clone());
        let (tokens, segments, pages) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { path, name, layout, schema, inner, factory, tokens, segments, pages, rows: 0 })
    }

    fn push(&mut self, tokens: &[u32], segments: Vec<Segment>) -> Result<(), Error> {
        for token in tokens {
            self.tokens.extend_from_slice(&token.to_le_bytes()[..self.layout.token_bytes]);
        }
        self.segments.push(segments);
        self.rows += 1;
        if self.tokens.len() + self.layout.row_bytes() > PAGE_BYTES { self.flush() } else { Ok(()) }
    }

    fn fail(&self) -> impl Fn(ParquetError) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Parquet { action: "write", path: path.clone(), source }
    }

    /// Writes a row group whose token page starts on a multiple of [`ALIGNMENT`].
    fn flush(&mut self) -> Result<(), Error> {
        let fail = self.fail();
        let rows = self.segments.len() as u64;
        let payload = self.tokens.len() as u64;
        let chunks = self.encode().map_err(&fail)?;
        let encoded = chunks.first().map_or(0, |chunk| chunk.close().bytes_written);
        let header = encoded - payload;
        let start = self.inner.bytes_written() as u64 + header;
        let padding = (ALIGNMENT - start % ALIGNMENT) % ALIGNMENT;
        let zeros = vec![0_u8; usize::try_from(padding).unwrap_or_default()];
        self.inner.write_all(&zeros).map_err(fs::error("write", &self.path))?;
        let mut group = self.inner.next_row_group().map_err(&fail)?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group).map_err(&fail)?;
        }
        group.close().map_err(&fail)?;
        self.pages.push(Page { offset: start + padding, rows });
        Ok(())
    }

    fn encode(&mut self) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
        let tokens = tokens_array(std::mem::take(&mut self.tokens), self.layout)?;
        let segments = segments_array(&std::mem::take(&mut self.segments))?;
        let columns: [ArrayRef; 2] = [Arc::new(tokens), Arc::new(segments)];
        let mut writers = self.factory.create_column_writers(self.pages.len())?.into_iter();
        let mut chunks = Vec::new();
        for (field, column) in self.schema.fields().iter().zip(&columns) {
            for leaf in compute_leaves(field, column)? {
                let mut writer =
                    writers.next().ok_or_else(|| ParquetError::General("no writer".to_owned()))?;
                writer.write(&leaf)?;
                chunks.push(writer.close()?);
            }
        }
        Ok(chunks)
    }

    fn finish(mut self) -> Result<ShardFile, Error> {
        if !self.segments.is_empty() {
            self.flush()?;
        }
        let fail = self.fail();
        self.inner.close().map_err(fail)?;
        let bytes = std::fs::metadata(&self.path).map_err(fs::error("read", &self.path))?.len();
        let blake3 = hash_file(&self.path)?;
        Ok(ShardFile { path: self.name, rows: self.rows, bytes, blake3, pages: self.pages })
    }
}

fn segment_fields() -> Fields {
    let field = |name: &str, kind: DataType| Field::new(name, kind, false);
    Fields::from(vec![
        field("token_start", DataType::UInt32),
        field("token_end", DataType::UInt32),
        field("record", DataType::Utf8),
        field("source", DataType::Utf8),
        field("start", DataType::UInt64),
        field("end", DataType::UInt64),
        field("strand", DataType::Utf8),
    ])
}

fn segment_item() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Struct(segment_fields()), false))
}

/// `tokens` first, so that a row group starts with its token page.
fn schema(layout: Layout) -> SchemaRef {
    let width = i32::try_from(layout.row_bytes()).unwrap_or(i32::MAX);
    Arc::new(Schema::new(vec![
        Field::new("tokens", DataType::FixedSizeBinary(width), false),
        Field::new("segments", DataType::List(segment_item()), false),
    ]))
}

/// One PLAIN, uncompressed page of tokens per row group; everything else zstd with dictionaries.
fn properties(layout: Layout) -> Result<WriterProperties, ParquetError> {
    let tokens = ColumnPath::from("tokens");
    let rows = (PAGE_BYTES / layout.row_bytes()).max(1);
    Ok(WriterProperties::builder()
        .set_created_by(crate::TOOL.to_owned())
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_write_batch_size(rows)
        .set_data_page_row_count_limit(rows)
        .set_column_data_page_size_limit(tokens.clone(), usize::MAX)
        .set_column_dictionary_enabled(tokens.clone(), false)
        .set_column_encoding(tokens.clone(), Encoding::PLAIN)
        .set_column_compression(tokens, Compression::UNCOMPRESSED)
        .set_max_row_group_row_count(None)
        .build())
}

fn tokens_array(bytes: Vec<u8>, layout: Layout) -> Result<FixedSizeBinaryArray, ParquetError> {
    let width = i32::try_from(layout.row_bytes()).map_err(|e| ParquetError::General(e.to_string()))?;
    Ok(FixedSizeBinaryArray::try_new(width, Buffer::from_vec(bytes), None)?)
}

fn segments_array(rows: &[Vec<Segment>]) -> Result<ListArray, ParquetError> {
    let all = || rows.iter().flatten();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(all().map(|s| s.token_start))),
        Arc::new(UInt32Array::from_iter_values(all().map(|s| s.token_end))),
        Arc::new(StringArray::from_iter_values(all().map(|s| s.record.as_str()))),
        Arc::new(StringArray::from_iter_values(all().map(|s| s.source.as_str()))),
        Arc::new(UInt64Array::from_iter_values(all().map(|s| s.start))),
        Arc::new(UInt64Array::from_iter_values(all().map(|s| s.end))),
        Arc::new(StringArray::from_iter_values(all().map(|s| s.strand.symbol()))),
    ];
    let structs = StructArray::try_new(segment_fields(), columns, None)?;
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
    Ok(ListArray::try_new(segment_item(), offsets, Arc::new(structs), None)?)
}
