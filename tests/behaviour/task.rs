//! Tasks looked at from outside: the layouts of Genomic Benchmarks and GUE, and files of tasks.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::{Scratch, genomill, root, stderr};

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

const HEADER: &str = "id,region,start,end,strand\n";

/// A folder of Genomic Benchmarks with one copy, one overlap, and lengths that tell the classes apart.
fn benchmark(folder: &Path) {
    write(
        folder,
        "set/metadata.yaml",
        "version: 0\nclasses:\n  negative: {type: fa.gz}\n  positive: {type: fa.gz}\n",
    );
    let rows = |rows: &[(u64, u64)]| {
        let rows = rows.iter().enumerate().map(|(id, (start, end))| format!("{id},chrA,{start},{end},+\n"));
        format!("{HEADER}{}", rows.collect::<String>())
    };
    write(folder, "set/train/negative.csv", &rows(&[(0, 40), (100, 140), (200, 240)]));
    write(folder, "set/train/positive.csv", &rows(&[(300, 350), (400, 450), (500, 550)]));
    write(folder, "set/test/negative.csv", &rows(&[(100, 140), (620, 660)]));
    write(folder, "set/test/positive.csv", &rows(&[(410, 460), (700, 750)]));
}

fn audit(folder: &Path, arguments: &[&str]) -> Output {
    genomill().args(["task", "audit"]).args(arguments).current_dir(folder).output().unwrap()
}

#[test]
fn an_audit_names_what_makes_a_score_mean_little() {
    let folder = tempfile::tempdir().unwrap();
    benchmark(folder.path());
    let output = audit(folder.path(), &["set"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for expected in [
        "set (version 1)",
        "train               6 examples of 40 to 50 bases, median 40: negative 3, positive 3",
        "! 1 of 4 test examples are copies of training examples: 1 of 2 `negative` (50.0 %)",
        "! 1 of 2 `positive` of the test set (50.0 %) lie on training examples, 1 of them on one of their class and strand, the median by 80.0 % of its bases",
        "length               100.0 %, MCC 1.000   100.0 %, MCC 1.000",
        "clean test examples: negative 1, positive 1",
    ] {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
    let output = audit(folder.path(), &["set", "--json"]);
    let audits: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(audits[0]["copies"][0]["copies"], 1);
    assert_eq!(audits[0]["near"], Value::Null);
}

#[test]
fn an_audit_is_a_stage_whose_findings_stand_in_the_report() {
    let scratch = Scratch::new(
        "name: flow\nstages:\n  audit: {uses: audit, tasks: tasks.yaml}\n  report: {uses: report, from: [audit]}\n",
    );
    benchmark(&scratch.path(""));
    scratch.file("tasks.yaml", "tasks:\n  places: {version: 1, genomic_benchmarks: set}\n");
    assert_eq!(scratch.ran(&[]), ["audit", "report"]);
    let audits = std::fs::read(scratch.artifact("audit").join("audits.json")).unwrap();
    let audits: Value = serde_json::from_slice(&audits).unwrap();
    assert_eq!((&audits[0]["task"], &audits[0]["copies"][0]["copies"]), (&"places".into(), &1.into()));
    let page = std::fs::read_to_string(scratch.artifact("report").join("report.html")).unwrap();
    for expected in ["1 of 4 test examples are copies of training examples", "100.0 %, MCC 1.000"] {
        assert!(page.contains(expected), "no `{expected}` in\n{page}");
    }
    assert_eq!(scratch.ran(&[]), Vec::<String>::new());
    scratch.file("set/test/negative.csv", &format!("{HEADER}0,chrA,800,840,+\n"));
    assert_eq!(scratch.ran(&[]), ["audit", "report"]);
    scratch.file("tasks.yaml", "tasks:\n  places: {version: 1, genomic_benchmarks: sat}\n");
    let output = scratch.run(&[]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("sat"), "{}", stderr(&output));
    std::fs::remove_file(scratch.path("tasks.yaml")).unwrap();
    let said = stderr(&scratch.run(&[]));
    assert!(said.contains("tasks.yaml`: No such file"), "{said}");
}

#[test]
fn with_a_reference_the_bases_are_looked_at_and_clean_examples_are_a_test_set() {
    let folder = tempfile::tempdir().unwrap();
    benchmark(folder.path());
    let bases: String =
        (0..900_u64).map(|i| b"ACGT"[((i * i * 2_654_435_761) >> 17) as usize % 4] as char).collect();
    write(folder.path(), "genome.fa", &format!(">A\n{bases}\n"));
    let output = audit(folder.path(), &["set", "--reference", "genome.fa", "--clean", "kept", "--json"]);
    let audits: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(audits[0]["baselines"].as_array().unwrap().len(), 5, "{audits}");
    let clean = std::fs::read_to_string(folder.path().join("kept/set.test.csv")).unwrap();
    let expected = format!(
        "region,start,end,strand,label,sequence\nchrA,620,660,+,negative,{}\nchrA,700,750,+,positive,{}\n",
        &bases[620..660],
        &bases[700..750]
    );
    assert_eq!(clean, expected);
    write(
        folder.path(),
        "tasks.yaml",
        "tasks:\n  again: {version: 2, csv: {train: kept/set.test.csv, test: kept/set.test.csv}}\n",
    );
    let output = audit(folder.path(), &["tasks.yaml"]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("again (version 2)"), "{}", stderr(&output));
}

#[test]
fn what_cannot_be_audited_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    benchmark(folder.path());
    write(folder.path(), "set/test/positive.csv", &format!("{HEADER}0,chrA,9,4,+\n"));
    write(folder.path(), "typo.yaml", "tasks:\n  a: {version: 1, geu: x}\n");
    write(folder.path(), "short.fa", ">A\nACGT\n");
    write(folder.path(), "empty/readme", "");
    for (arguments, expected) in [
        (
            &["set"][..],
            "error: cannot read `set/test/positive.csv`, line 2: found an interval from 9 to 4, expected an end above the start",
        ),
        (&["typo.yaml"], "unknown field `geu`"),
        (&["empty"], "error: `empty` is no task: found neither `metadata.yaml`"),
        (&["nowhere"], "error: cannot read `nowhere`"),
    ] {
        let output = audit(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "{} instead of {expected}", stderr(&output));
    }
    benchmark(folder.path());
    let output = audit(folder.path(), &["set", "--reference", "short.fa"]);
    assert!(
        stderr(&output).contains("found an interval to 40, but `chrA` has 4 bases"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_tasks_that_come_with_genomill_can_be_audited() {
    let output = genomill()
        .args(["task", "audit", "workflows/tasks.yaml", "--json"])
        .current_dir(root())
        .output()
        .unwrap();
    let audits: Value = serde_json::from_slice(&output.stdout).map_err(|_| stderr(&output)).unwrap();
    assert_eq!((&audits[0]["task"], &audits[0]["near"]["examples"]), (&"tf-0".into(), &34.into()));
    let coding = &audits[1];
    assert_eq!(coding["classes"], serde_json::json!(["background", "site"]));
    let test = coding["parts"][2]["by_class"].as_array().unwrap();
    assert!(test[0] == test[1] && test[0].as_u64().unwrap() > 300, "{coding}");
}

#[test]
fn published_scores_come_with_their_sources() {
    let run = |name: &str| genomill().args(["task", "published", name]).output().unwrap();
    let text = String::from_utf8(run("tf-0").stdout).unwrap();
    assert!(
        text.starts_with(
            "tf-0                              DNABERT-2                               mcc        0.7199"
        ),
        "{text}"
    );
    for expected in ["gue-secondary: ", "(not from who ran the models)", "not comparable"] {
        assert!(text.contains(expected), "{text}");
    }
    let output = run("tf0");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no published score of a task `tf0` is known; did you mean `tf-0`?"),
        "{}",
        stderr(&output)
    );
}
