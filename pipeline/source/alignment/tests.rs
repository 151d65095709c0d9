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
