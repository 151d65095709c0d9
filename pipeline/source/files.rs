//! Which files a source names: one, those that a pattern fits, or those of a folder; and what they are called.
//!
//! Endings decide here, for nothing is opened: a folder gives the files whose names end as its format's do.

use std::path::{Path, PathBuf};

use crate::fs;

/// Endings of compressed files, which stand after those of the format.
const COMPRESSED: [&str; 6] = [".gz", ".bgz", ".bgzf", ".zst", ".zstd", ".xz"];

/// Endings of tables and lists of intervals, which are read beside sequences.
const TABLES: [&str; 3] = [".csv", ".tsv", ".bed"];

/// Why files are not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A folder cannot be read.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// A pattern that is none.
    #[error("cannot read the pattern `{pattern}`: {problem}")]
    Pattern {
        /// As it is written.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing fits.
    #[error("cannot find files for `{pattern}`: found {found}, expected {expected}")]
    None {
        /// As it is written.
        pattern: String,
        /// What there is.
        found: String,
        /// What there should be.
        expected: String,
    },
    /// A folder without the mark of one.
    #[error("cannot read `{}`: it is a folder; expected a file, or `{}/` for all files of the folder",
        path.display(), path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
}

/// A format by the endings of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// FASTA.
    Fasta,
    /// FASTQ.
    Fastq,
    /// BAM, SAM or CRAM.
    Alignment,
    /// UCSC 2bit.
    TwoBit,
    /// GenBank flat file.
    GenBank,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Fasta, Self::Fastq, Self::Alignment, Self::TwoBit, Self::GenBank];

    /// How the names of its files end.
    pub const fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Fasta => &[".fa", ".fasta", ".fna", ".ffn", ".fas", ".fsa"],
            Self::Fastq => &[".fq", ".fastq"],
            Self::Alignment => &[".bam", ".sam", ".cram"],
            Self::TwoBit => &[".2bit"],
            Self::GenBank => &[".gb", ".gbk", ".gbff", ".genbank"],
        }
    }

    /// The kind that a file's name shows, compressed or not.
    pub fn of(path: &Path) -> Option<Self> {
        let name = file_name(path).to_lowercase();
        let name = without_any(&name, &COMPRESSED);
        Self::ALL.into_iter().find(|kind| kind.endings().iter().any(|ending| name.ends_with(ending)))
    }
}

/// Whether a path stands for several files: a pattern (`*`, `?`, `[`), or a folder (`/` at its end).
pub fn is_several(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[']) || path.to_string_lossy().ends_with('/')
}

/// The files that `path` stands for, in alphabetical order, written as `path` is: relative to `base`, or absolute. A file
/// that is called like a pattern is that file.
pub fn expand(path: &Path, base: &Path, kind: Kind) -> Result<Vec<PathBuf>, Error> {
    let there = base.join(path);
    if !is_several(path) || there.is_file() {
        return if there.is_dir() {
            Err(Error::Folder { path: path.to_owned() })
        } else {
            Ok(vec![path.to_owned()])
        };
    }
    let mut files =
        if path.to_string_lossy().ends_with('/') { folder(path, base, kind)? } else { fitting(path, base)? };
    files.sort();
    Ok(files)
}

fn folder(path: &Path, base: &Path, kind: Kind) -> Result<Vec<PathBuf>, Error> {
    let there = base.join(path);
    let (mut files, mut others) = (Vec::new(), 0);
    for entry in std::fs::read_dir(&there).map_err(fs::error("read folder", &there))? {
        let name = entry.map_err(fs::error("read folder", &there))?.file_name();
        let file = path.join(&name);
        if base.join(&file).is_file() && Kind::of(&file) == Some(kind) {
            files.push(file);
        } else {
            others += 1;
        }
    }
    if files.is_empty() {
        return Err(Error::None {
            pattern: path.display().to_string(),
            found: format!("{others} others"),
            expected: format!("files that end with {}", kind.endings().join(", ")),
        });
    }
    Ok(files)
}

fn fitting(path: &Path, base: &Path) -> Result<Vec<PathBuf>, Error> {
    let pattern = path.to_string_lossy().into_owned();
    // The folder of the workflow may hold such characters itself.
    let escaped = glob::Pattern::escape(&base.to_string_lossy());
    let whole = if path.is_absolute() { path.to_owned() } else { Path::new(&escaped).join(path) };
    let found = glob::glob(&whole.to_string_lossy())
        .map_err(|error| Error::Pattern { pattern: pattern.clone(), problem: error.msg.to_owned() })?;
    let mut files = Vec::new();
    for file in found {
        let file = file.map_err(|error| {
            let path = error.path().to_owned();
            fs::error("read folder", &path)(error.into())
        })?;
        if file.is_file() {
            let relative = file.strip_prefix(base).ok().filter(|_| !path.is_absolute());
            files.push(relative.map_or_else(|| file.clone(), Path::to_owned));
        }
    }
    if files.is_empty() {
        return Err(Error::None {
            pattern,
            found: "none".to_owned(),
            expected: "at least one file".to_owned(),
        });
    }
    Ok(files)
}

/// A file's name without the endings of its compression and format: what a source or a benchmark is called by default.
pub fn stem(path: &Path) -> String {
    let name = file_name(path);
    let whole = without_any(&name, &COMPRESSED);
    let bare = Kind::ALL.iter().fold(whole, |bare, kind| without_any(bare, kind.endings()));
    let bare = if bare == whole { without_any(whole, &TABLES) } else { bare };
    if bare.is_empty() { name } else { bare.to_owned() }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `name` without the first ending of `endings` that it has, in either case.
fn without_any<'a>(name: &'a str, endings: &[&str]) -> &'a str {
    let cut = |ending: &&str| {
        let at = name.len().checked_sub(ending.len())?;
        name.is_char_boundary(at)
            .then(|| name.split_at(at))
            .filter(|(_, end)| end.eq_ignore_ascii_case(ending))
    };
    endings.iter().find_map(cut).map_or(name, |(bare, _)| bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_the_endings_of_their_format() {
        for (path, expected, kind) in [
            ("a/yeast.fa.gz", "yeast", Some(Kind::Fasta)),
            ("GCF_000005845.2_ASM584v2.FNA", "GCF_000005845.2_ASM584v2", Some(Kind::Fasta)),
            ("r_1.fastq.zst", "r_1", Some(Kind::Fastq)),
            ("x.bam", "x", Some(Kind::Alignment)),
            ("hg38.2bit", "hg38", Some(Kind::TwoBit)),
            ("l.gb", "l", Some(Kind::GenBank)),
            (".fa", ".fa", Some(Kind::Fasta)),
            ("genome", "genome", None),
            ("notes.txt.gz", "notes.txt", None),
            ("ocr.test.csv.gz", "ocr.test", None),
            ("clinvar_1.2.BED", "clinvar_1.2", None),
            ("x.bed.fa", "x.bed", Some(Kind::Fasta)),
            ("-", "-", None),
        ] {
            assert_eq!(stem(Path::new(path)), expected);
            assert_eq!(Kind::of(Path::new(path)), kind, "{path}");
        }
    }

    #[test]
    fn patterns_and_folders_give_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("odd [name]");
        std::fs::create_dir_all(base.join("in/deep")).unwrap();
        for name in ["in/b.fa.gz", "in/a.fasta", "in/notes.txt", "in/deep/c.fa", "in/r.fq"] {
            std::fs::write(base.join(name), "x").unwrap();
        }
        for (path, expected) in [
            ("in/", "in/a.fasta in/b.fa.gz"),
            ("in/*.fa*", "in/a.fasta in/b.fa.gz"),
            ("in/**/*.fa", "in/deep/c.fa"),
            ("in/a.fasta", "in/a.fasta"),
            ("not/there.fa", "not/there.fa"),
        ] {
            let files = expand(Path::new(path), &base, Kind::Fasta).unwrap();
            let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
            assert_eq!(files.join(" "), expected, "{path}");
        }
        let absolute = base.join("in/a.fasta");
        assert_eq!(expand(&absolute, &base, Kind::Fasta).unwrap(), [absolute]);
        for (path, expected) in [
            ("in/*.2bit", "cannot find files for `in/*.2bit`: found none, expected at least one file"),
            (
                "in/deep/",
                "cannot find files for `in/deep/`: found 1 others, expected files that end with .2bit",
            ),
            ("in", "cannot read `in`: it is a folder; expected a file, or `in/` for all files of the folder"),
            ("in/***", "cannot read the pattern `in/***`: "),
        ] {
            let error = expand(Path::new(path), &base, Kind::TwoBit).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
