//! Row groups as Parquet: the columns, and how each is stored. Memory: a row group, and its encoded copy.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, ListArray, StringArray, StructArray, UInt32Array, UInt64Array,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, SchemaDescPtr};

use super::writer::Layout;
use super::{SCHEMA, Segment};

/// Bytes of tokens in a row group.
const GROUP_BYTES: usize = 8 << 20;

/// What the files say wrote them: the format, so that the same rows are the same bytes in every version of the tool.
pub const CREATED_BY: &str = SCHEMA;

/// The rows of a group, column by column.
#[derive(Debug, Default)]
pub struct Group {
    /// Little-endian tokens, row after row.
    pub tokens: Vec<u8>,
    /// A byte per token, or nothing.
    pub weights: Vec<u8>,
    /// Provenance of each row.
    pub segments: Vec<Vec<Segment>>,
    /// Where the documents of each row end.
    pub documents: Vec<Vec<u32>>,
}

/// A row group as a Parquet file of its own in memory.
pub struct Encoded {
    /// The file; its footer is not used.
    pub bytes: Vec<u8>,
    /// Where its column chunks lie in `bytes`.
    pub meta: RowGroupMetaData,
    /// Bytes of the aligned values at the end of each of the first chunks: tokens, and weights if there are any.
    pub aligned: Vec<u64>,
    /// blake3 of the tokens, unless they are compressed.
    pub blake3: Option<String>,
}

/// Turns groups into [`Encoded`]; shared by threads.
pub struct Encoder {
    layout: Layout,
    schema: SchemaRef,
    parquet: SchemaDescPtr,
    properties: WriterPropertiesPtr,
}

impl Encoder {
    pub fn new(layout: Layout) -> Result<Self, ParquetError> {
        let schema = schema(layout)?;
        let parquet = Arc::new(ArrowSchemaConverter::new().convert(&schema)?);
        Ok(Self { layout, schema, parquet, properties: Arc::new(properties(layout)?) })
    }

    /// The columns as Parquet has them.
    pub fn parquet(&self) -> SchemaDescPtr {
        self.parquet.clone()
    }

    pub fn encode(&self, group: Group) -> Result<Encoded, ParquetError> {
        let (tokens, weights) = (group.tokens.len() as u64, group.weights.len() as u64);
        let mapped = !self.layout.archive;
        let blake3 = mapped.then(|| blake3::hash(&group.tokens).to_hex().to_string());
        let aligned: &[u64] = if self.layout.weights { &[tokens, weights] } else { &[tokens] };
        let aligned = if mapped { aligned.to_vec() } else { Vec::new() };
        let buffer = Vec::with_capacity(group.tokens.len() + group.weights.len() + (64 << 10));
        let root = self.parquet.root_schema_ptr();
        let mut file = SerializedFileWriter::new(buffer, root, self.properties.clone())?;
        let factory = ArrowRowGroupWriterFactory::new(&file, self.schema.clone());
        let mut writers = factory.create_column_writers(0)?.into_iter();
        let mut out = file.next_row_group()?;
        for (field, column) in self.schema.fields().iter().zip(self.columns(group)?) {
            for leaf in compute_leaves(field, &column)? {
                let mut writer =
                    writers.next().ok_or_else(|| ParquetError::General("no writer".to_owned()))?;
                writer.write(&leaf)?;
                writer.close()?.append_to_row_group(&mut out)?;
            }
        }
        let meta = out.close()?.as_ref().clone();
        Ok(Encoded { bytes: file.into_inner()?, meta, aligned, blake3 })
    }

    fn columns(&self, group: Group) -> Result<Vec<ArrayRef>, ParquetError> {
        let mut columns: Vec<ArrayRef> = vec![fixed(group.tokens, self.layout.row_bytes())?];
        if self.layout.weights {
            columns.push(fixed(group.weights, self.layout.context)?);
        }
        columns.push(Arc::new(segments_array(&group.segments)?));
        columns.push(Arc::new(documents_array(&group.documents)?));
        Ok(columns)
    }
}

/// Rows of a full group.
pub fn rows_per_group(layout: Layout) -> usize {
    (GROUP_BYTES / layout.row_bytes()).max(1)
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

fn element(kind: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", kind, false))
}

/// What is aligned comes first, so that only the beginning of a row group has gaps.
fn schema(layout: Layout) -> Result<SchemaRef, ParquetError> {
    let field = |name: &str, kind: DataType| Field::new(name, kind, false);
    let mut fields = vec![field("tokens", DataType::FixedSizeBinary(width(layout.row_bytes())?))];
    if layout.weights {
        fields.push(field("weights", DataType::FixedSizeBinary(width(layout.context)?)));
    }
    fields.push(field("segments", DataType::List(element(DataType::Struct(segment_fields())))));
    fields.push(field("documents", DataType::List(element(DataType::UInt32))));
    Ok(Arc::new(Schema::new(fields)))
}

fn width(bytes: usize) -> Result<i32, ParquetError> {
    i32::try_from(bytes).map_err(|_| ParquetError::General(format!("a row of {bytes} bytes is too long")))
}

/// One PLAIN page of tokens and of weights per row group, uncompressed unless it is an archive; everything else zstd
/// with dictionaries.
fn properties(layout: Layout) -> Result<WriterProperties, ParquetError> {
    let rows = rows_per_group(layout);
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_write_batch_size(rows)
        .set_data_page_row_count_limit(rows)
        .set_max_row_group_row_count(None);
    for column in ["tokens", "weights"].map(ColumnPath::from) {
        builder = builder
            .set_column_data_page_size_limit(column.clone(), usize::MAX)
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column.clone(), Encoding::PLAIN);
        if !layout.archive {
            builder = builder.set_column_compression(column, Compression::UNCOMPRESSED);
        }
    }
    Ok(builder.build())
}

fn fixed(bytes: Vec<u8>, row: usize) -> Result<ArrayRef, ParquetError> {
    Ok(Arc::new(FixedSizeBinaryArray::try_new(width(row)?, Buffer::from_vec(bytes), None)?))
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
    Ok(ListArray::try_new(element(DataType::Struct(segment_fields())), offsets, Arc::new(structs), None)?)
}

fn documents_array(rows: &[Vec<u32>]) -> Result<ListArray, ParquetError> {
    let values = UInt32Array::from_iter_values(rows.iter().flatten().copied());
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
    Ok(ListArray::try_new(element(DataType::UInt32), offsets, Arc::new(values), None)?)
}
