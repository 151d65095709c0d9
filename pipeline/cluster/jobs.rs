//! Which jobs a workflow becomes, and what each waits for. Memory: the jobs.
//!
//! A stage is a job that makes it whole. Where its work falls into partitions there is an array before it, whose elements make
//! the partitions; the job then puts them together. Which partitions there are is often known only when what
//! the stage reads is there, hours after the jobs were sent. So an array has a fixed width, and element `i` of `n` takes every
//! partition whose number leaves the remainder `i` when divided by `n`: however many there come to be, each is someone's, and no
//! job need send others, which many sites forbid. The width is what is known, else an estimate from the size of the files; a
//! wrong one costs speed alone.
//!
//! The artifact of a stage is one thing, so whatever reads it waits for all of it (`afterok`). What runs element by element
//! (`aftercorr`) are the expansions of a matrix: those of a stage are one array if each waits for its like in another, or all
//! for the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::profile::Profile;
use crate::stage::Share;
use crate::stage::partition::Standing;
use crate::workflow::Workflow;
use crate::workflow::config::Entry;
use crate::workflow::plan::bytes_read;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Looks whether its node sees the work folder and has this genomill; all others wait for it.
    Check,
    /// Makes partitions of a stage.
    Partitions,
    /// Makes a stage whole.
    Whole,
}

/// What a job asks of its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Threads.
    pub threads: u32,
    /// Bytes.
    pub memory: Option<u64>,
    /// Accelerators.
    pub gpus: u32,
    /// The most time.
    pub time: Option<Duration>,
}

/// More memory and time than the workflow says, by what became of earlier tries.
pub type More = BTreeMap<String, (Option<u64>, Option<Duration>)>;

/// What must have succeeded before a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// A job of the same list, whole.
    Job(usize),
    /// An element of a job of the same list.
    Element(usize, u32),
    /// Before each element the same one of a job of the same list.
    Each(usize),
    /// A job of an earlier submission, or an element of one: as Slurm calls it.
    Earlier(String),
}

/// A job, or an array of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What it does.
    pub what: What,
    /// The stage; of an array whose elements make stages whole, the stage of each.
    pub stages: Vec<String>,
    /// The elements, ascending, if it is an array.
    pub elements: Option<Vec<u32>>,
    /// By what the numbers of partitions are divided.
    pub width: u32,
    /// How many partitions there are, where that is known.
    pub partitions: Option<u32>,
    /// What it waits for.
    pub after: Vec<After>,
    /// What it asks for.
    pub asked: Asked,
}

impl Job {
    /// The first job of all.
    fn check() -> Self {
        let asked = Asked { threads: 1, memory: None, gpus: 0, time: None };
        Self {
            what: What::Check,
            stages: Vec::new(),
            elements: None,
            width: 1,
            partitions: None,
            after: Vec::new(),
            asked,
        }
    }

    /// The stage that an element works for; of the check there is none.
    pub fn stage(&self, element: u32) -> Option<&str> {
        let at = if self.what == What::Whole && self.stages.len() > 1 { element as usize } else { 0 };
        self.stages.get(at).map(String::as_str)
    }

    /// The elements; of what is no array there is one.
    pub fn elements(&self) -> &[u32] {
        self.elements.as_deref().unwrap_or(&[0])
    }

    /// What an element is for, the same in each submission: what `resubmit` counts failures by.
    pub fn element_title(&self, element: u32) -> String {
        let stage = self.stage(element).unwrap_or("~check"); // no stage has this name
        match self.what {
            What::Partitions => format!("{stage}~{element}-of-{}", self.width),
            What::Check | What::Whole => stage.to_owned(),
        }
    }

    /// What people call it.
    pub fn title(&self) -> String {
        match (self.what, self.stages.as_slice()) {
            (What::Check, _) => "check".to_owned(),
            (What::Partitions, stages) => format!("{}-partitions", stages.join("+")),
            (What::Whole, [stage]) => stage.clone(),
            (What::Whole, stages) => {
                let base = stages.first().and_then(|stage| stage.split('@').next()).unwrap_or_default();
                format!("{base}-{}", stages.len())
            }
        }
    }
}

/// Jobs and elements of earlier submissions that are still in the queue, by what they make.
#[derive(Debug, Default)]
pub struct Alive {
    /// Those that make a stage whole, as Slurm calls each.
    pub whole: HashMap<String, String>,
    /// Those that make partitions of a stage.
    pub partitions: HashMap<String, Vec<AliveElement>>,
}

/// An element that makes partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliveElement {
    /// As Slurm calls it.
    pub id: String,
    /// Its number.
    pub element: u32,
    /// By what the numbers of partitions are divided.
    pub width: u32,
}

/// What is to be made.
pub struct Needs<'a> {
    /// The workflow.
    pub workflow: &'a Workflow,
    /// The stages that are to run.
    pub stages: BTreeSet<&'a str>,
    /// How the work of those falls into partitions whose inputs are there.
    pub standing: BTreeMap<String, Standing>,
    /// Of what they need more than the workflow says.
    pub more: &'a More,
}

impl Alive {
    fn elements(&self, stage: &str) -> &[AliveElement] {
        self.partitions.get(stage).map_or(&[], Vec::as_slice)
    }
}

/// Jobs, and what of earlier submissions goes on or must end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// The jobs, each after those that it waits for. The first one is the check.
    pub jobs: Vec<Job>,
    /// Jobs and elements of earlier submissions that would work for what is now made by another job, as Slurm calls them.
    pub cancel: BTreeSet<String>,
}

/// Where a stage is made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Job(usize),
    Element(usize, u32),
    Earlier(String),
}

impl Jobs {
    /// The jobs that make what is needed, where elements of arrays have indices below `most`.
    pub fn new(needs: &Needs, profile: &Profile, alive: &Alive, most: u32) -> Self {
        let mut jobs = Self { jobs: vec![Job::check()], cancel: BTreeSet::new() };
        let mut places: HashMap<&str, Place> = HashMap::new();
        let stages: Vec<&Entry> =
            needs.workflow.stages.iter().filter(|entry| needs.stages.contains(entry.name.as_str())).collect();
        for group in stages.chunk_by(|a, b| a.base == b.base) {
            let array = |entry: &&Entry| {
                let alive = if goes_on(&waits(entry, &places)) { alive.elements(&entry.name) } else { &[] };
                array(entry, needs, profile, alive, most)
            };
            let arrays: Vec<Option<Array>> = group.iter().map(array).collect();
            let anyone = group.iter().any(|entry| {
                alive.whole.contains_key(&entry.name) || alive.partitions.contains_key(&entry.name)
            });
            let together = group.len() > 1
                && u32::try_from(group.len()).is_ok_and(|size| size <= most)
                && !anyone
                && arrays.iter().all(Option::is_none)
                && jobs.expansions(group, needs, profile, &mut places);
            if !together {
                for (entry, array) in group.iter().zip(arrays) {
                    let place = jobs.stage(entry, array, (needs, profile, alive), &places);
                    places.insert(&entry.name, place);
                }
            }
        }
        jobs
    }

    /// The number of elements of all arrays, and of the other jobs.
    pub fn elements(&self) -> usize {
        self.jobs.iter().map(|job| job.elements().len()).sum()
    }

    /// Adds one array for all expansions of a stage, if what they wait for allows that.
    fn expansions<'a>(
        &mut self,
        group: &[&'a Entry],
        needs: &Needs,
        profile: &Profile,
        places: &mut HashMap<&'a str, Place>,
    ) -> bool {
        let asked: Vec<Asked> = group.iter().map(|entry| asked(entry, profile, needs.more)).collect();
        let waits: Vec<Vec<Place>> = group.iter().map(|entry| waits(entry, places)).collect();
        if asked.iter().any(|other| *other != asked[0])
            || waits.iter().any(|other| other.len() != waits[0].len())
        {
            return false;
        }
        let mut after = BTreeSet::new();
        for at in 0..waits[0].len() {
            let column: Vec<&Place> = waits.iter().map(|waits| &waits[at]).collect();
            match column[0] {
                Place::Element(job, 0)
                    if self.jobs[*job].stages.len() == group.len() && in_step(&column, *job) =>
                {
                    after.insert(After::Each(*job));
                }
                first if column.iter().all(|place| *place == first) => {
                    after.insert(one(first));
                }
                _ => return false,
            }
        }
        let job = self.jobs.len();
        let elements = (0..).zip(group).map(|(element, _)| element).collect();
        for (element, entry) in (0..).zip(group) {
            places.insert(&entry.name, Place::Element(job, element));
        }
        self.jobs.push(Job {
            what: What::Whole,
            stages: group.iter().map(|entry| entry.name.clone()).collect(),
            elements: Some(elements),
            width: 1,
            partitions: None,
            after: or_check(after),
            asked: asked[0].clone(),
        });
        true
    }

    /// Adds the jobs of a stage, unless they are in the queue; tells where it is made.
    fn stage(
        &mut self,
        entry: &Entry,
        array: Option<Array>,
        (needs, profile, alive): (&Needs, &Profile, &Alive),
        places: &HashMap<&str, Place>,
    ) -> Place {
        let waits = waits(entry, places);
        let going_on = goes_on(&waits);
        let ids = || alive.elements(&entry.name).iter().map(|element| element.id.clone());
        let whole = alive.whole.get(&entry.name);
        let covered = array.as_ref().is_none_or(|array| array.elements.is_empty());
        if let Some(id) = whole.filter(|_| going_on && covered) {
            return Place::Earlier(id.clone());
        }
        self.cancel.extend(whole.cloned());
        if !going_on {
            self.cancel.extend(ids());
        }
        let asked = asked(entry, profile, needs.more);
        let mut after = self.after(&waits);
        if let Some(array) = array {
            let mut before: BTreeSet<After> = BTreeSet::new();
            if going_on {
                before.extend(ids().map(After::Earlier));
            }
            if !array.elements.is_empty() {
                before.insert(After::Job(self.jobs.len()));
                self.jobs.push(Job {
                    what: What::Partitions,
                    stages: vec![entry.name.clone()],
                    elements: Some(array.elements),
                    width: array.width,
                    partitions: array.partitions,
                    after,
                    asked: asked.clone(),
                });
            }
            after = or_check(before);
        }
        let job = self.jobs.len();
        let stages = vec![entry.name.clone()];
        self.jobs.push(Job {
            what: What::Whole,
            stages,
            elements: None,
            width: 1,
            partitions: None,
            after,
            asked,
        });
        Place::Job(job)
    }

    /// What to wait for; all elements of an array are the array.
    fn after(&self, waits: &[Place]) -> Vec<After> {
        let mut after: BTreeSet<After> = waits.iter().map(one).collect();
        for (at, job) in self.jobs.iter().enumerate() {
            let each: Vec<After> =
                job.elements().iter().map(|element| After::Element(at, *element)).collect();
            if each.iter().all(|one| after.contains(one)) {
                after.retain(|after| !each.contains(after));
                after.insert(After::Job(at));
            }
        }
        or_check(after)
    }
}

/// Whether the places are the elements of a job in their order.
fn in_step(places: &[&Place], job: usize) -> bool {
    (0..).zip(places).all(|(element, place)| **place == Place::Element(job, element))
}

fn one(place: &Place) -> After {
    match place {
        Place::Job(job) => After::Job(*job),
        Place::Element(job, element) => After::Element(*job, *element),
        Place::Earlier(id) => After::Earlier(id.clone()),
    }
}

/// What waits for nothing waits for the check.
fn or_check(mut after: BTreeSet<After>) -> Vec<After> {
    if after.iter().all(|after| matches!(after, After::Earlier(_))) {
        after.insert(After::Job(0));
    }
    after.into_iter().collect()
}

/// Whether what is in the queue for a stage can go on: nothing that it reads is made by a new job.
fn goes_on(waits: &[Place]) -> bool {
    waits.iter().all(|place| matches!(place, Place::Earlier(_)))
}

/// Where what a stage reads is made, of that which is made.
fn waits(entry: &Entry, places: &HashMap<&str, Place>) -> Vec<Place> {
    let mut waits: Vec<Place> = Vec::new();
    for (_, input) in entry.stage.inputs() {
        if let Some(place) = places.get(input.as_str()).filter(|place| !waits.contains(place)) {
            waits.push(place.clone());
        }
    }
    waits
}

fn asked(entry: &Entry, profile: &Profile, more: &More) -> Asked {
    let resources = &entry.resources;
    let threads = match (resources.threads, entry.kind().share) {
        (Some(threads), _) => threads.get(),
        (None, Share::One) => 1,
        (None, Share::Many) => profile.threads.map_or(1, std::num::NonZero::get),
    };
    let (memory, time) = more.get(&entry.name).copied().unwrap_or_default();
    Asked {
        threads,
        memory: memory.or(resources.memory).or(profile.memory),
        gpus: resources.gpus,
        time: time.or(resources.time).or(profile.time),
    }
}

/// The array that makes the partitions of a stage.
#[derive(Debug)]
struct Array {
    /// Those that must be sent, ascending; none where others in the queue do all that is missing.
    elements: Vec<u32>,
    width: u32,
    partitions: Option<u32>,
}

/// None where the job that makes the stage whole makes its partitions too: there is one, or none is missing.
fn array(
    entry: &Entry,
    needs: &Needs,
    profile: &Profile,
    alive: &[AliveElement],
    most: u32,
) -> Option<Array> {
    let partitioned = entry.stage.partitioned()?;
    let packed = |partitions: u64| {
        let elements = partitions.div_ceil(u64::from(profile.partitions_per_element.get()));
        let most = u64::from(profile.elements.get().min(most));
        u32::try_from(elements.clamp(1, most.max(1))).unwrap_or(1)
    };
    let known = needs.standing.get(&entry.name);
    let partitions = known.map_or_else(
        || estimate(needs.workflow, entry, partitioned.size()),
        |known| Some(u64::from(known.of)),
    );
    let width = alive.first().map_or_else(|| packed(partitions.unwrap_or(u64::MAX)), |element| element.width);
    let missing: BTreeSet<u32> = match known {
        Some(known) if known.of == 1 => return None,
        Some(known) => known.absent().into_iter().map(|at| at % width).collect(),
        None if width == 1 => return None,
        None => (0..width).collect(),
    };
    if missing.is_empty() {
        return None;
    }
    let done = |element: &u32| alive.iter().any(|alive| alive.width == width && alive.element == *element);
    let elements = missing.into_iter().filter(|element| !done(element)).collect();
    Some(Array { elements, width, partitions: known.map(|known| known.of) })
}

/// Bases of a byte of a file, at most about: two bits each, and both strands of them.
const BASES_PER_BYTE: u64 = 8;

/// How many partitions there are at most, about; none where no one can tell.
fn estimate(workflow: &Workflow, entry: &Entry, size: u64) -> Option<u64> {
    let (mut bytes, mut open, mut seen) = (0, vec![entry], BTreeSet::new());
    while let Some(entry) = open.pop() {
        if !seen.insert(&entry.name) {
            continue;
        }
        bytes += bytes_read(entry)?;
        let inputs: BTreeSet<String> = entry.stage.inputs().into_iter().map(|(_, input)| input).collect();
        open.extend(workflow.stages.iter().filter(|entry| inputs.contains(&entry.name)));
    }
    Some((bytes * BASES_PER_BYTE).div_ceil(size.max(1)))
}

#[cfg(test)]
mod tests;
