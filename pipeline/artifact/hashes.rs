//! blake3 of files, remembered by (path, size, modification time, inode), so that an unchanged terabyte is not read twice.

use std::collections::HashMap;
use std::fs::Metadata;
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
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    known: HashMap<PathBuf, Known>,
    /// Whether there is more, or other, than in the file that it was read from.
    changed: bool,
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
        let memory = Memory { known: known.unwrap_or_default(), changed: false };
        Self { memory: Mutex::new(memory) }
    }

    /// Keeps the memory in `path`, from which it was read, without files that are gone; if it is still the same, nothing is
    /// written.
    pub fn save(&self, path: &Path) -> Result<(), fs::Error> {
        let mut memory = self.lock();
        if !memory.changed {
            return Ok(());
        }
        memory.known.retain(|file, _| file.exists());
        fs::write_json(path, serde_json::to_vec(&memory.known))?;
        memory.changed = false;
        Ok(())
    }

    /// The same where other processes keep theirs in `path` too, one at a time: what they put there meanwhile stays.
    pub fn save_with_others(&self, path: &Path) -> Result<(), fs::Error> {
        if self.lock().changed {
            let others = Self::load(path).memory.into_inner();
            let others = others.unwrap_or_else(std::sync::PoisonError::into_inner).known;
            let mut memory = self.lock();
            for (file, known) in others {
                memory.known.entry(file).or_insert(known);
            }
        }
        self.save(path)
    }

    /// The blake3 of a file, in hexadecimal.
    pub fn of(&self, path: &Path) -> Result<String, fs::Error> {
        self.of_seen(path, &std::fs::metadata(path).map_err(fs::error("read", path))?)
    }

    /// The same where the file was just looked at.
    pub fn of_seen(&self, path: &Path, metadata: &Metadata) -> Result<String, fs::Error> {
        let key = std::path::absolute(path).map_err(fs::error("find", path))?;
        let now = Known::of(metadata, String::new());
        if let Some(known) = self.lock().known.get(&key)
            && known.is_like(&now)
        {
            return Ok(known.blake3.clone());
        }
        let blake3 = hash_file(path)?;
        self.lock().insert(key, Known { blake3: blake3.clone(), ..now });
        Ok(blake3)
    }

    /// Remembers a hash that was just computed.
    pub fn remember(&self, path: &Path, blake3: &str) -> Result<(), fs::Error> {
        let key = std::path::absolute(path).map_err(fs::error("find", path))?;
        let metadata = std::fs::metadata(path).map_err(fs::error("read", path))?;
        self.lock().insert(key, Known::of(&metadata, blake3.to_owned()));
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Memory {
    fn insert(&mut self, path: PathBuf, known: Known) {
        self.known.insert(path, known);
        self.changed = true;
    }
}

impl Known {
    fn of(metadata: &Metadata, blake3: String) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { bytes: metadata.len(), modified, inode: metadata.ino(), blake3 }
    }

    /// Whether a file that looked so once and so now is the same one.
    fn is_like(&self, other: &Self) -> bool {
        (self.bytes, self.modified, self.inode) == (other.bytes, other.modified, other.inode)
    }
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
    fn the_memory_is_written_only_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (memory, file) = (folder.path().join("hashes.json"), folder.path().join("file"));
        std::fs::write(&file, "x").unwrap();
        let inode = || std::fs::metadata(&memory).unwrap().ino();
        let hashes = Hashes::load(&memory);
        hashes.of(&file).unwrap();
        hashes.save(&memory).unwrap();
        let first = inode();
        for (text, written) in [("x", false), ("longer", true), ("longer", false)] {
            if written {
                std::fs::write(&file, text).unwrap();
            }
            let (before, hashes) = (inode(), Hashes::load(&memory));
            assert_eq!(hashes.of(&file).unwrap(), blake3::hash(text.as_bytes()).to_hex().as_str());
            hashes.save(&memory).unwrap();
            assert_eq!(inode() != before, written, "{text}");
        }
        assert_ne!(inode(), first);
    }

    #[test]
    fn what_others_remember_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join("hashes.json");
        let both = [Hashes::load(&memory), Hashes::load(&memory)];
        for (hashes, name) in both.iter().zip(["a", "b"]) {
            let file = folder.path().join(name);
            std::fs::write(&file, name).unwrap();
            hashes.of(&file).unwrap();
            hashes.save_with_others(&memory).unwrap();
        }
        assert_eq!(Hashes::load(&memory).lock().known.len(), 2);
    }

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
