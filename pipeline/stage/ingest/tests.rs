use super::*;

fn config(json: Value) -> Config {
    serde_json::from_value(json).unwrap()
}

fn problems(source: &Value) -> Vec<String> {
    let config = config(json!({ "sources": [source] }));
    config.problems().into_iter().map(|(_, problem)| problem).collect()
}

#[test]
fn what_does_not_fit_together_is_told() {
    for (source, expected) in [
        (json!({"fasta": "a.fa"}), ""),
        (json!({"fasta": "a.fa", "regions": {"bed": "x.bed"}, "rename": {"1": "chr1"}}), ""),
        (json!({"cram": "a.cram", "reference": "r.fa", "reads": {}}), ""),
        (json!({"table": "s.tsv", "quality": {}, "reference": "r.fa", "reads": {}}), ""),
        (json!({}), "source 1 needs one of `fasta`, `fastq`, `bam`, `cram`, `two_bit`, `genbank`, `table`"),
        (
            json!({"fasta": "a", "bam": "b"}),
            "source 1 needs one of `fasta`, `fastq`, `bam`, `cram`, `two_bit`, `genbank`, `table`",
        ),
        (json!({"fasta": "a", "reads": {}}), "source 1 has `reads`, which only `bam` and `cram` take"),
        (json!({"bam": "a", "reference": "b"}), "source 1 has `reference`, which only `cram` takes"),
        (json!({"bam": "a", "quality": {}}), "source 1 has `quality`, which only `fastq` takes"),
        (json!({"fasta": "*.fa", "name": "x"}), "source 1 has a `name`, which only one file takes"),
        (json!({"fasta": "in/", "name": "x"}), "source 1 has a `name`, which only one file takes"),
        (
            json!({"table": "s.tsv", "weight": 2}),
            "source 1 has `taxonomy`, `weight` or `mates`, which stand in the table itself",
        ),
        (json!({"fasta": "a", "weight": 0}), "source 1 has a `weight` that is not above 0"),
        (json!({"fasta": "a", "regions": {}}), "source 1 has `regions` without `bed`, `gff` or `intervals`"),
        (
            json!({"fasta": "a", "regions": {"bed": "b", "features": ["CDS"]}}),
            "source 1 has `features` without `gff`",
        ),
        (json!({"fasta": "a", "rename": {"1": "x", "2": "x"}}), "source 1 renames two sequences to `x`"),
    ] {
        assert_eq!(problems(&source).join("; "), expected, "{source}");
    }
    let config = config(json!({"sources": [{"fasta": "x/a.fa"}, {"bam": "y/a.bam"}, {"fasta": "*.fa"}]}));
    assert_eq!(config.problems(), [("sources", "two sources are called `a`; give one a `name`".to_owned())]);
}

#[test]
fn every_file_is_listed_once_found() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    std::fs::create_dir(base.join("in")).unwrap();
    for name in ["in/b.fa", "in/a.fa.gz", "in/r_1.fq", "in/r_2.fq"] {
        std::fs::write(base.join(name), "").unwrap();
    }
    std::fs::write(base.join("in/s.tsv"), "path\tmates\tname\nr_1.fq\tr_2.fq\treads\n../c.2bit\t\t\n")
        .unwrap();
    let config = config(json!({"sources": [
        {"fasta": "-", "name": "piped"},
        {"fasta": "in/", "regions": {"bed": "x.bed", "gff": "x.gff3"}},
        {"table": "in/s.tsv", "reference": "ref.fa"},
    ]}));
    let files: Vec<String> =
        config.files(base).unwrap().iter().map(|file| file.path.display().to_string()).collect();
    let expected = "in/a.fa.gz in/b.fa in/r_1.fq in/r_2.fq in/../c.2bit x.bed x.gff3 in/s.tsv ref.fa";
    assert_eq!(files.join(" "), expected);
    let names: Vec<String> = config.expanded(base).unwrap().into_iter().map(|(_, file)| file.name).collect();
    assert_eq!(names, ["piped", "a", "b", "reads", "c"]);
    assert_eq!(config.once(), Some("it reads standard input"));
}

#[test]
fn tables_and_pairs_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    for name in ["a_1.fq", "b_1.fq", "a_2.fq"] {
        std::fs::write(base.join(name), "").unwrap();
    }
    std::fs::write(base.join("s.tsv"), "path\nnotes.txt\n").unwrap();
    std::fs::write(base.join("t.tsv"), "path,mates\na.fa,b.fa\n").unwrap();
    std::fs::write(base.join("u.tsv"), "path,name\na.fa,x\nb.fa,x\n").unwrap();
    for (source, expected) in [
        (
            json!({"fastq": "*_1.fq", "mates": "*_2.fq"}),
            "found 2 files in `fastq` and 1 in `mates`, expected pairs",
        ),
        (json!({"table": "s.tsv"}), "line 2: found `notes.txt`, whose name shows no format"),
        (json!({"table": "t.tsv"}), "line 2: found `mates` of `a.fa`, expected them for FASTQ only"),
        (json!({"table": "u.tsv"}), "two sources are called `x`"),
    ] {
        let error = config(json!({ "sources": [source] })).files(base).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn names_are_part_of_the_configuration() {
    let sources = json!([{"fasta": "x/yeast.fa.gz"}, {"fasta": "in/*.fa"}]);
    let resolved = config(json!({ "sources": sources })).resolved();
    assert_eq!(resolved["sources"][0]["name"], "yeast");
    assert_eq!(resolved["sources"][1].get("name"), None);
    assert_eq!(resolved["on_bad_record"], "fail");
}
