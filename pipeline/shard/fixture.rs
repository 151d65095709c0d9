//! Small shard sets that tests make: rows of a made-up genome, one base a token.

use std::path::Path;

use super::{ARCHIVE, Details, Layout, LossWeights, MAPPED, Packing, Row, SCHEMA, Segment, SplitWriter};
use crate::artifact::{self, Artifact, Counts, Hashes, Manifest, Staging};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::nucleotide::Nucleotide;
use crate::units::Strand;

/// Bases of each row.
const BASES: u64 = 60;

/// A made-up genome, always the same.
pub(crate) fn genome(bases: u64) -> Vec<u8> {
    let step = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(b"ACGT"[usize::try_from(*state >> 62).unwrap()])
    };
    (0..bases).scan(7, |state, _| step(state)).collect()
}

/// Rows as long as `layout` has it: 60 bases of record `chr1`, `[SEP]` and padding.
pub(crate) fn rows(layout: Layout, count: u64) -> Vec<Row> {
    let (tokenizer, genome) = (Nucleotide::new(), genome(count * BASES));
    let row = |number: u64| {
        let (start, end) = (number * BASES, (number + 1) * BASES);
        let mut tokens = Vec::new();
        tokenizer.encode_into(
            &genome[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()],
            &mut tokens,
        );
        tokens.push(1);
        let padding = layout.context - tokens.len();
        tokens.resize(layout.context, 4);
        let masked = |at: usize| if at < 20 { 25 } else { LossWeights::ONE };
        let mut weights: Vec<u8> = (0..61).map(masked).collect();
        weights.resize(layout.context, 0);
        let (record, source) = ("chr1", "genome");
        let segment = Segment {
            token_start: 0,
            token_end: 60,
            record: record.into(),
            source: source.into(),
            start,
            end,
            strand: Strand::Forward,
        };
        Row {
            tokens,
            padding,
            weights: if layout.weights { weights } else { Vec::new() },
            segments: vec![segment],
            documents: vec![61, u32::try_from(layout.context).unwrap()],
        }
    };
    (0..count).map(row).collect()
}

/// Publishes a set of one split `train` as `WORK/shards`, in files of `file_bytes`.
pub(crate) fn publish(work: &Path, layout: Layout, rows: Vec<Row>, file_bytes: u64) -> Artifact {
    let staging = Staging::begin(work, "shards").unwrap();
    let tokenizer = Nucleotide::new();
    std::fs::write(staging.folder().join("tokenizer.json"), tokenizer.to_json()).unwrap();
    let mut writer = SplitWriter::new(staging.folder(), "train", layout, file_bytes, 2).unwrap();
    for mut row in rows {
        writer.push(&mut row).unwrap();
    }
    let train = writer.finish().unwrap();
    let special = ["[PAD]", "[SEP]"].map(|text| (text.to_owned(), tokenizer.special(text).unwrap()));
    let packing = Packing { pack: "none".to_owned(), begin: None, end: None, separator: Some(1), padding: 4 };
    let details = Details {
        schema: SCHEMA.to_owned(),
        profile: if layout.archive { ARCHIVE } else { MAPPED }.to_owned(),
        context: layout.context,
        token_bytes: layout.token_bytes,
        vocabulary_size: tokenizer.vocabulary_size(),
        special: special.into(),
        tokenizer: "tokenizer.json".to_owned(),
        tokenizer_fingerprint: tokenizer.fingerprint().to_hex().to_string(),
        packing: Some(packing),
        loss_weights: layout.weights.then_some(LossWeights { one: LossWeights::ONE, soft_masked: 25 }),
        mixture: None,
        splits: [("train".to_owned(), train)].into(),
    };
    let manifest = Manifest {
        schema: artifact::SCHEMA.to_owned(),
        tool: "genomill".to_owned(),
        stage: "shards".to_owned(),
        kind: "shard".to_owned(),
        algorithm: 2,
        action_key: String::new(),
        content: String::new(),
        config: serde_json::Value::Null,
        inputs: vec![],
        sources: vec![],
        references: vec![],
        counts: Counts::default(),
        files: vec![],
        details: serde_json::to_value(details).unwrap(),
    };
    staging.publish(manifest, &[], &Hashes::default()).unwrap()
}

/// Mapped, two bytes a token, no weights.
pub(crate) const PLAIN: Layout = Layout { context: 64, token_bytes: 2, weights: false, archive: false };
