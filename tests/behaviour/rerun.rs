//! What runs again after what, and that the same work gives the same bytes.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::{LAMBDA, Scratch, data, stderr};

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
        let (ran, unplanned) = scratch.ran_as_planned(&[], &["--set", edit]);
        assert_eq!(sorted(&ran), sorted(expected), "--set {edit}");
        assert_eq!(unplanned, Vec::<String>::new(), "--set {edit}");
        let (_, unplanned) = scratch.ran_as_planned(&[], &[]);
        assert_eq!(unplanned, Vec::<String>::new(), "back from {edit}");
    }
}

/// Lambda with its first stages in a folder of their own, a variable, and a program at the end.
fn whole() -> Scratch {
    let (head, tail) = LAMBDA.split_once("  split:").unwrap();
    let scratch = Scratch::new(&format!(
        "name: flow\ninclude: [genome/genome.yaml]\nenv: {{VOCABULARY: 96}}\nstages:\n  split:{}{SIZE}",
        tail.replace("params.vocabulary", "env.VOCABULARY")
    ));
    let head = head.replace("name: flow", "").replace("params: {vocabulary: 96}", "");
    scratch.file("genome/genome.yaml", &head.replace("{fasta: lambda", "{name: phage, fasta: lambda"));
    fs::copy(data("phage_lambda.fa.gz"), scratch.path("genome/lambda.fa.gz")).unwrap();
    scratch
}

const SIZE: &str = "  size:    {uses: command, run: \"wc -c < {input.shards}/train-00000.parquet > {out}/bytes\", inputs: {shards: shards}, outputs: [bytes]}\n";

/// Edits a file beside the workflow; what is replaced must be there.
fn edit(scratch: &Scratch, file: &str, good: &str, other: &str) {
    let text = fs::read_to_string(scratch.path(file)).unwrap();
    assert!(text.contains(good), "{good}");
    fs::write(scratch.path(file), text.replace(good, other)).unwrap();
}

fn flow(scratch: &Scratch, good: &str, other: &str) {
    edit(scratch, "flow.yaml", good, other);
}

fn nothing(_: &Scratch) {}

type Edit = fn(&Scratch);

/// What is edited, what the command line has, and exactly what runs after it.
const EDITS: [(&str, Edit, &[&str], &[&str]); 29] = [
    ("nothing", nothing, &[], &[]),
    ("a comment", |s| flow(s, "context: 64}", "context: 64} # rows"), &[], &[]),
    (
        "the order of keys",
        |s| flow(s, "{uses: shard, from: tokens, context: 64}", "{context: 64, from: tokens, uses: shard}"),
        &[],
        &[],
    ),
    (
        "the order of stages",
        |s| {
            flow(s, SIZE, "");
            flow(s, "stages:\n", &format!("stages:\n{SIZE}"));
        },
        &[],
        &[],
    ),
    ("a default written out", nothing, &["--set", "shards.pack=concat"], &[]),
    ("a value of the last stages", |s| flow(s, "context: 64", "context: 32"), &[], &["shards", "size"]),
    (
        "a value in the middle",
        |s| flow(s, "window: 1000", "window: 500"),
        &[],
        &["shards", "size", "tokens", "windows"],
    ),
    (
        "a value of the first stages",
        |s| flow(s, "block: 4000", "block: 4001"),
        &[],
        &["bpe", "shards", "size", "split", "tokens", "windows"],
    ),
    // 48,502 bases are more than either limit.
    (
        "a value that changes no output",
        |s| edit(s, "genome/genome.yaml", "min_length: 100", "min_length: 200"),
        &[],
        &["clean"],
    ),
    (
        "another model of the tokenizer",
        nothing,
        &["--set", "bpe.model=nucleotide"],
        &["bpe", "shards", "size", "tokens"],
    ),
    ("a variable, to what it was", nothing, &["VOCABULARY=96"], &[]),
    ("a variable", nothing, &["VOCABULARY=64"], &["bpe", "shards", "size", "tokens"]),
    (
        "the content of the input",
        |s| {
            let bases = "ACGTTGCATGCCGATTACAGG".repeat(2000);
            s.file("genome/lambda.fa.gz", &format!(">lambda\n{bases}\n"));
        },
        &[],
        &["bpe", "clean", "raw", "shards", "size", "split", "tokens", "windows"],
    ),
    (
        "the input, packed in another way",
        |s| {
            let packed =
                Command::new("gzip").args(["-dc"]).arg(s.path("genome/lambda.fa.gz")).output().unwrap();
            fs::write(s.path("genome/lambda.fa.gz"), packed.stdout).unwrap();
        },
        &[],
        &["raw"],
    ),
    (
        "the input, touched",
        |s| {
            let file = fs::File::options().append(true).open(s.path("genome/lambda.fa.gz")).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_mins(1)).unwrap();
        },
        &[],
        &[],
    ),
    (
        "the input, moved",
        |s| {
            fs::rename(s.path("genome/lambda.fa.gz"), s.path("moved.fa.gz")).unwrap();
            edit(s, "genome/genome.yaml", "fasta: lambda.fa.gz", "fasta: ../moved.fa.gz");
        },
        &[],
        &[],
    ),
    (
        "what is included, moved with its data",
        |s| {
            fs::rename(s.path("genome"), s.path("elsewhere")).unwrap();
            flow(s, "genome/genome.yaml", "elsewhere/genome.yaml");
        },
        &[],
        &[],
    ),
    (
        "an output, damaged",
        |s| {
            let mut bytes = fs::read(s.artifact("shards/train-00000.parquet")).unwrap();
            bytes[100] ^= 1;
            fs::write(s.artifact("shards/train-00000.parquet"), bytes).unwrap();
        },
        &[],
        &["shards"],
    ),
    (
        "an output, deleted",
        |s| fs::remove_file(s.artifact("clean/intervals.parquet")).unwrap(),
        &[],
        &["clean"],
    ),
    ("an artifact, deleted", |s| fs::remove_dir_all(s.artifact("bpe")).unwrap(), &[], &["bpe"]),
    (
        "a manifest, deleted",
        |s| fs::remove_file(s.artifact("windows/manifest.json")).unwrap(),
        &[],
        &["windows"],
    ),
    (
        "the version of an algorithm",
        |s| {
            let path = s.artifact("tokens/manifest.json");
            let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            manifest["algorithm"] = 1.into();
            manifest["action_key"] = "of version 1".into();
            fs::write(&path, manifest.to_string()).unwrap();
            let plan = s.plan(&[]);
            let tokens = plan.as_array().unwrap().iter().find(|stage| stage["stage"] == "tokens").unwrap();
            assert!(tokens["reason"].as_str().unwrap().starts_with("algorithm version 1 -> "), "{tokens}");
        },
        &[],
        &["tokens"],
    ),
    (
        "tags, resources and retries",
        |s| {
            flow(
                s,
                "uses: split,",
                "uses: split, tags: [a], resources: {threads: 1, memory: 1GB}, retries: 3,",
            );
        },
        &[],
        &[],
    ),
    (
        "a condition that leaves out the end",
        |s| flow(s, "uses: command,", "uses: command, when: false,"),
        &[],
        &[],
    ),
    ("a condition that leaves out much", nothing, &["--set", "split.when=false"], &[]),
    (
        "a condition that leaves out nothing",
        |s| flow(s, "uses: command,", "uses: command, when: \"${env.VOCABULARY} < 100\","),
        &[],
        &[],
    ),
    (
        "the name of a stage",
        |s| {
            flow(s, "  bpe: ", "  letters: ");
            flow(s, "tokenizer: bpe", "tokenizer: letters");
        },
        &[],
        &["letters"],
    ),
    ("a command that makes the same", |s| flow(s, "wc -c <", "wc  -c <"), &[], &["size"]),
    (
        "one more stage",
        |s| flow(s, SIZE, &format!("{SIZE}  leaks: {{uses: leaks, from: split}}\n")),
        &[],
        &["leaks"],
    ),
];

#[test]
fn exactly_what_an_edit_of_any_kind_concerns_runs_again() {
    let made = whole();
    assert_eq!(made.ran(&[]).len(), 8);
    let mut wrong = Vec::new();
    for (name, edit, given, expected) in EDITS {
        let scratch = made.copy();
        edit(&scratch);
        let (arguments, variables): (Vec<&str>, Vec<&str>) =
            given.iter().partition(|word| word.starts_with("--") || given[0].starts_with("--"));
        let variables: Vec<(&str, &str)> = variables.iter().filter_map(|word| word.split_once('=')).collect();
        let (ran, unplanned) = scratch.ran_as_planned(&variables, &arguments);
        if sorted(&ran) != sorted(expected) {
            wrong.push(format!("{name}: {ran:?} ran, expected {expected:?}"));
        }
        wrong.extend(unplanned.into_iter().map(|unplanned| format!("{name}: {unplanned}")));
        let again = scratch.ran_with(&variables, &arguments);
        if !again.is_empty() {
            wrong.push(format!("{name}: {again:?} ran twice"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
    let as_planned = |arguments: &[&str]| {
        let (ran, unplanned) = scratch.ran_as_planned(&[], arguments);
        assert_eq!(unplanned, Vec::<String>::new(), "{arguments:?}");
        ran
    };
    assert_eq!(as_planned(&["--only", "windows"]), ["windows"]);
    assert_eq!(as_planned(&[]), ["tokens", "shards"]);
    assert_eq!(sorted(&as_planned(&["--from", "tokens"])), ["shards", "tokens"]);
    assert_eq!(as_planned(&["--force", "raw"]), ["raw"], "what comes out is the same, so nothing else runs");
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
