//! Whether a model computes what another implementation stored: `hf/` (or the folder itself) holds the model,
//! `forward.safetensors` its `input_ids` `[B, T]` and results. Memory: both of them.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, TchError, Tensor};

use super::olmo::Olmo;
use super::weights::{self, Weights, read_tensor};
use super::{dnabert2, hf};
use crate::loader::IGNORED;

/// The model within the folder.
const MODEL: &str = "hf";
/// What is to be equalled.
const FORWARD: &str = "forward.safetensors";
/// What rounding may do to the results of a decoder.
const LIMIT: f64 = 5e-5;

/// How far results are apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Rows compared.
    pub rows: i64,
    /// Tokens of each.
    pub tokens: i64,
    /// Each kind of result.
    pub results: Vec<Compared>,
}

/// How far the results of one kind are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// What was compared.
    pub name: &'static str,
    /// The largest difference; not a number where anything compared is none.
    pub difference: f64,
    /// What rounding may do.
    pub limit: f64,
}

/// Why there is nothing to compare.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, or tensors.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// Inputs or results that this model cannot have.
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

impl From<hf::Error> for Error {
    fn from(error: hf::Error) -> Self {
        Self::Tensors(error.into())
    }
}

/// The file of a folder that holds inputs and results.
pub(super) struct Stored {
    path: PathBuf,
}

impl Stored {
    /// `input_ids`: rows of as many ids of the vocabulary as `tokens` allows.
    pub(super) fn ids(&self, tokens: RangeInclusive<i64>, vocabulary: u32) -> Result<Tensor, Error> {
        let ids = read_tensor(&self.path, "input_ids")?;
        let shape = ids.size();
        let rows = shape.len() == 2 && tokens.contains(&shape[1]) && shape[0] > 0;
        let known = rows && ids.f_min()?.f_int64_value(&[])? >= 0;
        if known && ids.f_max()?.f_int64_value(&[])? < i64::from(vocabulary) {
            return Ok(ids);
        }
        let found = if rows { "outside the vocabulary".to_owned() } else { format!("{shape:?}") };
        let (least, most) = tokens.into_inner();
        let most = if most == i64::MAX { "any number of".to_owned() } else { most.to_string() };
        let expected = format!("rows of {least} to {most} ids from 0 to {}", vocabulary.saturating_sub(1));
        Err(Error::Inputs { path: self.path.clone(), name: "input_ids", found, expected })
    }

    /// A tensor of this shape.
    pub(super) fn tensor(&self, name: &'static str, shape: &[i64]) -> Result<Tensor, Error> {
        let tensor = read_tensor(&self.path, name)?;
        if tensor.size() == shape {
            return Ok(tensor);
        }
        let (found, expected) = (format!("{:?}", tensor.size()), format!("{shape:?}"));
        Err(Error::Inputs { path: self.path.clone(), name, found, expected })
    }
}

/// The largest difference of any two values; not a number where one is none.
pub(super) fn farthest(a: &Tensor, b: &Tensor) -> Result<f64, TchError> {
    a.f_sub(b)?.f_abs()?.f_max()?.f_double_value(&[])
}

/// Computes on the CPU what `folder` holds the results of; its configuration says which model that is.
pub fn check(folder: &Path) -> Result<Comparison, Error> {
    let within = folder.join(MODEL);
    let model = if within.is_dir() { within } else { folder.to_owned() };
    let stored = Stored { path: folder.join(FORWARD) };
    match hf::Architecture::of(&model)? {
        hf::Architecture::Olmo => olmo(&model, &stored),
        hf::Architecture::Dnabert2 => dnabert2::check(&model, &stored, folder),
    }
}

/// Compares `logits` `[B, T, V]` and `loss`, the mean over the next-token targets.
fn olmo(model: &Path, stored: &Stored) -> Result<Comparison, Error> {
    let config = hf::read_config(model)?;
    let weights = Weights::read_hf(&config, model, Device::Cpu)?;
    let ids = stored.ids(2..=config.context.into(), config.vocabulary)?;
    let shape = [ids.size(), vec![config.vocabulary.into()]].concat();
    let logits = stored.tensor("logits", &shape)?;
    let loss = read_tensor(&stored.path, "loss")?;
    let model = Olmo::new(config, weights, Device::Cpu)?;
    Ok(tch::no_grad(|| compare(&model, &ids, &logits, &loss))?)
}

fn compare(model: &Olmo, ids: &Tensor, logits: &Tensor, loss: &Tensor) -> Result<Comparison, weights::Error> {
    let (rows, tokens) = (ids.size()[0], ids.size()[1]);
    let found = model.logits(&model.hidden(ids)?)?;
    let last = Tensor::f_full([rows, 1], IGNORED, (Kind::Int64, Device::Cpu))?;
    let targets = Tensor::f_cat(&[ids.f_narrow(1, 1, tokens - 1)?, last], 1)?;
    let count = rows * (tokens - 1);
    let mean = model.nats(ids, &targets)?.f_sum(Kind::Float)?.f_div_scalar(count as f64)?;
    let loss = farthest(&mean, &loss.f_reshape(&[] as &[i64])?)?;
    let results = vec![
        Compared { name: "logits", difference: farthest(&found, logits)?, limit: LIMIT },
        Compared { name: "loss", difference: loss, limit: LIMIT },
    ];
    Ok(Comparison { rows, tokens, results })
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
            let found = check(&golden(name)).unwrap();
            assert!(found.results.iter().all(|result| result.difference < 5e-5), "{name}: {found:?}");
            assert_eq!((found.rows, found.tokens, found.results.len()), (2, 96, 2));
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(golden("olmo1_tied").join(MODEL), folder.path().join(MODEL)).unwrap();
        let other = golden("olmo2_gqa").join(FORWARD);
        std::fs::copy(other, folder.path().join(FORWARD)).unwrap();
        let found = check(folder.path()).unwrap();
        assert!(found.results[0].difference > 0.1, "{found:?}");
        std::fs::copy(golden("olmo2").join(FORWARD), folder.path().join(FORWARD)).unwrap();
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(error.contains("forward.safetensors`: `"), "{error}");
    }

    #[test]
    fn what_is_no_number_is_far() {
        let [number, none] = [1.0_f32, f32::NAN].map(|x| Tensor::from_slice(&[0.5, x, 0.0]));
        assert!(farthest(&number, &none).unwrap().is_nan());
        assert!(farthest(&none, &none).unwrap().is_nan());
    }
}
