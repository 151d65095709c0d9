//! What became of the jobs that were sent: from the queue while it knows them, else from the logs that they leave. Memory: the
//! last lines of one log, and a line for each element.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Error;
use super::jobs::What;
use super::script::{BEGINS, ENDS, NEARLY_OVER, log};
use super::slurm::{self, Queued};
use super::submission::{Sent, Submission};

/// What became of a job or an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It waits in the queue.
    Waits,
    /// It runs.
    Runs,
    /// It did what it was for.
    Done,
    /// It did not.
    Failed(Cause),
    /// It never began, and will not: what it waited for failed, or it was taken away.
    NotRun,
}

/// Why something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It wanted more memory than it had.
    Memory,
    /// Its time was up.
    Time,
    /// It ended before it could write a line: mostly since its node does not see the work folder.
    NoLog,
    /// Its node was lost, or it was killed or taken away.
    Killed,
    /// It failed by itself: its log says why.
    Error,
}

impl Cause {
    /// In words, behind "failed".
    pub const fn words(self) -> &'static str {
        match self {
            Self::Memory => "for want of memory",
            Self::Time => "for want of time",
            Self::NoLog => "before it could write its log: does its node see the work folder?",
            Self::Killed => "when it was killed or its node was lost",
            Self::Error => "",
        }
    }
}

/// What became of each element of a job.
pub(super) fn fates<'a>(
    work: &'a Path,
    sent: &'a Sent,
    queue: &'a BTreeMap<String, Queued>,
) -> impl Iterator<Item = (u32, Fate)> + 'a {
    sent.job.elements().iter().filter_map(move |element| {
        let queued = queue.get(&sent.id(*element)?);
        let told = || told(&log(work, &sent.job, *element), sent.number()?, *element);
        Some((*element, fate(queued, told)))
    })
}

/// What the queue says of an element, and what its log says, if that is asked.
fn fate(queued: Option<&Queued>, told: impl FnOnce() -> Option<Told>) -> Fate {
    let state = queued.map_or("", |queued| queued.state.as_str());
    if queued.is_some_and(Queued::is_alive) {
        return if matches!(state, "RUNNING" | "COMPLETING") { Fate::Runs } else { Fate::Waits };
    }
    match (state, told()) {
        ("COMPLETED", _) | (_, Some(Told::Done)) => Fate::Done,
        ("OUT_OF_MEMORY", _) => Fate::Failed(Cause::Memory),
        ("TIMEOUT" | "DEADLINE", _) => Fate::Failed(Cause::Time),
        (_, Some(Told::Failed(cause))) => Fate::Failed(cause),
        ("FAILED" | "BOOT_FAIL", None) => Fate::Failed(Cause::NoLog),
        ("NODE_FAIL" | "PREEMPTED", None) => Fate::Failed(Cause::Killed),
        (_, None) => Fate::NotRun,
    }
}

/// What a log says of the last try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Done,
    Failed(Cause),
}

/// Bytes at the end of a log that are read.
const TAIL: u64 = 16 << 10;

/// The end of a log.
fn tail(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the log of an element says of its last try, if that was one of this job.
fn told(log: &Path, job: u64, element: u32) -> Option<Told> {
    let text = tail(log)?;
    let begins = format!("{BEGINS} {job} element {element} ");
    match text.rfind(BEGINS) {
        Some(at) if text[at..].starts_with(&begins) => Some(read(&text[at..])),
        Some(_) => None,
        // The line lies further up, before much that was said since.
        None => Some(read(&text)),
    }
}

/// What the log of one try says. Slurm itself writes into it when it kills.
fn read(text: &str) -> Told {
    let code = text.rfind(ENDS).and_then(|at| text[at + ENDS.len()..].split_whitespace().next());
    let lower = text.to_lowercase();
    let memory = ["oom-kill", "oom_kill", "out of memory", "exceeded memory limit"];
    match code {
        Some("0") => Told::Done,
        _ if lower.contains("due to time limit") => Told::Failed(Cause::Time),
        _ if memory.iter().any(|words| lower.contains(words)) => Told::Failed(Cause::Memory),
        Some("124") => Told::Failed(Cause::Time),
        // Ended by a signal, or cut off, once it was told.
        Some("130" | "138" | "143") | None if text.contains(NEARLY_OVER) => Told::Failed(Cause::Time),
        // Killed while the script around it lived on: that is what the kernel does for want of memory.
        Some("137") => Told::Failed(Cause::Memory),
        Some("130" | "143") | None => Told::Failed(Cause::Killed),
        Some(_) => Told::Failed(Cause::Error),
    }
}

/// What became of a submission.
#[derive(Debug, Clone, Default, Serialize)]
pub struct State {
    /// Whether all of its jobs are in the queue, or were.
    pub complete: bool,
    /// Whether somebody cancelled it.
    pub cancelled: bool,
    /// Why the queue could not be asked, if so: what is in it then counts as not run.
    pub unasked: Option<String>,
    /// What became of the first job, which looks at the node.
    pub check: Option<Fate>,
    /// The most times that one element failed which failed now, earlier submissions included.
    pub most_failures: u32,
    /// By stage.
    pub stages: BTreeMap<String, StageState>,
    /// Elements that wait, run, are done, failed and did not run.
    pub counts: Counts,
}

/// How many jobs and elements there are of each fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// In the queue.
    pub wait: usize,
    /// Running.
    pub run: usize,
    /// Done.
    pub done: usize,
    /// Failed.
    pub failed: usize,
    /// Never begun.
    pub not_run: usize,
}

impl Counts {
    const fn add(&mut self, fate: Fate) {
        let count = match fate {
            Fate::Waits => &mut self.wait,
            Fate::Runs => &mut self.run,
            Fate::Done => &mut self.done,
            Fate::Failed(_) => &mut self.failed,
            Fate::NotRun => &mut self.not_run,
        };
        *count += 1;
    }

    /// Whether something waits or runs.
    pub const fn goes_on(&self) -> bool {
        self.wait + self.run > 0
    }
}

/// What became of the jobs of a stage.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StageState {
    /// How many of each fate.
    pub counts: Counts,
    /// Where jobs of it run, each once.
    pub nodes: Vec<String>,
    /// Why those wait that wait, as Slurm calls it, each once.
    pub reasons: Vec<String>,
    /// What failed.
    pub failures: Vec<Failure>,
}

/// An element that failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// What it was for.
    pub what: What,
    /// Its number.
    pub element: u32,
    /// By what the numbers of its partitions are divided, if it made some.
    pub width: u32,
    /// As Slurm calls it.
    pub id: String,
    /// Why.
    pub cause: Cause,
    /// How often it failed, earlier submissions included.
    pub times: u32,
    /// Its log.
    pub log: PathBuf,
}

impl State {
    /// What became of what was sent from a work folder; none if nothing was.
    ///
    /// # Errors
    /// When what was sent cannot be read. Where the queue cannot be asked the logs must do.
    pub fn new(work: &Path) -> Result<Option<Self>, Error> {
        let Some(submission) = Submission::open(work)? else { return Ok(None) };
        let (queue, unasked) = match slurm::queue() {
            Ok(queue) => (queue, None),
            Err(error) => (BTreeMap::new(), Some(error.to_string())),
        };
        let Submission { complete, cancelled, .. } = submission;
        let mut state = Self { complete, cancelled, unasked, ..Self::default() };
        for sent in &submission.jobs {
            for (element, fate) in fates(work, sent, &queue) {
                let earlier = submission.failed.get(&sent.job.element_title(element)).copied().unwrap_or(0);
                state.add(work, sent, (element, fate, earlier), &queue);
            }
        }
        Ok(Some(state))
    }

    /// Adds what became of an element, which failed so often in earlier submissions.
    fn add(
        &mut self,
        work: &Path,
        sent: &Sent,
        (element, fate, earlier): (u32, Fate, u32),
        queue: &BTreeMap<String, Queued>,
    ) {
        self.counts.add(fate);
        if matches!(fate, Fate::Failed(_)) {
            self.most_failures = self.most_failures.max(earlier + 1);
        }
        let id = sent.id(element).unwrap_or_default();
        let Some(stage) = sent.job.stage(element) else {
            self.check = Some(fate);
            return;
        };
        let of = self.stages.entry(stage.to_owned()).or_default();
        of.counts.add(fate);
        let queued = queue.get(&id);
        let keep = |into: &mut Vec<String>, word: &str| {
            if !word.is_empty() && word != "None" && !into.iter().any(|other| other == word) {
                into.push(word.to_owned());
            }
        };
        match fate {
            Fate::Runs => keep(&mut of.nodes, queued.map_or("", |queued| &queued.nodes)),
            Fate::Waits => keep(&mut of.reasons, queued.map_or("", |queued| &queued.reason)),
            Fate::Failed(cause) => of.failures.push(Failure {
                what: sent.job.what,
                element,
                width: sent.job.width,
                id,
                cause,
                times: earlier + 1,
                log: log(work, &sent.job, element),
            }),
            Fate::Done | Fate::NotRun => {}
        }
    }
}

/// The last lines of a log, without those that scripts write for us.
pub fn last_lines(log: &Path, count: usize) -> Vec<String> {
    let text = tail(log).unwrap_or_default();
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.starts_with(ENDS) && !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

/// The log of every element of a stage that was sent, of those that have one; with the fate of each.
///
/// # Errors
/// When nothing was submitted, or what was cannot be read.
pub fn logs_of(work: &Path, stage: Option<&str>) -> Result<Vec<(String, Fate, PathBuf)>, Error> {
    let submission = Submission::open(work)?;
    let submission = submission.ok_or_else(|| Error::NotSubmitted { work: work.to_owned() })?;
    let queue = slurm::queue().unwrap_or_default();
    let mut found = Vec::new();
    for sent in &submission.jobs {
        for (element, fate) in fates(work, sent, &queue) {
            let path = log(work, &sent.job, element);
            if stage.is_none_or(|stage| sent.job.stage(element) == Some(stage)) && path.exists() {
                found.push((sent.id(element).unwrap_or_default(), fate, path));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_an_element_is_read_from_queue_and_log() {
        use Cause::{Error, Killed, Memory, NoLog, Time};
        let queued = |state: &str, reason: &str| Queued {
            state: state.to_owned(),
            reason: reason.to_owned(),
            nodes: String::new(),
            name: String::new(),
        };
        let log =
            |end: &str| Some(read(&format!("{BEGINS} 7 element 0 on n1, restart 0\nerror: x\n{end}\n")));
        for (state, reason, told, expected) in [
            ("PENDING", "Dependency", None, Fate::Waits),
            ("PENDING", "DependencyNeverSatisfied", None, Fate::NotRun),
            ("RUNNING", "None", log(""), Fate::Runs),
            ("COMPLETED", "None", None, Fate::Done),
            ("", "", log("genomill: ended with 0"), Fate::Done),
            ("", "", log("genomill: ended with 1"), Fate::Failed(Error)),
            ("FAILED", "NonZeroExitCode", log("genomill: ended with 1"), Fate::Failed(Error)),
            ("FAILED", "NonZeroExitCode", None, Fate::Failed(NoLog)),
            ("OUT_OF_MEMORY", "OutOfMemory", log("genomill: ended with 137"), Fate::Failed(Memory)),
            (
                "",
                "",
                log("slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch"),
                Fate::Failed(Memory),
            ),
            ("", "", log("genomill: ended with 137"), Fate::Failed(Memory)),
            (
                "",
                "",
                log("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***"),
                Fate::Failed(Time),
            ),
            ("TIMEOUT", "TimeLimit", log(""), Fate::Failed(Time)),
            ("", "", log("genomill: ended with 124"), Fate::Failed(Time)),
            ("", "", log(&format!("{NEARLY_OVER}\ngenomill: ended with 130")), Fate::Failed(Time)),
            ("", "", log(NEARLY_OVER), Fate::Failed(Time)),
            ("", "", log(&format!("{NEARLY_OVER}\ngenomill: ended with 1")), Fate::Failed(Error)),
            ("CANCELLED", "None", log(""), Fate::Failed(Killed)),
            ("CANCELLED", "None", None, Fate::NotRun),
            ("NODE_FAIL", "None", None, Fate::Failed(Killed)),
            ("", "", None, Fate::NotRun),
        ] {
            let queued = (!state.is_empty()).then(|| queued(state, reason));
            assert_eq!(fate(queued.as_ref(), || told), expected, "{state} {reason} {told:?}");
        }
    }

    #[test]
    fn only_the_last_try_of_this_job_counts() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        std::fs::write(
            &log,
            format!(
                "{BEGINS} 7 element 0 on n1\ngenomill: ended with 1\n{BEGINS} 7 element 0 on n2\n{ENDS} 0\n"
            ),
        )
        .unwrap();
        assert_eq!(told(&log, 7, 0), Some(Told::Done));
        assert_eq!(told(&log, 8, 0), None, "of an earlier job");
        assert_eq!(told(&folder.path().join("none"), 7, 0), None);
        assert_eq!(last_lines(&log, 1), [format!("{BEGINS} 7 element 0 on n2")]);
    }
}
