//! Publishing: an artifact is built in a staging folder, synced, and renamed into place.
//!
//! A reader sees the old artifact, none, or the new one whole; never a part of one. What a killed process leaves behind
//! lies in the staging folder, which the next run clears.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Artifact, Counts, Error, FileEntry, Hashes, MANIFEST, Manifest, hashes};
use crate::fs;

/// The folder, beside the artifacts, in which they are built.
pub const STAGING: &str = ".staging";

/// The folder, beside the artifacts, for stages that go on where an interrupted run stopped.
pub const PARTIAL: &str = ".partial";

/// An artifact in the making.
#[derive(Debug)]
pub struct Staging {
    work: PathBuf,
    stage: String,
    folder: PathBuf,
}

/// A folder within an artifact that is an artifact of its own: it can be opened, checked and sent by itself.
#[derive(Debug)]
pub struct Part {
    /// Relative to the artifact's folder, without a `/`.
    pub folder: String,
    /// Its account.
    pub counts: Counts,
    /// What only it has to say.
    pub details: Value,
}

impl Staging {
    /// Makes an empty staging folder for a stage.
    pub fn begin(work: &Path, stage: &str) -> Result<Self, Error> {
        let folder = work.join(STAGING).join(stage);
        remove(&folder)?;
        fs::create_dir_all(&folder)?;
        Ok(Self { work: work.to_owned(), stage: stage.to_owned(), folder })
    }

    /// Makes an empty folder for a stage beside which other stages are made, by other processes, and removes what those left
    /// that made the same one.
    pub fn begin_apart(work: &Path, stage: &str) -> Result<Self, Error> {
        let parent = work.join(STAGING);
        fs::create_dir_all(&parent)?;
        let prefix = format!("{stage}~"); // no name of a stage holds a `~`
        for entry in std::fs::read_dir(&parent).map_err(fs::error("list", &parent))? {
            let entry = entry.map_err(fs::error("list", &parent))?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                remove(&entry.path())?;
            }
        }
        let folder = fs::temporary_folder(&parent, &prefix)?.keep();
        Ok(Self { work: work.to_owned(), stage: stage.to_owned(), folder })
    }

    /// Goes on in what an interrupted run of the same action left behind, or makes an empty folder; see [`only_partial`].
    pub fn resume(work: &Path, stage: &str, action_key: &str) -> Result<Self, Error> {
        let folder = only_partial(work, stage, action_key)?;
        Ok(Self { work: work.to_owned(), stage: stage.to_owned(), folder })
    }

    /// Where to write the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes everything that was written.
    pub fn abandon(self) -> Result<(), Error> {
        remove(&self.folder)
    }

    /// Writes the manifest of a part, which shares with the `whole` what it does not say for itself. To be called before
    /// [`Self::publish`]; the whole then lists the part's manifest, which should be volatile there, as its own is.
    pub fn seal_part(&self, whole: &Manifest, part: Part) -> Result<(), Error> {
        let (folder, prefix) = (self.folder.join(&part.folder), format!("{}/", part.folder));
        sweep(&folder)?;
        let within = |entry: &FileEntry| {
            let path = entry.path.strip_prefix(&prefix)?.to_owned();
            Some(FileEntry { path, ..entry.clone() })
        };
        let known: Vec<FileEntry> = whole.files.iter().filter_map(within).collect();
        let mut manifest = Manifest {
            stage: format!("{}/{}", whole.stage, part.folder),
            counts: part.counts,
            details: part.details,
            files: sync_and_hash(&folder, &[], &known)?,
            ..whole.clone()
        };
        manifest.content = content(&manifest);
        write_manifest(&folder, &manifest)
    }

    /// Syncs and hashes every file, writes the manifest last, and puts the folder in the place of the old one.
    /// Fills in `files` and `content` of the manifest: a file that it lists already, with the size that it has, was hashed
    /// when it was written and is not read again. `volatile` names the files that hold wall times, in whatever folder.
    pub fn publish(
        self,
        mut manifest: Manifest,
        volatile: &[&str],
        hashes: &Hashes,
    ) -> Result<Artifact, Error> {
        let known = std::mem::take(&mut manifest.files);
        sweep(&self.folder)?;
        manifest.files = sync_and_hash(&self.folder, volatile, &known)?;
        manifest.content = content(&manifest);
        write_manifest(&self.folder, &manifest)?;
        let place = self.work.join(&self.stage);
        self.replace(&place)?;
        for entry in &manifest.files {
            hashes.remember(&place.join(&entry.path), &entry.blake3)?;
        }
        Ok(Artifact { folder: place, manifest })
    }

    fn replace(&self, place: &Path) -> Result<(), Error> {
        let own = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let old = self.work.join(STAGING).join(format!("{own}.old"));
        remove(&old)?;
        fs::create_dir_all(&self.work.join(STAGING))?;
        if place.exists() {
            std::fs::rename(place, &old).map_err(fs::error("move away", place))?;
        }
        std::fs::rename(&self.folder, place).map_err(fs::error("rename to", place))?;
        sync_folder(&self.work)?;
        remove(&old)
    }
}

/// The folder in which runs of a stage with this action key leave what the next of them goes on with; it is made.
pub fn partial(work: &Path, stage: &str, action_key: &str) -> Result<PathBuf, Error> {
    let folder = work.join(PARTIAL).join(stage).join(action_key);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The same, and removes what runs of the stage with other action keys left.
pub fn only_partial(work: &Path, stage: &str, action_key: &str) -> Result<PathBuf, Error> {
    let folder = partial(work, stage, action_key)?;
    let parts = work.join(PARTIAL).join(stage);
    for entry in std::fs::read_dir(&parts).map_err(fs::error("list", &parts))? {
        let path = entry.map_err(fs::error("list", &parts))?.path();
        if path != folder {
            remove(&path)?;
        }
    }
    Ok(folder)
}

/// Removes what earlier, interrupted runs left in the staging folder.
pub fn clear(work: &Path) -> Result<(), Error> {
    remove(&work.join(STAGING))
}

/// Removes a folder with all that it holds, if it is there.
pub fn remove(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(fs::error("remove", folder)(e).into()),
        _ => Ok(()),
    }
}

/// Removes the files that a killed run was writing.
fn sweep(folder: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(fs::error("list", folder))? {
        let entry = entry.map_err(fs::error("list", folder))?;
        let path = entry.path();
        if path.is_dir() {
            sweep(&path)?;
        } else if entry.file_name().to_string_lossy().starts_with(fs::TEMPORARY) {
            std::fs::remove_file(&path).map_err(fs::error("remove", &path))?;
        }
    }
    Ok(())
}

/// Syncs every file of a folder to the disk, and hashes those that are not `known`; `volatile` names those that hold wall
/// times.
pub fn sync_and_hash(folder: &Path, volatile: &[&str], known: &[FileEntry]) -> Result<Vec<FileEntry>, Error> {
    let mut names = Vec::new();
    list(folder, folder, &mut names)?;
    names.sort();
    let known: HashMap<&str, &FileEntry> = known.iter().map(|entry| (entry.path.as_str(), entry)).collect();
    let seal = |name: String| {
        let known = known.get(name.as_str()).copied();
        seal(folder, name, volatile, known)
    };
    names.into_iter().map(seal).collect()
}

fn seal(
    folder: &Path,
    name: String,
    volatile: &[&str],
    known: Option<&FileEntry>,
) -> Result<FileEntry, Error> {
    let path = folder.join(&name);
    let file = fs::open(&path)?;
    file.sync_all().map_err(fs::error("sync", &path))?;
    let bytes = file.metadata().map_err(fs::error("read", &path))?.len();
    let known = known.filter(|known| known.bytes == bytes);
    let blake3 = known.map_or_else(|| hashes::hash_file(&path), |known| Ok(known.blake3.clone()))?;
    let volatile = volatile.iter().any(|volatile| path.ends_with(volatile));
    Ok(FileEntry { path: name, bytes, blake3, volatile })
}

fn list(root: &Path, folder: &Path, names: &mut Vec<String>) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(fs::error("list", folder))? {
        let path = entry.map_err(fs::error("list", folder))?.path();
        if path.is_dir() {
            list(root, &path, names)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            names.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), Error> {
    let path = folder.join(MANIFEST);
    fs::write_json(&path, serde_json::to_vec_pretty(manifest))?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    let file = File::open(folder).map_err(fs::error("open", folder))?;
    Ok(file.sync_all().map_err(fs::error("sync", folder))?)
}

/// The hash that stands for what an artifact holds: its lasting files and what they refer to.
fn content(manifest: &Manifest) -> String {
    let mut hasher = blake3::Hasher::new();
    for entry in manifest.files.iter().filter(|entry| !entry.volatile) {
        hasher.update(format!("file {} {}\n", entry.path, entry.blake3).as_bytes());
    }
    for reference in &manifest.references {
        hasher.update(format!("refers to {} {}\n", reference.role, reference.content).as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Counts;

    fn manifest() -> Manifest {
        Manifest {
            schema: crate::artifact::SCHEMA.to_owned(),
            tool: "test".to_owned(),
            stage: "a".to_owned(),
            kind: "ingest".to_owned(),
            algorithm: 1,
            action_key: String::new(),
            content: String::new(),
            config: serde_json::Value::Null,
            inputs: vec![],
            sources: vec![],
            references: vec![],
            counts: Counts::default(),
            files: vec![],
            details: serde_json::Value::Null,
        }
    }

    fn publish(work: &Path, text: &str, log: &str) -> Artifact {
        let staging = Staging::begin(work, "a").unwrap();
        std::fs::write(staging.folder().join("data"), text).unwrap();
        std::fs::write(staging.folder().join("log"), log).unwrap();
        staging.publish(manifest(), &["log"], &Hashes::default()).unwrap()
    }

    #[test]
    fn content_depends_on_lasting_files_only() {
        let work = tempfile::tempdir().unwrap();
        let first = publish(work.path(), "x", "1 s").manifest.content;
        assert_eq!(first, publish(work.path(), "x", "2 s").manifest.content);
        assert_ne!(first, publish(work.path(), "y", "1 s").manifest.content);
    }

    #[test]
    fn what_a_killed_run_was_writing_is_not_published() {
        let work = tempfile::tempdir().unwrap();
        let staging = Staging::resume(work.path(), "a", "key").unwrap();
        std::fs::create_dir(staging.folder().join("inner")).unwrap();
        for name in ["data", ".writing-x", "inner/data", "inner/.writing-y"] {
            std::fs::write(staging.folder().join(name), "x").unwrap();
        }
        let artifact = staging.publish(manifest(), &[], &Hashes::default()).unwrap();
        let files: Vec<_> = artifact.manifest.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(files, ["data", "inner/data"]);
        assert!(!artifact.folder.join("inner/.writing-y").exists());
    }

    #[test]
    fn a_resumed_artifact_takes_the_place_of_an_old_one() {
        let work = tempfile::tempdir().unwrap();
        publish(work.path(), "x", "");
        clear(work.path()).unwrap();
        let staging = Staging::resume(work.path(), "a", "key").unwrap();
        std::fs::write(staging.folder().join("data"), "y").unwrap();
        let artifact = staging.publish(manifest(), &[], &Hashes::default()).unwrap();
        assert_eq!(std::fs::read_to_string(artifact.path("data")).unwrap(), "y");
    }

    #[test]
    fn what_is_made_beside_other_stages_takes_the_place_of_what_was_left() {
        let work = tempfile::tempdir().unwrap();
        let begin = |stage| Staging::begin_apart(work.path(), stage).unwrap();
        let (left, other) = (begin("a"), begin("a-b"));
        let staging = begin("a");
        assert!(!left.folder().exists() && other.folder().exists() && staging.folder().exists());
        publish(work.path(), "x", "");
        std::fs::write(staging.folder().join("data"), "y").unwrap();
        let artifact = staging.publish(manifest(), &[], &Hashes::default()).unwrap();
        assert_eq!(std::fs::read_to_string(artifact.path("data")).unwrap(), "y");
        let mode = std::fs::metadata(&artifact.folder).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o700, 0o700);
    }

    #[test]
    fn damage_is_noticed_with_the_path() {
        let work = tempfile::tempdir().unwrap();
        let artifact = publish(work.path(), "x", "");
        artifact.verify(&Hashes::default()).unwrap();
        std::fs::write(artifact.path("data"), "z").unwrap();
        let message = artifact.verify(&Hashes::default()).unwrap_err().to_string();
        assert!(message.contains("data` is damaged: its blake3 is"), "{message}");
        std::fs::remove_file(artifact.path("data")).unwrap();
        let message = artifact.verify(&Hashes::default()).unwrap_err().to_string();
        assert!(message.ends_with("data` is damaged: it is missing"), "{message}");
    }

    #[test]
    fn staging_is_invisible_until_published() {
        let work = tempfile::tempdir().unwrap();
        let staging = Staging::begin(work.path(), "a").unwrap();
        std::fs::write(staging.folder().join("data"), "x").unwrap();
        assert!(Artifact::open(&work.path().join("a")).is_err());
        clear(work.path()).unwrap();
        assert!(!work.path().join(STAGING).exists());
    }
}
