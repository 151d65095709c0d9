//! Scores models on tasks by a protocol: the other half of `uses: evaluate`. Memory: as `evaluate::tasks` says.

#[cfg(feature = "train")]
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::{Error, File};
use super::Config;
use crate::evaluate::protocol;
#[cfg(feature = "train")]
use crate::evaluate::{result, tasks::LOOKS};
use crate::task;

/// Where results lie within the artifact.
pub const RESULTS: &str = "results";

impl Config {
    /// The protocol with all that belongs to it.
    pub(super) fn protocol(&self) -> Option<protocol::Config> {
        Some(protocol::Config {
            protocol: self.protocol?,
            inputs: self.inputs,
            seeds: self.seeds,
            validation: self.validation,
            training: self.training.clone(),
        })
    }

    /// What is wrong with keys that only make sense together.
    pub(super) fn problems_of_tasks(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        match (&self.from, &self.tasks) {
            (None, None) => problems
                .push(("from", "there is neither `from` nor `tasks`, expected one of them".to_owned())),
            (Some(_), Some(_)) => problems.push((
                "tasks",
                "stands beside `from`: score rows and tasks in stages of their own".to_owned(),
            )),
            (None, Some(_)) => {
                if self.protocol.is_none() {
                    problems.push(("protocol", "is missing, which `tasks` needs".to_owned()));
                }
                if self.model.is_none() && self.folders.is_empty() {
                    problems.push((
                        "model",
                        "there is neither `model` nor `folders`, expected one of them".to_owned(),
                    ));
                }
            }
            (Some(_), None) if self.protocol.is_some() => {
                problems.push(("protocol", "stands without `tasks`".to_owned()));
            }
            (Some(_), None) => {}
        }
        problems.extend(self.protocol().iter().flat_map(protocol::Config::problems));
        problems
    }

    /// The files of tasks and of models in folders.
    pub(super) fn files_of_tasks(&self, base: &Path) -> Result<Vec<File>, Error> {
        let Some(tasks) = &self.tasks else { return Ok(Vec::new()) };
        let wrong = |error: task::Error| Error::Config { key: "tasks", reason: error.to_string() };
        let (file, start) = task::find(&base.join(tasks)).map_err(wrong)?;
        let mut paths: Vec<PathBuf> =
            if base.join(tasks).is_file() { vec![tasks.clone()] } else { Vec::new() };
        for task in file.tasks.values() {
            let found = task.files(&start).map_err(wrong)?.into_iter();
            paths.extend(found.map(|path| path.strip_prefix(base).map(Path::to_owned).unwrap_or(path)));
        }
        for folder in self.folders.values() {
            let names = ["config.json", "model.safetensors", "tokenizer.json"].map(|name| folder.join(name));
            paths.extend(names.into_iter().filter(|path| base.join(path).is_file()));
        }
        Ok(paths.iter().map(|path| File::new(path)).collect())
    }

    #[cfg(not(feature = "train"))]
    #[expect(clippy::unused_self, reason = "the other build uses it")]
    pub(super) fn score_tasks(
        &self,
        _: &super::super::Task,
        _: &Path,
    ) -> Result<super::super::Outcome, Error> {
        Err(Error::NoTrainer)
    }

    #[cfg(feature = "train")]
    pub(super) fn score_tasks(
        &self,
        task: &super::super::Task,
        tasks: &Path,
    ) -> Result<super::super::Outcome, Error> {
        use crate::evaluate::encoder::Encoder;
        use crate::evaluate::tasks::{Again, Place, evaluate};
        use crate::train::Hooks;

        let wrong = |error: task::Error| Error::Config { key: "tasks", reason: error.to_string() };
        let config =
            self.protocol().ok_or(Error::Config { key: "protocol", reason: "is missing".to_owned() })?;
        let (file, base) = task::find(&task.base.join(tasks)).map_err(wrong)?;
        let out = task.out.join(RESULTS);
        let earlier = task.work.join(task.stage).join(RESULTS);
        let mut outcomes = Vec::new();
        for (name, folder) in self.models(task)? {
            let encoder = Encoder::open(&name, &folder)?;
            for (name, of) in &file.tasks {
                task.check()?;
                let dataset = of.read(name, &base).map_err(wrong)?;
                let hooks = Hooks {
                    observer: task.observer,
                    stage: task.stage,
                    stop: task.stop,
                    threads: task.threads,
                };
                let place = Place {
                    out: &out,
                    earlier: Some(&earlier),
                    cache: Some(&task.work.join(".cache/embeddings")),
                    again: Again::IfOther,
                };
                let outcome = evaluate(&encoder, &dataset, &config, place, hooks);
                outcomes.push(
                    outcome
                        .map_err(|error| if error.is_stop() { Error::Interrupted } else { error.into() })?,
                );
            }
        }
        Ok(outcome(&outcomes))
    }

    #[cfg(feature = "train")]
    fn models(&self, task: &super::super::Task) -> Result<BTreeMap<String, PathBuf>, Error> {
        let mut models: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (name, folder) in &self.folders {
            models.insert(name.clone(), task.base.join(folder));
        }
        if let Some(model) = &self.model {
            models.insert(model.clone(), task.input_of("model", &["train"])?.folder.clone());
        }
        Ok(models)
    }
}

#[cfg(feature = "train")]
fn outcome(outcomes: &[crate::evaluate::result::Outcome]) -> super::super::Outcome {
    let summary = outcomes.iter().map(|outcome| {
        let mean = outcome.summary.all.map_or("undefined".to_owned(), |all| format!("{:.4}", all.mean));
        format!("{}: {} {} {mean}", outcome.task.name, outcome.model.name, outcome.summary.metric)
    });
    super::super::Outcome {
        details: serde_json::json!({ "tasks": outcomes.iter().map(brief).collect::<Vec<_>>() }),
        // How often a test set was looked at depends on what was there before.
        volatile: vec![result::FILE, LOOKS],
        summary: summary.collect::<Vec<_>>().join("; "),
        ..super::super::Outcome::default()
    }
}

/// What the manifest says of a result.
#[cfg(feature = "train")]
fn brief(outcome: &result::Outcome) -> serde_json::Value {
    serde_json::json!({
        "task": outcome.task.name,
        "version": outcome.task.version,
        "model": outcome.model.name,
        "protocol": outcome.config.protocol,
        "metric": outcome.summary.metric,
        "mean": outcome.summary.all.map(|all| all.mean),
        "sd": outcome.summary.all.and_then(|all| all.sd),
        "runs": outcome.runs.len(),
    })
}
