//! The models of a matrix side by side, from the artifacts of their evaluations. Memory: the figures, and the history of one
//! training at a time.

use std::collections::BTreeMap;

use crate::artifact::Artifact;
use crate::evaluate::result;
use crate::model::Shape;
use crate::report::study::{Absent, Found, Kind, Measured, Outcome, Study};
use crate::report::{Evaluation, Leaderboard};
use crate::stage::Error;
use crate::stage::evaluate::RESULTS;
use crate::train::{Record, read_history};

/// What was found of the cells so far.
#[derive(Debug, Default)]
pub struct Cells {
    outcomes: Vec<Outcome>,
    found: BTreeMap<BTreeMap<String, String>, Found>,
    /// The order in which they came.
    order: Vec<BTreeMap<String, String>>,
    failed: Vec<Absent>,
}

impl Cells {
    /// Adds the evaluations among the artifacts that stand in a matrix, with what their models cost; `failed` are stages by name with
    /// the error of each. A `run` is an axis more, so that cells of two runs stand side by side.
    ///
    /// # Errors
    /// When results or histories cannot be read.
    pub fn add(
        &mut self,
        artifacts: &[Artifact],
        failed: &BTreeMap<String, String>,
        run: Option<&str>,
    ) -> Result<(), Error> {
        let place = |stage: &str| {
            let mut at = place(stage)?;
            at.extend(run.map(|run| ("run".to_owned(), run.to_owned())));
            Some(at)
        };
        for artifact in artifacts.iter().filter(|artifact| artifact.manifest.kind == "evaluate") {
            let Some(at) = place(&artifact.manifest.stage) else { continue };
            self.evaluated(&at, artifact)?;
            let model = artifact.manifest.inputs.iter().find(|input| input.role == "model");
            let model = model.and_then(|input| artifacts.iter().find(|a| a.manifest.stage == input.stage));
            if let Some(model) = model {
                self.costs(&at, model)?;
            }
        }
        for artifact in artifacts.iter().filter(|artifact| artifact.manifest.kind == "train") {
            let at = place(&artifact.manifest.stage).filter(|at| !self.found.contains_key(at));
            let reason = "its model is there, its scores are not".to_owned();
            self.failed.extend(at.map(|at| Absent { at, reason }));
        }
        let failures = failed.iter().filter_map(|(stage, error)| {
            Some(Absent { at: place(stage)?, reason: format!("`{stage}` failed: {error}") })
        });
        // An error says more than that the scores are not there.
        self.failed.splice(0..0, failures.collect::<Vec<_>>());
        Ok(())
    }

    /// What there is to show; nothing where no matrix has two cells.
    pub fn study(mut self) -> Option<Study> {
        let places = &mut self.found;
        let cells = self.order.into_iter().map(|at| {
            let found = places.remove(&at).unwrap_or_default();
            (at, found)
        });
        let mut outcomes = self.outcomes;
        outcomes.sort_by_key(|outcome| (outcome.kind != Kind::BitsPerBase, !outcome.kind.judges()));
        Study::new(outcomes, cells.collect(), &self.failed)
    }

    fn put(&mut self, at: &BTreeMap<String, String>, outcome: Outcome, measured: Measured) {
        if !self.found.contains_key(at) {
            self.order.push(at.clone());
        }
        self.found.entry(at.clone()).or_default().figures.entry(outcome.name.clone()).or_insert(measured);
        match self.outcomes.iter_mut().find(|other| other.name == outcome.name) {
            Some(other) => other.bases = other.bases.max(outcome.bases),
            None => self.outcomes.push(outcome),
        }
    }

    fn evaluated(&mut self, at: &BTreeMap<String, String>, artifact: &Artifact) -> Result<(), Error> {
        let details = &artifact.manifest.details;
        let evaluations = details.get("evaluations").cloned().unwrap_or_default();
        for evaluation in serde_json::from_value::<Vec<Evaluation>>(evaluations).unwrap_or_default() {
            let Some(model) = &evaluation.model else { continue };
            let name = format!("Bits per base, {}", evaluation.split);
            let outcome = Outcome { name, kind: Kind::BitsPerBase, bases: Some(evaluation.bases) };
            let interval = model.interval.map(|interval| [interval.low, interval.high]);
            self.put(at, outcome, Measured { value: model.bits_per_base, interval });
        }
        if !details["tasks"].is_array() {
            return Ok(());
        }
        let results = result::find(&artifact.folder.join(RESULTS))?;
        for row in Leaderboard::new(&results, false)?.rows {
            let Some(value) = row.value else { continue };
            let name = format!("{}, {} ({})", row.metric, row.task, row.protocol);
            let measured = Measured { value, interval: row.noise() };
            self.put(at, Outcome { name, kind: Kind::Score, bases: None }, measured);
        }
        Ok(())
    }

    /// Parameters, operations, speed and memory of a training.
    fn costs(&mut self, at: &BTreeMap<String, String>, model: &Artifact) -> Result<(), Error> {
        let details = &model.manifest.details;
        let mut put = |name: &str, kind, value: Option<f64>| {
            if let Some(value) = value {
                let outcome = Outcome { name: name.to_owned(), kind, bases: None };
                self.put(at, outcome, Measured { value, interval: None });
            }
        };
        put("Parameters", Kind::Parameters, details["parameters"].as_f64());
        let tokens = details["tokens"].as_f64();
        let history = read_history(&model.path("history.jsonl"))?;
        let seconds = history.last().map(|record| record.seconds);
        let speed =
            tokens.zip(seconds.filter(|&seconds| seconds > 0.0)).map(|(tokens, seconds)| tokens / seconds);
        put("Training, tokens per second", Kind::TokensPerSecond, speed);
        let trained = Trained::of(model);
        let operations = trained.as_ref().zip(tokens).map(|(of, tokens)| of.per_token() * tokens);
        put("Training, operations", Kind::Operations, operations);
        put("Memory to train, one thread, counted", Kind::Bytes, trained.as_ref().map(Trained::bytes));
        if let Some(found) = self.found.get_mut(at) {
            found.course = trained.map(|of| course(&history, of.per_token())).unwrap_or_default();
        }
        Ok(())
    }
}

/// Points of a course that are kept.
const POINTS: usize = 250;

/// Bits per base of the training rows by the operations so far, a part of the records of long histories.
fn course(history: &[Record], per_token: f64) -> Vec<[f64; 2]> {
    let records = history.iter().step_by(history.len().div_ceil(POINTS).max(1));
    records.filter_map(|record| Some([record.tokens as f64 * per_token, record.bits_per_base?])).collect()
}

/// What a checkpoint says of how a model was trained.
struct Trained {
    shape: Shape,
    context: u32,
    rows: u64,
    checkpointing: bool,
}

impl Trained {
    /// Of the newest checkpoint of an artifact; nothing where it cannot be read.
    fn of(model: &Artifact) -> Option<Self> {
        let files = model.manifest.files.iter().filter(|file| file.path.ends_with("/checkpoint.json"));
        let newest = files.map(|file| &file.path).max()?;
        let text = crate::fs::read(&model.path(newest)).ok()?;
        let checkpoint: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let config = &checkpoint["config"];
        Some(Self {
            shape: serde_json::from_value(config["model"].clone()).ok()?,
            context: u32::try_from(checkpoint["data"]["context"].as_u64()?).ok()?,
            rows: config["micro_batch_rows"].as_u64()?,
            checkpointing: config["activation_checkpointing"].as_bool().unwrap_or(false),
        })
    }

    fn per_token(&self) -> f64 {
        self.shape.work_per_token(self.context as usize)
    }

    fn bytes(&self) -> f64 {
        let memory = self.shape.memory(self.context);
        memory.total(self.rows, 1, self.checkpointing) as f64
    }
}

/// The values of an expansion, by axis: of `scores@bases=512,size=olmo-1m` two. Nothing of a stage that stands in no matrix.
fn place(stage: &str) -> Option<BTreeMap<String, String>> {
    let (_, values) = stage.split_once('@')?;
    let pair = |pair: &str| pair.split_once('=').map(|(axis, value)| (axis.to_owned(), value.to_owned()));
    values.split(',').map(pair).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn artifact(folder: &std::path::Path, kind: &str, at: &str, details: &serde_json::Value) -> Artifact {
        let stage = format!("{kind}@{at}");
        let inputs = match kind {
            "evaluate" => json!([{"role": "model", "stage": format!("train@{at}"), "content": ""}]),
            _ => json!([]),
        };
        let manifest = json!({
            "schema": "", "tool": "", "stage": stage, "kind": kind, "algorithm": 1, "action_key": "", "content": "",
            "config": {}, "inputs": inputs, "sources": [], "references": [], "details": details,
            "counts": {"bases_in": 0, "bases_out": 0, "dropped": {}},
            "files": [{"path": "checkpoints/step-2/checkpoint.json", "bytes": 1, "blake3": ""}],
        });
        Artifact { folder: folder.join(&stage), manifest: serde_json::from_value(manifest).unwrap() }
    }

    fn model(folder: &std::path::Path, at: &str) -> Artifact {
        let made = artifact(folder, "train", at, &json!({"parameters": 64, "tokens": 1000}));
        let config = crate::model::Named::all().next().unwrap().shape(100, 32).unwrap();
        let checkpoint = json!({"config": {"model": config, "micro_batch_rows": 2}, "data": {"context": 32}});
        let record = json!({"step": 2, "tokens": 1000, "loss": 1.0, "bits_per_base": 1.9, "learning_rate": 0.1,
            "gradient_norm": 1.0, "seconds": 4.0});
        std::fs::create_dir_all(made.path("checkpoints/step-2")).unwrap();
        std::fs::write(made.path("checkpoints/step-2/checkpoint.json"), checkpoint.to_string()).unwrap();
        std::fs::write(made.path("history.jsonl"), record.to_string()).unwrap();
        made
    }

    fn scores(folder: &std::path::Path, at: &str, bits: f64) -> Artifact {
        let interval = json!({"value": bits, "low": bits - 0.01, "high": bits + 0.01, "level": 0.95, "rows": 9,
            "resamples": 9});
        let model = json!({"name": "m", "trained_on": "", "bits_per_base": bits, "interval": interval, "difference": null});
        let evaluation =
            json!({"split": "test", "scored_on": "", "bases": 500, "model": model, "markov": null});
        artifact(folder, "evaluate", at, &json!({"evaluations": [evaluation]}))
    }

    #[test]
    fn cells_have_their_scores_and_what_they_cost() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let artifacts = [
            model(folder, "size=a,vocabulary=16"),
            scores(folder, "size=a,vocabulary=16", 1.9),
            scores(folder, "size=a,vocabulary=4", 1.8),
            model(folder, "size=b,vocabulary=4"),
        ];
        let failed = BTreeMap::from([("train@size=b,vocabulary=16".to_owned(), "no room".to_owned())]);
        let mut cells = Cells::default();
        cells.add(&artifacts, &failed, None).unwrap();
        let study = cells.study().unwrap();
        let names: Vec<&str> = study.outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
        let expected = [
            "Bits per base, test",
            "Parameters",
            "Training, tokens per second",
            "Training, operations",
            "Memory to train, one thread, counted",
        ];
        assert_eq!(names, expected);
        let values =
            |cell: usize| study.cells[cell].values.iter().map(|of| of.map(|of| of.value)).collect::<Vec<_>>();
        assert_eq!(values(1)[..3], [Some(1.9), Some(64.0), Some(250.0)]);
        let shape = crate::model::Named::all().next().unwrap().shape(100, 32).unwrap();
        assert_eq!(values(1)[3], Some(1000.0 * shape.work_per_token(32)));
        assert_eq!(values(1)[4], Some(shape.memory(32).total(2, 1, false) as f64));
        assert_eq!(study.cells[1].course, [[1000.0 * shape.work_per_token(32), 1.9]]);
        assert_eq!(values(0), [Some(1.8), None, None, None, None]);
        let absent: Vec<&str> = study.absent.iter().map(|absent| absent.reason.as_str()).collect();
        let failure = "`train@size=b,vocabulary=16` failed: no room";
        assert_eq!(absent, [failure, "its model is there, its scores are not"]);
    }

    #[test]
    fn runs_are_an_axis_where_there_are_two() {
        let folder = tempfile::tempdir().unwrap();
        let mut cells = Cells::default();
        for (run, bits) in [("first", 1.9), ("second", 1.8)] {
            let at = ["k=1", "k=2"].map(|at| scores(folder.path(), at, bits));
            cells.add(&at, &BTreeMap::new(), Some(run)).unwrap();
        }
        let study = cells.study().unwrap();
        assert_eq!(
            (study.cells.len(), study.axes[1].name.as_str(), study.axes[1].values.len()),
            (4, "run", 2)
        );
        let mut one = Cells::default();
        one.add(&[scores(folder.path(), "k=1", 1.9)], &BTreeMap::new(), None).unwrap();
        assert_eq!(one.study(), None);
        assert_eq!(place("scores"), None);
    }
}
