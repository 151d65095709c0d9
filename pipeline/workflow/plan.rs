//! What a run will do with each stage, and why. A run decides by the same words: it asks here when it begins, and once more
//! for a stage of which it could not be told, when what that stage reads is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::config::Entry;
use super::execute::standing;
use super::{Error, Options, Shelf, Workflow};
use crate::artifact::{Artifact, Hashes, Input, SourceFile};
use crate::remote::Fetched;
use crate::stage::partition::Standing;
use crate::{fs, stage};

/// Which stages a run is about.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Run this stage and all that depends on it, whatever is there. Here as below, the name of a stage stands for all
    /// of its expansions, and `tag:NAME` for all stages with the tag.
    pub from: Option<String>,
    /// Leave out everything that this stage does not need.
    pub until: Option<String>,
    /// Run this stage alone, on the artifacts that are there.
    pub only: Option<String>,
    /// Run these stages even if nothing changed.
    pub force: Vec<String>,
}

impl Selection {
    /// Refuses names that are not in the workflow.
    pub fn check(&self, workflow: &Workflow) -> Result<(), Error> {
        choose(workflow, self).map(drop)
    }
}

/// What happens to a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "decision", content = "reason")]
pub enum Decision {
    /// Its artifact is whole and made from the same things.
    Reuse,
    /// It runs, for this reason.
    Run(String),
    /// It runs for this reason, or for one of these, if what it reads comes out as another thing than it was; else it is
    /// reused. Only plans say so: a run knows by the time.
    Depends(String),
    /// The selection leaves it out.
    Skip,
}

impl Decision {
    /// Whether the stage runs, as far as can be told.
    pub const fn may_run(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Depends(_))
    }
}

/// The decision for each stage, in the order of running.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Stage name and decision.
    pub stages: Vec<(String, Decision)>,
}

impl Plan {
    /// Compares the workflow with what is there, without changing anything there.
    pub fn new(workflow: &Workflow, selection: &Selection, shelf: &Shelf) -> Result<Self, Error> {
        let decisions = decide_all(workflow, choose(workflow, selection)?, shelf);
        let decisions = decisions.into_iter().collect::<Result<Vec<_>, _>>()?;
        let names = workflow.stages.iter().map(|entry| entry.name.clone());
        Ok(Self { stages: names.zip(decisions).collect() })
    }

    /// How the work of the stages that run falls into partitions, and which are there, by stage: of those whose inputs stay
    /// as they are.
    pub fn standing(&self, workflow: &Workflow, options: &Options) -> BTreeMap<String, Standing> {
        let runs: BTreeSet<&str> = self
            .stages
            .iter()
            .filter(|(_, decision)| decision.may_run())
            .map(|(name, _)| name.as_str())
            .collect();
        let ready = |entry: &&Entry| {
            let inputs = entry.stage.inputs();
            runs.contains(entry.name.as_str())
                && !inputs.iter().any(|(_, input)| runs.contains(input.as_str()))
        };
        let standing = |entry: &Entry| Some((entry.name.clone(), standing(workflow, options, entry)?));
        workflow.stages.iter().filter(ready).filter_map(standing).collect()
    }
}

#[derive(Clone)]
pub(super) enum Choice {
    Skip,
    Consider,
    Force(String),
}

/// What the selection says of each stage.
pub(super) fn choose(workflow: &Workflow, selection: &Selection) -> Result<Vec<Choice>, Error> {
    let mut choices = vec![Choice::Consider; workflow.stages.len()];
    let reads = workflow.reads();
    if let Some(until) = &selection.until {
        let needed = ancestors(&reads, &workflow.positions(until)?);
        choices
            .iter_mut()
            .zip(needed)
            .filter(|(_, needed)| !needed)
            .for_each(|(choice, _)| *choice = Choice::Skip);
    }
    if let Some(only) = &selection.only {
        let positions = workflow.positions(only)?;
        choices.fill(Choice::Skip);
        for position in positions {
            choices[position] = Choice::Force(format!("--only {only}"));
        }
    }
    if let Some(from) = &selection.from {
        let positions = workflow.positions(from)?;
        for (i, choice) in choices.iter_mut().enumerate() {
            let needed = ancestors(&reads, &[i]);
            if positions.iter().any(|&position| needed[position]) && !matches!(choice, Choice::Skip) {
                *choice = Choice::Force(format!("--from {from}"));
            }
        }
    }
    for force in &selection.force {
        for position in workflow.positions(force)? {
            if !matches!(choices[position], Choice::Skip) {
                choices[position] = Choice::Force(format!("--force {force}"));
            }
        }
    }
    Ok(choices)
}

/// The stages themselves and everything that they read from, directly or not; `reads` is that of [`Workflow::reads`].
fn ancestors(reads: &[Vec<(usize, String)>], positions: &[usize]) -> Vec<bool> {
    let mut needed = vec![false; reads.len()];
    for &position in positions {
        needed[position] = true;
    }
    for i in (0..reads.len()).rev() {
        if needed[i] {
            reads[i].iter().for_each(|&(input, _)| needed[input] = true);
        }
    }
    needed
}

/// The decision for each stage, in the order of running, or why there is none.
pub(super) fn decide_all(
    workflow: &Workflow,
    choices: Vec<Choice>,
    shelf: &Shelf,
) -> Vec<Result<Decision, Error>> {
    let mut decisions: Vec<Result<Decision, Error>> = Vec::with_capacity(workflow.stages.len());
    for ((entry, choice), reads) in workflow.stages.iter().zip(choices).zip(workflow.reads()) {
        let anew = |place: &usize| decisions[*place].as_ref().map_or(true, Decision::may_run);
        let open = reads.iter().map(|(place, _)| place).filter(|place| anew(place));
        let open = open.map(|&place| workflow.stages[place].name.as_str()).collect();
        decisions.push(match choice {
            Choice::Skip => Ok(Decision::Skip),
            Choice::Force(reason) => Ok(Decision::Run(reason)),
            Choice::Consider => consider(entry, (&open, &BTreeSet::new()), shelf),
        });
    }
    decisions
}

/// What is decided before a stage begins where other machines may make it first.
pub(super) fn decided_by(choice: Choice) -> Option<Decision> {
    match choice {
        Choice::Skip => Some(Decision::Skip),
        Choice::Force(reason) => Some(Decision::Run(reason)),
        Choice::Consider => None,
    }
}

/// What a decision comes to when all that the stage reads is there, but for what is `lost`: never [`Decision::Depends`].
pub(super) fn settle(
    entry: &Entry,
    decision: Decision,
    lost: &BTreeSet<String>,
    shelf: &Shelf,
) -> Result<Decision, Error> {
    match decision {
        Decision::Depends(_) => consider_all(entry, lost, shelf),
        decided => Ok(decided),
    }
}

/// Decides for a stage of which all that it reads is there, but for what is `lost`.
pub(super) fn consider_all(entry: &Entry, lost: &BTreeSet<String>, shelf: &Shelf) -> Result<Decision, Error> {
    consider(entry, (&BTreeSet::new(), lost), shelf)
}

/// Whether the artifact of a stage is whole and made from what is there now; in words. Of `open` stages it is not known yet
/// what they come out as: a reason that holds whatever that is says nothing of them. What is `lost` is not made in this run.
fn consider(
    entry: &Entry,
    (open, lost): (&BTreeSet<&str>, &BTreeSet<String>),
    shelf: &Shelf,
) -> Result<Decision, Error> {
    if let Some(file) = files(entry)?.iter().find(|file| file.address.is_some() && file.sha256.is_none()) {
        return Ok(Decision::Run(format!(
            "`{}` has no `sha256` to tell whether it changed",
            file.path.display()
        )));
    }
    if open.is_empty() && shelf.is_shared() {
        shelf.locate(entry, &shelf.made_from(entry, lost)?.action_key(entry))?;
    }
    let left = || if open.is_empty() { made_already(entry, shelf) } else { String::new() };
    let Ok(artifact) = shelf.last(&entry.name) else {
        return Ok(Decision::Run(absence(&shelf.work.join(&entry.name)) + &left()));
    };
    if let Some(reason) = entry.stage.once() {
        return Ok(Decision::Run(reason.to_owned()));
    }
    let manifest = &artifact.manifest;
    if manifest.kind != entry.kind().name {
        return Ok(Decision::Run(format!("uses: {} -> {}", manifest.kind, entry.kind().name)));
    }
    let made_from = MadeFrom::with(entry, lost, &shelf.hashes, |role, stage| {
        let then = || manifest.inputs.iter().find(|input| input.role == role);
        if open.contains(stage) {
            return Ok(then().map_or_else(String::new, |input| input.content.clone()));
        }
        shelf.content(stage)
    })?;
    if manifest.action_key != made_from.action_key(entry) {
        let reason = difference(entry, &artifact, &made_from);
        return Ok(Decision::Run(reason + &left()));
    }
    if let Err(damage) = shelf.verify(&entry.name, &artifact) {
        return Ok(Decision::Run(damage.to_string()));
    }
    let mut reasons: Vec<String> = made_from
        .inputs
        .iter()
        .filter(|input| open.contains(input.stage.as_str()))
        .map(input_changed)
        .collect();
    reasons.dedup();
    Ok(if reasons.is_empty() { Decision::Reuse } else { Decision::Depends(reasons.join(" or ")) })
}

fn input_changed(input: &Input) -> String {
    format!("input `{}` changed", input.stage)
}

/// How much of a stage that runs is there from a run that ended early; nothing where none of it is, or what it reads is
/// not there yet.
fn made_already(entry: &Entry, shelf: &Shelf) -> String {
    if entry.stage.partitioned().is_none() {
        return String::new();
    }
    let made_from = shelf.made_from(entry, &BTreeSet::new());
    let standing = made_from.and_then(|made_from| shelf.standing(entry, &made_from.action_key(entry)));
    Standing::listed(&standing.unwrap_or_default())
}

fn absence(folder: &Path) -> String {
    match Artifact::open(folder) {
        Err(error) if folder.exists() => error.to_string(),
        _ => "not made yet".to_owned(),
    }
}

/// Everything that goes into an action key.
pub(super) struct MadeFrom {
    /// The artifacts, by role.
    pub inputs: Vec<Input>,
    /// The files from outside.
    pub sources: Vec<SourceFile>,
    /// The configuration with defaults.
    pub config: Value,
}

impl MadeFrom {
    /// What a stage would be made from now; its inputs must be published. Size and blake3 of what is at an address are left
    /// open: its pin stands for both, so that a plan needs no network.
    pub fn now(entry: &Entry, work: &Path, hashes: &Hashes) -> Result<Self, Error> {
        Self::with(entry, &BTreeSet::new(), hashes, |_, stage| Ok(Artifact::content(&work.join(stage))?))
    }

    /// The same without some of its inputs, with the contents of the others by role and stage.
    pub fn with(
        entry: &Entry,
        lost: &BTreeSet<String>,
        hashes: &Hashes,
        content: impl Fn(&str, &str) -> Result<String, Error>,
    ) -> Result<Self, Error> {
        let inputs = entry.stage.inputs().into_iter().filter(|(_, stage)| !lost.contains(stage));
        let inputs = inputs.map(|(role, stage)| {
            let content = content(&role, &stage)?;
            Ok::<_, Error>(Input { role, stage, content })
        });
        let files = files(entry)?;
        let sources = files.iter().map(|file| source(entry, file, hashes));
        let config = entry.stage.resolved();
        Ok(Self {
            inputs: inputs.collect::<Result<_, _>>()?,
            sources: sources.collect::<Result<_, _>>()?,
            config,
        })
    }

    /// Fills in what only objects that were fetched tell: size and blake3.
    pub fn complete(&mut self, fetched: &BTreeMap<PathBuf, Fetched>) {
        for source in &mut self.sources {
            if let Some(fetched) = fetched.get(Path::new(&source.path)) {
                source.bytes = fetched.bytes;
                source.blake3.clone_from(&fetched.blake3);
            }
        }
    }

    /// The hash of kind, algorithm, configuration and contents; names of stages are no part of it, nor are paths of files
    /// that the configuration names. Files that a pattern or a table stands for count with their paths.
    pub fn action_key(&self, entry: &Entry) -> String {
        let kind = entry.kind();
        let mut config = self.config.clone();
        for (role, _) in entry.stage.inputs() {
            let key =
                role.rsplit_once('.').filter(|_| stage::gathers(&role)).map_or(&*role, |(list, _)| list);
            remove(&mut config, key);
        }
        let found =
            self.sources.iter().filter(|source| !replace(&mut config, &source.path, &identity(source)));
        let found: Vec<&SourceFile> = found.collect();
        config.sort_all_objects();
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{} {}\n{config}\n", kind.name, kind.algorithm).as_bytes());
        for input in &self.inputs {
            hasher.update(format!("{} {}\n", input.role, input.content).as_bytes());
        }
        for source in found {
            hasher.update(format!("{} {}\n", source.path, identity(source)).as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// The files from outside that a stage reads.
pub(super) fn files(entry: &Entry) -> Result<Vec<stage::File>, Error> {
    let files = entry.stage.files(&entry.folder);
    files.map_err(|error| Error::Stage { stage: entry.name.clone(), source: Box::new(error) })
}

/// The files from outside that a stage reads, where they lie; none if one of them is at an address, or they cannot be told.
pub fn paths_read(entry: &Entry) -> Option<Vec<PathBuf>> {
    let path = |file: stage::File| file.address.is_none().then(|| entry.folder.join(&file.path));
    files(entry).ok()?.into_iter().map(path).collect()
}

/// Their size, in bytes; none where it cannot be told without the network.
pub fn bytes_read(entry: &Entry) -> Option<u64> {
    paths_read(entry)?.iter().map(|path| Some(std::fs::metadata(path).ok()?.len())).sum()
}

fn source(entry: &Entry, file: &stage::File, hashes: &Hashes) -> Result<SourceFile, Error> {
    let path = file.path.to_string_lossy().into_owned();
    if file.address.is_some() {
        return Ok(SourceFile { path, bytes: 0, blake3: String::new(), sha256: file.sha256.clone() });
    }
    let file = entry.folder.join(&file.path);
    let blake3 = hashes.of(&file)?;
    let bytes = std::fs::metadata(&file).map_err(fs::error("read", &file))?.len();
    Ok(SourceFile { path, bytes, blake3, sha256: None })
}

/// What stands for the content of a source in an action key.
fn identity(source: &SourceFile) -> String {
    source.sha256.as_ref().map_or_else(|| source.blake3.clone(), |sha256| format!("sha256:{sha256}"))
}

/// Removes what stands at a path with dots.
fn remove(value: &mut Value, path: &str) {
    let (folder, key) = path.rsplit_once('.').unwrap_or(("", path));
    let pointer = if folder.is_empty() { String::new() } else { format!("/{}", folder.replace('.', "/")) };
    if let Some(map) = value.pointer_mut(&pointer).and_then(Value::as_object_mut) {
        map.shift_remove(key);
    }
}

/// Puts `new` in the place of every text `old`; tells whether there was one.
fn replace(value: &mut Value, old: &str, new: &str) -> bool {
    let any = |values: &mut dyn Iterator<Item = &mut Value>| {
        values.fold(false, |found, value| replace(value, old, new) | found)
    };
    match value {
        Value::String(text) if text == old => {
            new.clone_into(text);
            true
        }
        Value::Array(items) => any(&mut items.iter_mut()),
        Value::Object(map) => any(&mut map.values_mut()),
        _ => false,
    }
}

/// Why a stage's action key is another than its artifact's, in words.
fn difference(entry: &Entry, artifact: &Artifact, now: &MadeFrom) -> String {
    let then = &artifact.manifest;
    let mut reasons = Vec::new();
    if then.algorithm != entry.kind().algorithm {
        reasons.push(format!("algorithm version {} -> {}", then.algorithm, entry.kind().algorithm));
    }
    compare(&entry.name, &then.config, &now.config, &mut reasons);
    for input in &now.inputs {
        let before = then.inputs.iter().find(|other| other.role == input.role);
        if before.is_none_or(|before| before.content != input.content) {
            reasons.push(input_changed(input));
        }
    }
    for input in &then.inputs {
        if now.inputs.iter().all(|other| other.role != input.role) {
            reasons.push(format!("input `{}` is not there", input.stage));
        }
    }
    for source in &now.sources {
        if !then.sources.iter().any(|other| identity(other) == identity(source)) {
            reasons.push(format!("file changed: {}", source.path));
        }
    }
    if reasons.is_empty() { "its action key changed".to_owned() } else { reasons.join("; ") }
}

/// Lists the values that differ: `stage.key old -> new`.
fn compare(path: &str, old: &Value, new: &Value, reasons: &mut Vec<String>) {
    if let (Value::Object(a), Value::Object(b)) = (old, new) {
        let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for key in keys {
            let missing = &Value::Null;
            let path = format!("{path}.{key}");
            compare(&path, a.get(key).unwrap_or(missing), b.get(key).unwrap_or(missing), reasons);
        }
    } else if old != new {
        reasons.push(format!("{path} {old} -> {new}"));
    }
}

/// The name of a kind, for listings.
pub fn kind_name(workflow: &Workflow, name: &str) -> &'static str {
    let entry = workflow.stages.iter().find(|entry| entry.name == name);
    entry.map_or("", |entry| stage::KINDS[entry.kind].name)
}
