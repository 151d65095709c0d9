//! Files that are not on this machine: objects at `https://`, `http://` and `s3://`, brought into the cache, a folder
//! of this machine, and mapped or read there as any file; and a [`Depot`] in a bucket, which keeps what is put there.
//!
//! In the cache `sha256/HASH/NAME` is the object whose content has that hash, and `sha256/HASH.json` says its name,
//! size and blake3. What belongs to a manifest lies beside it, in `sha256/HASH-OF-THE-MANIFEST/`. An object is written
//! to a file ending in `.part`, checked, and renamed; what an interrupted download left is gone on from. Memory: a
//! chunk (kilobytes) of each of the [`PARALLEL`] downloads at once.

mod address;
#[cfg(feature = "remote")]
mod ask;
#[cfg_attr(not(feature = "remote"), path = "remote/no_depot.rs")]
mod depot;
#[cfg(feature = "remote")]
mod download;
#[cfg(feature = "remote")]
mod part;
#[cfg(all(test, feature = "remote"))]
#[path = "../tests/behaviour/server.rs"]
mod server;
#[cfg(feature = "remote")]
mod store;
#[cfg(all(test, feature = "remote"))]
mod tests;

use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

pub use address::{Address, hash, is_address};
pub use depot::Depot;

use crate::artifact::Hashes;
use crate::fs;
use crate::observer::{Event, Observer, Stop, Unit};

/// Downloads at the same time.
pub const PARALLEL: usize = 8;

/// Why an object could not be brought here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file call failed.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// The text is no address.
    #[error("cannot fetch `{found}`: {reason}")]
    Address {
        /// What was given.
        found: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// The server does not give it.
    #[error("cannot fetch `{address}`: {reason}")]
    Failed {
        /// Where it should be.
        address: String,
        /// What the server or the network answered, with the HTTP status, and what was expected.
        reason: String,
    },
    /// The server does not keep it.
    #[error("cannot put `{address}`: {reason}")]
    NotKept {
        /// Where it should be.
        address: String,
        /// What the server or the network answered, with the HTTP status, and what was expected.
        reason: String,
    },
    /// Something else is there.
    #[error("`{address}` is not what was expected: its {what} is {found}, expected {expected}")]
    Differs {
        /// Where it was fetched.
        address: String,
        /// `sha256`, `blake3` or `size in bytes`.
        what: &'static str,
        /// Of what is there.
        found: String,
        /// By the pin or the manifest.
        expected: String,
    },
    /// Someone asked to stop.
    #[error("stopped while fetching `{address}`; the same command goes on from here")]
    Stopped {
        /// What was being fetched.
        address: String,
    },
    /// This binary reads files of this machine only.
    #[error("cannot fetch `{address}`: this genomill was built without the feature `remote`")]
    Unavailable {
        /// What was to be fetched.
        address: String,
    },
}

/// How to reach objects, and where to keep them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cache.
    pub cache: PathBuf,
    /// The variables `AWS_...` by name: endpoint, region, credentials.
    pub aws: Vec<(String, String)>,
    /// Whether `http://` may leave this machine.
    pub allow_http: bool,
    /// Attempts in a row that bring nothing new before it is a failure.
    pub attempts: u32,
    /// The wait before the second attempt; doubles with each.
    pub backoff: Duration,
    /// How long a server may say nothing.
    pub stall: Duration,
}

impl Settings {
    /// The defaults: 6 attempts over 31 s, a minute of silence.
    pub fn new(cache: PathBuf) -> Self {
        Self {
            cache,
            aws: Vec::new(),
            allow_http: false,
            attempts: 6,
            backoff: Duration::from_secs(1),
            stall: Duration::from_mins(1),
        }
    }
}

/// Who watches a download and may stop it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// What the downloads are for: the stage, or the command.
    pub stage: &'a str,
    /// Where progress goes.
    pub observer: &'a dyn Observer,
    /// The request to stop.
    pub stop: &'a Stop,
}

impl Watch<'_> {
    fn progress(&self, done: u64, total: Option<u64>) {
        self.observer.event(&Event::Progress {
            stage: self.stage.to_owned(),
            done,
            total,
            unit: Unit::Bytes,
        });
    }

    fn note(&self, message: String) {
        self.observer.event(&Event::Note { stage: Some(self.stage.to_owned()), message });
    }
}

/// What an object must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It has this sha256.
    Sha256(String),
    /// It has this size and this blake3.
    Blake3(u64, String),
    /// Whatever it is; its hash is wanted.
    Anything,
}

/// One object to bring here.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where it is.
    pub address: Address,
    /// The file that it becomes; without one, that of the cache which its hash names.
    pub to: Option<PathBuf>,
    /// What it must be.
    pub expected: Expected,
}

/// An object that was brought here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Hash of its content.
    pub blake3: String,
    /// Hash of its content.
    pub sha256: String,
}

/// What a [`Depot`] says of something that it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// As they were put.
    pub bytes: Vec<u8>,
    /// When.
    pub put: SystemTime,
}

/// What became of something that a [`Depot`] was to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It is there since now.
    Now,
    /// Something was there already.
    There(Sealed),
}

/// Whether a path leads to a place within the folder it starts from.
pub fn lies_beneath(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// What `sha256/HASH.json` says.
#[derive(Serialize, Deserialize)]
struct Known {
    name: String,
    bytes: u64,
    blake3: String,
}

/// The way to objects that are not here.
#[derive(Debug)]
pub struct Remote {
    settings: Settings,
}

impl Remote {
    /// Touches neither the network nor the cache.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// The folder that downloads are kept in.
    pub fn cache(&self) -> &Path {
        &self.settings.cache
    }

    /// The object whose sha256 is known: from the cache if it is there and unchanged (`hashes` saves reading it
    /// again), otherwise from its address.
    pub fn pinned(
        &self,
        address: &Address,
        sha256: &str,
        hashes: &Hashes,
        watch: Watch,
    ) -> Result<Fetched, Error> {
        if let Some(fetched) = self.cached(sha256, hashes)? {
            return Ok(fetched);
        }
        let expected = Expected::Sha256(sha256.to_owned());
        self.object(&Wanted { address: address.clone(), to: None, expected }, watch)
    }

    /// The object that an address has now, whatever it is. Always asks.
    pub fn unpinned(&self, address: &Address, watch: Watch) -> Result<Fetched, Error> {
        let wanted = Wanted { address: address.clone(), to: None, expected: Expected::Anything };
        self.object(&wanted, watch)
    }

    /// Brings objects to their places, several at a time; those that are there with the right size are left alone.
    pub fn fetch(&self, wanted: &[Wanted], watch: Watch) -> Result<(), Error> {
        let missing: Vec<&Wanted> = wanted.iter().filter(|wanted| !is_there(wanted)).collect();
        if missing.is_empty() { Ok(()) } else { self.download(&missing, watch).map(drop) }
    }

    /// Brings one object to the place in the cache that its hash names.
    fn object(&self, wanted: &Wanted, watch: Watch) -> Result<Fetched, Error> {
        let address = wanted.address.to_string();
        let fetched = self.download(&[wanted], watch)?.into_iter().next();
        let fetched = fetched.ok_or(Error::Unavailable { address })?;
        let name = fetched.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let known =
            Known { name: name.unwrap_or_default(), bytes: fetched.bytes, blake3: fetched.blake3.clone() };
        let path = self.account(&fetched.sha256);
        fs::write_json(&path, serde_json::to_vec_pretty(&known))?;
        Ok(fetched)
    }

    /// The object in the cache with a hash, if it is whole.
    fn cached(&self, sha256: &str, hashes: &Hashes) -> Result<Option<Fetched>, Error> {
        let known = std::fs::read(self.account(sha256)).ok();
        let Some(known) = known.and_then(|json| serde_json::from_slice::<Known>(&json).ok()) else {
            return Ok(None);
        };
        let path = self.folder(sha256).join(&known.name);
        if std::fs::metadata(&path).is_ok_and(|file| file.len() == known.bytes)
            && hashes.of(&path)? == known.blake3
        {
            let Known { bytes, blake3, .. } = known;
            return Ok(Some(Fetched { path, bytes, blake3, sha256: sha256.to_owned() }));
        }
        Ok(None)
    }

    /// The folder of the cache for what has a hash.
    fn folder(&self, sha256: &str) -> PathBuf {
        self.settings.cache.join("sha256").join(sha256)
    }

    fn account(&self, sha256: &str) -> PathBuf {
        self.settings.cache.join("sha256").join(format!("{sha256}.json"))
    }

    #[cfg(feature = "remote")]
    fn download(&self, wanted: &[&Wanted], watch: Watch) -> Result<Vec<Fetched>, Error> {
        download::all(&self.settings, wanted, watch)
    }

    #[cfg(not(feature = "remote"))]
    #[expect(clippy::unused_self, reason = "the other build uses it")]
    fn download(&self, wanted: &[&Wanted], watch: Watch) -> Result<Vec<Fetched>, Error> {
        watch.note("only files of this machine can be read".to_owned());
        watch.progress(0, None);
        let address = wanted.first().map(|wanted| wanted.address.to_string()).unwrap_or_default();
        Err(Error::Unavailable { address })
    }
}

/// Whether the file is there with the size that it must have. Only whole and checked ones get their name.
fn is_there(wanted: &Wanted) -> bool {
    let is_so = |path: &Path| match (std::fs::metadata(path), &wanted.expected) {
        (Ok(file), Expected::Blake3(bytes, _)) => file.len() == *bytes,
        (Ok(file), _) => file.is_file(),
        _ => false,
    };
    wanted.to.as_deref().is_some_and(is_so)
}
