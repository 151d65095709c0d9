//! Models against each other on the test sets that both were scored on: the task's score by a paired bootstrap over examples, for two
//! classes the area under the curve by DeLong's test, and both corrected over tasks by Holm's method.
//!
//! Of several seeds the mean of the scores of each example is taken: it is the models that are compared, not their luckiest runs. Memory: the
//! predictions of one task.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::predictions::{self, Predictions};
use super::result::Outcome;
use crate::metric;
use crate::metric::compare::{holm, paired};
use crate::metric::delong::delong;
use crate::metric::interval::Bootstrap;
use crate::metric::scores::{Classified, Metric};
use crate::task::Kind;

/// Two models, or two protocols, on one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The task.
    pub task: String,
    /// The score that is compared.
    pub metric: Metric,
    /// Model and protocol.
    pub left: String,
    /// Model and protocol.
    pub right: String,
    /// The left score less the right.
    pub difference: f64,
    /// 95 % interval of the difference.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Two-sided, by the bootstrap.
    pub p: f64,
    /// Corrected over the tasks of this pair.
    pub p_corrected: f64,
    /// Of two classes: the areas under the curve.
    pub areas: Option<Areas>,
}

/// Two areas under the receiver operating characteristic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Areas {
    /// The left area less the right.
    pub difference: f64,
    /// DeLong's p; none where the test says nothing.
    pub p: Option<f64>,
    /// Corrected over the tasks of this pair.
    pub p_corrected: Option<f64>,
}

/// Why models cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A table of predictions.
    #[error(transparent)]
    Predictions(#[from] predictions::Error),
    /// Predictions that are no answers to the same examples.
    #[error("task `{task}`: {source}")]
    Metric {
        /// The task.
        task: String,
        /// What is wrong.
        source: metric::Error,
    },
    /// Runs of one result with unlike numbers of examples.
    #[error("`{}` has {found} scores, expected {expected} as in the run before", path.display())]
    Unlike {
        /// The table.
        path: PathBuf,
        /// Its scores.
        found: usize,
        /// Those of the run before.
        expected: usize,
    },
}

/// What a result is called.
pub fn label(outcome: &Outcome) -> String {
    format!("{}, {}", outcome.model.name, outcome.config.label())
}

/// All pairs of results on the same test set, task by task.
///
/// # Errors
/// [`Error`] where predictions cannot be read or do not fit each other.
pub fn pairs(results: &[(PathBuf, Outcome)]) -> Result<Vec<Pair>, Error> {
    let mut tasks: BTreeMap<(&str, &str), Vec<&(PathBuf, Outcome)>> = BTreeMap::new();
    // Bases of a window are not independent: their answers are not compared one by one.
    for result in results.iter().filter(|(_, outcome)| outcome.task.kind != Kind::Bases) {
        tasks.entry((&result.1.task.name, &result.1.task.content)).or_default().push(result);
    }
    let mut found = Vec::new();
    for of_task in tasks.values().filter(|of_task| of_task.len() > 1) {
        let mut answers = Vec::new();
        for (path, outcome) in of_task {
            answers.push((label(outcome), mean(path, outcome)?));
        }
        answers.sort_by(|a, b| a.0.cmp(&b.0));
        let outcome = &of_task[0].1;
        for (at, left) in answers.iter().enumerate() {
            for right in &answers[at + 1..] {
                let pair = pair(outcome, left, right);
                let wrong = |source| Error::Metric { task: outcome.task.name.clone(), source };
                found.extend(pair.map_err(wrong)?);
            }
        }
    }
    correct(&mut found);
    Ok(found)
}

/// The mean over seeds.
fn mean(path: &Path, outcome: &Outcome) -> Result<Predictions, Error> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut all: Option<Predictions> = None;
    for run in &outcome.runs {
        let path = folder.join(&run.predictions);
        let read = Predictions::read(&path)?;
        match &mut all {
            None => all = Some(read),
            Some(sum) if sum.scores.len() == read.scores.len() => {
                sum.scores.iter_mut().zip(&read.scores).for_each(|(sum, score)| *sum += score);
            }
            Some(sum) => {
                let (found, expected) = (read.scores.len(), sum.scores.len());
                return Err(Error::Unlike { path, found, expected });
            }
        }
    }
    let mut all = all.unwrap_or_default();
    let count = outcome.runs.len() as f64;
    all.scores.iter_mut().for_each(|score| *score /= count);
    all.predicted = predictions::predicted(&all.scores, all.classes());
    Ok(all)
}

fn pair(
    outcome: &Outcome,
    (left_name, left): &(String, Predictions),
    (right_name, right): &(String, Predictions),
) -> Result<Option<Pair>, metric::Error> {
    let classes = outcome.task.classes.len();
    let [left_scores, right_scores] = [left, right].map(Predictions::metric_scores);
    let left_answers = Classified::new(classes, &left.labels, &left.predicted, Some(&left_scores))?;
    let right_answers = Classified::new(classes, &right.labels, &right.predicted, Some(&right_scores))?;
    let metric = outcome.task.metric;
    let differences = paired(&Bootstrap::default(), &left_answers, &right_answers)?;
    let Some(of) = differences.get(&metric) else { return Ok(None) };
    let positive: Vec<bool> = left.labels.iter().map(|label| *label == 1).collect();
    let areas = if classes == 2 { delong(&positive, &left_scores, &right_scores)? } else { None };
    let areas = areas.map(|areas| Areas { difference: areas.difference, p: areas.p, p_corrected: None });
    Ok(Some(Pair {
        task: outcome.task.name.clone(),
        metric,
        left: left_name.clone(),
        right: right_name.clone(),
        difference: of.value,
        low: of.interval.low,
        high: of.interval.high,
        p: of.p,
        p_corrected: of.p,
        areas,
    }))
}

/// Corrects the p values of each pair over its tasks.
fn correct(pairs: &mut [Pair]) {
    let mut groups: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (at, pair) in pairs.iter().enumerate() {
        groups.entry((pair.left.clone(), pair.right.clone())).or_default().push(at);
    }
    for places in groups.values() {
        let p: Vec<f64> = places.iter().map(|at| pairs[*at].p).collect();
        for (at, p) in places.iter().zip(holm(&p).unwrap_or(p)) {
            pairs[*at].p_corrected = p;
        }
        let tested = |at: &&usize| pairs[**at].areas.and_then(|areas| areas.p).is_some();
        let tested: Vec<usize> = places.iter().filter(tested).copied().collect();
        let p: Vec<f64> = tested.iter().filter_map(|at| pairs[*at].areas.and_then(|areas| areas.p)).collect();
        for (at, p) in tested.iter().zip(holm(&p).unwrap_or_default()) {
            if let Some(areas) = &mut pairs[*at].areas {
                areas.p_corrected = Some(p);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::evaluate::protocol::{Config, Given, Protocol};
    use crate::evaluate::result::{self, Identity, Run, TaskOf};
    use crate::metric::scores::Scores;
    use crate::metric::seeds;

    /// A result on 200 examples whose scores follow the labels with noise, written below `folder`.
    pub fn made(folder: &Path, task: &str, model: &str, protocol: Protocol, noise: &[f64]) {
        let labels: Vec<u32> = (0..200).map(|at| at % 2).collect();
        let draw = |at: u64| {
            let bits = (at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((bits ^ (bits >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 11) as f64 / (1_u64 << 53) as f64
        };
        let place = folder.join(task).join(protocol.to_string()).join(model);
        std::fs::create_dir_all(&place).unwrap();
        let runs: Vec<Run> = (0..)
            .zip(noise)
            .map(|(seed, noise)| {
                let salt = model.len() as u64 * 1000 + seed * 31;
                let score = |at: u64| {
                    (f64::from(labels[usize::try_from(at).unwrap()]) + noise * draw(at + salt * 7919))
                        / (1.0 + noise)
                };
                let second: Vec<f64> = (0..200).map(score).collect();
                let scores: Vec<f64> = second.iter().flat_map(|p| [1.0 - p, *p]).collect();
                let predicted = predictions::predicted(&scores, 2);
                let answers = Classified::new(2, &labels, &predicted, Some(&second)).unwrap();
                let of =
                    Scores::of_classes(&answers, Some(&Bootstrap { resamples: 200, ..Bootstrap::default() }));
                let predictions = format!("predictions-{seed}.parquet");
                let table =
                    Predictions { lines: (2..202).collect(), labels: labels.clone(), predicted, scores };
                table.write(&place.join(&predictions)).unwrap();
                Run {
                    seed,
                    chosen: Some(0.1),
                    tried: Vec::new(),
                    epoch: None,
                    validation_loss: Some(0.5),
                    clean: None,
                    scores: of,
                    predictions,
                }
            })
            .collect();
        let by_seed: Vec<(u64, &Scores)> = runs.iter().map(|run| (run.seed, &run.scores)).collect();
        let outcome = Outcome {
            format: result::FORMAT.to_owned(),
            genomill: "0".to_owned(),
            key: String::new(),
            model: Identity {
                name: model.to_owned(),
                family: "OLMo".to_owned(),
                parameters: 270_336,
                width: 64,
                context: Some(256),
                causal: true,
                weights: model.to_owned(),
                tokenizer: String::new(),
            },
            task: TaskOf {
                name: task.to_owned(),
                version: 1,
                kind: Kind::Sequences,
                content: task.to_owned(),
                metric: Metric::Mcc,
                classes: vec!["0".to_owned(), "1".to_owned()],
                examples: [1, 1, 200],
                clean: 200,
            },
            config: Config::new(protocol),
            given: Given::default(),
            summary: seeds::Summary::new(Metric::Mcc, &by_seed),
            clean: None,
            runs,
            looks: 1,
            notes: vec!["3 sequences were cut".to_owned()],
        };
        std::fs::write(place.join(result::FILE), serde_json::to_vec(&outcome).unwrap()).unwrap();
    }

    #[test]
    fn a_better_model_is_told_from_a_worse_one_task_by_task() {
        let folder = tempfile::tempdir().unwrap();
        for task in ["tf-0", "tf-1"] {
            made(folder.path(), task, "good", Protocol::LinearProbe, &[1.2, 1.3]);
            made(folder.path(), task, "worse", Protocol::LinearProbe, &[6.0]);
        }
        made(folder.path(), "tf-2", "good", Protocol::LinearProbe, &[1.0]);
        let results = result::find(folder.path()).unwrap();
        assert_eq!(results.len(), 5);
        let found = pairs(&results).unwrap();
        assert_eq!(found.iter().map(|pair| pair.task.as_str()).collect::<Vec<_>>(), ["tf-0", "tf-1"]);
        for pair in &found {
            assert_eq!(
                (pair.left.as_str(), pair.right.as_str()),
                ("good, linear-probe", "worse, linear-probe")
            );
            assert!(
                pair.low > 0.0 && pair.low <= pair.difference && pair.difference <= pair.high,
                "{pair:?}"
            );
            assert!(pair.p < 0.01 && pair.p_corrected >= pair.p && pair.p_corrected <= 2.0 * pair.p);
            let areas = pair.areas.unwrap();
            assert!(
                areas.difference > 0.0
                    && areas.p.unwrap() < 0.01
                    && areas.p_corrected.unwrap() >= areas.p.unwrap()
            );
        }
        // Holm doubles the smaller of two.
        let smaller = found.iter().min_by(|a, b| a.p.total_cmp(&b.p)).unwrap();
        assert!((smaller.p_corrected - 2.0 * smaller.p).abs() < 1e-12);
    }

    #[test]
    fn other_labels_are_not_compared() {
        let folder = tempfile::tempdir().unwrap();
        for model in ["a", "bb"] {
            made(folder.path(), "tf-0", model, Protocol::LinearProbe, &[1.0]);
        }
        let path = folder.path().join("tf-0/linear-probe/bb/predictions-0.parquet");
        let mut changed = Predictions::read(&path).unwrap();
        changed.labels[5] = 0;
        changed.write(&path).unwrap();
        let error = pairs(&result::find(folder.path()).unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("task `tf-0`: cannot compare in pairs: example 5 has another label"),
            "{error}"
        );
        let error = result::find(&folder.path().join("nothing")).unwrap_err().to_string();
        assert!(error.contains("holds no results: expected a `result.json`"), "{error}");
    }
}
