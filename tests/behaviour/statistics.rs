//! What sources and splits are made of, in manifests and in the report; figures are those of a naive count in Python.

use serde_json::{Value, json};

use crate::support::{Scratch, data};

fn manifest(scratch: &Scratch, stage: &str) -> Value {
    let path = scratch.artifact(&format!("{stage}/manifest.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The bins of the share of G and C that hold bases.
fn filled(statistics: &Value) -> Vec<(usize, u64)> {
    let bins = statistics["gc_windows"].as_array().unwrap().iter();
    let bins = bins.map(|bases| bases.as_u64().unwrap()).enumerate();
    bins.filter(|(_, bases)| *bases > 0).collect()
}

/// Refuses statistics that differ in a key.
fn assert_has(statistics: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&statistics[key], value, "{key} of {statistics}");
    }
}

const FLOW: &str = "
name: flow
stages:
  raw:     {uses: ingest, sources: [{fasta: one.fa}, {fasta: two.fa}]}
  clean:   {uses: clean, from: raw, iupac: keep, n_run: 10}
  unique:  {uses: dedup, from: clean}
  split:   {uses: split, from: unique, validation: [d], exclude: [e]}
  overlap: {uses: leaks, from: split, k: 21}
  windows: {uses: chunk, from: split, window: 1000, tail: drop}
  report:  {uses: report, from: [windows, overlap]}
";

fn small() -> Scratch {
    let scratch = Scratch::new(FLOW);
    let mixed = ["acgt".repeat(250), "GC".repeat(500), "N".repeat(40), "RY".repeat(5), "AT".repeat(225)];
    let (mixed, poor) = (mixed.concat(), "AT".repeat(300));
    std::fs::write(scratch.path("one.fa"), format!(">a\n{mixed}\n>b\n{poor}\n>c\n{poor}\n")).unwrap();
    let (even, rich) = ("AAACCCGT".repeat(100), "C".repeat(300));
    std::fs::write(scratch.path("two.fa"), format!(">d\n{even}\n>e\n{rich}\n")).unwrap();
    scratch.ran(&[]);
    scratch
}

#[test]
fn sources_and_splits_are_counted() {
    let scratch = small();
    let sources = manifest(&scratch, "raw")["details"]["sources"].take();
    assert_has(
        &sources[0],
        &json!({
            "records": 3, "bases": 3700, "longest": 2500, "n50": 2500, "gc_bases": 1500, "acgt_bases": 3650,
            "soft_masked": 1000, "n": 40, "codes": {"R": 5, "Y": 5}, "lengths": [[512, 768, 2], [2048, 3072, 1]],
            "ambiguous": 50,
        }),
    );
    assert_eq!(filled(&sources[0]), [(0, 1650), (25, 1000), (49, 1000)]);
    assert_has(&sources[1], &json!({"records": 2, "bases": 1100, "n50": 800, "soft_masked": 0, "codes": {}}));
    let splits = manifest(&scratch, "split")["details"]["splits"].take();
    assert_has(
        &splits["train"],
        &json!({
            "contigs": ["a", "b"], "intervals": 3, "records": 2, "bases": 3060, "longest": 2460, "n50": 2460,
            "gc_bases": 1500, "acgt_bases": 3050, "soft_masked": 1000, "n": 0, "codes": {"R": 5, "Y": 5},
            "lengths": [[512, 768, 1], [2048, 3072, 1]],
        }),
    );
    assert_eq!(filled(&splits["train"]), [(0, 1050), (25, 1000), (49, 1000)]);
    assert_eq!(filled(&splits["validation"]), [(25, 800)]);
}

#[test]
fn accounts_are_kept_source_by_source_and_split_by_split() {
    let scratch = small();
    let account = |stage: &str, by: &str, name: &str| manifest(&scratch, stage)["counts"][by][name].take();
    for (stage, by, name, expected) in [
        ("raw", "by_source", "one", json!({"bases_in": 3700, "bases_out": 3700})),
        ("clean", "by_source", "one", json!({"bases_in": 3700, "bases_out": 3660, "dropped": {"n_run": 40}})),
        (
            "unique",
            "by_source",
            "one",
            json!({"bases_in": 3660, "bases_out": 3060, "dropped": {"exact duplicate": 600}}),
        ),
        (
            "split",
            "by_source",
            "two",
            json!({"bases_in": 1100, "bases_out": 800, "dropped": {"excluded contig": 300}}),
        ),
        (
            "windows",
            "by_split",
            "train",
            json!({"bases_in": 3060, "bases_out": 2000, "dropped": {"tail shorter than the window": 1060}}),
        ),
    ] {
        assert_eq!(account(stage, by, name), expected, "{stage} {name}");
    }
}

#[test]
fn the_report_shows_what_manifests_count() {
    let scratch = small();
    let text = std::fs::read(scratch.artifact("report/data.json")).unwrap();
    let report: Value = serde_json::from_slice(&text).unwrap();
    let names: Vec<String> =
        report["sequences"].as_array().unwrap().iter().map(|of| of["name"].to_string()).collect();
    assert_eq!(names.join(" "), r#""one" "two" "train" "validation""#);
    assert_eq!(
        report["sequences"][0]["duplicates"],
        json!([{"stage": "unique", "unit": "intervals", "compared": 4, "exact": 1, "near": 0}])
    );
    assert_eq!(
        report["sequences"][3]["shared"],
        json!([{"stage": "overlap", "within": "train", "windows": 1, "shared": 0}])
    );
    let page = std::fs::read_to_string(scratch.artifact("report/report.html")).unwrap();
    for text in [
        "<td class=\"key\">source one</td>",
        "title=\"R 5, Y 5\"",
        "unique: 1 exact and 0 near duplicates of 4 intervals",
        "Split train: G and C by window.",
        "exact duplicate: 600",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn statistics_of_yeast_are_those_of_a_naive_count() {
    let scratch = Scratch::new(&format!(
        "name: flow\nstages:\n  raw: {{uses: ingest, sources: [{{fasta: {}}}]}}\n  clean: {{uses: clean, from: raw}}\n  split: {{uses: split, from: clean, validation: [chrXV], test: [chrXVI]}}\n",
        data("yeast_sacCer3.fa.gz").display()
    ));
    scratch.ran(&[]);
    let source = manifest(&scratch, "raw")["details"]["sources"][0].take();
    let splits = manifest(&scratch, "split")["details"]["splits"].take();
    for (statistics, records, bases, n50, gc, window) in [
        (&source, 17, 12_157_105, 924_431, 4_637_676, 3_016_000),
        (&splits["train"], 15, 10_117_748, 813_184, 3_860_361, 2_472_000),
        (&splits["validation"], 1, 1_091_291, 1_091_291, 416_439, 302_000),
        (&splits["test"], 1, 948_066, 948_066, 360_876, 242_000),
    ] {
        assert_has(
            statistics,
            &json!({
                "records": records, "bases": bases, "acgt_bases": bases, "n50": n50, "gc_bases": gc,
                "n": 0, "soft_masked": 0,
            }),
        );
        assert_eq!(statistics["gc_windows"][18], window);
    }
}
