//! Turns windows into tokens, on every core, in order. Memory: a batch of windows (16 MiB of bases) and its tokens, and a
//! count of each token for each split.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{BinaryArray, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chunk::{WINDOWS, has_windows};
use super::records::{
    RECORDS, Record, SEQUENCE, SequenceReader, Stretch, for_each_stretch, index, read_records,
};
use super::tables::{self, Reader, Writer};
use super::tokenizer::{TOKENIZER, fetch};
use super::{Error, Outcome, Stage, Task, to_json};
use crate::artifact::{Account, Counts};
use crate::fs;
use crate::observer::Unit;
use crate::sequence::complement::reverse_complement;
use crate::shard::writer::append;
use crate::tokenizer::info::Usage;
use crate::tokenizer::{self as tokenizers, Tokenizer};
use crate::units::{Interval, Strand};

/// Bases of a batch.
const BATCH_BASES: u64 = 16 << 20;

/// Windows that a thread encodes at a time.
const CHUNK_WINDOWS: usize = 64;
/// The reason for bases that no token stands for.
const UNKNOWN: &str = "code that the tokenizer does not know";
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
        let windows = task.input_of("from", &["chunk", "decontaminate"])?;
        if !has_windows(windows) {
            let reason = "it holds intervals; put a chunk stage between the two".to_owned();
            return Err(Error::Unusable { input: windows.manifest.stage.clone(), reason });
        }
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
    /// Time in which threads encoded.
    encoding: Duration,
}

/// The tokens of a split.
#[derive(Debug, Default)]
struct Tally {
    windows: u64,
    tokens: u64,
    bases: u64,
    usage: Usage,
}

/// What the manifest says of the tokens of a split, under `details.splits`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SplitDetails {
    /// Windows.
    pub windows: u64,
    /// Tokens.
    pub tokens: u64,
    /// Bases that they stand for.
    pub bases: u64,
    /// Bases per token that is not special.
    #[serde(default)]
    pub bases_per_token: Option<f64>,
    /// Bits per base under the unigram model of these tokens.
    #[serde(default)]
    pub unigram_bits_per_base: Option<f64>,
    /// Bits per base under the unigram model of the tokens of `train`.
    #[serde(default)]
    pub train_unigram_bits_per_base: Option<f64>,
    /// Tokens that do not occur, special tokens left out.
    #[serde(default)]
    pub unused: Option<u64>,
}

impl SplitDetails {
    fn new(tokenizer: &dyn Tokenizer, tally: &Tally, train: Option<&Tally>) -> Self {
        let info = tally.usage.info(tokenizer, 0);
        let under = |train: &Tally| tally.usage.bits_per_base_under(tokenizer, &train.usage);
        Self {
            windows: tally.windows,
            tokens: tally.tokens,
            bases: tally.bases,
            bases_per_token: info.bases_per_token,
            unigram_bits_per_base: info.unigram_bits_per_base,
            train_unigram_bits_per_base: train.and_then(under),
            unused: Some(info.unused.into()),
        }
    }
}

/// The part of this stage's time in which its threads encoded, in [`Outcome::seconds`].
pub const ENCODE: &str = "encode";

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
            encoding: Duration::ZERO,
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
        let batch: Vec<(Stretch, Vec<u8>)> = batch.into_par_iter().map(on_strand).collect();
        let chunks =
            batch.into_par_iter().chunks(CHUNK_WINDOWS).map(|windows| encode(self.tokenizer, windows));
        let (encoded, times): (Vec<_>, Vec<Duration>) = chunks.unzip();
        self.encoding += times.into_iter().sum::<Duration>();
        let encoded: Vec<(Stretch, Vec<u32>)> = encoded.into_iter().flatten().collect();
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
        let mut account = Account::default();
        for (stretch, ids) in rows {
            let bases = self.tokenizer.bases_of(ids);
            tally.usage.add(self.tokenizer, ids);
            tally.windows += 1;
            tally.tokens += ids.len() as u64;
            tally.bases += bases;
            self.counts.bases_in += stretch.interval.len();
            self.counts.bases_out += bases;
            let unknown = stretch.interval.len() - bases;
            self.counts.drop_bases(UNKNOWN, unknown);
            account.keep(bases);
            account.drop_bases(UNKNOWN, unknown);
        }
        self.counts.split(split).add(&account);
        if !self.tables.contains_key(split) {
            self.tables.insert(split.to_owned(), create(&self.task.out.join(table_name(split)))?);
        }
        let columns = columns(rows, self.records, self.tokenizer.id_bytes());
        self.tables.get_mut(split).map_or(Ok(()), |table| table.write(columns))?;
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome, Error> {
        std::mem::take(&mut self.tables).into_values().try_for_each(Writer::finish)?;
        let tokens: u64 = self.splits.values().map(|tally| tally.tokens).sum();
        self.counts.set("tokens", tokens);
        let ratio = self.counts.bases_out as f64 / tokens.max(1) as f64;
        let train = self.splits.get("train");
        let split = |(name, tally)| (name, SplitDetails::new(self.tokenizer, tally, train));
        let splits: BTreeMap<&String, SplitDetails> = self.splits.iter().map(split).collect();
        let details = json!({ "splits": splits, "bases_per_token": ratio });
        let summary = format!("{tokens} tokens, {ratio:.3} bases per token");
        let seconds = vec![(ENCODE, self.encoding.as_secs_f64())];
        Ok(Outcome { counts: self.counts, details, summary, seconds, ..Outcome::default() })
    }
}

/// The bases as they stand on the strand of the window.
fn on_strand((stretch, mut bases): (Stretch, Vec<u8>)) -> (Stretch, Vec<u8>) {
    if stretch.strand == Strand::Reverse {
        reverse_complement(&mut bases);
    }
    (stretch, bases)
}

/// The tokens of some windows, and the time that it took.
fn encode(
    tokenizer: &dyn Tokenizer,
    windows: Vec<(Stretch, Vec<u8>)>,
) -> (Vec<(Stretch, Vec<u32>)>, Duration) {
    let started = Instant::now();
    let encode = |(stretch, bases): (Stretch, Vec<u8>)| {
        let mut ids = Vec::with_capacity(bases.len() / 4);
        tokenizer.encode_into(&bases, &mut ids);
        (stretch, ids)
    };
    let encoded = windows.into_iter().map(encode).collect();
    (encoded, started.elapsed())
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

/// The rows as columns; of every id the low `id_bytes` bytes.
fn columns(
    rows: &[&(Stretch, Vec<u32>)],
    records: &[Record],
    id_bytes: usize,
) -> Vec<arrow::array::ArrayRef> {
    let record = |row: &&(Stretch, Vec<u32>)| &records[index(row.0.record)];
    let bytes = |ids: &[u32]| {
        let mut bytes = Vec::new();
        append(&mut bytes, ids, id_bytes);
        bytes
    };
    let tokens = rows.iter().map(|row| bytes(&row.1));
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

/// Calls `each` for every window of a table, in order. `id_bytes`: that of the tokenizer.
pub fn for_each_document(
    path: &Path,
    id_bytes: usize,
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
            each(Document {
                record: record.value(i).to_owned(),
                source: source.value(i).to_owned(),
                interval: Interval::new(start.value(i), end.value(i).max(start.value(i))),
                strand: if strand.value(i) == "-" { Strand::Reverse } else { Strand::Forward },
                tokens: ids(tokens.value(i), id_bytes),
            })?;
        }
    }
    Ok(())
}

fn ids(bytes: &[u8], id_bytes: usize) -> Vec<u32> {
    if id_bytes == 2 {
        bytes.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair).into()).collect()
    } else {
        bytes.as_chunks().0.iter().map(|&four| u32::from_le_bytes(four)).collect()
    }
}
