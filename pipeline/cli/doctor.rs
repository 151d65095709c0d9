//! `genomill doctor`: what this machine has of what a run needs. What it tries in folders it takes away again.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::Error;
use super::run::threads;
use crate::report::{bytes, count};
use crate::{TOOL, fs};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder in which each workflow has its folder of artifacts
    #[arg(long, value_name = "DIR", default_value = "work", value_parser = super::work::folder)]
    work: PathBuf,
}

/// Free bytes below which a work folder is no place for a run, and below which it is a tight one.
const NO_SPACE: u64 = 100_000_000;
const LITTLE_SPACE: u64 = 10_000_000_000;

/// Open files below which runs fail, and below which sweeps and many sources may.
const NO_FILES: u64 = 64;
const FEW_FILES: u64 = 1024;

/// Memory below which defaults such as `memory: 2 GB` do not fit, in bytes.
const LITTLE_MEMORY: u64 = 4_000_000_000;

/// How it stands with one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// As it should be.
    Fine(String),
    /// Good to know.
    Note(String),
    /// A run needs it.
    Missing(String),
}

use Finding::{Fine, Missing, Note};

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let place = existing(&arguments.work);
    let mut findings = vec![("genomill", Fine(TOOL.to_owned())), ("trainer", trainer())];
    findings.extend(libtorch());
    findings.push(("cores", Fine(threads(None).to_string())));
    findings.push(("memory", memory()));
    findings.push(("work folder", writable(&arguments.work, place)));
    findings.push(("disk", space(place)));
    findings.push(("locks", tried(place, locks, "two runs at a time are told apart")));
    findings.push(("rename", tried(place, renames, "artifacts are published whole")));
    findings.push(("temp folder", temporary()));
    findings.push(("open files", open_files()));
    findings.push(("locale", locale()));
    findings.push(("paths", paths(&arguments.work)));
    let mut out = io::stdout().lock();
    for (name, finding) in &findings {
        let (mark, text) = match finding {
            Fine(text) => ("ok", text),
            Note(text) => ("note", text),
            Missing(text) => ("MISSING", text),
        };
        writeln!(out, "{mark:<8} {name:<12} {text}")?;
    }
    match findings.iter().filter(|(_, finding)| matches!(finding, Missing(_))).count() {
        0 => Ok(()),
        1 => Err(Error::Other("one thing that runs need is missing".to_owned())),
        several => Err(Error::Other(format!("{several} things that runs need are missing"))),
    }
}

#[cfg(feature = "train")]
fn trainer() -> Finding {
    Fine("built in".to_owned())
}

#[cfg(not(feature = "train"))]
fn trainer() -> Finding {
    Note("not built in: `train` and model scores are left out; `make build` has them".to_owned())
}

/// The libtorch that the trainer uses, and whether it sees a GPU.
#[cfg(feature = "train")]
fn libtorch() -> Vec<(&'static str, Finding)> {
    let loaded = loaded_from("libtorch_cpu");
    let library = match loaded.as_deref().map(|file| (file, version(file))) {
        Some((file, Some(version))) => Fine(format!("{version}, {}", file.display())),
        Some((file, None)) => Fine(format!("of a version that it does not tell, {}", file.display())),
        None => Fine("loaded; this system does not tell from where".to_owned()),
    };
    let cuda = match crate::model::device::cuda() {
        Ok(1) => Fine("1 GPU; `train` and bits per base use it (`--device cpu`: not)".to_owned()),
        Ok(count) => Fine(format!(
            "{count} GPUs; `train` and bits per base use the first (`--device cuda:1`: another)"
        )),
        Err(why) => Note(format!("not available; models are computed on the CPU ({why})")),
    };
    vec![("libtorch", library), ("CUDA", cuda)]
}

#[cfg(not(feature = "train"))]
fn libtorch() -> Vec<(&'static str, Finding)> {
    Vec::new()
}

/// The file from which this process has a library.
#[cfg(feature = "train")]
fn loaded_from(library: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.contains(library))?;
    Some(PathBuf::from(&line[line.find('/')?..]))
}

/// The version that stands beside a libtorch: in `build-version`, or in a wheel's `version.py`.
#[cfg(feature = "train")]
fn version(library: &Path) -> Option<String> {
    let root = library.parent()?.parent()?;
    if let Ok(text) = std::fs::read_to_string(root.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let text = std::fs::read_to_string(root.join("version.py")).ok()?;
    let line = text.lines().find(|line| line.starts_with("__version__"))?;
    Some(line.split(['\'', '"']).nth(1)?.to_owned())
}

fn memory() -> Finding {
    let field = |name: &str| {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?.to_owned();
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    let (Some(total), Some(free)) = (field("MemTotal:"), field("MemAvailable:")) else {
        return Note("this system does not tell".to_owned());
    };
    // What a container may take.
    let limit =
        std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let total = limit.map_or(total, |limit: u64| limit.min(total));
    let text = format!("{}, {} of it free", bytes(total), bytes(free.min(total)));
    if total < LITTLE_MEMORY {
        Note(format!("{text}; set `memory` in stages that have it"))
    } else {
        Fine(text)
    }
}

/// The folder itself, or the nearest one above it that is there.
fn existing(folder: &Path) -> &Path {
    let there = folder.ancestors().find(|folder| folder.is_dir());
    there.unwrap_or(Path::new("."))
}

fn writable(work: &Path, place: &Path) -> Finding {
    match tempfile::tempdir_in(place) {
        Ok(_) if work.is_dir() => Fine(work.display().to_string()),
        Ok(_) if work.exists() => Missing(format!("{} is no folder", work.display())),
        Ok(_) => Fine(format!("{} will be made", work.display())),
        Err(error) => Missing(fs::error("write into", place)(error).to_string()),
    }
}

fn space(folder: &Path) -> Finding {
    match fs::room(folder) {
        Ok(fs::Room { free, all }) => {
            let text = format!("{} free of {}", bytes(free), bytes(all));
            match free {
                ..NO_SPACE => Missing(text),
                NO_SPACE..LITTLE_SPACE => Note(format!("{text}; shards take about a byte for each base")),
                _ => Fine(text),
            }
        }
        Err(error) => Note(error.to_string()),
    }
}

/// Tries something in a scratch folder within `place`.
fn tried(place: &Path, attempt: fn(&Path) -> Result<(), String>, fine: &str) -> Finding {
    let scratch = match tempfile::tempdir_in(place) {
        Ok(scratch) => scratch,
        Err(error) => return Missing(fs::error("write into", place)(error).to_string()),
    };
    attempt(scratch.path()).map_or_else(Missing, |()| Fine(fine.to_owned()))
}

/// Whether a second lock on a file is refused.
fn locks(folder: &Path) -> Result<(), String> {
    let path = folder.join("lock");
    let open = || File::options().write(true).create(true).truncate(false).open(&path);
    let said = |error: io::Error| fs::error("lock", &path)(error).to_string();
    let (first, second) = (open().map_err(said)?, open().map_err(said)?);
    first.try_lock().map_err(|error| said(error.into()))?;
    match second.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(said(error)),
        Ok(()) => Err("this file system lets two processes lock one file; do not start two runs".to_owned()),
    }
}

/// Whether folders can be renamed, and files replaced.
fn renames(folder: &Path) -> Result<(), String> {
    let (from, to, file) = (folder.join("a"), folder.join("b"), folder.join("c"));
    let said = |error: fs::Error| error.to_string();
    fs::create_dir_all(&from).map_err(said)?;
    std::fs::rename(&from, &to).map_err(|error| said(fs::error("rename to", &to)(error)))?;
    fs::write_atomic(&file, b"old").and_then(|()| fs::write_atomic(&file, b"new")).map_err(said)?;
    let found = fs::read(&file).map_err(said)?;
    if found == b"new" && !from.exists() { Ok(()) } else { Err("what was renamed is not there".to_owned()) }
}

fn temporary() -> Finding {
    let folder = std::env::temp_dir();
    match (writable(&folder, &folder), space(&folder)) {
        (Fine(path), Fine(space) | Note(space)) => Fine(format!("{path}, {space}")),
        (Fine(path), Missing(space)) => Note(format!("{path}, {space}")),
        (wrong, _) => wrong,
    }
}

fn open_files() -> Finding {
    let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current else {
        return Fine("no limit".to_owned());
    };
    match limit {
        ..NO_FILES => Missing(format!("at most {limit}; `ulimit -n {FEW_FILES}` allows more")),
        NO_FILES..FEW_FILES => Note(format!("at most {limit}; `ulimit -n {FEW_FILES}` allows more")),
        _ => Fine(format!("at most {}", count(limit))),
    }
}

/// Whether the terminal's texts are UTF-8, as far as the environment says.
fn locale() -> Finding {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set) {
        Some(locale) if is_utf8(&locale) => Fine(locale),
        Some(locale) => Note(format!("{locale} is not UTF-8: letters of error messages may look wrong")),
        None => Note("none is set: letters of error messages may look wrong".to_owned()),
    }
}

fn is_utf8(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Whether the folders' names are UTF-8, as manifests are.
fn paths(work: &Path) -> Finding {
    match std::path::absolute(work) {
        Ok(path) if path.to_str().is_some() => Fine("UTF-8".to_owned()),
        Ok(path) => Note(format!("{} is not UTF-8: logs cannot name it", path.display())),
        Err(error) => Missing(fs::error("find", work)(error).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_locks_and_renames() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(tried(folder.path(), locks, "locks"), Fine("locks".to_owned()));
        assert_eq!(tried(folder.path(), renames, "renames"), Fine("renames".to_owned()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn what_cannot_be_written_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(writable(&file, &file), Missing(_)));
        assert!(matches!(tried(&file, locks, ""), Missing(_)));
        assert_eq!(existing(&folder.path().join("a/b/c")), folder.path());
    }

    #[test]
    fn locales_of_utf8_are_known() {
        for (locale, expected) in
            [("en_GB.UTF-8", true), ("C.utf8", true), ("C", false), ("de_DE.ISO-8859-1", false)]
        {
            assert_eq!(is_utf8(locale), expected, "{locale}");
        }
    }
}
