//! Trains a model on the rows of a shard set. Memory: the model, its optimizer and a few batches.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, File, Outcome, ParseError, Stage, Task, from, to_json};
use crate::model::hf;
use crate::train::{Config as Training, Initialize};

/// A training run: `from`, and everything that [`Training`] has.
#[derive(Debug, Serialize)]
pub struct Config {
    /// The stage that packed the shards.
    from: String,
    /// Which set, where the stage has several contexts.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<usize>,
    #[serde(flatten)]
    training: Training,
}

#[derive(Deserialize, JsonSchema)]
struct Wiring {
    /// The stage that packed or fetched the shards.
    from: String,
    /// Tokens per row: which set to train on, where the stage packed several contexts.
    #[serde(default)]
    #[schemars(range(min = 1))]
    context: Option<usize>,
}

/// Reads `from` and `context` and leaves the rest, strictly, to the trainer's own configuration.
pub fn parse(mut value: Value) -> Result<Box<dyn Stage>, ParseError> {
    let mut take = |key: &str| Some((key.to_owned(), value.as_object_mut()?.shift_remove(key)?));
    let wiring: serde_json::Map<_, _> = ["from", "context"].into_iter().filter_map(&mut take).collect();
    let wiring: Value = wiring.into();
    let wiring: Wiring = serde_path_to_error::deserialize(wiring)?;
    let training = serde_path_to_error::deserialize(value)?;
    Ok(Box::new(Config { from: wiring.from, context: wiring.context, training }))
}

/// The schema of both together.
pub fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = Training::json_schema(generator);
    let wiring: Value = Wiring::json_schema(generator).into();
    let object = schema.ensure_object();
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        for key in ["from", "context"] {
            properties.insert(key.to_owned(), wiring["properties"][key].clone());
        }
    }
    object.insert("required".to_owned(), wiring["required"].clone());
    schema
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        from(&self.from)
    }

    fn files(&self, base: &Path) -> Result<Vec<File>, Error> {
        let Some(Initialize { hf: folder }) = &self.training.initialize else { return Ok(Vec::new()) };
        let files = hf::files(&base.join(folder));
        let files = files.map_err(|error| Error::Config { key: "initialize", reason: error.to_string() })?;
        let name = |path: PathBuf| path.file_name().map(|name| File::new(&folder.join(name)));
        Ok(files.into_iter().filter_map(name).collect())
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let found = self.training.check().err();
        found.map(|error| (error.key().unwrap_or("from"), error.to_string())).into_iter().collect()
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    #[cfg(not(feature = "train"))]
    fn run(&self, _: &Task) -> Result<Outcome, Error> {
        Err(Error::NoTrainer)
    }

    #[cfg(feature = "train")]
    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        use crate::shard::{ShardSet, contexts};
        use crate::train::{self, Data, Hooks};

        let input = &contexts::choose(task.input_of("from", &crate::shard::KINDS)?, self.context)?;
        let set = ShardSet::from_artifact(input)?;
        let masked = self.training.document_mask;
        let train = rows(&set, "train", masked)?;
        let validation = set.details.splits.contains_key("validation");
        let validation = validation.then(|| rows(&set, "validation", masked)).transpose()?;
        let vocabulary = vocabulary(&set)?;
        let data = Data {
            rows: train.as_ref(),
            validation: validation.as_deref().filter(|rows| rows.rows() > 0),
            vocabulary: &vocabulary,
            fingerprint: &input.manifest.content,
        };
        let hooks =
            Hooks { observer: task.observer, stage: task.stage, stop: task.stop, threads: task.threads };
        let training = self.training.clone().with_paths(|path| task.file(path));
        let summary =
            train::run_shared(&training, data, task.out, hooks, task.group).map_err(|error| match error {
                train::Error::Stopped { .. } => Error::Interrupted,
                error => error.into(),
            })?;
        let mut outcome = outcome(input, &summary);
        if let Some(group) = task.group {
            outcome.details["ranks"] = group.ranks().into();
        } else if let Some(gpu) = crate::model::device::gpu().map_err(train::Error::from)? {
            outcome.details["device"] = gpu.into();
        }
        Ok(outcome)
    }
}

/// The rows of a split; with `documents` also where those end, if the set says it.
#[cfg(feature = "train")]
pub fn rows(
    set: &crate::shard::ShardSet,
    split: &str,
    documents: bool,
) -> Result<Box<dyn crate::loader::TokenRows>, Error> {
    if documents && let Some(rows) = crate::loader::WithDocuments::of(set, split)? {
        return Ok(Box::new(rows));
    }
    Ok(Box::new(set.rows(split)?))
}

/// What the trainer and the evaluator must know of the tokens.
#[cfg(feature = "train")]
pub fn vocabulary(set: &crate::shard::ShardSet) -> Result<crate::loader::Vocabulary, Error> {
    let tokenizer = set.tokenizer()?;
    Ok(crate::loader::Vocabulary {
        bases: (0..tokenizer.vocabulary_size()).map(|token| tokenizer.bases(token)).collect(),
        pad: tokenizer.special("[PAD]"),
        begin: set.details.packing.as_ref().and_then(|packing| packing.begin),
        fingerprint: set.details.tokenizer_fingerprint.clone(),
        tokenizer: tokenizer.to_json(),
    })
}

#[cfg(feature = "train")]
fn outcome(input: &crate::artifact::Artifact, summary: &crate::train::Summary) -> Outcome {
    let last = &summary.last;
    let details = serde_json::json!({
        "parameters": summary.parameters,
        "steps": last.step,
        "tokens": last.tokens,
        "loss": last.loss,
        "validation_bits_per_base": last.validation_bits_per_base,
    });
    let bases = input.manifest.details["splits"]["train"]["bases"].as_u64().unwrap_or(0);
    let counts = crate::artifact::Counts { bases_in: bases, bases_out: bases, ..Default::default() };
    let summary = format!("{} parameters, {} steps, loss {:.4}", summary.parameters, last.step, last.loss);
    Outcome {
        counts,
        details,
        summary,
        volatile: vec!["history.jsonl", "checkpoint.json", crate::train::events::FILE],
        ..Outcome::default()
    }
}
