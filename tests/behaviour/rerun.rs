//! What runs again after what, and that the same work gives the same bytes.

use std::fs;

use crate::support::{LAMBDA, Scratch, stderr};

#[test]
fn exactly_what_depends_on_an_edit_runs_again() {
    let all: &[&str] = &["raw", "clean", "split", "windows", "bpe", "tokens", "shards"];
    let cases: [(&str, &[&str]); 7] = [
        ("shards.context=32", &["shards"]),
        ("params.vocabulary=64", &["bpe", "tokens", "shards"]),
        ("windows.window=500", &["windows", "tokens", "shards"]),
        ("split.seed=7", &all[2..]),
        // 48,502 bases are more than either limit: `clean` runs, and what it makes is what was there.
        ("clean.min_length=200", &["clean"]),
        ("raw.sources=[{name: phage, fasta: lambda.fa.gz}]", all),
        // A default that is written out is no change.
        ("shards.pack=concat", &[]),
    ];
    let scratch = Scratch::lambda();
    assert_eq!(sorted(&scratch.ran(&[])), sorted(all));
    for (edit, expected) in cases {
        assert_eq!(scratch.ran(&[]), Vec::<String>::new(), "nothing changed before {edit}");
        assert_eq!(sorted(&scratch.ran(&["--set", edit])), sorted(expected), "--set {edit}");
        scratch.ran(&[]);
    }
}

fn sorted<T: AsRef<str>>(names: &[T]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn comments_order_and_names_of_files_change_nothing() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    fs::rename(scratch.path("lambda.fa.gz"), scratch.path("renamed.fa.gz")).unwrap();
    // A source is named after its file unless it has a name.
    scratch.write(&LAMBDA.replace("{fasta: lambda.fa.gz}", "{name: lambda, fasta: renamed.fa.gz}"));
    assert_eq!(scratch.ran(&[]), Vec::<String>::new(), "it has the name that it had");
    fs::rename(scratch.path("renamed.fa.gz"), scratch.path("again.fa.gz")).unwrap();
    let yaml = LAMBDA.replace("{fasta: lambda.fa.gz}", "{name: lambda, fasta: again.fa.gz}");
    let (old, new) =
        ("{uses: shard, from: tokens, context: 64}", "{context: 64, from: tokens, uses: shard} # c");
    scratch.write(&yaml.replace(old, new));
    assert_eq!(scratch.ran(&[]), Vec::<String>::new());
}

#[test]
fn damaged_and_deleted_outputs_are_noticed_and_rebuilt() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    let before = scratch.contents();
    let shard = scratch.artifact("shards/train-00000.parquet");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[100] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let plan = scratch.command("plan", &[]).output().unwrap();
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.contains("train-00000.parquet` is damaged: its blake3 is"), "{plan}");
    assert_eq!(scratch.ran(&[]), ["shards"]);
    fs::remove_file(scratch.artifact("clean/intervals.parquet")).unwrap();
    assert_eq!(scratch.ran(&[]), ["clean"]);
    fs::remove_dir_all(scratch.artifact("bpe")).unwrap();
    assert_eq!(scratch.ran(&[]), ["bpe"]);
    assert_eq!(scratch.contents(), before);
}

#[test]
fn selections_choose_stages() {
    let scratch = Scratch::lambda();
    assert_eq!(sorted(&scratch.ran(&["--until", "bpe"])), ["bpe", "clean", "raw", "split"]);
    assert_eq!(scratch.ran(&["--only", "windows"]), ["windows"]);
    assert_eq!(scratch.ran(&[]), ["tokens", "shards"]);
    assert_eq!(sorted(&scratch.ran(&["--from", "tokens"])), ["shards", "tokens"]);
    assert_eq!(scratch.ran(&["--force", "raw"]), ["raw"], "what comes out is the same, so nothing else runs");
    let output = scratch.run(&["--only", "tokns"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no stage `tokns` in `flow.yaml`; did you mean `tokens`?"),
        "{}",
        stderr(&output)
    );
    fs::remove_dir_all(scratch.artifact("windows")).unwrap();
    let output = scratch.run(&["--only", "tokens"]);
    assert!(
        stderr(&output).contains("stage `tokens` needs `windows`, which is not there"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn one_thread_and_two_give_the_same_bytes() {
    let (one, two) = (Scratch::lambda(), Scratch::lambda());
    one.ran(&["--jobs", "1"]);
    two.ran(&["--jobs", "2"]);
    assert_eq!(one.contents(), two.contents());
    assert!(one.contents().len() > 10);
}

#[test]
fn bases_in_are_bases_out_and_dropped_in_every_manifest() {
    let scratch = Scratch::lambda();
    scratch.ran(&["--set", "windows.tail=drop", "--set", "split.exclude=[]"]);
    let mut dropped = 0;
    for stage in ["raw", "clean", "split", "windows", "bpe", "tokens", "shards"] {
        let text = fs::read(scratch.artifact(stage).join("manifest.json")).unwrap();
        let counts: serde_json::Value =
            serde_json::from_slice::<serde_json::Value>(&text).unwrap()["counts"].take();
        let lost: u64 = counts["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        let (bases_in, bases_out) =
            (counts["bases_in"].as_u64().unwrap(), counts["bases_out"].as_u64().unwrap());
        assert_eq!(bases_in, bases_out + lost, "{stage}: {counts}");
        dropped += lost;
    }
    assert_eq!(dropped, 502, "the last window of the last block is 502 bases");
}

#[test]
fn a_work_folder_in_use_is_refused() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    let lock = fs::File::options().write(true).open(scratch.artifact(".cache/lock")).unwrap();
    lock.lock().unwrap();
    let output = scratch.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("work/flow` is in use by process "), "{}", stderr(&output));
}
