//! Stages whose work falls into partitions by what they read: each is done by itself, kept when the run ends early, and
//! done again alone when it failed. Where a partition is done, and how often, changes nothing.
//!
//! A partition is made in a folder of its own under [`TASKS`] and renamed to where all partitions of the work lie
//! ([`Task::parts`]), with `partition.json`, which says what it holds, written last. When all are there, the stage puts
//! them together, and they go when the artifact is published. Memory: that of one partition at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, TryLockError};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, Outcome, Task};
use crate::artifact::{FileEntry, staging};
use crate::fs;

/// The folder, beside the artifacts, in which partitions are made.
pub const TASKS: &str = ".tasks";

/// What a partition says of itself; the last file to be written.
pub const DONE: &str = "partition.json";

/// One of the partitions of a stage's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// All of them, between bounds; see [`Partitioned::bounds`].
    ///
    /// # Errors
    /// When there are more than can be counted.
    pub fn between(bounds: &[u64]) -> Result<Vec<Self>, Error> {
        let found = bounds.len().saturating_sub(1);
        let of = u32::try_from(found).map_err(|_| Error::TooManyPartitions { found })?;
        Ok((0..of).zip(bounds.windows(2)).map(|(at, b)| Self { at, of, start: b[0], end: b[1] }).collect())
    }

    /// The name of the folder that it lies in.
    pub fn folder(self) -> String {
        format!("part-{:05}-of-{:05}", self.at, self.of)
    }
}

/// Which partitions are wanted of some work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// These.
    Numbers {
        /// Ranges of numbers; both ends belong to them.
        ranges: Vec<RangeInclusive<u32>>,
        /// How many partitions there should be.
        of: Option<u32>,
    },
    /// Every one whose number leaves this remainder when divided, whatever their number: the shares of all remainders are
    /// the whole.
    Share {
        /// The remainder.
        at: u32,
        /// The divisor.
        of: NonZeroU32,
    },
}

impl Wanted {
    /// Their numbers, when there are `count` partitions; each once.
    ///
    /// # Errors
    /// When one is wanted that there is not.
    pub fn among(&self, count: usize) -> Result<Vec<u32>, Error> {
        match self {
            Self::Share { at, of } => {
                let step = of.get() as usize;
                Ok((0..count)
                    .skip(*at as usize)
                    .step_by(step)
                    .filter_map(|at| u32::try_from(at).ok())
                    .collect())
            }
            Self::Numbers { ranges, of } => {
                let wrong = |at: u32| of.is_some_and(|of| of as usize != count) || at as usize >= count;
                if let Some(range) = ranges.iter().find(|range| wrong(*range.end())) {
                    let at = if wrong(*range.start()) { *range.start() } else { *range.end() };
                    return Err(Error::NoSuchPartition { at, of: *of, count });
                }
                Ok(ranges.iter().cloned().flatten().collect::<BTreeSet<u32>>().into_iter().collect())
            }
        }
    }

    /// Reads a share: `3/64`.
    ///
    /// # Errors
    /// What was expected, in words.
    pub fn parse_share(text: &str) -> Result<Self, String> {
        let refused = || format!("expected a share such as `0/8` to `7/8`, found `{text}`");
        let (at, of) = text.split_once('/').ok_or_else(refused)?;
        let (at, of): (u32, NonZeroU32) =
            (at.parse().map_err(|_| refused())?, of.parse().map_err(|_| refused())?);
        if at < of.get() { Ok(Self::Share { at, of }) } else { Err(refused()) }
    }
}

impl FromStr for Wanted {
    type Err = String;

    /// Reads `3`, `0-4,7` or, with how many there should be, `0-4,7/12`.
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("expected partitions such as `3`, `0-4,7` or `0-4,7/12`, found `{text}`");
        let number = |text: &str| text.parse::<u32>().map_err(|_| refused());
        let (list, of) = text.split_once('/').map_or((text, None), |(list, of)| (list, Some(of)));
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (number(first)?, number(last)?);
            if first <= last { Ok(first..=last) } else { Err(refused()) }
        };
        let ranges = list.split(',').map(range).collect::<Result<_, _>>()?;
        Ok(Self::Numbers { ranges, of: of.map(number).transpose()? })
    }
}

/// Finds where partitions begin: each with the first item before which all items reach the next multiple of a size.
#[derive(Debug)]
pub struct Bounds {
    size: u64,
    before: u64,
    next: u64,
    items: u64,
    found: Vec<u64>,
}

impl Bounds {
    /// Of partitions of about `size`, at least 1, in whatever items are weighed by.
    pub fn new(size: u64) -> Self {
        Self { size, before: 0, next: 0, items: 0, found: Vec::new() }
    }

    /// Takes the next item.
    pub fn push(&mut self, weight: u64) {
        if self.before >= self.next {
            self.found.push(self.items);
            self.next = (self.before / self.size + 1) * self.size;
        }
        self.push_with_last(weight);
    }

    /// Takes the next item, which is of the partition that the one before it is of.
    pub fn push_with_last(&mut self, weight: u64) {
        self.items += 1;
        self.before += weight;
    }

    /// See [`Partitioned::bounds`]; without an item there is one partition, of none.
    pub fn finish(mut self) -> Vec<u64> {
        if self.found.is_empty() {
            self.found.push(0);
        }
        self.found.push(self.items);
        self.found
    }
}

/// Of a partition, unless the workflow says another number: bases, or bytes of files.
pub const SIZE: u64 = 256_000_000;

/// The same as the default of a key that may be null.
pub const fn default_size() -> Option<u64> {
    Some(SIZE)
}

/// What is wrong with the size of partitions that a workflow gives.
pub fn problem(size: Option<u64>) -> Option<(&'static str, String)> {
    (size == Some(0)).then(|| ("partition", "is 0, expected at least 1".to_owned()))
}

/// What comes of a partition.
#[derive(Debug, Serialize, Deserialize)]
pub struct Made {
    /// What [`Work::merge`] needs to know of it: the same whenever and wherever it is made.
    pub account: Value,
    /// Bases that were worked on.
    pub bases: u64,
    /// Times of parts of the work, in seconds of one thread, by name.
    pub seconds: Vec<(String, f64)>,
}

/// A partition that is done.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    partition: Partition,
    made: Made,
    /// Its other files, relative to its folder.
    files: Vec<FileEntry>,
}

/// A partition that is done, to be put together with the others.
#[derive(Debug)]
pub struct Finished {
    /// Which one.
    pub partition: Partition,
    /// What came of it.
    pub made: Made,
    /// Its files.
    pub files: Vec<FileEntry>,
    folder: PathBuf,
}

impl Finished {
    /// Where its files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What its maker wrote as [`Made::account`].
    pub fn account<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let account = T::deserialize(&self.made.account);
        account.map_err(|error| fs::error("read", &self.path(DONE))(error.into()).into())
    }

    /// Puts one of its files into an artifact, as `name`; it is not copied where the disk can do without. Returns what is
    /// known of it there.
    pub fn place(&self, entry: &FileEntry, out: &Path, name: String) -> Result<FileEntry, Error> {
        let (from, to) = (self.path(&entry.path), out.join(&name));
        if std::fs::hard_link(&from, &to).is_err() {
            std::fs::copy(&from, &to).map_err(fs::error("copy", &from))?;
        }
        Ok(FileEntry { path: name, ..entry.clone() })
    }
}

/// A stage whose work falls into partitions.
pub trait Partitioned {
    /// Where they begin, by the numbers of the items that are worked on, and at last how many items there are: at least two
    /// numbers, a function of the configuration and of what is read. Nothing is written.
    fn bounds(&self, task: &Task) -> Result<Vec<u64>, Error>;

    /// How much of what it reads each of them takes, about: bytes of files or bases.
    fn size(&self) -> u64;

    /// Reads what every partition needs.
    fn open<'a>(&'a self, task: &'a Task<'a>) -> Result<Box<dyn Work + 'a>, Error>;
}

/// Work that falls into partitions, with what all of them need.
pub trait Work {
    /// The files from outside that one reads, as the workflow writes them.
    fn reads(&self, _partition: Partition) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Makes one, in `task.out`, which is another than that of the task that the work was opened with.
    fn make(&self, task: &Task, partition: Partition) -> Result<Made, Error>;

    /// Puts them together, in their order, in the `out` of the task that the work was opened with.
    fn merge(&self, made: &mut dyn Iterator<Item = Result<Finished, Error>>) -> Result<Outcome, Error>;
}

/// Makes all partitions that are not there yet, and puts them together. One that fails does not keep the others from
/// being made.
pub fn run(stage: &dyn Partitioned, task: &Task) -> Result<Outcome, Error> {
    let partitions = Partition::between(&stage.bounds(task)?)?;
    let work = stage.open(task)?;
    let (mut before, mut failures) = (0, Vec::new());
    for &partition in &partitions {
        match make_or_open(work.as_ref(), &Task { before, ..*task }, partition) {
            Ok((kept, _)) => before += kept.made.bases,
            Err(error) if partitions.len() == 1 || matches!(error, Error::Interrupted) => return Err(error),
            Err(error) => failures.push((partition, error)),
        }
    }
    if !failures.is_empty() {
        return Err(Error::Partitions { of: partitions.len(), failures });
    }
    work.merge(&mut partitions.into_iter().map(|partition| open(task.parts, partition)))
}

/// Makes a partition where a run finds it, unless it is there; tells whether it was made, and how many bases were worked on
/// for it. Any number of processes may do so at once: the first that is done is kept.
pub fn make(work: &dyn Work, task: &Task, partition: Partition) -> Result<(bool, u64), Error> {
    make_or_open(work, task, partition).map(|(kept, made)| (made, kept.made.bases))
}

fn make_or_open(work: &dyn Work, task: &Task, partition: Partition) -> Result<(Finished, bool), Error> {
    if let Ok(kept) = open(task.parts, partition) {
        return Ok((kept, false));
    }
    let folder = task.parts.join(partition.folder());
    let desk = Desk::new(task, partition)?;
    let made = work.make(&Task { out: &desk.folder, ..*task }, partition)?;
    work.reads(partition).into_iter().try_for_each(|path| task.check_unchanged(path))?;
    let files = staging::sync_and_hash(&desk.folder, &[], &[])?;
    let done = Done { partition, made, files };
    fs::write_json(&desk.folder.join(DONE), serde_json::to_vec(&done))?;
    // A run that published meanwhile may have taken it away.
    fs::create_dir_all(task.parts)?;
    // What is there without being whole is of no use.
    if folder.exists() && open(task.parts, partition).is_err() {
        staging::remove(&folder)?;
    }
    let Err(error) = std::fs::rename(&desk.folder, &folder) else {
        let Done { partition, made, files } = done;
        return Ok((Finished { partition, made, files, folder }, true));
    };
    match open(task.parts, partition) {
        Ok(kept) => Ok((kept, false)),
        Err(_) => Err(fs::error("rename to", &folder)(error).into()),
    }
}

/// How many partitions some work falls into, and which of them are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// How many it falls into.
    pub of: u32,
    /// How many are there.
    pub made: u32,
    /// The numbers of the others: `3-5,7`.
    pub missing: String,
}

impl Standing {
    /// Of work that falls into `of` partitions, which lie in the folder `parts`.
    pub fn new(parts: &Path, of: u32) -> Self {
        Self::with(&made(names_in(parts)).remove(&of).unwrap_or_default(), of)
    }

    /// Of what lies in the folder `parts`, and of what has its name elsewhere, as far as names tell.
    pub fn of_all(parts: &Path, elsewhere: impl IntoIterator<Item = String>) -> Vec<Self> {
        let made = made(names_in(parts).chain(elsewhere));
        made.into_iter().map(|(of, made)| Self::with(&made, of)).collect()
    }

    /// The numbers of those that are not there.
    pub fn absent(&self) -> Vec<u32> {
        let wanted = self
            .missing
            .parse::<Wanted>()
            .and_then(|wanted| wanted.among(self.of as usize).map_err(|error| error.to_string()));
        wanted.unwrap_or_default()
    }

    /// Some of them, to be written behind something else.
    pub fn listed(all: &[Self]) -> String {
        all.iter().fold(String::new(), |text, standing| format!("{text}; {standing}"))
    }

    /// `made` ascends.
    fn with(made: &[u32], of: u32) -> Self {
        let missing = (0..of).filter(|at| made.binary_search(at).is_err());
        Self { of, made: u32::try_from(made.len()).unwrap_or(of), missing: listed(missing) }
    }
}

/// Ascending numbers as `3-5,7`.
pub fn listed(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut ranges: Vec<RangeInclusive<u32>> = Vec::new();
    for at in numbers {
        match ranges.last_mut() {
            Some(range) if *range.end() + 1 == at => *range = *range.start()..=at,
            _ => ranges.push(at..=at),
        }
    }
    let range = |range: RangeInclusive<u32>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    ranges.into_iter().map(range).collect::<Vec<_>>().join(",")
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, made, missing } = self;
        match made {
            0 => write!(f, "{of} partitions, none of them there"),
            made if made == of => write!(f, "all of its {of} partitions are there"),
            made => write!(f, "{made} of its {of} partitions are there, missing {missing}"),
        }
    }
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// The partitions whose folders have these names: their numbers, by how many there were to be.
fn made(names: impl Iterator<Item = String>) -> BTreeMap<u32, Vec<u32>> {
    let mut made: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for name in names {
        let numbers = name.strip_prefix("part-").and_then(|name| name.split_once("-of-"));
        if let Some((at, of)) = numbers
            && let (Ok(at), Ok(of)) = (at.parse(), of.parse())
        {
            made.entry(of).or_default().push(at);
        }
    }
    for at in made.values_mut() {
        at.sort_unstable();
        at.dedup();
    }
    made
}

/// The files of a partition besides [`DONE`], of which these are the bytes; `path` is where they were read.
pub fn files_of(path: &Path, done: &[u8]) -> Result<Vec<FileEntry>, fs::Error> {
    let done: Result<Done, _> = serde_json::from_slice(done);
    Ok(done.map_err(|error| fs::error("read", path)(error.into()))?.files)
}

/// A partition that is done.
fn open(parts: &Path, partition: Partition) -> Result<Finished, Error> {
    let folder = parts.join(partition.folder());
    let path = folder.join(DONE);
    let damaged = |error: serde_json::Error| fs::error("read", &path)(error.into());
    let done: Done = serde_json::from_slice(&fs::read(&path)?).map_err(damaged)?;
    let whole = |entry: &FileEntry| {
        std::fs::metadata(folder.join(&entry.path)).is_ok_and(|found| found.len() == entry.bytes)
    };
    if done.partition != partition || !done.files.iter().all(whole) {
        let reason = std::io::Error::other("it is not the partition that is wanted, or not whole");
        return Err(fs::error("use", &path)(reason).into());
    }
    let Done { partition, made, files } = done;
    Ok(Finished { partition, made, files, folder })
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

/// The locks of partitions in the making, held or left.
fn locks(work: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(work.join(TASKS)).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "lock")).collect()
}

/// The partitions that processes make now, of all stages of a work folder: stage and number.
pub fn in_the_making(work: &Path) -> Vec<(String, u32)> {
    let held = |lock: &PathBuf| {
        File::open(lock).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    };
    let parse = |lock: PathBuf| {
        let (name, _) = lock.file_stem()?.to_str()?.rsplit_once('-')?;
        let (stage, numbers) = name.rsplit_once("-part-")?;
        Some((stage.to_owned(), numbers.split_once("-of-")?.0.parse().ok()?))
    };
    locks(work).into_iter().filter(held).filter_map(parse).collect()
}

/// Removes what processes that are gone left unfinished.
pub fn clear_abandoned(work: &Path) -> Result<(), Error> {
    for lock in locks(work) {
        let Ok(held) = File::open(&lock) else { continue };
        if held.try_lock().is_ok() {
            staging::remove(&lock.with_extension(""))?;
            drop(std::fs::remove_file(&lock));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_begin_where_their_size_is_reached() {
        for (size, weights, expected) in [
            (10, vec![], vec![0, 0]),
            (10, vec![0], vec![0, 1]),
            (10, vec![3, 3, 3], vec![0, 3]),
            (10, vec![5, 5, 5, 5, 5], vec![0, 2, 4, 5]),
            (10, vec![9, 9, 9, 9], vec![0, 2, 3, 4]),
            (10, vec![35, 1, 1, 4, 1], vec![0, 1, 4, 5]),
            (1, vec![1, 1, 1], vec![0, 1, 2, 3]),
        ] {
            let mut bounds = Bounds::new(size);
            for weight in &weights {
                bounds.push(*weight);
            }
            assert_eq!(bounds.finish(), expected, "{weights:?} by {size}");
        }
    }

    #[test]
    fn no_partition_begins_with_what_belongs_to_the_item_before() {
        let mut bounds = Bounds::new(10);
        for (joins, weight) in [(false, 25), (true, 5), (true, 5), (false, 1), (true, 9), (false, 4)] {
            if joins { bounds.push_with_last(weight) } else { bounds.push(weight) }
        }
        assert_eq!(bounds.finish(), [0, 3, 5, 6]);
    }

    #[test]
    fn wanted_partitions_are_numbers_that_there_are() {
        let wanted = |text: &str| text.parse::<Wanted>().unwrap();
        let share = |text: &str| Wanted::parse_share(text).unwrap();
        for (wanted, count, expected) in [
            (wanted("3"), 12, vec![3]),
            (wanted("3/12"), 12, vec![3]),
            (wanted("7,0-2,1"), 12, vec![0, 1, 2, 7]),
            (wanted("0-2/3"), 3, vec![0, 1, 2]),
            (share("0/4"), 10, vec![0, 4, 8]),
            (share("3/4"), 10, vec![3, 7]),
            (share("3/4"), 3, vec![]),
            (share("0/1"), 3, vec![0, 1, 2]),
        ] {
            assert_eq!(wanted.among(count).unwrap(), expected, "{wanted:?}");
        }
        for (text, count, expected) in [
            ("0-4", 3, "no partition 4: it falls into 3, from 0 to 2"),
            ("0-2/4", 3, "no partition 0 of 4: it falls into 3, from 0 to 2"),
            ("5-6", 5, "no partition 5: it falls into 5, from 0 to 4"),
        ] {
            assert_eq!(wanted(text).among(count).unwrap_err().to_string(), expected);
        }
        for text in ["", "x", "1,", "2-1", "1/", "-1"] {
            let error = text.parse::<Wanted>().unwrap_err();
            assert!(error.starts_with("expected partitions such as"), "{text}: {error}");
        }
        for text in ["1", "4/4", "0/0", "/2", "a/2"] {
            assert!(Wanted::parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_made_shows_in_the_names_of_its_folders() {
        let parts = tempfile::tempdir().unwrap();
        let folder = |at, of| Partition { at, of, start: 0, end: 0 }.folder();
        for name in
            [folder(3, 12), folder(0, 12), folder(100_000, 100_001), folder(1, 2), "part-x-of-2".into()]
        {
            std::fs::create_dir(parts.path().join(name)).unwrap();
        }
        let expected = BTreeMap::from([(2, vec![1]), (12, vec![0, 3]), (100_001, vec![100_000])]);
        assert_eq!(made(names_in(parts.path())), expected);
        let of_twelve = Standing::new(parts.path(), 12);
        assert_eq!(of_twelve.to_string(), "2 of its 12 partitions are there, missing 1-2,4-11");
        assert_eq!(Standing::new(parts.path(), 3).to_string(), "3 partitions, none of them there");
        assert_eq!(Standing::of_all(parts.path(), []).len(), 3);
        let elsewhere = [folder(3, 12), folder(4, 12)];
        let of_all = Standing::of_all(parts.path(), elsewhere);
        assert_eq!(of_all[1].to_string(), "3 of its 12 partitions are there, missing 1-2,5-11");
        for (made, of, missing) in [(&[][..], 1, "0"), (&[0], 1, ""), (&[0, 2, 3], 6, "1,4-5")] {
            assert_eq!(Standing::with(made, of).missing, missing);
            let absent = Standing::with(made, of).absent();
            assert_eq!(absent, (0..of).filter(|at| !made.contains(at)).collect::<Vec<_>>());
        }
        assert_eq!(made(names_in(&parts.path().join("none"))), BTreeMap::new());
    }
}
