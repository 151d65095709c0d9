//! Training by several processes on this machine: they equal one, a lost one is told by number, and a run goes on with any
//! number of them. Needs the trainer.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::models::trained;
use crate::support::{Scratch, stderr};

/// Shards of phage lambda, and a model to be trained on them by itself.
fn ready(duration: &str, keys: &str) -> Scratch {
    let scratch = trained(keys);
    let yaml = std::fs::read_to_string(scratch.path("flow.yaml")).unwrap();
    scratch.write(&yaml.replace("duration: 6 steps", &format!("duration: {duration}")));
    scratch.ran(&["--until", "shards"]);
    scratch
}

/// A port that nobody uses now.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// `genomill train` as one of several ranks, which meet at a port of this machine.
fn rank(scratch: &Scratch, rank: usize, ranks: usize, port: &str) -> Command {
    let mut command = scratch.command("train", &["--jobs", "1", "--progress", "json", "--wait", "60 s"]);
    command.envs([("RANK", rank.to_string()), ("WORLD_SIZE", ranks.to_string())]);
    command.envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port)]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Starts all ranks, and waits for all of them.
fn together(scratch: &Scratch, ranks: usize) -> Vec<Output> {
    let port = free_port();
    let start = |at| rank(scratch, at, ranks, &port).spawn().unwrap();
    let started: Vec<Child> = (0..ranks).map(start).collect();
    started.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// All must succeed, and only rank 0 says anything.
fn trained_by(scratch: &Scratch, ranks: usize) {
    let outputs = together(scratch, ranks);
    for (rank, output) in outputs.iter().enumerate() {
        assert!(output.status.success(), "rank {rank}: {}", stderr(output));
        assert!(rank == 0 || output.stderr.is_empty(), "rank {rank}: {}", stderr(output));
    }
}

/// Numbers of the records: step, loss, norm, and the validation loss where there is one.
fn course(scratch: &Scratch) -> Vec<[f64; 4]> {
    let text = std::fs::read_to_string(scratch.artifact("model/history.jsonl")).unwrap();
    let figures = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        ["step", "loss", "gradient_norm", "validation_loss"].map(|key| record[key].as_f64().unwrap_or(-1.0))
    };
    text.lines().map(figures).collect()
}

fn checkpoint(scratch: &Scratch) -> PathBuf {
    let folder = scratch.artifact("model/checkpoints");
    std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

/// The largest difference between the f32 values of two safetensors files of one layout.
fn apart(a: &Path, b: &Path) -> f32 {
    let read = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        let (header, rest) = bytes.split_at(8);
        let length = usize::try_from(u64::from_le_bytes(header.try_into().unwrap())).unwrap();
        let values = rest[length..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        (rest[..length].to_vec(), values.collect::<Vec<_>>())
    };
    let ((a_header, a), (b_header, b)) = (read(a), read(b));
    assert!(a_header == b_header && a.len() == b.len() && a.len() > 100_000, "another layout");
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn same(found: &Scratch, expected: &Scratch) {
    let (a, b) = (course(found), course(expected));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        assert!((a - b).abs() < 2e-5 * b.abs().max(1.0), "{a} and {b}");
    }
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let off = apart(&checkpoint(found).join(file), &checkpoint(expected).join(file));
        assert!(off < 1e-4, "{file} differs by {off}");
    }
}

fn train_alone(scratch: &Scratch) {
    let output = scratch.command("train", &["--jobs", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn two_processes_equal_one() {
    let alone = ready("10 steps", ", evaluate_every: 5 steps");
    let shared = alone.copy();
    train_alone(&alone);
    trained_by(&shared, 2);
    assert_eq!(course(&shared).len(), 6, "records of every second step, and of the fifth");
    same(&shared, &alone);
    let manifest = std::fs::read(shared.artifact("model/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["details"]["ranks"], 2);
    assert!(!shared.artifact(".staging").exists());
    // What is there is not made again, and the others are told so.
    trained_by(&shared, 2);
}

/// Reads lines until one has these words.
fn until(reader: &mut impl BufRead, words: &str) -> String {
    let mut all = String::new();
    while !all.lines().last().is_some_and(|line| line.contains(words)) {
        assert!(reader.read_line(&mut all).unwrap() > 0, "no `{words}` in {all}");
    }
    all
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// A run of two ranks, of which something is done to one once a step is told; what became of both, and all that they said.
fn disturbed(scratch: &Scratch, step: u64, act: impl FnOnce([&mut Child; 2])) -> [(Option<i32>, String); 2] {
    let port = free_port();
    let mut ranks = [0, 1].map(|at| rank(scratch, at, 2, &port).spawn().unwrap());
    let mut reader = BufReader::new(ranks[0].stderr.take().unwrap());
    let mut said = until(&mut reader, &format!("\"step\":{step},"));
    act(ranks.each_mut());
    reader.read_to_string(&mut said).unwrap();
    let [mut first, second] = ranks;
    let second = second.wait_with_output().unwrap();
    [(first.wait().unwrap().code(), said), (second.status.code(), stderr(&second))]
}

/// A run that nobody waits for, with a checkpoint at every second step.
fn long() -> Scratch {
    ready("5000 steps", ", checkpoint_every: 2 steps")
}

/// The steps of the newest checkpoint in the folder that the stage works in.
fn saved(scratch: &Scratch) -> u64 {
    let found = Command::new("find").arg(scratch.path("work")).args(["-name", "step-*"]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let steps = found.lines().filter_map(|line| line.rsplit_once("step-")?.1.parse().ok());
    steps.max().unwrap()
}

/// And the rerun goes on, until one of its ranks is asked to stop: both stop at the same step.
#[test]
fn a_killed_rank_is_named_and_the_rerun_goes_on() {
    let scratch = long();
    let [(code, said), (other, _)] = disturbed(&scratch, 4, |[_, second]| second.kill().unwrap());
    assert!(code == Some(1) && other.is_none(), "{said}");
    assert!(said.contains("lost rank 1 of 2: gone, or cut off ("), "{said}");
    assert!(said.contains("rank 0 stops, and the same start goes on from the last checkpoint"), "{said}");
    let step = saved(&scratch);
    assert!((2..5000).contains(&step));

    let after = step + 4;
    let [(code, said), (other, of_other)] = disturbed(&scratch, after, |[_, second]| signal(second, "-TERM"));
    assert!(said.contains(&format!("goes on from step {step}\"")), "{said}");
    assert_eq!((code, other), (Some(130), Some(130)), "{said}{of_other}");
    assert!(
        said.contains("stopped at stage `model`") && of_other.contains("stopped at stage `model`"),
        "{said}"
    );
    assert!(saved(&scratch) >= after);
}

#[test]
fn the_loss_of_rank_0_is_told_by_the_others() {
    let scratch = long();
    let [(code, _), (other, said)] = disturbed(&scratch, 4, |[first, _]| first.kill().unwrap());
    assert!(code.is_none() && other == Some(1), "{said}");
    assert!(said.contains("lost rank 0 of 2: gone, or cut off ("), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn checkpoints_go_on_with_another_number_of_ranks() {
    let alone = ready("10 steps", ", checkpoint_every: 2 steps");
    let (one_first, two_first) = (alone.copy(), alone.copy());
    train_alone(&alone);
    let kill_all = |ranks: [&mut Child; 2]| ranks.into_iter().for_each(|child| child.kill().unwrap());
    disturbed(&two_first, 4, kill_all);
    train_alone(&two_first);
    same(&two_first, &alone);

    let command = &mut one_first.command("train", &["--jobs", "1", "--progress", "json"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    until(&mut BufReader::new(child.stderr.take().unwrap()), "\"step\":4,");
    child.kill().unwrap();
    child.wait().unwrap();
    trained_by(&one_first, 2);
    same(&one_first, &alone);
}

#[test]
fn ranks_that_do_not_come_and_ports_in_use_are_told() {
    let scratch = ready("6 steps", "");
    let port = free_port();
    let lonely = |rank: usize, wait: &str| {
        let mut command = scratch.command("train", &["--progress", "none", "--wait", wait]);
        command.envs([("RANK", rank.to_string()), ("WORLD_SIZE", "3".to_owned())]);
        command.envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)]);
        command.output().unwrap()
    };
    let output = lonely(0, "1 s");
    assert_eq!(output.status.code(), Some(1));
    let expected =
        format!("rank 0 waited 1s at 127.0.0.1:{port} for ranks 1, 2, in vain: are all 3 ranks started");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    let output = lonely(2, "1 s");
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("rank 2 waited 1s at 127.0.0.1:{port} for rank 0, in vain");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));

    let taken = TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    let output = lonely(0, "5 s");
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("rank 0 cannot listen at 127.0.0.1:{port}: the port is in use");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    drop(taken);

    let half = scratch.command("train", &[]).env("RANK", "0").output().unwrap();
    assert!(stderr(&half).contains("RANK is set and WORLD_SIZE is not"), "{}", stderr(&half));
}
