//! What a workflow says beside its stages' own configuration: conditions, tags, resources, the environment, other files.

use crate::support::{LAMBDA, Scratch, stderr};

const ALL: [&str; 7] = ["bpe", "clean", "raw", "shards", "split", "tokens", "windows"];

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// The lambda workflow with an edit, and lambda beside it.
fn lambda(good: &str, other: &str) -> Scratch {
    assert!(LAMBDA.contains(good), "{good}");
    let scratch = Scratch::lambda();
    scratch.write(&LAMBDA.replacen(good, other, 1));
    scratch
}

/// Stages that are not left out, and those that are with the reason; of a plan.
fn planned(scratch: &Scratch, arguments: &[&str]) -> (Vec<String>, Vec<(String, String)>) {
    let plan = scratch.plan(arguments);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (out, kept): (Vec<_>, Vec<_>) =
        plan.as_array().unwrap().iter().partition(|stage| stage["decision"] == "left_out");
    let kept = kept.into_iter().map(|stage| text(&stage["stage"])).collect();
    (sorted(kept), out.into_iter().map(|stage| (text(&stage["stage"]), text(&stage["reason"]))).collect())
}

#[test]
fn a_condition_leaves_out_the_stage_and_what_needs_it() {
    let bpe = |when: &str| format!("uses: tokenizer, when: {when}, from");
    let because = |reason: &str| {
        let needs = |stage: &str| format!("it needs `{stage}`, which is left out");
        vec![
            ("bpe".to_owned(), reason.to_owned()),
            ("tokens".to_owned(), needs("bpe")),
            ("shards".to_owned(), needs("tokens")),
        ]
    };
    for (when, set, expected) in [
        ("true", "", ""),
        ("false", "", "`when` is false"),
        ("\"${params.on}\"", "params.on=true", ""),
        ("\"${params.on}\"", "params.on=false", "`when: ${params.on}` (false) is false"),
        ("\"${params.on} == yeast\"", "params.on=yeast", ""),
        (
            "\"${params.on} == yeast and ${params.vocabulary} < 100\"",
            "params.on=human",
            "`when: ${params.on} == yeast and ${params.vocabulary} < 100` (human == yeast and 96 < 100) is false",
        ),
        ("\"not ${params.on}\"", "params.on=false", ""),
        ("true", "bpe.when=false", "`when` is false"),
    ] {
        let scratch = lambda("uses: tokenizer, from", &bpe(when));
        let set = if set.is_empty() { "params.x=1" } else { set };
        let (kept, out) = planned(&scratch, &["--set", set]);
        let expected = if expected.is_empty() { Vec::new() } else { because(expected) };
        assert_eq!(kept.len(), 7 - expected.len(), "{when} {set}");
        assert_eq!(out, expected, "{when} {set}");
    }
}

#[test]
fn a_run_says_what_is_left_out_and_a_gathering_stage_gathers_less() {
    let yaml = LAMBDA
        .replace("params: {vocabulary: 96}", "params: {on: true}\nmatrix: {vocabulary: [32, 64, 96]}")
        .replace(
            "\"${params.vocabulary}\"}}}",
            "\"${matrix.vocabulary}\"}}, when: \"${matrix.vocabulary} < 96\"}",
        )
        + "  report:  {uses: report, from: [shards, split]}\n  page: {uses: report, from: [shards], when: \"${params.on}\"}\n";
    let scratch = Scratch::lambda();
    scratch.write(&yaml);
    let output = scratch.run(&["--progress", "plain"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    for line in [
        "bpe@vocabulary=96: left out: `when: ${matrix.vocabulary} < 96` (96 < 96) is false",
        "shards@vocabulary=96: left out: it needs `tokens@vocabulary=96`, which is left out",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let inputs = |stage: &str| {
        let manifest = std::fs::read(scratch.artifact(stage).join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        manifest["inputs"].as_array().unwrap().len()
    };
    assert_eq!((inputs("report"), inputs("page")), (3, 2));
    let ran = scratch.ran(&["--set", "bpe.when=${matrix.vocabulary} == 32"]);
    assert_eq!(sorted(ran), ["page", "report"]);
    assert_eq!((inputs("report"), inputs("page")), (2, 1));
    let (_, out) = planned(&scratch, &["--set", "bpe.when=false"]);
    assert!(out.contains(&("page".to_owned(), "all that it gathers is left out".to_owned())), "{out:?}");
    let output = scratch.run(&["--only", "bpe", "--set", "bpe.when=false"]);
    assert!(
        stderr(&output).contains("stage `bpe@vocabulary=32` is left out: `when` is false"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn tags_select_stages() {
    let scratch = Scratch::lambda();
    scratch.write(
        &LAMBDA
            .replace("uses: tokenize, ", "uses: tokenize, tags: [ids, late], ")
            .replace("uses: tokenizer, ", "uses: tokenizer, tags: [ids], "),
    );
    for (arguments, expected) in [
        (&["--until", "tag:ids"][..], &["bpe", "clean", "raw", "split", "tokens", "windows"][..]),
        (&[], &["shards"]),
        (&["--only", "tag:ids"], &["bpe", "tokens"]),
        (&["--from", "tag:late"], &["shards", "tokens"]),
        (&["--force", "tag:late", "--force", "raw"], &["raw", "tokens"]),
    ] {
        assert_eq!(sorted(scratch.ran(arguments)), expected, "{arguments:?}");
    }
    let message = stderr(&scratch.run(&["--only", "tag:late", "--set", "tokens.when=false"]));
    assert!(message.contains("stage `tokens` is left out: `when` is false"), "{message}");
    let message = stderr(&scratch.run(&["--only", "tag:lste"]));
    assert!(
        message.contains("no stage has the tag `lste` in `flow.yaml`; did you mean `tag:late`?"),
        "{message}"
    );
}

#[test]
fn what_the_engine_reads_is_no_part_of_the_result() {
    let scratch = Scratch::lambda();
    assert_eq!(sorted(scratch.ran(&[])), ALL);
    let plain = scratch.contents();
    let keys = "uses: tokenize, resources: {threads: 1, memory: 2GB, gpus: 0, time: 1h 30min}, retries: 2, tags: [a]";
    scratch.write(&LAMBDA.replace("uses: tokenize,", &format!("{keys},")));
    assert_eq!(scratch.ran(&[]), Vec::<String>::new());
    assert_eq!(scratch.ran(&["--only", "tokens"]), ["tokens"]);
    assert_eq!(scratch.contents(), plain);
}

#[test]
fn declared_variables_of_the_environment_are_read() {
    let yaml = LAMBDA
        .replace("params: {", "env: {LAMBDA: lambda, CONTEXT: 64}\nparams: {file: \"${env.LAMBDA}.fa.gz\", ")
        .replace("lambda.fa.gz}]", "\"${params.file}\"}]")
        .replace("context: 64", "context: \"${env.CONTEXT}\"");
    let scratch = Scratch::lambda();
    std::fs::copy(scratch.path("lambda.fa.gz"), scratch.path("elsewhere.fa.gz")).unwrap();
    scratch.write(&yaml);
    assert_eq!(scratch.ran(&[]).len(), 7);
    for (name, value, expected) in [
        ("CONTEXT", "64", &[][..]),
        ("CONTEXT", "32", &["shards"][..]),
        ("OTHER", "1", &["shards"]),
        ("LAMBDA", "elsewhere", &ALL),
    ] {
        let output = scratch.command("run", &["--progress", "json"]).env(name, value).output().unwrap();
        let started = stderr(&output).lines().filter(|line| line.contains("stage_started")).count();
        assert!(output.status.success() && started == expected.len(), "{name}={value}: {}", stderr(&output));
    }
}

/// A file, what it holds; and what must run.
#[test]
fn included_files_count_as_if_they_stood_there() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    let (head, tail) = LAMBDA.split_once("  windows:").unwrap();
    let genome = head.replace("params: {vocabulary: 96}", "").replace("name: flow", "name: alone");
    // The stages move to a folder of their own, and their file with them.
    scratch.file("parts/genome.yaml", &genome);
    scratch.file("parts/values.yaml", "params: {vocabulary: 96}\n");
    scratch.file("parts/all.yaml", "include: [genome.yaml, values.yaml]\n");
    std::fs::rename(scratch.path("lambda.fa.gz"), scratch.path("parts/lambda.fa.gz")).unwrap();
    scratch.write(&format!(
        "name: flow\ninclude: [parts/all.yaml, parts/values.yaml]\nstages:\n  windows:{tail}"
    ));
    assert_eq!(scratch.ran(&[]), Vec::<String>::new());
    std::fs::rename(scratch.path("parts"), scratch.path("moved")).unwrap();
    scratch.write(&format!("name: flow\ninclude: [moved/all.yaml]\nstages:\n  windows:{tail}"));
    assert_eq!(scratch.ran(&[]), Vec::<String>::new());
    scratch.file("moved/values.yaml", "params: {vocabulary: 64}\n");
    assert_eq!(sorted(scratch.ran(&[])), ["bpe", "shards", "tokens"]);
    scratch.file("moved/lambda.fa.gz", ">lambda\nACGT\n");
    assert!(stderr(&scratch.run(&[])).contains("raw: runs: file changed: lambda.fa.gz"));
}

/// An edit of the lambda workflow, and what the message must say; `part.yaml` has parameters, `wrong.yaml` mistakes.
const MISTAKES: [(&str, &str, &[&str]); 28] = [
    (
        "uses: clean,",
        "uses: clean, resources: {thread: 1},",
        &["unknown key `thread`", "did you mean `threads`?", "flow.yaml:6:38"],
    ),
    (
        "uses: clean,",
        "uses: clean, resources: {threads: 0},",
        &[
            "`resources.threads` of stage `clean`: expected a nonzero u32, found integer `0`",
            "flow.yaml:6:47",
        ],
    ),
    (
        "uses: clean,",
        "uses: clean, resources: {memory: much},",
        &["`resources.memory` of stage `clean`: expected bytes such as", "found `much`", "flow.yaml:6:46"],
    ),
    (
        "uses: clean,",
        "uses: clean, resources: {time: 2 weeks},",
        &["expected a time such as `90 s`, `30 min`, `2h` or `1d 12h`, found `2"],
    ),
    (
        "uses: clean,",
        "uses: clean, retries: -1,",
        &["`retries` of stage `clean`: expected u32", "flow.yaml:6:35"],
    ),
    (
        "uses: clean,",
        "uses: clean, tags: [a, b c],",
        &["`tags[1]` of stage `clean`: expected a tag of letters"],
    ),
    ("uses: clean,", "uses: clean, tag: [a],", &["unknown key `tag`"]),
    (
        "uses: clean,",
        "uses: clean, when: \"${params.vocab} == 1\",",
        &["unknown parameter `params.vocab`", "did you mean `${params.vocabulary}`?", "flow.yaml:6:32"],
    ),
    (
        "uses: clean,",
        "uses: clean, when: yeast,",
        &["`when` of stage `clean`: expected true, false or a comparison such as", "found `yeast`"],
    ),
    ("uses: clean,", "uses: clean, when: \"yeast < 5\",", &["`<` compares numbers, found `yeast`"]),
    (
        "uses: clean,",
        "uses: clean, when: [1],",
        &["`when` of stage `clean`: expected a boolean or a text, found `[1]`"],
    ),
    (
        "params:",
        "env: [GENOMILL_TEST_DATA]\nparams:",
        &[
            "the environment variable `GENOMILL_TEST_DATA` is not set, and has no default",
            "flow.yaml:3:7",
            "a mistake in",
        ],
    ),
    ("fasta: lambda", "fasta: \"${env.DATA}/lambda", &["did you mean"]),
    ("params:", "env: {DATA: [1]}\nparams:", &["`env.DATA`: expected a default, found a list"]),
    ("params:", "env: [A-B]\nparams:", &["expected a variable of letters, digits and `_`, found `A-B`"]),
    (
        "params:",
        "env: 7\nparams:",
        &["`env` is a list of names, or a map from names to defaults, found a number"],
    ),
    (
        "params: {",
        "params: {a: \"${params.vocabulary}\", ",
        &["unknown parameter `params.vocabulary`, expected none"],
    ),
    (
        "params:",
        "include: other.yaml\nparams:",
        &["`include` is a list of files, found a text", "write [other.yaml]"],
    ),
    (
        "params:",
        "include: [other.yaml]\nparams:",
        &["cannot read `other.yaml`: no such file or directory", "flow.yaml:3:11"],
    ),
    (
        "params:",
        "include: [part.yaml]\nparams:",
        &["`params.vocabulary` is defined twice: here and at part.yaml:2:3", "flow.yaml:4:10"],
    ),
    (
        "params: {vocabulary: 96}",
        "include: [part.yaml]\nmatrix: {a: [1]}",
        &["no stage uses the axis `a`", "a mistake in"],
    ),
    (
        "params:",
        "include: [wrong.yaml]\nparams:",
        &["unknown key `contxt`", "[wrong.yaml:3:37]", "unknown key `stags`", "[wrong.yaml:4:1]"],
    ),
    ("params:", "include: [broken.yaml]\nparams:", &["[broken.yaml:"]),
    (
        "params:",
        "include: [list.yaml]\nparams:",
        &["expected a map with `params`, `matrix` or `stages`, found a list"],
    ),
    (
        "params:",
        "include: [circle.yaml]\nparams:",
        &[
            "files include each other in a circle: `flow.yaml`, `circle.yaml`, `flow.yaml`",
            "circle.yaml:1:11",
        ],
    ),
    (
        "params:",
        "include: [flow.yaml]\nparams:",
        &["files include each other in a circle: `flow.yaml`, `flow.yaml`"],
    ),
    ("params:", "include: [7]\nparams:", &["expected a file to include, found a number"]),
    ("params:", "inclde: [part.yaml]\nparams:", &["unknown key `inclde`", "did you mean `include`?"]),
];

#[test]
fn mistakes_are_named_with_their_place() {
    let mut wrong = Vec::new();
    for (good, bad, expected) in MISTAKES {
        assert!(LAMBDA.contains(good), "{good}");
        let mut yaml = LAMBDA.replacen(good, bad, 1);
        let mut expected = expected.to_vec();
        if bad.contains("${env.DATA}") {
            yaml = yaml.replace(".fa.gz}]", ".fa.gz\"}]").replace("params:", "env: {DATE: x}\nparams:");
            expected = vec![
                "undeclared environment variable `env.DATA`, expected `env.DATE`",
                "did you mean `${env.DATE}`?",
                "flow.yaml:6:45",
            ];
        }
        let scratch = Scratch::new(&yaml);
        scratch.file("part.yaml", "params:\n  vocabulary: 96\n");
        scratch.file(
            "wrong.yaml",
            "# wrong\nstages:\n  more: {uses: shard, from: tokens, contxt: 64}\nstags: {}\n",
        );
        scratch.file("broken.yaml", "stages: [1, 2\n");
        scratch.file("list.yaml", "[1]\n");
        scratch.file("circle.yaml", "include: [flow.yaml]\n");
        let output = scratch.run(&[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{bad}: {message}");
        let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let missing = expected.iter().filter(|part| !words.contains(**part));
        wrong.extend(missing.map(|part| format!("{bad}: expected {part}\n{message}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
