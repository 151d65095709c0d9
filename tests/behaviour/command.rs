//! Stages that run programs: what they read and make, how they fail, and how they are stopped.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Scratch, stderr};

/// A stage that makes a genome of what a file says, one that reads it, and a table of groups from a third.
const FLOW: &str = "
name: flow
stages:
  genome:
    uses: command
    run: |
      echo making $GENOMILL_OUT
      ./make.sh {file.sequence} > {out}/made.fa
    files: {script: make.sh, sequence: sequence.txt}
    outputs: [made.fa]
  groups:
    uses: command
    command: [sh, -c, 'grep \">\" \"$0\"/made.fa | sed \"s/>\\(.*\\)/\\1,\\1/; 1i contig,group\" > \"$GENOMILL_OUT/groups.csv\"', \"{input.genome}\"]
    inputs: {genome: genome}
    outputs: [groups.csv]
  raw:    {uses: ingest, sources: [{fasta: {stage: genome, file: made.fa}}]}
  clean:  {uses: clean, from: raw}
  split:  {uses: split, from: clean, groups: {csv: {stage: groups, file: groups.csv}, test: [b]}}
";

const SCRIPT: &str =
    "#!/bin/sh\nwhile read name bases; do printf '>%s\\n%s\\n' $name $bases; done < \"$1\"\n";

fn flow(yaml: &str) -> Scratch {
    let scratch = Scratch::new(yaml);
    script(&scratch, "make.sh", SCRIPT);
    scratch.file("sequence.txt", "a ACGTACGTAC\nb GGGGCCCCAA\n");
    scratch
}

fn script(scratch: &Scratch, name: &str, text: &str) {
    scratch.file(name, text);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(scratch.path(name), mode).unwrap();
}

fn manifest(scratch: &Scratch, stage: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(scratch.artifact(stage).join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn what_a_command_makes_is_read_by_other_stages() {
    let scratch = flow(FLOW);
    // In an order that differs from run to run.
    let all = || {
        let mut ran = scratch.ran(&[]);
        ran.sort();
        ran
    };
    assert_eq!(all(), ["clean", "genome", "groups", "raw", "split"]);
    assert_eq!(scratch.ran(&[]), Vec::<String>::new());
    let split = manifest(&scratch, "split");
    assert_eq!(split["details"]["splits"]["test"]["bases"], 10, "{split}");
    let genome = manifest(&scratch, "genome");
    let files: Vec<(&str, bool)> = genome["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (file["path"].as_str().unwrap(), file["volatile"] == true))
        .collect();
    assert_eq!(files, [("made.fa", false), ("stderr.log", true), ("stdout.log", true)]);
    let log = std::fs::read_to_string(scratch.artifact("genome/stdout.log")).unwrap();
    assert!(log.starts_with("making /"), "{log}");
    // Another script that makes the same: nothing that reads it runs.
    script(&scratch, "make.sh", &format!("{SCRIPT}# the same\n"));
    assert_eq!(scratch.ran(&[]), ["genome"]);
    scratch.file("sequence.txt", "a ACGTACGTAC\nb GGGGCCCCAT\n");
    assert_eq!(all(), ["clean", "genome", "groups", "raw", "split"]);
    std::fs::rename(scratch.path("sequence.txt"), scratch.path("moved.txt")).unwrap();
    scratch.write(&FLOW.replace("sequence: sequence.txt", "sequence: moved.txt"));
    assert_eq!(scratch.ran(&[]), Vec::<String>::new(), "paths are no part of it");
    let copy =
        ["--set", "genome.command=[cp, \"{file.sequence}\", \"{out}/made.fa\"]", "--set", "genome.run=null"];
    assert_eq!(scratch.ran(&[&copy[..], &["--until", "genome"]].concat()), ["genome"]);
}

#[test]
fn commands_are_swept_as_other_stages_are() {
    let yaml = FLOW
        .replace("name: flow", "name: flow\nmatrix: {base: [A, C]}")
        .replace("./make.sh", "MORE=${matrix.base} ./make.sh");
    let scratch = flow(&yaml);
    script(&scratch, "make.sh", &SCRIPT.replace("$bases;", "$bases$MORE;"));
    let names = |stages: &[&str]| -> Vec<String> {
        stages.iter().flat_map(|stage| ["A", "C"].map(|base| format!("{stage}@base={base}"))).collect()
    };
    let (mut ran, mut all) = (scratch.ran(&[]), names(&["genome", "groups", "raw", "clean", "split"]));
    ran.sort();
    all.sort();
    assert_eq!(ran, all);
    let source = manifest(&scratch, "raw@base=C")["inputs"][0].clone();
    assert_eq!(
        (&source["role"], &source["stage"]),
        (&"sources.0.fasta.stage".into(), &"genome@base=C".into())
    );
}

/// An edit of the flow, and what the failure must say.
const FAILURES: [(&str, &str, &[&str]); 11] = [
    (
        "./make.sh {file.sequence}",
        "seq 1 30 >&2; exit 3",
        &[
            "stage `genome` failed: `sh` ended with exit status: 3, after it had printed:\n  11\n  12\n",
            "\n  30\n",
        ],
    ),
    ("./make.sh", "exit 4", &["ended with exit status: 4, after it had printed:\n  making /"]),
    (
        "echo making $GENOMILL_OUT",
        "kill -9 $$",
        &["`sh` ended with signal: 9 (SIGKILL), and printed nothing"],
    ),
    (
        "{out}/made.fa",
        "{out}/other.fa",
        &["the command made no `made.fa`, which `outputs` lists; it made `other.fa`"],
    ),
    (
        "> {out}/made.fa",
        "> /dev/null",
        &["the command made no `made.fa`, which `outputs` lists; it made no file"],
    ),
    (
        "> {out}/made.fa",
        "> /dev/null; ln -s /dev/null {out}/made.fa",
        &["`made.fa`, which `outputs` lists, is a link to `/dev/null`"],
    ),
    (
        "command: [sh,",
        "command: [no-such-program,",
        &[
            "stage `groups` failed: cannot find the program `no-such-program`, neither in `PATH` nor as a path from `.`",
        ],
    ),
    ("command: [sh,", "command: [./sequence.txt,", &["cannot start `./sequence.txt`: Permission denied"]),
    ("sequence: sequence.txt", "sequence: none.txt", &["`./none.txt`: no such file or directory"]),
    ("file: made.fa", "file: mode.fa", &["cannot use `genome`: it has no file `mode.fa`, but `made.fa`"]),
    (
        "file: made.fa",
        "file: stdout.log",
        &["cannot use `genome`: it has no file `stdout.log`, but `made.fa`"],
    ),
];

#[test]
fn a_failure_says_why_and_publishes_nothing() {
    for (good, bad, expected) in FAILURES {
        assert!(FLOW.contains(good), "{good}");
        let scratch = flow(&FLOW.replacen(good, bad, 1));
        let output = scratch.run(&["--progress", "none"]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{bad}: {message}");
        let missing: Vec<_> = expected.iter().filter(|part| !message.contains(**part)).collect();
        assert!(missing.is_empty(), "{bad}: expected {missing:?}\n{message}");
        assert!(!message.contains("panicked"), "{message}");
        let stages = std::fs::read_dir(scratch.path("work/flow")).into_iter().flatten();
        let whole = |stage: &std::fs::DirEntry| stage.path().join("manifest.json").exists();
        let failed =
            ["genome", "groups", "raw"].iter().find(|stage| message.contains(&format!("stage `{stage}`")));
        assert!(
            stages.map(Result::unwrap).filter(whole).all(|stage| stage.file_name() != **failed.unwrap()),
            "{bad}"
        );
    }
}

/// An edit of the flow, and what is told before anything runs.
const MISTAKES: [(&str, &str, &[&str]); 8] = [
    (
        "genome: genome}",
        "genome: genom}",
        &["stage `groups` reads from `genom`", "did you mean `genome`?", "flow.yaml:14:22"],
    ),
    (
        "stage: genome",
        "stage: gnome",
        &["stage `raw` reads from `gnome`", "did you mean `genome`?", "flow.yaml:16:52"],
    ),
    (
        "{file.sequence}",
        "{file.sequenc}",
        &["`run` of stage `genome`: `{file.sequenc}` names no file", "did you mean `{file.sequence}`?"],
    ),
    ("file: made.fa", "fil: made.fa", &["unknown key `fil`", "flow.yaml:16:60"]),
    (
        "file: made.fa",
        "file: ../made.fa",
        &["source 1 has the file `../made.fa`, expected a path within the folder of"],
    ),
    (
        "outputs: [made.fa]",
        "outputs: []",
        &["`outputs` of stage `genome`: there is none, expected at least one file"],
    ),
    ("outputs: [made.fa]", "output: [made.fa]", &["unknown key `output`", "did you mean `outputs`?"]),
    ("groups: {csv: {stage: groups,", "groups: {csv: {stage: clean,", &[]),
];

#[test]
fn mistakes_are_named_with_their_place() {
    let mut wrong = Vec::new();
    for (good, bad, expected) in MISTAKES {
        assert!(FLOW.contains(good), "{good}");
        let output = flow(&FLOW.replacen(good, bad, 1)).command("plan", &[]).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.success(), expected.is_empty(), "{bad}: {message}");
        let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let missing = expected.iter().filter(|part| !words.contains(**part));
        wrong.extend(missing.map(|part| format!("{bad}: expected {part}\n{message}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_declared_is_not_kept() {
    let scratch = flow(&FLOW.replace("./make.sh", "mkdir {out}/tmp; date > {out}/tmp/when; ./make.sh"));
    let output = scratch.run(&["--until", "genome", "--progress", "plain"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("genome: `tmp/when` is not among the `outputs`, and not kept"));
    assert!(!scratch.artifact("genome/tmp/when").exists());
}

#[test]
fn a_stage_that_fails_is_tried_again() {
    // Succeeds when it has failed as often as there are lines in `tries`.
    let flaky = "echo x >> tries; test $(wc -l < tries) -gt 2 || { echo too early; exit 1; }; ./make.sh";
    let yaml =
        FLOW.replace("./make.sh", flaky).replace("outputs: [made.fa]", "outputs: [made.fa]\n    retries: 2");
    let scratch = flow(&yaml);
    let output = scratch.run(&["--until", "genome", "--progress", "plain"]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    for part in [
        "genome: trying again (1 of 2): stage `genome` failed: `sh` ended with exit status: 1",
        "trying again (2 of 2)",
        "too early",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    std::fs::remove_file(scratch.path("tries")).unwrap();
    let output = scratch.run(&["--force", "genome", "--set", "genome.retries=1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(scratch.artifact("genome/manifest.json").exists(), "what was there stays");
    let output = scratch.run(&[
        "--set",
        "groups.command=[no-such-program]",
        "--set",
        "groups.retries=5",
        "--only",
        "groups",
    ]);
    assert!(!stderr(&output).contains("trying again"), "{}", stderr(&output));
}

/// The last line of a file that a program writes, once it is whole.
fn written(scratch: &Scratch, name: &str) -> String {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(scratch.path(name)).unwrap_or_default();
        if text.ends_with('\n') {
            return text.trim().to_owned();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "`{name}` was never written");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(arguments: &[&str]) {
    assert!(std::process::Command::new("kill").args(arguments).output().unwrap().status.success());
}

fn is_gone(process: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn what_a_killed_run_left_running_keeps_others_out() {
    let whole = flow(FLOW);
    whole.ran(&[]);
    let scratch = flow(&FLOW.replace("./make.sh", "echo $$ > started; sleep 30; ./make.sh"));
    let mut child = scratch.command("run", &["--progress", "none"]).spawn().unwrap();
    let started = written(&scratch, "started");
    child.kill().unwrap();
    child.wait().unwrap();
    scratch.write(FLOW);
    let message = stderr(&scratch.run(&[]));
    assert!(message.contains("or by a program that it started") && !is_gone(&started), "{message}");
    kill(&["-KILL", "--", &format!("-{started}")]);
    while !is_gone(&started) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(scratch.ran(&[]).len(), 5);
    assert_eq!(scratch.contents(), whole.contents());
}

#[test]
fn what_a_program_leaves_running_ends_with_it() {
    let scratch = flow(&FLOW.replace("./make.sh", "sleep 60 & echo $! > started; ./make.sh"));
    assert_eq!(scratch.ran(&["--until", "genome"]), ["genome"]);
    let started = written(&scratch, "started");
    let asked = Instant::now();
    while !is_gone(&started) {
        assert!(asked.elapsed() < Duration::from_secs(5), "process {started} goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupt_ends_the_program_and_those_that_it_started() {
    for signal in ["-INT", "-TERM"] {
        let yaml = FLOW.replace("./make.sh", "sleep 60 & echo $! > started; wait; ./make.sh");
        let scratch = flow(&yaml);
        let mut child =
            scratch.command("run", &["--progress", "json"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let begun = Instant::now();
        let started = written(&scratch, "started");
        kill(&[signal, &child.id().to_string()]);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
        assert!(rest.contains("stopped at stage `genome`"), "{rest}");
        assert!(begun.elapsed() < Duration::from_secs(20), "it waited for the end");
        let asked = Instant::now();
        while !is_gone(&started) {
            assert!(asked.elapsed() < Duration::from_secs(5), "process {started} goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!scratch.artifact("genome").exists() && !scratch.artifact(".staging").exists());
    }
}
