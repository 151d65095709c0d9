//! Turns windows into tokens, on every core, in order, partition by partition: a partition is the windows of so many bases.
//! Memory: a batch of windows (16 MiB of bases) and its tokens, and of each partition a count of each token for each split.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{BinaryArray, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use rayon::ThreadPool;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chunk::{WINDOWS, has_windows};
use super::partition::{self, Bounds, Finished, Made, Partition, Partitioned, Work};
use super::records::{
    RECORDS, Record, SequenceReader, Stretch, for_each_stretch, for_each_stretch_of, index, read_records,
};
use super::tables::{self, Reader, Writer};
use super::tokenizer::{TOKENIZER, fetch};
use super::{Error, Outcome, Stage, Task, to_json};
use crate::artifact::{Account, Artifact, Counts, SourceFile};
use crate::fs;
use crate::observer::Unit;
use crate::sequence::complement::reverse_complement;
use crate::shard::writer::write_ids;
use crate::tokenizer::info::Usage;
use crate::tokenizer::{self as tokenizers, Tokenizer};
use crate::units::{self, Interval, Strand};

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
    /// Bases of a partition, the part of the work that is done at a time and kept when the run ends early. Default 256Mb.
    #[serde(default = "partition::default_size", deserialize_with = "units::bases")]
    #[schemars(with = "units::Amount")]
    partition: Option<u64>,
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        vec![("from".to_owned(), self.from.clone()), ("tokenizer".to_owned(), self.tokenizer.clone())]
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        partition::problem(self.partition).into_iter().collect()
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    /// Half a bit for each base: random bases take two in whatever tokens, and repeats less.
    fn least_bytes(&self, inputs: &BTreeMap<String, Artifact>, _: &[SourceFile]) -> u64 {
        inputs.get("from").map_or(0, |windows| windows.manifest.counts.bases_out / 16)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        partition::run(self, task)
    }

    fn partitioned(&self) -> Option<&dyn Partitioned> {
        Some(self)
    }
}

impl Partitioned for Config {
    fn bounds(&self, task: &Task) -> Result<Vec<u64>, Error> {
        let mut bounds = Bounds::new(self.size());
        for_each_stretch::<Error>(&windows(task)?.path(WINDOWS), |stretch| {
            bounds.push(stretch.interval.len());
            Ok(())
        })?;
        Ok(bounds.finish())
    }

    fn size(&self) -> u64 {
        self.partition.unwrap_or(partition::SIZE)
    }

    fn open<'a>(&'a self, task: &'a Task<'a>) -> Result<Box<dyn Work + 'a>, Error> {
        let windows = windows(task)?;
        let sequence = task.referenced(windows, "sequence")?;
        let file = task.input_of("tokenizer", &["tokenizer"])?.path(TOKENIZER);
        let tokenizer = tokenizers::open(&file)?;
        let records = read_records(&sequence.path(RECORDS))?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(task.threads).build();
        let pool = pool.map_err(std::io::Error::other).map_err(fs::error("start threads for", task.out))?;
        Ok(Box::new(Ready { task, windows, sequence, file, tokenizer, records, pool }))
    }
}

/// What every partition needs.
struct Ready<'a> {
    task: &'a Task<'a>,
    windows: &'a Artifact,
    sequence: Artifact,
    /// The tokenizer's.
    file: PathBuf,
    tokenizer: Box<dyn Tokenizer>,
    records: Vec<Record>,
    pool: ThreadPool,
}

impl Work for Ready<'_> {
    fn make(&self, task: &Task, partition: Partition) -> Result<Made, Error> {
        let mut tokenize = Tokenize::new(task, self.tokenizer.as_ref(), &self.records);
        let mut reader = None;
        let own = partition.start..partition.end;
        for_each_stretch_of::<Error>(&self.windows.path(WINDOWS), own, |stretch| {
            let reader = match &mut reader {
                Some(reader) => reader,
                none => none.insert(open_at(&self.sequence, &stretch)?),
            };
            let mut bases = Vec::new();
            fetch(reader, &stretch, &self.sequence, &mut bases)?;
            tokenize.push(stretch, bases);
            if tokenize.pending >= BATCH_BASES { self.pool.install(|| tokenize.flush()) } else { Ok(()) }
        })?;
        self.pool.install(|| tokenize.flush())?;
        tokenize.finish()
    }

    fn merge(&self, made: &mut dyn Iterator<Item = Result<Finished, Error>>) -> Result<Outcome, Error> {
        let out = self.task.out;
        std::fs::copy(&self.file, out.join(TOKENIZER)).map_err(fs::error("copy", &self.file))?;
        let (mut whole, mut encoding, mut files) = (Told::default(), 0.0, Vec::new());
        for kept in made {
            let kept = kept?;
            for entry in &kept.files {
                let split = out.join(split_of(&entry.path));
                fs::create_dir_all(&split)?;
                let name = format!("{}/part-{:05}.parquet", split_of(&entry.path), kept.partition.at);
                files.push(kept.place(entry, out, name)?);
            }
            whole.add(kept.account()?);
            encoding += kept.made.seconds.iter().map(|(_, seconds)| seconds).sum::<f64>();
        }
        let references = self.windows.manifest.references.clone();
        let seconds = vec![(ENCODE.to_owned(), encoding)];
        Ok(Outcome { references, seconds, files, ..whole.outcome(self.tokenizer.as_ref()) })
    }
}

/// The windows, which must not be intervals.
fn windows<'a>(task: &'a Task) -> Result<&'a Artifact, Error> {
    let windows = task.input_of("from", &["chunk", "decontaminate"])?;
    if has_windows(windows) {
        return Ok(windows);
    }
    let reason = "it holds intervals; put a chunk stage between the two".to_owned();
    Err(Error::Unusable { input: windows.manifest.stage.clone(), reason })
}

fn open_at(sequence: &Artifact, first: &Stretch) -> Result<SequenceReader, Error> {
    Ok(SequenceReader::open_at(sequence, first.record, first.interval.start)?)
}

struct Tokenize<'a> {
    task: &'a Task<'a>,
    tokenizer: &'a dyn Tokenizer,
    records: &'a [Record],
    batch: Vec<(Stretch, Vec<u8>)>,
    pending: u64,
    tables: BTreeMap<String, Writer>,
    told: Told,
    /// Time in which threads encoded.
    encoding: Duration,
}

/// What a partition, or all of them, say of themselves.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    counts: Counts,
    splits: BTreeMap<String, Tally>,
}

impl Told {
    fn add(&mut self, other: Self) {
        self.counts.add(&other.counts);
        for (split, tally) in other.splits {
            self.splits.entry(split).or_default().add(&tally);
        }
    }

    fn outcome(mut self, tokenizer: &dyn Tokenizer) -> Outcome {
        let tokens: u64 = self.splits.values().map(|tally| tally.tokens).sum();
        self.counts.set("tokens", tokens);
        let ratio = self.counts.bases_out as f64 / tokens.max(1) as f64;
        let train = self.splits.get("train");
        let split = |(name, tally)| (name, SplitDetails::new(tokenizer, tally, train));
        let splits: BTreeMap<&String, SplitDetails> = self.splits.iter().map(split).collect();
        let details = json!({ "splits": splits, "bases_per_token": ratio });
        let summary = format!("{tokens} tokens, {ratio:.3} bases per token");
        Outcome { counts: self.counts, details, summary, ..Outcome::default() }
    }
}

/// The tokens of a split.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Tally {
    windows: u64,
    tokens: u64,
    bases: u64,
    usage: Usage,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.windows += other.windows;
        self.tokens += other.tokens;
        self.bases += other.bases;
        self.usage.merge(&other.usage);
    }
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

/// The splits that were tokenized, each with the tables that hold its tokens, in order: a folder for each split, a table for
/// each partition.
pub fn tables(tokens: &Artifact) -> BTreeMap<String, Vec<PathBuf>> {
    let mut tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for entry in &tokens.manifest.files {
        if let Some((split, _)) = entry.path.split_once('/') {
            tables.entry(split).or_default().push(&entry.path);
        }
    }
    // The number of a partition above 99,999 has more digits.
    for paths in tables.values_mut() {
        paths.sort_by_key(|path| (path.len(), *path));
    }
    let path = |path: &str| tokens.path(path);
    tables
        .into_iter()
        .map(|(split, paths)| (split.to_owned(), paths.into_iter().map(path).collect()))
        .collect()
}

/// The table of a split in a partition.
fn table_name(split: &str) -> String {
    format!("{split}.parquet")
}

/// The split whose table has this name.
fn split_of(table: &str) -> &str {
    table.strip_suffix(".parquet").unwrap_or(table)
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
            told: Told::default(),
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
        self.task.progress(self.told.counts.bases_in, None, Unit::Bases);
        Ok(())
    }

    fn write(&mut self, split: &str, rows: &[&(Stretch, Vec<u32>)]) -> Result<(), Error> {
        let Told { counts, splits } = &mut self.told;
        let tally = splits.entry(split.to_owned()).or_default();
        let mut account = Account::default();
        for (stretch, ids) in rows {
            let bases = self.tokenizer.bases_of(ids);
            tally.usage.add(self.tokenizer, ids);
            tally.windows += 1;
            tally.tokens += ids.len() as u64;
            tally.bases += bases;
            counts.bases_in += stretch.interval.len();
            counts.bases_out += bases;
            let unknown = stretch.interval.len() - bases;
            counts.drop_bases(UNKNOWN, unknown);
            account.keep(bases);
            account.drop_bases(UNKNOWN, unknown);
        }
        counts.split(split).add(&account);
        if !self.tables.contains_key(split) {
            self.tables.insert(split.to_owned(), create(&self.task.out.join(table_name(split)))?);
        }
        let columns = columns(rows, self.records, self.tokenizer.id_bytes());
        self.tables.get_mut(split).map_or(Ok(()), |table| table.write(columns))?;
        Ok(())
    }

    fn finish(mut self) -> Result<Made, Error> {
        std::mem::take(&mut self.tables).into_values().try_for_each(Writer::finish)?;
        let seconds = vec![(ENCODE.to_owned(), self.encoding.as_secs_f64())];
        Ok(Made { account: to_json(&self.told), bases: self.told.counts.bases_in, seconds })
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
        let mut bytes = vec![0; ids.len() * id_bytes];
        write_ids(&mut bytes, ids, id_bytes);
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
    pub record: Arc<str>,
    /// Name of the record's source.
    pub source: Arc<str>,
    /// Where the window lies.
    pub interval: Interval,
    /// Which strand the tokens spell.
    pub strand: Strand,
    /// The tokens.
    pub tokens: Vec<u32>,
}

/// A window as a table has it.
pub struct Stored<'a> {
    record: &'a str,
    source: &'a str,
    interval: Interval,
    strand: Strand,
    /// Little-endian ids.
    tokens: &'a [u8],
    id_bytes: usize,
}

impl Stored<'_> {
    /// As one of its own.
    pub fn to_document(&self) -> Document {
        let (record, source, tokens) = (self.record.into(), self.source.into(), Vec::new());
        let mut document = Document { record, source, interval: self.interval, strand: self.strand, tokens };
        self.copy_to(&mut document);
        document
    }

    /// Puts it in the place of another, whose memory serves again.
    pub fn copy_to(&self, document: &mut Document) {
        let names = [(&mut document.record, self.record), (&mut document.source, self.source)];
        for (old, new) in names {
            if &**old != new {
                *old = new.into();
            }
        }
        (document.interval, document.strand) = (self.interval, self.strand);
        let ids = self.tokens.len() / self.id_bytes.max(1);
        if document.tokens.capacity() > 2 * ids {
            // What once held a long window must not do so for ever.
            document.tokens = Vec::with_capacity(ids);
        }
        document.tokens.clear();
        if self.id_bytes == 2 {
            let pairs = self.tokens.as_chunks().0;
            document.tokens.extend(pairs.iter().map(|&pair| u32::from(u16::from_le_bytes(pair))));
        } else {
            let fours = self.tokens.as_chunks().0;
            document.tokens.extend(fours.iter().map(|&four| u32::from_le_bytes(four)));
        }
    }
}

/// Calls `each` for every window of a table, in order. `id_bytes`: that of the tokenizer.
pub fn for_each_document(
    path: &Path,
    id_bytes: usize,
    mut each: impl FnMut(&Stored) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = Reader::open(path, BATCH_WINDOWS)?;
    while let Some(batch) = reader.next_batch()? {
        let (record, source) =
            (batch.column::<StringArray>("record")?, batch.column::<StringArray>("source")?);
        let (start, end) = (batch.column::<UInt64Array>("start")?, batch.column::<UInt64Array>("end")?);
        let (strand, tokens) =
            (batch.column::<StringArray>("strand")?, batch.column::<BinaryArray>("tokens")?);
        for i in 0..batch.rows() {
            each(&Stored {
                record: record.value(i),
                source: source.value(i),
                interval: Interval::new(start.value(i), end.value(i).max(start.value(i))),
                strand: if strand.value(i) == "-" { Strand::Reverse } else { Strand::Forward },
                tokens: tokens.value(i),
                id_bytes,
            })?;
        }
    }
    Ok(())
}
