//! Files that are written past the page cache, where the system can: what is published is on the disk, and copying it into a cache first
//! costs more than all the rest. One thread writes blocks while the next are filled; what is less than a block goes the common way.
//! Memory: three blocks of 4 MiB.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use crate::fs;

/// Bytes that are written at once.
const BLOCK: usize = if cfg!(test) { 4 * ALIGNMENT } else { 4 << 20 };
/// Blocks that are filled or written.
const BLOCKS: usize = 3;
/// What disks want addresses, places and lengths to be multiples of.
const ALIGNMENT: usize = 4096;

/// How a file is opened that is written past the page cache.
#[cfg(target_os = "linux")]
const DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits().cast_signed();
/// No way to do so.
#[cfg(not(target_os = "linux"))]
const DIRECT: i32 = 0;

/// Memory whose start is aligned.
struct Block {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Block {
    fn new() -> Self {
        let memory = vec![0; BLOCK + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, length: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    /// Takes what there is room for; returns the rest.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(BLOCK - self.length));
        let from = self.start + self.length;
        self.memory[from..from + taken.len()].copy_from_slice(taken);
        self.length += taken.len();
        rest
    }
}

/// A file, opened twice.
struct Target {
    path: PathBuf,
    file: File,
    /// Past the page cache; none where the file system refuses that.
    direct: Option<File>,
}

impl Target {
    fn create(path: &Path) -> Result<Self, fs::Error> {
        let file = fs::create(path)?;
        let direct = OpenOptions::new().write(true).custom_flags(DIRECT).open(path);
        Ok(Self { path: path.to_owned(), file, direct: direct.ok().filter(|_| DIRECT != 0) })
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), fs::Error> {
        let direct = self.direct.as_ref().filter(|_| bytes.len() == BLOCK);
        let written = match direct.map(|direct| direct.write_all_at(bytes, at)) {
            // A disk that wants more than this alignment, or wrote less than it was given.
            Some(Err(error)) if error.kind() == ErrorKind::InvalidInput => self.file.write_all_at(bytes, at),
            Some(written) => written,
            None => self.file.write_all_at(bytes, at),
        };
        written.map_err(fs::error("write", &self.path))
    }
}

/// A block of a file, and where it belongs.
struct Order {
    target: Arc<Target>,
    block: Block,
    at: u64,
}

/// The thread that writes the blocks of files.
pub struct Disk {
    queue: SyncSender<Order>,
    give_back: Sender<Result<Block, fs::Error>>,
    free: Receiver<Result<Block, fs::Error>>,
    thread: JoinHandle<()>,
}

impl Disk {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (queue, orders) = sync_channel::<Order>(BLOCKS);
        let (give_back, free) = channel();
        (0..BLOCKS).for_each(|_| give_back.send(Ok(Block::new())).unwrap_or_default());
        let done = give_back.clone();
        let write = move || {
            for Order { target, mut block, at } in orders {
                let written = target.write(block.bytes(), at);
                block.length = 0;
                done.send(written.map(|()| block)).unwrap_or_default();
            }
        };
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(write)?;
        Ok(Self { queue, give_back, free, thread })
    }

    /// Waits for all blocks.
    pub fn finish(self) -> Result<(), fs::Error> {
        drop((self.queue, self.give_back));
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.free.iter().try_for_each(|block| block.map(drop))
    }

    /// A block to fill, waiting while all are being written.
    ///
    /// # Errors
    /// That of a block which could not be written.
    fn block(&self) -> Result<Block, fs::Error> {
        self.free.recv().unwrap_or_else(|_| Ok(Block::new()))
    }
}

/// A file in the making.
pub struct Output<'a> {
    disk: &'a Disk,
    target: Arc<Target>,
    block: Block,
    /// Where the block belongs.
    at: u64,
}

impl<'a> Output<'a> {
    /// Creates (or truncates) a file.
    pub fn create(path: &Path, disk: &'a Disk) -> Result<Self, fs::Error> {
        Ok(Self { disk, target: Arc::new(Target::create(path)?), block: disk.block()?, at: 0 })
    }

    /// Appends bytes. An error may be that of bytes before.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), fs::Error> {
        let mut rest = self.block.fill(bytes);
        while self.block.length == BLOCK {
            let block = std::mem::replace(&mut self.block, self.disk.block()?);
            let order = Order { target: self.target.clone(), block, at: self.at };
            // A thread that is gone says why when it is joined.
            self.disk.queue.send(order).unwrap_or_default();
            self.at += BLOCK as u64;
            rest = self.block.fill(rest);
        }
        Ok(())
    }

    /// Writes what is less than a block. Other blocks may be on their way until [`Disk::finish`].
    pub fn finish(self) -> Result<(), fs::Error> {
        let Self { disk, target, mut block, at } = self;
        target.write(block.bytes(), at)?;
        block.length = 0;
        disk.give_back.send(Ok(block)).unwrap_or_default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_all_lengths_hold_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::start().unwrap();
        let lengths = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 7 * BLOCK + 5];
        let bytes = |length| {
            (0..length)
                .map(|at: usize| u8::try_from((at * 31 + at / 251) % 253).unwrap())
                .collect::<Vec<u8>>()
        };
        for (number, &length) in lengths.iter().enumerate() {
            let mut output = Output::create(&folder.path().join(number.to_string()), &disk).unwrap();
            for part in bytes(length).chunks([7, 1000, 3 * BLOCK][number % 3]) {
                output.write(part).unwrap();
            }
            output.finish().unwrap();
        }
        disk.finish().unwrap();
        for (number, &length) in lengths.iter().enumerate() {
            assert_eq!(
                std::fs::read(folder.path().join(number.to_string())).unwrap(),
                bytes(length),
                "{length}"
            );
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_told_with_the_path() {
        let disk = Disk::start().unwrap();
        let mut output = Output::create(Path::new("/dev/full"), &disk).unwrap();
        let written = (0..9).try_for_each(|_| output.write(&[1; BLOCK])).and_then(|()| output.finish());
        let error = written.and_then(|()| disk.finish()).unwrap_err().to_string();
        assert_eq!(error, "cannot write `/dev/full`: no space left on device");
    }
}
