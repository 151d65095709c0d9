//! Whether a model computes what another implementation stored. `forward.safetensors` has inputs and results; the model
//! lies in `hf/` beside it, or in the same folder, and its `config.json` says of which kind it is. Memory: both of them.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Device, Kind, TchError, Tensor};

use super::olmo::Olmo;
use super::weights::{self, Weights, read_tensor};
use super::{dnabert2, hf, hyena};
use crate::fs;
use crate::loader::IGNORED;

/// The model within the folder.
const MODEL: &str = "hf";
/// What is to be equalled.
const FORWARD: &str = "forward.safetensors";
/// What rounding does to scores and losses of an OLMo.
const LIMIT: f64 = 5e-5;

/// How far results are apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// Rows, and tokens of each, of every batch compared.
    pub batches: Vec<[i64; 2]>,
    /// What was compared, at least one.
    pub results: Vec<Compared>,
}

/// How far one kind of result is off.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Its name.
    pub name: String,
    /// The largest difference of any value; not a number where a value is none.
    pub off: f64,
    /// What rounding explains.
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
        name: String,
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
    /// The result that is furthest beyond `limit`, or where none is given beyond its own; a result that is no number
    /// is furthest. None where all are within.
    pub fn beyond(&self, limit: Option<f64>) -> Option<Compared> {
        let limited = |result: &Compared| Compared { limit: limit.unwrap_or(result.limit), ..result.clone() };
        let beyond =
            |result: &Compared| if result.off.is_nan() { f64::MAX } else { result.off / result.limit };
        let results = self.results.iter().map(limited).filter(|result| beyond(result) > 1.0);
        results.max_by(|a, b| beyond(a).total_cmp(&beyond(b)))
    }

    /// Itself, if anything was compared; `inputs` is what the file should have.
    pub(super) fn checked(self, path: &Path, inputs: &str) -> Result<Self, Error> {
        if self.results.is_empty() {
            let (path, name) = (path.to_owned(), inputs.to_owned());
            let (found, expected) = ("without results".to_owned(), "results beside it".to_owned());
            return Err(Error::Inputs { path, name, found, expected });
        }
        Ok(self)
    }
}

/// Computes on the CPU what `folder` holds the results of.
pub fn check(folder: &Path) -> Result<Difference, Error> {
    let (inner, forward) = (folder.join(MODEL), folder.join(FORWARD));
    let model = if inner.is_dir() { inner } else { folder.to_owned() };
    match written(&model)? {
        config if hyena::config::is_hyena(&config) => hyena::check::check(&model, &forward),
        config if dnabert2::is_dnabert2(&config) => dnabert2::check(&model, &forward),
        _ => check_olmo(&model, &forward),
    }
}

/// The configuration of the model in `folder`.
fn written(folder: &Path) -> Result<Value, weights::Error> {
    let path = folder.join(hf::CONFIG);
    let bytes = fs::read(&path)?;
    Ok(serde_json::from_slice(&bytes).map_err(|source| hf::Error::Json { path, source })?)
}

/// `input_ids` `[B, T]`, `logits` `[B, T, V]` and `loss` (the mean over the next-token targets).
fn check_olmo(folder: &Path, forward: &Path) -> Result<Difference, Error> {
    let config = hf::read_config(folder).map_err(weights::Error::from)?;
    let weights = Weights::read_hf(&config, folder, Device::Cpu)?;
    let ids = read_tensor(forward, "input_ids")?;
    fits(forward, "input_ids", &ids, 2..=config.context, config.vocabulary)?;
    let [logits, loss] = ["logits", "loss"].map(|name| read_tensor(forward, name));
    let (logits, loss) = (logits?, loss?);
    let (found, mean) = tch::no_grad(|| compute(&Olmo::new(config, weights, Device::Cpu)?, &ids))?;
    let results = vec![
        result(forward, "logits".to_owned(), &found, &logits, LIMIT)?,
        result(forward, "loss".to_owned(), &mean.f_view_as(&loss)?, &loss, LIMIT)?,
    ];
    Ok(Difference { batches: vec![[ids.size()[0], ids.size()[1]]], results })
}

/// Refuses ids outside the vocabulary and rows of other lengths than `tokens`.
pub(super) fn fits(
    path: &Path,
    name: &str,
    ids: &Tensor,
    tokens: RangeInclusive<u32>,
    vocabulary: u32,
) -> Result<(), Error> {
    let (shape, (shortest, longest)) = (ids.size(), tokens.into_inner());
    let lengths = i64::from(shortest)..=i64::from(longest);
    let rows = shape.len() == 2 && lengths.contains(&shape[1]) && shape[0] > 0;
    let known = rows && ids.f_min()?.f_int64_value(&[])? >= 0;
    if known && ids.f_max()?.f_int64_value(&[])? < i64::from(vocabulary) {
        return Ok(());
    }
    let found = if rows { "outside the vocabulary".to_owned() } else { format!("{shape:?}") };
    let expected = format!("rows of {shortest} to {longest} ids from 0 to {}", vocabulary.saturating_sub(1));
    Err(Error::Inputs { path: path.to_owned(), name: name.to_owned(), found, expected })
}

/// How far `found` is from what the file `path` stores under `name`; refuses other shapes.
pub(super) fn result(
    path: &Path,
    name: String,
    found: &Tensor,
    stored: &Tensor,
    limit: f64,
) -> Result<Compared, Error> {
    if stored.size() != found.size() {
        let (found, expected) = (format!("{:?}", stored.size()), format!("{:?}", found.size()));
        return Err(Error::Inputs { path: path.to_owned(), name, found, expected });
    }
    let off = found.f_sub(stored)?.f_abs()?.f_max()?.f_double_value(&[])?;
    Ok(Compared { name, off, limit })
}

/// Scores and the loss.
fn compute(model: &Olmo, ids: &Tensor) -> Result<(Tensor, Tensor), weights::Error> {
    let (rows, tokens) = (ids.size()[0], ids.size()[1]);
    let last = Tensor::f_full([rows, 1], IGNORED, (Kind::Int64, Device::Cpu))?;
    let targets = Tensor::f_cat(&[ids.f_narrow(1, 1, tokens - 1)?, last], 1)?;
    let hidden = model.hidden(ids)?;
    let count = rows * (tokens - 1);
    let mean = model.nats_of(&hidden, &targets)?.f_sum(Kind::Float)?.f_div_scalar(count as f64)?;
    Ok((model.logits(&hidden)?, mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

    /// The model of one golden folder with the results of another.
    fn mixed(model: &str, forward: &Path) -> Result<Difference, Error> {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(golden(model), folder.path().join(MODEL)).unwrap();
        std::fs::copy(forward, folder.path().join(FORWARD)).unwrap();
        check(folder.path())
    }

    #[test]
    fn golden_models_are_equal_and_others_are_not() {
        for name in ["olmo1_tied", "olmo2_gqa"] {
            let difference = check(&golden(name)).unwrap();
            assert_eq!(difference.beyond(None), None, "{name}: {difference:?}");
            assert_eq!((difference.batches.len(), difference.batches[0]), (1, [2, 96]));
        }
        let difference = mixed("olmo1_tied/hf", &golden("olmo2_gqa").join(FORWARD)).unwrap();
        let beyond = difference.beyond(None).unwrap();
        assert!(beyond.name == "logits" && beyond.off > 0.1, "{difference:?}");
        let error = mixed("olmo1_tied/hf", &golden("olmo2").join(FORWARD)).unwrap_err().to_string();
        assert!(error.contains("forward.safetensors`: `"), "{error}");
    }

    #[test]
    fn a_folder_says_of_which_kind_its_model_is() {
        let difference = check(&golden("hyenadna")).unwrap();
        assert_eq!(difference.beyond(None), None, "{difference:?}");
        assert_eq!(mixed("hyenadna", &golden("hyenadna").join(FORWARD)).unwrap(), difference);
        let file = tempfile::NamedTempFile::new().unwrap();
        let cases = [
            (vec![[1, 259]], 0, "`input_ids` is [1, 259], expected rows of 1 to 258 ids from 0 to 15"),
            (vec![[1, 9]], 16, "`input_ids` is outside the vocabulary"),
            (vec![[1, 9]], 15, "`input_ids` is without results"),
            (vec![[1, 9], [1, 8]], 0, "`hidden` is [1, 8], expected [1, 9, 64]"),
        ];
        for (shapes, id, expected) in cases {
            let names = ["input_ids", "hidden"].into_iter().zip(shapes);
            let tensors = names
                .map(|(name, shape)| (name, Tensor::full(shape, id, (Kind::Int64, Device::Cpu))))
                .collect::<Vec<_>>();
            Tensor::write_safetensors(&tensors, file.path()).unwrap();
            let error = mixed("hyenadna", file.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_no_number_is_far() {
        let result = |name: &str, off| Compared { name: name.to_owned(), off, limit: 1.0 };
        let of = |results| Difference { batches: Vec::new(), results };
        let difference = of(vec![result("a", 3.0), result("b", -f64::NAN), result("c", 0.5)]);
        assert_eq!(difference.beyond(None).unwrap().name, "b");
        let difference = of(vec![result("a", 1.0), result("c", 0.5)]);
        assert_eq!(difference.beyond(None), None);
        assert_eq!(
            difference.beyond(Some(0.9)).map(|result| (result.name, result.limit)),
            Some(("a".to_owned(), 0.9))
        );
    }
}
