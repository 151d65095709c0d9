//! Opens a shard set: reads the manifest, maps the files, checks sizes and bounds. No token is read at opening.
//!
//! An archive's rows are unpacked into an unnamed temporary file when a split is opened, and that is mapped.
//!
//! Files are mapped read-only. A file that another process cuts short under a running reader ends it with a bus error; one
//! that is rewritten in place gives other tokens. Published artifacts are never changed in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::writer::MAGIC;
use super::{
    ALIGNMENT, ARCHIVE, Details, Error, KINDS, MAPPED, Page, SCHEMA, ShardFile, Split, archive, contexts,
};
use crate::artifact::Artifact;
use crate::fs;
use crate::tokenizer::{self, Tokenizer};

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
        if !KINDS.contains(&kind.as_str()) {
            return Err(wrong(format!("it is an artifact of kind `{kind}`")));
        }
        if let Some(several) = contexts::several(artifact) {
            return Err(wrong(contexts::unnamed(&several, &folder)));
        }
        let schema = artifact.manifest.details.get("schema").and_then(|s| s.as_str()).unwrap_or("none");
        if schema != SCHEMA {
            return Err(wrong(format!("its schema is `{schema}`, expected `{SCHEMA}`")));
        }
        let details = serde_json::from_value(artifact.manifest.details.clone());
        let details: Details = details.map_err(|e| wrong(format!("its manifest is incomplete: {e}")))?;
        possible(&details).map_err(wrong)?;
        Ok(Self { folder, details })
    }

    /// The tokenizer that made the tokens; another one in its place is refused.
    pub fn tokenizer(&self) -> Result<Box<dyn Tokenizer>, tokenizer::Error> {
        let path = self.folder.join(&self.details.tokenizer);
        let tokenizer = tokenizer::open(&path)?;
        let found = tokenizer.fingerprint().to_hex().to_string();
        if found == self.details.tokenizer_fingerprint {
            return Ok(tokenizer);
        }
        let expected = format!("{}, the one that made the shards", self.details.tokenizer_fingerprint);
        let source = tokenizer::Error::Field { field: "fingerprint".to_owned(), found, expected };
        Err(tokenizer::Error::File { path, source: Box::new(source) })
    }

    /// What the manifest says of a split.
    pub fn split(&self, split: &str) -> Result<&Split, Error> {
        self.details.splits.get(split).ok_or_else(|| Error::UnknownSplit {
            path: self.folder.clone(),
            found: split.to_owned(),
            available: self.details.splits.keys().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", "),
        })
    }

    /// The files of all splits.
    pub fn files(&self) -> impl Iterator<Item = &ShardFile> {
        self.details.splits.values().flat_map(|split| &split.files)
    }

    /// Maps the rows of a split.
    pub fn rows(&self, split: &str) -> Result<Rows, Error> {
        self.rows_of(&self.split(split)?.files)
    }

    /// Maps the rows of some files.
    pub(super) fn rows_of(&self, files: &[ShardFile]) -> Result<Rows, Error> {
        let mut rows = Rows {
            files: Vec::new(),
            pages: BTreeMap::new(),
            count: 0,
            context: self.details.context,
            wide: self.details.token_bytes == 4,
        };
        for entry in files {
            rows.add(map(&self.folder.join(&entry.path), entry, &self.details)?);
        }
        Ok(rows)
    }
}

/// Whether rows of such a shape can be read at all; the error says why not.
fn possible(details: &Details) -> Result<(), String> {
    if ![MAPPED, ARCHIVE].contains(&details.profile.as_str()) {
        return Err(format!("its profile is `{}`, expected `{MAPPED}` or `{ARCHIVE}`", details.profile));
    }
    if details.context == 0 || ![2, 4].contains(&details.token_bytes) {
        let (context, bytes) = (details.context, details.token_bytes);
        return Err(format!("its rows are {context} tokens of {bytes} bytes, expected 2 or 4 bytes"));
    }
    Ok(())
}

/// A file whose rows can be borrowed.
pub(super) struct Mapped {
    pub bytes: Mmap,
    pub pages: Vec<Page>,
}

/// Maps a file after comparing its size, its magic bytes and its pages with the manifest.
fn map(path: &Path, entry: &ShardFile, details: &Details) -> Result<Mapped, Error> {
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
        check_page(page, bytes, details).map_err(|reason| damaged(page.offset, reason))?;
    }
    // SAFETY: the map is read-only and its file is a published artifact, which nobody changes in place (see above).
    let map = unsafe { Mmap::map(&file) }.map_err(fs::error("map", path))?;
    if !map.starts_with(MAGIC) || !map.ends_with(MAGIC) {
        return Err(damaged(0, "it does not start and end with `PAR1`".to_owned()));
    }
    let rows: u64 = entry.pages.iter().map(|page| page.rows).sum();
    if details.profile == ARCHIVE {
        return archive::unpack(path, entry, details);
    }
    if rows != entry.rows {
        return Err(damaged(0, format!("its pages hold {rows} rows, its manifest says {}", entry.rows)));
    }
    Ok(Mapped { bytes: map, pages: entry.pages.clone() })
}

/// Whether the rows of a page lie within a file of `bytes` bytes; the error says why not.
fn check_page(page: &Page, bytes: u64, details: &Details) -> Result<(), String> {
    let fits = |offset: u64, width: usize| {
        let end = page.rows.checked_mul(width as u64).and_then(|length| length.checked_add(offset));
        end.is_some_and(|end| end <= bytes) && offset.is_multiple_of(ALIGNMENT)
    };
    if !fits(page.offset, details.row_bytes()) {
        return Err(format!("a page of {} rows does not lie within the file's {bytes} bytes", page.rows));
    }
    match (page.weights_offset, &details.loss_weights) {
        (None, None) => Ok(()),
        (Some(offset), Some(_)) if fits(offset, details.context) => Ok(()),
        (Some(offset), Some(_)) => {
            Err(format!("its weights at byte {offset} do not lie within the file's {bytes} bytes"))
        }
        (found, _) => Err(format!(
            "its page has {} weights, the set has {}",
            if found.is_some() { "loss" } else { "no" },
            if details.loss_weights.is_some() { "some" } else { "none" }
        )),
    }
}

/// The mapped rows of a split.
#[derive(Debug)]
pub struct Rows {
    files: Vec<Mmap>,
    /// First row of a page -> its file and the page there.
    pages: BTreeMap<u64, (usize, Page)>,
    count: u64,
    context: usize,
    wide: bool,
}

impl Rows {
    fn add(&mut self, file: Mapped) {
        for page in file.pages.into_iter().filter(|page| page.rows > 0) {
            self.pages.insert(self.count, (self.files.len(), page));
            self.count += page.rows;
        }
        self.files.push(file.bytes);
    }

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
        let bytes = self.token_bytes(row);
        if self.wide { Tokens::U32(cast(bytes)) } else { Tokens::U16(cast(bytes)) }
    }

    /// The bytes of a row's tokens.
    pub(super) fn token_bytes(&self, row: u64) -> &[u8] {
        let width = self.context * if self.wide { 4 } else { 2 };
        self.bytes(row, width, |page| Some(page.offset)).unwrap_or_default()
    }

    /// Where a row's tokens begin in what is mapped, in bytes.
    pub(super) fn offset(&self, row: u64) -> u64 {
        let width = self.context as u64 * if self.wide { 4 } else { 2 };
        let page = self.pages.range(..=row).next_back();
        page.map_or(0, |(first, (_, page))| page.offset + (row - first) * width)
    }

    /// The loss weights of a row, a byte per token; none when the set has none.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn weights(&self, row: u64) -> Option<&[u8]> {
        self.bytes(row, self.context, |page| page.weights_offset)
    }

    /// The `width` bytes of a row in the page's values that begin at `offset`.
    fn bytes(&self, row: u64, width: usize, offset: impl Fn(&Page) -> Option<u64>) -> Option<&[u8]> {
        assert!(row < self.count, "row {row} of {}", self.count);
        let (first, (file, page)) = self.pages.range(..=row).next_back().expect("pages cover every row");
        let start = offset(page)? + (row - first) * width as u64;
        let start = usize::try_from(start).expect("checked at opening");
        Some(&self.files[*file][start..start + width])
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::fixture::{PLAIN, publish, rows};
    use super::*;

    type Damage = fn(&Path);

    fn edit(folder: &Path, change: impl Fn(&mut Value)) {
        let path = folder.join("manifest.json");
        let mut manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        std::fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    }

    fn shard(folder: &Path) -> PathBuf {
        folder.join("train-00000.parquet")
    }

    fn resize(folder: &Path, bytes: u64) {
        std::fs::File::options().write(true).open(shard(folder)).unwrap().set_len(bytes).unwrap();
    }

    /// What needs no reading of tokens is refused at opening: of a folder whose file has 50 rows of 128 bytes.
    #[test]
    fn opening_refuses_what_it_can_see_cheaply() {
        fn page(folder: &Path, change: impl Fn(&mut Value)) {
            edit(folder, |manifest| change(&mut manifest["details"]["splits"]["train"]["files"][0]));
        }
        let cases: [(&str, Damage, &str); 13] = [
            (
                "no manifest",
                |folder| std::fs::remove_file(folder.join("manifest.json")).unwrap(),
                "is no artifact",
            ),
            (
                "cut manifest",
                |folder| std::fs::write(folder.join("manifest.json"), "{\"sch").unwrap(),
                "cannot read",
            ),
            (
                "newer artifact",
                |folder| edit(folder, |manifest| manifest["schema"] = "genomill/artifact/2".into()),
                "its schema is `genomill/artifact/2`, this genomill reads `genomill/artifact/1`",
            ),
            (
                "newer shards",
                |folder| edit(folder, |manifest| manifest["details"]["schema"] = "genomill/shard/2".into()),
                "its schema is `genomill/shard/2`, expected `genomill/shard/1`",
            ),
            (
                "other profile",
                |folder| edit(folder, |manifest| manifest["details"]["profile"] = "woven".into()),
                "its profile is `woven`, expected `mapped` or `archive`",
            ),
            ("missing file", |folder| std::fs::remove_file(shard(folder)).unwrap(), "train-00000.parquet"),
            (
                "cut file",
                |folder| resize(folder, 1000),
                "damaged at byte 1000: it has 1000 bytes, its manifest says",
            ),
            (
                "empty file",
                |folder| resize(folder, 0),
                "damaged at byte 0: it has 0 bytes, its manifest says",
            ),
            ("grown file", |folder| resize(folder, 99_999), "it has 99999 bytes, its manifest says"),
            (
                "no Parquet",
                |folder| {
                    let bytes = std::fs::metadata(shard(folder)).unwrap().len();
                    std::fs::write(shard(folder), vec![0; usize::try_from(bytes).unwrap()]).unwrap();
                },
                "damaged at byte 0: it does not start and end with `PAR1`",
            ),
            (
                "page beyond the end",
                |folder| page(folder, |file| file["pages"][0]["rows"] = u64::MAX.into()),
                "damaged at byte 64: a page of 18446744073709551615 rows does not lie within",
            ),
            (
                "page beside the alignment",
                |folder| page(folder, |file| file["pages"][0]["offset"] = 66.into()),
                "damaged at byte 66: a page of 50 rows does not lie within",
            ),
            (
                "rows that no page holds",
                |folder| page(folder, |file| file["rows"] = 51.into()),
                "its pages hold 50 rows, its manifest says 51",
            ),
        ];
        for (name, damage, expected) in cases {
            let work = tempfile::tempdir().unwrap();
            let folder = publish(work.path(), PLAIN, rows(PLAIN, 50), 1 << 20).folder;
            assert_eq!(ShardSet::open(&folder).and_then(|set| set.rows("train")).unwrap().len(), 50);
            damage(&folder);
            let error = ShardSet::open(&folder).and_then(|set| set.rows("train")).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    /// As a rerun of the stage does it.
    #[test]
    fn a_folder_that_is_replaced_stays_what_it_was_for_its_readers() {
        let work = tempfile::tempdir().unwrap();
        let before = rows(PLAIN, 50);
        let folder = publish(work.path(), PLAIN, before.clone(), 1 << 20).folder;
        let open = ShardSet::open(&folder).unwrap().rows("train").unwrap();
        publish(work.path(), PLAIN, rows(PLAIN, 7), 1 << 20);
        assert_eq!(ShardSet::open(&folder).unwrap().rows("train").unwrap().len(), 7);
        assert!((0..).zip(&before).all(|(row, before)| open.get(row).to_vec() == before.tokens));
    }

    #[test]
    fn a_flipped_byte_is_seen_by_those_who_ask_for_all() {
        let work = tempfile::tempdir().unwrap();
        let folder = publish(work.path(), PLAIN, rows(PLAIN, 50), 1 << 20).folder;
        assert_eq!(super::super::verify::open(&folder).unwrap().rows("train").unwrap().len(), 50);
        let mut bytes = std::fs::read(shard(&folder)).unwrap();
        bytes[64 + 300] ^= 1;
        std::fs::write(shard(&folder), bytes).unwrap();
        assert!(ShardSet::open(&folder).unwrap().rows("train").is_ok());
        let error = super::super::verify::open(&folder).unwrap_err().to_string();
        assert!(error.contains("damaged at byte 64: the tokens of rows 0 to 49 differ"), "{error}");
    }
}
