//! Exports of a small set, read back by their layouts. The readers of the trainers themselves: `python/tests/test_exports.py`.

use std::collections::BTreeMap;
use std::io::Read;

use super::*;
use crate::shard::{Details, Layout, Row, SCHEMA, Segment, SplitWriter};
use crate::units::Strand;

const PAD: u32 = 0;
const EOS: u32 = 1;
const BOS: u32 = 2;
const CONTEXT: usize = 6;

fn segment(
    tokens: std::ops::Range<u32>,
    record: &str,
    bases: std::ops::Range<u64>,
    strand: Strand,
) -> Segment {
    Segment {
        token_start: tokens.start,
        token_end: tokens.end,
        record: record.into(),
        source: "yeast".into(),
        start: bases.start,
        end: bases.end,
        strand,
    }
}

/// Rows, their padding and their segments: a document over two rows, one of which begins with the separator of the row before,
/// openers, and padding at two ends.
fn rows() -> Vec<(Vec<u32>, usize, Vec<Segment>)> {
    use Strand::{Forward, Reverse};
    vec![
        (
            vec![10, 11, 12, EOS, 13, 14],
            0,
            vec![segment(0..3, "a", 0..9, Forward), segment(4..6, "b", 20..26, Reverse)],
        ),
        (vec![15, 16, 17, 18, 19, 20], 0, vec![segment(0..6, "b", 2..20, Reverse)]),
        (vec![EOS, BOS, 21, 22, PAD, PAD], 2, vec![segment(2..4, "c,d", 5..11, Forward)]),
        (vec![BOS, 23, EOS, PAD, PAD, PAD], 3, vec![segment(1..2, "c,d", 11..14, Forward)]),
    ]
}

/// Documents of [`rows`]: their tokens, origin and first row.
fn documents() -> Vec<(Vec<u32>, &'static str, u64)> {
    vec![
        (vec![10, 11, 12, EOS], "a:0-9:+", 0),
        (vec![13, 14, 15, 16, 17, 18, 19, 20, EOS], "b:2-26:-", 0),
        (vec![BOS, 21, 22], "\"c,d:5-11:+\"", 2),
        (vec![BOS, 23, EOS], "\"c,d:11-14:+\"", 3),
    ]
}

fn set(folder: &Path, token_bytes: usize, padding_too_many: u64) -> Artifact {
    let staging = Staging::begin(folder, "shards").unwrap();
    let at = staging.folder().to_owned();
    std::fs::write(at.join("tokenizer.json"), "{}").unwrap();
    let file_bytes = (3 * CONTEXT * token_bytes) as u64;
    let layout = Layout { context: CONTEXT, token_bytes, weights: false, archive: false };
    let mut writer = SplitWriter::new(&at, "train", layout, file_bytes, 1).unwrap();
    for (tokens, padding, segments) in rows() {
        let documents = vec![u32::try_from(CONTEXT).unwrap()];
        let mut row = Row { tokens, padding, segments, documents, weights: Vec::new() };
        writer.push(&mut row).unwrap();
    }
    let mut train = writer.finish().unwrap();
    train.padding += padding_too_many;
    let test = SplitWriter::new(&at, "test", layout, file_bytes, 1).unwrap().finish().unwrap();
    let special = [("[PAD]", PAD), ("[EOS]", EOS), ("[BOS]", BOS)];
    let details = Details {
        schema: SCHEMA.to_owned(),
        profile: "mapped".to_owned(),
        context: CONTEXT,
        token_bytes,
        vocabulary_size: 100,
        special: special.into_iter().map(|(name, id)| (name.to_owned(), id)).collect(),
        tokenizer: "tokenizer.json".to_owned(),
        tokenizer_fingerprint: "f".to_owned(),
        packing: None,
        loss_weights: None,
        mixture: None,
        splits: BTreeMap::from([("train".to_owned(), train), ("test".to_owned(), test)]),
    };
    let manifest = Manifest {
        schema: artifact::SCHEMA.to_owned(),
        tool: "test".to_owned(),
        stage: "shards".to_owned(),
        kind: "shard".to_owned(),
        algorithm: 1,
        action_key: String::new(),
        content: String::new(),
        config: Value::Null,
        inputs: vec![],
        sources: vec![],
        references: vec![],
        counts: Counts::default(),
        files: vec![],
        details: serde_json::to_value(details).unwrap(),
    };
    staging.publish(manifest, &[], &Hashes::default()).unwrap()
}

/// Exports the small set and checks what all exports share.
fn exported(token_bytes: usize, format: Format) -> (tempfile::TempDir, PathBuf, Written) {
    let folder = tempfile::tempdir().unwrap();
    let from = set(folder.path(), token_bytes, 0);
    let out = folder.path().join("deep/out");
    let exported = export(&from, format, &out).unwrap();
    assert_eq!(exported.empty, ["test"]);
    let manifest = Artifact::open(&out).unwrap().manifest;
    assert_eq!((manifest.kind.as_str(), &manifest.inputs[0].content), ("export", &from.manifest.content));
    assert!(manifest.files.iter().any(|file| file.path == "tokenizer.json"));
    Artifact::open(&out).unwrap().verify(&Hashes::default()).unwrap();
    assert!(!folder.path().join("deep/.staging").exists());
    (folder, out, exported.splits["train"])
}

fn ids(bytes: &[u8], width: usize) -> Vec<u32> {
    let id = |id: &[u8]| id.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
    bytes.chunks(width).map(id).collect()
}

fn all_rows() -> Vec<u32> {
    rows().into_iter().flat_map(|(tokens, ..)| tokens).collect()
}

fn numbers(bytes: &[u8], width: usize, count: usize) -> (Vec<u64>, &[u8]) {
    let (here, rest) = bytes.split_at(width * count);
    let number = |b: &[u8]| b.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    (here.chunks(width).map(number).collect(), rest)
}

#[test]
fn npy_holds_the_rows() {
    for width in [2, 4] {
        let (_folder, out, written) = exported(width, Format::Npy);
        let bytes = std::fs::read(out.join("train.npy")).unwrap();
        let head = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!((&bytes[..8], head % 64), (b"\x93NUMPY\x01\x00".as_slice(), 0));
        let text = std::str::from_utf8(&bytes[10..head]).unwrap();
        assert!(
            text.starts_with(&format!("{{'descr': '<u{width}', 'fortran_order': False, 'shape': (4, 6), }}"))
        );
        assert_eq!(ids(&bytes[head..], width), all_rows());
        assert_eq!(written, Written { rows: 4, tokens: 24, padding_dropped: 0, documents: None });
    }
}

#[test]
fn mds_holds_the_rows_packed_or_not() {
    for (width, zstd) in [(2, false), (4, true)] {
        let (_folder, out, _) = exported(width, Format::Mds { zstd });
        let index: Value =
            serde_json::from_slice(&std::fs::read(out.join("train/index.json")).unwrap()).unwrap();
        let shard = &index["shards"][0];
        let name = if zstd { "zip_data" } else { "raw_data" };
        let bytes = std::fs::read(out.join("train").join(shard[name]["basename"].as_str().unwrap())).unwrap();
        assert_eq!(shard[name]["bytes"], bytes.len());
        let raw = shard["raw_data"]["bytes"].as_u64().unwrap();
        let raw = usize::try_from(raw).unwrap();
        let bytes = if zstd { zstd::bulk::decompress(&bytes, raw).unwrap() } else { bytes };
        assert_eq!((bytes.len(), &shard["samples"]), (raw, &json!(4)));
        let (count, rest) = numbers(&bytes, 4, 1);
        let (offsets, _) = numbers(rest, 4, 5);
        assert_eq!((count[0], offsets[4]), (4, raw as u64));
        let samples = &bytes[usize::try_from(offsets[0]).unwrap()..];
        assert_eq!(ids(samples, width), all_rows());
    }
}

#[test]
fn megatron_holds_the_documents() {
    for (width, code) in [(2, 8), (4, 4)] {
        let (_folder, out, written) = exported(width, Format::Megatron);
        let bin = std::fs::read(out.join("train.bin")).unwrap();
        let expected: Vec<u32> = documents().into_iter().flat_map(|(tokens, ..)| tokens).collect();
        assert_eq!(ids(&bin, width), expected);
        let index = std::fs::read(out.join("train.idx")).unwrap();
        assert_eq!(
            &index[..18],
            [b"MMIDIDX\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00".as_slice(), &[code]].concat()
        );
        let (counts, rest) = numbers(&index[18..], 8, 2);
        assert_eq!(counts, [4, 5]);
        let (lengths, rest) = numbers(rest, 4, 4);
        let (offsets, rest) = numbers(rest, 8, 4);
        let (ends, rest) = numbers(rest, 8, 5);
        assert_eq!(
            (lengths.as_slice(), ends.as_slice(), rest.len()),
            ([4, 9, 3, 3].as_slice(), [0, 1, 2, 3, 4].as_slice(), 0)
        );
        assert_eq!(offsets, [0, 4, 13, 16].map(|token| token * width as u64));
        assert_eq!(written, Written { rows: 4, tokens: 19, padding_dropped: 5, documents: Some(4) });
        assert!(!out.join("train.lengths").exists());
    }
}

#[test]
fn olmo_core_holds_the_documents_and_where_they_come_from() {
    let (_folder, out, _) = exported(2, Format::OlmoCore);
    let tokens = ids(&std::fs::read(out.join("train-00000.npy")).unwrap(), 2);
    let mut text = String::new();
    let packed = std::fs::File::open(out.join("train-00000.csv.gz")).unwrap();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let mut begin = 0;
    for (line, (expected, id, row)) in text.lines().zip(documents()) {
        let end = begin + expected.len();
        assert_eq!(tokens[begin..end], expected);
        assert_eq!(line, format!("{begin},{end},{id},yeast,{row}"));
        begin = end;
    }
    assert_eq!((begin, text.lines().count()), (tokens.len(), 4));
}

#[test]
fn hf_holds_the_rows() {
    use arrow::array::{Array, AsArray};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let (_folder, out, _) = exported(2, Format::Hf);
    let mut found = Vec::new();
    for number in 0..2 {
        let path = out.join(format!("data/train-{number:05}-of-00002.parquet"));
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(fs::open(&path).unwrap()).unwrap().build().unwrap();
        for batch in reader {
            let lists = batch.unwrap().column_by_name("input_ids").unwrap().as_list::<i32>().clone();
            assert!((0..lists.len()).all(|row| lists.value_length(row) == 6));
            let ids = lists.values().as_primitive::<arrow::datatypes::UInt16Type>();
            found.extend(ids.values().iter().map(|id| u32::from(*id)));
        }
    }
    assert_eq!(found, all_rows());
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("  - split: train\n    path: data/train-*.parquet\n"), "{card}");
}

#[test]
fn what_stands_there_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let from = set(folder.path(), 2, 0);
    let message = export(&from, Format::Npy, folder.path()).unwrap_err().to_string();
    assert!(message.contains("it exists already"), "{message}");
}

/// Nothing is published from a set that is damaged or does not add up.
#[test]
fn faults_leave_nothing_behind() {
    for (padding_too_many, flip, expected) in [
        (
            1,
            false,
            "split `train` does not add up: number of padding tokens left out is 5, its manifest says 6",
        ),
        (0, true, "is damaged: its blake3 is"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let from = set(folder.path(), 2, padding_too_many);
        if flip {
            let path = from.path("train-00000.parquet");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[70] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        let out = folder.path().join("out");
        let message = export(&from, Format::Megatron, &out).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!out.exists() && !folder.path().join(".staging/out").exists());
    }
}
