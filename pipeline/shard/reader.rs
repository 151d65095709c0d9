//! Opens a shard set: reads the manifest, maps the files, checks sizes and bounds. No token is read at opening.
//!
//! Files are mapped read-only. A file that another process cuts short under a running reader ends it with a bus error; one
//! that is rewritten in place gives other tokens. Published artifacts are never changed in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, StructArray};
use arrow::datatypes::{UInt32Type, UInt64Type};
use memmap2::Mmap;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{ALIGNMENT, Details, Error, SCHEMA, Segment, ShardFile};
use crate::artifact::Artifact;
use crate::fs;
use crate::tokenizer::{self, Tokenizer};
use crate::units::Strand;

/// The tokens of a row, borrowed from the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens<'a> {
    /// Vocabularies up to 65,536.
    U16(&'a [u16]),
    /// Larger ones.
    U32(&'a [u32]),
}

impl Tokens<'_> {
    /// The ids as `u32`.
    pub fn to_vec(self) -> Vec<u32> {
        match self {
            Self::U16(tokens) => tokens.iter().map(|&t| u32::from(t)).collect(),
            Self::U32(tokens) => tokens.to_vec(),
        }
    }
}

/// An open shard set.
#[derive(Debug)]
pub struct ShardSet {
    /// Its folder.
    pub folder: PathBuf,
    /// What its manifest says.
    pub details: Details,
}

impl ShardSet {
    /// Opens a folder by its manifest.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        Self::from_artifact(&Artifact::open(folder)?)
    }

    /// The shard set that an artifact holds.
    pub fn from_artifact(artifact: &Artifact) -> Result<Self, Error> {
        let folder = artifact.folder.clone();
        let wrong = |reason: String| Error::NotShards { path: folder.clone(), reason };
        let kind = &artifact.manifest.kind;
        if kind != "shard" {
            return Err(wrong(format!("it is an artifact of kind `{kind}`")));
        }
        let schema = artifact.manifest.details.get("schema").and_then(|s| s.as_str()).unwrap_or("none");
        if schema != SCHEMA {
            return Err(wrong(format!("its schema is `{schema}`, expected `{SCHEMA}`")));
        }
        let details = serde_json::from_value(artifact.manifest.details.clone());
        let details = details.map_err(|e| wrong(format!("its manifest is incomplete: {e}")))?;
        Ok(Self { folder, details })
    }

    /// The tokenizer that made the tokens.
    pub fn tokenizer(&self) -> Result<Box<dyn Tokenizer>, tokenizer::Error> {
        tokenizer::open(&self.folder.join(&self.details.tokenizer))
    }

    /// Maps the rows of a split.
    pub fn rows(&self, split: &str) -> Result<Rows, Error> {
        let found = self.details.splits.get(split).ok_or_else(|| Error::UnknownSplit {
            path: self.folder.clone(),
            found: split.to_owned(),
            available: self.details.splits.keys().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", "),
        })?;
        let row_bytes = self.details.context * self.details.token_bytes;
        let mut pages = BTreeMap::new();
        let mut files = Vec::new();
        let mut first = 0;
        for entry in &found.files {
            let map = map(&self.folder.join(&entry.path), entry, row_bytes as u64)?;
            for page in &entry.pages {
                pages.insert(first, (files.len(), page.offset));
                first += page.rows;
            }
            files.push(map);
        }
        let rows = Rows {
            files,
            pages,
            count: first,
            context: self.details.context,
            wide: self.details.token_bytes == 4,
        };
        Ok(rows)
    }

    /// Where the tokens of each row of a file came from.
    pub fn segments(&self, file: &ShardFile) -> Result<Vec<Vec<Segment>>, Error> {
        let path = self.folder.join(&file.path);
        let fail = |source| Error::Parquet { action: "read", path: path.clone(), source };
        let builder = ParquetRecordBatchReaderBuilder::try_new(fs::open(&path)?).map_err(fail)?;
        let roots = ProjectionMask::roots(builder.parquet_schema(), [1]);
        let reader = builder.with_projection(roots).build().map_err(fail)?;
        let mut rows = Vec::new();
        for batch in reader {
            let batch = batch.map_err(|e| fail(e.into()))?;
            let lists = batch.column(0).as_list::<i32>();
            rows.extend((0..lists.len()).map(|i| segments(lists.value(i).as_struct())));
        }
        Ok(rows)
    }
}

fn segments(structs: &StructArray) -> Vec<Segment> {
    let u32s = |i: usize| structs.column(i).as_primitive::<UInt32Type>();
    let u64s = |i: usize| structs.column(i).as_primitive::<UInt64Type>();
    let text = |i: usize, row: usize| structs.column(i).as_string::<i32>().value(row).to_owned();
    let segment = |row: usize| Segment {
        token_start: u32s(0).value(row),
        token_end: u32s(1).value(row),
        record: text(2, row),
        source: text(3, row),
        start: u64s(4).value(row),
        end: u64s(5).value(row),
        strand: if text(6, row) == "-" { Strand::Reverse } else { Strand::Forward },
    };
    (0..structs.len()).map(segment).collect()
}

/// Maps a file after comparing its size, its magic bytes and its pages with the manifest.
fn map(path: &Path, entry: &ShardFile, row_bytes: u64) -> Result<Mmap, Error> {
    let file = File::open(path).map_err(fs::error("open", path))?;
    let bytes = file.metadata().map_err(fs::error("read", path))?.len();
    let damaged = |offset, reason| Error::Damaged { path: path.to_owned(), offset, reason };
    if bytes != entry.bytes {
        return Err(damaged(
            bytes.min(entry.bytes),
            format!("it has {bytes} bytes, its manifest says {}", entry.bytes),
        ));
    }
    for page in &entry.pages {
        let end = page.rows.checked_mul(row_bytes).and_then(|length| length.checked_add(page.offset));
        if end.is_none_or(|end| end > bytes) || page.offset % ALIGNMENT != 0 {
            return Err(damaged(
                page.offset,
                format!("a page of {} rows does not lie within the file's {bytes} bytes", page.rows),
            ));
        }
    }
    // SAFETY: the map is read-only and its file is a published artifact, which nobody changes in place (see above).
    let map = unsafe { Mmap::map(&file) }.map_err(fs::error("map", path))?;
    if !map.starts_with(b"PAR1") || !map.ends_with(b"PAR1") {
        return Err(damaged(0, "it does not start and end with `PAR1`".to_owned()));
    }
    Ok(map)
}

/// The mapped rows of a split.
#[derive(Debug)]
pub struct Rows {
    files: Vec<Mmap>,
    /// First row of a page -> its file and the page's offset there.
    pages: BTreeMap<u64, (usize, u64)>,
    count: u64,
    context: usize,
    wide: bool,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Tokens per row.
    pub fn context(&self) -> usize {
        self.context
    }

    /// A row, straight from the map.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn get(&self, row: u64) -> Tokens<'_> {
        let bytes = self.bytes(row);
        if self.wide { Tokens::U32(cast(bytes)) } else { Tokens::U16(cast(bytes)) }
    }

    fn bytes(&self, row: u64) -> &[u8] {
        assert!(row < self.count, "row {row} of {}", self.count);
        let row_bytes = self.context * if self.wide { 4 } else { 2 };
        let page = self.pages.range(..=row).next_back();
        let (first, (file, offset)) = page.expect("pages cover every row");
        let start = usize::try_from(offset + (row - first) * row_bytes as u64).expect("checked at opening");
        &self.files[*file][start..start + row_bytes]
    }
}

/// Views little-endian bytes as integers.
fn cast<T: Copy>(bytes: &[u8]) -> &[T] {
    const { assert!(cfg!(target_endian = "little"), "shards are little-endian") };
    // SAFETY: T is u16 or u32, for which every bit pattern is valid; alignment is checked by `align_to`.
    let (before, values, after) = unsafe { bytes.align_to::<T>() };
    assert!(before.is_empty() && after.is_empty(), "pages are aligned, rows are whole");
    values
}
