use std::io::Cursor;

use super::*;

fn specimen(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specimens/alignment").join(name)
}

fn reads(name: &str, options: Options) -> (Vec<String>, Counts) {
    let mut reader = Reader::open(&specimen(name), options).unwrap();
    let mut reads = Vec::new();
    while let Some(read) = reader.next_read().unwrap() {
        let bases = str::from_utf8(read.bases).unwrap();
        let place = read.reference.zip(read.interval).map_or_else(String::new, |(r, i)| format!("{r}:{i}"));
        let quality = read.mapping_quality.map_or_else(String::new, |q| q.to_string());
        reads.push(format!("{} {bases} {place} {quality}", read.name));
    }
    (reads, reader.counts().clone())
}

#[test]
fn reads_come_back_on_their_strand_with_their_place() {
    let expected = [
        "pair/1 ACGTNACG ref:10-18 60",
        "pair/2 TACCGGTT ref:100-108 60",
        "split ACGTACGT ref:300-304 30",
        "low YCGTT ref:300-305 5",
        "lost TTTT  0",
        "unnamed:11 CCCC  0",
    ];
    for name in ["mixed.bam", "mixed.sam"] {
        let (reads, counts) = reads(name, Options::default());
        assert_eq!(reads, expected, "{name}");
        assert_eq!(counts.kept, Tally { records: 6, bases: 37 });
        let one = |bases| Tally { records: 1, bases };
        let skipped = [
            (Reason::Secondary, one(8)),
            (Reason::Supplementary, one(4)),
            (Reason::QcFailed, one(4)),
            (Reason::Duplicate, one(4)),
            (Reason::NoBases, one(0)),
        ];
        assert_eq!(counts.skipped, BTreeMap::from(skipped), "{name}");
    }
}

#[test]
fn options_decide_which_records_become_reads() {
    let default = Options::default();
    let all = Options { secondary: true, supplementary: true, duplicates: true, qc_failed: true, ..default };
    for (options, expected) in [
        (default, "pair/1 pair/2 split low lost unnamed:11"),
        (all, "pair/1 pair/2 pair/1 split split copy poor low lost unnamed:11"),
        (Options { unmapped: false, ..default }, "pair/1 pair/2 split low"),
        (Options { min_mapping_quality: 30, ..default }, "pair/1 pair/2 split lost unnamed:11"),
        (
            Options { duplicates: true, unmapped: false, min_mapping_quality: 6, ..default },
            "pair/1 pair/2 split copy",
        ),
    ] {
        let (reads, _) = reads("mixed.bam", options);
        let names: Vec<&str> = reads.iter().filter_map(|read| read.split(' ').next()).collect();
        assert_eq!(names.join(" "), expected, "{options:?}");
    }
}

#[test]
fn flags_and_base_qualities_filter() {
    let default = Options::default();
    for (options, expected) in [
        (Options { required_flags: 0x1 | 0x10, ..default }, "pair/2"),
        (Options { excluded_flags: 0x1 | 0x4, ..default }, "split low"),
        (Options { required_flags: 0x4, excluded_flags: 0x1, ..default }, "lost unnamed:11"),
    ] {
        let (reads, counts) = reads("mixed.bam", options);
        let names: Vec<&str> = reads.iter().filter_map(|read| read.split(' ').next()).collect();
        assert_eq!(names.join(" "), expected, "{options:?}");
        assert_eq!(counts.kept.records + counts.skipped.values().map(|tally| tally.records).sum::<u64>(), 11);
    }
    for name in ["cram.sam", "no_reference.cram"] {
        let (reads, counts) = reads(name, Options { min_base_quality: 3, ..default });
        assert!(reads[0].starts_with("r0 GGATCACCGTCTACACTGCTCACTCCAACN "), "{}", reads[0]);
        assert!(reads[1].starts_with("r1 NCCTC"), "on the strand that was sequenced: {}", reads[1]);
        assert_eq!(counts.masked, 12, "{name}");
    }
}

/// The reads of a CRAM file, with the given FASTA as its reference.
fn cram_reads(name: &str, reference: &Path) -> Result<Vec<String>, String> {
    let reader = Reader::open_with_reference(&specimen(name), Some(reference), Options::default());
    let mut reader = reader.map_err(|error| error.to_string())?;
    let mut reads = Vec::new();
    while let Some(read) = reader.next_read().map_err(|error| error.to_string())? {
        let bases = str::from_utf8(read.bases).unwrap();
        reads
            .push(format!("{} {bases} {:?} {:?} {:?}", read.name, read.reference, read.interval, read.flags));
    }
    assert_eq!(reader.format(), if name.ends_with("cram") { "CRAM" } else { "SAM" });
    assert_eq!(reader.references(), ["ref", "other"]);
    Ok(reads)
}

#[test]
fn cram_gives_the_reads_that_it_was_made_from() {
    let reference = specimen("cram.fa");
    let expected = cram_reads("cram.sam", &reference).unwrap();
    assert_eq!(expected.len(), 17);
    for name in ["needs_reference.cram", "embedded_reference.cram", "no_reference.cram"] {
        assert_eq!(cram_reads(name, &reference).unwrap(), expected, "{name}");
    }
    // In another order, in lower case: the same sequences.
    let text = std::fs::read_to_string(&reference).unwrap();
    let other = text.find(">other").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let swapped = folder.path().join("swapped.fa");
    std::fs::write(&swapped, (text[other..].to_owned() + &text[..other]).replace('A', "a")).unwrap();
    assert_eq!(cram_reads("needs_reference.cram", &swapped).unwrap(), expected);
}

#[test]
fn cram_refuses_another_reference() {
    let text = std::fs::read_to_string(specimen("cram.fa")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.fa");
    for (changed, record, expected) in [
        (text.replacen("GGATC", "GGATT", 1), 1, "it is another reference"),
        (text.replace(">other", ">else"), 13, "has no sequence `other`, to which reads are aligned"),
        (text.replacen(">ref\n", ">ref\n*", 1), 1, "byte 0x2A"),
    ] {
        std::fs::write(&path, changed).unwrap();
        let error = cram_reads("needs_reference.cram", &path).unwrap_err();
        assert!(
            error.starts_with(&format!("cannot read record {record} of ")) && error.contains(expected),
            "{error}"
        );
    }
    let error = cram_reads("needs_reference.cram", Path::new("no/such.fa")).unwrap_err();
    assert!(error.contains("cannot open `no/such.fa`: no such file or directory"), "{error}");
}

/// Damage that its checksums do not show, too: an error, or reads; never a panic that leaves the reader.
#[test]
fn damaged_files_never_panic() {
    for name in ["mixed.bam", "no_reference.cram"] {
        let whole = std::fs::read(specimen(name)).unwrap();
        for at in (0..whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            for bytes in [damaged, whole[..at].to_vec()] {
                let Ok(input) = Input::new("x", Cursor::new(bytes)) else { continue };
                let Ok(mut reader) = Reader::new(input, Options::default()) else { continue };
                while let Ok(Some(_)) = reader.next_read() {}
            }
        }
    }
}

#[test]
fn options_refuse_unknown_keys() {
    let error = serde_json::from_str::<Options>(r#"{"min_mapq": 3}"#).unwrap_err();
    assert!(error.to_string().starts_with("unknown field `min_mapq`"), "{error}");
}

#[test]
fn a_read_without_a_position_has_no_interval() {
    let sam = "@HD\tVN:1.6\nr\t0\tref\t0\t255\t*\t*\t0\t0\tACGT\t*\n";
    let input = Input::new("x.sam", Cursor::new(sam)).unwrap();
    let mut reader = Reader::new(input, Options::default()).unwrap();
    let read = reader.next_read().unwrap().unwrap();
    assert_eq!((read.reference, read.interval, read.mapping_quality), (Some("ref"), None, None));
}

#[test]
fn the_yeast_reads_equal_those_of_another_reader() {
    use noodles::bam;

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/data/yeast_atac_sacCer3.bam");
    let mut oracle = bam::io::reader::Builder.build_from_path(&path).unwrap();
    let header = oracle.read_header().unwrap();
    let names: Vec<String> = header.reference_sequences().keys().map(ToString::to_string).collect();
    let mut reader = Reader::open(&path, Options::default()).unwrap();
    let mut records = 0;
    for record in oracle.records() {
        let (record, read) = (record.unwrap(), reader.next_read().unwrap().unwrap());
        records += 1;
        let mut bases: Vec<u8> = record.sequence().iter().collect();
        if record.flags().is_reverse_complemented() {
            complement::reverse_complement(&mut bases);
        }
        assert_eq!(read.bases, bases, "record {records}");
        assert_eq!(read.flags.0, record.flags().bits());
        assert_eq!(read.reference, record.reference_sequence_id().map(|id| names[id.unwrap()].as_str()));
        let start = record.alignment_start().map(|start| start.unwrap().get() as u64 - 1);
        assert_eq!(read.interval.map(|interval| interval.start), start);
        assert_eq!(read.interval.map(Interval::len), Some(reference_bases(&record)));
    }
    assert!(reader.next_read().unwrap().is_none());
    assert_eq!((records, reader.counts().kept.records), (88_985, 88_985));
}

fn reference_bases(record: &noodles::bam::Record) -> u64 {
    let operations = record.cigar();
    let covering = operations.iter().map(Result::unwrap).filter(|op| op.kind().consumes_reference());
    covering.map(|op| op.len() as u64).sum()
}
