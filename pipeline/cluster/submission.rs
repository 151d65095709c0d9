//! What was sent to a cluster, kept so that nothing is sent twice, and the commands that send more of it or end it.
//!
//! `submission.json` is written before the first job is sent, and around each: a job is planned, then being sent, then sent, with its
//! number. All jobs wait for the first, which is held back until the last is in the queue; so where sending ends half-way,
//! nothing has run. A job that was being sent when its sender ended is looked for in the queue by its name, which no other has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::jobs::{After, Alive, AliveElement, Job, Jobs, More, Needs, What};
use super::profile::Profile;
use super::script::{Common, TOKEN};
use super::slurm::{self, Queued};
use super::state::{self, Cause, Fate};
use super::{Error, FOLDER, snakefile};
use crate::fs;
use crate::workflow::{Decision, Options, Plan, Workflow, lock};

/// What was sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Submission {
    /// What the names of its jobs begin with.
    pub id: String,
    /// The workflow file.
    pub file: PathBuf,
    /// The values given on the command line.
    pub set: Vec<String>,
    /// The profile, if there was one.
    pub profile: Option<PathBuf>,
    /// The jobs, each after those that it waits for; behind them those of earlier submissions that go on.
    pub jobs: Vec<Sent>,
    /// Whether all jobs are in the queue and the first was let go.
    pub complete: bool,
    /// More memory and time than the workflow says, by stage.
    pub more: More,
    /// Whether it was cancelled.
    #[serde(default)]
    pub cancelled: bool,
    /// How often each element failed before, by [`Job::element_title`].
    #[serde(default)]
    pub failed: BTreeMap<String, u32>,
}

/// A job and what is known of its way into the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sent {
    /// The job.
    #[serde(flatten)]
    pub job: Job,
    /// What the queue calls it: no other job has this name.
    pub name: String,
    /// How far it is.
    pub step: Step,
}

/// How far a job is on its way into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It was not sent.
    Planned,
    /// It may be in the queue, or not.
    Sending,
    /// It is in the queue, or was, with this number.
    Sent(u64),
}

impl Sent {
    /// What Slurm calls an element; none before it was sent.
    pub fn id(&self, element: u32) -> Option<String> {
        match (self.step, &self.job.elements) {
            (Step::Sent(number), Some(_)) => Some(format!("{number}_{element}")),
            (Step::Sent(number), None) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Whether it belongs to the submission with this id, and not to an earlier one.
    fn is_of(&self, id: &str) -> bool {
        self.name.contains(&format!(".{id}."))
    }

    /// The number of the job.
    pub const fn number(&self) -> Option<u64> {
        match self.step {
            Step::Sent(number) => Some(number),
            _ => None,
        }
    }
}

/// The file that holds the submission of a work folder.
fn path(work: &Path) -> PathBuf {
    work.join(FOLDER).join("submission.json")
}

impl Submission {
    /// What was last sent from a work folder, if anything was.
    pub fn open(work: &Path) -> Result<Option<Self>, Error> {
        let path = path(work);
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fs::error("read", &path)(error).into()),
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).map_err(|error| fs::error("read", &path)(error.into()))?,
            )),
        }
    }

    fn keep(&self, work: &Path) -> Result<(), Error> {
        Ok(fs::write_json(&path(work), serde_json::to_vec_pretty(self))?)
    }

    /// How many of its own jobs are in the queue, or may be.
    fn sent(&self) -> usize {
        self.jobs.iter().filter(|sent| sent.is_of(&self.id) && sent.step != Step::Planned).count()
    }

    /// The jobs and elements that are in the queue, as Slurm calls them.
    fn alive(&self, queue: &BTreeMap<String, Queued>) -> Vec<(&Sent, u32, String)> {
        let elements =
            self.jobs.iter().flat_map(|sent| sent.job.elements().iter().map(move |element| (sent, *element)));
        let alive = |(sent, element): (&'_ Sent, u32)| {
            let id = sent.id(element)?;
            queue.get(&id).is_some_and(Queued::is_alive).then_some(id)
        };
        elements.filter_map(|(sent, element)| Some((sent, element, alive((sent, element))?))).collect()
    }
}

/// Where jobs come from.
pub struct Sender<'a> {
    /// The workflow.
    pub workflow: &'a Workflow,
    /// How it is run here; the folder of its artifacts as an absolute path.
    pub options: &'a Options<'a>,
    /// The workflow file, as an absolute path.
    pub file: &'a Path,
    /// The values given on the command line.
    pub set: &'a [String],
    /// What the site wants.
    pub profile: &'a Profile,
    /// The file that says so, as an absolute path.
    pub profile_file: Option<&'a Path>,
    /// This program, as an absolute path.
    pub genomill: &'a Path,
}

/// What a command that sends did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Jobs that were sent now, arrays counting as one.
    pub jobs: usize,
    /// Their elements.
    pub elements: usize,
    /// Jobs and elements that were taken out of the queue, since others now do their work.
    pub cancelled: usize,
    /// Jobs and elements that go on.
    pub kept: usize,
    /// What people should know.
    pub notes: Vec<String>,
}

impl Sender<'_> {
    fn work(&self) -> &Path {
        &self.options.work
    }

    /// Sends what a run would do, or goes on with what was sent half-way.
    ///
    /// # Errors
    /// When jobs of this work folder are in the queue, Slurm is not there or refuses a job, or the workflow cannot be planned.
    pub fn submit(&self, plan: &Plan) -> Result<Done, Error> {
        let _own = self.own()?;
        let earlier = Submission::open(self.work())?;
        if let Some(earlier) = &earlier {
            if let Some(done) = self.go_on(earlier)? {
                return Ok(done);
            }
            let alive = earlier.alive(&slurm::queue()?).len();
            if alive > 0 {
                return Err(Error::Queued { work: self.work().to_owned(), alive });
            }
        }
        let jobs = self.jobs(plan, &More::default(), &Alive::default(), self.limits()?);
        self.send_new(jobs, Vec::new(), (More::default(), BTreeMap::new()), earlier.as_ref())
    }

    /// The scripts that [`Self::submit`] would send if the queue held nothing, each with what it waits for, by name of job.
    pub fn scripts(&self, plan: &Plan) -> Result<Vec<(String, Vec<String>, String)>, Error> {
        let most = slurm::most_elements().unwrap_or(u32::MAX);
        let Jobs { jobs, .. } = self.jobs(plan, &More::default(), &Alive::default(), most);
        let common = self.common("TOKEN");
        let script = |job: &Job| {
            let after = job.after.iter().map(|after| match after {
                After::Job(at) => format!("afterok:{}", jobs[*at].title()),
                After::Element(at, element) => format!("afterok:{}_{element}", jobs[*at].title()),
                After::Each(at) => format!("aftercorr:{}", jobs[*at].title()),
                After::Earlier(id) => format!("afterok:{id}"),
            });
            Ok((job.title(), after.collect(), common.script(job, &job.title())?))
        };
        jobs.iter().filter(|_| jobs.len() > 1).map(script).collect()
    }

    /// Sends what is missing and not in the queue: what ran out of memory or time with more of it, as the profile says.
    ///
    /// # Errors
    /// As for [`Self::submit`]; and when nothing was submitted.
    pub fn resubmit(&self, plan: &Plan) -> Result<Done, Error> {
        let _own = self.own()?;
        let earlier = Submission::open(self.work())?;
        let earlier = earlier.ok_or_else(|| Error::NotSubmitted { work: self.work().to_owned() })?;
        if let Some(done) = self.go_on(&earlier)? {
            return Ok(done);
        }
        let queue = slurm::queue()?;
        let mut alive = Alive::default();
        for (sent, element, id) in earlier.alive(&queue) {
            let Some(stage) = sent.job.stage(element) else { continue };
            if sent.job.what == What::Whole {
                alive.whole.insert(stage.to_owned(), id);
            } else {
                let element = AliveElement { id, element, width: sent.job.width };
                alive.partitions.entry(stage.to_owned()).or_default().push(element);
            }
        }
        let (more, notes) = self.more(&earlier, &queue);
        let jobs = self.jobs(plan, &more, &alive, self.limits()?);
        slurm::cancel(jobs.cancel.iter().map(String::as_str))?;
        let cancelled = jobs.cancel.len();
        let kept = kept(&earlier, &queue, &jobs.cancel);
        let failed = self.failed(&earlier, &queue);
        let done = self.send_new(jobs, kept, (more, failed), Some(&earlier))?;
        Ok(Done { cancelled, notes, ..done })
    }

    /// The most elements of an array; refuses a partition that the cluster does not have.
    fn limits(&self) -> Result<u32, Error> {
        let most = slurm::most_elements()?;
        self.profile.partition.as_deref().map_or(Ok(()), slurm::check_partition)?;
        Ok(most)
    }

    /// Goes on with a submission that ended half-way. If jobs of it have left the queue, what is left of it is cancelled
    /// instead: none of it has run.
    fn go_on(&self, earlier: &Submission) -> Result<Option<Done>, Error> {
        if earlier.complete {
            return Ok(None);
        }
        let queue = slurm::queue()?;
        let own = || earlier.jobs.iter().filter(|sent| sent.is_of(&earlier.id));
        let is_alive = |sent: &Sent| {
            let mut ids = sent.job.elements().iter().filter_map(|element| sent.id(*element));
            ids.all(|id| queue.get(&id).is_some_and(Queued::is_alive))
        };
        if own().all(is_alive) {
            return self.send(&mut earlier.clone(), &queue).map(Some);
        }
        let numbers: Vec<String> = own().filter_map(Sent::number).map(|number| number.to_string()).collect();
        slurm::cancel(numbers.iter().map(String::as_str))?;
        Submission { complete: true, ..earlier.clone() }.keep(self.work())?;
        Ok(None)
    }

    /// One process at a time sends from a work folder.
    fn own(&self) -> Result<std::fs::File, Error> {
        fs::create_dir_all(&self.work().join(FOLDER))?;
        Ok(lock::own(self.work(), "~submission")?) // no stage has this name
    }

    /// The same work as a Snakefile, in which every stage is a rule, whatever is there.
    ///
    /// # Errors
    /// When a path cannot stand in it.
    pub fn snakefile(&self) -> Result<String, Error> {
        let every =
            self.workflow.stages.iter().map(|entry| (entry.name.clone(), Decision::Run(String::new())));
        let jobs =
            self.jobs(&Plan { stages: every.collect() }, &More::default(), &Alive::default(), u32::MAX);
        Ok(snakefile::write(&self.common(""), self.workflow, &jobs.jobs))
    }

    fn jobs(&self, plan: &Plan, more: &More, alive: &Alive, most: u32) -> Jobs {
        let runs = plan.stages.iter().filter(|(_, decision)| decision.may_run());
        let needs = Needs {
            workflow: self.workflow,
            stages: runs.map(|(stage, _)| stage.as_str()).collect(),
            standing: plan.standing(self.workflow, self.options),
            more,
        };
        Jobs::new(&needs, self.profile, alive, most)
    }

    /// How often each element has failed, with the last try.
    fn failed(&self, earlier: &Submission, queue: &BTreeMap<String, Queued>) -> BTreeMap<String, u32> {
        let mut failed = earlier.failed.clone();
        for sent in &earlier.jobs {
            let fates = state::fates(self.work(), sent, queue);
            for (element, _) in fates.filter(|(_, fate)| matches!(fate, Fate::Failed(_))) {
                *failed.entry(sent.job.element_title(element)).or_default() += 1;
            }
        }
        failed
    }

    /// What stages are to have that ran out of something.
    fn more(&self, earlier: &Submission, queue: &BTreeMap<String, Queued>) -> (More, Vec<String>) {
        let (mut more, mut notes) = (earlier.more.clone(), Vec::new());
        let policy = &self.profile.more;
        for sent in &earlier.jobs {
            let causes: BTreeMap<&str, Cause> = state::fates(self.work(), sent, queue)
                .filter_map(|(element, fate)| match fate {
                    Fate::Failed(cause) => Some((sent.job.stage(element)?, cause)),
                    _ => None,
                })
                .collect();
            for (stage, cause) in causes {
                let entry = more.entry(stage.to_owned()).or_default();
                match (cause, sent.job.asked.memory, sent.job.asked.time) {
                    (Cause::Memory, Some(bytes), _) => {
                        let most = policy.most_memory.unwrap_or(u64::MAX);
                        let larger = times(bytes, policy.memory).min(most.max(bytes));
                        entry.0 = Some(larger);
                        notes.push(more_words(stage, "memory", larger > bytes, &crate::report::bytes(larger)));
                    }
                    (Cause::Time, _, Some(time)) => {
                        let most = policy.most_time.unwrap_or(Duration::MAX);
                        let longer = Duration::from_secs(times(time.as_secs(), policy.time)).min(most.max(time));
                        entry.1 = Some(longer);
                        let said = humantime::format_duration(longer).to_string();
                        notes.push(more_words(stage, "time", longer > time, &said));
                    }
                    (Cause::Memory, None, _) => notes.push(format!(
                        "`{stage}` ran out of memory, and no one says how much it needs: give it `resources: {{memory: ...}}`"
                    )),
                    (Cause::Time, _, None) => notes.push(format!(
                        "`{stage}` ran out of time, and no one says how much it needs: give it `resources: {{time: ...}}`"
                    )),
                    _ => {}
                }
            }
        }
        notes.sort();
        notes.dedup();
        (more, notes)
    }

    fn common<'a>(&'a self, token: &'a str) -> Common<'a> {
        let Self { profile, genomill, file, set, .. } = self;
        Common { profile, genomill, file, set, work: self.work(), token }
    }

    fn send_new(
        &self,
        jobs: Jobs,
        kept: Vec<Sent>,
        (more, failed): (More, BTreeMap<String, u32>),
        earlier: Option<&Submission>,
    ) -> Result<Done, Error> {
        let going_on = kept.iter().map(|sent| sent.job.elements().len()).sum();
        if jobs.jobs.len() < 2 {
            return Ok(Done { kept: going_on, ..Done::default() });
        }
        let id = unique();
        let name = |at: usize, job: &Job| {
            let plain = |letter: char| {
                if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '_' }
            };
            format!("{}.{id}.{at}", job.title().chars().map(plain).collect::<String>())
        };
        let jobs = jobs.jobs.into_iter().enumerate();
        let jobs = jobs
            .map(|(at, job)| Sent { name: name(at, &job), job, step: Step::Planned })
            .chain(kept)
            .collect();
        let (file, set) = (self.file.to_owned(), self.set.to_vec());
        let profile = self.profile_file.map(Path::to_owned);
        let (complete, cancelled) = (false, false);
        let mut submission = Submission { id, file, set, profile, jobs, complete, more, cancelled, failed };
        submission.keep(self.work())?;
        let done = self.send(&mut submission, &BTreeMap::new());
        if done.is_err() && submission.sent() == 0 {
            match earlier {
                Some(earlier) => earlier.keep(self.work())?,
                None => std::fs::remove_file(path(self.work()))
                    .map_err(fs::error("remove", &path(self.work())))?,
            }
        }
        Ok(Done { kept: going_on, ..done? })
    }

    /// Sends the jobs that are not in the queue yet, and lets the first one go.
    fn send(&self, submission: &mut Submission, queue: &BTreeMap<String, Queued>) -> Result<Done, Error> {
        let token = self.token()?;
        let common = self.common(&token);
        let mut done = Done::default();
        for at in 0..submission.jobs.len() {
            let sent = &submission.jobs[at];
            if sent.step == Step::Sending
                && let Some(number) = find(queue, &sent.name)
            {
                submission.jobs[at].step = Step::Sent(number);
            }
            if submission.jobs[at].number().is_some() {
                continue;
            }
            if done.jobs > 0 {
                std::thread::sleep(Duration::from_secs_f64(1.0 / self.profile.submissions_per_second));
            }
            self.send_one(submission, at, &common)?;
            done.jobs += 1;
            done.elements += submission.jobs[at].job.elements().len();
        }
        if let Some(first) = submission.jobs.first().and_then(Sent::number) {
            slurm::release(first)?;
        }
        submission.complete = true;
        submission.keep(self.work())?;
        Ok(done)
    }

    fn send_one(&self, submission: &mut Submission, at: usize, common: &Common) -> Result<(), Error> {
        let sent = &submission.jobs[at];
        let folder = self.work().join(FOLDER).join("scripts").join(&submission.id);
        let (script, dependency) = (folder.join(format!("{at:03}.sh")), dependency(submission, at));
        let text = common.script(&sent.job, &sent.name)?;
        for folder in [folder, super::script::log_folder(self.work(), &sent.job)] {
            fs::create_dir_all(&folder)?;
        }
        fs::write_atomic(&script, text.as_bytes())?;
        submission.jobs[at].step = Step::Sending;
        submission.keep(self.work())?;
        match slurm::submit(&script, dependency.as_deref(), at == 0) {
            Ok(number) => {
                submission.jobs[at].step = Step::Sent(number);
                submission.keep(self.work())
            }
            Err(error) => {
                if matches!(error, Error::Slurm { .. } | Error::NoSlurm { .. }) {
                    // Nothing came into the queue.
                    submission.jobs[at].step = Step::Planned;
                    submission.keep(self.work())?;
                }
                let Error::Slurm { said, .. } = error else { return Err(error) };
                let of = submission.jobs.iter().filter(|sent| sent.is_of(&submission.id)).count();
                let (job, sent) = (submission.jobs[at].job.title(), submission.sent());
                Err(Error::Refused { job, said, sent, of })
            }
        }
    }

    /// What nodes know the work folder by; made once, since jobs of earlier submissions know it too.
    fn token(&self) -> Result<String, Error> {
        let path = self.work().join(FOLDER).join(TOKEN);
        if !path.exists() {
            fs::write_atomic(&path, unique().as_bytes())?;
        }
        Ok(fs::read_to_string(&path)?)
    }
}

/// Takes what is in the queue out of it; returns how many jobs and elements there were.
///
/// # Errors
/// When nothing was submitted, or Slurm fails.
pub fn cancel(work: &Path) -> Result<usize, Error> {
    let Some(mut submission) = Submission::open(work)? else {
        return Err(Error::NotSubmitted { work: work.to_owned() });
    };
    let queue = slurm::queue()?;
    for sent in &mut submission.jobs {
        if sent.step == Step::Sending
            && let Some(number) = find(&queue, &sent.name)
        {
            sent.step = Step::Sent(number);
        }
    }
    let alive = submission.alive(&queue);
    let jobs: BTreeSet<String> =
        alive.iter().filter_map(|(sent, ..)| sent.number()).map(|number| number.to_string()).collect();
    let count = alive.len();
    slurm::cancel(jobs.iter().map(String::as_str))?;
    (submission.complete, submission.cancelled) = (true, true);
    submission.keep(work)?;
    Ok(count)
}

/// The number of the job that has a name.
fn find(queue: &BTreeMap<String, Queued>, name: &str) -> Option<u64> {
    let (id, _) = queue.iter().find(|(_, queued)| queued.name == name)?;
    id.split('_').next()?.parse().ok()
}

/// What a job waits for, as Slurm writes it.
fn dependency(submission: &Submission, at: usize) -> Option<String> {
    let number = |at: usize| submission.jobs[at].number();
    let one = |after: &After| match after {
        After::Job(at) => Some(format!("afterok:{}", number(*at)?)),
        After::Element(at, element) => Some(format!("afterok:{}_{element}", number(*at)?)),
        After::Each(at) => Some(format!("aftercorr:{}", number(*at)?)),
        After::Earlier(id) => Some(format!("afterok:{id}")),
    };
    let all: Vec<String> = submission.jobs[at].job.after.iter().filter_map(one).collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// The jobs of an earlier submission, with their elements, that go on.
fn kept(earlier: &Submission, queue: &BTreeMap<String, Queued>, cancelled: &BTreeSet<String>) -> Vec<Sent> {
    let alive: HashMap<String, u32> =
        earlier.alive(queue).into_iter().map(|(_, element, id)| (id, element)).collect();
    let kept = |sent: &Sent| {
        let goes_on = |element: &u32| {
            sent.id(*element).is_some_and(|id| alive.contains_key(&id) && !cancelled.contains(&id))
        };
        let elements: Vec<u32> = sent.job.elements().iter().copied().filter(goes_on).collect();
        let is_array = sent.job.elements.is_some();
        let job = Job { after: Vec::new(), elements: is_array.then(|| elements.clone()), ..sent.job.clone() };
        (!elements.is_empty()).then(|| Sent { job, ..sent.clone() })
    };
    earlier.jobs.iter().filter_map(kept).collect()
}

/// A word that no other submission has.
fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = format!("{} {}", now.as_nanos(), std::process::id());
    blake3::hash(seed.as_bytes()).to_hex()[..8].to_owned()
}

/// So many times as much, rounded up.
fn times(amount: u64, factor: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let more = (amount as f64 * factor).ceil() as u64;
    more
}

/// What a stage gets that ran out of something.
fn more_words(stage: &str, what: &str, is_more: bool, amount: &str) -> String {
    let gets = if is_more {
        format!("it gets {amount}")
    } else {
        format!("it had {amount} and gets no more, since the profile's `more` allows none")
    };
    format!("`{stage}` ran out of {what}: {gets}")
}
