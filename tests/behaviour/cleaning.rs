//! Deduplication, decontamination, homology-aware splits and the leak report, on phage lambda and on what is made of it.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;

use genomill::sequence::complement::reverse_complement;
use genomill::sequence::kmer::{for_each_hash, spread};
use genomill::source::fasta;
use genomill::stage::records::{Stretch, for_each_stretch};
use genomill::stage::{Error, tables};
use serde_json::Value;

use crate::support::{Scratch, data, stderr};

fn lambda() -> Vec<u8> {
    let mut reader = fasta::Reader::open(&data("phage_lambda.fa.gz")).unwrap();
    let mut sequence = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        if let fasta::Event::Bases(bases) = event {
            sequence.extend_from_slice(&bases.to_ascii_uppercase());
        }
    }
    sequence
}

fn random(bases: usize, seed: u64) -> Vec<u8> {
    (0..bases as u64).map(|i| b"ACGT"[(spread(seed << 40 | i) >> 62) as usize]).collect()
}

fn turned(bases: &[u8]) -> Vec<u8> {
    let mut turned = bases.to_vec();
    reverse_complement(&mut turned);
    turned
}

/// With one base in `every` changed.
fn mutated(bases: &[u8], every: usize) -> Vec<u8> {
    let mut changed = bases.to_vec();
    changed.iter_mut().step_by(every).for_each(|base| *base = if *base == b'A' { b'C' } else { b'A' });
    changed
}

fn text(bases: &[u8]) -> &str {
    std::str::from_utf8(bases).unwrap()
}

fn fasta(records: &[(&str, Vec<u8>)]) -> String {
    records.iter().fold(String::new(), |mut file, (name, bases)| {
        writeln!(file, ">{name}\n{}", text(bases)).unwrap();
        file
    })
}

/// The distinct 31-mers.
fn kmers(sequences: &[&[u8]]) -> HashSet<u64> {
    let mut found = HashSet::new();
    for bases in sequences {
        for_each_hash(bases, 31, |_, hash| {
            found.insert(hash);
        });
    }
    found
}

fn flow(stages: &str, genome: &[(&str, Vec<u8>)]) -> Scratch {
    let head = "name: flow\nstages:\n  raw: {uses: ingest, sources: [{fasta: genome.fa}]}\n  clean: {uses: clean, from: raw}\n";
    let scratch = Scratch::new(&format!("{head}{stages}"));
    std::fs::write(scratch.path("genome.fa"), fasta(genome)).unwrap();
    scratch
}

fn manifest(scratch: &Scratch, stage: &str) -> Value {
    serde_json::from_slice(&std::fs::read(scratch.artifact(stage).join("manifest.json")).unwrap()).unwrap()
}

fn rows(scratch: &Scratch, table: &str) -> Vec<Stretch> {
    let mut rows = Vec::new();
    for_each_stretch::<Error>(&scratch.artifact(table), |row| {
        rows.push(row);
        Ok(())
    })
    .unwrap();
    rows
}

/// The bases of the rows of a split, from the records as they were written.
fn bases_of<'a>(rows: &[Stretch], records: &'a [(&str, Vec<u8>)], split: &str) -> Vec<&'a [u8]> {
    let at = |number: u64| usize::try_from(number).unwrap();
    let rows = rows.iter().filter(|row| row.split == split);
    rows.map(|row| &records[at(row.record)].1[at(row.interval.start)..at(row.interval.end)]).collect()
}

fn places(rows: &[Stretch]) -> Vec<(u64, u64, u64)> {
    rows.iter().map(|row| (row.record, row.interval.start, row.interval.end)).collect()
}

/// Every thread count gives the same files.
fn is_the_same_on_any_threads(scratch: &Scratch) {
    let mut found: Vec<BTreeMap<String, String>> = Vec::new();
    for jobs in ["1", "2", "5"] {
        std::fs::remove_dir_all(scratch.path("work")).ok();
        scratch.ran(&["--jobs", jobs]);
        found.push(scratch.contents());
    }
    assert!(found[0] == found[1] && found[0] == found[2]);
}

const DECONTAMINATE: &str = "
  split: {uses: split, from: clean, block: 8000, test_fraction: 0.2}
  windows: {uses: chunk, from: split, window: 500, reverse_complement: [train]}
  safe: {uses: decontaminate, from: FROM, benchmarks: [{csv: promoters.csv}, {name: genes, fasta: genes.fa}]}
";

#[test]
fn test_sequences_of_benchmarks_do_not_remain_in_training() {
    let records = [("lambda", lambda())];
    let genome = &records[0].1;
    let promoters = [
        genome[700..1000].to_vec(),
        turned(&genome[12_000..12_250]),
        mutated(&genome[20_000..20_300], 100),
        random(300, 1),
        b"ACGTACGT".to_vec(),
    ];
    let genes = [("long", genome[30_000..33_000].to_vec()), ("other", random(2000, 2))];
    for (from, remove) in [("split", false), ("windows", false), ("windows", true)] {
        let mut stages = DECONTAMINATE.replace("FROM", from).replace("0.2", "0");
        if remove {
            stages = stages.replace("genes.fa}]", "genes.fa}], action: remove");
        }
        let scratch = flow(&stages, &records);
        let table = promoters
            .iter()
            .fold("id,sequence\n".to_owned(), |table, bases| table + "x," + text(bases) + "\n");
        std::fs::write(scratch.path("promoters.csv"), table).unwrap();
        std::fs::write(scratch.path("genes.fa"), fasta(&genes)).unwrap();
        scratch.ran(&[]);
        let safe = manifest(&scratch, "safe");
        let of =
            |benchmark: usize, key: &str| safe["details"]["benchmarks"][benchmark][key].as_u64().unwrap();
        let counts =
            |benchmark| ["sequences", "short", "found", "whole", "places"].map(|key| of(benchmark, key));
        assert_eq!(counts(0), [5, 1, 3, 2, 3], "{from}");
        assert_eq!(counts(1), [2, 0, 1, 1, 1], "{from}");
        assert_eq!(
            (safe["details"]["benchmarks"][0]["benchmark"].as_str(), of(1, "place_bases")),
            (Some("promoters"), 3000)
        );
        let before = if from == "split" { "split/intervals.parquet" } else { "windows/windows.parquet" };
        let after = if from == "split" { "safe/intervals.parquet" } else { "safe/windows.parquet" };
        let left = bases_of(&rows(&scratch, after), &records, "train").concat().len();
        let all = bases_of(&rows(&scratch, before), &records, "train").concat().len();
        let dropped: u64 =
            safe["counts"]["dropped"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
        assert_eq!(all, left + usize::try_from(dropped).unwrap());
        let train = kmers(&bases_of(&rows(&scratch, after), &records, "train"));
        for (number, bases) in promoters
            .iter()
            .chain([&genes[0].1])
            .enumerate()
            .filter(|(number, _)| *number < 2 || *number == 5)
        {
            let shared = kmers(&[bases]).intersection(&train).count();
            assert!(shared <= 1, "{from}: {shared} k-mers of test sequence {number} are left");
        }
        // The intervals of the test sequences, but for the rim that lies before the first k-mer that the mutated one shares.
        for (start, end) in [(700, 1000), (12_000, 12_250), (20_001, 20_300), (30_000, 33_000)] {
            let touches = |row: &&Stretch| row.interval.start < end && start < row.interval.end;
            assert_eq!(rows(&scratch, after).iter().filter(touches).count(), 0, "{from}: {start}-{end}");
        }
        if remove {
            let windows = rows(&scratch, after);
            assert!(windows.iter().all(|row| row.interval.start % 500 == 0), "whole windows go");
        }
        is_the_same_on_any_threads(&scratch);
    }
}

#[test]
fn contigs_are_split_by_intervals_of_bed_files() {
    let records = [("a", lambda()), ("b", random(3000, 5))];
    let stages = "
  split: {uses: split, from: clean, intervals: {validation: v.bed, test: t.bed, exclude: x.bed, margin: 100}}
";
    let scratch = flow(stages, &records);
    std::fs::write(scratch.path("v.bed"), "a\t1000\t2000\nb\t0\t500\na\t2000\t2500\tx\n").unwrap();
    std::fs::write(scratch.path("t.bed"), "genome:a\t2500\t3000\na\t48402\t48502\n").unwrap();
    std::fs::write(scratch.path("x.bed"), "a\t3000\t3050\n").unwrap();
    scratch.ran(&[]);
    let found = |split: &str| {
        let rows = rows(&scratch, "split/intervals.parquet");
        places(&rows.into_iter().filter(|row| row.split == split).collect::<Vec<_>>())
    };
    let train = [(0, 0, 900), (0, 3100, 48_302), (1, 600, 3000)];
    assert_eq!(found("train"), train);
    assert_eq!(found("validation"), [(0, 1000, 2500), (1, 0, 500)]);
    assert_eq!(found("test"), [(0, 2500, 3000), (0, 48_402, 48_502)]);
    let split = manifest(&scratch, "split");
    let dropped = &split["counts"]["dropped"];
    assert_eq!(dropped["excluded interval"], 50);
    assert_eq!(dropped["margin of a held-out interval"], 100 + 50 + 100 + 100);
    assert_eq!(split["details"]["intervals"]["test"]["bases"], 600);
    scratch.ran(&["--set", "split.block=1000"]);
    let cut = found("train");
    assert_eq!(cut[..4], [(0, 0, 900), (0, 3100, 4000), (0, 4000, 5000), (0, 5000, 6000)]);
    assert_eq!(cut.iter().map(|(_, start, end)| end - start).sum::<u64>(), 900 + 45_202 + 2400);
    for (file, lines, expected) in [
        ("t.bed", "# c\na\t2400\t2600\n", "overlaps `a:2000-2500` of `validation` (`"),
        ("t.bed", "# c\na\t48000\t48503\n", "t.bed`, line 2): `a` of `genome` has 48502 bases"),
        (
            "t.bed",
            "a\t0\t9\nchrA\t5\t9\n",
            "t.bed`, line 2): `genome` has no such sequence; it has `a`, `b`; `rename: ",
        ),
        ("t.bed", "a\t0\n", "t.bed`, line 1: found 2 columns"),
        ("v.bed", "b\t0\t9\n", "line 1 has an interval of `b`, which `exclude` lists as a whole"),
    ] {
        let before = std::fs::read(scratch.path(file)).unwrap();
        std::fs::write(scratch.path(file), lines).unwrap();
        let set: &[&str] = if file == "v.bed" { &["--set", "split.exclude=[b]"] } else { &[] };
        let wrong = scratch.run(set);
        assert!(stderr(&wrong).contains(expected), "{}", stderr(&wrong));
        std::fs::write(scratch.path(file), before).unwrap();
    }
}

#[test]
fn contigs_of_one_name_in_two_sources_are_told_apart() {
    let yaml = "
name: flow
stages:
  raw: {uses: ingest, sources: [{fasta: one.fa}, {fasta: two.fa}]}
  clean: {uses: clean, from: raw}
  split: {uses: split, from: clean, intervals: {test: t.bed, validation: v.bed}}
";
    let scratch = Scratch::new(yaml);
    std::fs::write(scratch.path("one.fa"), fasta(&[("c", random(500, 1))])).unwrap();
    std::fs::write(scratch.path("two.fa"), fasta(&[("c", random(300, 2))])).unwrap();
    std::fs::write(scratch.path("t.bed"), "c\t0\t100\n").unwrap();
    std::fs::write(scratch.path("v.bed"), "one:c\t350\t500\n").unwrap();
    scratch.ran(&[]);
    let found: Vec<_> = rows(&scratch, "split/intervals.parquet")
        .into_iter()
        .map(|row| (row.record, row.interval.to_string(), row.split))
        .collect();
    let expected = [
        (0, "0-100", "test"),
        (0, "100-350", "train"),
        (0, "350-500", "validation"),
        (1, "0-100", "test"),
        (1, "100-300", "train"),
    ];
    assert_eq!(found, expected.map(|(record, at, split)| (record, at.to_owned(), split.to_owned())));
    std::fs::write(scratch.path("v.bed"), "c\t350\t500\n").unwrap();
    let wrong = scratch.run(&[]);
    assert!(stderr(&wrong).contains("line 1): `c` of `two` has 300 bases"), "{}", stderr(&wrong));
}

#[test]
fn benchmarks_of_intervals_are_read_from_their_assembly() {
    let genome = lambda();
    let records = [("lambda", genome.clone())];
    let stages = "
  split: {uses: split, from: clean}
  safe: {uses: decontaminate, from: split, benchmarks: [{bed: peaks.v1.bed, assembly: hg.fa}]}
";
    let scratch = flow(stages, &records);
    let assembly = [
        ("1", [&random(500, 1)[..], &turned(&genome[5000..5300]), &random(200, 2)].concat()),
        ("2", [&genome[20_000..20_200], &random(300, 3)[..]].concat()),
    ];
    std::fs::write(scratch.path("hg.fa"), fasta(&assembly)).unwrap();
    std::fs::write(scratch.path("peaks.v1.bed"), "2\t0\t200\n1\t500\t800\n1\t0\t100\n1\t5\t10\n").unwrap();
    scratch.ran(&[]);
    let expected = [(0, 0, 5000), (0, 5300, 20_000), (0, 20_200, 48_502)];
    assert_eq!(places(&rows(&scratch, "safe/intervals.parquet")), expected);
    let safe = manifest(&scratch, "safe");
    let of = &safe["details"]["benchmarks"][0];
    assert_eq!(of["benchmark"], "peaks.v1");
    assert_eq!(["sequences", "short", "found", "bases"].map(|key| of[key].as_u64().unwrap()), [4, 1, 2, 605]);
    std::fs::write(scratch.path("peaks.v1.bed"), "2\t0\t200\n2\t400\t501\n").unwrap();
    let wrong = scratch.run(&[]);
    assert!(stderr(&wrong).contains("peaks.v1.bed`, line 2): `2` of `"), "{}", stderr(&wrong));
}

#[test]
fn only_the_chosen_splits_are_decontaminated() {
    let records = [("a", lambda()), ("b", lambda())];
    let stages = "
  split: {uses: split, from: clean, test: [b]}
  safe: {uses: decontaminate, from: split, benchmarks: [{csv: t.csv}]}
  windows: {uses: chunk, from: safe, window: 1000}
  bpe: {uses: tokenizer, from: safe, model: {bpe: {vocabulary_size: 32}}}
  tokens: {uses: tokenize, from: windows, tokenizer: bpe}
  report: {uses: report, from: [tokens]}
";
    let scratch = flow(stages, &records);
    std::fs::write(scratch.path("t.csv"), format!("sequence\n{}\n", text(&lambda()[5000..5200]))).unwrap();
    scratch.ran(&[]);
    let found = places(&rows(&scratch, "safe/intervals.parquet"));
    assert_eq!(found, [(0, 0, 5000), (0, 5200, 48_502), (1, 0, 48_502)]);
    let page = std::fs::read_to_string(scratch.artifact("report/report.html")).unwrap();
    assert!(page.contains("<section id=\"contamination\">"));
    assert!(page.contains("<td class=\"key\">t</td>"));
    let wrong = scratch.run(&["--set", "safe.splits=[training]"]);
    assert!(
        stderr(&wrong).contains("no split is called `training`; there are `test`, `train`"),
        "{}",
        stderr(&wrong)
    );
    std::fs::write(scratch.path("t.csv"), "sequence\nACGT\nACGX\n").unwrap();
    let wrong = scratch.run(&[]);
    assert!(
        stderr(&wrong).contains("t.csv`, line 3: base 3 of the sequence is byte 0x58"),
        "{}",
        stderr(&wrong)
    );
}

#[test]
fn duplicates_go_and_it_is_told_in_favour_of_what() {
    let genome = lambda();
    let records = [
        ("first", genome[..3000].to_vec()),
        ("second", genome[5000..8000].to_vec()),
        ("turned", turned(&genome[..3000])),
        ("near", mutated(&genome[5000..8000], 500)),
        ("again", genome[5000..8000].to_vec()),
        ("part", genome[..1500].to_vec()),
    ];
    let scratch = flow("  once: {uses: dedup, from: clean}\n  split: {uses: split, from: once}\n", &records);
    scratch.ran(&[]);
    let kept = |scratch: &Scratch| {
        rows(scratch, "split/intervals.parquet").iter().map(|row| row.record).collect::<Vec<_>>()
    };
    assert_eq!(kept(&scratch), [0, 1, 3, 5]);
    let mut table = tables::Reader::open(&scratch.artifact("once/duplicates.parquet"), 100).unwrap();
    let batch = table.next_batch().unwrap().unwrap();
    let column = |name| {
        let column = batch.column::<arrow::array::StringArray>(name).unwrap();
        column.iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(column("record"), ["turned", "again"]);
    assert_eq!(column("kept_record"), ["first", "second"]);
    assert_eq!(column("strand"), ["-", "+"]);
    scratch.ran(&["--set", "once.near={jaccard: 0.7}"]);
    assert_eq!(kept(&scratch), [0, 1, 5]);
    let counts = &manifest(&scratch, "once")["counts"];
    assert_eq!(
        (&counts["dropped"]["exact duplicate"], &counts["dropped"]["near duplicate"]),
        (&6000.into(), &3000.into())
    );
    is_the_same_on_any_threads(&scratch);
}

#[test]
fn windows_are_deduplicated_on_their_grid() {
    let (one, two) = (random(2000, 1), random(2000, 2));
    let records =
        [("a", [&one[..], &two, &turned(&one)].concat()), ("b", [&two[..], &random(1700, 3)].concat())];
    let scratch = flow("  once: {uses: dedup, from: clean, window: 1000}\n", &records);
    scratch.ran(&[]);
    let found = places(&rows(&scratch, "once/intervals.parquet"));
    assert_eq!(found, [(0, 0, 4000), (1, 2000, 3700)]);
}

/// Does as MMseqs2 does as far as its files go: the first two sequences are alike.
const MMSEQS: &str = r#"#!/bin/sh
[ "$1" = version ] && { echo of tests; exit; }
grep '>' "$2" | tr -d '>' | awk 'NR == 1 {first = $1} {print (NR == 2 ? first : $1) "\t" $1}' > "$3_cluster.tsv"
echo "$@" > "$(dirname "$0")/asked"
"#;

#[test]
fn families_are_what_an_installed_mmseqs_finds() {
    let records: Vec<(&str, Vec<u8>)> =
        ["a", "b", "c"].into_iter().zip(0..).map(|(name, seed)| (name, random(900, seed))).collect();
    let homology = "{mmseqs: {program: ./mm, identity: 0.9, arguments: [--kmer-per-seq, \"80\"]}}";
    let scratch = flow(
        &format!(
            "\n  split: {{uses: split, from: clean, test: [b], validation: [c], homology: {homology}}}\n"
        ),
        &records,
    );
    let message = stderr(&scratch.run(&[]));
    assert!(message.contains("cannot find the program `./mm`"), "{message}");
    let script = |text: &str| {
        scratch.file("mm", text);
        std::fs::set_permissions(scratch.path("mm"), PermissionsExt::from_mode(0o755)).unwrap();
    };
    script("#!/bin/sh\necho no index here >&2\nexit 3\n");
    let message = stderr(&scratch.run(&[]));
    assert!(
        message.contains("`./mm` ended with exit status: 3") && message.contains("no index here"),
        "{message}"
    );
    script(MMSEQS);
    scratch.ran(&[]);
    let splits: Vec<String> =
        rows(&scratch, "split/intervals.parquet").into_iter().map(|row| row.split).collect();
    assert_eq!(splits, ["test", "test", "validation"]);
    let said = &manifest(&scratch, "split")["details"]["homology"];
    assert_eq!((&said["families"], &said["mmseqs"]), (&2.into(), &"of tests".into()));
    let asked = std::fs::read_to_string(scratch.path("asked")).unwrap();
    assert!(
        asked.starts_with("easy-linclust ") && asked.contains(" --min-seq-id 0.9 -c 0.8 --cov-mode 1 "),
        "{asked}"
    );
    assert!(asked.ends_with(" --kmer-per-seq 80\n"), "{asked}");
    let files: Vec<_> =
        std::fs::read_dir(scratch.artifact("split")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files.len(), 2, "nothing of MMseqs2 is left: {files:?}");
}

#[test]
fn families_stay_in_one_split() {
    let genome = lambda();
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    for family in 0..12usize {
        let bases = &genome[family * 4000..family * 4000 + 3000];
        records.push((format!("f{family}a"), bases.to_vec()));
        records.push((format!("f{family}b"), turned(&mutated(bases, 40))));
        records.push((format!("f{family}c"), [&random(1500, family as u64)[..], &bases[..1500]].concat()));
    }
    records.sort_by_key(|(name, _)| name.chars().rev().collect::<String>());
    let borrowed: Vec<(&str, Vec<u8>)> =
        records.iter().map(|(name, bases)| (name.as_str(), bases.clone())).collect();
    let stages = "
  split: {uses: split, from: clean, test: [f3b], test_fraction: 0.4, seed: 5, homology: {}}
  leaks: {uses: leaks, from: split}
  report: {uses: report, from: [leaks]}
";
    let scratch = flow(stages, &borrowed);
    scratch.ran(&[]);
    let mut splits: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    for row in rows(&scratch, "split/intervals.parquet") {
        let name = &records[usize::try_from(row.record).unwrap()].0;
        splits.entry(name[..name.len() - 1].to_owned()).or_default().insert(row.split);
    }
    assert_eq!(splits.len(), 12);
    assert!(splits.values().all(|of| of.len() == 1), "{splits:?}");
    assert!(splits["f3"].contains("test"));
    assert!((2..=10).contains(&splits.values().filter(|of| of.contains("test")).count()), "{splits:?}");
    let split = manifest(&scratch, "split");
    assert_eq!(
        (&split["details"]["homology"]["families"], &split["details"]["homology"]["largest"]),
        (&12.into(), &3.into())
    );
    let leaks = manifest(&scratch, "leaks");
    assert!(
        leaks["details"]["leaks"]["pairs"].as_array().unwrap().iter().all(|pair| pair["shared_kmers"] == 0),
        "{leaks}"
    );
    scratch.ran(&["--set", "split.homology=null"]);
    let leaks = manifest(&scratch, "leaks");
    assert!(leaks["details"]["leaks"]["pairs"][0]["shared_kmers"].as_u64().unwrap() > 100, "{leaks}");
    let page = std::fs::read_to_string(scratch.artifact("report/report.html")).unwrap();
    assert!(page.contains("<section id=\"leaks\">"));
    let both = scratch.run(&["--set", "split.validation=[f3a]", "--set", "split.homology.k=21"]);
    assert!(stderr(&both).contains("are of one family"), "{}", stderr(&both));
}

#[test]
fn groups_are_drawn_as_one() {
    let records: Vec<(String, Vec<u8>)> = (0..40).map(|i| (format!("c{i}"), random(50, i))).collect();
    let borrowed: Vec<(&str, Vec<u8>)> =
        records.iter().map(|(name, bases)| (name.as_str(), bases.clone())).collect();
    let stages = "
  split: {uses: split, from: clean, test_fraction: 0.5, groups: {csv: taxa.tsv, contig: name, group: genus, validation: [g3]}}
";
    let scratch = flow(stages, &borrowed);
    let table = (0..39).fold("genus\tname\n".to_owned(), |table, i| table + &format!("g{}\tc{i}\n", i % 10));
    std::fs::write(scratch.path("taxa.tsv"), &table).unwrap();
    scratch.ran(&[]);
    let splits: Vec<String> =
        rows(&scratch, "split/intervals.parquet").into_iter().map(|row| row.split).collect();
    assert_eq!(splits[3], "validation");
    assert!((0..39).all(|i| splits[i] == splits[i % 10]), "{splits:?}");
    assert!((1..9).contains(&splits[..10].iter().filter(|split| *split == "test").count()));
    assert_eq!(manifest(&scratch, "split")["details"]["groups"]["without"], 1);
    for (set, message) in [
        ("split.groups.test=[g99]", "no group is called `g99` in column `genus`"),
        ("split.validation=[c4]", "`c4` is listed by itself, but `g4`, its group, is drawn as one"),
        ("split.block=10", "cannot be combined with `homology` or `block`"),
    ] {
        let wrong = scratch.run(&["--set", set]);
        assert!(stderr(&wrong).contains(message), "{}", stderr(&wrong));
    }
}

#[test]
fn leaks_are_counted_exactly_and_estimated_when_memory_is_short() {
    let genome = lambda();
    let records = [
        ("train", genome[..40_000].to_vec()),
        ("test", [&turned(&genome[1000..5000])[..], &random(4000, 1)].concat()),
        ("validation", random(3000, 2)),
    ];
    let stages = "
  split: {uses: split, from: clean, test: [test], validation: [validation]}
  leaks: {uses: leaks, from: split, window: 1000}
";
    let scratch = flow(stages, &records);
    scratch.ran(&[]);
    let leak = |of: &str, within: &str| {
        let leaks = manifest(&scratch, "leaks");
        let pairs = leaks["details"]["leaks"]["pairs"].as_array().unwrap().clone();
        pairs.into_iter().find(|pair| pair["of"] == of && pair["within"] == within).unwrap()
    };
    let (train, test) = (kmers(&[&records[0].1]), kmers(&[&records[1].1]));
    let found = leak("test", "train");
    assert_eq!(found["kmers"], test.len());
    assert_eq!(found["shared_kmers"], test.intersection(&train).count());
    assert_eq!((&found["windows"], &found["shared_windows"]), (&8.into(), &4.into()));
    assert_eq!(found["standard_error"], 0.0);
    let found = leak("train", "test");
    assert_eq!((&found["windows"], &found["shared_windows"]), (&40.into(), &4.into()));
    assert_eq!(leak("test", "validation")["shared_kmers"], 0);
    scratch.ran(&["--set", "leaks.memory=200KB"]);
    let found = leak("test", "train");
    let (kmers, shared) =
        (found["kmers"].as_u64().unwrap() as f64, found["shared_kmers"].as_u64().unwrap() as f64);
    let exact = test.intersection(&train).count() as f64 / test.len() as f64;
    assert!(kmers < test.len() as f64 / 5.0, "{found}");
    assert!((shared / kmers - exact).abs() < 5.0 * found["standard_error"].as_f64().unwrap(), "{found}");
    is_the_same_on_any_threads(&scratch);
}

#[test]
fn what_is_too_simple_is_dropped() {
    let genome = lambda();
    let repeat = b"CA".repeat(320);
    let records = [("a", [&genome[..6400], &repeat, &genome[6400..9600]].concat())];
    let scratch = flow("", &records);
    scratch.ran(&["--set", "clean.filter={max_dust: 2.0}", "--set", "clean.min_length=100"]);
    assert_eq!(places(&rows(&scratch, "clean/intervals.parquet")), [(0, 0, 6400), (0, 7040, 10_240)]);
    let counts = &manifest(&scratch, "clean")["counts"];
    assert_eq!(counts["dropped"]["dust"], 640);
    let wrong = scratch.run(&["--set", "clean.filter={min_gc: 40}"]);
    assert!(stderr(&wrong).contains("`min_gc` and `max_gc` are shares from 0 to 1"), "{}", stderr(&wrong));
}
