//! Training by several processes on this machine: they equal one, a lost one is told by number, and a run goes on with any
//! number of them. Needs the trainer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::models::trained;
use crate::support::{Scratch, genomill, stderr};

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

/// The values of all tensors, by name, in the files of a checkpoint whose names begin so.
fn tensors(checkpoint: &Path, prefix: &str) -> BTreeMap<String, Vec<f32>> {
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let paths = std::fs::read_dir(checkpoint).unwrap().map(|entry| entry.unwrap().path()).filter(named);
    paths.flat_map(|path| tensors_of(&std::fs::read(path).unwrap())).collect()
}

/// Those of a safetensors file.
fn tensors_of(bytes: &[u8]) -> Vec<(String, Vec<f32>)> {
    let (length, rest) = bytes.split_at(8);
    let (header, values) =
        rest.split_at(usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap());
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
    let of = |(name, described): (String, Value)| {
        let [first, end]: [usize; 2] = serde_json::from_value(described["data_offsets"].clone()).ok()?;
        let values =
            values[first..end].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        Some((name, values.collect()))
    };
    header.into_iter().filter_map(of).collect()
}

/// The largest difference between the values of two checkpoints in the files whose names begin so.
fn apart(a: &Path, b: &Path, prefix: &str) -> f32 {
    let (a, b) = (tensors(a, prefix), tensors(b, prefix));
    assert!(a.keys().eq(b.keys()), "other tensors");
    let (a, b) = (a.values().flatten(), b.values().flatten());
    assert!(a.clone().count() == b.clone().count() && a.clone().count() > 100_000, "another layout");
    a.zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn same(found: &Scratch, expected: &Scratch) {
    let (a, b) = (course(found), course(expected));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        assert!((a - b).abs() < 2e-5 * b.abs().max(1.0), "{a} and {b}");
    }
    for prefix in ["model.", "optimizer"] {
        let off = apart(&checkpoint(found), &checkpoint(expected), prefix);
        assert!(off < 1e-4, "{prefix} differs by {off}");
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
    let mut names: Vec<String> = std::fs::read_dir(checkpoint(&shared))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    let moments = ["optimizer-00000-of-00002.safetensors", "optimizer-00001-of-00002.safetensors"];
    assert_eq!(
        names,
        [&["checkpoint.json", "model.safetensors"][..], &moments, &["tokenizer.json"]].concat()
    );
    let mut export = genomill();
    export.current_dir(shared.path("")).args(["model", "export", "work/flow/model", "--to", "hf", "hf"]);
    let output = export.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
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

/// The other stops at once, with the reason; the last checkpoint stays, and the same start goes on from it.
#[test]
fn a_rank_that_cannot_write_stops_all_and_leaves_the_last_checkpoint() {
    let scratch = long();
    let stop = |ranks: [&mut Child; 2]| signal(ranks[0], "-TERM");
    let [(code, said), _] = disturbed(&scratch, 4, stop);
    assert_eq!(code, Some(130), "{said}");
    let step = saved(&scratch);

    let port = free_port();
    let whole = rank(&scratch, 0, 2, &port).spawn().unwrap();
    let limited = limited(&rank(&scratch, 1, 2, &port)).spawn().unwrap();
    let [whole, limited] = [whole, limited].map(|child| child.wait_with_output().unwrap());
    let (said, of_limited) = (stderr(&whole), stderr(&limited));
    assert_eq!((whole.status.code(), limited.status.code()), (Some(1), Some(1)), "{said}{of_limited}");
    assert!(said.contains(&format!("goes on from step {step}\"")), "{said}");
    for part in
        ["rank 1 of 2 failed, and rank 0 stops: cannot write `", "optimizer-00001-of-00002", "File too large"]
    {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    assert!(of_limited.contains("File too large"), "{of_limited}");
    assert_eq!(saved(&scratch), step);
    let [(_, said), _] = disturbed(&scratch, step + 2, stop);
    assert!(said.contains(&format!("goes on from step {step}\"")), "{said}");
    assert!(saved(&scratch) > step);
}

/// The same process, of which no file may grow beyond 64 KiB.
fn limited(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\""]).arg(command.get_program());
    limited.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.stdout(Stdio::null()).stderr(Stdio::piped());
    limited
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
