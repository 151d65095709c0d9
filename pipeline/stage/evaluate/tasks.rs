//! Scores models on tasks by a protocol: the other half of `uses: evaluate`. Memory: as `evaluate::tasks` says.

#[cfg(feature = "train")]
use std::collections::BTreeMap;
use std::path::Path;
#[cfg(feature = "train")]
use std::path::PathBuf;

use super::super::{Error, File, audit};
use super::Config;
use crate::evaluate::protocol::{self, Protocol};
#[cfg(feature = "train")]
use crate::evaluate::{encoder::Encoder, result, tasks::LOOKS};
use crate::model::Named;
#[cfg(feature = "train")]
use crate::task;

/// Where results lie within the artifact.
pub const RESULTS: &str = "results";

impl Config {
    /// The protocol with all that belongs to it.
    pub(super) fn protocol(&self) -> Option<protocol::Config> {
        Some(protocol::Config {
            protocol: self.protocol?,
            recipe: self.recipe,
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
                problems.extend(self.problems_of_models());
            }
            (Some(_), None) if self.protocol.is_some() => {
                problems.push(("protocol", "stands without `tasks`".to_owned()));
            }
            (Some(_), None) => {}
        }
        problems.extend(self.protocol().iter().flat_map(protocol::Config::problems));
        problems
    }

    /// What is wrong with what is to be scored.
    fn problems_of_models(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let of_preset =
            self.preset.iter().map(|preset| ("preset", Protocol::FromScratch, preset.to_string()));
        let of_baselines = self.baselines.iter().map(|one| ("baselines", one.protocol(), one.to_string()));
        let protocol = self.protocol;
        for (key, expected, name) in of_preset.chain(of_baselines) {
            if let Some(found) = protocol.filter(|protocol| *protocol != expected) {
                problems.push((key, format!("`{name}` needs the protocol `{expected}`, found `{found}`")));
            }
        }
        let none = self.model.is_none() && self.folders.is_empty() && self.baselines.is_empty();
        if none && self.preset.is_none() {
            let expected =
                "there is none of `model`, `folders`, `preset` and `baselines`, expected one of them";
            problems.push(("model", expected.to_owned()));
        }
        match (&self.tokenizer, self.preset) {
            (Some(_), None) => problems.push(("tokenizer", "stands without `preset`".to_owned())),
            (None, Some(preset)) if !matches!(preset, Named::Hyena(_)) => {
                problems.push(("tokenizer", format!("is missing, which `{preset}` needs")));
            }
            _ => {}
        }
        problems
    }

    /// The files of tasks and of models in folders.
    pub(super) fn files_of_tasks(&self, base: &Path) -> Result<Vec<File>, Error> {
        let Some(tasks) = &self.tasks else { return Ok(Vec::new()) };
        let mut paths = audit::files_of(tasks, base)?;
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
        use crate::evaluate::tasks::{Again, Place, evaluate};
        use crate::train::Hooks;

        let wrong = |error: task::Error| audit::wrong(&error);
        let config =
            self.protocol().ok_or(Error::Config { key: "protocol", reason: "is missing".to_owned() })?;
        let (file, base) = task::find(&task.base.join(tasks)).map_err(wrong)?;
        let out = task.out.join(RESULTS);
        let earlier = task.work.join(task.stage).join(RESULTS);
        let mut outcomes = Vec::new();
        for encoder in self.encoders(task)? {
            let encoder = encoder?;
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

    /// What is to be scored, one after the other: folders and the trained model by name, the shape, and baselines.
    #[cfg(feature = "train")]
    fn encoders<'a>(
        &'a self,
        task: &'a super::super::Task,
    ) -> Result<impl Iterator<Item = Result<Encoder, Error>> + 'a, Error> {
        let mut models: BTreeMap<&str, PathBuf> = BTreeMap::new();
        for (name, folder) in &self.folders {
            models.insert(name, task.base.join(folder));
        }
        if let Some(model) = &self.model {
            models.insert(model, task.input_of("model", &["train"])?.folder.clone());
        }
        let folders = models.into_iter().map(|(name, folder)| Ok(Encoder::open(name, &folder)?));
        let preset = self.preset.iter().map(|preset| self.shape(*preset, task));
        let baselines = self.baselines.iter().map(|baseline| Ok(Encoder::of_baseline(*baseline)?));
        Ok(folders.chain(preset).chain(baselines))
    }

    #[cfg(feature = "train")]
    fn shape(&self, preset: Named, task: &super::super::Task) -> Result<Encoder, Error> {
        let tokenizer = match &self.tokenizer {
            Some(_) => {
                let file =
                    task.input_of("tokenizer", &["tokenizer"])?.path(super::super::tokenizer::TOKENIZER);
                Some(crate::tokenizer::open(&file)?.into())
            }
            None => None,
        };
        // The same shape with another tokenizer is another model.
        let of = self.tokenizer.as_ref().map_or_else(String::new, |stage| format!("+{stage}"));
        Ok(Encoder::of_preset(&format!("{preset}{of}"), preset, tokenizer, self.inputs.max_tokens)?)
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
        "protocol": outcome.config.label(),
        "metric": outcome.summary.metric,
        "mean": outcome.summary.all.map(|all| all.mean),
        "sd": outcome.summary.all.and_then(|all| all.sd),
        "runs": outcome.runs.len(),
    })
}
