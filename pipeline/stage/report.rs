//! Gathers what the manifests of everything upstream say and writes one HTML page. Memory: the manifests, the training
//! history and one count per token.

mod sequences;
pub mod study;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::evaluate::RESULTS;
use super::tokenize::{ENCODE, SplitDetails};
use super::{Error, Outcome, Stage, Task, part, to_json};
use crate::artifact::{self, Artifact, Counts};
use crate::evaluate::result;
use crate::fs;
use crate::report::{
    Audited, Command, Contamination, Count, Data, Dropped, Evaluation, Fact, Failure, Histogram, Leaderboard,
    Machine, MixedSource, Mixture, Point, Shard, Source, Split, Stage as Row, Status, Token, TokenLength,
    Tokens, Training, Vocabularies, Vocabulary, count, render,
};
use crate::shard::{Details, KINDS, ShardSet, contexts};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::info::{Listed, Usage};
use crate::train::{Record, read_history};

/// The page within the artifact.
pub const PAGE: &str = "report.html";

/// What to report on.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stages to report on; everything that they were made from comes along.
    #[schemars(length(min = 1))]
    from: Vec<String>,
    /// A sentence or two about the workflow, for its readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        self.from.iter().enumerate().map(|(i, stage)| (format!("from.{i}"), stage.clone())).collect()
    }

    fn looks_behind(&self) -> bool {
        true
    }

    fn does_with_less(&self) -> bool {
        true
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        if self.from.is_empty() {
            vec![("from", "there is none, expected at least one stage".to_owned())]
        } else {
            vec![]
        }
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let artifacts = upstream(task)?;
        let data = data(task, self, &artifacts)?;
        let page = task.out.join(PAGE);
        std::fs::write(&page, render(&data)?).map_err(fs::error("write", &page))?;
        let json = task.out.join("data.json");
        let text = serde_json::to_vec_pretty(&data)
            .map_err(std::io::Error::other)
            .map_err(fs::error("write", &json))?;
        std::fs::write(&json, text).map_err(fs::error("write", &json))?;
        let summary = task.work.join(task.stage).join(PAGE).display().to_string();
        let volatile = vec![PAGE, "data.json"];
        Ok(Outcome {
            counts: Counts::default(),
            volatile,
            details: json!({ "page": PAGE }),
            summary,
            ..Outcome::default()
        })
    }
}

/// Every artifact that the inputs were made from, each after those that it was made from.
fn upstream(task: &Task) -> Result<Vec<Artifact>, Error> {
    fn visit(task: &Task, artifact: Artifact, found: &mut Vec<Artifact>) -> Result<(), Error> {
        if found.iter().any(|other| other.folder == artifact.folder) {
            return Ok(());
        }
        for input in &artifact.manifest.inputs {
            visit(task, Artifact::open(&task.work.join(&input.stage))?, found)?;
        }
        found.push(artifact);
        Ok(())
    }
    let mut found = Vec::new();
    task.inputs.values().try_for_each(|artifact| visit(task, artifact.clone(), &mut found))?;
    Ok(found)
}

fn data(task: &Task, config: &Config, artifacts: &[Artifact]) -> Result<Data, Error> {
    let of = |kind: &'static str| artifacts.iter().filter(move |artifact| artifact.manifest.kind == kind);
    let sets = artifacts.iter().filter(|artifact| KINDS.contains(&artifact.manifest.kind.as_str()));
    let sets = sets.map(contexts::all).collect::<Result<Vec<_>, _>>()?.concat();
    let mut data = Data {
        workflow: task.workflow.to_owned(),
        description: config.description.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: today(),
        machine: machine(task.jobs),
        stages: artifacts.iter().map(|artifact| stage(task, artifact)).collect(),
        sources: of("ingest").flat_map(sources).collect(),
        sequences: sequences::sequences(artifacts),
        accounts: sequences::accounts(artifacts),
        lengths: of("chunk").map(windows).collect(),
        splits: of("split").flat_map(|artifact| splits(artifact, &sets)).collect(),
        failures: task.failed.iter().map(failure).collect(),
        commands: commands(task),
        ..Data::default()
    };
    data.vocabularies = vocabularies(task, artifacts, &sets);
    for artifact in of("leaks") {
        data.leaks.extend(serde_json::from_value(artifact.manifest.details["leaks"].clone()).ok());
    }
    let several = of("decontaminate").count() > 1;
    for artifact in of("decontaminate") {
        let of = artifact.manifest.details["benchmarks"].clone();
        let of = serde_json::from_value::<Vec<Contamination>>(of).unwrap_or_default();
        let stage = several.then(|| artifact.manifest.stage.clone());
        data.contamination.extend(of.into_iter().map(|of| Contamination { stage: stage.clone(), ..of }));
    }
    let several = sets.len() > 1;
    for artifact in &sets {
        let set = ShardSet::from_artifact(artifact)?;
        let folder = if several { format!("{}/", artifact.manifest.stage) } else { String::new() };
        data.shards.extend(shards(&folder, &set.details));
        let name = several.then(|| artifact.manifest.stage.clone());
        data.mixtures.extend(set.details.mixture.as_ref().map(|mixed| mixture(name, mixed)));
        if data.vocabularies.is_none() {
            data.tokens = Some(tokens(&set, artifacts)?);
        }
    }
    let mut cells = study::Cells::default();
    cells.add(artifacts, task.failed, None)?;
    data.study = cells.study();
    // Of several trainings the study has the figures.
    for artifact in of("train").filter(|_| data.study.is_none()) {
        data.training = Some(training(artifact)?);
    }
    for artifact in of("audit") {
        let audits = artifact.manifest.details["audits"].clone();
        data.audits.extend(serde_json::from_value::<Vec<Audited>>(audits).unwrap_or_default());
    }
    data.leaderboard = leaderboard(of("evaluate"))?;
    let several = of("evaluate").count() > 1;
    for artifact in of("evaluate") {
        let evaluations = artifact.manifest.details.get("evaluations").cloned().unwrap_or_default();
        let evaluations = serde_json::from_value::<Vec<Evaluation>>(evaluations).unwrap_or_default();
        let named = |evaluation: Evaluation| {
            let split = format!("{}, {}", evaluation.split, artifact.manifest.stage);
            if several { Evaluation { split, ..evaluation } } else { evaluation }
        };
        data.evaluations.extend(evaluations.into_iter().map(named));
    }
    Ok(data)
}

fn failure((stage, error): (&String, &String)) -> Failure {
    Failure { stage: stage.clone(), error: error.clone() }
}

/// The scores of all stages that score tasks, beside published ones.
fn leaderboard<'a>(stages: impl Iterator<Item = &'a Artifact>) -> Result<Option<Leaderboard>, Error> {
    let mut results = Vec::new();
    for artifact in stages.filter(|artifact| artifact.manifest.details["tasks"].is_array()) {
        results.extend(result::find(&artifact.folder.join(RESULTS))?);
    }
    let board = (!results.is_empty()).then(|| Leaderboard::new(&results, true));
    Ok(board.transpose()?)
}

/// The vocabularies side by side, where there are several; by size, of equals in the order of the workflow.
fn vocabularies(task: &Task, artifacts: &[Artifact], sets: &[Artifact]) -> Option<Vocabularies> {
    let tokenized: Vec<&Artifact> =
        artifacts.iter().filter(|artifact| artifact.manifest.kind == "tokenize").collect();
    let has = |split: &&str| tokenized.iter().all(|a| a.manifest.details["splits"][split].is_object());
    let split = ["test", "validation", "train"].into_iter().find(has)?;
    let tokenizers: BTreeSet<&str> = tokenized.iter().filter_map(|a| content(a, "tokenizer")).collect();
    if tokenizers.len() < 2 {
        return None;
    }
    let bases =
        tokenized.iter().filter_map(|a| a.manifest.details["splits"][split]["bases"].as_u64()).max()?;
    let mut rows: Vec<Vocabulary> = tokenized
        .iter()
        .flat_map(|tokens| {
            let sets = sets.iter().filter(|set| is_shard_of(set, tokens));
            let sets: Vec<Option<&Artifact>> = sets.map(Some).collect();
            let sets = if sets.is_empty() { vec![None] } else { sets };
            sets.into_iter().map(|set| vocabulary(task, artifacts, split, tokens, set)).collect::<Vec<_>>()
        })
        .collect();
    shorten(&mut rows);
    rows.sort_by_key(|row| row.size);
    Some(Vocabularies { split: split.to_owned(), bases, rows })
}

/// The content of what an artifact was made from in a role.
fn content<'a>(artifact: &'a Artifact, role: &str) -> Option<&'a str> {
    artifact.manifest.inputs.iter().find(|input| input.role == role).map(|input| input.content.as_str())
}

fn is_shard_of(artifact: &Artifact, tokens: &Artifact) -> bool {
    let of = |input: &artifact::Input| input.role == "from" && input.stage == tokens.manifest.stage;
    artifact.manifest.kind == "shard" && artifact.manifest.inputs.iter().any(of)
}

fn vocabulary(
    task: &Task,
    artifacts: &[Artifact],
    split: &str,
    tokens: &Artifact,
    set: Option<&Artifact>,
) -> Vocabulary {
    let stage = &tokens.manifest.stage;
    let tokenizer = tokens.manifest.inputs.iter().find(|input| input.role == "tokenizer");
    let tokenizer = tokenizer.and_then(|input| artifacts.iter().find(|a| a.manifest.stage == input.stage));
    let details = tokens.manifest.details["splits"][split].clone();
    let details: SplitDetails = serde_json::from_value(details).unwrap_or_default();
    let shards = set.and_then(|set| serde_json::from_value::<Details>(set.manifest.details.clone()).ok());
    let sum =
        |of: fn(&crate::shard::Split) -> u64| shards.as_ref().map(|set| set.splits.values().map(of).sum());
    let encoding = task.seconds.get(&part(stage, ENCODE)).filter(|&&seconds| seconds > 0.0);
    Vocabulary {
        name: set.map_or(stage, |set| &set.manifest.stage).clone(),
        kind: tokenizer.and_then(model).unwrap_or_default(),
        size: tokenizer.and_then(|a| a.manifest.details["vocabulary_size"].as_u64()).unwrap_or(0),
        bases_per_token: details.bases_per_token,
        unigram_bits_per_base: details.unigram_bits_per_base,
        train_unigram_bits_per_base: details.train_unigram_bits_per_base.filter(|_| split != "train"),
        unused: details.unused,
        shard_bytes: sum(|split| split.files.iter().map(|file| file.bytes).sum()),
        shard_bases: sum(|split| split.bases),
        bases_per_second: encoding.map(|seconds| tokens.manifest.counts.bases_in as f64 / seconds),
    }
}

/// Which model a tokenizer has: `bpe`, `kmer`.
fn model(tokenizer: &Artifact) -> Option<String> {
    let model = &tokenizer.manifest.config["model"];
    model.as_object().and_then(|map| map.keys().next().cloned()).or(model.as_str().map(str::to_owned))
}

/// Of names such as `shards@vocabulary=16` that differ behind the `@` alone, leaves what stands there.
fn shorten(rows: &mut [Vocabulary]) {
    let stages: BTreeSet<Option<&str>> =
        rows.iter().map(|row| row.name.split_once('@').map(|(stage, _)| stage)).collect();
    if stages.len() == 1 && !stages.contains(&None) {
        for row in rows {
            row.name = row.name.split_once('@').map_or_else(String::new, |(_, at)| at.to_owned());
        }
    }
}

fn stage(task: &Task, artifact: &Artifact) -> Row {
    let manifest = &artifact.manifest;
    let counts = &manifest.counts;
    let bases = (counts.bases_in > 0).then(|| Count {
        unit: "bases".to_owned(),
        before: Some(counts.bases_in),
        after: Some(counts.bases_out),
    });
    let others =
        counts.other.iter().map(|(unit, &n)| Count { unit: unit.clone(), before: None, after: Some(n) });
    let dropped = counts.dropped.iter().map(|(reason, &count)| Dropped {
        reason: reason.clone(),
        unit: "bases".to_owned(),
        count,
    });
    Row {
        name: manifest.stage.clone(),
        kind: manifest.kind.clone(),
        inputs: manifest.inputs.iter().map(|input| input.stage.clone()).collect(),
        status: if task.reused.contains(&manifest.stage) { Status::Reused } else { Status::Ran },
        reason: None,
        wall_seconds: task.seconds.get(&manifest.stage).copied(),
        counts: bases.into_iter().chain(others).collect(),
        dropped: dropped.collect(),
        config: serde_json::to_string_pretty(&manifest.config).ok(),
        action_key: Some(manifest.action_key.clone()),
    }
}

/// Formats whose records are reads.
const READS: [&str; 4] = ["BAM", "SAM", "CRAM", "FASTQ"];

fn sources(artifact: &Artifact) -> Vec<Source> {
    let list = artifact.manifest.details["sources"].as_array().cloned().unwrap_or_default();
    let bytes = |value: &Value, key: &str| {
        let path = value[key].as_str()?;
        artifact.manifest.sources.iter().find(|file| file.path == path).map(|file| file.bytes)
    };
    let source = |value: &Value| {
        let format = value["format"].as_str().unwrap_or_default().to_owned();
        Source {
            name: value["name"].as_str().unwrap_or_default().to_owned(),
            record: if READS.contains(&format.as_str()) { "reads" } else { "contigs" }.to_owned(),
            format,
            records: value["records"].as_u64().unwrap_or(0),
            bases: value["bases"].as_u64().unwrap_or(0),
            longest: value["longest"].as_u64(),
            n50: value["n50"].as_u64(),
            gc: value["gc"].as_f64(),
            ambiguous: value["ambiguous"].as_u64(),
            bytes: bytes(value, "path").map(|first| first + bytes(value, "mates").unwrap_or(0)),
        }
    };
    list.iter().map(source).collect()
}

fn windows(artifact: &Artifact) -> Histogram {
    let lengths = artifact.manifest.details["lengths"].clone();
    let lengths: Vec<(u64, u64)> = serde_json::from_value(lengths).unwrap_or_default();
    Histogram::new(&format!("Windows of {}", artifact.manifest.stage), "windows", "bases", lengths)
}

fn splits(artifact: &Artifact, sets: &[Artifact]) -> Vec<Split> {
    // Several sets have different rows of the same bases.
    let shard = sets.first().filter(|_| sets.len() == 1);
    let splits = artifact.manifest.details["splits"].as_object().cloned().unwrap_or_default();
    let split = |(name, value): (&String, &Value)| {
        let packed = shard.map(|shard| shard.manifest.details["splits"][name].clone()).unwrap_or_default();
        let contigs: Vec<String> = serde_json::from_value(value["contigs"].clone()).unwrap_or_default();
        Split {
            name: name.clone(),
            contigs,
            records: value["intervals"].as_u64().unwrap_or(0),
            bases: value["bases"].as_u64().unwrap_or(0),
            rows: packed["rows"].as_u64(),
            tokens: packed["tokens"].as_u64(),
            token_bases: packed["bases"].as_u64(),
        }
    };
    splits.iter().map(split).collect()
}

fn shards(folder: &str, details: &Details) -> Vec<Shard> {
    let files = details
        .splits
        .iter()
        .flat_map(|(name, split)| split.files.iter().map(move |file| (name, split, file)));
    files
        .map(|(name, split, file)| Shard {
            file: format!("{folder}{}", file.path),
            split: name.clone(),
            rows: file.rows,
            tokens: file.rows * details.context as u64
                - if split.files.len() == 1 { split.padding } else { 0 },
            bases: (split.files.len() == 1).then_some(split.bases),
            bytes: file.bytes,
        })
        .collect()
}

fn mixture(set: Option<String>, mixed: &crate::shard::Mixed) -> Mixture {
    let all: u64 = mixed.sources.values().map(|source| source.available.tokens).sum();
    let source = |(name, source): (&String, &crate::shard::MixedSource)| MixedSource {
        name: name.clone(),
        available: source.available.tokens,
        left_out: source.left_out.tokens,
        repeated: source.repeated.tokens,
        written: source.written.tokens,
        bases: source.written.bases,
        share_available: source.available.tokens as f64 / all.max(1) as f64,
        share_wanted: source.share_wanted,
        share_written: source.share_written,
    };
    Mixture {
        set,
        repeat: mixed.repeat.into(),
        temperature: mixed.temperature,
        sources: mixed.sources.iter().map(source).collect(),
        shortfalls: mixed.shortfalls(),
    }
}

/// Counts the tokens of the training rows.
fn tokens(set: &ShardSet, artifacts: &[Artifact]) -> Result<Tokens, Error> {
    let tokenizer = set.tokenizer()?;
    let splits = &set.details.splits;
    let usual = ["train", "test"].into_iter().find(|split| splits.contains_key(*split));
    let split = usual.or_else(|| splits.keys().next().map(String::as_str)).unwrap_or("train");
    let rows = set.rows(split)?;
    let mut usage = Usage::default();
    for row in 0..rows.len() {
        usage.add(tokenizer.as_ref(), &rows.get(row).to_vec());
    }
    let trained = artifacts.iter().find(|artifact| artifact.manifest.kind == "tokenizer");
    let kind = trained.and_then(model);
    let bases = trained.and_then(|artifact| artifact.manifest.details["trained_on_bases"].as_u64());
    Ok(describe_tokens(tokenizer.as_ref(), &usage, kind.as_deref(), bases.filter(|b| *b > 0), split))
}

fn describe_tokens(
    tokenizer: &dyn Tokenizer,
    usage: &Usage,
    kind: Option<&str>,
    bases: Option<u64>,
    split: &str,
) -> Tokens {
    let ids = || (0..tokenizer.vocabulary_size()).filter(|&id| tokenizer.bases(id) > 0);
    let uses = |id: u32| usage.count(id);
    let info = usage.info(tokenizer, 10);
    let token =
        |listed: &Listed| Token { id: listed.id.into(), text: listed.text.clone(), count: uses(listed.id) };
    let mut lengths: BTreeMap<u64, TokenLength> = BTreeMap::new();
    for id in ids() {
        let bases = u64::from(tokenizer.bases(id));
        let entry = lengths.entry(bases).or_insert(TokenLength { bases, ..TokenLength::default() });
        entry.vocabulary += 1;
        entry.corpus += uses(id);
    }
    Tokens {
        kind: match kind {
            Some("bpe") => "byte-pair encoding".to_owned(),
            Some(other) => other.to_owned(),
            None => "unknown".to_owned(),
        },
        origin: bases.map(|bases| format!("learnt from {} bases of the train split", count(bases))),
        vocabulary: tokenizer.vocabulary_size().into(),
        special: u64::from(tokenizer.vocabulary_size()) - ids().count() as u64,
        corpus: Some(format!("{split} split")),
        tokens: info.tokens,
        bases: info.bases,
        frequencies: ids().map(uses).collect(),
        lengths: lengths.into_values().collect(),
        longest: info.longest.iter().map(token).collect(),
        frequent: info.most_frequent.iter().map(token).collect(),
    }
}

fn training(artifact: &Artifact) -> Result<Training, Error> {
    let history = read_history(&artifact.path("history.jsonl"))?;
    let details = &artifact.manifest.details;
    let config = &artifact.manifest.config;
    let points = |value: fn(&Record) -> Option<f64>| {
        history.iter().filter_map(|r| Some(Point { step: r.step, value: value(r)? })).collect::<Vec<_>>()
    };
    let fact = |name: &str, value: &Value| Fact {
        name: name.to_owned(),
        value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    };
    let batch = if config["batch_tokens"].is_null() { "batch_rows" } else { "batch_tokens" };
    let facts = ["duration", batch, "learning_rate", "weight_decay", "seed"];
    Ok(Training {
        model: config["preset"].as_str().unwrap_or("own shape").to_owned(),
        parameters: details["parameters"].as_u64().unwrap_or(0),
        device: details["device"].as_str().unwrap_or("cpu").to_owned(),
        steps: details["steps"].as_u64().unwrap_or(0),
        tokens: details["tokens"].as_u64().unwrap_or(0),
        wall_seconds: history.last().map(|record| record.seconds),
        facts: facts
            .iter()
            .filter(|key| !config[**key].is_null())
            .map(|key| fact(key, &config[*key]))
            .collect(),
        train_loss: points(|r| Some(r.loss)),
        validation_loss: points(|r| r.validation_loss),
        learning_rate: points(|r| Some(r.learning_rate)),
        uniform_loss: None,
    })
}

fn commands(task: &Task) -> Vec<Command> {
    let command = |purpose: &str, line: String| Command { purpose: purpose.to_owned(), line };
    let file = format!("{}.yaml", task.workflow);
    vec![
        command("the whole workflow; what is whole and unchanged is reused", format!("genomill run {file}")),
        command("what would run, and why", format!("genomill plan {file}")),
    ]
}

/// Today as `2026-11-24`, in UTC.
fn today() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (mut year, mut day) = (1970, now.as_secs() / 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}

/// What Linux says of the machine; nothing elsewhere.
fn machine(cores: usize) -> Option<Machine> {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?.split_once(':')?.1.trim().to_owned();
        Some(line)
    };
    let memory = field("/proc/meminfo", "MemTotal")?;
    let kib: u64 = memory.split_whitespace().next()?.parse().ok()?;
    let cpu = field("/proc/cpuinfo", "model name")?;
    Some(Machine { cpu, cores: cores as u64, memory: kib << 10, accelerator: None })
}
