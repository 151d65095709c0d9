//! Every specimen of `tests/specimens` is read and gives what the index says.

use std::path::{Path, PathBuf};

use super::contigs::{self, Format};
use super::{alignment, annotation, bed, fasta, fastq, samples};

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
    let alignment::Counts { kept, skipped, .. } = reader.counts();
    let skipped: u64 = skipped.values().map(|tally| tally.records).sum();
    Ok(format!("{} reads, {} bases, {skipped} skipped", kept.records, kept.bases))
}

fn read_annotation(path: &Path) -> Result<String, super::columns::Error> {
    let (mut reader, mut features) = (annotation::Reader::open(path)?, 0);
    while reader.next_feature()?.is_some() {
        features += 1;
    }
    Ok(format!("{features} features"))
}

fn read_contigs(path: &Path, format: Format) -> Result<String, contigs::Error> {
    let (mut reader, mut records, mut total) = (contigs::Reader::open(path, format, 7)?, 0, 0);
    while let Some(event) = reader.next_event()? {
        if let fasta::Event::End { bases } = event {
            records += 1;
            total += bases;
        }
    }
    Ok(format!("{records} records, {total} bases"))
}

fn read_fastq(path: &Path) -> Result<String, fastq::Error> {
    let (mut reader, mut reads, mut bases) = (fastq::Reader::open(path)?, 0, 0);
    while let Some(read) = reader.next_read()? {
        reads += 1;
        bases += read.bases.len();
    }
    Ok(format!("{reads} reads, {bases} bases"))
}

fn read_bed(path: &Path) -> Result<String, super::columns::Error> {
    let (mut reader, mut intervals, mut bases) = (bed::Reader::open(path)?, 0, 0);
    while let Some(line) = reader.next_line()? {
        intervals += 1;
        bases += line.interval.len();
    }
    Ok(format!("{intervals} intervals, {bases} bases"))
}

fn read_samples(path: &Path) -> Result<String, samples::Error> {
    Ok(format!("{} samples", samples::read(path, path)?.len()))
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
        "fastq" => read_fastq(path).map_err(|error| chain(&error)),
        "bed" => read_bed(path).map_err(|error| chain(&error)),
        "two_bit" => read_contigs(path, Format::TwoBit).map_err(|error| chain(&error)),
        "genbank" => read_contigs(path, Format::GenBank).map_err(|error| chain(&error)),
        "samples" => read_samples(path).map_err(|error| chain(&error)),
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
            wrong += &[file, format, found.0, found.1].join("\t");
            wrong.push('\n');
        }
    }
    assert!(wrong.is_empty(), "these specimens read otherwise:\n{wrong}");
}

#[test]
fn the_index_names_every_specimen() {
    let indexed: Vec<&str> = INDEX.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
    for format in ["fasta", "fastq", "two_bit", "genbank", "alignment", "annotation", "bed", "samples"] {
        for entry in std::fs::read_dir(folder().join(format)).unwrap() {
            let file = format!("{format}/{}", entry.unwrap().file_name().display());
            assert!(indexed.contains(&file.as_str()), "{file} is not in specimens.tsv");
        }
    }
}

/// Name, bases, and CRC-32 of the bases, of each record.
fn digest(name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/data").join(name);
    let mut reader = fasta::Reader::open(&path).unwrap();
    let (mut digests, mut name, mut sum) = (Vec::new(), String::new(), libdeflater::Crc::new());
    while let Some(event) = reader.next_event().unwrap() {
        match event {
            fasta::Event::Record(header) => name.clone_from(&header.name),
            fasta::Event::Bases(bases) => sum.update(bases),
            fasta::Event::End { bases } => {
                digests.push(format!("{name} {bases} {:08x}", sum.sum()));
                sum = libdeflater::Crc::new();
            }
        }
    }
    digests
}

/// As a naive parser in another language saw them; lengths and names also as `samtools faidx` has them.
#[test]
fn real_genomes_have_the_bases_that_other_tools_see() {
    assert_eq!(digest("phage_lambda.fa.gz"), ["gi|9626243|ref|NC_001416.1| 48502 90ab3c92"]);
    assert_eq!(digest("ecoli_k12_mg1655.fa.gz"), ["NC_000913.3 4641652 42337c7b"]);
    let yeast = [
        "chrI 230218 58e55e34",
        "chrII 813184 352c7433",
        "chrIII 316620 06cac236",
        "chrIV 1531933 f44c9868",
        "chrV 576874 d21f7ae8",
        "chrVI 270161 158b890c",
        "chrVII 1090940 f4dd4b97",
        "chrVIII 562643 74fb701b",
        "chrIX 439888 6ba64d04",
        "chrX 745751 3c897ada",
        "chrXI 666816 6247c151",
        "chrXII 1078177 d648caa8",
        "chrXIII 924431 3108d936",
        "chrXIV 784333 c4fce322",
        "chrXV 1091291 33c5124a",
        "chrXVI 948066 b48f43f9",
        "chrM 85779 ae008e38",
    ];
    assert_eq!(digest("yeast_sacCer3.fa.gz"), yeast);
}

#[test]
fn the_yeast_annotation_has_its_features() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/data/yeast_R64-1-1.99.gff3.gz");
    let mut reader = annotation::Reader::open(&path).unwrap();
    let (mut features, mut genes, mut cds_bases) = (0, 0, 0);
    while let Some(feature) = reader.next_feature().unwrap() {
        features += 1;
        genes += u32::from(feature.kind == "gene");
        cds_bases += if feature.kind == "CDS" { feature.interval.len() } else { 0 };
    }
    assert_eq!((features, genes, cds_bases), (28_695, 6_600, 8_762_001));
}
