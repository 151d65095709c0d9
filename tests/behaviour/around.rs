//! The commands around a run: the graph, where artifacts come from, what there is of them, the log, a crate, what is thrown
//! away, a first workflow, and what a shell and a machine's owner want to know.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::{LAMBDA, Scratch, data, genomill, root, stderr};

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// `genomill ARGUMENTS`, started in the folder.
fn call(scratch: &Scratch, arguments: &[&str]) -> Output {
    genomill().current_dir(scratch.path("")).args(arguments).output().unwrap()
}

fn json(scratch: &Scratch, arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(&call(scratch, arguments))).unwrap()
}

/// The lines of the newest log.
fn log(scratch: &Scratch) -> Vec<Value> {
    let folder = scratch.artifact(".cache/runs");
    let newest = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    fs::read_to_string(newest).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_graph_of_our_workflows_is_printed_in_every_format() {
    let file = root().join("workflows/vocabulary.yaml");
    for (format, parts) in [
        ("mermaid", ["flowchart TD", "bpe@vocabulary=65536<br>tokenizer"]),
        ("dot", ["digraph \"vocabulary\" {", "\"split\" -> \"windows\";"]),
        ("svg", ["<svg xmlns=\"http://www.w3.org/2000/svg\"", ">shards@vocabulary=65536</text>"]),
    ] {
        let output = genomill().arg("graph").arg(&file).args(["--format", format]).output().unwrap();
        let text = stdout(&output);
        for part in parts {
            assert!(text.contains(part), "{format}: {part} is not in {text}");
        }
    }
    let scratch = Scratch::lambda();
    let text = stdout(&call(&scratch, &["graph", "flow.yaml"]));
    assert_eq!(text.matches("-->").count(), 7, "{text}");
}

#[test]
fn an_artifact_is_explained_back_to_its_files_and_changes_since_are_said() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    let explain =
        |arguments: &[&str]| stdout(&call(&scratch, &[&["explain", "work/flow/shards"], arguments].concat()));
    let text = explain(&[]);
    for part in [
        "shards  shard (algorithm",
        "raw  ingest (algorithm",
        "context: 64",
        "lambda.fa.gz, 13,789 bytes, blake3 ",
        "unchanged",
        "48,502 in",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let lineage: Value = serde_json::from_str(&explain(&["--json"])).unwrap();
    let stages: BTreeSet<&str> =
        lineage["steps"].as_array().unwrap().iter().map(|step| step["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, BTreeSet::from(["raw", "clean", "split", "windows", "bpe", "tokens", "shards"]));
    let manifest: Value =
        serde_json::from_slice(&fs::read(scratch.artifact("raw/manifest.json")).unwrap()).unwrap();
    let raw = lineage["steps"].as_array().unwrap().iter().find(|step| step["stage"] == "raw").unwrap();
    assert_eq!(raw["content"], manifest["content"]);
    assert_eq!(raw["sources"][0]["blake3"], manifest["sources"][0]["blake3"]);

    scratch.ran(&["--until", "windows", "--set", "windows.window=500"]);
    let text = explain(&[]);
    assert!(text.contains("CHANGED since: its content is ") && text.contains("raw  ingest"), "{text}");
    fs::remove_dir_all(scratch.artifact("tokens")).unwrap();
    fs::remove_file(scratch.path("lambda.fa.gz")).unwrap();
    let text = explain(&[]);
    assert!(text.contains("GONE: `") && text.contains("work/flow/tokens` is no artifact"), "{text}");
    let text = stdout(&call(&scratch, &["explain", "work/flow/raw"]));
    assert!(
        text.contains("lambda.fa.gz` is") || text.contains("lambda.fa.gz`: no such file or directory"),
        "{text}"
    );
    assert!(text.contains("GONE: cannot read `"), "{text}");
    let output = call(&scratch, &["explain", "work/flow"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("`work/flow` is no artifact: it has no manifest.json"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn every_run_leaves_a_log_with_times_and_reasons() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    let lines = log(&scratch);
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!((events[0], *events.last().unwrap()), ("run_started", "run_finished"));
    assert_eq!(events.iter().filter(|event| **event == "stage_started").count(), 7);
    assert_eq!(lines[0]["text"].as_str().unwrap(), LAMBDA);
    let started = lines.iter().find(|line| line["event"] == "stage_started").unwrap();
    assert_eq!((&started["stage"], &started["reason"]), (&"raw".into(), &"not made yet".into()));
    assert!(lines.iter().all(|line| line["time"].as_str().unwrap().ends_with('Z')));
    fs::write(scratch.path("lambda.fa.gz"), ">a\nAC!T\n").unwrap();
    assert_eq!(scratch.run(&["--set", "shards.context=32"]).status.code(), Some(1));
    let lines = log(&scratch);
    assert_eq!(lines[0]["set"][0], "shards.context=32");
    assert_eq!(lines.last().unwrap()["event"], "run_failed");
    let failed = lines.iter().find(|line| line["event"] == "stage_failed").unwrap();
    assert_eq!(failed["stage"], "raw");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("stage `raw` failed: cannot read `a:2-3` of"), "{error}");
}

#[test]
fn status_tells_done_failed_stopped_running_and_not_made_apart() {
    let scratch = Scratch::lambda();
    let status = || {
        let status = json(&scratch, &["status", "flow.yaml", "--json"]);
        let states =
            status["stages"].as_array().unwrap().iter().map(|of| of["state"].as_str().unwrap().to_owned());
        (states.collect::<Vec<_>>(), status)
    };
    assert_eq!(status().0, ["not_made"; 7]);
    assert!(!scratch.path("work").exists(), "looking makes nothing");
    scratch.ran(&["--until", "clean"]);
    let (states, whole) = status();
    assert_eq!(states[..3], ["done", "done", "not_made"]);
    assert!(
        whole["stages"][0]["bytes"].as_u64().unwrap() > 1000 && whole["stages"][0]["seconds"].is_number()
    );
    assert!(whole["stages"][0]["made"].as_str().unwrap().ends_with('Z'));

    let output = scratch.run(&["--set", "split.validation=[nowhere]", "--set", "split.block=null"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(status().0[..3], ["done", "done", "failed"]);
    let text = stdout(&call(&scratch, &["status", "flow.yaml"]));
    assert!(text.contains("failed   at 2") && text.contains("stage `split` failed: "), "{text}");
    assert!(text.contains("work/flow: not running"), "{text}");

    // A process that holds the folder and has begun a stage, as its log says; then it is gone.
    scratch.ran(&[]);
    let mut lines = fs::read_to_string(scratch.artifact(".cache/lock")).unwrap();
    assert!(lines.starts_with("process "));
    lines = lines.replace("process ", "");
    let begun = [
        format!("{{\"time\":\"2999-01-01T00:00:00.000Z\",\"event\":\"run_started\",\"process\":{lines}}}"),
        "{\"time\":\"2999-01-01T00:00:01.000Z\",\"event\":\"stage_started\",\"stage\":\"shards\",\"reason\":\"\"}".to_owned(),
    ];
    fs::write(scratch.artifact(".cache/runs/29990101T000000.000Z-1.jsonl"), begun.join("\n")).unwrap();
    let lock = fs::File::options().write(true).open(scratch.artifact(".cache/lock")).unwrap();
    lock.lock().unwrap();
    let (states, whole) = status();
    assert_eq!((states[6].as_str(), &whole["running"]), ("running", &format!("process {lines}").into()));
    drop(lock);
    assert_eq!(status().0[6], "interrupted");
}

/// Machines that share a work folder may have clocks that differ: what became of a stage is told by what is written, not by
/// when it says that it was.
#[test]
fn dates_of_files_decide_nothing() {
    let scratch = Scratch::lambda();
    let state = || json(&scratch, &["status", "flow.yaml", "--json"])["stages"][2]["state"].clone();
    let wrong = ["--set", "split.validation=[nowhere]", "--set", "split.block=null"];
    scratch.ran(&[]);
    for date in ["1999-01-01", "2099-01-01"] {
        assert_eq!(scratch.run(&wrong).status.code(), Some(1));
        scratch.dated(date);
        assert_eq!(state(), "failed", "files of {date}");
        if date == "1999-01-01" {
            // So says the log of a machine whose clock is far ahead.
            let logs = scratch.artifact(".cache/runs");
            let newest = fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
            fs::rename(newest, logs.join("20990101T000000.000Z-1.jsonl")).unwrap();
            assert_eq!(state(), "failed");
        }
        assert_eq!(scratch.ran(&[]), [""; 0], "files of {date}");
        assert_eq!(state(), "done", "files of {date}");
    }
}

#[test]
fn what_a_condition_leaves_out_is_told_and_kept() {
    let more = "  more:    {uses: chunk, from: split, window: 500, when: \"${params.more}\"}\n";
    let yaml = LAMBDA.replace("params: {", "params: {more: true, ") + more;
    let scratch = Scratch::lambda();
    scratch.write(&yaml);
    scratch.ran(&[]);
    scratch.write(&yaml.replace("more: true", "more: false"));
    let text = stdout(&scratch.command("status", &[]).output().unwrap());
    assert!(text.contains("more     chunk      left out: "), "{text}");
    stdout(&scratch.command("gc", &[]).output().unwrap());
    assert!(scratch.artifact("more/manifest.json").exists(), "it may be wanted again");
}

#[test]
fn garbage_is_what_no_workflow_needs_and_nothing_else() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    scratch.write(&LAMBDA.replace("shards: ", "rows: "));
    scratch.ran(&[]);
    for folder in
        ["notes", ".staging/raw", ".partial/raw/0123", ".partial/windows/0123", ".partial/model/4567"]
    {
        fs::create_dir_all(scratch.artifact(folder)).unwrap();
        fs::write(scratch.artifact(folder).join("file"), "x").unwrap();
    }
    fs::write(scratch.artifact("notes/manifest.json"), "{\"schema\": \"of somebody else\"}").unwrap();
    let text = stdout(&scratch.command("gc", &["--dry-run"]).output().unwrap());
    for part in [
        "work/flow/shards: no stage of this name",
        ".staging/raw: ",
        ".partial/raw/0123: made from other things",
        ".partial/windows: ",
        ".partial/model: ",
        "would be removed",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(scratch.artifact("shards").exists() && scratch.artifact(".staging/raw").exists());

    let lock = fs::File::options().write(true).open(scratch.artifact(".cache/lock")).unwrap();
    lock.lock().unwrap();
    let output = scratch.command("gc", &[]).output().unwrap();
    assert!(stderr(&output).contains("work/flow` is in use by process "), "{}", stderr(&output));
    drop(lock);

    // Two workflows of one name: what either needs stays.
    fs::write(scratch.path("old.yaml"), LAMBDA).unwrap();
    let both = stdout(&scratch.command("gc", &["old.yaml"]).output().unwrap());
    assert!(!both.contains("shards") && scratch.artifact("shards").exists(), "{both}");
    assert!(!scratch.artifact(".partial/raw/0123").exists() && !scratch.artifact(".staging").exists());
    let text = stdout(&scratch.command("gc", &[]).output().unwrap());
    assert!(text.contains("work/flow/shards: no stage of this name"), "{text}");
    assert!(!scratch.artifact("shards").exists() && scratch.artifact("notes/file").exists());
    assert_eq!(scratch.ran(&[]), Vec::<String>::new(), "what the workflow needs is still there");
}

#[test]
fn a_renamed_stage_that_an_artifact_refers_to_stays() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    scratch.write(&LAMBDA.replace("clean: ", "tidy: ").replace("from: clean", "from: tidy"));
    assert_eq!(scratch.ran(&[]), ["tidy"], "what it makes is what was there");
    stdout(&scratch.command("gc", &[]).output().unwrap());
    assert!(scratch.artifact("clean").exists(), "the intervals of `split` lie on it");
    assert_eq!(scratch.ran(&["--force", "windows"]), ["windows"]);
}

#[test]
fn a_run_is_exported_as_a_crate_whose_parts_are_all_there() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    fs::create_dir(scratch.artifact("stale")).unwrap();
    fs::copy(scratch.artifact("bpe/manifest.json"), scratch.artifact("stale/manifest.json")).unwrap();
    stdout(&call(&scratch, &["export-crate", "work/flow", "--license", "https://spdx.org/licenses/CC0-1.0"]));
    let metadata: Value =
        serde_json::from_slice(&fs::read(scratch.artifact("ro-crate-metadata.json")).unwrap()).unwrap();
    assert_eq!(
        metadata["@context"],
        serde_json::json!([
            "https://w3id.org/ro/crate/1.1/context",
            "https://w3id.org/ro/terms/workflow-run/context"
        ])
    );
    let graph = metadata["@graph"].as_array().unwrap();
    let by_id =
        |id: &str| graph.iter().find(|entity| entity["@id"] == id).unwrap_or_else(|| panic!("no {id}"));
    let ids: BTreeSet<&str> = graph.iter().map(|entity| entity["@id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), graph.len(), "each entity stands once");
    for id in references(&metadata) {
        let elsewhere =
            ["https://w3id.org/ro/crate/", "https://crates.io/"].iter().any(|known| id.starts_with(known));
        assert!(ids.contains(id.as_str()) || elsewhere, "{id} is not there");
    }
    assert!(!ids.contains("stale/"), "no stage is called so");
    assert_eq!(by_id("ro-crate-metadata.json")["about"]["@id"], "./");
    let root = by_id("./");
    let profiles = root["conformsTo"].to_string();
    for profile in ["process", "workflow", "provenance"] {
        assert!(profiles.contains(&format!("https://w3id.org/ro/wfrun/{profile}/0.5")), "{profiles}");
    }
    assert_eq!(root["license"]["@id"], "https://spdx.org/licenses/CC0-1.0");
    assert_eq!(root["mainEntity"]["@id"], "flow.yaml");
    assert!(by_id("flow.yaml")["@type"].to_string().contains("ComputationalWorkflow"));
    assert_eq!(fs::read_to_string(scratch.artifact("flow.yaml")).unwrap(), LAMBDA);
    for stage in ["raw", "clean", "split", "windows", "bpe", "tokens", "shards"] {
        let action = by_id(&format!("#action/{stage}"));
        assert_eq!(
            (&action["@type"], &action["result"]["@id"]),
            (&"CreateAction".into(), &format!("{stage}/").into())
        );
        assert!(action["startTime"].is_string() && action["endTime"].is_string(), "{action}");
        assert_eq!(by_id(action["instrument"]["@id"].as_str().unwrap())["@type"], "SoftwareApplication");
    }
    assert!(by_id("#action/tokens")["object"].to_string().contains("windows/"));
    for file in graph.iter().filter(|entity| entity["@type"] == "File") {
        let id = file["@id"].as_str().unwrap();
        if id.starts_with("urn:") {
            continue;
        }
        let bytes = fs::read(scratch.artifact(id)).unwrap();
        assert_eq!(file["contentSize"], bytes.len().to_string(), "{id}");
        if !id.ends_with("/manifest.json") {
            assert_eq!(file["identifier"], format!("blake3:{}", blake3::hash(&bytes)), "{id}");
        }
    }
    let output = call(&scratch, &["export-crate", "work"]);
    assert!(stderr(&output).contains("no log of a run in `work` keeps its workflow"), "{}", stderr(&output));
    stdout(&call(&scratch, &["export-crate", "work/flow", "-o", "crate", "--workflow", "flow.yaml"]));
    fs::remove_dir_all(scratch.artifact("shards")).unwrap();
    let output = call(&scratch, &["export-crate", "work/flow"]);
    assert!(stderr(&output).contains("not made, and no part of the crate: shards"), "{}", stderr(&output));
    assert!(
        scratch.path("crate/ro-crate-metadata.json").exists() && scratch.path("crate/flow.yaml").exists()
    );
}

#[test]
fn a_crate_has_the_files_that_its_workflow_includes() {
    let scratch = Scratch::lambda();
    let (raw, rest) = LAMBDA.split_once("  clean:").unwrap();
    let (head, raw) = raw.split_once("stages:").unwrap();
    let above = tempfile::tempdir().unwrap();
    let elsewhere = above.path().join("clean.yaml");
    fs::write(&elsewhere, "stages: {clean: {uses: clean, from: raw, min_length: 100}}\n").unwrap();
    scratch.file("parts/raw.yaml", &format!("stages:{}", raw.replace("lambda.fa.gz", "../lambda.fa.gz")));
    let rest = rest.split_once('\n').unwrap().1;
    let include = format!("include: [parts/raw.yaml, {}]", elsewhere.display());
    scratch.write(&format!("{head}\n{include}\nstages:\n{rest}"));
    scratch.ran(&[]);
    for arguments in [
        &["export-crate", "work/flow", "-o", "a"][..],
        &["export-crate", "work/flow", "-o", "b", "--workflow", "flow.yaml"],
    ] {
        stdout(&call(&scratch, arguments));
        let folder = scratch.path(arguments[3]);
        let metadata = fs::read(folder.join("ro-crate-metadata.json")).unwrap();
        let metadata: Value = serde_json::from_slice(&metadata).unwrap();
        let graph = metadata["@graph"].as_array().unwrap();
        let by_id = |id: &str| graph.iter().find(|entity| entity["@id"] == id).unwrap();
        for (name, original) in
            [("parts/raw.yaml", &scratch.path("parts/raw.yaml")), ("included/2-clean.yaml", &elsewhere)]
        {
            let text = fs::read_to_string(folder.join(name)).unwrap();
            assert_eq!(text, fs::read_to_string(original).unwrap());
            assert_eq!(by_id(name)["identifier"], format!("blake3:{}", blake3::hash(text.as_bytes())));
            for whole in ["./", "flow.yaml"] {
                assert!(by_id(whole)["hasPart"].to_string().contains(name), "{whole}");
            }
        }
    }
}

/// Every `@id` that something within an entity names.
fn references(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Object(map) => {
            let own = map.get("@id").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(map.values().flat_map(references)).collect()
        }
        _ => BTreeSet::new(),
    }
}

#[test]
fn a_first_workflow_plans_and_runs() {
    let contig = |number: u64| format!(">{number}\n{}\n", bases(number, 4000 + 3000 * number));
    let several = [0, 1, 2, 3, 4].map(contig).concat();
    for (name, text, held_out) in
        [("several.fa", several, "test: ["), ("one.fasta", format!(">a b\n{}\n", bases(7, 9000)), "block: ")]
    {
        let scratch = Scratch::new("");
        fs::write(scratch.path(name), text).unwrap();
        fs::create_dir(scratch.path("flows")).unwrap();
        for output in ["workflow.yaml", "flows/mine.yaml"] {
            stdout(&call(&scratch, &["init", name, "-o", output, "--schema"]));
            let yaml = fs::read_to_string(scratch.path(output)).unwrap();
            assert!(yaml.starts_with("# yaml-language-server: $schema=genomill.schema.json\n"), "{yaml}");
            assert!(yaml.contains(held_out), "{yaml}");
            assert!(Path::new(&scratch.path(output)).with_file_name("genomill.schema.json").exists());
            assert!(stdout(&call(&scratch, &["plan", output])).contains("not made yet"));
            let ran = call(&scratch, &["run", output, "--progress", "none"]);
            assert!(ran.status.success(), "{}: {yaml}", stderr(&ran));
        }
        assert!(scratch.path("work/workflow/shards/manifest.json").exists());
        let again = call(&scratch, &["init", "-o", "workflow.yaml"]);
        assert!(stderr(&again).contains("it exists already"), "{}", stderr(&again));
        assert!(stdout(&call(&scratch, &["init", "-o", "found.yaml"])).contains("found.yaml"));
    }
    let scratch = Scratch::new("");
    let output = call(&scratch, &["init", "-o", "x.yaml"]);
    assert!(
        stderr(&output).contains("no FASTA file is named and none is in this folder"),
        "{}",
        stderr(&output)
    );
    assert!(!scratch.path("x.yaml").exists());
}

/// Bases without order, the same for each seed.
fn bases(seed: u64, length: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"ACGT"[usize::try_from(state >> 62).unwrap()])
    };
    (0..length).map(next).collect()
}

#[test]
fn the_yeast_genome_gets_a_workflow_with_its_own_contigs() {
    let scratch = Scratch::new("");
    let yeast = data("yeast_sacCer3.fa.gz");
    stdout(&call(&scratch, &["init", yeast.to_str().unwrap(), "-o", "yeast.yaml"]));
    let yaml = fs::read_to_string(scratch.path("yeast.yaml")).unwrap();
    assert!(yaml.contains("validation: [chr") && yaml.contains("17 contigs of 12157105 bases"), "{yaml}");
    assert!(stdout(&call(&scratch, &["plan", "yeast.yaml"])).contains("not made yet"));
}

#[test]
fn completions_and_manual_pages_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let text = stdout(&genomill().args(["completions", shell]).output().unwrap());
        assert!(text.contains("export-crate") && text.contains("dry-run"), "{shell}");
    }
    let scratch = Scratch::new("");
    stdout(&call(&scratch, &["man", "--out", "man"]));
    for page in ["genomill.1", "genomill-run.1", "genomill-shards-find.1"] {
        let text = fs::read_to_string(scratch.path("man").join(page)).unwrap();
        assert!(text.contains(".TH "), "{page}");
    }
    assert!(stdout(&call(&scratch, &["man"])).contains("export\\-crate"));
}

#[test]
fn the_doctor_says_what_is_missing() {
    let scratch = Scratch::new("");
    let output = call(&scratch, &["doctor"]);
    let text = stdout(&output);
    for part in ["trainer", "cores", "memory", "work will be made", "locks", "rename", "open files", "locale"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!scratch.path("work").exists());
    fs::write(scratch.path("work"), "no folder").unwrap();
    let limited = format!("ulimit -n 40; {} doctor", env!("CARGO_BIN_EXE_genomill"));
    let output = std::process::Command::new("bash")
        .args(["-c", &limited])
        .current_dir(scratch.path(""))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("MISSING  open files   at most 40"),
        "{output:?}"
    );
    assert!(stderr(&output).contains("that runs need"), "{}", stderr(&output));
}

#[test]
fn two_runs_are_put_side_by_side() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    let compare = |arguments: &[&str]| {
        let mut command = genomill();
        command.current_dir(scratch.path("")).args(["compare", "work/flow"]).args(arguments);
        command.output().unwrap()
    };
    fs::create_dir_all(scratch.path("other")).unwrap();
    let output = compare(&["other"]);
    assert!(
        stderr(&output).contains("`other` holds no artifact, expected the folder"),
        "{}",
        stderr(&output)
    );
    fs::rename(scratch.path("work"), scratch.path("kept")).unwrap();
    scratch.ran(&["--set", "shards.context=32"]);
    fs::rename(scratch.path("work"), scratch.path("wide")).unwrap();
    fs::rename(scratch.path("kept"), scratch.path("work")).unwrap();
    let text = String::from_utf8(compare(&["wide/flow"]).stdout).unwrap();
    let stages: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(stages.len(), 7, "{text}");
    assert!(stages.iter().all(|line| line.ends_with("the same") != line.starts_with("shards")), "{text}");
    assert!(text.contains("  config.context: 64 -> 32 (-50.0 %)"), "{text}");
    assert!(text.contains("  counts.other.rows: "), "{text}");
}
