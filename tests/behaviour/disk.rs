//! A disk that is full, or may not be written to: an error that says so, nothing half-written, and what is there stays.
//! The full disk is a small file system in memory, which only root may mount; without that right those tests say so.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Scratch, data, stderr};

/// A file system of some bytes in memory, unmounted when dropped.
pub struct Small(PathBuf);

impl Small {
    /// Mounted at a folder; `None` where that is not allowed.
    fn mount(at: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("skipped: no right to mount a file system");
        None
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

const STAGES: [&str; 7] = ["raw", "clean", "split", "windows", "bpe", "tokens", "shards"];

#[test]
fn a_disk_that_is_full_at_any_stage_is_told_and_the_rerun_goes_on() {
    let (whole, scratch) = (Scratch::lambda(), Scratch::lambda());
    whole.ran(&[]);
    let Some(small) = Small::mount(&scratch.path("work"), 16 << 20) else { return };
    scratch.run(&["--only", "nothing"]);
    for stage in STAGES {
        let before = scratch.artifact("raw").exists().then(|| scratch.contents());
        let filler = small.fill();
        let output = scratch.run(&["--until", stage]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{stage}: {message}");
        let told = message.contains("no space left on device") || message.contains("MB are free");
        assert!(told && message.contains("work"), "{stage}: {message}");
        assert!(!scratch.artifact(stage).exists(), "{stage} is not published");
        if let Some(before) = before {
            assert_eq!(scratch.contents(), before, "{stage}: what is there stays");
        }
        fs::remove_file(filler).unwrap();
        scratch.ran(&["--until", stage]);
    }
    assert_eq!(scratch.contents(), whole.contents());
}

/// Three checkpoints fit. The run stops, they stay whole, and with more room it goes on from the last of them.
#[cfg(feature = "train")]
#[test]
fn a_disk_that_is_full_at_a_checkpoint_leaves_the_last_one() {
    use genomill::train::checkpoint;
    let keys = ", checkpoint_every: 1 step, keep_checkpoints: 100";
    let (whole, scratch) = (crate::models::trained(keys), crate::models::trained(keys));
    whole.ran(&[]);
    let work = scratch.path("work");
    let Some(_small) = Small::mount(&work, 12 << 20) else { return };
    let output = scratch.run(&[]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot write") && message.contains("No space left on device"), "{message}");
    assert!(!scratch.artifact("model").exists(), "nothing is published");
    let part = fs::read_dir(scratch.artifact(".partial/model")).unwrap().next().unwrap().unwrap().path();
    let checkpoints: Vec<PathBuf> =
        fs::read_dir(part.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(checkpoints.len() >= 2, "{checkpoints:?}");
    for checkpoint in &checkpoints {
        checkpoint::verify(checkpoint).unwrap();
    }
    let more = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&work).status().unwrap();
    assert!(more.success());
    let message = stderr(&scratch.run(&[]));
    assert!(message.contains(&format!("goes on from step {}", checkpoints.len())), "{message}");
    assert_eq!(scratch.contents(), whole.contents());
}

#[test]
fn a_stage_that_cannot_end_for_want_of_room_does_not_begin() {
    let scratch = Scratch::lambda();
    let Some(_small) = Small::mount(&scratch.path("work"), 1 << 20) else { return };
    let large = format!(">large\n{}\n", "ACGGT".repeat(8_000_000));
    fs::write(scratch.path("large.fa"), large).unwrap();
    let message = stderr(&scratch.run(&["--set", "raw.sources=[{fasta: large.fa}]"]));
    assert!(message.contains("error: stage `raw` needs at least 2.5 MB in `work/flow`"), "{message}");
    scratch.ran(&["--until", "tokens"]);
    let contexts: Vec<String> = (8..80).map(|context| context.to_string()).collect();
    let contexts = format!("shards.context=[{}]", contexts.join(","));
    let message = stderr(&scratch.run(&["--set", &contexts]));
    assert!(message.contains("error: stage `shards` needs at least 4."), "{message}");
    assert!(message.contains("MB are free; nothing was begun"), "{message}");
}

#[test]
fn a_work_folder_that_may_not_be_written_to_is_told() {
    let scratch = Scratch::lambda();
    fs::create_dir_all(scratch.path("work")).unwrap();
    // Root may write anywhere, but no one into what is no folder.
    fs::write(scratch.artifact(""), "").or_else(|_| fs::write(scratch.path("work/flow"), "")).unwrap();
    let output = scratch.run(&[]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("error: cannot create folder `work/flow/.cache`: not a directory"), "{message}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    // The same file under many names, so that reading takes long enough to be hit.
    let sources: Vec<String> = (0..40).map(|n| format!("{{name: s{n}, fasta: {n}.fa.gz}}")).collect();
    let scratch = Scratch::new(&format!(
        "name: flow\nstages:\n  raw: {{uses: ingest, sources: [{}]}}\n",
        sources.join(", ")
    ));
    let first = scratch.path("0.fa.gz");
    fs::copy(data("ecoli_k12_mg1655.fa.gz"), &first).unwrap();
    (1..40).for_each(|n| fs::hard_link(&first, scratch.path(&format!("{n}.fa.gz"))).unwrap());
    let mut child = scratch.command("run", &["--progress", "json"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    // Progress is told only once the files have been hashed.
    assert!(lines.any(|line| line.contains("\"progress\"")), "the run ended before it could be hit");
    fs::copy(data("phage_lambda.fa.gz"), scratch.path("other.fa.gz")).unwrap();
    fs::rename(scratch.path("other.fa.gz"), scratch.path("39.fa.gz")).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("fa.gz` changed while it was read; run again")), "{rest:?}");
    assert!(!scratch.artifact("raw").exists());
}
