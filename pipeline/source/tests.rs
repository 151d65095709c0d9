//! Every specimen of `tests/specimens` is read and gives what the index says.

use std::path::{Path, PathBuf};

use super::{alignment, annotation, fasta};

const INDEX: &str = include_str!("../../tests/specimens/specimens.tsv");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specimens")
}

fn read_fasta(path: &Path) -> Result<String, fasta::Error> {
    let (mut reader, mut records, mut total) = (fasta::Reader::open(path)?, 0, 0);
    while let Some(event) = reader.next_event()? {
        if let fasta::Event::End { bases } = event {
            records += 1;
            total += bases;
        }
    }
    Ok(format!("{records} records, {total} bases"))
}

fn read_alignment(path: &Path) -> Result<String, alignment::Error> {
    let mut reader = alignment::Reader::open(path, alignment::Options::default())?;
    while reader.next_read()?.is_some() {}
    let alignment::Counts { kept, skipped } = reader.counts();
    let skipped: u64 = skipped.values().map(|tally| tally.records).sum();
    Ok(format!("{} reads, {} bases, {skipped} skipped", kept.records, kept.bases))
}

fn read_annotation(path: &Path) -> Result<String, annotation::Error> {
    let (mut reader, mut features) = (annotation::Reader::open(path)?, 0);
    while reader.next_feature()?.is_some() {
        features += 1;
    }
    Ok(format!("{features} features"))
}

/// An error and its sources on one line, the folder's path removed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.replace(&format!("{}/", folder().display()), "")
}

fn outcome(format: &str, path: &Path) -> Result<String, String> {
    match format {
        "fasta" => read_fasta(path).map_err(|error| chain(&error)),
        "alignment" => read_alignment(path).map_err(|error| chain(&error)),
        "annotation" => read_annotation(path).map_err(|error| chain(&error)),
        other => panic!("unknown format {other} in the index"),
    }
}

#[test]
fn every_specimen_reads_as_its_index_says() {
    let mut wrong = String::new();
    for line in INDEX.lines().skip(1) {
        let [file, format, label, expected] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("index line `{line}` has not four columns")
        };
        let outcome = outcome(format, &folder().join(file));
        let found = match &outcome {
            Ok(summary) => ("valid", summary),
            Err(message) => ("invalid", message),
        };
        if found != (label, &expected.to_owned()) {
            wrong.push_str(&format!("{file}\t{format}\t{}\t{}\n", found.0, found.1));
        }
    }
    assert!(wrong.is_empty(), "these specimens read otherwise:\n{wrong}");
}

#[test]
fn the_index_names_every_specimen() {
    let indexed: Vec<&str> = INDEX.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
    for format in ["fasta", "alignment", "annotation"] {
        for entry in std::fs::read_dir(folder().join(format)).unwrap() {
            let file = format!("{format}/{}", entry.unwrap().file_name().display());
            assert!(indexed.contains(&file.as_str()), "{file} is not in specimens.tsv");
        }
    }
}

/// Name, bases, lower-case bases and CRC-32 of the bases of each record, joined by `|`.
fn digest(name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/data").join(name);
    let mut reader = fasta::Reader::open(&path).unwrap();
    let (mut digests, mut name, mut lower) = (Vec::new(), String::new(), 0);
    let mut sum = libdeflater::Crc::new();
    while let Some(event) = reader.next_event().unwrap() {
        match event {
            fasta::Event::Record(header) => name.clone_from(&header.name),
            fasta::Event::Bases(bases) => {
                lower += bases.iter().filter(|base| base.is_ascii_lowercase()).count();
                sum.update(bases);
            }
            fasta::Event::End { bases } => {
                digests.push(format!("{name}|{bases}|{lower}|{:08x}", sum.sum()));
                (lower, sum) = (0, libdeflater::Crc::new());
            }
        }
    }
    digests
}

#[test]
fn real_genomes_have_the_bases_that_other_tools_see() {
    panic!("{:?} {:?} {:?}", digest("phage_lambda.fa.gz"), digest("ecoli_k12_mg1655.fa.gz"), digest("yeast_sacCer3.fa.gz"));
}
