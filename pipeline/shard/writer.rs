//! Writes the files of a split: row groups are encoded on several threads and written in their order, so that the bytes
//! do not depend on the threads. Memory: two row groups (8 MiB of tokens each, of an archive also their encoded copies) per
//! thread and two more, and the blocks of [`output`](super::output); that of a group that is written serves the next.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::encode::{CREATED_BY, Encoded, Encoder, Group, Plain, rows_per_group};
use super::output::{Disk, Output};
use super::{ALIGNMENT, Error, Page, Segment, ShardFile, Split};
use crate::fs;

/// The magic bytes at both ends of a Parquet file.
pub const MAGIC: &[u8; 4] = b"PAR1";

/// What the rows of a set share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Tokens per row.
    pub context: usize,
    /// Bytes per token: 2 or 4.
    pub token_bytes: usize,
    /// Whether rows have loss weights.
    pub weights: bool,
    /// Whether tokens and weights are compressed.
    pub archive: bool,
}

impl Layout {
    /// Bytes of a row's tokens.
    pub const fn row_bytes(self) -> usize {
        self.context * self.token_bytes
    }
}

/// A row to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Exactly `context` tokens.
    pub tokens: Vec<u32>,
    /// How many of them, at the end, are padding.
    pub padding: usize,
    /// A byte per token where the layout has weights, else nothing.
    pub weights: Vec<u8>,
    /// Where the tokens came from.
    pub segments: Vec<Segment>,
    /// Where its documents end, in tokens; the last is `context`.
    pub documents: Vec<u32>,
}

impl Row {
    /// Empties it and keeps its memory.
    fn clear(&mut self) {
        self.tokens.clear();
        self.weights.clear();
        self.segments.clear();
        self.documents.clear();
        self.padding = 0;
    }
}

/// Writes a split as files of a target size.
pub struct SplitWriter {
    layout: Layout,
    rows_per_file: u64,
    group: Group,
    rows_in_file: u64,
    split: Split,
    pipeline: Option<Pipeline>,
}

impl SplitWriter {
    /// Starts a split whose files hold about `file_bytes` of tokens, encoded by `threads` threads.
    pub fn new(
        folder: &Path,
        name: &str,
        layout: Layout,
        file_bytes: u64,
        threads: usize,
    ) -> Result<Self, Error> {
        let rows_per_file = (file_bytes / layout.row_bytes() as u64).max(1);
        let pipeline = Pipeline::start(folder, name, layout, threads.max(1))?;
        let (group, split) = (Group::default(), Split::default());
        Ok(Self { layout, rows_per_file, group, rows_in_file: 0, split, pipeline: Some(pipeline) })
    }

    /// Appends a row, which is empty afterwards; its memory may serve the next.
    ///
    /// # Panics
    /// When it has not exactly `context` tokens, or weights that the layout does not have.
    pub fn push(&mut self, row: &mut Row) -> Result<(), Error> {
        assert_eq!(row.tokens.len(), self.layout.context, "a row has exactly `context` tokens");
        let weights = if self.layout.weights { self.layout.context } else { 0 };
        assert_eq!(row.weights.len(), weights, "a weight per token, or none at all");
        self.count(row);
        let bytes = self.group.next_tokens(self.layout.row_bytes());
        write_ids(bytes, &row.tokens, self.layout.token_bytes);
        self.group.weights.extend_from_slice(&row.weights);
        self.group.segments.push_row(&mut row.segments);
        self.group.documents.push_row(&mut row.documents);
        row.clear();
        self.rows_in_file += 1;
        let file_is_full = self.rows_in_file == self.rows_per_file;
        if file_is_full || self.group.rows() == rows_per_group(self.layout) {
            self.flush(file_is_full)?;
        }
        Ok(())
    }

    fn count(&mut self, row: &Row) {
        self.split.rows += 1;
        self.split.padding += row.padding as u64;
        self.split.tokens += (row.tokens.len() - row.padding) as u64;
        self.split.bases += row.segments.iter().map(|segment| segment.end - segment.start).sum::<u64>();
    }

    fn flush(&mut self, ends_file: bool) -> Result<(), Error> {
        if ends_file {
            self.rows_in_file = 0;
        }
        let next = self.pipeline.as_ref().map(Pipeline::group).unwrap_or_default();
        let group = std::mem::replace(&mut self.group, next);
        if self.pipeline.as_ref().is_some_and(|pipeline| pipeline.submit(group, ends_file)) {
            return Ok(());
        }
        // The writing thread has given up: it knows why.
        self.pipeline.take().map_or(Ok(()), |pipeline| pipeline.finish().map(drop))
    }

    /// Finishes the last file. A split without rows has one file without rows.
    pub fn finish(mut self) -> Result<Split, Error> {
        if self.rows_in_file > 0 || self.split.rows == 0 {
            self.flush(true)?;
        }
        if let Some(pipeline) = self.pipeline.take() {
            self.split.files = pipeline.finish()?;
        }
        Ok(self.split)
    }
}

/// Writes the low `width` bytes of every token: 2, or 4.
pub fn write_ids(to: &mut [u8], tokens: &[u32], width: usize) {
    if width == 2 {
        let pairs = to.as_chunks_mut::<2>().0.iter_mut().zip(tokens);
        pairs.for_each(|(pair, token)| {
            let [low, high, ..] = token.to_le_bytes();
            *pair = [low, high];
        });
    } else {
        let fours = to.as_chunks_mut::<4>().0.iter_mut().zip(tokens);
        fours.for_each(|(four, token)| *four = token.to_le_bytes());
    }
}

/// A group that some thread encodes, and whether a file ends with it.
struct Job {
    encoded: Receiver<Result<Encoded, ParquetError>>,
    ends_file: bool,
}

/// Threads that encode groups, and one that writes them in the order in which they were submitted.
struct Pipeline {
    encoder: Arc<Encoder>,
    pool: ThreadPool,
    queue: SyncSender<Job>,
    /// What has been written.
    written: Receiver<Vec<Plain>>,
    writer: JoinHandle<Result<Vec<ShardFile>, Error>>,
}

impl Pipeline {
    fn start(folder: &Path, name: &str, layout: Layout, threads: usize) -> Result<Self, Error> {
        let fail = |source| Error::Parquet { action: "write", path: folder.join(name), source };
        let encoder = Arc::new(Encoder::new(layout).map_err(fail)?);
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(std::io::Error::other).map_err(fs::error("start threads for", folder))?;
        // One more than are encoded, so that who packs does not wait for who writes.
        let (queue, jobs) = sync_channel(threads + 1);
        let (giving_back, written) = channel();
        let (folder_of, name) = (folder.to_owned(), name.to_owned());
        let files = Files { folder: folder_of, name, encoder: encoder.clone(), giving_back };
        let writer = std::thread::Builder::new().name("shards".to_owned()).spawn(move || files.write(&jobs));
        let writer = writer.map_err(fs::error("start threads for", folder))?;
        Ok(Self { encoder, pool, queue, written, writer })
    }

    /// An empty group, in memory that has served before if there is some.
    fn group(&self) -> Group {
        self.written.try_recv().map(Group::in_place_of).unwrap_or_default()
    }

    /// Hands a group over, waiting while too many are under way; false when the writing thread has ended.
    fn submit(&self, group: Group, ends_file: bool) -> bool {
        let (sender, encoded) = sync_channel(1);
        let encoder = self.encoder.clone();
        self.pool.spawn(move || {
            // A writing thread that gave up does not wait for it.
            sender.send(encoder.encode(group)).unwrap_or_default();
        });
        self.queue.send(Job { encoded, ends_file }).is_ok()
    }

    fn finish(self) -> Result<Vec<ShardFile>, Error> {
        drop(self.queue);
        self.writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The files of a split, written one after the other.
struct Files {
    folder: PathBuf,
    name: String,
    encoder: Arc<Encoder>,
    giving_back: Sender<Vec<Plain>>,
}

impl Files {
    fn write(&self, jobs: &Receiver<Job>) -> Result<Vec<ShardFile>, Error> {
        let mut files = Vec::new();
        let mut open: Option<FileWriter> = None;
        let disk = Disk::start().map_err(fs::error("start threads for", &self.folder))?;
        for job in jobs {
            let mut file = if let Some(file) = open.take() {
                file
            } else {
                let name = format!("{}-{:05}.parquet", self.name, files.len());
                FileWriter::create(&self.folder, name, &disk)?
            };
            let ended = |_| Err(ParquetError::General("the encoding thread ended".to_owned()));
            let encoded = job.encoded.recv().unwrap_or_else(ended);
            let encoded = encoded.map_err(|source| file.fail(source))?;
            file.append(&encoded, &self.encoder)?;
            // Nobody takes it when the last row has been written.
            self.giving_back.send(encoded.plain).unwrap_or_default();
            if job.ends_file {
                files.push(file.finish(&self.encoder)?);
            } else {
                open = Some(file);
            }
        }
        disk.finish()?;
        Ok(files)
    }
}

/// A file in the making, hashed as it is written.
struct FileWriter<'a> {
    path: PathBuf,
    name: String,
    output: Output<'a>,
    hasher: blake3::Hasher,
    position: u64,
    groups: Vec<RowGroupMetaData>,
    pages: Vec<Page>,
    page_blake3: Vec<String>,
    rows: u64,
}

impl<'a> FileWriter<'a> {
    fn create(folder: &Path, name: String, disk: &'a Disk) -> Result<Self, Error> {
        let path = folder.join(&name);
        let output = Output::create(&path, disk)?;
        let mut file = Self {
            path,
            name,
            output,
            hasher: blake3::Hasher::new(),
            position: 0,
            groups: Vec::new(),
            pages: Vec::new(),
            page_blake3: Vec::new(),
            rows: 0,
        };
        file.write(MAGIC)?;
        Ok(file)
    }

    fn fail(&self, source: ParquetError) -> Error {
        Error::Parquet { action: "write", path: self.path.clone(), source }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.output.write(bytes)?;
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Writes the chunks of a row group; zero bytes before those that are stored as they are align their values.
    fn append(&mut self, encoded: &Encoded, encoder: &Encoder) -> Result<(), Error> {
        let rows = encoded.meta.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let begin = self.position;
        let mut columns = Vec::new();
        let mut values = Vec::new();
        for plain in &encoded.plain {
            let place = self.align(plain.header.len() as u64)?;
            let moved = plain.meta.clone().into_builder().set_data_page_offset(signed(self.position)).build();
            columns.push(moved.map_err(|source| self.fail(source))?);
            self.write(&plain.header)?;
            self.write(&plain.values)?;
            values.push(place);
        }
        for column in encoded.meta.columns() {
            let (start, length) = column.byte_range();
            let shift = signed(self.position) - signed(start);
            self.write(&encoded.rest[index(start)..index(start + length)])?;
            let moved = column
                .clone()
                .into_builder()
                .set_data_page_offset(column.data_page_offset() + shift)
                .set_dictionary_page_offset(column.dictionary_page_offset().map(|offset| offset + shift))
                .build();
            columns.push(moved.map_err(|source| self.fail(source))?);
        }
        let bytes = columns.iter().map(ColumnChunkMetaData::uncompressed_size).sum();
        let group =
            RowGroupMetaData::builder(encoder.parquet()).set_num_rows(rows).set_total_byte_size(bytes);
        let group = group.set_column_metadata(columns).set_file_offset(signed(begin));
        let group = group.set_ordinal(ordinal(self.groups.len())).build();
        self.groups.push(group.map_err(|source| self.fail(source))?);
        let rows = u64::try_from(rows).unwrap_or_default();
        if let Some(&offset) = values.first() {
            self.pages.push(Page { offset, rows, weights_offset: values.get(1).copied() });
        }
        self.page_blake3.extend(encoded.blake3.clone());
        self.rows += rows;
        Ok(())
    }

    /// Writes zero bytes so that what comes after a header of `header` bytes is aligned; returns where that will be.
    fn align(&mut self, header: u64) -> Result<u64, Error> {
        let padding = (ALIGNMENT - (self.position + header) % ALIGNMENT) % ALIGNMENT;
        self.write(&[0; 64][..index(padding)])?;
        Ok(self.position + header)
    }

    fn finish(mut self, encoder: &Encoder) -> Result<ShardFile, Error> {
        let created_by = Some(CREATED_BY.to_owned());
        let meta = FileMetaData::new(1, signed(self.rows), created_by, None, encoder.parquet(), None);
        let meta = ParquetMetaData::new(meta, std::mem::take(&mut self.groups));
        let mut footer = Vec::new();
        let written = ParquetMetaDataWriter::new(&mut footer, &meta).finish();
        written.map_err(|source| self.fail(source))?;
        self.write(&footer)?;
        self.output.finish()?;
        Ok(ShardFile {
            path: self.name,
            rows: self.rows,
            bytes: self.position,
            blake3: self.hasher.finalize().to_hex().to_string(),
            pages: self.pages,
            page_blake3: self.page_blake3,
        })
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn ordinal(group: usize) -> i32 {
    i32::try_from(group).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{PLAIN, rows};
    use super::*;

    #[test]
    fn the_bytes_do_not_depend_on_the_threads() {
        let layout = Layout { context: 8192, weights: true, ..PLAIN };
        let rows: Vec<Row> = rows(layout, 16);
        let write = |threads| {
            let folder = tempfile::tempdir().unwrap();
            // A group holds 512 rows, a file 700: two groups.
            let mut writer = SplitWriter::new(folder.path(), "train", layout, 700 * 16384, threads).unwrap();
            (0..1500).for_each(|number| writer.push(&mut rows[number % 16].clone()).unwrap());
            writer.finish().unwrap()
        };
        let one = write(1);
        let shape: Vec<(u64, usize)> = one.files.iter().map(|file| (file.rows, file.pages.len())).collect();
        assert_eq!(shape, [(700, 2), (700, 2), (100, 1)]);
        assert_eq!([write(2), write(5)], [one.clone(), one]);
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap().path().to_owned();
        let mut writer = SplitWriter::new(&folder, "train", PLAIN, 128, 1).unwrap();
        let row = rows(PLAIN, 1).remove(0);
        let result = (0..100).try_for_each(|_| writer.push(&mut row.clone()));
        let error = result.and_then(|()| writer.finish().map(drop)).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot create `") && error.ends_with("no such file or directory"),
            "{error}"
        );
    }

    #[test]
    fn a_split_without_rows_has_a_file_without_rows() {
        let folder = tempfile::tempdir().unwrap();
        let split = SplitWriter::new(folder.path(), "train", PLAIN, 1, 1).unwrap().finish().unwrap();
        assert_eq!((split.rows, split.files.len(), split.files[0].rows), (0, 1, 0));
    }
}
