//! The log of each run: its events with their times (UTC, RFC 3339) as JSON lines in `work/<name>/.cache/runs/`; that of a
//! partition made by itself, until it is made, in `.cache/tasks/<stage>/`.
//!
//! The first line is `run_started` with the workflow as written and its stages; the last one is `run_finished`,
//! `run_stopped` or, for each stage that failed, `run_failed`; a run that was killed has none of these. Progress is kept once
//! a second for each stage. The newest [`KEPT`] logs stay. A log that cannot be written is said once and never stops a run.
//! Memory: a line.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Decision, Error, Override, Workflow};
use crate::artifact::MANIFEST;
use crate::observer::{Event, Observer};
use crate::units::with_causes;
use crate::{TOOL, fs};

/// The logs that stay, the new one among them.
pub const KEPT: usize = 50;

/// Between two lines of the progress of a stage.
const INTERVAL: Duration = Duration::from_secs(1);

/// The folder of the logs of a work folder.
pub fn folder(work: &Path) -> PathBuf {
    work.join(".cache").join("runs")
}

/// The folder of the logs of the partitions of a stage that were made by themselves, or were to be.
pub fn tasks_folder(work: &Path, stage: &str) -> PathBuf {
    work.join(".cache").join("tasks").join(stage)
}

fn task_log(work: &Path, stage: &str, at: u32) -> PathBuf {
    tasks_folder(work, stage).join(format!("{at:05}.jsonl"))
}

/// The partitions of a stage that have a log, which are not made yet: the number of each, the log, and the last error in it.
pub fn tasks(work: &Path, stage: &str) -> Vec<(u32, PathBuf, Option<String>)> {
    let task = |log: PathBuf| {
        let at = log.file_stem()?.to_str()?.parse().ok()?;
        let lines = BufReader::new(File::open(&log).ok()?).lines().map_while(Result::ok);
        let last = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()).last();
        let error = last.and_then(|line| line["error"].as_str().map(str::to_owned));
        Some((at, log, error))
    };
    logs_in(&tasks_folder(work, stage)).into_iter().filter_map(task).collect()
}

/// Keeps the events of a run, and hands them on.
pub struct Journal<'a> {
    next: &'a dyn Observer,
    log: Mutex<Log>,
}

struct Log {
    path: PathBuf,
    /// The work folder.
    work: PathBuf,
    /// None when it cannot be written.
    file: Option<File>,
    /// When a stage's progress was last kept.
    kept: HashMap<String, Instant>,
}

impl<'a> Journal<'a> {
    /// Begins the log of a run that is about to start, and removes the oldest logs. `overrides` are those that the workflow
    /// was opened with.
    pub fn begin(work: &Path, workflow: &Workflow, overrides: &[Override], next: &'a dyn Observer) -> Self {
        let newest = logs_in(&folder(work)).pop();
        let time = later(SystemTime::now(), newest.as_deref());
        let path = folder(work).join(name(time, std::process::id()));
        Self::in_file((work, path), create, workflow, overrides, next)
    }

    /// Begins the log of a partition that is about to be made, in the place of an older one.
    pub fn of_task(
        work: &Path,
        (stage, at): (&str, u32),
        workflow: &Workflow,
        overrides: &[Override],
        next: &'a dyn Observer,
    ) -> Self {
        let create = |path: &Path| {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            fs::create(path)
        };
        Self::in_file((work, task_log(work, stage, at)), create, workflow, overrides, next)
    }

    fn in_file(
        (work, path): (&Path, PathBuf),
        create: impl FnOnce(&Path) -> Result<File, fs::Error>,
        workflow: &Workflow,
        overrides: &[Override],
        next: &'a dyn Observer,
    ) -> Self {
        let (file, problem) = match create(&path) {
            Ok(file) => (Some(file), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let journal =
            Self { next, log: Mutex::new(Log { path, work: work.to_owned(), file, kept: HashMap::new() }) };
        if let Some(problem) = problem {
            journal.complain(&problem);
        }
        journal.keep(json!({
            "event": "run_started",
            "tool": TOOL,
            "process": std::process::id(),
            "workflow": workflow.name,
            "file": std::path::absolute(&workflow.path).unwrap_or_else(|_| workflow.path.clone()),
            "stages": workflow.stages.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
            "set": overrides.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "text": std::fs::read_to_string(&workflow.path).unwrap_or_default(),
            "included": workflow.beside(),
        }));
        journal
    }

    /// Keeps how the run ended: each failure by itself.
    pub fn end(&self, result: &Result<Vec<(String, Decision)>, Error>) {
        match result {
            Ok(decisions) => {
                let ran = decisions.iter().filter(|(_, d)| matches!(d, Decision::Run(_))).count();
                let reused = decisions.iter().filter(|(_, d)| *d == Decision::Reuse).count();
                self.keep(json!({ "event": "run_finished", "ran": ran, "reused": reused }));
            }
            Err(Error::Failed { failures, .. }) => failures.iter().for_each(|error| self.keep_failure(error)),
            Err(error) => self.keep_failure(error),
        }
    }

    /// Keeps why a partition was not made; of one that was made no log stays.
    pub fn end_task(self, result: &Result<bool, Error>) {
        if let Err(error) = result {
            return self.keep_failure(error);
        }
        let log = self.log.into_inner().unwrap_or_else(PoisonError::into_inner);
        // It is of use to nobody; one that cannot be removed tells no failure.
        drop(std::fs::remove_file(log.path));
    }

    fn keep_failure(&self, error: &Error) {
        let stopped = matches!(error, Error::Interrupted { .. });
        let event = if stopped { "run_stopped" } else { "run_failed" };
        self.keep(json!({ "event": event, "stage": error.stage(), "error": with_causes(error) }));
    }

    /// Keeps that a stage begins, and what stands in its place: by what stands there later it is told whether the stage was
    /// made since, whatever the clocks of the machines say that make stages.
    fn keep_start(&self, event: &Event, stage: &str) {
        let replaces = standing(&self.log.lock().unwrap_or_else(PoisonError::into_inner).work, stage);
        let mut line = serde_json::to_value(event).unwrap_or_default();
        if let Some(line) = line.as_object_mut() {
            line.insert("replaces".to_owned(), replaces.into());
        }
        self.keep(line);
    }

    /// Writes a line, with the time in front.
    fn keep(&self, event: impl Serialize) {
        let Ok(Value::Object(event)) = serde_json::to_value(event) else { return };
        let mut line = serde_json::Map::from_iter([("time".to_owned(), now().into())]);
        line.extend(event);
        let text = format!("{}\n", Value::Object(line));
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &mut log.file else { return };
        if let Err(error) = file.write_all(text.as_bytes()) {
            log.file = None;
            let error = fs::error("write", &log.path)(error);
            drop(log);
            self.complain(&error.to_string());
        }
    }

    fn complain(&self, problem: &str) {
        let message = format!("this run keeps no log: {problem}");
        self.next.event(&Event::Note { stage: None, message });
    }

    /// Whether progress of a stage is to be kept: the first, and then once in a while.
    fn due(&self, stage: &str) -> bool {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let due = log.kept.get(stage).is_none_or(|last| last.elapsed() >= INTERVAL);
        if due {
            log.kept.insert(stage.to_owned(), Instant::now());
        }
        due
    }
}

impl Observer for Journal<'_> {
    fn event(&self, event: &Event) {
        self.next.event(event);
        match event {
            Event::Progress { stage, .. } if !self.due(stage) => {}
            Event::StageStarted { stage, .. } => self.keep_start(event, stage),
            event => self.keep(event),
        }
    }
}

/// `20261125T191143.123Z-4242.jsonl`: names sort by time, and no file system minds them.
fn name(time: SystemTime, process: u32) -> String {
    let time = humantime::format_rfc3339_millis(time).to_string();
    let time: String = time.chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
    format!("{time}-{process}.jsonl")
}

/// A time after that in the name of the newest log, even where it was named by a clock that is ahead of this one.
fn later(now: SystemTime, newest: Option<&Path>) -> SystemTime {
    let newest = newest.and_then(|log| time_of(log.file_name()?.to_str()?));
    newest.map_or(now, |newest| now.max(newest + Duration::from_millis(1)))
}

/// The time in the name of a log.
fn time_of(name: &str) -> Option<SystemTime> {
    let part = |range: std::ops::Range<usize>| name.get(range);
    let (date, clock) =
        ([part(0..4)?, part(4..6)?, part(6..8)?], [part(9..11)?, part(11..13)?, part(13..20)?]);
    humantime::parse_rfc3339(&format!("{}T{}", date.join("-"), clock.join(":"))).ok()
}

/// What tells the artifact in a stage's place from another: the hash of its manifest; nothing where there is none.
pub(super) fn standing(work: &Path, stage: &str) -> String {
    let manifest = std::fs::read(work.join(stage).join(MANIFEST));
    manifest.map_or_else(|_| String::new(), |text| blake3::hash(&text).to_hex().to_string())
}

/// This moment, as RFC 3339 has it, in UTC.
fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// A new log; the oldest ones make place for it.
fn create(path: &Path) -> Result<File, fs::Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let names = logs_in(folder);
    for old in names.iter().take((names.len() + 1).saturating_sub(KEPT)) {
        match std::fs::remove_file(old) {
            // Another process makes place too.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(fs::error("remove", old))?,
        }
    }
    File::options().create_new(true).append(true).open(path).map_err(fs::error("create", path))
}

/// The logs of a folder, oldest first; none where there is no folder.
fn logs_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut logs: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    logs.sort();
    logs
}

/// What the logs last say of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// When, as RFC 3339 has it.
    pub time: String,
    /// The process that ran it.
    pub process: u64,
    /// The hash of the manifest in its place when it began, empty if there was none; none where the log does not tell.
    pub replaces: Option<String>,
    /// What became of it.
    pub what: What,
}

/// What became of a stage in a run.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// It began; the log says no more of it, so that it runs or its process was killed. With its last progress, if any:
    /// done, out of, and in what.
    Started(Option<(u64, Option<u64>, String)>),
    /// It published its artifact, after this many seconds.
    Finished(f64),
    /// Its artifact was used again.
    Reused,
    /// It was told to stop, or its run ended without it.
    Stopped,
    /// It failed, with this error.
    Failed(String),
}

/// What the logs of a work folder last say of each stage. Lines that are no events, such as a last one that was cut off,
/// are left out.
pub fn last(work: &Path) -> BTreeMap<String, Told> {
    let mut told = BTreeMap::new();
    for log in logs_in(&folder(work)) {
        read(&log, &mut told);
    }
    told
}

fn read(log: &Path, told: &mut BTreeMap<String, Told>) {
    let Ok(file) = File::open(log) else { return };
    let mut process = 0;
    let mut started = Vec::new();
    let mut replaces: BTreeMap<String, String> = BTreeMap::new();
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let (event, stage, time) = (text("event"), text("stage"), text("time"));
        let what = match event.as_str() {
            "run_started" => {
                process = line["process"].as_u64().unwrap_or(0);
                continue;
            }
            "stage_started" => {
                started.push(stage.clone());
                replaces.extend(line["replaces"].as_str().map(|hash| (stage.clone(), hash.to_owned())));
                What::Started(None)
            }
            "progress" => {
                let done = line["done"].as_u64().unwrap_or(0);
                What::Started(Some((done, line["total"].as_u64(), text("unit"))))
            }
            "stage_reused" => What::Reused,
            "stage_finished" => {
                started.retain(|other| *other != stage);
                What::Finished(line["seconds"].as_f64().unwrap_or(0.0))
            }
            "stage_failed" => {
                started.retain(|other| *other != stage);
                What::Failed(text("error"))
            }
            "run_finished" | "run_stopped" | "run_failed" => {
                let stop = |stage: &str| {
                    let replaces = replaces.get(stage).cloned();
                    Told { time: time.clone(), process, replaces, what: What::Stopped }
                };
                told.extend(started.drain(..).map(|stage| (stage.clone(), stop(&stage))));
                if event != "run_failed" || stage.is_empty() {
                    continue;
                }
                What::Failed(text("error"))
            }
            _ => continue,
        };
        let replaces = replaces.get(&stage).cloned();
        told.insert(stage, Told { time, process, replaces, what });
    }
}

/// The first line of the newest log that has one: which file the work folder was last made from, and what it said.
pub fn last_start(work: &Path) -> Option<Value> {
    let first = |log: PathBuf| {
        let mut line = String::new();
        BufReader::new(File::open(log).ok()?).read_line(&mut line).ok()?;
        serde_json::from_str::<Value>(&line).ok().filter(|line| line["event"] == "run_started")
    };
    logs_in(&folder(work)).into_iter().rev().find_map(first)
}

/// When each stage last began and ended, as RFC 3339 has it, from the runs that made what is there.
pub fn times(work: &Path) -> BTreeMap<String, (String, String)> {
    let mut times = BTreeMap::new();
    for log in logs_in(&folder(work)) {
        let Ok(file) = File::open(log) else { continue };
        let mut begun = BTreeMap::new();
        let lines =
            BufReader::new(file).lines().map_while(Result::ok).filter(|line| line.contains("\"stage_"));
        for line in lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()) {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            match line["event"].as_str() {
                Some("stage_started") => drop(begun.insert(text("stage"), text("time"))),
                Some("stage_finished") => {
                    let start = begun.remove(&text("stage")).unwrap_or_default();
                    times.insert(text("stage"), (start, text("time")));
                }
                _ => {}
            }
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::{Silent, Unit};

    fn workflow(folder: &Path) -> Workflow {
        let path = folder.join("flow.yaml");
        std::fs::write(&path, "name: flow\nstages: {raw: {uses: ingest, sources: [{fasta: a.fa}]}}\n")
            .unwrap();
        Workflow::open(&path, &[], &|_| None).unwrap()
    }

    fn started(stage: &str) -> Event {
        Event::StageStarted { stage: stage.to_owned(), reason: "not made yet".to_owned() }
    }

    fn finished(stage: &str) -> Event {
        Event::StageFinished { stage: stage.to_owned(), seconds: 1.5, summary: String::new() }
    }

    fn progress(stage: &str, done: u64) -> Event {
        Event::Progress { stage: stage.to_owned(), done, total: Some(9), unit: Unit::Bases }
    }

    #[test]
    fn a_log_has_every_event_with_its_time_and_progress_once_a_second() {
        let work = tempfile::tempdir().unwrap();
        let journal = Journal::begin(work.path(), &workflow(work.path()), &[], &Silent);
        journal.event(&started("raw"));
        (0..9).for_each(|done| journal.event(&progress("raw", done)));
        journal.event(&progress("other", 0));
        journal.event(&finished("raw"));
        journal.end(&Ok(vec![("raw".to_owned(), Decision::Run(String::new()))]));
        let [log] = &logs_in(&folder(work.path()))[..] else { panic!("one log") };
        let text = std::fs::read_to_string(log).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(
            events,
            ["run_started", "stage_started", "progress", "progress", "stage_finished", "run_finished"]
        );
        for line in &lines {
            let time = line["time"].as_str().unwrap();
            assert!(humantime::parse_rfc3339(time).is_ok() && time.ends_with('Z'), "{time}");
        }
        assert!(lines[0]["text"].as_str().unwrap().contains("uses: ingest"));
        assert_eq!(lines[5]["ran"], 1);
        assert_eq!(last_start(work.path()).unwrap(), lines[0]);
        let (began, ended) = &times(work.path())["raw"];
        assert_eq!(
            (began.as_str(), ended.as_str()),
            (lines[1]["time"].as_str().unwrap(), lines[4]["time"].as_str().unwrap())
        );
    }

    #[test]
    fn the_last_word_on_each_stage_is_told() {
        let work = tempfile::tempdir().unwrap();
        let workflow = workflow(work.path());
        let begin = || {
            std::thread::sleep(Duration::from_millis(2));
            Journal::begin(work.path(), &workflow, &[], &Silent)
        };
        let journal = begin();
        for stage in ["done", "killed", "stopped", "failed"] {
            journal.event(&started(stage));
            journal.event(&finished(stage));
        }
        journal.end(&Ok(Vec::new()));
        let journal = begin();
        journal.event(&started("stopped"));
        journal.end(&Err(Error::Interrupted { stage: "stopped".to_owned() }));
        let journal = begin();
        journal.event(&started("failed"));
        let (stage, reason) = ("failed".to_owned(), "it is gone".to_owned());
        let error = Error::MissingInput { stage, input: "raw".to_owned(), reason };
        let other = Error::Changed { stage: "changed".to_owned(), path: PathBuf::from("a.fa") };
        journal.end(&Err(Error::Failed { failures: vec![error, other], held_up: vec![] }));
        let journal = begin();
        journal.event(&started("killed"));
        journal.event(&progress("killed", 4));
        let told = last(work.path());
        assert_eq!(told["done"].what, What::Finished(1.5));
        assert_eq!(told["stopped"].what, What::Stopped);
        let error = "stage `failed` needs `raw`, which is not there: it is gone";
        assert_eq!(told["failed"].what, What::Failed(error.to_owned()));
        assert!(matches!(&told["changed"].what, What::Failed(error) if error.contains("`a.fa` changed")));
        assert_eq!(told["killed"].what, What::Started(Some((4, Some(9), "bases".to_owned()))));
        assert_eq!(told["killed"].process, u64::from(std::process::id()));
    }

    #[test]
    fn the_newest_logs_stay() {
        let work = tempfile::tempdir().unwrap();
        let workflow = workflow(work.path());
        std::fs::create_dir_all(folder(work.path())).unwrap();
        for day in 1..=60 {
            let time = humantime::parse_rfc3339(&format!("2026-01-01T00:00:{:02}Z", day % 60)).unwrap();
            std::fs::write(folder(work.path()).join(name(time, day)), "").unwrap();
        }
        drop(Journal::begin(work.path(), &workflow, &[], &Silent));
        let logs = logs_in(&folder(work.path()));
        assert_eq!(logs.len(), KEPT);
        assert!(std::fs::metadata(logs.last().unwrap()).unwrap().len() > 0, "the new one is among them");
    }

    /// Machines that share a work folder may have clocks an hour apart.
    #[test]
    fn what_is_told_last_does_not_depend_on_clocks() {
        let work = tempfile::tempdir().unwrap();
        let workflow = workflow(work.path());
        let failed = |stage: &str| {
            let journal = Journal::begin(work.path(), &workflow, &[], &Silent);
            journal.event(&started(stage));
            let (input, reason) = ("raw".to_owned(), "it is gone".to_owned());
            journal.end(&Err(Error::MissingInput { stage: stage.to_owned(), input, reason }));
        };
        failed("clean");
        let [first] = &logs_in(&folder(work.path()))[..] else { panic!("one log") };
        let ahead = SystemTime::now() + Duration::from_hours(1);
        std::fs::rename(first, folder(work.path()).join(name(ahead, 7))).unwrap();
        assert!(matches!(last(work.path())["clean"].what, What::Failed(_)));
        let journal = Journal::begin(work.path(), &workflow, &[], &Silent);
        journal.event(&started("clean"));
        journal.event(&finished("clean"));
        journal.end(&Ok(Vec::new()));
        assert_eq!(last(work.path())["clean"].what, What::Finished(1.5), "the clock is an hour behind");
        assert_eq!(last(work.path())["clean"].replaces.as_deref(), Some(""));
        let logs = logs_in(&folder(work.path()));
        let times: Vec<_> =
            logs.iter().map(|log| time_of(log.file_name().unwrap().to_str().unwrap()).unwrap()).collect();
        assert_eq!(times[1].duration_since(times[0]).unwrap(), Duration::from_millis(1));
        std::fs::create_dir(work.path().join("clean")).unwrap();
        std::fs::write(work.path().join("clean").join(MANIFEST), "{}").unwrap();
        failed("clean");
        assert_eq!(last(work.path())["clean"].replaces, Some(standing(work.path(), "clean")));
        for wrong in ["", "x.jsonl", "2026é125T191143.123Z-4.jsonl", "20269925T191143.123Z-4.jsonl"] {
            assert_eq!(time_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_log_that_cannot_be_written_is_said_once_and_stops_nothing() {
        #[derive(Default)]
        struct Kept(Mutex<Vec<String>>);
        impl Observer for Kept {
            fn event(&self, event: &Event) {
                self.0.lock().unwrap().push(format!("{event:?}"));
            }
        }
        let work = tempfile::tempdir().unwrap();
        let workflow = workflow(work.path());
        std::fs::create_dir(work.path().join(".cache")).unwrap();
        std::fs::write(folder(work.path()), "no folder").unwrap();
        let kept = Kept::default();
        let journal = Journal::begin(work.path(), &workflow, &[], &kept);
        journal.event(&started("raw"));
        journal.end(&Ok(Vec::new()));
        // A disk that is full from the beginning.
        let full = Path::new("/dev/full");
        if full.exists() {
            let file = File::options().write(true).open(full).unwrap();
            journal.log.lock().unwrap().file = Some(file);
            journal.event(&started("clean"));
            journal.event(&finished("clean"));
        }
        let kept = kept.0.lock().unwrap();
        assert!(kept[0].contains("this run keeps no log"), "{kept:?}");
        assert_eq!(
            kept.iter().filter(|event| event.contains("StageStarted")).count(),
            1 + usize::from(full.exists())
        );
        assert_eq!(
            kept.iter().filter(|event| event.contains("keeps no log")).count(),
            1 + usize::from(full.exists())
        );
    }

    #[test]
    fn values_of_the_command_line_are_kept_as_they_are_read_again() {
        for text in ["a.b=12", "a.b='12'", "params.x=text", "matrix.v=[16, 'a']", "a.b=null", "a.b=x: y"] {
            let over: Override = text.parse().unwrap();
            assert_eq!(over.to_string().parse::<Override>().unwrap(), over, "{text} -> {over}");
        }
    }
}
