//! Row groups as Parquet: the columns, and how each is stored. What is stored as it is, tokens and weights, is never
//! copied: a page is a header before the values. Memory: a row group, and an encoded copy of its provenance (of an archive,
//! of everything).

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
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
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
    /// Little-endian tokens, row after row; what lies behind the last row is no token.
    pub tokens: Vec<u8>,
    /// A byte per token, or nothing.
    pub weights: Vec<u8>,
    /// Provenance of each row.
    pub segments: Lists<Segment>,
    /// Where the documents of each row end.
    pub documents: Lists<u32>,
}

/// A list for each row.
#[derive(Debug)]
pub struct Lists<T> {
    /// All of them, end to end.
    values: Vec<T>,
    lengths: Vec<usize>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { values: Vec::new(), lengths: Vec::new() }
    }
}

impl<T> Lists<T> {
    /// Moves a row's list here.
    pub fn push_row(&mut self, list: &mut Vec<T>) {
        self.lengths.push(list.len());
        self.values.append(list);
    }

    fn offsets(&self) -> OffsetBuffer<i32> {
        OffsetBuffer::from_lengths(self.lengths.iter().copied())
    }
}

impl Group {
    /// How many there are.
    pub fn rows(&self) -> usize {
        self.segments.lengths.len()
    }

    /// An empty one in the memory of one that is written.
    pub fn in_place_of(written: Vec<Plain>) -> Self {
        let mut buffers = written.into_iter().map(|plain| plain.values);
        let (tokens, mut weights) = (buffers.next().unwrap_or_default(), buffers.next().unwrap_or_default());
        weights.clear();
        Self { tokens, weights, ..Self::default() }
    }

    /// Room for the tokens of the next row, which are so many bytes.
    pub fn next_tokens(&mut self, bytes: usize) -> &mut [u8] {
        let from = self.rows() * bytes;
        if self.tokens.len() < from + bytes {
            self.tokens.resize(from + bytes, 0);
        }
        &mut self.tokens[from..from + bytes]
    }

    /// A row of zeros.
    fn zeros(layout: Layout) -> Self {
        let weights = if layout.weights { layout.context } else { 0 };
        let (tokens, weights) = (vec![0; layout.row_bytes()], vec![0; weights]);
        let mut group = Self { tokens, weights, ..Self::default() };
        group.segments.push_row(&mut Vec::new());
        group.documents.push_row(&mut Vec::new());
        group
    }
}

/// A row group: first the columns that are stored as they are, then the others.
pub struct Encoded {
    /// Tokens, and weights if there are any; none of an archive.
    pub plain: Vec<Plain>,
    /// The other columns, as a Parquet file of their own; its footer is not used.
    pub rest: Vec<u8>,
    /// Where their chunks lie in `rest`.
    pub meta: RowGroupMetaData,
    /// blake3 of the tokens, unless they are compressed.
    pub blake3: Option<String>,
}

/// A chunk of one page whose values are stored as they are.
pub struct Plain {
    /// What stands before the values.
    pub header: Vec<u8>,
    /// The values of all rows.
    pub values: Vec<u8>,
    /// What the footer says of it; where it lies is not known yet.
    pub meta: ColumnChunkMetaData,
}

/// Turns groups into [`Encoded`]; shared by threads.
pub struct Encoder {
    layout: Layout,
    parquet: SchemaDescPtr,
    properties: WriterPropertiesPtr,
    /// The columns that are not stored as they are.
    rest: SchemaRef,
    /// Of a chunk of each of the others, with a row.
    plain: Vec<ColumnChunkMetaData>,
}

impl Encoder {
    pub fn new(layout: Layout) -> Result<Self, ParquetError> {
        let schema = schema(layout)?;
        let parquet = Arc::new(ArrowSchemaConverter::new().convert(&schema)?);
        let properties = Arc::new(properties(layout)?);
        if layout.archive {
            return Ok(Self { layout, parquet, properties, rest: schema, plain: Vec::new() });
        }
        let plain = if layout.weights { 2 } else { 1 };
        let rest = Arc::new(Schema::new(schema.fields().iter().skip(plain).cloned().collect::<Vec<_>>()));
        let all = Self { layout, parquet, properties, rest: schema, plain: Vec::new() };
        let plain = all.through_parquet(all.columns(Group::zeros(layout))?)?.1.columns()[..plain].to_vec();
        Ok(Self { rest, plain, ..all })
    }

    /// The columns as Parquet has them.
    pub fn parquet(&self) -> SchemaDescPtr {
        self.parquet.clone()
    }

    pub fn encode(&self, mut group: Group) -> Result<Encoded, ParquetError> {
        group.tokens.truncate(group.rows() * self.layout.row_bytes());
        let blake3 = (!self.layout.archive).then(|| blake3::hash(&group.tokens).to_hex().to_string());
        let rows = group.rows();
        let values = [&mut group.tokens, &mut group.weights].into_iter().zip(&self.plain);
        let plain = values.map(|(values, like)| Plain::new(std::mem::take(values), rows, like));
        let plain = plain.collect::<Result<_, _>>()?;
        let (rest, meta) = self.through_parquet(self.columns(group)?)?;
        Ok(Encoded { plain, rest, meta, blake3 })
    }

    /// The columns as a file with one row group.
    fn through_parquet(&self, columns: Vec<ArrayRef>) -> Result<(Vec<u8>, RowGroupMetaData), ParquetError> {
        let root = ArrowSchemaConverter::new().convert(&self.rest)?.root_schema_ptr();
        let mut file = SerializedFileWriter::new(Vec::new(), root, self.properties.clone())?;
        let factory = ArrowRowGroupWriterFactory::new(&file, self.rest.clone());
        let mut writers = factory.create_column_writers(0)?.into_iter();
        let mut out = file.next_row_group()?;
        for (field, column) in self.rest.fields().iter().zip(columns) {
            for leaf in compute_leaves(field, &column)? {
                let mut writer =
                    writers.next().ok_or_else(|| ParquetError::General("no writer".to_owned()))?;
                writer.write(&leaf)?;
                writer.close()?.append_to_row_group(&mut out)?;
            }
        }
        let meta = out.close()?.as_ref().clone();
        Ok((file.into_inner()?, meta))
    }

    /// The columns of `rest`.
    fn columns(&self, group: Group) -> Result<Vec<ArrayRef>, ParquetError> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        if self.plain.is_empty() {
            columns.push(fixed(group.tokens, self.layout.row_bytes())?);
        }
        if self.plain.is_empty() && self.layout.weights {
            columns.push(fixed(group.weights, self.layout.context)?);
        }
        columns.push(Arc::new(segments_array(&group.segments)?));
        columns.push(Arc::new(documents_array(&group.documents)?));
        Ok(columns)
    }
}

impl Plain {
    /// A chunk of `rows` values, of the column whose chunks are `like` that one.
    fn new(values: Vec<u8>, rows: usize, like: &ColumnChunkMetaData) -> Result<Self, ParquetError> {
        let header = page_header(values.len(), rows)?;
        let bytes = i64::try_from(header.len() + values.len()).unwrap_or(i64::MAX);
        let meta = like.clone().into_builder().set_num_values(i64::try_from(rows).unwrap_or(i64::MAX));
        let meta = meta.set_total_compressed_size(bytes).set_total_uncompressed_size(bytes).build()?;
        Ok(Self { header, values, meta })
    }
}

/// The header of an uncompressed PLAIN data page of a required column, in Thrift's compact protocol: `PageHeader` and
/// `DataPageHeader` of the Parquet format's `parquet.thrift`.
fn page_header(bytes: usize, rows: usize) -> Result<Vec<u8>, ParquetError> {
    let (data_page, plain, rle, a_struct) = (0, 0, 3, 12);
    let mut header = Vec::with_capacity(32);
    i32_fields(&mut header, &[data_page, bytes, bytes])?;
    // Field 5 comes after field 3.
    header.push(2 << 4 | a_struct);
    i32_fields(&mut header, &[rows, plain, rle, rle])?;
    // Both structs end.
    header.extend([0, 0]);
    Ok(header)
}

/// The first fields of a struct, all of type i32.
fn i32_fields(out: &mut Vec<u8>, values: &[usize]) -> Result<(), ParquetError> {
    const NEXT_I32: u8 = 1 << 4 | 5;
    for &value in values {
        let too_much = |_| ParquetError::General(format!("a page cannot hold {value} values or bytes"));
        // Zigzag doubles what is not negative; seven bits to a byte.
        let mut rest = i32::try_from(value).map_err(too_much)?.cast_unsigned() << 1;
        out.push(NEXT_I32);
        while rest >= 0x80 {
            out.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        out.push(rest.to_le_bytes()[0]);
    }
    Ok(())
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

fn segments_array(rows: &Lists<Segment>) -> Result<ListArray, ParquetError> {
    let all = || rows.values.iter();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(all().map(|s| s.token_start))),
        Arc::new(UInt32Array::from_iter_values(all().map(|s| s.token_end))),
        Arc::new(StringArray::from_iter_values(all().map(|s| &*s.record))),
        Arc::new(StringArray::from_iter_values(all().map(|s| &*s.source))),
        Arc::new(UInt64Array::from_iter_values(all().map(|s| s.start))),
        Arc::new(UInt64Array::from_iter_values(all().map(|s| s.end))),
        Arc::new(StringArray::from_iter_values(all().map(|s| s.strand.symbol()))),
    ];
    let structs = StructArray::try_new(segment_fields(), columns, None)?;
    let element = element(DataType::Struct(segment_fields()));
    Ok(ListArray::try_new(element, rows.offsets(), Arc::new(structs), None)?)
}

fn documents_array(rows: &Lists<u32>) -> Result<ListArray, ParquetError> {
    let values = UInt32Array::from_iter_values(rows.values.iter().copied());
    Ok(ListArray::try_new(element(DataType::UInt32), rows.offsets(), Arc::new(values), None)?)
}
