//! Hugging Face's `tokenizer.json`: what of it is understood, and how ours are written.
//!
//! Read: models `BPE` and, with the word splitters that [`write_words`] writes, `WordLevel`. A field that would change
//! ids in a way that is not reproduced here (dropout, prefixes, normalizers that rewrite letters, ...) is refused with its
//! name. `truncation` and `padding` are ignored: lengths are the shard's business.
//!
//! Written: the same file for the same tokenizer, byte for byte; Hugging Face's `Tokenizer.from_file` gives equal ids.

use serde::Deserialize;
use serde_json::{Value, json};

use super::bpe::{Bpe, Parts};
use super::kmer::{self, Kmer};
use super::nucleotide::Nucleotide;
use super::vocabulary::Vocabulary;
use super::{Error, Tokenizer};

mod vocab;

/// Which words a `WordLevel` model holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// Single bases.
    Nucleotide,
    /// K-mers.
    Kmer(kmer::Config),
}

#[derive(Deserialize)]
struct File {
    version: Option<String>,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct Model {
    /// Files of old versions of Hugging Face's library leave it out.
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: vocab::Pairs,
    #[serde(default)]
    merges: Vec<vocab::Merge>,
}

/// Reads the text of a `tokenizer.json`.
///
/// # Errors
/// [`Error::Json`] for what is no such file; otherwise the error that names the field, the id or the merge at fault.
pub fn read(text: &str) -> Result<Box<dyn Tokenizer>, Error> {
    let file: File = serde_json::from_str(text)?;
    if let Some(version) = file.version.as_deref().filter(|&version| version != "1.0") {
        return Err(field("version", format!("`{version}`"), "`1.0`"));
    }
    match file.model.kind.as_deref() {
        Some("BPE") | None => Ok(Box::new(bpe_of(file)?)),
        Some("WordLevel") => words_of(file),
        Some(other) => Err(field("model.type", format!("`{other}`"), "`BPE` or `WordLevel`")),
    }
}

/// Reads the text of a `tokenizer.json` whose model is BPE.
///
/// # Errors
/// Those of [`read`].
pub fn read_bpe(text: &str) -> Result<Bpe, Error> {
    let file: File = serde_json::from_str(text)?;
    match file.model.kind.as_deref() {
        Some("BPE") | None => bpe_of(file),
        Some(other) => Err(field("model.type", format!("`{other}`"), "`BPE`")),
    }
}

fn field(field: &str, found: String, expected: &str) -> Error {
    Error::Field { field: field.into(), found, expected: expected.into() }
}

fn bpe_of(file: File) -> Result<Bpe, Error> {
    check_model(&file.model)?;
    check_normalizer(&file.normalizer)?;
    let drop_whitespace = reads_words(&file.pre_tokenizer)?;
    let vocabulary = vocabulary_of(file.model.vocab, &file.added_tokens)?;
    let unknown = unknown_of(file.model.unk_token.as_deref(), &vocabulary)?;
    let merges = merges_of(file.model.merges, &vocabulary)?;
    let (before, after) = template_of(&file.post_processor, &vocabulary)?;
    let fuse_unknown = file.model.fuse_unk;
    Bpe::new(Parts { vocabulary, merges, unknown, fuse_unknown, drop_whitespace, before, after })
}

fn check_model(model: &Model) -> Result<(), Error> {
    let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
        return Err(field("model.dropout", dropout.to_string(), "null: encoding must not depend on chance"));
    }
    if let Some(prefix) = text(&model.continuing_subword_prefix) {
        return Err(field("model.continuing_subword_prefix", format!("`{prefix}`"), "null"));
    }
    if let Some(suffix) = text(&model.end_of_word_suffix) {
        return Err(field("model.end_of_word_suffix", format!("`{suffix}`"), "null"));
    }
    for (name, value) in [("byte_fallback", model.byte_fallback), ("ignore_merges", model.ignore_merges)] {
        if value {
            return Err(field(&format!("model.{name}"), "true".into(), "false"));
        }
    }
    Ok(())
}

/// The `type` of a part of the file; empty for null.
fn kind(part: &Value) -> &str {
    part.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The members of a `Sequence`, or the part itself; none for null.
fn members<'a>(part: &'a Value, list: &str) -> Vec<&'a Value> {
    match (part, part.get(list).and_then(Value::as_array)) {
        (Value::Null, _) => Vec::new(),
        (_, Some(parts)) if kind(part) == "Sequence" => parts.iter().collect(),
        _ => vec![part],
    }
}

fn check_normalizer(normalizer: &Value) -> Result<(), Error> {
    for part in members(normalizer, "normalizers") {
        if !matches!(kind(part), "NFC" | "NFD" | "NFKC" | "NFKD") {
            return Err(field("normalizer", part.to_string(), "null: letters must stay as they are"));
        }
    }
    Ok(())
}

/// Whether white space separates words.
fn reads_words(pre_tokenizer: &Value) -> Result<bool, Error> {
    let parts = members(pre_tokenizer, "pretokenizers");
    for part in &parts {
        if !matches!(kind(part), "Whitespace" | "WhitespaceSplit") {
            return Err(field("pre_tokenizer", part.to_string(), "null, `Whitespace` or `WhitespaceSplit`"));
        }
    }
    Ok(!parts.is_empty())
}

fn vocabulary_of(pairs: vocab::Pairs, added: &[AddedToken]) -> Result<Vocabulary, Error> {
    let mut pairs = pairs.0;
    for token in added {
        check_added(token)?;
        pairs.push((token.content.clone(), token.id));
    }
    let special: Vec<u32> = added.iter().map(|token| token.id).collect();
    Vocabulary::from_pairs(pairs, &special)
}

/// An added token is found in the text before BPE: one of letters only would cut sequences.
fn check_added(token: &AddedToken) -> Result<(), Error> {
    let name = |what: &str| format!("added_tokens[`{}`]{what}", token.content);
    if !token.content.starts_with(|c: char| !c.is_alphanumeric() && !c.is_whitespace()) {
        return Err(field(&name(""), "text of sequence".into(), "a mark, such as `[PAD]`"));
    }
    for (what, value) in
        [(".single_word", token.single_word), (".lstrip", token.lstrip), (".rstrip", token.rstrip)]
    {
        if value {
            return Err(field(&name(what), "true".into(), "false"));
        }
    }
    Ok(())
}

fn unknown_of(text: Option<&str>, vocabulary: &Vocabulary) -> Result<Option<u32>, Error> {
    let Some(text) = text else { return Ok(None) };
    let id = vocabulary.id(text);
    id.map(Some)
        .ok_or_else(|| field("model.unk_token", format!("`{text}`, which is no token"), "a token or null"))
}

fn merges_of(merges: Vec<vocab::Merge>, vocabulary: &Vocabulary) -> Result<Vec<(u32, u32)>, Error> {
    let ids = |(index, vocab::Merge(left, right)): (usize, vocab::Merge)| {
        let id = |text: &str| vocabulary.id(text);
        match (id(&left), id(&right)) {
            (Some(a), Some(b)) => Ok((a, b)),
            (a, _) => {
                let missing = if a.is_none() { left.clone() } else { right.clone() };
                Err(Error::MergeOfUnknown { index, left, right, missing })
            }
        }
    };
    merges.into_iter().enumerate().map(ids).collect()
}

/// Special tokens before and after a sequence.
fn template_of(processor: &Value, vocabulary: &Vocabulary) -> Result<(Vec<u32>, Vec<u32>), Error> {
    match kind(processor) {
        "" if processor.is_null() => Ok((Vec::new(), Vec::new())),
        "TemplateProcessing" => read_template(processor, vocabulary),
        "BertProcessing" | "RobertaProcessing" => {
            let id = |name: &str| processor.get(name)?.get(1)?.as_u64().and_then(|id| u32::try_from(id).ok());
            match (id("cls"), id("sep")) {
                (Some(cls), Some(sep)) if cls.max(sep) < vocabulary.len() => Ok((vec![cls], vec![sep])),
                _ => Err(bad_template(processor)),
            }
        }
        _ => Err(bad_template(processor)),
    }
}

fn bad_template(processor: &Value) -> Error {
    field("post_processor", processor.to_string(), "null, or a template of known tokens around one sequence")
}

fn read_template(processor: &Value, vocabulary: &Vocabulary) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let bad = || bad_template(processor);
    let items = processor.get("single").and_then(Value::as_array).ok_or_else(bad)?;
    let mut sides = [Vec::new(), Vec::new()];
    let mut side = 0;
    for item in items {
        if let Some(name) = item.pointer("/SpecialToken/id").and_then(Value::as_str) {
            sides[side].extend(template_ids(processor, name, vocabulary).ok_or_else(bad)?);
        } else if item.get("Sequence").is_some() && side == 0 {
            side = 1;
        } else {
            return Err(bad());
        }
    }
    let [before, after] = sides;
    if side == 1 { Ok((before, after)) } else { Err(bad()) }
}

fn template_ids(processor: &Value, name: &str, vocabulary: &Vocabulary) -> Option<Vec<u32>> {
    let ids = processor.get("special_tokens")?.get(name)?.get("ids")?.as_array()?;
    let id = |value: &Value| {
        value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| id < vocabulary.len())
    };
    ids.iter().map(id).collect()
}

/// A `WordLevel` file must be one that is written here, token for token.
fn words_of(file: File) -> Result<Box<dyn Tokenizer>, Error> {
    let vocabulary = vocabulary_of(file.model.vocab, &file.added_tokens)?;
    let overlapping = kind(&file.pre_tokenizer) == "WhitespaceSplit";
    let known = words_like(&vocabulary, overlapping)?;
    let same = |id: &u32| known.text(*id) == vocabulary.text(*id);
    let Some(id) = (0..vocabulary.len().max(known.vocabulary_size())).find(|id| !same(id)) else {
        return Ok(known);
    };
    let name = |text: Option<&str>| text.map_or("no token".to_owned(), |text| format!("`{text}`"));
    let found = format!("{} at id {id}", name(vocabulary.text(id)));
    Err(field("model.vocab", found, &name(known.text(id))))
}

/// The tokenizer of words whose vocabulary could be this one.
fn words_like(vocabulary: &Vocabulary, overlapping: bool) -> Result<Box<dyn Tokenizer>, Error> {
    let hyena = Nucleotide::hyena();
    if vocabulary.text(0) == hyena.text(0) {
        let all = vocabulary.len() > hyena.vocabulary_size();
        return Ok(Box::new(if all { Nucleotide::new() } else { hyena }));
    }
    let k = (0..vocabulary.len()).map(|id| vocabulary.bases(id)).max().unwrap_or(0);
    Ok(Box::new(Kmer::new(kmer::Config { k, overlapping })?))
}

/// The text of a BPE tokenizer.
pub fn write_bpe(bpe: &Bpe) -> String {
    let parts = bpe.parts();
    let text = |id: u32| parts.vocabulary.text(id).unwrap_or_default();
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": parts.unknown.map(text),
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": parts.fuse_unknown,
        "byte_fallback": false,
        "ignore_merges": false,
        "vocab": vocab_json(&parts.vocabulary),
        "merges": bpe.merges().map(|(left, right)| json!([left, right])).collect::<Vec<_>>(),
    });
    let split = if parts.drop_whitespace { json!({"type": "WhitespaceSplit"}) } else { Value::Null };
    let template = write_template(parts);
    pretty(&file_json(&parts.vocabulary, &split, &template, &json!({"type": "Fuse"}), &model))
}

fn file_json(
    vocabulary: &Vocabulary,
    split: &Value,
    template: &Value,
    decoder: &Value,
    model: &Value,
) -> Value {
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_json(vocabulary),
        "normalizer": null,
        "pre_tokenizer": split,
        "post_processor": template,
        "decoder": decoder,
        "model": model,
    })
}

fn added_json(vocabulary: &Vocabulary) -> Vec<Value> {
    let special = (0_u32..).zip(vocabulary.iter()).filter(|(_, (_, special))| *special);
    special
        .map(|(id, (text, _))| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect()
}

fn vocab_json(vocabulary: &Vocabulary) -> Value {
    (0_u32..).zip(vocabulary.iter()).map(|(id, (text, _))| (text.to_owned(), Value::from(id))).collect()
}

fn write_template(parts: &Parts) -> Value {
    if parts.before.is_empty() && parts.after.is_empty() {
        return Value::Null;
    }
    let text = |id: &u32| parts.vocabulary.text(*id).unwrap_or_default();
    let items = |ids: &[u32]| -> Vec<Value> {
        ids.iter().map(|id| json!({"SpecialToken": {"id": text(id), "type_id": 0}})).collect()
    };
    let sequence = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
    let single = [items(&parts.before), vec![sequence("A")], items(&parts.after)].concat();
    let pair = [single.clone(), vec![sequence("B")], items(&parts.after)].concat();
    let special: serde_json::Map<String, Value> = parts
        .before
        .iter()
        .chain(&parts.after)
        .map(|id| (text(id).to_owned(), json!({"id": text(id), "ids": [id], "tokens": [text(id)]})))
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
}

/// The text of a tokenizer of words. Overlapping k-mers are written for input that is k-mers already, with spaces
/// between them, since Hugging Face's library cannot make overlapping words.
pub fn write_words(vocabulary: &Vocabulary, unknown: &str, words: Words) -> String {
    let split = |pattern: String| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let fuse = json!({"type": "Fuse"});
    let (split, decoder) = match words {
        Words::Nucleotide => (split(r"[\s\S]".into()), fuse),
        Words::Kmer(config) if config.overlapping => (json!({"type": "WhitespaceSplit"}), Value::Null),
        Words::Kmer(config) => (split(format!(r"[ACGT]{{{}}}|[\s\S]", config.k)), fuse),
    };
    let model = json!({"type": "WordLevel", "vocab": vocab_json(vocabulary), "unk_token": unknown});
    pretty(&file_json(vocabulary, &split, &Value::Null, &decoder, &model))
}

fn pretty(file: &Value) -> String {
    format!("{file:#}\n")
}
