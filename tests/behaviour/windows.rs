//! Windows by annotation: where they lie, how many are kept, and what messages say.

use serde_json::Value;

use crate::support::{Scratch, stderr};

const GFF: &str = "##gff-version 3\n\
    lambda\tx\tgene\t1001\t2000\t.\t+\t.\tID=a\n\
    lambda\tx\tgene\t5001\t6000\t.\t-\t.\tID=b\n\
    lambda\tx\tCDS\t5101\t5200\t.\t-\t0\tParent=b\n";

/// A workflow up to a chunk stage with these options, the annotation beside it.
fn scratch(options: &str) -> Scratch {
    let scratch = Scratch::lambda();
    std::fs::write(scratch.path("lambda.gff3"), GFF).unwrap();
    std::fs::write(scratch.path("peaks.bed"), "lambda\t40000\t40300\tp\t0\t-\n").unwrap();
    std::fs::write(scratch.path("wrong.bed"), "chrL\t40000\t40300\n").unwrap();
    scratch.write(&format!(
        "name: flow\nstages:\n  raw: {{uses: ingest, sources: [{{name: lambda, fasta: lambda.fa.gz, rename: {{RENAME: lambda}}}}]}}\n  \
         clean: {{uses: clean, from: raw}}\n  split: {{uses: split, from: clean, test: []}}\n  \
         windows: {{uses: chunk, from: split, {options}}}\n"
    ).replace("RENAME", &name_in_file()));
    scratch
}

/// What the FASTA file calls phage lambda.
fn name_in_file() -> String {
    use std::io::Read;
    let file = std::fs::File::open(crate::support::data("phage_lambda.fa.gz")).unwrap();
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    let name = text.trim_start_matches('>').split_whitespace().next().unwrap();
    format!("{name:?}")
}

fn manifest(scratch: &Scratch) -> Value {
    scratch.ran(&[]);
    serde_json::from_slice(&std::fs::read(scratch.artifact("windows/manifest.json")).unwrap()).unwrap()
}

#[test]
fn windows_lie_where_they_are_wanted() {
    let cases = [
        // Two genes of 1,000 bases.
        ("within: [{gff: lambda.gff3, features: [gene]}]", 2000, 4),
        // Flanks: 900..2100 and 4900..6100.
        ("within: [{gff: lambda.gff3, features: [gene], upstream: 100, downstream: 100}]", 2400, 6),
        // Promoters: 900..1050 and 5950..6100.
        (
            "within: [{gff: lambda.gff3, features: [gene], site: start, upstream: 100, downstream: 50}]",
            300,
            2,
        ),
        // A coding sequence within a gene, and a peak.
        ("within: [{gff: lambda.gff3, features: [gene, CDS]}, {bed: peaks.bed}]", 2300, 5),
        ("within: [{bed: peaks.bed, site: end, downstream: 10}]", 10, 1),
        // 97 windows of 500 bases and one of 2 without a choice; of those in genes, four, none is kept.
        ("sample: [{of: {gff: lambda.gff3, features: [gene]}, keep: 0}]", 46_502, 94),
        ("sample: [{of: {gff: lambda.gff3, features: [gene]}, keep: 1}, {keep: 0}]", 2000, 4),
        ("sample: [{keep: 0}], sample_splits: []", 48_502, 98),
    ];
    for (options, bases, windows) in cases {
        let manifest = manifest(&scratch(&format!("window: 500, {options}")));
        let counts = &manifest["counts"];
        assert_eq!(counts["bases_out"], bases, "{options}: {counts}");
        assert_eq!(counts["other"]["windows"], windows, "{options}");
        let dropped =
            counts["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
        assert_eq!(dropped + bases, 48_502, "{options}");
    }
}

#[test]
fn a_share_of_windows_is_kept_and_counted() {
    let manifest = manifest(&scratch("window: 50, sample: [{keep: 0.25}]"));
    let class = &manifest["details"]["sample"][0];
    assert_eq!((&class["class"], &class["windows"]), (&Value::from("others"), &Value::from(971)));
    let kept = class["kept"].as_u64().unwrap();
    assert!((190..300).contains(&kept), "{kept}");
    assert_eq!(manifest["counts"]["other"]["windows"], kept);
}

#[test]
fn places_that_do_not_fit_are_refused() {
    for (options, expected) in [
        ("within: [{}]", "needs one of `gff` and `bed`"),
        ("within: [{bed: peaks.bed, features: [gene]}]", "has `features`, which only `gff` takes"),
        ("within: [{bed: peaks.bed, site: start}]", "is of 0 bases; give `upstream` or `downstream`"),
        ("within: [{bed: wrong.bed}]", "cannot take regions of `chrL`"),
        ("within: [{bed: peaks.bed, source: phi}]", "no record comes from `phi`; there are `lambda`"),
        ("within: [{gff: lambda.gff3, features: [exon]}]", "found no feature `exon`"),
        ("sample: [{keep: 2}]", "`keep` is 2, expected 0 to 1"),
        ("sample: [{keep: 0.5}], sample_splits: [trian]", "no split is called `trian`"),
    ] {
        let output = scratch(&format!("window: 500, {options}")).run(&[]);
        assert!(!output.status.success(), "{options}");
        let message = stderr(&output).split_whitespace().collect::<Vec<_>>().join(" ").replace("│ ", "");
        assert!(message.contains(expected), "{options}: {message}");
    }
}
