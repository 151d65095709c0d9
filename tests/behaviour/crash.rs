//! Killed, interrupted: nothing half-written is seen, and the next run gives what an uninterrupted one gives.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::Instant;

use crate::support::{LAMBDA, Scratch, data, genomill, stderr};

/// E. coli, so that a stage takes long enough to be hit.
fn ecoli() -> Scratch {
    let yaml = LAMBDA.replace("lambda.fa.gz", "ecoli.fa.gz").replace("vocabulary: 96", "vocabulary: 256");
    let scratch = Scratch::new(&yaml);
    std::fs::copy(data("ecoli_k12_mg1655.fa.gz"), scratch.path("ecoli.fa.gz")).unwrap();
    scratch
}

/// Starts a run and waits until a stage begins.
fn start_until(scratch: &Scratch, stage: &str) -> Child {
    let mut child = scratch.command("run", &["--progress", "json"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = format!("\"stage\":\"{stage}\"");
    let found = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("stage_started") && line.contains(&begun));
    assert!(found, "stage {stage} never began");
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn kill_9_during_shard_leaves_nothing_half_written_and_the_rerun_equals() {
    let (whole, scratch) = (ecoli(), ecoli());
    for scratch in [&whole, &scratch] {
        let yaml = std::fs::read_to_string(scratch.path("flow.yaml")).unwrap();
        scratch.write(&yaml.replace("context: 64}", "context: [64, 16], mixture: {sources: {ecoli: {}}}}"));
    }
    whole.ran(&["--until", "tokens"]);
    let started = Instant::now();
    whole.ran(&[]);
    let lasts = started.elapsed();
    // Ten moments of the time that the stage takes: one in each tenth, and the last may come after the rename.
    let drawn = RandomState::new();
    for moment in 0..10_u32 {
        let share = (f64::from(moment) + drawn.hash_one(moment) as f64 / u64::MAX as f64) / 10.0;
        let delay = lasts.mul_f64(share);
        let mut child = start_until(&scratch, "shards");
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        let shards = scratch.artifact("shards");
        if shards.exists() {
            let artifact = genomill::artifact::Artifact::open(&shards).unwrap();
            let checked = genomill::shard::verify::verify(&artifact);
            assert!(checked.is_ok(), "killed after {delay:?}: {checked:?}");
            std::fs::remove_dir_all(&shards).unwrap();
        }
    }
    assert_eq!(scratch.ran(&[]), ["shards"]);
    assert_eq!(scratch.contents(), whole.contents());
    assert!(!scratch.artifact(".staging").exists(), "what killed runs left is gone");
}

#[test]
fn an_interrupt_stops_cleanly_and_says_how_to_go_on() {
    let scratch = ecoli();
    let mut child = scratch.command("run", &["--progress", "json"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("stage_started") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "no stage began");
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains("nothing half-written is left, and the same command goes on from here"), "{rest}");
    assert!(!scratch.artifact(".staging").exists());
    scratch.ran(&[]);
}

#[test]
fn training_a_tokenizer_is_interrupted_even_while_its_input_pauses() {
    use std::io::Write;
    let scratch = Scratch::new("");
    std::fs::write(scratch.path("t.json"), "old").unwrap();
    let mut command = genomill();
    command.current_dir(scratch.path("")).args([
        "tokenizer",
        "train",
        "-",
        "--progress",
        "json",
        "-o",
        "t.json",
    ]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bases: Vec<u8> =
        (0..8_u32 << 20).map(|i| b"ACGT"[(i.wrapping_mul(2_654_435_761) >> 30) as usize]).collect();
    let writer = std::thread::spawn(move || {
        input.write_all(&[b">a\n", bases.as_slice()].concat()).unwrap();
        input
    });
    // More than all buffers between hold, so that the reading has begun; held open, so that no end of the input wakes it.
    let input = writer.join().unwrap();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    drop(input);
    assert_eq!(std::fs::read_to_string(scratch.path("t.json")).unwrap(), "old");
    assert_eq!(std::fs::read_dir(scratch.path("")).unwrap().count(), 2, "nothing half-written");
}

/// A limit on the size of files stands for a full disk: writing fails in the middle of a shard, and needs no root.
#[test]
fn a_full_disk_is_a_clear_error_and_earlier_artifacts_stay() {
    let scratch = ecoli();
    scratch.ran(&["--until", "tokens"]);
    let before = scratch.contents();
    // Blocks of 512 bytes: 1 MiB. The signal that comes with the error would end the process.
    let limited = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", limited, "sh"]).arg(genomill().get_program());
    let output =
        shell.args(["run", "flow.yaml", "--work", "work"]).current_dir(scratch.path("")).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot write `work/flow/.staging/shards/train-00000.parquet`: file too large"),
        "{said}"
    );
    assert!(
        !scratch.artifact("shards").exists() && !scratch.artifact(".staging").exists(),
        "nothing is left"
    );
    assert_eq!(scratch.contents(), before);
    assert_eq!(scratch.ran(&[]), ["shards"]);
}
