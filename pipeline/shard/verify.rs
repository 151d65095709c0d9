//! Checks a shard set through and through: sizes, hashes, row counts, tokens within the vocabulary, provenance. Memory: the
//! provenance of a row and the map, on every thread; files are read side by side.

use std::path::Path;

use rayon::prelude::*;

use super::{Error, LossWeights, Rows, Segment, ShardFile, ShardSet, Split, contexts};
use crate::artifact::{Artifact, Hashes, MANIFEST};
use crate::tokenizer::Tokenizer;

/// What was checked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Files whose hash is right.
    pub files: usize,
    /// Rows read.
    pub rows: u64,
    /// Tokens below the vocabulary's size.
    pub tokens: u64,
    /// Bases that these tokens stand for.
    pub bases: u64,
}

impl Checked {
    fn add(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            rows: self.rows + other.rows,
            tokens: self.tokens + other.tokens,
            bases: self.bases + other.bases,
        }
    }
}

/// Opens a shard set after reading every byte of it, where [`ShardSet::open`] compares sizes and bounds alone.
pub fn open(folder: &Path) -> Result<ShardSet, Error> {
    let artifact = Artifact::open(folder)?;
    verify(&artifact)?;
    ShardSet::from_artifact(&artifact)
}

/// Reads every byte of a shard set and reports the first thing that is not as the manifest says.
pub fn verify(artifact: &Artifact) -> Result<Checked, Error> {
    let (checked, faults) = inspect(artifact)?;
    faults.into_iter().next().map_or(Ok(checked), Err)
}

/// Reads every byte of a shard set, or of the sets of several contexts, and reports what is not as the manifest says, the
/// first fault of each file.
///
/// # Errors
/// When the manifest cannot be used at all.
pub fn inspect(artifact: &Artifact) -> Result<(Checked, Vec<Error>), Error> {
    let Some(several) = contexts::several(artifact) else { return inspect_set(artifact) };
    let (mut checked, mut faults) = (Checked::default(), Vec::new());
    for entry in artifact.manifest.files.iter().filter(|entry| entry.path.ends_with(MANIFEST)) {
        faults.extend(artifact.verify_file(entry, &Hashes::default()).err().map(Error::from));
    }
    for context in several {
        match contexts::choose(artifact, Some(context)).and_then(|set| inspect_set(&set)) {
            Ok((found, wrong)) => {
                checked = checked.add(found);
                faults.extend(wrong);
            }
            Err(error) => faults.push(error),
        }
    }
    Ok((checked, faults))
}

fn inspect_set(artifact: &Artifact) -> Result<(Checked, Vec<Error>), Error> {
    let set = ShardSet::from_artifact(artifact)?;
    let (mut checked, mut faults) = (Checked::default(), Vec::new());
    let tokenizer = set.tokenizer().map_err(|error| faults.push(error.into())).ok();
    let inspect = Inspect { artifact, set: &set, tokenizer: tokenizer.as_deref() };
    for (name, split) in &set.details.splits {
        let results = split.files.par_iter().map(|file| inspect.file(file)).collect::<Vec<_>>();
        let (found, wrong): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let sum = found.into_iter().flatten().fold(Checked::default(), Checked::add);
        if wrong.is_empty() {
            faults.extend(inspect.totals(name, split, sum).err());
        }
        faults.extend(wrong.into_iter().filter_map(Result::err));
        checked = checked.add(sum);
    }
    let shards: Vec<&str> = set.files().map(|file| file.path.as_str()).collect();
    for entry in artifact.manifest.files.iter().filter(|entry| !shards.contains(&entry.path.as_str())) {
        match artifact.verify_file(entry, &Hashes::default()) {
            Ok(()) => checked.files += 1,
            Err(error) => faults.push(error.into()),
        }
    }
    Ok((checked, faults))
}

struct Inspect<'a> {
    artifact: &'a Artifact,
    set: &'a ShardSet,
    tokenizer: Option<&'a dyn Tokenizer>,
}

impl Inspect<'_> {
    fn file(&self, file: &ShardFile) -> Result<Checked, Error> {
        let path = self.set.folder.join(&file.path);
        if !path.exists() {
            let reason = "it is missing".to_owned();
            return Err(Error::Damaged { path, offset: 0, reason });
        }
        let rows = self.set.rows_of(std::slice::from_ref(file)).map_err(|error| self.swapped(file, error))?;
        self.pages(file, &rows)?;
        self.hash(file)?;
        let bases = self.rows(file, &rows)?;
        self.documents(file, rows.context())?;
        Ok(Checked { files: 1, rows: rows.len(), tokens: rows.len() * rows.context() as u64, bases })
    }

    fn damaged(&self, file: &ShardFile, offset: u64, reason: String) -> Error {
        Error::Damaged { path: self.set.folder.join(&file.path), offset, reason }
    }

    /// The hash of each page tells where a file differs.
    fn pages(&self, file: &ShardFile, rows: &Rows) -> Result<(), Error> {
        let mut first = 0;
        for (page, expected) in file.pages.iter().zip(&file.page_blake3) {
            let mut hasher = blake3::Hasher::new();
            for row in first..first + page.rows {
                hasher.update(rows.token_bytes(row));
            }
            if hasher.finalize().to_hex().as_str() != expected {
                let last = first + page.rows;
                let reason =
                    format!("the tokens of rows {first} to {} differ from those that were written", last - 1);
                return Err(self.swapped(file, self.damaged(file, page.offset, reason)));
            }
            first += page.rows;
        }
        Ok(())
    }

    fn hash(&self, file: &ShardFile) -> Result<(), Error> {
        let found = Hashes::default().of(&self.set.folder.join(&file.path))?;
        let entry = self.artifact.manifest.files.iter().find(|entry| entry.path == file.path);
        if found == file.blake3 && entry.is_none_or(|entry| entry.blake3 == file.blake3) {
            return Ok(());
        }
        let after =
            file.pages.last().map_or(0, |page| page.offset + page.rows * self.set.details.row_bytes() as u64);
        let place = if file.page_blake3.is_empty() {
            ""
        } else {
            "; its tokens are right, what differs lies beside them"
        };
        let reason = format!("its blake3 is {found}, its manifest says {}{place}", file.blake3);
        Err(self.swapped(file, self.damaged(file, after, reason)))
    }

    /// Says so when a damaged file holds what another one should hold.
    fn swapped(&self, file: &ShardFile, error: Error) -> Error {
        let found = Hashes::default().of(&self.set.folder.join(&file.path)).unwrap_or_default();
        let other = self.set.files().find(|other| other.blake3 == found && other.path != file.path);
        other.map_or(error, |other| {
            self.damaged(
                file,
                0,
                format!("it holds what `{}` should hold: were the two swapped?", other.path),
            )
        })
    }

    /// Checks the rows of a file one by one; returns the bases that they stand for.
    fn rows(&self, file: &ShardFile, rows: &Rows) -> Result<u64, Error> {
        let (mut count, mut bases) = (0, 0);
        self.set.for_each_row(file, |row, segments| {
            let wrong = |(token, reason): (usize, String)| {
                let offset = file
                    .pages
                    .first()
                    .map_or(0, |_| rows.offset(row) + (token * self.set.details.token_bytes) as u64);
                self.damaged(file, offset, format!("row {row} {reason}"))
            };
            if row >= rows.len() {
                return Err(wrong((0, format!("is one too many, the manifest says {}", rows.len()))));
            }
            let tokens = rows.get(row).to_vec();
            self.tokens(&tokens).map_err(wrong)?;
            self.segments(&segments, &tokens).map_err(wrong)?;
            check_weights(rows.weights(row)).map_err(wrong)?;
            count += 1;
            bases += segments.iter().map(|segment| segment.interval().len()).sum::<u64>();
            Ok(())
        })?;
        if count == rows.len() {
            return Ok(bases);
        }
        Err(self.damaged(
            file,
            0,
            format!("it has provenance for {count} rows, its manifest says {}", file.rows),
        ))
    }

    /// Documents ascend and the last one ends with the row.
    fn documents(&self, file: &ShardFile, context: usize) -> Result<(), Error> {
        self.set.for_each_documents(file, |row, ends| {
            let ascend =
                ends.windows(2).all(|pair| pair[0] < pair[1]) && ends.first().is_some_and(|&end| end > 0);
            if ascend && ends.last().is_some_and(|&end| end as usize == context) {
                return Ok(());
            }
            let reason = format!(
                "row {row} says that its documents end at {ends:?}, expected ascending up to {context}"
            );
            Err(self.damaged(file, 0, reason))
        })
    }

    fn tokens(&self, tokens: &[u32]) -> Result<(), (usize, String)> {
        let size = self.set.details.vocabulary_size;
        match tokens.iter().position(|&token| token >= size) {
            Some(at) => Err((at, format!("holds token {} at {at}, the vocabulary has {size}", tokens[at]))),
            None => Ok(()),
        }
    }

    /// Segments ascend, do not overlap, and are as long as what their tokens spell.
    fn segments(&self, segments: &[Segment], tokens: &[u32]) -> Result<(), (usize, String)> {
        let mut last = 0;
        for s in segments {
            let at = s.token_start as usize;
            let says = format!(
                "says that its tokens {}-{} are {}:{}-{}",
                s.token_start, s.token_end, s.record, s.start, s.end
            );
            if s.token_start < last || s.token_end <= s.token_start || s.token_end as usize > tokens.len() {
                return Err((
                    at.min(tokens.len()),
                    format!("{says}, which do not follow those before, up to {last}"),
                ));
            }
            if s.end < s.start {
                return Err((at, format!("{says}, which ends before it starts")));
            }
            let spelled = &tokens[at..s.token_end as usize];
            if let Some(found) = self.tokenizer.and_then(|tokenizer| other_length(tokenizer, spelled, s)) {
                return Err((at, format!("{says}, but they spell {found} bases")));
            }
            last = s.token_end;
        }
        Ok(())
    }

    fn totals(&self, name: &str, split: &Split, sum: Checked) -> Result<(), Error> {
        let slots = split.tokens + split.padding;
        let pairs = [
            ("rows", sum.rows, split.rows),
            ("bases", sum.bases, split.bases),
            ("tokens and padding", sum.tokens, slots),
        ];
        let wrong = pairs.into_iter().find(|(_, found, expected)| found != expected);
        wrong.map_or(Ok(()), |(what, found, expected)| {
            let reason =
                format!("split `{name}` has {found} {what} in its files, its manifest says {expected}");
            Err(Error::NotShards { path: self.set.folder.clone(), reason })
        })
    }
}

fn check_weights(weights: Option<&[u8]>) -> Result<(), (usize, String)> {
    let largest = LossWeights::ONE;
    match weights.and_then(|weights| weights.iter().position(|&weight| weight > largest)) {
        Some(at) => Err((at, format!("has a loss weight above {largest} at {at}"))),
        None => Ok(()),
    }
}

/// The bases that tokens spell, if they are not as many as their segment has. Where a window goes on from another row,
/// the first of overlapping k-mers adds one base only.
fn other_length(tokenizer: &dyn Tokenizer, tokens: &[u32], segment: &Segment) -> Option<u64> {
    let expected = segment.interval().len();
    let found = tokenizer.bases_of(tokens);
    let each: u64 = tokens.iter().map(|&token| u64::from(tokenizer.bases(token))).sum();
    (found != expected && each != expected).then_some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::fixture::{PLAIN, publish, rows};
    use super::super::{Layout, Row};
    use super::*;
    use crate::tokenizer::kmer::{Config, Kmer};

    /// Three files: rows 0-19, 20-39 and 40-49.
    fn set(work: &Path, layout: Layout, rows: Vec<Row>) -> Artifact {
        publish(work, layout, rows, 20 * layout.row_bytes() as u64)
    }

    fn flip(path: &Path, at: u64) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[usize::try_from(at).unwrap()] ^= 0x40;
        std::fs::write(path, bytes).unwrap();
    }

    fn edit(folder: &Path, change: impl Fn(&mut Value)) {
        let path = folder.join("manifest.json");
        let mut manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        std::fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    }

    /// Every fault of the set in `folder`, or the one that keeps it from being opened.
    fn faults(folder: &Path) -> Vec<String> {
        let inspected = Artifact::open(folder).map_err(Error::from).and_then(|artifact| inspect(&artifact));
        let faults = inspected.map_or_else(|error| vec![error], |(_, faults)| faults);
        faults.iter().map(ToString::to_string).collect()
    }

    type Damage = fn(&Path);

    #[test]
    fn every_damage_is_reported_with_its_place() {
        let second = "train-00001.parquet";
        let cases: [(&str, Damage, &[&str]); 9] = [
            ("nothing", |_| (), &[]),
            (
                "a flipped byte among the tokens",
                |folder| flip(&folder.join("train-00001.parquet"), 64 + 300),
                &["train-00001.parquet` is damaged at byte 64: the tokens of rows 0 to 19 differ"],
            ),
            (
                "a flipped byte beside the tokens",
                |folder| flip(&folder.join("train-00001.parquet"), 64 + 20 * 128 + 100),
                &["train-00001.parquet` is damaged at byte 2624: its blake3 is"],
            ),
            (
                "a truncated file",
                |folder| {
                    let file = std::fs::File::options().write(true).open(folder.join("train-00001.parquet"));
                    file.unwrap().set_len(1000).unwrap();
                },
                &["train-00001.parquet` is damaged at byte 1000: it has 1000 bytes, its manifest says"],
            ),
            (
                "a missing file",
                |folder| std::fs::remove_file(folder.join("train-00001.parquet")).unwrap(),
                &["train-00001.parquet` is damaged at byte 0: it is missing"],
            ),
            (
                "two files that changed places",
                |folder| {
                    let name = |number: u64| folder.join(format!("train-0000{number}.parquet"));
                    std::fs::rename(name(0), folder.join("x")).unwrap();
                    std::fs::rename(name(1), name(0)).unwrap();
                    std::fs::rename(folder.join("x"), name(1)).unwrap();
                },
                &[
                    "train-00000.parquet` is damaged at byte 0: it holds what `train-00001.parquet` should hold",
                    "train-00001.parquet` is damaged at byte 0: it holds what `train-00000.parquet` should hold",
                ],
            ),
            (
                "a newer schema",
                |folder| edit(folder, |manifest| manifest["details"]["schema"] = "genomill/shard/2".into()),
                &["its schema is `genomill/shard/2`, expected `genomill/shard/1`"],
            ),
            (
                "another tokenizer",
                |folder| {
                    let kmer = Kmer::new(Config { k: 2, overlapping: false }).unwrap();
                    std::fs::write(folder.join("tokenizer.json"), kmer.to_json()).unwrap();
                },
                &["tokenizer.json`: `fingerprint` is", "tokenizer.json` is damaged"],
            ),
            (
                "a count that is not so",
                |folder| edit(folder, |manifest| manifest["details"]["splits"]["train"]["bases"] = 7.into()),
                &["split `train` has 3000 bases in its files, its manifest says 7"],
            ),
        ];
        for (name, damage, expected) in cases {
            let work = tempfile::tempdir().unwrap();
            let folder = set(work.path(), PLAIN, rows(PLAIN, 50)).folder;
            assert!(folder.join(second).is_file());
            damage(&folder);
            let found = faults(&folder);
            assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{name}: {found}");
            }
        }
    }

    #[test]
    fn a_damaged_archive_is_refused() {
        let layout = Layout { archive: true, ..PLAIN };
        let work = tempfile::tempdir().unwrap();
        let folder = set(work.path(), layout, rows(layout, 50)).folder;
        assert_eq!(faults(&folder), Vec::<String>::new());
        flip(&folder.join("train-00000.parquet"), 60);
        let found = faults(&folder);
        assert!(
            found.len() == 1 && found[0].contains("train-00000.parquet` is damaged at byte"),
            "{found:?}"
        );
    }

    type Change = fn(&mut Row);

    #[test]
    fn rows_that_cannot_be_are_reported() {
        let cases: [(&str, Change, &str); 5] = [
            (
                "vocabulary",
                |row| row.tokens[9] = 99,
                "at byte 978: row 7 holds token 99 at 9, the vocabulary has 23",
            ),
            (
                "length",
                |row| row.segments[0].end += 1,
                "row 7 says that its tokens 0-60 are chr1:420-481, but they spell 60 bases",
            ),
            ("bounds", |row| row.segments[0].token_end = 65, "which do not follow those before, up to 0"),
            (
                "order",
                |row| row.segments.push(row.segments[0].clone()),
                "which do not follow those before, up to 60",
            ),
            (
                "documents",
                |row| row.documents = vec![70, 64],
                "says that its documents end at [70, 64], expected",
            ),
        ];
        for (name, change, expected) in cases {
            let work = tempfile::tempdir().unwrap();
            let mut rows = rows(PLAIN, 50);
            change(&mut rows[7]);
            let found = faults(&set(work.path(), PLAIN, rows).folder);
            assert!(found.len() == 1 && found[0].contains(expected), "{name}: {found:?}");
        }
    }
}
