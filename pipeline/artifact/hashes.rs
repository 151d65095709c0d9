//! blake3 of files, remembered by (path, size, modification time, inode), so that an unchanged terabyte is not read twice.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::fs;

/// Bytes that are read before they are hashed; tests have small files.
const READ_BYTES: u64 = if cfg!(test) { 64 } else { 16 << 20 };

/// The memory of hashes; safe to share between threads.
#[derive(Debug, Default)]
pub struct Hashes {
    known: Mutex<BTreeMap<PathBuf, Known>>,
}

/// What a file looked like when it was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    bytes: u64,
    modified: (i64, i64),
    inode: u64,
    blake3: String,
}

impl Hashes {
    /// Reads the memory kept in `path`; an absent or unreadable one is empty, since it only saves time.
    pub fn load(path: &Path) -> Self {
        let known = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { known: Mutex::new(known.unwrap_or_default()) }
    }

    /// Keeps the memory in `path`, without files that are gone.
    pub fn save(&self, path: &Path) -> Result<(), fs::Error> {
        let mut known = self.lock().clone();
        known.retain(|file, _| file.exists());
        let json = serde_json::to_vec_pretty(&known).map_err(std::io::Error::other);
        fs::write_atomic(path, &json.map_err(fs::error("write", path))?)
    }

    /// The blake3 of a file, in hexadecimal.
    pub fn of(&self, path: &Path) -> Result<String, fs::Error> {
        let key = std::path::absolute(path).map_err(fs::error("find", path))?;
        let before = look(path)?;
        if let Some(known) = self.lock().get(&key)
            && (known.bytes, known.modified, known.inode) == before
        {
            return Ok(known.blake3.clone());
        }
        let blake3 = hash_file(path)?;
        let (bytes, modified, inode) = before;
        self.lock().insert(key, Known { bytes, modified, inode, blake3: blake3.clone() });
        Ok(blake3)
    }

    /// Remembers a hash that was just computed.
    pub fn remember(&self, path: &Path, blake3: &str) -> Result<(), fs::Error> {
        let key = std::path::absolute(path).map_err(fs::error("find", path))?;
        let (bytes, modified, inode) = look(path)?;
        self.lock().insert(key, Known { bytes, modified, inode, blake3: blake3.to_owned() });
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Known>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn look(path: &Path) -> Result<(u64, (i64, i64), u64), fs::Error> {
    let metadata = std::fs::metadata(path).map_err(fs::error("read", path))?;
    Ok((metadata.len(), (metadata.mtime(), metadata.mtime_nsec()), metadata.ino()))
}

/// The blake3 of a file's content, in hexadecimal; reads it whole, and hashes on every core. Memory: [`READ_BYTES`]. It is
/// not mapped: a map would count as memory, and end the program where another cuts the file off.
pub fn hash_file(path: &Path) -> Result<String, fs::Error> {
    let (mut hasher, mut file) = (blake3::Hasher::new(), fs::open(path)?);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        file.by_ref().take(READ_BYTES).read_to_end(&mut buffer).map_err(fs::error("read", path))?;
        if buffer.is_empty() {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update_rayon(&buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_hash_of_its_content_however_often_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, 63, 64, 65, 1000] {
            let path = folder.path().join(length.to_string());
            let content: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            std::fs::write(&path, &content).unwrap();
            assert_eq!(hash_file(&path).unwrap(), blake3::hash(&content).to_hex().as_str(), "{length}");
        }
    }
}
