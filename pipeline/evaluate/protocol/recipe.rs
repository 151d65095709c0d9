//! How the authors of models had them learn tasks. Lengths are in tokens.
//!
//! What they did with test sets is not repeated: the epoch is chosen by validation loss, several seeds are run, and the test set is scored once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Pooling, Training};
use crate::train::Decay;

/// A published recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// HyenaDNA on Genomic Benchmarks: mean pooling, learning rate 6e-4, 100 epochs, cosine to a tenth, warm-up of 1 %, decay 0.1; batches of 256, of
    /// the 128 to 1024 that were tried. Left out: its augmentation by reverse complements, which was tried too, and padding in the mean.
    Hyenadna,
    /// DNABERT-2 on GUE: through the pooler, learning rate 3e-5, batches of 32, linear with a warm-up of 50 steps (30 on `tf`), decay 0.01; epochs and
    /// the most tokens by task. Left out: dropout of 0.1, and the end after 1000 steps on `mouse`.
    Dnabert2,
    /// The convolutional network of Genomic Benchmarks: 10 epochs of batches of 64 at 1e-3, which stays.
    Cnn,
}

/// What a recipe says of a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Says {
    pub training: Training,
    pub pooling: Pooling,
    pub max_tokens: Option<u32>,
}

/// As it is written in files.
impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl Recipe {
    /// The family of models that it is for.
    pub(super) const fn family(self) -> &'static str {
        match self {
            Self::Hyenadna => "HyenaDNA",
            Self::Dnabert2 => "DNABERT-2",
            Self::Cnn => "baseline",
        }
    }

    /// What it says of a task; none where it says nothing.
    pub(super) fn says(self, task: &str) -> Option<Says> {
        let common = Training::default();
        let (training, pooling, max_tokens) = match self {
            Self::Hyenadna => {
                let training = Training {
                    epochs: 100,
                    batch: 256,
                    learning_rates: vec![6e-4],
                    warmup_share: Some(0.01),
                    decay: Decay::Cosine,
                    floor: 0.1,
                    weight_decay: 0.1,
                    ..common
                };
                (training, Pooling::Mean, None)
            }
            Self::Dnabert2 => {
                let (max_tokens, epochs) = of_gue(task)?;
                let warmup_steps = if task.starts_with("tf-") { 30 } else { 50 };
                let training = Training { epochs, learning_rates: vec![3e-5], warmup_steps, ..common };
                (training, Pooling::Pooler, Some(max_tokens))
            }
            Self::Cnn => {
                let training = Training {
                    epochs: 10,
                    batch: 64,
                    learning_rates: vec![1e-3],
                    warmup_steps: 0,
                    decay: Decay::Constant,
                    weight_decay: 0.0,
                    clip: f64::MAX,
                    ..common
                };
                (training, Pooling::Mean, None)
            }
        };
        Some(Says { training, pooling, max_tokens })
    }
}

/// The most tokens and the epochs of a task of GUE.
fn of_gue(task: &str) -> Option<(u32, u32)> {
    let is = |start: &str| task.starts_with(start);
    Some(match task {
        "prom_core_tata" => (20, 10),
        "prom_300_tata" => (70, 10),
        "reconstructed" => (80, 5),
        "covid" => (256, 8),
        _ if is("prom_core_") => (20, 4),
        _ if is("prom_300_") => (70, 4),
        _ if is("mouse-") => (30, 5),
        _ if is("tf-") => (30, 3),
        _ if is("H3") || is("H4") => (128, 3),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Inputs, Protocol};
    use super::*;
    use crate::task::KNOWN;

    fn recipe(recipe: Recipe) -> Config {
        Config { recipe: Some(recipe), ..Config::new(Protocol::FineTune) }
    }

    #[test]
    fn recipes_say_what_was_published_of_every_task() {
        for known in KNOWN {
            let gue = recipe(Recipe::Dnabert2).for_task("DNABERT-2", known.name);
            assert_eq!(gue.is_ok(), known.suite == "GUE", "{}", known.name);
        }
        for (task, expected) in [
            ("tf-3", (3, 30, 30)),
            ("mouse-0", (5, 50, 30)),
            ("prom_core_tata", (10, 50, 20)),
            ("prom_core_all", (4, 50, 20)),
            ("H3K4me1", (3, 50, 128)),
        ] {
            let found = recipe(Recipe::Dnabert2).for_task("DNABERT-2", task).unwrap();
            let training = &found.training;
            assert_eq!(
                (training.epochs, training.warmup_steps, found.inputs.max_tokens.unwrap()),
                expected,
                "{task}"
            );
            assert_eq!((found.inputs.pooling, &training.learning_rates[..]), (Pooling::Pooler, &[3e-5][..]));
            assert_eq!(found.label(), "fine-tune, recipe dnabert2");
        }
        let hyena = recipe(Recipe::Hyenadna).for_task("HyenaDNA", "mine").unwrap();
        assert_eq!((hyena.training.epochs, &hyena.training.learning_rates[..]), (100, &[6e-4][..]));
        let common = Config::new(Protocol::Lora);
        assert_eq!(
            (common.for_task("OLMo", "mine").unwrap(), common.label()),
            (common.clone(), "lora".to_owned())
        );
    }

    #[test]
    fn what_does_not_go_with_a_recipe_is_said() {
        let error = recipe(Recipe::Hyenadna).for_task("OLMo", "tf-0").unwrap_err().1;
        assert_eq!(error, "`hyenadna` is for HyenaDNA, found a model of OLMo");
        let error = recipe(Recipe::Dnabert2).for_task("DNABERT-2", "mine").unwrap_err().1;
        assert_eq!(error, "`dnabert2` says nothing of a task `mine`");
        let inputs = Inputs { pooling: Pooling::Last, ..Inputs::default() };
        for (config, expected) in [
            (recipe(Recipe::Cnn), None),
            (
                Config { protocol: Protocol::Lora, ..recipe(Recipe::Cnn) },
                Some("is for `fine-tune` and `from-scratch`"),
            ),
            (Config { inputs, ..recipe(Recipe::Cnn) }, Some("stands beside `training` or `inputs.pooling`")),
            (
                Config { training: Training { epochs: 9, ..Training::default() }, ..recipe(Recipe::Cnn) },
                Some("stands beside `training` or `inputs.pooling`"),
            ),
        ] {
            let problems = config.problems();
            let found = problems.first().map(|(_, problem)| problem.as_str());
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            assert!(
                found.zip(expected).is_none_or(|(found, expected)| found.starts_with(expected)),
                "{found:?}"
            );
        }
    }
}
