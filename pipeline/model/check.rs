//! Whether a model computes what another implementation stored: `hf/` holds the model, `forward.safetensors` its
//! `input_ids` `[B, T]`, `logits` `[B, T, V]` and `loss` (the mean over the next-token targets). Memory: both of them.

use std::path::{Path, PathBuf};

use tch::{Device, Kind, TchError, Tensor};

use super::olmo::Olmo;
use super::weights::{self, Weights, read_tensor};
use super::{Config, hf};
use crate::loader::IGNORED;

/// The model within the folder.
const MODEL: &str = "hf";
/// What is to be equalled.
const FORWARD: &str = "forward.safetensors";

/// How far the results are apart, at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Of any score.
    pub logits: f64,
    /// Of the loss, in nats.
    pub loss: f64,
    /// Rows compared.
    pub rows: i64,
    /// Tokens of each.
    pub tokens: i64,
}

/// Why there is nothing to compare.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, or tensors.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// Inputs or scores that this model cannot have.
    #[error("`{}`: `{name}` is {found}, expected {expected}", path.display())]
    Inputs {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: &'static str,
        /// What it is.
        found: String,
        /// What the model takes.
        expected: String,
    },
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        Self::Tensors(error.into())
    }
}

impl Difference {
    /// The larger one; not a number where anything compared is none.
    pub fn largest(&self) -> f64 {
        if self.logits.is_nan() { self.logits } else { self.loss.max(self.logits) + 0.0 * self.loss }
    }
}

/// Computes on the CPU what `folder` holds the results of.
pub fn check(folder: &Path) -> Result<Difference, Error> {
    let (model, path) = (folder.join(MODEL), folder.join(FORWARD));
    let config = hf::read_config(&model).map_err(weights::Error::from)?;
    let weights = Weights::read_hf(&config, &model, Device::Cpu)?;
    let ids = read_tensor(&path, "input_ids")?;
    fits(&config, &path, &ids)?;
    let stored = read_tensor(&path, "logits")?;
    let shape = [ids.size(), vec![config.vocabulary.into()]].concat();
    if stored.size() != shape {
        let (found, expected) = (format!("{:?}", stored.size()), format!("{shape:?}"));
        return Err(Error::Inputs { path, name: "logits", found, expected });
    }
    let model = Olmo::new(config, weights, Device::Cpu)?;
    Ok(tch::no_grad(|| compare(&model, &ids, &stored, &read_tensor(&path, "loss")?))?)
}

/// Refuses ids outside the vocabulary and rows longer than the context.
fn fits(config: &Config, path: &Path, ids: &Tensor) -> Result<(), Error> {
    let shape = ids.size();
    let rows = shape.len() == 2 && (2..=i64::from(config.context)).contains(&shape[1]) && shape[0] > 0;
    let known = rows && ids.f_min()?.f_int64_value(&[])? >= 0;
    if known && ids.f_max()?.f_int64_value(&[])? < i64::from(config.vocabulary) {
        return Ok(());
    }
    let found = if rows { "outside the vocabulary".to_owned() } else { format!("{shape:?}") };
    let expected =
        format!("rows of 2 to {} ids from 0 to {}", config.context, config.vocabulary.saturating_sub(1));
    Err(Error::Inputs { path: path.to_owned(), name: "input_ids", found, expected })
}

fn compare(model: &Olmo, ids: &Tensor, logits: &Tensor, loss: &Tensor) -> Result<Difference, weights::Error> {
    let (rows, tokens) = (ids.size()[0], ids.size()[1]);
    let found = model.logits(&model.hidden(ids)?)?;
    let last = Tensor::f_full([rows, 1], IGNORED, (Kind::Int64, Device::Cpu))?;
    let targets = Tensor::f_cat(&[ids.f_narrow(1, 1, tokens - 1)?, last], 1)?;
    let count = rows * (tokens - 1);
    let mean = model.nats(ids, &targets)?.f_sum(Kind::Float)?.f_div_scalar(count as f64)?;
    let farthest = |a: &Tensor, b: &Tensor| a.f_sub(b)?.f_abs()?.f_max()?.f_double_value(&[]);
    let loss = farthest(&mean, &loss.f_reshape(&[] as &[i64])?)?;
    Ok(Difference { logits: farthest(&found, logits)?, loss, rows, tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

    #[test]
    fn golden_models_are_equal_and_others_are_not() {
        for name in ["olmo1_tied", "olmo2_gqa"] {
            let difference = check(&golden(name)).unwrap();
            assert!(difference.largest() < 5e-5, "{name}: {difference:?}");
            assert_eq!((difference.rows, difference.tokens), (2, 96));
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(golden("olmo1_tied").join(MODEL), folder.path().join(MODEL)).unwrap();
        let other = golden("olmo2_gqa").join(FORWARD);
        std::fs::copy(other, folder.path().join(FORWARD)).unwrap();
        let difference = check(folder.path()).unwrap();
        assert!(difference.logits > 0.1 && difference.largest() >= difference.logits, "{difference:?}");
        std::fs::copy(golden("olmo2").join(FORWARD), folder.path().join(FORWARD)).unwrap();
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(error.contains("forward.safetensors`: `"), "{error}");
    }

    #[test]
    fn what_is_no_number_is_far() {
        let difference = Difference { logits: f64::NAN, loss: 0.0, rows: 1, tokens: 2 };
        assert!(difference.largest().is_nan());
        assert!(Difference { logits: 0.0, loss: f64::NAN, ..difference }.largest().is_nan());
    }
}
