//! Mistakes in workflow files: what, where, and what was probably meant.

use crate::support::{LAMBDA, Scratch, data, genomill, root, stderr};

/// An edit of a good workflow, and what the message must say.
const MISTAKES: [(&str, &str, &[&str]); 16] = [
    ("context: 64", "contxt: 64", &["unknown key `contxt`", "did you mean `context`?", "flow.yaml:11:40"]),
    (
        "uses: clean",
        "uses: cleen",
        &["no stage is called `cleen`", "did you mean `clean`?", "flow.yaml:6:19"],
    ),
    ("uses: clean, ", "", &["stage `clean` does not say what it `uses`"]),
    (
        "from: tokens",
        "from: tokns",
        &[
            "stage `shards` reads from `tokns`, which is not there",
            "did you mean `tokens`?",
            "flow.yaml:11:32",
        ],
    ),
    (
        "from: raw",
        "from: shards",
        &["stages read from each other in a circle: `clean`, `split`, `windows`, `bpe`, `tokens`, `shards`"],
    ),
    (
        "window: 1000",
        "window: many",
        &["`window` of stage `windows`: expected u64, found string \"many\"", "flow.yaml:8:47"],
    ),
    ("window: 1000", "window: -3", &["expected u64, found integer `-3`"]),
    ("window: 1000", "window: 0", &["`window` of stage `windows`: is 0, expected at least 1 base"]),
    (
        "${params.vocabulary}",
        "${params.vocab}",
        &["unknown parameter `params.vocab`", "did you mean `${params.vocabulary}`?"],
    ),
    ("vocabulary: 96", "vocabulary: 3", &["`model` of stage `bpe`", "expected 23"]),
    (
        "vocabulary: 96",
        "vocabulary: [1]",
        &["`model.bpe.vocabulary_size` of stage `bpe`: expected u32, found sequence"],
    ),
    ("params:", "parms:", &["unknown key `parms` in the workflow", "did you mean `params`?"]),
    ("name: flow", "name: a/b", &["expected a name of letters, digits, `-`, `_` and `.`, found `a/b`"]),
    ("{fasta: lambda.fa.gz}", "{fasta: a, bam: b}", &["source 1 needs one of `fasta`, `fastq`, `bam`"]),
    ("shards:  {", "tokens:  {", &["key `tokens` stands here twice"]),
    ("context: 64}", "context: 64", &["flow.yaml:"]),
];

#[test]
fn mistakes_are_named_with_their_place() {
    let mut wrong = Vec::new();
    for (good, bad, expected) in MISTAKES {
        assert!(LAMBDA.contains(good), "{good}");
        let scratch = Scratch::new(&LAMBDA.replacen(good, bad, 1));
        let output = scratch.run(&[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{bad}: {message}");
        let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let missing = expected
            .iter()
            .filter(|part| !words.contains(**part))
            .map(|part| format!("{bad}: expected {part}\n{message}"));
        wrong.extend(missing);
        assert!(!scratch.path("work").exists(), "{bad} left a work folder");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_mistakes_of_a_file_come_at_once() {
    let yaml = LAMBDA
        .replace("context: 64", "contxt: 64")
        .replace("window: 1000", "window: ten")
        .replace("from: raw", "from: row");
    let output = Scratch::new(&yaml).run(&[]);
    let message = stderr(&output);
    for part in ["contxt", "ten", "`row`", "mistakes in workflow `flow.yaml`"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let scratch = Scratch::new(LAMBDA);
    let output = scratch.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot read `./lambda.fa.gz`: no such file or directory")
            || stderr(&output).contains("lambda.fa.gz`: no such file"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_value_from_the_command_line_is_blamed_on_the_command_line() {
    let output = Scratch::lambda().run(&["--set", "windows.window=ten"]);
    let message = stderr(&output);
    assert!(
        message.contains("--set, `window` of stage `windows`: expected u64, found string \"ten\""),
        "{message}"
    );
    let output = Scratch::lambda().run(&["--set", "window.stride=3"]);
    assert!(stderr(&output).contains("did you mean `windows`?"), "{}", stderr(&output));
}

/// The genomes that have to be fetched, as small stand-ins.
const GENOMES: [&str; 6] = ["ecoli", "mtb", "yeast", "maydis", "arabidopsis", "human"];

#[test]
fn every_workflow_that_ships_can_be_planned() {
    let genomes = tempfile::tempdir().unwrap();
    for name in GENOMES {
        std::fs::copy(data("phage_lambda.fa.gz"), genomes.path().join(format!("{name}.fa.gz"))).unwrap();
    }
    let folder = root().join("workflows");
    let mut planned = 0;
    for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if path.extension().is_none_or(|extension| extension != "yaml") || !text.contains("\nstages:") {
            continue;
        }
        let work = tempfile::tempdir().unwrap();
        let mut command = genomill();
        command.arg("plan").arg(&path).arg("--json").arg("--work").arg(work.path());
        if text.contains("params.genomes") {
            command.arg("--set").arg(format!("params.genomes={}", genomes.path().display()));
        }
        if text.contains("params.tasks") {
            command.arg("--set").arg(format!("params.tasks={}", folder.join("tasks.yaml").display()));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), stderr(&output));
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let stages = plan.as_array().unwrap();
        assert!(stages.iter().all(|stage| stage["decision"] == "run"), "{}", path.display());
        let cells =
            stages.iter().filter(|stage| stage["stage"].as_str().unwrap().starts_with("model@")).count();
        match path.file_stem().unwrap().to_str().unwrap() {
            "tuning" => assert_eq!(cells, 6 * 2),
            "tuning-gpu" => assert_eq!(cells, 7 * 3 * 3 * 2),
            _ => assert_eq!(cells, 0, "{}", path.display()),
        }
        planned += 1;
    }
    assert!(planned >= 9, "{planned} workflows");
}
