//! Shards from several sources in the proportions asked for, and several contexts from one tokenization.

use std::collections::{BTreeMap, BTreeSet};

use genomill::artifact::Artifact;
use genomill::shard::{Segment, ShardSet, verify};
use serde_json::Value;

use crate::support::{LAMBDA, Scratch, genomill, stderr};

/// Phage lambda, 48,502 bases, beside a plasmid of 6,000, both for training in part.
fn two_sources(shards: &str) -> Scratch {
    let scratch = Scratch::lambda();
    let base = |i: u64| b"ACGT"[(i.wrapping_mul(i).wrapping_mul(2_654_435_761) >> 13) as usize % 4];
    let plasmid: Vec<u8> = (0..6000).map(base).collect();
    std::fs::write(scratch.path("plasmid.fa"), [b">p1\n", plasmid.as_slice(), b"\n"].concat()).unwrap();
    let yaml = LAMBDA
        .replace(
            "[{fasta: lambda.fa.gz}]",
            "[{name: phage, fasta: lambda.fa.gz}, {name: plasmid, fasta: plasmid.fa}]",
        )
        .replace("block: 4000,", "block: 1000,")
        .replace("window: 1000,", "window: 250,")
        .replace("context: 64}", shards);
    scratch.write(&yaml);
    scratch
}

fn manifest(scratch: &Scratch, stage: &str) -> Value {
    serde_json::from_slice(&std::fs::read(scratch.artifact(stage).join("manifest.json")).unwrap()).unwrap()
}

/// The segments of every row of a split.
fn provenance(set: &ShardSet, split: &str) -> Vec<Vec<Segment>> {
    set.split(split).unwrap().files.iter().flat_map(|file| set.segments(file).unwrap()).collect()
}

#[test]
fn sources_stand_in_the_shares_that_are_wanted() {
    for pack in ["concat", "none", "best_fit"] {
        let mixture = "{sources: {phage: {weight: 1}, plasmid: {weight: 1}}, repeat: 3, seed: 2}";
        let scratch = two_sources(&format!("context: 64, pack: {pack}, mixture: {mixture}}}"));
        scratch.ran(&[]);
        let set = ShardSet::open(&scratch.artifact("shards")).unwrap();
        let mixed = set.details.mixture.clone().unwrap();
        let (mut tokens, mut windows) = (BTreeMap::<String, u64>::new(), BTreeMap::<_, u64>::new());
        for segments in provenance(&set, "train") {
            let mut here = BTreeSet::new();
            for s in segments {
                *tokens.entry(s.source.to_string()).or_default() += u64::from(s.token_end - s.token_start);
                let place = (s.source, s.record, s.start, s.strand);
                assert!(here.insert(place.clone()), "{pack}: two copies on a row: {place:?}");
                *windows.entry(place).or_default() += 1;
            }
        }
        for (name, source) in &mixed.sources {
            assert_eq!(source.written.tokens, tokens[name], "{pack}: {name} as the rows have it");
            assert!((source.share_written - 0.5).abs() < 0.01, "{pack}: {name}: {source:?}");
        }
        assert!(windows.values().all(|&times| times <= 3), "{pack}");
        let (phage, plasmid) = (&mixed.sources["phage"], &mixed.sources["plasmid"]);
        assert!(phage.left_out.tokens > 0 && phage.repeated.tokens == 0, "{pack}: {phage:?}");
        assert!(plasmid.left_out.tokens == 0 && plasmid.repeated.tokens > 0, "{pack}: {plasmid:?}");
        let counts = &manifest(&scratch, "shards")["counts"];
        assert_eq!(counts["dropped"]["left out of the mixture"], phage.left_out.bases, "{pack}");
        verify::verify(&Artifact::open(&scratch.artifact("shards")).unwrap()).unwrap();
    }
}

#[test]
fn a_mixture_changes_the_training_split_alone_and_does_not_depend_on_threads() {
    let mixture = "{sources: {phage: {tokens: 5k}, plasmid: {}}, tokens: 9k, repeat: 4}";
    let mixed = || two_sources(&format!("context: 64, mixture: {mixture}}}"));
    let (one, two, plain) = (mixed(), mixed(), two_sources("context: 64}"));
    one.ran(&["--jobs", "1"]);
    two.ran(&["--jobs", "4"]);
    assert_eq!(one.contents(), two.contents());
    plain.ran(&[]);
    let differ: Vec<String> = plain
        .contents()
        .into_iter()
        .filter(|file| !one.contents().contains_key(&file.0) || one.contents()[&file.0] != file.1)
        .map(|file| file.0)
        .collect();
    assert_eq!(differ, ["shards/train-00000.parquet"]);
    let edit = format!("shards.mixture={}", mixture.replace("tokens: 9k", "tokens: 9k, seed: 3"));
    assert_eq!(one.ran(&["--set", &edit]), ["shards"]);
    assert_ne!(one.contents(), two.contents(), "another seed draws others");
}

#[test]
fn weights_of_a_table_of_samples_are_those_of_a_mixture_without_any() {
    let with = |mixture: &str| {
        let scratch = two_sources(&format!("context: 64, mixture: {mixture}}}"));
        let sources = "[{name: phage, fasta: lambda.fa.gz}, {name: plasmid, fasta: plasmid.fa}]";
        let yaml = std::fs::read_to_string(scratch.path("flow.yaml")).unwrap();
        scratch.write(&yaml.replace(sources, "[{table: samples.tsv}]"));
        let table = "path\tname\tweight\nlambda.fa.gz\tphage\t1\nplasmid.fa\tplasmid\t3\n";
        std::fs::write(scratch.path("samples.tsv"), table).unwrap();
        scratch
    };
    let shards =
        |scratch: &Scratch| std::fs::read(scratch.path("work/flow/shards/train-00000.parquet")).unwrap();
    for (from_table, named) in [
        (
            "{weights_from: raw, repeat: 3}",
            "{sources: {phage: {weight: 1}, plasmid: {weight: 3}}, repeat: 3}",
        ),
        (
            "{sources: {phage: {weight: 2}}, weights_from: raw, repeat: 3}",
            "{sources: {phage: {weight: 2}, plasmid: {weight: 3}}, repeat: 3}",
        ),
    ] {
        let (one, two) = (with(from_table), with(named));
        one.ran(&[]);
        two.ran(&[]);
        assert_eq!(shards(&one), shards(&two), "{from_table}");
    }
    let scratch = two_sources("context: 64, mixture: {weights_from: raw}}");
    let error = stderr(&scratch.run(&[]));
    assert!(error.contains("`mixture`: no source of `raw` has a weight"), "{error}");
    let scratch = two_sources("context: 64, mixture: {weights_from: raw, temperature: 2}}");
    let error = stderr(&scratch.run(&[]));
    assert!(error.contains("`temperature` says nothing, for the weights come from `raw`"), "{error}");
}

#[test]
fn the_report_and_the_command_line_show_the_mixture() {
    let mixture = "{sources: {phage: {weight: 1}, plasmid: {weight: 1}}, tokens: 1M, repeat: 2}";
    let scratch = two_sources(&format!(
        "context: 64, mixture: {mixture}}}\n  report:  {{uses: report, from: [shards]}}"
    ));
    let output = scratch.run(&["--progress", "plain"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let short = "source `plasmid` has ";
    assert!(stderr(&output).contains(&format!("mixture: {short}")), "{}", stderr(&output));
    let page = std::fs::read_to_string(scratch.artifact("report/report.html")).unwrap();
    assert!(page.contains("<section id=\"mixture\">") && page.contains("a window is written up to 2 times"));
    assert!(page.contains("Source `plasmid` has ") && page.contains("<td>plasmid</td>"));
    let info = genomill().args(["shards", "info"]).arg(scratch.artifact("shards")).output().unwrap();
    let info = String::from_utf8(info.stdout).unwrap();
    assert!(info.contains(short) && info.contains("\nplasmid "), "{info}");
}

#[test]
fn mistakes_in_a_mixture_are_told_with_what_was_meant() {
    let cases = [
        (
            "{sources: {phage: {}, plasmidd: {}}}",
            "no window of `train` comes from a source called `plasmidd`; there are `phage`, `plasmid`; did you mean `plasmid`?",
        ),
        ("{sources: {phage: {}}}", "source `plasmid` of `train` is not named"),
        ("{sources: {phage: {wieght: 2}}}", "did you mean `weight`?"),
        ("{sources: {phage: {weight: -2}}}", "source `phage` has weight -2, expected a number above 0"),
        ("{sources: {phage: {tokens: 5X}}}", "expected tokens such as"),
    ];
    for (mixture, expected) in cases {
        let scratch = two_sources(&format!("context: 64, mixture: {mixture}}}"));
        let output = scratch.run(&[]);
        assert_eq!(output.status.code(), Some(1), "{mixture}");
        let said =
            stderr(&output).split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(said.contains(expected), "{mixture}: {}", stderr(&output));
        assert!(!scratch.artifact("shards").exists());
    }
}

/// One set in the artifact's folder, and one in a folder for each of two contexts.
fn contexts() -> Scratch {
    let scratch = Scratch::lambda();
    scratch.write(&LAMBDA.replace(
        "context: 64}",
        "context: [64, 16]}
  one:     {uses: shard, from: tokens, context: 16}
  scores:  {uses: evaluate, from: shards, context: 16, markov_order: 2}
  report:  {uses: report, from: [scores]}",
    ));
    scratch
}

#[test]
fn each_context_is_a_set_of_its_own() {
    let scratch = contexts();
    scratch.ran(&[]);
    let contents = scratch.contents();
    for (path, hash) in contents.iter().filter(|(path, _)| path.starts_with("one/")) {
        let name = path.strip_prefix("one/").unwrap();
        assert_eq!(Some(hash), contents.get(&format!("shards/context-16/{name}")), "{name} as it is alone");
    }
    for context in [64, 16] {
        let folder = scratch.artifact(&format!("shards/context-{context}"));
        assert_eq!(ShardSet::open(&folder).unwrap().rows("train").unwrap().context(), context);
        for command in ["info", "verify", "stats"] {
            let output = genomill().args(["shards", command]).arg(&folder).output().unwrap();
            assert!(output.status.success(), "{command}: {}", stderr(&output));
        }
        let mut export = genomill();
        export.args(["shards", "export", "--to", "npy", "-o"]).arg(scratch.path(&format!("npy-{context}")));
        let output = export.arg(&folder).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let data = std::fs::read_to_string(scratch.artifact("report/data.json")).unwrap();
    for context in [64, 16] {
        assert!(data.contains(&format!("\"shards/context-{context}/train-00000.parquet\"")), "{context}");
    }
    assert_eq!(scratch.ran(&[]), Vec::<String>::new());
}

#[test]
fn several_contexts_are_checked_together_and_told_apart_by_name() {
    let scratch = contexts();
    scratch.ran(&[]);
    let said = |command: &str| {
        let mut process = genomill();
        process.args(["shards", command]).arg(scratch.artifact("shards")).output().unwrap()
    };
    let output = said("info");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it has rows of 64 or 16 tokens; name one of them with `context`"));
    assert!(String::from_utf8_lossy(&said("verify").stdout).contains("all as the manifest says"));
    for (set, expected) in [
        ("scores.context=null", "it has rows of 64 or 16 tokens; name one of them with `context`"),
        ("scores.context=32", "it has rows of 64 or 16 tokens, `context` asks for 32"),
    ] {
        let output = scratch.run(&["--set", set]);
        let words =
            stderr(&output).split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(words.contains(expected), "{set}: {}", stderr(&output));
    }
    let file = scratch.artifact("shards/context-16/train-00000.parquet");
    let whole = std::fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    bytes[200] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let output = said("verify");
    assert_eq!(output.status.code(), Some(1));
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(
        found.contains("context-16/train-00000.parquet` is damaged at byte 64: the tokens of rows"),
        "{found}"
    );
    assert_eq!(scratch.ran(&[]), ["shards"], "what is damaged is made again");
    assert_eq!(std::fs::read(&file).unwrap(), whole);
    std::fs::remove_file(scratch.artifact("shards/context-64/manifest.json")).unwrap();
    let found = String::from_utf8(said("verify").stdout).unwrap();
    assert!(found.contains("context-64/manifest.json` is damaged: it is missing"), "{found}");
    assert_eq!(scratch.ran(&[]), ["shards"]);
}
