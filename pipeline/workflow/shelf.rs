//! Where the artifacts of a workflow are found: in its work folder; or in a depot that many machines share, and then the work
//! folder holds copies, of what this machine reads and of what it made.
//!
//! In a depot an artifact is kept as `STAGE/KEY`, a partition as `.partial/STAGE/KEY/part-...`: who knows what a stage is made
//! from knows where to look. To decide and to plan takes manifests alone. Memory: the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::config::Entry;
use super::execute::hashes_file;
use super::plan::MadeFrom;
use super::{Error, Options, Workflow, lock};
use crate::artifact::{self, Artifact, FileEntry, Hashes, MANIFEST, Manifest, staging};
use crate::fs;
use crate::observer::{Observer, Stop};
use crate::remote::{self, Depot, Sealed, Stored, Watch};
use crate::stage::partition::{self, Partition, Standing};

/// The artifacts of a workflow.
pub struct Shelf<'a> {
    workflow: &'a Workflow,
    /// The work folder.
    pub(super) work: PathBuf,
    /// Of files there and of sources.
    pub(super) hashes: Hashes,
    shared: Option<Shared<'a>>,
    /// What was found so far in the depot, or of what should be there.
    found: Mutex<BTreeMap<String, Arc<Found>>>,
}

/// A depot, and who waits for it.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    /// That of the workflow.
    pub depot: &'a Depot,
    /// Where progress goes.
    pub observer: &'a dyn Observer,
    /// The request to stop.
    pub stop: &'a Stop,
}

/// An artifact as the workflow would make it now.
pub(super) struct Found {
    pub artifact: Artifact,
    /// Its manifest in the depot; none if it was made here and is not there yet.
    pub seal: Option<Sealed>,
}

impl<'a> Shelf<'a> {
    /// Reads nothing but what is remembered of hashes.
    pub fn new(workflow: &'a Workflow, work: &Path, shared: Option<Shared<'a>>) -> Self {
        let hashes = Hashes::load(&hashes_file(work));
        Self { workflow, work: work.to_owned(), hashes, shared, found: Mutex::default() }
    }

    pub(super) fn of(workflow: &'a Workflow, options: &Options<'a>) -> Self {
        let Options { observer, stop, .. } = *options;
        let shared = options.depot.map(|depot| Shared { depot, observer, stop });
        Self::new(workflow, &options.work, shared)
    }

    /// Whether other machines see what is put here.
    pub(super) const fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Refuses, before anything is made, a depot that would not keep it, and what nobody else could use.
    pub(super) fn begin(&self) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        for entry in &self.workflow.stages {
            if let Some(reason) = entry.stage.once() {
                return Err(Error::NotShared { stage: entry.name.clone(), reason });
            }
        }
        let name = &self.workflow.name;
        shared.depot.probe(shared.watch(name)).map_err(|error| match error {
            remote::Error::Stopped { .. } => Error::Interrupted { stage: name.clone() },
            error => Error::Depot(error),
        })
    }

    /// The artifact that was found last, or else the one in the work folder, whatever it was made from.
    pub(super) fn last(&self, stage: &str) -> Result<Artifact, artifact::Error> {
        let found = self.found().get(stage).map(|found| found.artifact.clone());
        found.map_or_else(|| Artifact::open(&self.work.join(stage)), Ok)
    }

    /// What an artifact holds: one that is there, and in a depot that of what the stage is made from now.
    pub(super) fn content(&self, stage: &str) -> Result<String, Error> {
        if self.is_shared() {
            return Ok(self.expect(stage)?.artifact.manifest.content.clone());
        }
        Ok(Artifact::content(&self.work.join(stage))?)
    }

    /// What a stage would be made from now; what it reads must be there.
    pub(super) fn made_from(&self, entry: &Entry, lost: &BTreeSet<String>) -> Result<MadeFrom, Error> {
        MadeFrom::with(entry, lost, &self.hashes, |_, stage| self.content(stage))
    }

    /// Whether the artifact of a stage is there with this key.
    pub(super) fn holds(&self, entry: &Entry, key: &str) -> Result<bool, Error> {
        if self.is_shared() {
            return Ok(self.locate(entry, key)?.is_some_and(|found| found.seal.is_some()));
        }
        let artifact = Artifact::open(&self.work.join(&entry.name));
        Ok(artifact.is_ok_and(|artifact| artifact.manifest.action_key == key))
    }

    /// Compares the files with the manifest. Those of an artifact in the depot are compared when they are brought.
    pub(super) fn verify(&self, stage: &str, artifact: &Artifact) -> Result<(), artifact::Error> {
        let found = self.found().get(stage).cloned();
        let only_here = found.is_some_and(|found| found.seal.is_none());
        if self.is_shared() && !only_here { Ok(()) } else { artifact.verify(&self.hashes) }
    }

    /// The artifact that a stage reads, with its files, each compared with the manifest.
    pub(super) fn read(&self, entry: &Entry, stage: &str) -> Result<Artifact, Error> {
        if self.shared.is_none() {
            let artifact = Artifact::open(&self.work.join(stage))?;
            artifact.verify(&self.hashes)?;
            return Ok(artifact);
        }
        let artifact = self.bring_with_references(stage, &mut BTreeSet::new())?;
        if entry.stage.looks_behind() {
            self.bring_records(&artifact, &mut BTreeSet::new())?;
        }
        Ok(artifact)
    }

    /// Looks for what the workflow would make now; without a depot there is nothing.
    pub(super) fn find(&self, stage: &str) -> Result<Option<Arc<Found>>, Error> {
        if let Some(found) = self.found().get(stage) {
            return Ok(Some(Arc::clone(found)));
        }
        let Some(entry) = self.entry(stage) else { return Ok(None) };
        match self.made_from(entry, &BTreeSet::new()) {
            Ok(made_from) => self.locate(entry, &made_from.action_key(entry)),
            Err(Error::Artifact(artifact::Error::Missing(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks in the depot, then in the work folder, for the artifact of a stage with this key.
    pub(super) fn locate(&self, entry: &Entry, key: &str) -> Result<Option<Arc<Found>>, Error> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let known = self.found().get(&entry.name).cloned();
        if let Some(known) = known.filter(|known| known.artifact.manifest.action_key == key) {
            return Ok(Some(known));
        }
        let name = artifact_name(&entry.name, key);
        let seal = shared.depot.sealed(&name, shared.watch(&entry.name)).map_err(failed(&entry.name))?;
        let here = || {
            let artifact = Artifact::open(&self.work.join(&entry.name)).ok();
            let artifact = artifact.filter(|artifact| artifact.manifest.action_key == key);
            artifact.map(|artifact| Found { artifact, seal: None })
        };
        let found = seal.map(|seal| self.sealed(&entry.name, key, seal)).transpose()?.or_else(here);
        let found = found.map(Arc::new);
        match &found {
            Some(found) => drop(self.found().insert(entry.name.clone(), Arc::clone(found))),
            None => drop(self.found().remove(&entry.name)),
        }
        Ok(found)
    }

    /// Puts an artifact that was made here, or reused, into the depot, unless it is there.
    pub(super) fn share(&self, entry: &Entry) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let folder = self.work.join(&entry.name);
        let (artifact, seal) = (Artifact::open(&folder)?, fs::read(&folder.join(MANIFEST))?);
        let Manifest { action_key, content, files, .. } = &artifact.manifest;
        let name = artifact_name(&entry.name, action_key);
        let watch = shared.watch(&entry.name);
        let stored =
            shared.depot.store(&name, (&folder, files), &seal, watch).map_err(failed(&entry.name))?;
        let seal = match stored {
            Stored::Now => Sealed { bytes: seal, put: SystemTime::now() },
            Stored::There(there) => there,
        };
        let found = self.sealed(&entry.name, action_key, seal)?;
        if found.artifact.manifest.content != *content {
            let there = found.artifact.manifest.content;
            staging::remove(&folder)?;
            let address = shared.depot.at(&name).to_string();
            return Err(Error::TwoContents {
                stage: entry.name.clone(),
                here: content.clone(),
                there,
                address,
            });
        }
        self.found().insert(entry.name.clone(), Arc::new(found));
        Ok(())
    }

    /// The same for one that is reused, and was found nowhere but here.
    pub(super) fn share_if_only_here(&self, entry: &Entry) -> Result<(), Error> {
        let found = self.found().get(&entry.name).cloned();
        if found.is_some_and(|found| found.seal.is_none()) { self.share(entry) } else { Ok(()) }
    }

    /// How much of a stage's work is there in partitions.
    pub(super) fn standing(&self, entry: &Entry, key: &str) -> Result<Vec<Standing>, Error> {
        let parts = self.work.join(staging::PARTIAL).join(&entry.name).join(key);
        Ok(Standing::of_all(&parts, self.parts(entry, key)?))
    }

    /// The partitions of a stage's work that are in the depot, by the names of their folders.
    pub(super) fn parts(&self, entry: &Entry, key: &str) -> Result<Vec<String>, Error> {
        let Some(shared) = &self.shared else { return Ok(Vec::new()) };
        let names = shared.depot.names(&parts_name(&entry.name, key), shared.watch(&entry.name));
        let names = names.map_err(failed(&entry.name))?.into_iter();
        Ok(names.filter(|name| name.starts_with("part-")).collect())
    }

    /// Brings the partitions that are in the depot to where a run finds them, if they are not there.
    pub(super) fn bring_parts(&self, entry: &Entry, key: &str, to: &Path) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let (watch, failed) = (shared.watch(&entry.name), failed(&entry.name));
        let mut seals = Vec::new();
        for part in self.parts(entry, key)? {
            let (name, folder) = (format!("{}/{part}", parts_name(&entry.name, key)), to.join(&part));
            if !folder.join(partition::DONE).exists()
                && let Some(seal) = shared.depot.sealed(&name, watch).map_err(&failed)?
            {
                let address = PathBuf::from(shared.depot.at(&name).to_string());
                seals.push((name, partition::files_of(&address, &seal.bytes)?, seal.bytes, folder));
            }
        }
        let wanted = seals.iter().flat_map(|(name, files, seal, folder)| {
            files.iter().map(|file| (name.as_str(), seal.as_slice(), file, folder.as_path()))
        });
        shared.depot.bring(wanted, watch).map_err(&failed)?;
        seals.iter().try_for_each(|(.., seal, folder)| {
            fs::create_dir_all(folder)?;
            Ok(fs::write_atomic(&folder.join(partition::DONE), seal)?)
        })
    }

    /// Puts a partition that is there into the depot, unless one is there.
    pub(super) fn share_part(
        &self,
        entry: &Entry,
        key: &str,
        (parts, partition): (&Path, Partition),
    ) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let folder = parts.join(partition.folder());
        let path = folder.join(partition::DONE);
        let seal = fs::read(&path)?;
        let files = partition::files_of(&path, &seal)?;
        let name = format!("{}/{}", parts_name(&entry.name, key), partition.folder());
        let stored = shared.depot.store(&name, (&folder, &files), &seal, shared.watch(&entry.name));
        stored.map(drop).map_err(failed(&entry.name))
    }

    fn entry(&self, stage: &str) -> Option<&'a Entry> {
        self.workflow.stages.iter().find(|entry| entry.name == stage)
    }

    fn found(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Found>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What must be in the depot, or at least be made here.
    fn expect(&self, stage: &str) -> Result<Arc<Found>, Error> {
        let place = || {
            let depot = self.shared.map(|shared| PathBuf::from(shared.depot.at(stage).to_string()));
            depot.unwrap_or_else(|| self.work.join(stage))
        };
        self.find(stage)?.ok_or_else(|| artifact::Error::Missing(place()).into())
    }

    /// What a manifest in the depot says, which must be of what it is kept as.
    fn sealed(&self, stage: &str, key: &str, seal: Sealed) -> Result<Found, Error> {
        let address =
            self.shared.map(|shared| shared.depot.at(&format!("{}.json", artifact_name(stage, key))));
        let path = PathBuf::from(address.map_or_else(String::new, |address| address.to_string()));
        let artifact = Artifact::parse(&self.work.join(stage), &path, &seal.bytes)?;
        let Manifest { action_key: found, files, .. } = &artifact.manifest;
        let reason = match files.iter().find(|file| !remote::lies_beneath(&file.path)) {
            Some(file) => format!("it has a file `{}`, expected a path within the folder", file.path),
            None if found != key => format!("its action key is {found}, its name says {key}"),
            None => return Ok(Found { artifact, seal: Some(seal) }),
        };
        Err(artifact::Error::Damaged { path, reason }.into())
    }

    /// Brings an artifact, and what it refers to.
    fn bring_with_references(&self, stage: &str, seen: &mut BTreeSet<String>) -> Result<Artifact, Error> {
        seen.insert(stage.to_owned());
        let artifact = self.bring(stage, |_| true)?;
        for reference in &artifact.manifest.references {
            // A stage that has another name now is not looked for; what needs it will say so.
            if !seen.contains(&reference.stage) && self.entry(&reference.stage).is_some() {
                self.bring_with_references(&reference.stage, seen)?;
            }
        }
        Ok(artifact)
    }

    /// Brings, of all that an artifact was made from, the manifests and what tells how it went.
    fn bring_records(&self, artifact: &Artifact, seen: &mut BTreeSet<String>) -> Result<(), Error> {
        for input in &artifact.manifest.inputs {
            if self.entry(&input.stage).is_some() && seen.insert(input.stage.clone()) {
                let behind = self.bring(&input.stage, |file| file.volatile)?;
                self.bring_records(&behind, seen)?;
            }
        }
        Ok(())
    }

    /// Brings the files of an artifact that are needed into the work folder, if they are not there as they should be.
    fn bring(&self, stage: &str, needed: impl Fn(&FileEntry) -> bool) -> Result<Artifact, Error> {
        let found = self.expect(stage)?;
        let Found { artifact, seal } = &*found;
        let (Some(shared), Some(seal)) = (&self.shared, seal) else {
            artifact.verify(&self.hashes)?;
            return Ok(artifact.clone());
        };
        let missing = self.make_place(artifact, seal, needed)?;
        let name = artifact_name(stage, &artifact.manifest.action_key);
        let wanted =
            missing.iter().map(|&file| (name.as_str(), seal.bytes.as_slice(), file, &*artifact.folder));
        shared.depot.bring(wanted, shared.watch(stage)).map_err(failed(stage))?;
        for file in missing {
            self.hashes.remember(&artifact.path(&file.path), &file.blake3)?;
        }
        Ok(artifact.clone())
    }

    /// Puts the manifest in the place of an older one, and removes what is not as it says; returns the needed files that are
    /// not there.
    fn make_place<'b>(
        &self,
        artifact: &'b Artifact,
        seal: &Sealed,
        needed: impl Fn(&FileEntry) -> bool,
    ) -> Result<Vec<&'b FileEntry>, Error> {
        let _own = lock::own(&self.work, "~copies")?; // no stage has this name
        let content =
            |artifact: &Artifact| (artifact.manifest.action_key.clone(), artifact.manifest.content.clone());
        let place = artifact.path(MANIFEST);
        if Artifact::open(&artifact.folder).map_or(true, |here| content(&here) != content(artifact)) {
            staging::remove(&artifact.folder)?;
        }
        if std::fs::read(&place).map_or(true, |here| here != seal.bytes) {
            fs::create_dir_all(&artifact.folder)?;
            fs::write_atomic(&place, &seal.bytes)?;
        }
        let lacks = |file: &&FileEntry| artifact.verify_file(file, &self.hashes).is_err();
        let files = artifact.manifest.files.iter().filter(|file| needed(file));
        let missing: Vec<&FileEntry> = files.filter(lacks).collect();
        for file in &missing {
            drop(std::fs::remove_file(artifact.path(&file.path)));
        }
        Ok(missing)
    }
}

impl<'a> Shared<'a> {
    fn watch<'b>(&self, stage: &'b str) -> Watch<'b>
    where
        'a: 'b,
    {
        Watch { stage, observer: self.observer, stop: self.stop }
    }
}

fn artifact_name(stage: &str, key: &str) -> String {
    format!("{stage}/{key}")
}

fn parts_name(stage: &str, key: &str) -> String {
    format!("{}/{stage}/{key}", staging::PARTIAL)
}

/// What a stage failed with that needed the depot.
fn failed(stage: &str) -> impl Fn(remote::Error) -> Error {
    let stage = stage.to_owned();
    move |error| match error {
        remote::Error::Stopped { .. } => Error::Interrupted { stage: stage.clone() },
        source => Error::Shared { stage: stage.clone(), source },
    }
}
