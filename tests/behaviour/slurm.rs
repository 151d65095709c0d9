//! Workflows as jobs of a real Slurm of two nodes on this machine (`tests/slurm/cluster`), where Debian's slurm-wlm and munge are
//! installed and we are root; elsewhere these tests say that they were skipped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::support::{LAMBDA, Scratch, root, stderr};

/// A cluster, gone when dropped. One at a time: they would slow each other down.
struct Cluster {
    folder: tempfile::TempDir,
    /// What its programs, and ours, are started with.
    variables: Vec<(String, String)>,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Cluster {
    /// None, and a line that says so, where there is no Slurm.
    fn start(test: &str, settings: &[(&str, &str)]) -> Option<Self> {
        let installed = |program: &&str| {
            Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output()
                .is_ok_and(|o| o.status.success())
        };
        let missing: Vec<&str> = ["slurmctld", "slurmd", "sbatch", "munged"]
            .into_iter()
            .filter(|program| !installed(program))
            .collect();
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
        if !missing.is_empty() || !is_root {
            eprintln!("{test}: skipped: it needs root, and these that are missing: {missing:?}");
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let output = cluster("start", folder.path()).envs(settings.iter().copied()).output().unwrap();
        let said = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let (key, value) = said.trim().split_once('=').unwrap();
        let variables = vec![(key.to_owned(), value.to_owned())];
        Some(Self { folder, variables, _turn: turn })
    }

    /// A program of Slurm, which must succeed; what it prints.
    fn slurm(&self, program: &str, arguments: &[&str]) -> String {
        let output =
            Command::new(program).args(arguments).envs(self.variables.iter().cloned()).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn genomill(&self, scratch: &Scratch, command: &str, arguments: &[&str]) -> Output {
        scratch.command(command, arguments).envs(self.variables.iter().cloned()).output().unwrap()
    }

    /// A command that must succeed; what it says on stderr, and prints.
    fn said(&self, scratch: &Scratch, command: &str, arguments: &[&str]) -> String {
        let output = self.genomill(scratch, command, arguments);
        assert!(output.status.success(), "{command}: {}\n{}", stderr(&output), self.logs());
        stderr(&output) + &String::from_utf8_lossy(&output.stdout)
    }

    /// Waits until nothing is left in the queue; whether all went well, and what was said.
    fn watch(&self, scratch: &Scratch) -> (bool, String) {
        let output = self.genomill(scratch, "watch", &["--every", "0.2 s"]);
        (output.status.success(), stderr(&output))
    }

    fn logs(&self) -> String {
        let log =
            |name: &str| fs::read_to_string(self.folder.path().join("log").join(name)).unwrap_or_default();
        let text = log("slurmctld.log");
        text[text.len().saturating_sub(3000)..].to_owned()
    }

    /// Ends a node without warning: its daemon and all that it started, at least one job.
    fn kill_node(&self, node: &str) {
        let mut doomed = Vec::new();
        // A job is said to run before its node has begun it.
        until("a job on the node", || {
            doomed = self.processes(node);
            doomed.len() > 2
        });
        let killed = Command::new("kill").arg("-9").args(&doomed).output().unwrap();
        assert!(killed.status.success(), "{doomed:?}: {}", stderr(&killed));
    }

    /// The numbers of a node's daemon and of all that it started.
    fn processes(&self, node: &str) -> Vec<String> {
        let number = |name: &str| {
            fs::read_to_string(self.folder.path().join("run").join(name)).unwrap().trim().to_owned()
        };
        let mut all = vec![number(&format!("slurmd-{node}.pid"))];
        let ours = self.variables[0].1.clone();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            let has =
                |variable: String| environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes());
            if has(format!("SLURMD_NODENAME={node}")) && has(format!("SLURM_CONF={ours}")) {
                let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
                let parent =
                    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).unwrap_or("");
                let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
                if name.starts_with("slurmstepd") {
                    all.push(parent.to_owned());
                }
                all.push(process.file_name().to_string_lossy().into_owned());
            }
        }
        all
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(cluster("stop", self.folder.path()).output());
    }
}

fn cluster(what: &str, folder: &Path) -> Command {
    let mut command = Command::new(root().join("tests/slurm/cluster"));
    command.arg(what).arg(folder);
    command
}

/// Waits for something to come true.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_mins(2), "{what} did not come to be");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Phage lambda with `tokens` in partitions of 20,000 bases: five of them.
fn in_partitions() -> Scratch {
    let scratch = Scratch::lambda();
    let old = "{uses: tokenize, from: windows, tokenizer: bpe}";
    scratch.write(&LAMBDA.replace(old, "{uses: tokenize, from: windows, tokenizer: bpe, partition: 20kb}"));
    scratch.file("site.yaml", "elements: 3\npartition: main\nsubmissions_per_second: 100\nwait: 5 s\n");
    scratch
}

/// The same with all that `tokens` reads made here already, so that fewer jobs wait for each other.
fn ready() -> Scratch {
    let scratch = in_partitions();
    scratch.ran(&["--until", "windows"]);
    scratch.ran(&["--only", "bpe"]);
    scratch
}

/// Has every job begin with a line of shell.
fn set_up(scratch: &Scratch, line: &str) {
    let site = fs::read_to_string(scratch.path("site.yaml")).unwrap();
    scratch.file("site.yaml", &format!("{site}setup:\n  - '{line}'\n"));
}

/// What a run on this machine alone makes of the same files.
fn locally(scratch: &Scratch) -> std::collections::BTreeMap<String, String> {
    let alone = scratch.copy();
    drop(fs::remove_dir_all(alone.path("work")));
    alone.ran(&[]);
    alone.contents()
}

const PROFILE: [&str; 2] = ["--profile", "site.yaml"];

#[test]
fn jobs_make_what_a_run_makes_byte_for_byte_and_doing_it_twice_does_no_harm() {
    let Some(cluster) = Cluster::start("jobs", &[]) else { return };
    let scratch = in_partitions();
    let dry = cluster.said(&scratch, "submit", &[&PROFILE[..], &["--dry-run"]].concat());
    for expected in [
        "# check: sbatch\n",
        "# tokens-partitions: sbatch --dependency=afterok:windows,afterok:bpe\n",
        "#SBATCH --array=0-2\n",
        "--kill-on-invalid-dep=yes\n",
    ] {
        assert!(dry.contains(expected), "{expected} in {dry}");
    }
    assert!(cluster.slurm("squeue", &["-h", "--states=all"]).is_empty(), "a dry run sends nothing");
    let said = cluster.said(&scratch, "submit", &PROFILE);
    assert!(said.contains("9 jobs of 11 elements are submitted"), "{said}");
    let output = cluster.genomill(&scratch, "submit", &PROFILE);
    let again = stderr(&output);
    assert!(!output.status.success() && again.contains("jobs or elements in the queue"), "{again}");
    let (good, said) = cluster.watch(&scratch);
    assert!(
        good && said.contains("11 done, 0 failed, 0 not run"),
        "{said}\n{}",
        cluster.said(&scratch, "logs", &[])
    );
    assert_eq!(scratch.contents(), locally(&scratch));
    let said = cluster.said(&scratch, "submit", &PROFILE);
    assert!(said.contains("nothing to do: all of it is there"), "{said}");
    let said = cluster.said(&scratch, "resubmit", &[]);
    assert!(said.contains("nothing is missing"), "{said}");
    let said = cluster.said(&scratch, "logs", &["--stage", "tokens"]);
    assert!(
        said.contains("partitions 0,3 of `tokens` are made") && said.contains("`tokens` is made"),
        "{said}"
    );
    // Jobs that ended well are sent again, as a queue may that lost sight of them: two at once.
    let scripts = fs::read_dir(scratch.artifact(".cluster/scripts")).unwrap().next().unwrap().unwrap().path();
    let before = scratch.contents();
    for script in ["005.sh", "006.sh", "006.sh", "007.sh", "007.sh"] {
        cluster.slurm("sbatch", &[scripts.join(script).to_str().unwrap()]);
    }
    until("the end of the copies", || cluster.slurm("squeue", &["-h"]).is_empty());
    assert_eq!(scratch.contents(), before);
    assert_eq!(scratch.ran(&[]), [""; 0], "a run finds all of it");
}

#[test]
fn what_fails_stops_what_needs_it_alone_and_what_is_missing_is_sent_again() {
    let Some(cluster) = Cluster::start("failures", &[]) else { return };
    let scratch = ready();
    let apart = "  apart:   {uses: leaks, from: split}\n";
    let yaml = fs::read_to_string(scratch.path("flow.yaml")).unwrap();
    scratch.write(&(yaml + apart));
    // An element that fails once, as on a node with a fault.
    let once = scratch.path("fails-once");
    let setup = format!(
        "case $SLURM_JOB_NAME in tokens-partitions.*) [ $element != 1 ] || [ -e {0} ] || {{ touch {0}; echo broken disk; finish 9; }} ;; esac",
        once.display()
    );
    set_up(&scratch, &setup);
    cluster.said(&scratch, "submit", &PROFILE);
    let (good, said) = cluster.watch(&scratch);
    assert!(!good && said.contains("1 failed, 2 not run"), "{said}");
    assert!(scratch.artifact("apart/manifest.json").exists(), "what does not need it runs");
    assert!(!scratch.artifact("tokens").exists() && !scratch.artifact("shards").exists());
    let status = cluster.said(&scratch, "status", &[]);
    for expected in [
        "3 of its 5 partitions are there, missing 1,4\n",
        "queue: 2 done, 1 failed, 1 not run\n",
        "partitions 1, 4, ... (",
        "    broken disk\n",
    ] {
        assert!(status.contains(expected), "{expected} in {status}");
    }
    let logs = cluster.said(&scratch, "logs", &["--failed"]);
    assert!(logs.contains("broken disk") && logs.matches("==>").count() == 1, "{logs}");
    let said = cluster.said(&scratch, "resubmit", &[]);
    assert!(said.contains("4 jobs of 4 elements are submitted"), "{said}");
    let (good, said) = cluster.watch(&scratch);
    assert!(good, "{said}");
    let made = cluster.said(&scratch, "logs", &["--stage", "tokens"]);
    assert_eq!(made.matches("partitions 1,4 of `tokens` are made").count(), 1, "{made}");
    assert_eq!(scratch.contents(), locally(&scratch));
}

#[test]
fn a_task_that_is_killed_is_missing_alone_and_sent_again() {
    let Some(cluster) = Cluster::start("killed task", &[]) else { return };
    let scratch = ready();
    let once = scratch.path("killed-once");
    let setup = format!(
        "case $SLURM_JOB_NAME in tokens-partitions.*) [ $element != 1 ] || [ -e {0} ] || {{ touch {0}; kill -9 $$; }} ;; esac",
        once.display()
    );
    set_up(&scratch, &setup);
    cluster.said(&scratch, "submit", &PROFILE);
    let (good, said) = cluster.watch(&scratch);
    assert!(!good && said.contains("1 failed, 2 not run"), "{said}");
    let status = cluster.said(&scratch, "status", &[]);
    assert!(status.contains("3 of its 5 partitions are there, missing 1,4\n"), "{status}");
    cluster.said(&scratch, "resubmit", &[]);
    let (good, said) = cluster.watch(&scratch);
    assert!(good, "{said}");
    assert_eq!(scratch.contents(), locally(&scratch));
}

#[test]
fn expansions_of_a_sweep_go_element_by_element() {
    let Some(cluster) = Cluster::start("sweep", &[]) else { return };
    let scratch = in_partitions();
    scratch.ran(&["--until", "windows"]);
    scratch.write(
        &LAMBDA
            .replace("params: {vocabulary: 96}", "matrix: {vocabulary: [32, 96]}")
            .replace("params.", "matrix.")
            .replace("name: flow", "name: flow\nengine: {slurm: {profile: site.yaml}}"),
    );
    let setup = "case $SLURM_JOB_NAME in bpe-2.*) [ $element != 1 ] || [ -e go ] || finish 9 ;; esac";
    set_up(&scratch, setup);
    let said = cluster.said(&scratch, "submit", &[]);
    assert!(said.contains("4 jobs of 7 elements"), "{said}");
    let (good, said) = cluster.watch(&scratch);
    assert!(!good && said.contains("4 done, 1 failed, 2 not run"), "{said}");
    assert!(scratch.artifact("shards@vocabulary=32/manifest.json").exists());
    assert!(!scratch.artifact("tokens@vocabulary=96").exists());
    scratch.file("go", "");
    let said = cluster.said(&scratch, "resubmit", &[]);
    assert!(said.contains("4 jobs of 4 elements"), "{said}");
    assert!(cluster.watch(&scratch).0);
    assert_eq!(scratch.contents(), locally(&scratch));
}

#[test]
fn a_thousand_partitions_are_packed_into_a_few_elements() {
    let Some(cluster) = Cluster::start("packing", &[("MAX_ARRAY", "4")]) else { return };
    let scratch = in_partitions();
    let yaml = LAMBDA
        .replace("window: 1000", "window: 80")
        .replace("tokenizer: bpe}", "tokenizer: bpe, partition: 1}");
    scratch.write(&yaml);
    scratch.ran(&["--until", "windows"]);
    scratch.ran(&["--only", "bpe"]);
    scratch.file("site.yaml", "elements: 64\nsubmissions_per_second: 100\nwait: 5 s\n");
    cluster.said(&scratch, "submit", &PROFILE);
    let (good, said) = cluster.watch(&scratch);
    assert!(good && said.contains("7 done"), "{said}");
    let parts = fs::read_dir(scratch.artifact("tokens/train")).unwrap().count();
    let logs = cluster.said(&scratch, "logs", &["--stage", "tokens"]);
    assert!(parts > 700 && logs.matches("==>").count() == 5, "{parts}: {logs}");
    scratch.write(&yaml.replace(", partition: 1}", "}"));
    let shards = |all: std::collections::BTreeMap<String, String>| -> Vec<_> {
        all.into_iter().filter(|(path, _)| path.starts_with("shards/")).collect()
    };
    assert_eq!(shards(scratch.contents()), shards(locally(&scratch)), "as in one partition");
}

#[test]
fn want_of_memory_and_of_time_are_told_and_more_is_asked_for() {
    let Some(cluster) = Cluster::start("more", &[]) else { return };
    // What the kernel does to a process that wants too much, and a program that takes too long.
    let yaml = "
name: flow
stages:
  big:  {uses: command, run: '[ -e more ] || kill -9 $PPID; touch {out}/x', outputs: [x], resources: {memory: 100MB}}
  slow: {uses: command, run: '[ -e more ] || sleep 60; touch {out}/x', outputs: [x], resources: {time: 1 s}}
";
    let scratch = Scratch::new(yaml);
    scratch.file("site.yaml", "submissions_per_second: 100\nmore: {most_memory: 150MB}\n");
    cluster.said(&scratch, "submit", &PROFILE);
    let (good, said) = cluster.watch(&scratch);
    assert!(!good, "{said}");
    for expected in [
        "big  queue: 1 failed",
        "failed for want of memory; log",
        "failed for want of time; log",
        "it was stopped after 1s",
    ] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    scratch.file("more", "");
    let said = cluster.said(&scratch, "resubmit", &[]);
    assert!(
        said.contains("`big` ran out of memory: it gets 150")
            && said.contains("`slow` ran out of time: it gets 2s"),
        "{said}"
    );
    let (good, said) = cluster.watch(&scratch);
    assert!(good, "{said}");
    let jobs = cluster.slurm("squeue", &["-h", "--states=all", "--format=%j %m"]);
    assert!(jobs.lines().any(|line| line.starts_with("big.") && line.ends_with(" 144M")), "{jobs}");
}

#[test]
fn a_job_that_the_kernel_ends_for_its_memory_gets_more() {
    if !Path::new("/sys/fs/cgroup/memory/tasks").is_file() {
        eprintln!(
            "memory: skipped: there is no memory controller of cgroups, version 1, that a Slurm without systemd could use"
        );
        return;
    }
    let Some(cluster) = Cluster::start("memory", &[("CGROUPS", "1")]) else { return };
    // `tail` keeps a line that does not end.
    let yaml = "
name: flow
stages:
  big: {uses: command, run: 'head -c 700M /dev/zero | tail >{out}/x', outputs: [x], resources: {memory: 500MB}}
";
    let scratch = Scratch::new(yaml);
    scratch.file("site.yaml", "submissions_per_second: 100\n");
    cluster.said(&scratch, "submit", &PROFILE);
    let (good, said) = cluster.watch(&scratch);
    assert!(!good && said.contains("failed for want of memory"), "{said}");
    let states = cluster.slurm("squeue", &["-h", "--states=all", "--format=%j %T"]);
    assert!(states.contains("OUT_OF_MEMORY"), "{states}");
    let output = cluster.genomill(&scratch, "watch", &["--every", "0.2 s", "--resubmit", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(fs::metadata(scratch.artifact("big").join("x")).unwrap().len(), 700 << 20);
}

#[test]
fn what_fails_is_sent_again_until_it_has_failed_often_enough() {
    let Some(cluster) = Cluster::start("again", &[]) else { return };
    // One that succeeds at the third try, and one that never wants more memory than it may have.
    let yaml = "
name: flow
stages:
  third: {uses: command, run: 'echo >>tries; [ $(wc -l <tries) = 3 ] && touch {out}/x', outputs: [x]}
  big:   {uses: command, run: '[ -e more ] || { touch more; kill -9 $PPID; }; touch {out}/x', outputs: [x], resources: {memory: 100MB}}
";
    let scratch = Scratch::new(yaml);
    scratch.file("site.yaml", "submissions_per_second: 100\nmore: {most_memory: 100MB}\n");
    cluster.said(&scratch, "submit", &PROFILE);
    let watch = |times: &str| {
        let output = cluster.genomill(&scratch, "watch", &["--every", "0.2 s", "--resubmit", times]);
        (output.status.success(), stderr(&output))
    };
    let (good, said) = watch("1");
    assert!(!good && said.contains("failed, 2 times in all; log"), "{said}");
    for expected in
        ["`big` ran out of memory: it had 100", " and gets no more, since the profile's `more` allows none"]
    {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    assert!(scratch.artifact("big/manifest.json").exists(), "{said}");
    let status = cluster.said(&scratch, "status", &[]);
    assert!(status.contains("failed, 2 times in all; log"), "{status}");
    let (good, said) = watch("2");
    assert!(good && said.matches("are submitted").count() == 1, "{said}");
    // What somebody takes away is not sent again.
    scratch.write("name: flow\nstages: {slow: {uses: command, run: sleep 60, outputs: [x]}}\n");
    cluster.said(&scratch, "submit", &PROFILE);
    until("a job that runs", || {
        cluster.slurm("squeue", &["-h", "--states=R", "--format=%j"]).contains("slow")
    });
    cluster.said(&scratch, "cancel", &[]);
    let (good, said) = watch("9");
    assert!(!good && said.contains("; cancelled") && !said.contains("submitted"), "{said}");
}

/// Slurm tells the script of a job a minute before its limit, and genomill must hear of it.
#[test]
fn a_job_that_is_told_that_its_time_is_nearly_over_stops_in_time() {
    let Some(cluster) = Cluster::start("notice", &[]) else { return };
    let yaml = "
name: flow
stages:
  slow: {uses: command, run: '[ -e more ] || exec sleep 60; touch {out}/x', outputs: [x], resources: {time: 10 min}}
";
    let scratch = Scratch::new(yaml);
    scratch.file("site.yaml", "submissions_per_second: 100\n");
    cluster.said(&scratch, "submit", &PROFILE);
    let log = scratch.artifact(".cluster/logs/slow/whole.log");
    until("a job that runs", || fs::read_to_string(&log).is_ok_and(|text| text.contains("slow: runs")));
    let job = cluster.slurm("squeue", &["-h", "--states=R", "--format=%i"]);
    let began = Instant::now();
    cluster.slurm("scancel", &["--batch", "--signal=USR1", job.trim()]);
    let (good, said) = cluster.watch(&scratch);
    assert!(!good && said.contains("failed for want of time; log"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(30), "it heard nothing");
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("told that its time is nearly over") && text.ends_with("ended with 130\n"),
        "{text}"
    );
    scratch.file("more", "");
    let said = cluster.said(&scratch, "resubmit", &[]);
    assert!(said.contains("`slow` ran out of time: it gets 20m"), "{said}");
    let (good, said) = cluster.watch(&scratch);
    assert!(good, "{said}");
}

/// Nodes may have clocks that differ: files come with dates of long ago, or of a time to come.
#[test]
fn dates_of_what_is_there_do_not_matter() {
    let Some(cluster) = Cluster::start("dates", &[]) else { return };
    let scratch = ready();
    let task = scratch.command("run-task", &["tokens", "--partition", "0"]).output().unwrap();
    assert!(task.status.success(), "{}", stderr(&task));
    scratch.dated("1999-01-01");
    let late = ["windows", "bpe", ".cache"].map(|name| scratch.artifact(name));
    let touched =
        Command::new("find").args(late).args(["-exec", "touch", "-d", "2099-01-01", "{}", "+"]).status();
    assert!(touched.unwrap().success());
    let said = cluster.said(&scratch, "submit", &PROFILE);
    assert!(said.contains("4 jobs of 6 elements are submitted"), "{said}");
    let (good, said) = cluster.watch(&scratch);
    assert!(good, "{said}");
    let logs = cluster.said(&scratch, "logs", &["--stage", "tokens"]);
    assert!(logs.contains("partition 3 of `tokens` is made; partition 0 of `tokens` was there"), "{logs}");
    assert_eq!(scratch.contents(), locally(&scratch));
}

#[test]
fn a_node_that_does_not_see_the_work_folder_is_told_before_work_starts() {
    let scratch = ready();
    let blind = scratch.path("");
    let Some(cluster) = Cluster::start("blind", &[("BLIND", blind.to_str().unwrap())]) else { return };
    scratch.file("site.yaml", "extra: [--nodelist=n2]\nsubmissions_per_second: 100\n");
    cluster.said(&scratch, "submit", &PROFILE);
    let (good, said) = cluster.watch(&scratch);
    assert!(!good, "{said}");
    assert!(
        said.contains(
            "the check of a node failed before it could write its log: does its node see the work folder?"
        ),
        "{said}"
    );
    assert!(!scratch.artifact("tokens").exists(), "nothing was begun");
    scratch.file("site.yaml", "extra: [--nodelist=n1]\nsubmissions_per_second: 100\n");
    cluster.said(&scratch, "resubmit", &[]);
    let (good, said) = cluster.watch(&scratch);
    assert!(good, "{said}");
}

/// Puts a program in the place of `sbatch`, which has `real` as the true one.
fn instead_of_sbatch(scratch: &Scratch, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let real =
        String::from_utf8(Command::new("sh").args(["-c", "command -v sbatch"]).output().unwrap().stdout)
            .unwrap();
    scratch.file("bin/sbatch", &format!("#!/bin/sh\nreal={real}\n{text}\n"));
    fs::set_permissions(scratch.path("bin/sbatch"), fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", scratch.path("bin").display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_submission_that_ends_half_way_runs_nothing_and_goes_on_without_sending_twice() {
    let Some(cluster) = Cluster::start("half-way", &[]) else { return };
    let count = "n=$(cat count 2>/dev/null || echo 0); n=$((n + 1)); echo $n >count";
    // Jobs, each by a name of its own.
    let jobs = || {
        let all = cluster.slurm("squeue", &["-h", "--states=all", "--format=%F %j"]);
        let jobs: BTreeSet<&str> = all.lines().collect();
        let names: BTreeSet<&str> = jobs.iter().filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(names.len(), jobs.len(), "{jobs:?}");
        jobs.len()
    };
    let mut before = 0;
    // The queue is full; and the sender is killed just when the queue has taken a job.
    for (trick, code) in [
        (
            "[ $n != 4 ] || { echo 'sbatch: error: Batch job submission failed: queue is full' >&2; exit 1; }; exec $real \"$@\"",
            Some(1),
        ),
        ("$real \"$@\"; [ $n != 4 ] || kill -9 $PPID", None),
    ] {
        let scratch = ready();
        let path = instead_of_sbatch(&scratch, &format!("{count}\n{trick}"));
        let submit = || {
            let mut command = scratch.command("submit", &PROFILE);
            command.envs(cluster.variables.iter().cloned()).env("PATH", &path).output().unwrap()
        };
        let output = submit();
        assert_eq!(output.status.code(), code, "{}", stderr(&output));
        if code.is_some() {
            let expected = "the queue did not take `shards`: Batch job submission failed: queue is full\n3 of 4 jobs are in the queue, held back";
            assert!(stderr(&output).contains(expected), "{}", stderr(&output));
            assert!(stderr(&output).contains("`elements` in the profile makes arrays smaller"));
        }
        let status = cluster.said(&scratch, "status", &[]);
        assert!(status.contains("the submission ended half-way and is held back"), "{status}");
        assert!(!scratch.artifact("tokens").exists());
        let output = submit();
        assert!(output.status.success(), "{}", stderr(&output));
        let (good, said) = cluster.watch(&scratch);
        assert!(good && said.contains("6 done"), "{said}");
        assert_eq!(jobs() - before, 4, "each job once");
        before += 4;
        assert!(scratch.artifact("shards/manifest.json").exists());
    }
    // What was sent half-way can be taken back.
    let scratch = ready();
    let path = instead_of_sbatch(&scratch, &format!("{count}\n[ $n != 4 ] || exit 1; exec $real \"$@\""));
    let mut submit = scratch.command("submit", &PROFILE);
    assert!(
        !submit.envs(cluster.variables.iter().cloned()).env("PATH", &path).output().unwrap().status.success()
    );
    let said = cluster.said(&scratch, "cancel", &[]);
    assert!(said.contains("5 in the queue are cancelled"), "{said}");
    assert!(cluster.slurm("squeue", &["-h"]).is_empty());
    // Where someone takes part of it away, all of it is sent anew.
    fs::remove_file(scratch.path("count")).unwrap();
    let mut submit = scratch.command("submit", &PROFILE);
    assert!(
        !submit.envs(cluster.variables.iter().cloned()).env("PATH", &path).output().unwrap().status.success()
    );
    cluster.slurm("scancel", &["--state=PENDING", "--name", &name_of(&cluster, "tokens-partitions")]);
    let said = cluster.said(&scratch, "submit", &PROFILE);
    assert!(said.contains("4 jobs of 6 elements are submitted"), "{said}");
    assert!(cluster.watch(&scratch).0);
}

/// The whole name of a job that is in the queue.
fn name_of(cluster: &Cluster, title: &str) -> String {
    let all = cluster.slurm("squeue", &["-h", "--format=%j"]);
    all.lines().find(|name| name.starts_with(title)).unwrap().to_owned()
}

#[test]
fn faults_of_the_site_are_told_and_send_nothing() {
    let scratch = in_partitions();
    let nowhere = scratch.path("bin");
    fs::create_dir_all(&nowhere).unwrap();
    let output = scratch.command("submit", &[]).env("PATH", &nowhere).output().unwrap();
    let message = stderr(&output);
    assert!(
        message.contains("error: there is no `scontrol` here: is this a machine of the cluster"),
        "{message}"
    );
    for command in ["cancel", "watch", "logs", "resubmit"] {
        let message = stderr(&scratch.command(command, &[]).output().unwrap());
        assert!(message.contains("nothing was submitted from `"), "{command}: {message}");
    }
    scratch.file("wrong.yaml", "partitoin: main\n");
    let message = stderr(&scratch.command("submit", &["--profile", "wrong.yaml"]).output().unwrap());
    assert!(message.contains("wrong.yaml") && message.contains("unknown field `partitoin`"), "{message}");
    let Some(cluster) = Cluster::start("faults", &[("MAX_JOBS", "4")]) else { return };
    let site = |text: &str| scratch.file("site.yaml", &format!("submissions_per_second: 100\n{text}\n"));
    site("partition: gpu");
    let message = stderr(&cluster.genomill(&scratch, "submit", &PROFILE));
    assert!(message.contains("error: the cluster has no partition `gpu`; it has main"), "{message}");
    site("account: nobody\nextra: [--nodelist=n9]");
    let message = stderr(&cluster.genomill(&scratch, "submit", &PROFILE));
    assert!(
        message.contains("the queue did not take `check`: ") && message.ends_with("nothing was submitted\n"),
        "{message}"
    );
    assert!(!scratch.artifact(".cluster/submission.json").exists());
    assert!(cluster.slurm("squeue", &["-h", "--states=all"]).is_empty());
}

#[test]
fn a_node_that_is_lost_in_the_middle_costs_time_alone() {
    let Some(cluster) = Cluster::start("lost node", &[]) else { return };
    let scratch = ready();
    let slow = "case $SLURM_JOB_NAME in tokens-partitions.*) sleep 4 ;; esac";
    scratch.file(
        "site.yaml",
        &format!(
            "elements: 5\nsubmissions_per_second: 100\nwait: 5 s\nsetup: ['{slow}']\nextra: [--mem=1500M]\n"
        ),
    );
    cluster.said(&scratch, "submit", &PROFILE);
    let running = |node: &str| {
        let all = cluster.slurm("squeue", &["-h", "--array", "--states=R", "--format=%N %j"]);
        all.lines().any(|line| line.starts_with(&format!("{node} tokens-partitions")))
    };
    until("tokens on both nodes", || running("n1") && running("n2"));
    cluster.kill_node("n2");
    let mut restarted = false;
    until("the end", || {
        let all = cluster.slurm("squeue", &["-h", "--array", "--format=%i %T %r"]);
        for line in all.lines().filter(|line| line.contains("BeginTime")) {
            let id = line.split(' ').next().unwrap();
            cluster.slurm("scontrol", &["update", &format!("jobid={id}"), "starttime=now"]);
            restarted = true;
        }
        all.is_empty()
    });
    assert!(restarted, "elements of the lost node were requeued");
    let (good, said) = cluster.watch(&scratch);
    assert!(good, "{said}");
    assert_eq!(scratch.contents(), locally(&scratch));
}

/// Where Snakemake is, if it is on the PATH.
fn snakemake() -> Option<PathBuf> {
    let found = Command::new("sh").args(["-c", "command -v snakemake"]).output().ok()?;
    found.status.success().then(|| String::from_utf8_lossy(&found.stdout).trim().into())
}

#[test]
fn a_snakefile_has_a_rule_for_each_stage_and_makes_what_a_run_makes() {
    let scratch = in_partitions();
    let output =
        scratch.command("plan", &["--format", "snakemake", "--profile", "site.yaml"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "rule all:\n",
        "rule r6_tokens_partitions:\n",
        "tokens~{share}-of-3",
        "--share {wildcards.share}/3 ",
        "rule r8_shards:\n",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert_eq!(text.matches("\nrule r").count(), 8, "{text}");
    let mut files =
        text.lines().filter(|line| line.trim_start().starts_with("input: ")).flat_map(|line| line.split('"'));
    assert!(files.all(|file| !file.contains("lambda.fa") || file.starts_with('/')), "not absolute in {text}");
    let Some(program) = snakemake() else {
        eprintln!("snakefile: what it does was not tried, for want of snakemake");
        return;
    };
    scratch.file("Snakefile", &text);
    let run = || {
        let mut command = Command::new(&program);
        command.current_dir(scratch.path("")).args(["--cores", "2"]).output().unwrap()
    };
    let output = run();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(scratch.contents(), locally(&scratch));
    assert!(stderr(&run()).contains("Nothing to be done"));
}

/// A rank on each of the two nodes, which find each other by what srun tells them.
#[cfg(feature = "train")]
#[test]
fn two_nodes_train_one_model() {
    let name = "two_nodes_train_one_model";
    let Some(cluster) = Cluster::start(name, &[]) else { return };
    let scratch = crate::models::trained("");
    scratch.ran(&["--until", "shards"]);
    let train = scratch.command("train", &["--jobs", "1", "--progress", "json", "--wait", "30 s"]);
    let mut srun = Command::new("srun");
    srun.current_dir(scratch.path("")).envs(cluster.variables.iter().cloned()).args(["-N2", "-n2", "-l"]);
    let output = srun.arg(train.get_program()).args(train.get_args()).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}{}", cluster.logs());
    assert!(said.lines().all(|line| line.starts_with("0: ")), "only rank 0 speaks: {said}");
    let manifest = fs::read_to_string(scratch.artifact("model/manifest.json")).unwrap();
    assert!(manifest.contains("\"ranks\": 2"), "{manifest}");
}
