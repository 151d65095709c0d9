//! Packs the tokens of windows into rows of one length and writes the shard set. Memory: a row group of the shard.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tokenize::{Document, for_each_document, table_name};
use super::tokenizer::TOKENIZER;
use super::{Error, Outcome, Stage, Task, from, to_json};
use crate::artifact::Counts;
use crate::fs;
use crate::observer::Unit;
use crate::shard::{Details, SCHEMA, Segment, Split, SplitWriter};
use crate::tokenizer::{self as tokenizers, Tokenizer};
use crate::units::Strand;

/// How to pack.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that tokenized the windows.
    from: String,
    /// Tokens per row.
    #[schemars(range(min = 1))]
    context: u32,
    /// `concat` (default): windows follow each other, over the ends of rows; `none`: each window begins a row.
    #[serde(default)]
    pack: Pack,
    /// The special token after each window; null for none. Default `[EOS]` if the tokenizer has it, else `[SEP]`.
    #[serde(default = "automatic")]
    separator: Option<String>,
    /// Tokens of a shard file, in MiB. Default 256.
    #[serde(default = "default_file_mib")]
    #[schemars(range(min = 1))]
    file_mib: u64,
}

/// How windows share rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Pack {
    /// Windows follow each other, over the ends of rows.
    #[default]
    Concat,
    /// Each window begins a row; the rest of its last row is padding.
    None,
}

/// The separator that stands for "choose one".
const AUTOMATIC: &str = "auto";

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional key")]
fn automatic() -> Option<String> {
    Some(AUTOMATIC.to_owned())
}

const fn default_file_mib() -> u64 {
    256
}

impl Config {
    fn separator(&self, tokenizer: &dyn Tokenizer) -> Result<Option<u32>, Error> {
        match self.separator.as_deref() {
            None => Ok(None),
            Some(AUTOMATIC) => Ok(tokenizer.special("[EOS]").or_else(|| tokenizer.special("[SEP]"))),
            Some(text) => tokenizer.special(text).map(Some).ok_or_else(|| Error::Config {
                key: "separator",
                reason: format!("the tokenizer has no special token `{text}`"),
            }),
        }
    }
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        from(&self.from)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.context == 0 {
            problems.push(("context", "is 0, expected at least 1 token".to_owned()));
        }
        if self.file_mib == 0 {
            problems.push(("file_mib", "is 0, expected at least 1".to_owned()));
        }
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let input = task.input_of("from", &["tokenize"])?;
        let (file, copy) = (input.path(TOKENIZER), task.out.join(TOKENIZER));
        std::fs::copy(&file, &copy).map_err(fs::error("copy", &file))?;
        let tokenizer = tokenizers::open(&file)?;
        let names = input.manifest.files.iter().filter_map(|entry| entry.path.strip_suffix(".parquet"));
        let mut counts = Counts::default();
        let mut splits = BTreeMap::new();
        for name in names {
            let split = self.split(task, tokenizer.as_ref(), name, &mut counts)?;
            splits.insert(name.to_owned(), split);
        }
        let rows: u64 = splits.values().map(|split| split.rows).sum();
        counts.set("rows", rows);
        counts.set("tokens", splits.values().map(|split| split.tokens).sum());
        counts.set("padding tokens", splits.values().map(|split| split.padding).sum());
        let details = to_json(&self.details(tokenizer.as_ref(), splits));
        Ok(Outcome {
            counts,
            details,
            summary: format!("{rows} rows of {} tokens", self.context),
            ..Outcome::default()
        })
    }
}

impl Config {
    fn details(&self, tokenizer: &dyn Tokenizer, splits: BTreeMap<String, Split>) -> Details {
        let names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]"];
        Details {
            schema: SCHEMA.to_owned(),
            profile: "mapped".to_owned(),
            context: self.context as usize,
            token_bytes: token_bytes(tokenizer),
            vocabulary_size: tokenizer.vocabulary_size(),
            special: names.iter().filter_map(|n| Some(((*n).to_owned(), tokenizer.special(n)?))).collect(),
            tokenizer: TOKENIZER.to_owned(),
            tokenizer_fingerprint: tokenizer.fingerprint().to_hex().to_string(),
            splits,
        }
    }

    fn split(
        &self,
        task: &Task,
        tokenizer: &dyn Tokenizer,
        name: &str,
        counts: &mut Counts,
    ) -> Result<Split, Error> {
        let input = task.input("from")?;
        let context = self.context as usize;
        let writer = SplitWriter::new(task.out, name, context, token_bytes(tokenizer), self.file_mib << 20);
        let pad = tokenizer.special("[PAD]").unwrap_or(0);
        let separator = self.separator(tokenizer)?;
        let mut packer = Packer { tokenizer, writer, context, pad, row: Vec::new(), segments: Vec::new() };
        for_each_document(&input.path(&table_name(name)), |document| {
            counts.bases_in += tokenizer.bases_of(&document.tokens);
            packer.document(&document, separator)?;
            if self.pack == Pack::None {
                packer.end_row()?;
            }
            task.progress(counts.bases_in, None, Unit::Bases);
            task.check()
        })?;
        packer.end_row()?;
        let split = packer.writer.finish()?;
        counts.bases_out += split.bases;
        Ok(split)
    }
}

fn token_bytes(tokenizer: &dyn Tokenizer) -> usize {
    if tokenizer.vocabulary_size() > 1 << 16 { 4 } else { 2 }
}

/// Fills rows with tokens and remembers where they came from.
struct Packer<'a> {
    tokenizer: &'a dyn Tokenizer,
    writer: SplitWriter,
    context: usize,
    pad: u32,
    row: Vec<u32>,
    segments: Vec<Segment>,
}

impl Packer<'_> {
    fn document(&mut self, document: &Document, separator: Option<u32>) -> Result<(), Error> {
        let mut done = 0;
        while done < document.tokens.len() {
            let room = self.context - self.row.len();
            let part = done..(done + room).min(document.tokens.len());
            let segment = self.segment(document, part.clone());
            self.segments.push(segment);
            self.row.extend_from_slice(&document.tokens[part.clone()]);
            done = part.end;
            self.end_full_row()?;
        }
        self.row.extend(separator);
        self.end_full_row()
    }

    /// Where a part of a document's tokens lies. On the reverse strand the first token is the last of the interval.
    fn segment(&self, document: &Document, part: std::ops::Range<usize>) -> Segment {
        let bases = |tokens: &[u32]| self.tokenizer.bases_of(tokens);
        let (from, to) = (bases(&document.tokens[..part.start]), bases(&document.tokens[..part.end]));
        let (start, end) = match document.strand {
            Strand::Forward => (document.interval.start + from, document.interval.start + to),
            Strand::Reverse => (document.interval.end - to, document.interval.end - from),
        };
        let token_start = u32::try_from(self.row.len()).unwrap_or(u32::MAX);
        Segment {
            token_start,
            token_end: token_start + u32::try_from(part.len()).unwrap_or(u32::MAX),
            record: document.record.clone(),
            source: document.source.clone(),
            start,
            end,
            strand: document.strand,
        }
    }

    fn end_full_row(&mut self) -> Result<(), Error> {
        if self.row.len() == self.context { self.end_row() } else { Ok(()) }
    }

    /// Writes the row, padded; an empty one is none.
    fn end_row(&mut self) -> Result<(), Error> {
        if self.row.is_empty() {
            return Ok(());
        }
        let padding = self.context - self.row.len();
        self.row.resize(self.context, self.pad);
        self.writer.push(&self.row, padding, std::mem::take(&mut self.segments))?;
        self.row.clear();
        Ok(())
    }
}
