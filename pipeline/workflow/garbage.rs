//! What lies in a work folder and no workflow needs: artifacts of stages that are gone, and leftovers that no run would go
//! on from. Folders without a manifest of ours are never touched. The partitions of a
//! stage stay, of whatever settings, while `run-task` makes one of them. Memory: the manifests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::config::Entry;
use super::execute::{clear_abandoned, hashes_file};
use super::lock::lock;
use super::plan::MadeFrom;
use super::status::bytes_in;
use super::{Error, Workflow};
use crate::artifact::staging::{PARTIAL, STAGING};
use crate::artifact::{Artifact, Hashes, MANIFEST, staging};
use crate::fs;
use crate::stage::Leaves;
use crate::stage::partition;

/// What every [`crate::artifact::SCHEMA`] begins with, of any version.
const ANY_SCHEMA: &str = "genomill/artifact/";

/// A folder that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Garbage {
    /// The folder.
    pub path: PathBuf,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Why nobody needs it.
    pub reason: String,
}

/// Finds what none of the workflows needs in their work folder, which they share, and removes it unless `keep`. Holds the
/// folder's lock meanwhile.
///
/// # Errors
/// When a run holds the folder, or something cannot be removed.
pub fn collect(workflows: &[&Workflow], work: &Path, keep: bool) -> Result<Vec<Garbage>, Error> {
    if !work.is_dir() {
        return Ok(Vec::new());
    }
    fs::create_dir_all(&work.join(".cache"))?;
    let _lock = lock(work)?;
    let found = find(workflows, work)?;
    if !keep {
        found.iter().try_for_each(|garbage| remove(work, &garbage.path))?;
        staging::clear(work)?;
        clear_abandoned(work)?;
    }
    Ok(found)
}

fn find(workflows: &[&Workflow], work: &Path) -> Result<Vec<Garbage>, Error> {
    let entries = || workflows.iter().flat_map(|workflow| &workflow.stages);
    let mut found = Vec::new();
    let mut add = |path: PathBuf, reason: String| {
        let bytes = bytes_in(&path);
        found.push(Garbage { path, bytes, reason });
    };
    for path in folders(&work.join(STAGING))? {
        add(path, "left by a run that ended early".to_owned());
    }
    let hashes = Hashes::load(&hashes_file(work));
    let making = partition::in_the_making(work);
    for path in folders(&work.join(PARTIAL))? {
        let is_made = making.iter().any(|(stage, _)| Some(stage.as_str()) == name(&path));
        if is_made || left_out(workflows, name(&path)) {
            continue;
        }
        let owners: Vec<_> = entries().filter(|entry| Some(entry.name.as_str()) == name(&path)).collect();
        if owners.iter().all(|entry| entry.kind().leaves == Leaves::Nothing) {
            add(path, "no stage goes on from it".to_owned());
            continue;
        }
        for part in folders(&path)? {
            if owners.iter().all(|entry| !resumes(entry, work, &hashes, &part)) {
                add(part, "made from other things than a run would go on with now".to_owned());
            } else if owners.iter().all(|entry| is_put_together(entry, work, &part)) {
                add(part, "the artifact made of it is there".to_owned());
            }
        }
    }
    let left_out = workflows.iter().flat_map(|workflow| &workflow.left_out).map(|left| left.name.clone());
    let needed = entries().map(|entry| entry.name.clone()).chain(left_out);
    let needed = with_references(needed.collect(), work);
    for path in folders(work)? {
        if name(&path).is_some_and(|name| !name.starts_with('.') && !needed.contains(name)) && is_ours(&path)
        {
            add(path, "no stage of this name".to_owned());
        }
    }
    Ok(found)
}

/// Whether a workflow has a stage of this name that its `when` leaves out: what was made of it waits for another run.
fn left_out(workflows: &[&Workflow], name: Option<&str>) -> bool {
    workflows.iter().flat_map(|workflow| &workflow.left_out).any(|left| Some(left.name.as_str()) == name)
}

/// Whether a run of this stage would go on from what lies in `part`; where that cannot be told, it might.
fn resumes(entry: &Entry, work: &Path, hashes: &Hashes, part: &Path) -> bool {
    let key = MadeFrom::now(entry, work, hashes).map(|made_from| made_from.action_key(entry));
    key.map_or(true, |key| name(part) == Some(key.as_str()))
}

/// Whether the artifact was published for which the partitions in `part` were made.
fn is_put_together(entry: &Entry, work: &Path, part: &Path) -> bool {
    let artifact = Artifact::open(&work.join(&entry.name));
    entry.kind().leaves == Leaves::Partitions
        && artifact.is_ok_and(|artifact| name(part) == Some(artifact.manifest.action_key.as_str()))
}

/// The stages, and those that their artifacts refer to: a stage that has another name now may still be what an artifact
/// lies on.
fn with_references(mut needed: BTreeSet<String>, work: &Path) -> BTreeSet<String> {
    let mut open: Vec<String> = needed.iter().cloned().collect();
    while let Some(stage) = open.pop() {
        let Ok(artifact) = Artifact::open(&work.join(&stage)) else { continue };
        for reference in artifact.manifest.references {
            if needed.insert(reference.stage.clone()) {
                open.push(reference.stage);
            }
        }
    }
    needed
}

/// Whether a folder holds a manifest of genomill, of this version or another.
fn is_ours(folder: &Path) -> bool {
    let manifest = std::fs::read(folder.join(MANIFEST)).ok();
    let manifest = manifest.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    manifest.is_some_and(|manifest| {
        manifest["schema"].as_str().is_some_and(|schema| schema.starts_with(ANY_SCHEMA))
    })
}

/// The folders in a folder, sorted; links are none. Nothing where there is no folder.
fn folders(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fs::error("list", folder)(error).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fs::error("list", folder))?;
        if entry.file_type().map_err(fs::error("read", &entry.path()))?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// Moves a folder to where no run looks for artifacts, then removes it: whoever stops halfway leaves nothing half there.
fn remove(work: &Path, folder: &Path) -> Result<(), Error> {
    let staging = work.join(STAGING);
    let away = staging.join(".removed");
    fs::create_dir_all(&staging)?;
    let gone = |path: &Path| match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(fs::error("remove", path)(error)),
        _ => Ok(()),
    };
    gone(&away)?;
    if folder == away {
        return Ok(());
    }
    std::fs::rename(folder, &away).map_err(fs::error("move away", folder))?;
    Ok(gone(&away)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Counts, Manifest, SCHEMA, Staging};

    const WORKFLOW: &str = "
name: flow
stages:
  shards: {uses: fetch, shards: 's3://bucket/shards', sha256: SHA}
  model: {uses: train, from: shards, preset: olmo-300k}
  other: {uses: train, from: shards, preset: olmo-1m, when: false}
";

    fn workflow() -> Workflow {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flow.yaml");
        std::fs::write(&path, WORKFLOW.replace("SHA", &"a".repeat(64))).unwrap();
        Workflow::open(&path, &[], &|_| None).unwrap()
    }

    /// An artifact without files.
    fn publish(work: &Path, stage: &str) {
        let manifest = Manifest {
            schema: SCHEMA.to_owned(),
            tool: String::new(),
            stage: stage.to_owned(),
            kind: "fetch".to_owned(),
            algorithm: 1,
            action_key: String::new(),
            content: String::new(),
            config: Value::Null,
            inputs: vec![],
            sources: vec![],
            references: vec![],
            counts: Counts::default(),
            files: vec![],
            details: Value::Null,
        };
        Staging::begin(work, stage).unwrap().publish(manifest, &[], &Hashes::default()).unwrap();
    }

    #[test]
    fn what_training_would_go_on_from_stays() {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path();
        let workflow = workflow();
        let partial = |key: &str| work.join(PARTIAL).join("model").join(key);
        let found = |keep: bool| collect(&[&workflow], work, keep).unwrap();
        std::fs::create_dir_all(partial("other")).unwrap();
        assert_eq!(found(false), [], "without its input nobody can tell what it would be made from");
        publish(work, "shards");
        let made_from = MadeFrom::now(&workflow.stages[1], work, &Hashes::default()).unwrap();
        let key = made_from.action_key(&workflow.stages[1]);
        std::fs::create_dir_all(partial(&key)).unwrap();
        let paths = |found: Vec<Garbage>| found.into_iter().map(|one| one.path).collect::<Vec<_>>();
        assert_eq!(paths(found(true)), [partial("other")]);
        assert!(partial("other").exists());
        assert_eq!(paths(found(false)), [partial("other")]);
        assert!(!partial("other").exists() && partial(&key).exists() && work.join("shards").exists());
    }

    #[test]
    fn links_and_what_is_not_ours_are_left_alone() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let work = folder.path();
        publish(elsewhere.path(), "old");
        std::os::unix::fs::symlink(elsewhere.path().join("old"), work.join("linked")).unwrap();
        publish(work, "old");
        publish(work, "other");
        std::fs::create_dir_all(work.join(PARTIAL).join("other").join("key")).unwrap();
        std::fs::create_dir(work.join("notes")).unwrap();
        let workflow = workflow();
        let found = collect(&[&workflow], work, false).unwrap();
        assert_eq!(found.iter().map(|one| &one.path).collect::<Vec<_>>(), [&work.join("old")]);
        assert!(!work.join("old").exists() && work.join("linked").exists() && work.join("notes").exists());
        assert!(work.join("other").exists(), "`when` may let it run another time");
        assert!(work.join(PARTIAL).join("other").join("key").exists());
        assert!(elsewhere.path().join("old").join(MANIFEST).exists());
    }
}
