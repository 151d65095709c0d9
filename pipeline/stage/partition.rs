//! Stages whose work falls into partitions by what they read: each is done by itself, kept when the run ends early, and
//! done again alone when it failed. Where a partition is done, and how often, changes nothing.
//!
//! A partition is made in a folder of its own under [`TASKS`] and renamed into the folder of the stage, with
//! `partition.json`, which says what it holds, written last. When all are there, the stage puts them together. Memory: that
//! of one partition at a time.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, Outcome, Task};
use crate::artifact::{FileEntry, staging};
use crate::fs;

/// The folder, beside the artifacts, in which partitions are made.
pub const TASKS: &str = ".tasks";

/// What a partition says of itself; the last file to be written.
const DONE: &str = "partition.json";

/// How long the parts of its work took, in seconds.
const SECONDS: &str = "seconds.json";

/// One of the partitions of a stage's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 0.
    pub at: u32,
    /// How many there are.
    pub of: u32,
    /// The number, among all items of the work, of the first that is its own.
    pub start: u64,
    /// One past its last item.
    pub end: u64,
}

impl Partition {
    /// All of them, between bounds; see [`Work::bounds`].
    ///
    /// # Errors
    /// When there are more than can be counted.
    pub fn between(bounds: &[u64]) -> Result<Vec<Self>, Error> {
        let found = bounds.len().saturating_sub(1);
        let of = u32::try_from(found).map_err(|_| Error::TooManyPartitions { found })?;
        Ok((0..of).zip(bounds.windows(2)).map(|(at, b)| Self { at, of, start: b[0], end: b[1] }).collect())
    }

    /// The folder in the artifact that holds it.
    pub fn folder(self) -> String {
        format!("part-{:05}", self.at)
    }
}

/// What comes of a partition.
#[derive(Debug)]
pub struct Made {
    /// What [`Work::merge`] needs to know of it: the same whenever and wherever it is made.
    pub account: Value,
    /// Times of parts of the work, in seconds of one thread, by name.
    pub seconds: Vec<(String, f64)>,
}

/// A partition that is done.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    /// How many partitions there are.
    of: u32,
    account: Value,
    /// Its other lasting files, relative to its folder.
    files: Vec<FileEntry>,
}

/// A stage whose work falls into partitions.
pub trait Partitioned {
    /// Reads what every partition needs.
    fn open<'a>(&'a self, task: &'a Task<'a>) -> Result<Box<dyn Work + 'a>, Error>;
}

/// Work that falls into partitions, with what all of them need.
pub trait Work {
    /// Where they begin, by the numbers of the items that are worked on, and at last how many items there are: at least two
    /// numbers, a function of the configuration and of what is read.
    fn bounds(&self) -> Result<Vec<u64>, Error>;

    /// Makes one, in `task.out`, which is another than that of the task that the work was opened with.
    fn make(&self, task: &Task, partition: Partition) -> Result<Made, Error>;

    /// Puts them together, in their order.
    fn merge(&self, made: &mut dyn Iterator<Item = Result<Made, Error>>) -> Result<Outcome, Error>;
}

/// Makes all partitions that are not there yet, and puts them together. One that fails does not keep the others from
/// being made.
pub fn run(stage: &dyn Partitioned, task: &Task) -> Result<Outcome, Error> {
    clear_abandoned(task.work)?;
    let work = stage.open(task)?;
    let partitions = Partition::between(&work.bounds()?)?;
    let mut failures = Vec::new();
    for &partition in &partitions {
        match make(work.as_ref(), task, partition) {
            Ok(_) => {}
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => failures.push((partition, error)),
        }
    }
    if !failures.is_empty() {
        return Err(Error::Partitions { of: partitions.len(), failures });
    }
    let mut files = Vec::new();
    let mut made = partitions.into_iter().map(|partition| {
        let (done, seconds) = open(task.out, partition)?;
        let folder = partition.folder();
        let within = |entry: FileEntry| FileEntry { path: format!("{folder}/{}", entry.path), ..entry };
        files.extend(done.files.into_iter().map(within));
        Ok(Made { account: done.account, seconds })
    });
    let mut outcome = work.merge(&mut made)?;
    outcome.files.extend(files);
    outcome.volatile.push(SECONDS);
    Ok(outcome)
}

/// Makes a partition in the folder of its stage, unless it is there; tells whether it was made. Any number of processes
/// may do so at once: the first that is done is kept.
pub fn make(work: &dyn Work, task: &Task, partition: Partition) -> Result<bool, Error> {
    if open(task.out, partition).is_ok() {
        return Ok(false);
    }
    let place = task.out.join(partition.folder());
    let desk = Desk::new(task, partition)?;
    let made = work.make(&Task { out: &desk.folder, ..*task }, partition)?;
    let json = |value: Result<Vec<u8>, serde_json::Error>, path: &Path| {
        value.map_err(std::io::Error::other).map_err(fs::error("write", path))
    };
    let path = desk.folder.join(SECONDS);
    fs::write_atomic(&path, &json(serde_json::to_vec(&made.seconds), &path)?)?;
    let files = staging::sync_and_hash(&desk.folder, &[SECONDS], &[])?;
    let files = files.into_iter().filter(|entry| !entry.volatile).collect();
    let done = Done { of: partition.of, account: made.account, files };
    let path = desk.folder.join(DONE);
    fs::write_atomic(&path, &json(serde_json::to_vec(&done), &path)?)?;
    // What is there without being whole, or of another number of partitions, is of no use.
    if place.exists() && open(task.out, partition).is_err() {
        staging::remove(&place)?;
    }
    match std::fs::rename(&desk.folder, &place) {
        Ok(()) => Ok(true),
        Err(_) if open(task.out, partition).is_ok() => Ok(false),
        Err(error) => Err(fs::error("rename to", &place)(error).into()),
    }
}

/// How many partitions a folder holds.
pub fn made(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().join(DONE).exists()).count()
}

/// A partition that is done, and how long its parts took.
fn open(out: &Path, partition: Partition) -> Result<(Done, Vec<(String, f64)>), Error> {
    let folder = out.join(partition.folder());
    let path = folder.join(DONE);
    let damaged = |error: serde_json::Error| fs::error("read", &path)(error.into());
    let done: Done = serde_json::from_slice(&fs::read(&path)?).map_err(damaged)?;
    let whole = |entry: &FileEntry| {
        std::fs::metadata(folder.join(&entry.path)).is_ok_and(|found| found.len() == entry.bytes)
    };
    if done.of != partition.of || !done.files.iter().all(whole) {
        let reason = std::io::Error::other("it is not the partition that is wanted, or not whole");
        return Err(fs::error("use", &path)(reason).into());
    }
    let seconds = fs::read(&folder.join(SECONDS))?;
    Ok((done, serde_json::from_slice(&seconds).unwrap_or_default()))
}

/// Where a partition is made: a folder that is this process's own while it holds the lock beside it. Gone when dropped.
struct Desk {
    folder: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Desk {
    fn new(task: &Task, partition: Partition) -> Result<Self, Error> {
        let tasks = task.work.join(TASKS);
        fs::create_dir_all(&tasks)?;
        let name = format!("{}-{}-", task.stage, partition.folder());
        let held = tempfile::Builder::new().prefix(&name).suffix(LOCK).tempfile_in(&tasks);
        let (held, lock) = held.map_err(fs::error("create a file in", &tasks))?.keep().map_err(|error| {
            let path = error.file.path().to_owned();
            fs::error("keep", &path)(error.error)
        })?;
        held.lock().map_err(fs::error("lock", &lock))?;
        let folder = lock.with_extension("");
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, lock, _held: held })
    }
}

/// The end of the name of the lock beside the folder of a partition in the making.
const LOCK: &str = ".lock";

impl Drop for Desk {
    fn drop(&mut self) {
        // What cannot be removed now is cleared by the next run.
        drop(staging::remove(&self.folder));
        drop(std::fs::remove_file(&self.lock));
    }
}

/// Removes what processes that are gone left unfinished.
pub fn clear_abandoned(work: &Path) -> Result<(), Error> {
    let tasks = work.join(TASKS);
    let Ok(entries) = std::fs::read_dir(&tasks) else { return Ok(()) };
    for entry in entries {
        let lock = entry.map_err(fs::error("list", &tasks))?.path();
        if lock.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(held) = File::open(&lock) else { continue };
        if held.try_lock().is_ok() {
            staging::remove(&lock.with_extension(""))?;
            drop(std::fs::remove_file(&lock));
        }
    }
    Ok(())
}
