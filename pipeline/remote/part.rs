//! A file in the making: held by one process, hashed as it grows, gone on from after an interruption.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Error, Fetched};
use crate::fs;
use crate::observer::Stop;

/// Between two looks at whether another process is done with the file.
const TICK: Duration = Duration::from_millis(100);

/// Bytes hashed between two looks at whether to stop.
const BLOCK: usize = 1 << 20;

/// The hashes of what has come so far.
#[derive(Clone)]
struct Sums {
    bytes: u64,
    blake3: blake3::Hasher,
    sha256: ring::digest::Context,
}

impl Sums {
    fn new() -> Self {
        let sha256 = ring::digest::Context::new(&ring::digest::SHA256);
        Self { bytes: 0, blake3: blake3::Hasher::new(), sha256 }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.blake3.update(bytes);
        self.sha256.update(bytes);
    }

    fn fetched(&self, path: &Path) -> Fetched {
        let digest = self.sha256.clone().finish();
        let sha256 = hex(digest.as_ref());
        let blake3 = self.blake3.finalize().to_hex().to_string();
        Fetched { path: path.to_owned(), bytes: self.bytes, blake3, sha256 }
    }
}

/// A file that grows.
pub struct Part {
    path: PathBuf,
    file: File,
    sums: Sums,
    /// Holds bytes of an earlier process or an earlier attempt.
    resumed: bool,
}

impl Part {
    /// Takes the file for this process, waiting for another one that has it; reads what is there already. `None`
    /// when someone asked to stop.
    pub async fn open(path: &Path, stop: &Stop) -> Result<Option<Self>, Error> {
        let folder = path.parent().unwrap_or(Path::new("."));
        loop {
            fs::create_dir_all(folder)?;
            let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
            let file = open.map_err(fs::error("open", path))?;
            match file.try_lock() {
                Ok(()) if is_at(&file, path) => {
                    let sums = read(&file, path, stop)?;
                    let resumed = sums.as_ref().is_some_and(|sums| sums.bytes > 0);
                    return Ok(sums.map(|sums| Self { path: path.to_owned(), file, sums, resumed }));
                }
                // The other process has renamed or removed it meanwhile.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => tokio::time::sleep(TICK).await,
                Err(TryLockError::Error(error)) => return Err(fs::error("lock", path)(error).into()),
            }
            if stop.is_requested() {
                return Ok(None);
            }
        }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.sums.bytes
    }

    /// Whether some of it came earlier.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The bytes so far as if they were all.
    pub fn so_far(&self) -> Fetched {
        self.sums.fetched(&self.path)
    }

    /// What comes next will come on top of what is there.
    pub fn resume(&mut self) {
        self.resumed = self.sums.bytes > 0;
    }

    /// Forgets all that came.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).map_err(fs::error("write", &self.path))?;
        self.file.rewind().map_err(fs::error("write", &self.path))?;
        self.sums = Sums::new();
        self.resumed = false;
        Ok(())
    }

    /// Adds bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(fs::error("write", &self.path))?;
        self.sums.add(bytes);
        Ok(())
    }

    /// Gives the file its name.
    pub fn publish(self, to: &Path) -> Result<Fetched, Error> {
        self.file.sync_all().map_err(fs::error("sync", &self.path))?;
        fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
        std::fs::rename(&self.path, to).map_err(fs::error("rename to", to))?;
        Ok(self.sums.fetched(to))
    }

    /// Removes the file.
    pub fn remove(self) -> Result<(), Error> {
        Ok(std::fs::remove_file(&self.path).map_err(fs::error("remove", &self.path))?)
    }
}

/// The size and the hashes of a whole file; `None` when someone asked to stop.
pub fn hashed(path: &Path, stop: &Stop) -> Result<Option<Fetched>, Error> {
    let sums = read(&fs::open(path)?, path, stop)?;
    Ok(sums.map(|sums| sums.fetched(path)))
}

fn read(mut file: &File, path: &Path, stop: &Stop) -> Result<Option<Sums>, Error> {
    let (mut sums, mut block) = (Sums::new(), vec![0; BLOCK]);
    loop {
        let count = file.read(&mut block).map_err(fs::error("read", path))?;
        sums.add(&block[..count]);
        if count == 0 {
            return Ok(Some(sums));
        }
        if stop.is_requested() {
            return Ok(None);
        }
    }
}

/// Whether an open file is the one that the path names now.
fn is_at(file: &File, path: &Path) -> bool {
    let named = std::fs::metadata(path);
    let (Ok(open), Ok(named)) = (file.metadata(), named) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
        text
    })
}
