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

/// Three cells, one of which fails while a file is there, and a report on them.
const CELLS: &str = "
name: flow
matrix: {cell: [one, two, three]}
stages:
  cells:  {uses: command, run: \"./cell.sh ${matrix.cell} {out}/cell\", files: {script: cell.sh}, outputs: [cell]}
  after:  {uses: command, run: \"cp {input.cell}/cell {out}/copy\", inputs: {cell: cells}, outputs: [copy]}
  report: {uses: report, from: [after]}
";

#[test]
fn a_report_does_without_the_cells_that_failed_and_is_made_anew_with_them() {
    let scratch = Scratch::new(CELLS);
    let script = |bad: &str| {
        scratch.file("cell.sh", &format!("#!/bin/sh\n[ $1 = {bad} ] && exit 3\necho $1 > $2\n"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(scratch.path("cell.sh"), mode).unwrap();
    };
    let page = || fs::read_to_string(scratch.artifact("report/report.html")).unwrap();
    script("two");
    let failed = || {
        let output = scratch.run(&[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("not run, for want of what failed: `after@cell=two`; what is"), "{message}");
        message
    };
    assert!(failed().contains("report: done"));
    let html = page();
    for expected in
        ["Failed in this run", "<td>cells@cell=two</td>", ">after@cell=one<", ">after@cell=three<"]
    {
        assert!(html.contains(expected), "no {expected} in {html}");
    }
    assert!(!html.contains(">after@cell=two<"), "{html}");
    assert!(failed().contains("report: done"), "it says why they failed this time");
    script("four");
    let mut ran = scratch.ran(&[]);
    ran.sort();
    let expected = ["after@cell=two", "cells@cell=one", "cells@cell=three", "cells@cell=two", "report"];
    assert_eq!(ran, expected);
    assert!(page().contains(">after@cell=two<") && !page().contains("Failed in this run"));
    // What failed now has an artifact of before; the page does not take it for one of this run.
    script("two");
    assert!(failed().contains("report: runs: input `after@cell=two` is not there"));
    assert!(!page().contains(">after@cell=two<"));
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
    assert!(plan.contains("runs: not made yet; 1 of its 5 partitions are there, missing 0,2-4\n"), "{plan}");
    let plan = scratch.plan(&["--set", "tokens.partition=10kb"]);
    let expected = serde_json::json!({"of": 9, "made": 0, "missing": "0-8"});
    assert_eq!((&plan[5]["stage"], &plan[5]["partitions"]), (&"tokens".into(), &expected));
    assert!(plan[6].get("partitions").is_none(), "shards have none");
    assert_eq!(scratch.ran(&[]), ["tokens", "shards"]);
    let shards = |scratch: &Scratch| {
        let mut all = scratch.contents();
        all.retain(|path, _| path.starts_with("shards/"));
        all
    };
    assert_eq!(shards(&scratch), shards(&whole));
    assert!(scratch.artifact("tokens/train/part-00003.parquet").exists());
    assert!(!scratch.artifact(".partial/tokens").exists(), "what was put together is gone");
    let output = task("1/5").wait_with_output().unwrap();
    assert!(stderr(&output).contains("`tokens` was there, made of all"), "{}", stderr(&output));
    let left: Vec<_> = fs::read_dir(scratch.artifact(".tasks")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn stages_made_by_themselves_side_by_side_give_what_a_run_gives() {
    let (whole, scratch) = (Scratch::lambda(), in_partitions());
    whole.ran(&[]);
    let task = |arguments: &[&str]| {
        let mut command = scratch.command("run-task", arguments);
        command.stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let said = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    // Waits for what it reads.
    let early = task(&["split", "--wait", "60 s"]);
    for stage in ["raw", "clean"] {
        assert!(said(task(&[stage])).contains(&format!("`{stage}` is made")));
    }
    assert!(said(early).contains("`split` is made"));
    let both = [task(&["windows"]), task(&["bpe"]), task(&["bpe"])];
    let both = both.map(said).join("");
    assert!(both.contains("`bpe` is made") && both.contains("`bpe` was there"), "{both}");
    let text = said(task(&["tokens", "--share", "1/2"]));
    assert!(text.contains("partitions 1,3 of `tokens` are made"), "{text}");
    let text = said(task(&["tokens", "--partition", "0-1"]));
    assert!(text.contains("partition 0 of `tokens` is made; partition 1 of `tokens` was there"), "{text}");
    assert!(said(task(&["tokens", "--share", "7/8"])).contains("no partition of `tokens` in this share"));
    let output = task(&["shards"]).wait_with_output().unwrap();
    assert!(stderr(&output).contains("stage `shards` needs `tokens`, which is not there"), "{output:?}");
    said(task(&["tokens"]));
    said(task(&["shards"]));
    let shards = |scratch: &Scratch| {
        let mut all = scratch.contents();
        all.retain(|path, _| !path.starts_with("tokens/"));
        all
    };
    assert_eq!(shards(&scratch), shards(&whole));
    assert_eq!(scratch.ran(&[]), [""; 0], "nothing is left to do");
    let output =
        task(&["raw", "--time", "0 s", "--set", "raw.on_bad_record=skip"]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(124), "{}", stderr(&output));
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
    let table = partial.join("part-00000-of-00005/train.parquet");
    let bytes = fs::read(&table).unwrap();
    fs::write(&table, &bytes[..bytes.len() / 2]).unwrap();
    let (code, said) = task("tokens", "0");
    assert!(code == Some(0) && said.contains("is made"), "{said}");
    assert_eq!(fs::read(&table).unwrap(), bytes);
    for (stage, partition, expected) in [
        ("tokens", "5", "no partition 5: it falls into 5, from 0 to 4"),
        ("tokens", "0/6", "no partition 0 of 6: it falls into 5, from 0 to 4"),
        ("tokens", "0,3-6", "no partition 6: it falls into 5, from 0 to 4"),
        ("shards", "0", "stage `shards` is a `shard`, whose work is not done in partitions"),
        ("tokns", "0", "did you mean `tokens`?"),
    ] {
        let (code, said) = task(stage, partition);
        assert!(code == Some(1) && said.contains(expected), "{stage} {partition}: {said}");
    }
    assert_eq!(task("tokens", "x").0, Some(2));
    assert!(!scratch.artifact(".cache/tasks/tokens").join("00005.jsonl").exists(), "no log of what is none");
    assert!(!scratch.artifact(".cache/tasks/tokns").exists());
}

#[test]
fn a_stage_whose_time_is_up_fails_and_says_so() {
    let scratch = Scratch::lambda();
    let slow =
        "  slow:    {uses: command, run: sleep 60, outputs: [x], resources: {time: 1 s}, retries: 1}\n";
    scratch.write(
        &format!("{LAMBDA}{slow}").replace("lambda.fa.gz}]}", "lambda.fa.gz}], resources: {time: 0 s}}"),
    );
    let began = std::time::Instant::now();
    let message = stderr(&scratch.run(&[]));
    assert!(began.elapsed().as_secs() < 30, "{message}");
    let stopped = |stage: &str, time: &str| {
        format!("stage `{stage}` failed: it was stopped after {time}, the `time` of its `resources`")
    };
    assert!(message.contains(&stopped("slow", "1s")) && message.contains(&stopped("raw", "0s")), "{message}");
    assert!(message.contains("slow: trying again (1 of 1)"), "{message}");
    assert!(!scratch.artifact("slow").exists() && !scratch.artifact(".staging").exists());
    scratch.write(LAMBDA);
    assert_eq!(scratch.ran(&["--until", "raw"]), ["raw"]);
}

#[test]
fn status_lists_partitions_that_are_made_failed_or_stopped_with_their_logs() {
    let scratch = many_files();
    scratch.write(&many("1", "null", "null", "null").replace("on_bad_record: skip, ", ""));
    let task = |at: &str| scratch.command("run-task", &["raw", "--partition", at]).output().unwrap();
    let status = || String::from_utf8(scratch.command("status", &[]).output().unwrap().stdout).unwrap();
    assert!(task("0/9").status.success() && task("2").status.success());
    assert_eq!(task("8").status.code(), Some(1));
    let log = "work/flow/.cache/tasks/raw/00008.jsonl";
    let text = status();
    assert!(text.contains("; 2 of its 9 partitions are there, missing 1,3-8\n"), "{text}");
    assert!(text.contains("partition 8 failed: stage `raw` failed: cannot read `bad:2-3`"), "{text}");
    assert!(
        text.contains(&format!("; log {log}\n")) && fs::read_to_string(scratch.path(log)).is_ok(),
        "{text}"
    );
    // What a process leaves that makes a partition, and holds its lock, or was killed.
    for at in [3, 4] {
        let begun = "{\"event\":\"run_started\"}\n";
        scratch.file(&format!("work/flow/.cache/tasks/raw/0000{at}.jsonl"), begun);
        scratch.file(&format!("work/flow/.tasks/raw-part-0000{at}-of-00009-x1Y2z3.lock"), "");
    }
    let held = fs::File::open(scratch.artifact(".tasks/raw-part-00003-of-00009-x1Y2z3.lock")).unwrap();
    held.lock().unwrap();
    let text = status();
    for expected in ["partition 3 is being made; log", "partition 4 was stopped; log", "partition 8 failed"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let collected = |yaml: &str| {
        scratch.write(yaml);
        let output = scratch.command("gc", &["--dry-run"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let other = many("1", "null", "null", "null");
    let text = collected(&other);
    assert!(!text.contains(".partial"), "of other settings, but one is being made: {text}");
    drop(held);
    let text = collected(&other);
    assert!(text.contains("made from other things than a run would go on with now"), "{text}");
    assert!(scratch.ran(&[]).contains(&"raw".to_owned()));
    assert!(!scratch.artifact(".cache/tasks/raw").exists(), "the logs go with the partitions");
    assert!(status().contains("raw      ingest     done "), "{}", status());
}

/// Some files, and what is equal or nearly so in them: bases drawn by a rule, one file a piece of another, a read of each.
fn many_files() -> Scratch {
    let scratch = Scratch::new("");
    let draw = |seed: u32, bases: u32| -> String {
        let state = |at: u32| (at ^ seed).wrapping_mul(0x9E37_79B1) ^ (at.wrapping_mul(0x85EB_CA6B) >> 7);
        (0..bases).map(|at| char::from(b"ACGT"[(state(at) >> 13 & 3) as usize])).collect()
    };
    for file in 0..7_u32 {
        let (own, shared) = (draw(file, 3000 + 700 * file), draw(file / 2 + 100, 2500));
        scratch.file(&format!("in/g{file}.fa"), &format!(">own\n{own}\n>n\nNNNNN\n>shared\n{shared}\n"));
    }
    let read = |at: u32| format!("@r{at}\n{0}\n+\n{1}\n", draw(at % 5, 80), "I".repeat(80));
    scratch.file("reads.fq", &(0..40).map(read).collect::<String>());
    scratch.file("t.bed", "g1:own\t100\t900\nshared\t0\t50\n");
    scratch.file("bad.fa", ">ok\nACGT\n>bad\nAC!T\n>end\nGGCC\n");
    scratch
}

/// A workflow on them, with the sizes of the partitions of its stages.
fn many(raw: &str, clean: &str, once: &str, split: &str) -> String {
    MANY.replace("RAW", raw).replace("CLEAN", clean).replace("ONCE", once).replace("SPLIT", split)
}

const MANY: &str = "
name: flow
stages:
  raw:     {uses: ingest, on_bad_record: skip, sources: [{fasta: in/}, {fastq: reads.fq}, {fasta: bad.fa}], partition: RAW}
  clean:   {uses: clean, from: raw, partition: CLEAN}
  once:    {uses: dedup, from: clean, window: 500, near: {jaccard: 0.8}, partition: ONCE}
  exact:   {uses: dedup, from: clean, partition: ONCE}
  split:   {uses: split, from: clean, unplaced: train, partition: SPLIT}
  kin:     {uses: split, from: clean, homology: {k: 15}, test_fraction: 0.4, sources: {reads: {train: null}}, partition: SPLIT}
  cut:     {uses: split, from: clean, intervals: {test: t.bed, margin: 9}, validation_fraction: 0.3, partition: SPLIT}
  left:    {uses: leaks, from: kin, window: 300, k: 13, partition: SPLIT}
  panes:   {uses: chunk, from: cut, window: 200, stride: 100, reverse_complement: [train]}
  seen:    {uses: leaks, from: panes, partition: SPLIT}
  windows: {uses: chunk, from: split, window: 64}
  bases:   {uses: tokenizer, model: nucleotide}
  tokens:  {uses: tokenize, from: windows, tokenizer: bases}
  all:     {uses: tokenizer, from: split, model: {bpe: {vocabulary_size: 64}}, partition: ONCE}
  some:    {uses: tokenizer, from: windows, pieces: chunks, model: {bpe: {vocabulary_size: 40, sample: 1500}}, partition: ONCE}
";

#[test]
fn files_and_intervals_give_the_same_bytes_in_whatever_partitions() {
    let scratch = many_files();
    let mut whole = None;
    for (raw, clean, once, split, jobs, expected) in [
        ("null", "null", "null", "null", "2", (1, 1, 1, 1)),
        ("1", "1", "1", "1", "1", (9, 63, 148, 56)),
        ("8kB", "9kb", "5kb", "7kb", "2", (8, 7, 12, 9)),
    ] {
        scratch.write(&many(raw, clean, once, split));
        drop(fs::remove_dir_all(scratch.path("work")));
        // A partition of each that is made beforehand, and of which the run is none the wiser.
        let task = |stage: &str, at: u32, of: u32| {
            let partition = format!("{at}/{of}");
            for expected in ["is made", "was there"] {
                let output =
                    scratch.command("run-task", &[stage, "--partition", &partition]).output().unwrap();
                let said = stderr(&output);
                assert!(output.status.success() && said.contains(expected), "{raw}: {said}");
            }
        };
        task("raw", expected.0 - 1, expected.0);
        scratch.ran(&["--until", "raw"]);
        task("clean", expected.1 / 2, expected.1);
        scratch.ran(&["--until", "clean"]);
        task("once", expected.2 / 2, expected.2);
        task("split", expected.3 / 2, expected.3);
        task("kin", expected.3 - 1, expected.3);
        let mut ran = scratch.ran(&["--jobs", jobs]);
        ran.sort();
        assert_eq!(
            ran,
            [
                "all", "bases", "cut", "exact", "kin", "left", "once", "panes", "seen", "some", "split",
                "tokens", "windows"
            ]
        );
        let manifest = |stage: &str| -> serde_json::Value {
            let text = fs::read(scratch.artifact(stage).join("manifest.json")).unwrap();
            serde_json::from_slice(&text).unwrap()
        };
        let said =
            ["raw", "clean", "once", "exact", "split", "tokens", "all", "some", "kin", "cut", "left", "seen"];
        let said = said.map(manifest);
        assert_eq!(said[0]["details"]["skipped"].as_array().unwrap().len(), 1);
        assert_eq!(said[2]["counts"]["other"]["near duplicates"], 1);
        assert!(said[2]["counts"]["dropped"]["exact duplicate"].as_u64().unwrap() > 5000);
        let learnt = |at: usize| said[at]["details"]["trained_on_bases"].as_u64().unwrap();
        assert!(learnt(6) > 40_000 && (900..=1500).contains(&learnt(7)), "{} {}", learnt(6), learnt(7));
        let of_bases = |path: &String| path.contains("sequence-");
        let mut contents = scratch.contents();
        // What is read and cleaned lies in a file for each partition that holds records; all that follows is the same.
        let bases = contents.keys().filter(|path| of_bases(path)).count();
        assert_eq!(bases, (expected.0 + expected.1) as usize, "{raw}, {clean}");
        contents.retain(|path, _| !of_bases(path));
        let said = said.map(|manifest| [manifest["counts"].clone(), manifest["details"].clone()]);
        let found = (contents, said);
        let whole = whole.get_or_insert_with(|| found.clone());
        assert_eq!(found.0, whole.0, "{raw}, {clean}, {once}");
        assert_eq!(found.1, whole.1, "manifests: {raw}, {clean}, {once}");
        let left = |folder: &str| fs::read_dir(scratch.artifact(folder)).map_or(0, Iterator::count);
        assert_eq!((left(".partial"), left(".tasks"), left(".staging")), (0, 0, 0));
    }
    assert_eq!(scratch.ran(&["--set", "once.partition=1Mb"]), [""; 0]);
    assert!(scratch.ran(&["--set", "clean.partition=7kb"]).contains(&"clean".to_owned()));
}

#[test]
fn a_file_at_fault_keeps_no_other_from_being_read_and_partitions_of_another_run_are_not_taken() {
    let scratch = many_files();
    let yaml = many("1", "null", "null", "null").replace("on_bad_record: skip, ", "");
    scratch.write(&yaml);
    let message = stderr(&scratch.run(&[]));
    assert!(
        message.contains("1 of 9 partitions failed, the others are kept: 8: cannot read `bad:2-3`"),
        "{message}"
    );
    let plan = |sets: &[&str]| scratch.plan(sets)[0]["reason"].as_str().unwrap().to_owned();
    assert!(plan(&[]).ends_with("; 8 of its 9 partitions are there, missing 8"), "{}", plan(&[]));
    scratch.file("in/g3.fa", ">other\nACGTACGT\n");
    assert_eq!(plan(&[]), "not made yet");
    scratch.file("bad.fa", ">good\nACGT\n");
    assert!(scratch.ran(&[]).contains(&"raw".to_owned()));
    let text = fs::read_to_string(scratch.artifact("raw/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest["details"]["sources"][3]["bases"], 8);
    assert!(!scratch.artifact(".partial/raw").exists(), "what was made of other files is gone");
}

#[test]
fn a_run_of_a_stage_that_is_not_there_leaves_nothing() {
    let scratch = Scratch::lambda();
    let message = stderr(&scratch.run(&["--only", "shads"]));
    assert!(message.contains("no stage `shads` in `flow.yaml`; did you mean `shards`?"), "{message}");
    assert!(!scratch.path("work").exists(), "no log of what was no run");
}
