//! Shard sets that are not on this machine: the manifest first, then the files that are needed, each compared with
//! the manifest's blake3 as it comes. Memory: the manifest, and what [`crate::remote`] needs.

use std::path::Path;

use super::{Error, ShardSet};
use crate::artifact::{Artifact, FileEntry, Hashes, MANIFEST};
use crate::remote::{self, Address, Expected, Remote, Wanted, Watch};

/// What of a set is needed.
#[derive(Debug, Clone, Copy)]
pub enum Need<'a> {
    /// The manifest alone.
    Manifest,
    /// The manifest, the tokenizer and the files of these splits.
    Splits(&'a [String]),
    /// Every file.
    Everything,
}

/// Brings what is needed of the set beneath an address into the cache and opens it there.
///
/// An address with a pin, the sha256 of `manifest.json`, does not touch the network once the files are there. One
/// without asks for the manifest each time, for it may have changed; files that are there are not fetched again.
///
/// # Errors
/// When something cannot be fetched or is not what the manifest says, when what is there is no shard set, when it has
/// no such split.
pub fn open(address: &Address, need: Need, remote: &Remote, watch: Watch) -> Result<Artifact, Error> {
    let manifest = address.join(MANIFEST);
    let fetched = match address.sha256() {
        Some(sha256) => remote.pinned(&manifest, sha256, &Hashes::default(), watch)?,
        None => remote.unpinned(&manifest, watch)?,
    };
    let folder = fetched.path.parent().unwrap_or(Path::new("."));
    let at = |source| Error::At { address: manifest.to_string(), source: Box::new(source) };
    let artifact = read(folder, need).map_err(at)?;
    complete(address, &artifact, need, remote, watch)?;
    Ok(artifact)
}

/// The sha256 that pins a set, by the manifest in the cache.
pub fn pin(artifact: &Artifact) -> Option<&str> {
    artifact.folder.file_name().and_then(|name| name.to_str())
}

/// Opens the manifest and checks all that can be checked before anything is fetched.
fn read(folder: &Path, need: Need) -> Result<Artifact, Error> {
    let artifact = Artifact::open(folder)?;
    let set = ShardSet::from_artifact(&artifact)?;
    if let Need::Splits(splits) = need {
        splits.iter().try_for_each(|split| set.split(split).map(drop))?;
    }
    match artifact.manifest.files.iter().find(|entry| !lies_beneath(&entry.path)) {
        Some(entry) => Err(Error::NotShards {
            path: folder.to_owned(),
            reason: format!("it has a file `{}`, expected a path within the folder", entry.path),
        }),
        None => Ok(artifact),
    }
}

/// Whether a path leads to a place within the folder it starts from, other than the manifest's.
fn lies_beneath(path: &str) -> bool {
    path != MANIFEST && remote::lies_beneath(path)
}

fn complete(
    address: &Address,
    artifact: &Artifact,
    need: Need,
    remote: &Remote,
    watch: Watch,
) -> Result<(), Error> {
    let set = ShardSet::from_artifact(artifact)?;
    let of_splits = |splits: &[String], path: &str| {
        let files = splits.iter().filter_map(|split| set.details.splits.get(split));
        files.flat_map(|split| &split.files).any(|file| file.path == path)
    };
    let is_needed = |entry: &&FileEntry| match need {
        Need::Manifest => false,
        Need::Splits(splits) => entry.path == set.details.tokenizer || of_splits(splits, &entry.path),
        Need::Everything => true,
    };
    let wanted = artifact.manifest.files.iter().filter(is_needed).map(|entry| Wanted {
        address: address.join(&entry.path),
        to: Some(artifact.path(&entry.path)),
        expected: Expected::Blake3(entry.bytes, entry.blake3.clone()),
    });
    Ok(remote.fetch(&wanted.collect::<Vec<_>>(), watch)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_in_their_folder() {
        for (path, expected) in [
            ("train-00000.parquet", true),
            ("a/b", true),
            ("../a", false),
            ("a/../../b", false),
            ("/etc/passwd", false),
            ("./a", false),
            ("manifest.json", false),
            ("", false),
        ] {
            assert_eq!(lies_beneath(path), expected, "{path}");
        }
    }
}
