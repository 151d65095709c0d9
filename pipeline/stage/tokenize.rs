//! Turns windows into tokens, on every core, in order. Memory: a batch of windows (16 MiB of bases) and its tokens.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{BinaryArray, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chunk::WINDOWS;
use super::records::{
    RECORDS, Record, SEQUENCE, SequenceReader, Stretch, for_each_stretch, index, read_records,
};
use super::tables::{self, Reader, Writer};
use super::tokenizer::{TOKENIZER, fetch};
use super::{Error, Outcome, Stage, Task, to_json};
use crate::artifact::Counts;
use crate::fs;
use crate::observer::Unit;
use crate::sequence::complement::reverse_complement;
use crate::tokenizer::{self as tokenizers, Tokenizer};
use crate::units::{Interval, Strand};

/// Bases of a batch.
const BATCH_BASES: u64 = 16 << 20;

/// Windows read at once.
const BATCH_WINDOWS: usize = 64;

/// What to tokenize, and with what.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that cut the windows.
    from: String,
    /// The stage that made the tokenizer.
    tokenizer: String,
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        vec![("from".to_owned(), self.from.clone()), ("tokenizer".to_owned(), self.tokenizer.clone())]
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let windows = task.input_of("from", &["chunk"])?;
        let sequence = task.referenced(windows, "sequence")?;
        let tokenizer_file = task.input_of("tokenizer", &["tokenizer"])?.path(TOKENIZER);
        let tokenizer = tokenizers::open(&tokenizer_file)?;
        let copy = task.out.join(TOKENIZER);
        std::fs::copy(&tokenizer_file, &copy).map_err(fs::error("copy", &tokenizer_file))?;
        let records = read_records(&sequence.path(RECORDS))?;
        let mut tokenize = Tokenize::new(task, tokenizer.as_ref(), &records);
        let mut reader = SequenceReader::open(&sequence.path(SEQUENCE))?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(task.threads).build();
        let pool = pool.map_err(std::io::Error::other).map_err(fs::error("start threads for", task.out))?;
        for_each_stretch::<Error>(&windows.path(WINDOWS), |stretch| {
            let mut bases = Vec::new();
            fetch(&mut reader, &stretch, &sequence, &mut bases)?;
            tokenize.push(stretch, bases);
            if tokenize.pending >= BATCH_BASES { pool.install(|| tokenize.flush()) } else { Ok(()) }
        })?;
        pool.install(|| tokenize.flush())?;
        let references = windows.manifest.references.clone();
        Ok(Outcome { references, ..tokenize.finish()? })
    }
}

struct Tokenize<'a> {
    task: &'a Task<'a>,
    tokenizer: &'a dyn Tokenizer,
    records: &'a [Record],
    batch: Vec<(Stretch, Vec<u8>)>,
    pending: u64,
    tables: BTreeMap<String, Writer>,
    counts: Counts,
    splits: BTreeMap<String, Tally>,
}

/// The tokens of a split.
#[derive(Debug, Default, Serialize)]
struct Tally {
    windows: u64,
    tokens: u64,
    bases: u64,
}

/// The file with the tokens of a split.
pub fn table_name(split: &str) -> String {
    format!("{split}.parquet")
}

impl<'a> Tokenize<'a> {
    fn new(task: &'a Task, tokenizer: &'a dyn Tokenizer, records: &'a [Record]) -> Self {
        Self {
            task,
            tokenizer,
            records,
            batch: Vec::new(),
            pending: 0,
            tables: BTreeMap::new(),
            counts: Counts::default(),
            splits: BTreeMap::new(),
        }
    }

    fn push(&mut self, stretch: Stretch, bases: Vec<u8>) {
        self.pending += bases.len() as u64;
        self.batch.push((stretch, bases));
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.task.check()?;
        self.pending = 0;
        let batch = std::mem::take(&mut self.batch);
        let encoded: Vec<(Stretch, Vec<u32>)> =
            batch.into_par_iter().map(|(stretch, bases)| encode(self.tokenizer, stretch, bases)).collect();
        let mut by_split: BTreeMap<&str, Vec<&(Stretch, Vec<u32>)>> = BTreeMap::new();
        for row in &encoded {
            by_split.entry(&row.0.split).or_default().push(row);
        }
        by_split.into_iter().try_for_each(|(split, rows)| self.write(split, &rows))?;
        self.task.progress(self.counts.bases_in, None, Unit::Bases);
        Ok(())
    }

    fn write(&mut self, split: &str, rows: &[&(Stretch, Vec<u32>)]) -> Result<(), Error> {
        let tally = self.splits.entry(split.to_owned()).or_default();
        for (stretch, ids) in rows {
            let bases = self.tokenizer.bases_of(ids);
            tally.windows += 1;
            tally.tokens += ids.len() as u64;
            tally.bases += bases;
            self.counts.bases_in += stretch.interval.len();
            self.counts.bases_out += bases;
            self.counts.drop_bases("code that the tokenizer does not know", stretch.interval.len() - bases);
        }
        if !self.tables.contains_key(split) {
            self.tables.insert(split.to_owned(), create(&self.task.out.join(table_name(split)))?);
        }
        let columns = columns(rows, self.records);
        self.tables.get_mut(split).map_or(Ok(()), |table| table.write(columns))?;
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome, Error> {
        std::mem::take(&mut self.tables).into_values().try_for_each(Writer::finish)?;
        let tokens: u64 = self.splits.values().map(|tally| tally.tokens).sum();
        self.counts.set("tokens", tokens);
        let ratio = self.counts.bases_out as f64 / tokens.max(1) as f64;
        let details = json!({ "splits": self.splits, "bases_per_token": ratio });
        let summary = format!("{tokens} tokens, {ratio:.3} bases per token");
        Ok(Outcome { counts: self.counts, details, summary, ..Outcome::default() })
    }
}

fn encode(tokenizer: &dyn Tokenizer, stretch: Stretch, mut bases: Vec<u8>) -> (Stretch, Vec<u32>) {
    if stretch.strand == Strand::Reverse {
        reverse_complement(&mut bases);
    }
    let mut ids = Vec::with_capacity(bases.len() / 4);
    tokenizer.encode_into(&bases, &mut ids);
    (stretch, ids)
}

fn create(path: &Path) -> Result<Writer, tables::Error> {
    let (number, text) = (DataType::UInt64, DataType::Utf8);
    Writer::create(
        path,
        &[
            ("record", text.clone()),
            ("source", text.clone()),
            ("start", number.clone()),
            ("end", number),
            ("strand", text),
            ("tokens", DataType::Binary),
        ],
    )
}

fn columns(rows: &[&(Stretch, Vec<u32>)], records: &[Record]) -> Vec<arrow::array::ArrayRef> {
    let record = |row: &&(Stretch, Vec<u32>)| &records[index(row.0.record)];
    let tokens = rows.iter().map(|row| row.1.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
    vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &record(row).name))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &record(row).source))),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.0.interval.start))),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.0.interval.end))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0.strand.symbol()))),
        Arc::new(BinaryArray::from_iter_values(tokens)),
    ]
}

/// A window with its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Name of the record.
    pub record: String,
    /// Name of the record's source.
    pub source: String,
    /// Where the window lies.
    pub interval: Interval,
    /// Which strand the tokens spell.
    pub strand: Strand,
    /// The tokens.
    pub tokens: Vec<u32>,
}

/// Calls `each` for every window of a table, in order.
pub fn for_each_document(
    path: &Path,
    mut each: impl FnMut(Document) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = Reader::open(path, BATCH_WINDOWS)?;
    while let Some(batch) = reader.next_batch()? {
        let (record, source) =
            (batch.column::<StringArray>("record")?, batch.column::<StringArray>("source")?);
        let (start, end) = (batch.column::<UInt64Array>("start")?, batch.column::<UInt64Array>("end")?);
        let (strand, tokens) =
            (batch.column::<StringArray>("strand")?, batch.column::<BinaryArray>("tokens")?);
        for i in 0..batch.rows() {
            let bytes = tokens.value(i).chunks_exact(4);
            each(Document {
                record: record.value(i).to_owned(),
                source: source.value(i).to_owned(),
                interval: Interval::new(start.value(i), end.value(i).max(start.value(i))),
                strand: if strand.value(i) == "-" { Strand::Reverse } else { Strand::Forward },
                tokens: bytes.map(|b| u32::from_le_bytes(b.try_into().unwrap_or_default())).collect(),
            })?;
        }
    }
    Ok(())
}
