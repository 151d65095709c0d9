//! How stages run: side by side, one failure beside others that go on, and work in partitions.

use std::fs;

use crate::support::{LAMBDA, Scratch, stderr};

/// With `tokens` in partitions of 20,000 bases: two strands of some 34,000 bases for training, and the others.
fn in_partitions() -> Scratch {
    let scratch = Scratch::lambda();
    let old = "{uses: tokenize, from: windows, tokenizer: bpe}";
    scratch.write(&LAMBDA.replace(old, "{uses: tokenize, from: windows, tokenizer: bpe, partition: 20kb}"));
    scratch
}

#[test]
fn a_branch_that_fails_stops_no_other_and_names_what_it_held_up() {
    let scratch = Scratch::lambda();
    let more = "  bad:     {uses: shard, from: tokens, context: 64, end: \"[NOPE]\"}
  copy:    {uses: report, from: [bad]}
  apart:   {uses: shard, from: tokens, context: 32}
  alone:   {uses: leaks, from: split}
";
    scratch.write(&format!("{LAMBDA}{more}"));
    let output = scratch.run(&[]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let expected = "error: stage `bad` failed: `end`: the tokenizer has no special token `[NOPE]`\nnot run, for want of what \
         failed: `copy`; what is done is kept";
    assert!(message.contains(expected), "{message}");
    for stage in ["shards", "apart", "alone"] {
        assert!(scratch.artifact(stage).join("manifest.json").exists(), "{stage} is made: {message}");
    }
    assert!(!scratch.artifact("bad").exists() && !scratch.artifact("copy").exists());
    assert_eq!(scratch.ran(&["--set", "bad.end='[SEP]'"]), ["bad", "copy"], "what is done is not done again");
}

#[test]
fn two_failures_are_both_told() {
    let scratch = Scratch::lambda();
    let bad =
        |name: &str| format!("  {name}: {{uses: shard, from: tokens, context: 64, end: \"[{name}]\"}}\n");
    scratch.write(&format!("{LAMBDA}{}{}", bad("one"), bad("two")));
    let message = stderr(&scratch.run(&["--jobs", "1"]));
    for name in ["one", "two"] {
        let expected =
            format!("error: stage `{name}` failed: `end`: the tokenizer has no special token `[{name}]`");
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn partitions_give_the_same_shards_wherever_and_however_often_they_are_made() {
    let (whole, scratch) = (Scratch::lambda(), in_partitions());
    whole.ran(&[]);
    scratch.ran(&["--until", "windows"]);
    scratch.ran(&["--only", "bpe"]);
    // Two processes make the same one at once.
    let task = |partition: &str| {
        scratch
            .command("run-task", &["tokens", "--partition", partition])
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let both = [task("1/5"), task("1")];
    let said: Vec<String> = both
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            stderr(&output)
        })
        .collect();
    assert!(said.iter().any(|said| said.contains("partition 1 of `tokens` is made")), "{said:?}");
    let output = task("1/5").wait_with_output().unwrap();
    assert!(stderr(&output).contains("partition 1 of `tokens` was there"), "{}", stderr(&output));
    let plan = scratch.command("plan", &[]).output().unwrap();
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.contains("runs: not made yet; 1 of its partitions are there"), "{plan}");
    assert_eq!(scratch.ran(&[]), ["tokens", "shards"]);
    let shards = |scratch: &Scratch| {
        let mut all = scratch.contents();
        all.retain(|path, _| path.starts_with("shards/"));
        all
    };
    assert_eq!(shards(&scratch), shards(&whole));
    assert!(scratch.artifact("tokens/part-00004/partition.json").exists());
    let left: Vec<_> = fs::read_dir(scratch.artifact(".tasks")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_partition_that_is_not_whole_is_made_again_and_a_wrong_number_is_refused() {
    let scratch = in_partitions();
    scratch.ran(&["--until", "windows"]);
    scratch.ran(&["--only", "bpe"]);
    let task = |stage: &str, partition: &str| {
        let output = scratch.command("run-task", &[stage, "--partition", partition]).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    assert_eq!(task("tokens", "0").0, Some(0));
    let partial = fs::read_dir(scratch.artifact(".partial/tokens")).unwrap().next().unwrap().unwrap().path();
    let table = partial.join("part-00000/train.parquet");
    let bytes = fs::read(&table).unwrap();
    fs::write(&table, &bytes[..bytes.len() / 2]).unwrap();
    let (code, said) = task("tokens", "0");
    assert!(code == Some(0) && said.contains("is made"), "{said}");
    assert_eq!(fs::read(&table).unwrap(), bytes);
    for (stage, partition, expected) in [
        ("tokens", "5", "no partition 5: it falls into 5, from 0 to 4"),
        ("tokens", "0/6", "no partition 0 of 6: it falls into 5, from 0 to 4"),
        ("shards", "0", "stage `shards` is a `shard`, whose work is not done in partitions"),
        ("tokns", "0", "did you mean `tokens`?"),
    ] {
        let (code, said) = task(stage, partition);
        assert!(code == Some(1) && said.contains(expected), "{stage} {partition}: {said}");
    }
    assert_eq!(task("tokens", "x").0, Some(2));
}
