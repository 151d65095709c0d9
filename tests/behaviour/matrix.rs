//! Matrix sweeps: what is expanded, what is shared, what runs again, and what is refused.

use std::process::Output;

use crate::support::{LAMBDA, Scratch, stderr};

/// Two axes; `split` and what it stands on know neither, `bpe` and `tokens` one, `shards` both.
fn sweep() -> String {
    LAMBDA
        .replace("params: {vocabulary: 96}", "matrix: {vocabulary: [32, 64], context: [16, 64]}")
        .replace("${params.vocabulary}", "${matrix.vocabulary}")
        .replace(
            "context: 64}\n",
            "context: \"${matrix.context}\"}\n  report:  {uses: report, from: [shards]}\n",
        )
}

fn lambda(yaml: &str) -> Scratch {
    let scratch = Scratch::lambda();
    scratch.write(yaml);
    scratch
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

const SHARED: [&str; 4] = ["clean", "raw", "split", "windows"];

/// The expansions of `bpe` and `tokens` at a vocabulary.
fn one_axis(vocabulary: u32) -> Vec<String> {
    ["bpe", "tokens"].map(|stage| format!("{stage}@vocabulary={vocabulary}")).into()
}

fn shards(vocabulary: u32) -> Vec<String> {
    [16, 64].map(|context| format!("shards@context={context},vocabulary={vocabulary}")).into()
}

#[test]
fn stages_are_expanded_over_the_axes_that_they_depend_on() {
    let scratch = lambda(&sweep());
    let shared = SHARED.map(str::to_owned).to_vec();
    let all = [shared, vec!["report".into()], one_axis(32), one_axis(64), shards(32), shards(64)].concat();
    assert_eq!(sorted(scratch.ran(&[])), sorted(all));
    assert_eq!(scratch.ran(&[]), Vec::<String>::new());
    let report = std::fs::read_to_string(scratch.artifact("report/manifest.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["inputs"].as_array().unwrap().len(), 4, "it gathers all");
    let page = std::fs::read_to_string(scratch.artifact("report/report.html")).unwrap();
    assert!(page.contains("<section id=\"vocabularies\">") && page.contains("context=16,vocabulary=64"));
    assert!(page.contains("Encoding, MB") && page.contains("class=\"n top\""));
}

#[test]
fn another_value_leaves_the_others_alone() {
    let scratch = lambda(&sweep());
    scratch.ran(&[]);
    let before = scratch.contents();
    let wider =
        scratch.ran(&["--set", "matrix.vocabulary=[16,32,48,64]", "--set", "bpe.model.bpe.alphabet=acgt"]);
    assert!(wider.contains(&"bpe@vocabulary=32".to_owned()), "its configuration is another");
    scratch.ran(&[]);
    assert_eq!(scratch.contents().len(), before.len() + 2 * (1 + 4) + 2 * 2 * 4, "two values more");
    let ran = scratch.ran(&["--set", "matrix.vocabulary=[64, 128, 32]"]);
    assert_eq!(sorted(ran), sorted([one_axis(128), shards(128), vec!["report".into()]].concat()));
    for (path, hash) in before.iter().filter(|(path, _)| !path.starts_with("report/")) {
        assert_eq!(scratch.contents().get(path), Some(hash), "{path}");
    }
}

#[test]
fn an_expansion_is_what_the_stage_would_be_alone() {
    let (sweep, alone) = (lambda(&sweep()), Scratch::lambda());
    sweep.ran(&["--until", "shards"]);
    alone.ran(&["--set", "params.vocabulary=64"]);
    let (sweep, alone) = (sweep.contents(), alone.contents());
    for stage in ["bpe", "tokens", "shards"] {
        let expanded = if stage == "shards" {
            "shards@context=64,vocabulary=64"
        } else {
            &format!("{stage}@vocabulary=64")
        };
        for (path, hash) in alone.iter().filter(|(path, _)| path.starts_with(&format!("{stage}/"))) {
            assert_eq!(sweep.get(&path.replacen(stage, expanded, 1)), Some(hash), "{path}");
        }
    }
}

#[test]
fn selections_take_a_stage_or_one_expansion() {
    let scratch = lambda(&sweep());
    let until = scratch.ran(&["--until", "tokens@vocabulary=64"]);
    assert_eq!(sorted(until), sorted([SHARED.map(str::to_owned).to_vec(), one_axis(64)].concat()));
    scratch.ran(&["--until", "tokens"]);
    assert_eq!(sorted(scratch.ran(&["--only", "bpe"])), ["bpe@vocabulary=32", "bpe@vocabulary=64"]);
    assert_eq!(scratch.ran(&["--only", "bpe@vocabulary=32"]), ["bpe@vocabulary=32"]);
    scratch.ran(&[]);
    let from = scratch.ran(&["--from", "tokens@vocabulary=32"]);
    assert_eq!(
        sorted(from),
        sorted([vec!["report".into(), "tokens@vocabulary=32".into()], shards(32)].concat())
    );
    assert_eq!(scratch.ran(&["--force", "bpe@vocabulary=64"]), ["bpe@vocabulary=64"]);
    let plan = text(&scratch.command("plan", &["--force", "bpe"]).output().unwrap());
    for line in [
        "bpe@vocabulary=32                tokenizer  runs: --force bpe",
        "shards@context=16,vocabulary=64  shard      runs if input `tokens@vocabulary=64` changed",
        "split                            split      reuse",
    ] {
        assert!(plan.contains(line), "{line}\n{plan}");
    }
    let json = text(&scratch.command("plan", &["--json"]).output().unwrap());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let stage =
        json.as_array().unwrap().iter().find(|stage| stage["stage"] == "tokens@vocabulary=64").unwrap();
    assert_eq!((&stage["base"], &stage["matrix"]["vocabulary"]), (&"tokens".into(), &64.into()));
    let unknown = scratch.run(&["--only", "bpe@vocabulary=65"]);
    assert!(stderr(&unknown).contains("no stage `bpe@vocabulary=65`"), "{}", stderr(&unknown));
    assert!(stderr(&unknown).contains("did you mean `bpe@vocabulary=64`?"), "{}", stderr(&unknown));
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_axis_may_name_stages_which_bring_their_own_axes() {
    let yaml = sweep()
        .replace("[32, 64], context", "[32, 64], by: [bpe, letters], context")
        .replace("tokenizer: bpe}", "tokenizer: \"${matrix.by}\"}")
        .replace("  tokens:", "  letters: {uses: tokenizer, model: nucleotide}\n  tokens:");
    let plan = text(&lambda(&yaml).command("plan", &[]).output().unwrap());
    let tokens: Vec<&str> = plan.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let tokens: Vec<&&str> = tokens.iter().filter(|name| name.starts_with("tokens")).collect();
    assert_eq!(
        tokens,
        [&"tokens@by=bpe,vocabulary=32", &"tokens@by=bpe,vocabulary=64", &"tokens@by=letters"]
    );
}

#[test]
fn one_expansion_can_be_read_by_name() {
    let yaml = sweep().replace("from: [shards]", "from: [\"shards@context=16,vocabulary=32\", bpe]");
    let plan = text(&lambda(&yaml).command("plan", &["--until", "report", "--json"]).output().unwrap());
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let runs = plan.as_array().unwrap().iter().filter(|stage| stage["decision"] == "run").count();
    assert_eq!(
        runs,
        SHARED.len() + 2 + 1 + 1 + 1,
        "both tokenizers, one of tokens and of shards, the report"
    );
}

/// An edit of the sweep, and what the message must say.
const MISTAKES: [(&str, &str, &[&str]); 17] = [
    (
        "${matrix.vocabulary}",
        "${matrix.vocabulry}",
        &[
            "unknown matrix axis `matrix.vocabulry`, expected `matrix.vocabulary`, `matrix.context`",
            "did you mean `${matrix.vocabulary}`?",
            "flow.yaml:9:74",
            "no stage uses the axis `vocabulary`",
            "2 mistakes",
        ],
    ),
    (
        "[32, 64]",
        "[]",
        &["axis `vocabulary` has no values, expected at least one", "flow.yaml:3:10", "a mistake in"],
    ),
    (
        "context: [16, 64]",
        "contxt: [16, 64]",
        &[
            "unknown matrix axis `matrix.context`",
            "did you mean `${matrix.contxt}`?",
            "no stage uses the axis `contxt`",
        ],
    ),
    (
        "context: [16, 64]",
        "context: [16, 64], seed: [1, 2]",
        &["no stage uses the axis `seed`", "write `${matrix.seed}`", "flow.yaml:3:51", "a mistake in"],
    ),
    (
        "[32, 64]",
        "32",
        &[
            "axis `vocabulary`: expected a list of values, found a number",
            "write [32]",
            "flow.yaml:3:22",
            "a mistake in",
        ],
    ),
    ("[32, 64]", "{a: 1}", &["expected a list of values, found a map"]),
    (
        "[32, 64]",
        "[32, 64, 32]",
        &["axis `vocabulary`: the value `32` stands here twice", "flow.yaml:3:31", "a mistake in"],
    ),
    ("[32, 64]", "[a b, a/b]", &["`a/b` and `a b` would both be called `a-b`"]),
    ("[32, 64]", "[32, [64]]", &["expected a number, a text or a boolean, found `[64]`"]),
    (
        "{vocabulary: [32",
        "{voc.ab: [1], vocabulary: [32",
        &["expected an axis of letters, digits, `-` and `_`, found `voc.ab`"],
    ),
    (
        "matrix: {vocabulary: [32, 64], context: [16, 64]}",
        "matrix: [32, 64]",
        &["`matrix` is a map from axes to lists of values, found a list"],
    ),
    ("[32, 64]", "[3, 64]", &["`model` of stage `bpe`: ", "expected 23", "(vocabulary=3)", "a mistake in"]),
    ("[32, 64]", "[many, few]", &["expected u32, found string \"many\" (vocabulary=many)", "2 mistakes"]),
    ("context: \"", "contxt: \"", &["unknown key `contxt`", "did you mean `context`?", "a mistake in"]),
    (
        "  report:",
        "  bpe@vocabulary=32: {uses: tokenizer, model: nucleotide}\n  report:",
        &["found `bpe@vocabulary=32`", "`@` stands between a stage and its matrix values"],
    ),
    (
        "  report:",
        "  matrix:",
        &["a stage cannot be called `matrix`", "`--set matrix.key=value` would name both"],
    ),
    (
        "from: [shards]",
        "from: [\"shards@context=16,vocabulary=33\"]",
        &[
            "reads from `shards@context=16,vocabulary=33`, which is not there",
            "did you mean `shards@context=16,vocabulary=32`?",
        ],
    ),
];

#[test]
fn mistakes_are_named_with_their_place() {
    let mut wrong = Vec::new();
    for (good, bad, expected) in MISTAKES {
        assert!(sweep().contains(good), "{good}");
        let output = Scratch::new(&sweep().replacen(good, bad, 1)).run(&[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{bad}: {message}");
        let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let missing = expected.iter().filter(|part| !words.contains(**part));
        wrong.extend(missing.map(|part| format!("{bad}: expected {part}\n{message}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_of_the_command_line_are_blamed_on_it() {
    for (set, expected) in [
        ("matrix.vocabulary=32", "--set, axis `vocabulary`: expected a list of values, found `32`"),
        ("matrix.vocabulary=[]", "axis `vocabulary` has no values"),
        ("matrix.vocabulary=[8,8]", "the value `8` stands here twice"),
        ("matrix.vocabulry=[32]", "no stage uses the axis `vocabulry`"),
    ] {
        let message = stderr(&lambda(&sweep()).run(&["--set", set]));
        assert!(message.contains(expected), "{set}: {message}");
    }
}

#[test]
fn names_too_long_for_a_folder_are_refused() {
    let long = format!("[{}]", "a".repeat(230));
    let yaml = LAMBDA.replace("params:", &format!("matrix: {{file: {long}}}\nparams:"));
    let yaml = yaml.replace("bpe: {vocabulary_size: \"${params.vocabulary}\"}", "file: \"${matrix.file}\"");
    let message = stderr(&Scratch::new(&yaml).run(&[]));
    assert!(message.contains("bytes, expected at most 200"), "{message}");
}
