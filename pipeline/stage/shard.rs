//! Packs the tokens of windows into rows of one length and writes the shard set: one thread reads, one packs, the others
//! encode. Memory: two row groups per thread (8 MiB of tokens each), and what [`pack`] holds; not the number of rows.

mod context;
mod mixture;
mod pack;
mod weights;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, sync_channel};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::context::Context;
use self::mixture::{Draw, Mixture};
use self::pack::{Pack, Packer};
use self::weights::{LossWeight, Masks};
use super::tokenize::{Document, Stored, for_each_document, tables};
use super::tokenizer::TOKENIZER;
use super::{Error, Outcome, Stage, Task, from, to_json};
use crate::artifact::{Account, Artifact, Counts, FileEntry, MANIFEST, Part, SourceFile};
use crate::fs;
use crate::observer::Unit;
use crate::shard::contexts::{self, Contexts};
use crate::shard::{ARCHIVE, Details, Layout, MAPPED, Packing, Row, SCHEMA, Split, SplitWriter};
use crate::tokenizer::{self as tokenizers, Tokenizer};

/// How to pack.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that tokenized the windows.
    from: String,
    /// Tokens per row: a number, or a list, which makes a set of each, in folders `context-512` and so on.
    context: Context,
    /// `concat` (default): windows follow each other, over the ends of rows; `none`: each window begins a row; `best_fit`:
    /// windows that fit a row are never cut.
    #[serde(default)]
    pack: Pack,
    /// The special token before each window, such as `[BOS]`. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begin: Option<String>,
    /// The special token that ends each window. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    /// The special token after each window; null for none. Default none if there is an `end` or with `pack: none`, else
    /// `[EOS]` if the tokenizer has it, else `[SEP]`.
    #[serde(default = "automatic")]
    separator: Option<String>,
    /// `mapped` (default): rows are served from the file as they lie there; `archive`: compressed, to be kept or sent.
    #[serde(default, skip_serializing_if = "Profile::is_mapped")]
    profile: Profile,
    /// What tokens count in a trainer's loss, as a column beside them. Default: no such column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_weight: Option<LossWeight>,
    /// In what proportions the sources stand in the split `train`. Default: every window once, as it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mixture: Option<Mixture>,
    /// Tokens of a shard file, in MiB. Default 256.
    #[serde(default = "default_file_mib")]
    #[schemars(range(min = 1))]
    file_mib: u64,
}

/// How tokens are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Profile {
    /// As they are, aligned.
    #[default]
    Mapped,
    /// With zstd.
    Archive,
}

impl Profile {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_mapped(&self) -> bool {
        *self == Self::Mapped
    }

    fn name(self) -> &'static str {
        match self {
            Self::Mapped => MAPPED,
            Self::Archive => ARCHIVE,
        }
    }
}

/// The split whose sources are mixed.
const MIXED: &str = "train";

/// The input that says what sources weigh.
const WEIGHTS: &str = "mixture.weights_from";

/// The separator that stands for "choose one".
const AUTOMATIC: &str = "auto";

/// Bytes of a token, at least.
const SHORTEST_ID_BYTES: u64 = 2;

/// Batches of windows that wait between reading and packing.
const READ_AHEAD: usize = 8;
/// Tokens of a batch, at least: a thread that waits is not woken for every window, and finds them in its cache.
const BATCH_TOKENS: usize = 1 << 16;

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional key")]
fn automatic() -> Option<String> {
    Some(AUTOMATIC.to_owned())
}

const fn default_file_mib() -> u64 {
    256
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        let weights = self.mixture.as_ref().and_then(Mixture::weights_from);
        let weights = weights.map(|stage| (WEIGHTS.to_owned(), stage.to_owned()));
        from(&self.from).into_iter().chain(weights).collect()
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        problems.extend(self.context.problem().map(|reason| ("context", reason)));
        if self.file_mib == 0 {
            problems.push(("file_mib", "is 0, expected at least 1".to_owned()));
        }
        problems.extend(self.loss_weight.and_then(|w| w.byte().err()).map(|reason| ("loss_weight", reason)));
        let mixture = self.mixture.iter().flat_map(Mixture::problems);
        problems.extend(mixture.map(|reason| ("mixture", reason)));
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn least_bytes(&self, inputs: &BTreeMap<String, Artifact>, _: &[SourceFile]) -> u64 {
        // A mixture may leave windows out; an archive is compressed.
        if self.mixture.is_some() || !self.profile.is_mapped() {
            return 0;
        }
        let tokens = inputs.get("from").and_then(|tokens| tokens.manifest.counts.other.get("tokens"));
        tokens.copied().unwrap_or(0) * SHORTEST_ID_BYTES * self.context.list().len() as u64
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let input = task.input_of("from", &["tokenize"])?;
        let file = input.path(TOKENIZER);
        let tokenizer = tokenizers::open(&file)?;
        let masks = self.loss_weight.map(|weight| Masks::read(task, input, weight)).transpose()?;
        let draw =
            self.mixture.as_ref().map(|mixture| draw(task, tokenizer.as_ref(), mixture)).transpose()?;
        let (tokenizer, packing) = (tokenizer.as_ref(), self.packing(tokenizer.as_ref())?);
        let set = |context| Set {
            config: self,
            task,
            context,
            tokenizer,
            packing: &packing,
            masks: masks.as_ref(),
            draw: draw.as_ref(),
        };
        match &self.context {
            Context::One(context) => set(*context).write(&file, task.out),
            Context::Several(contexts) => {
                several(contexts.iter().map(|&context| set(context)), &file, task.out)
            }
        }
    }
}

/// Decides how often each window of `train` is written.
fn draw(task: &Task, tokenizer: &dyn Tokenizer, mixture: &Mixture) -> Result<Draw, Error> {
    let tokens = task.input("from")?;
    let tables = tables(tokens).remove(MIXED);
    let Some(tables) = tables else {
        let reason =
            format!("`{}` has no split `{MIXED}`, which is the one that is mixed", tokens.manifest.stage);
        return Err(Error::Config { key: "mixture", reason });
    };
    let draw = Draw::new(mixture, &weights(task, mixture)?, |each| {
        for_each_ahead(&tables, tokenizer.id_bytes(), |window| {
            each(window, tokenizer.bases_of(&window.tokens));
            task.check()
        })
    })?;
    draw.details().shortfalls().into_iter().for_each(|sentence| task.note(format!("mixture: {sentence}")));
    Ok(draw)
}

/// What the sources of an ingest weigh, by name. Those without a weight are left out.
fn weights(task: &Task, mixture: &Mixture) -> Result<BTreeMap<String, f64>, Error> {
    let mut weights = BTreeMap::new();
    let Some(stage) = mixture.weights_from() else { return Ok(weights) };
    let ingest = task.input_of(WEIGHTS, &["ingest"])?;
    for file in ingest.manifest.details["sources"].as_array().into_iter().flatten() {
        let (Some(name), Some(weight)) = (file["name"].as_str(), file["weight"].as_f64()) else { continue };
        let other =
            weights.insert(name.to_owned(), weight).filter(|other| other.to_bits() != weight.to_bits());
        if let Some(other) = other {
            let reason =
                format!("source `{name}` has the weights {other} and {weight} in `{stage}`, expected one");
            return Err(Error::Config { key: "mixture", reason });
        }
    }
    if weights.is_empty() {
        let reason = format!("no source of `{stage}` has a weight");
        return Err(Error::Config { key: "mixture", reason });
    }
    Ok(weights)
}

/// Writes a set into a folder for each context.
fn several<'a>(sets: impl Iterator<Item = Set<'a>>, tokenizer: &Path, out: &Path) -> Result<Outcome, Error> {
    let mut whole = Outcome { volatile: vec![MANIFEST], ..Outcome::default() };
    let (mut listed, mut summaries) = (Vec::new(), Vec::new());
    for set in sets {
        let context = set.layout().context;
        let folder = contexts::folder(context);
        let path = out.join(&folder);
        fs::create_dir_all(&path)?;
        let outcome = set.write(tokenizer, &path)?;
        let within = |entry: FileEntry| FileEntry { path: format!("{folder}/{}", entry.path), ..entry };
        whole.files.extend(outcome.files.into_iter().map(within));
        whole.counts.add(&outcome.counts);
        whole.parts.push(Part { folder, counts: outcome.counts, details: outcome.details });
        summaries.push(outcome.summary);
        listed.push(context);
    }
    Ok(Outcome { details: to_json(&Contexts { contexts: listed }), summary: summaries.join("; "), ..whole })
}

impl Config {
    /// The special tokens around windows.
    fn packing(&self, tokenizer: &dyn Tokenizer) -> Result<Packing, Error> {
        let special = |key, text: &Option<String>| {
            let unknown = |text: &String| Error::Config {
                key,
                reason: format!("the tokenizer has no special token `{text}`"),
            };
            text.as_ref().map(|text| tokenizer.special(text).ok_or_else(|| unknown(text))).transpose()
        };
        let separator = match self.separator.as_deref() {
            // Rows of one window each need no mark between windows, which could need a row of its own.
            Some(AUTOMATIC) if self.end.is_some() || self.pack == Pack::None => None,
            Some(AUTOMATIC) => tokenizer.special("[EOS]").or_else(|| tokenizer.special("[SEP]")),
            _ => special("separator", &self.separator)?,
        };
        Ok(Packing {
            pack: self.pack.name().to_owned(),
            begin: special("begin", &self.begin)?,
            end: special("end", &self.end)?,
            separator,
            padding: tokenizer.special("[PAD]").unwrap_or(0),
        })
    }
}

/// A shard set in the making.
struct Set<'a> {
    config: &'a Config,
    task: &'a Task<'a>,
    context: u32,
    tokenizer: &'a dyn Tokenizer,
    packing: &'a Packing,
    masks: Option<&'a Masks>,
    draw: Option<&'a Draw>,
}

impl Set<'_> {
    fn layout(&self) -> Layout {
        Layout {
            context: self.context as usize,
            token_bytes: self.tokenizer.id_bytes(),
            weights: self.masks.is_some(),
            archive: !self.config.profile.is_mapped(),
        }
    }

    /// Writes the tokenizer and every split into a folder.
    fn write(&self, tokenizer: &Path, out: &Path) -> Result<Outcome, Error> {
        std::fs::copy(tokenizer, out.join(TOKENIZER)).map_err(fs::error("copy", tokenizer))?;
        let mut counts = Counts::default();
        let tables = tables(self.task.input("from")?).into_iter();
        let splits =
            tables.map(|(name, tables)| Ok((name.clone(), self.split(out, &name, &tables, &mut counts)?)));
        let splits = splits.collect::<Result<_, Error>>()?;
        Ok(self.outcome(splits, counts))
    }

    fn split(&self, out: &Path, name: &str, tables: &[PathBuf], counts: &mut Counts) -> Result<Split, Error> {
        let (config, task, layout) = (self.config, self.task, self.layout());
        let mut writer = SplitWriter::new(out, name, layout, config.file_mib << 20, task.threads)?;
        let emit = |row: &mut Row| Ok(writer.push(row)?);
        let mut packer = Packer::new(self.tokenizer, layout.context, config.pack, self.packing, emit);
        let mut weights = Vec::new();
        let mut account = Account::default();
        let draw = self.draw.filter(|_| name == MIXED);
        // A window that comes again does so after all the others, on rows that its first copy is not on.
        for pass in 0..draw.map_or(1, |draw| draw.passes().max(1)) {
            for_each_ahead(tables, layout.token_bytes, |window| {
                let taken = draw.is_none_or(|draw| pass < draw.times(window));
                if !taken && pass > 0 {
                    return task.check();
                }
                let bases = self.tokenizer.bases_of(&window.tokens);
                counts.bases_in += bases;
                if !taken {
                    counts.drop_bases("left out of the mixture", bases);
                    account.drop_bases("left out of the mixture", bases);
                    return task.check();
                }
                account.bases_in += bases;
                if let Some(masks) = self.masks {
                    masks.weigh(self.tokenizer, window, &mut weights);
                }
                packer.push(window, bases, &weights)?;
                task.progress(counts.bases_in, None, Unit::Bases);
                task.check()
            })?;
            packer.end()?;
        }
        let split = writer.finish()?;
        counts.bases_out += split.bases;
        account.bases_out += split.bases;
        counts.split(name).add(&account);
        Ok(split)
    }

    fn details(&self, splits: BTreeMap<String, Split>) -> Details {
        let names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]"];
        let special = |name: &str| Some((name.to_owned(), self.tokenizer.special(name)?));
        let layout = self.layout();
        Details {
            schema: SCHEMA.to_owned(),
            profile: self.config.profile.name().to_owned(),
            context: layout.context,
            token_bytes: layout.token_bytes,
            vocabulary_size: self.tokenizer.vocabulary_size(),
            special: names.into_iter().filter_map(special).collect(),
            tokenizer: TOKENIZER.to_owned(),
            tokenizer_fingerprint: self.tokenizer.fingerprint().to_hex().to_string(),
            packing: Some(self.packing.clone()),
            loss_weights: self.masks.map(Masks::details),
            mixture: self.draw.map(Draw::details),
            splits,
        }
    }

    fn outcome(&self, splits: BTreeMap<String, Split>, mut counts: Counts) -> Outcome {
        let sum = |count: fn(&Split) -> u64| splits.values().map(count).sum::<u64>();
        let rows = sum(|split| split.rows);
        counts.set("rows", rows);
        counts.set("tokens", sum(|split| split.tokens));
        counts.set("padding tokens", sum(|split| split.padding));
        let files = splits.values().flat_map(|split| &split.files).map(|file| FileEntry {
            path: file.path.clone(),
            bytes: file.bytes,
            blake3: file.blake3.clone(),
            volatile: false,
        });
        Outcome {
            counts,
            files: files.collect(),
            details: to_json(&self.details(splits)),
            summary: format!("{rows} rows of {} tokens", self.context),
            ..Outcome::default()
        }
    }
}

/// Windows that wait between reading and packing, and the memory of some that went before: at most twice what those needed.
#[derive(Default)]
struct Batch {
    documents: Vec<Document>,
    /// How many of them are windows.
    length: usize,
    tokens: usize,
}

impl Batch {
    fn push(&mut self, window: &Stored) {
        match self.documents.get_mut(self.length) {
            Some(used) => window.copy_to(used),
            None => self.documents.push(window.to_document()),
        }
        self.tokens += self.documents[self.length].tokens.len();
        self.length += 1;
    }
}

/// Calls `each` for every window of some tables, in order, while another thread reads on.
fn for_each_ahead(
    tables: &[PathBuf],
    id_bytes: usize,
    mut each: impl FnMut(&Document) -> Result<(), Error>,
) -> Result<(), Error> {
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel(READ_AHEAD);
        let (give_back, used) = channel::<Batch>();
        let reader = scope.spawn(move || {
            let mut batch = Batch::default();
            let mut take = |window: &Stored| {
                batch.push(window);
                if batch.tokens < BATCH_TOKENS {
                    return Ok(());
                }
                let next = used.try_recv().unwrap_or_default();
                let next = Batch { documents: next.documents, ..Batch::default() };
                sender.send(std::mem::replace(&mut batch, next)).map_err(|_| Error::Interrupted)
            };
            tables.iter().try_for_each(|table| for_each_document(table, id_bytes, &mut take))?;
            sender.send(batch).map_err(|_| Error::Interrupted)
        });
        let done = batches.iter().try_for_each(|mut batch| {
            batch.documents.truncate(batch.length);
            batch.documents.iter().try_for_each(&mut each)?;
            // Nobody takes it when all is read.
            give_back.send(batch).unwrap_or_default();
            Ok(())
        });
        drop(batches);
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.and(read)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::nucleotide::Nucleotide;

    #[test]
    fn windows_are_separated_where_they_share_rows() {
        let tokenizer = Nucleotide::new();
        let sep = tokenizer.special("[SEP]");
        let mark = tokenizer.special("[EOS]").or(sep);
        for (options, expected) in [
            (r#""pack": "concat""#, mark),
            (r#""pack": "best_fit""#, mark),
            (r#""pack": "concat", "end": "[SEP]""#, None),
            (r#""pack": "concat", "separator": null"#, None),
            (r#""pack": "none""#, None),
            (r#""pack": "none", "separator": "[SEP]""#, sep),
        ] {
            let config: Config =
                serde_json::from_str(&format!(r#"{{"from": "x", "context": 4, {options}}}"#)).unwrap();
            assert_eq!(config.packing(&tokenizer).unwrap().separator, expected, "{options}");
        }
    }
}
