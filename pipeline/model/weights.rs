//! Tensors that follow a model's layout: its weights, their gradients, an optimizer's moments; on disk safetensors.
//!
//! Memory beside the model: one tensor while writing, the file while reading.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, View, serialize_to_file};
use tch::{Device, Kind, TchError, Tensor};

use super::config::Config;
use super::layout::{Parameter, Start};
use crate::fs;
use crate::loader::{fraction, mix};

/// Normal values are cut at this many standard deviations.
const CUT: f64 = 3.0;

/// One tensor per trainable parameter of a model, f32.
#[derive(Debug)]
pub struct Weights {
    layout: Arc<[Parameter]>,
    tensors: Vec<Tensor>,
}

/// Why tensors could not be made, written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file call.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// A tensor call; where memory ran out, a smaller batch, context or model helps.
    #[error("a tensor operation failed: {0}")]
    Tensor(#[from] TchError),
    /// Threads that could not be started.
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A file that is no safetensors.
    #[error("`{}` is no readable safetensors file: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// A tensor that is missing.
    #[error("`{}` has no tensor `{name}`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor of another shape or type.
    #[error("`{}`: tensor `{name}` is {found}, expected {expected}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type and shape.
        found: String,
        /// The type and shape that the model needs.
        expected: String,
    },
}

impl Weights {
    /// Fresh weights, a function of the layout and `seed` alone.
    pub fn random(config: &Config, seed: u64, device: Device) -> Result<Self, Error> {
        Self::build(config, |index, parameter| {
            let values = start_values(parameter, mix(seed ^ mix(index as u64)));
            Ok(Tensor::f_from_slice(&values)?.f_reshape(shape(parameter))?.f_to_device(device)?)
        })
    }

    /// Zeros.
    pub fn zeros(config: &Config, device: Device) -> Result<Self, Error> {
        Self::build(config, |_, parameter| Ok(Tensor::f_zeros(shape(parameter), (Kind::Float, device))?))
    }

    /// Reads every tensor of `config` from the safetensors file `path`; names carry `prefix`.
    pub fn read(config: &Config, path: &Path, prefix: &str, device: Device) -> Result<Self, Error> {
        let bytes = fs::read(path)?;
        let file =
            SafeTensors::deserialize(&bytes).map_err(|source| Error::Format { path: path.into(), source })?;
        Self::build(config, |_, parameter| {
            let parts = parameter.parts.iter().map(|part| {
                read_part(&file, path, &format!("{prefix}{}", part.name), part.rows, parameter.columns)
            });
            Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)?.f_to_device(device)?)
        })
    }

    fn build(
        config: &Config,
        make: impl Fn(usize, &Parameter) -> Result<Tensor, Error>,
    ) -> Result<Self, Error> {
        let layout = config.parameters();
        let tensors = layout.iter().enumerate().map(|(index, parameter)| make(index, parameter));
        Ok(Self { tensors: tensors.collect::<Result<_, _>>()?, layout: layout.into() })
    }

    /// The same tensors again: what changes in one changes in the other.
    #[must_use]
    pub fn share(&self) -> Self {
        let tensors = self.tensors.iter().map(Tensor::shallow_clone).collect();
        Self { layout: Arc::clone(&self.layout), tensors }
    }

    /// The layout, in the order of the tensors.
    pub fn layout(&self) -> &[Parameter] {
        &self.layout
    }

    /// The tensors, in the order of the layout.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensors, to be changed in place.
    pub fn tensors_mut(&mut self) -> &mut [Tensor] {
        &mut self.tensors
    }

    /// Marks every tensor as one whose gradient is wanted.
    pub fn require_gradients(mut self) -> Result<Self, Error> {
        for tensor in &mut self.tensors {
            *tensor = tensor.f_set_requires_grad(true)?;
        }
        Ok(self)
    }

    /// The tensors under their names on disk, as views.
    pub fn named(&self) -> Result<Vec<(String, Tensor)>, Error> {
        name_parts(&self.layout, &self.tensors)
    }
}

/// Splits `tensors` into their parts on disk, as views: names and tensors.
pub fn name_parts(layout: &[Parameter], tensors: &[Tensor]) -> Result<Vec<(String, Tensor)>, Error> {
    let mut named = Vec::new();
    for (parameter, tensor) in layout.iter().zip(tensors) {
        let mut first = 0;
        for part in &parameter.parts {
            let rows = signed(part.rows);
            named.push((part.name.clone(), tensor.f_detach()?.f_narrow(0, first, rows)?));
            first += rows;
        }
    }
    Ok(named)
}

/// Writes sets of tensors, each with the prefix of its names, into one safetensors file.
pub fn write(path: &Path, sets: &[(&str, &Weights)]) -> Result<(), Error> {
    let mut views = Vec::new();
    for (prefix, weights) in sets {
        let named = weights.named()?.into_iter();
        views.extend(named.map(|(name, tensor)| (format!("{prefix}{name}"), Stored::of(tensor))));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize_to_file(views, Some(metadata), path)
        .map_err(|source| Error::Format { path: path.into(), source })
}

/// A tensor that is copied to bytes only while it is written.
struct Stored {
    shape: Vec<usize>,
    tensor: Tensor,
}

impl Stored {
    fn of(tensor: Tensor) -> Self {
        let shape = tensor.size().into_iter().map(|n| usize::try_from(n).unwrap_or(0)).collect();
        Self { shape, tensor }
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        self.tensor.contiguous().copy_data_u8(&mut bytes, self.tensor.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * size_of::<f32>()
    }
}

fn read_part(
    file: &SafeTensors<'_>,
    path: &Path,
    name: &str,
    rows: u64,
    columns: Option<u64>,
) -> Result<Tensor, Error> {
    let missing = |_| Error::Missing { path: path.into(), name: name.to_owned() };
    let view = file.tensor(name).map_err(missing)?;
    let expected = [rows].into_iter().chain(columns).collect::<Vec<_>>();
    if view.dtype() != Dtype::F32 || view.shape().iter().map(|n| *n as u64).ne(expected.iter().copied()) {
        let found = describe(&view);
        let expected = format!("F32 {expected:?}");
        return Err(Error::Shape { path: path.into(), name: name.to_owned(), found, expected });
    }
    let shape = expected.into_iter().map(signed).collect::<Vec<_>>();
    Ok(Tensor::f_from_data_size(view.data(), &shape, Kind::Float)?)
}

fn describe(view: &TensorView<'_>) -> String {
    format!("{:?} {:?}", view.dtype(), view.shape())
}

fn shape(parameter: &Parameter) -> Vec<i64> {
    [parameter.rows()].into_iter().chain(parameter.columns).map(signed).collect()
}

/// A size as torch counts it.
#[expect(clippy::cast_possible_wrap, reason = "sizes come from u32 and from files in memory")]
const fn signed(size: u64) -> i64 {
    size as i64
}

/// The first values of `parameter`; value `i` depends on `key` and `i` alone.
fn start_values(parameter: &Parameter, key: u64) -> Vec<f32> {
    match parameter.start {
        Start::Ones => (0..parameter.len()).map(|_| 1.0).collect(),
        Start::Normal { deviation, used_rows } => {
            let used = used_rows * parameter.columns.unwrap_or(1);
            let value = |i| if i < used { deviation * cut_normal(key, i) } else { 0.0 };
            (0..parameter.len()).into_par_iter().map(|i| to_f32(value(i))).collect()
        }
    }
}

/// A value of the standard normal distribution cut at [`CUT`]: Box and Muller's transform of two hashes, drawn again
/// while it is too large (three times in a thousand).
fn cut_normal(key: u64, index: u64) -> f64 {
    let mut hash = mix(key ^ mix(index));
    loop {
        let (radius, angle) = (mix(hash), mix(!hash));
        let value =
            (-2.0 * (1.0 - fraction(radius)).ln()).sqrt() * (std::f64::consts::TAU * fraction(angle)).cos();
        if value.abs() <= CUT {
            return value;
        }
        hash = radius;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
const fn to_f32(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Overrides, Preset};

    fn config() -> Config {
        Config::resolve(Some(Preset::Olmo300k), &Overrides::default(), 100, 16).unwrap()
    }

    #[test]
    fn cut_normal_has_the_right_moments() {
        let values = (0..200_000).map(|i| cut_normal(9, i)).collect::<Vec<_>>();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|x| x * x).sum::<f64>() / count;
        let largest = values.iter().fold(0.0_f64, |a, x| a.max(x.abs()));
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((variance - 0.9733).abs() < 0.01, "variance {variance}, expected that of a cut normal");
        assert!((2.9..=3.0).contains(&largest), "largest {largest}");
    }

    #[test]
    fn the_seed_decides_and_padding_starts_at_zero() {
        let [first, same, other] =
            [1, 1, 2].map(|seed| Weights::random(&config(), seed, Device::Cpu).unwrap());
        for ((a, b), c) in first.tensors().iter().zip(same.tensors()).zip(other.tensors()) {
            assert!(a.equal(b));
            assert!(!a.equal(c));
        }
        let padding = first.tensors()[0].narrow(0, 100, 28);
        assert!(padding.equal(&padding.zeros_like()));
    }

    #[test]
    fn files_bring_back_every_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let weights = Weights::random(&config(), 1, Device::Cpu).unwrap();
        write(&path, &[("a.", &weights)]).unwrap();
        let read = Weights::read(&config(), &path, "a.", Device::Cpu).unwrap();
        assert!(weights.tensors().iter().zip(read.tensors()).all(|(a, b)| a.equal(b)));

        let error = Weights::read(&config(), &path, "b.", Device::Cpu).unwrap_err().to_string();
        assert!(error.ends_with("has no tensor `b.model.embed_tokens.weight`"), "{error}");
        let wider = Config { padded_vocabulary: 256, ..config() };
        let error = Weights::read(&wider, &path, "a.", Device::Cpu).unwrap_err().to_string();
        assert!(error.ends_with("is F32 [128, 64], expected F32 [256, 64]"), "{error}");
        std::fs::write(&path, b"nothing").unwrap();
        let error = Weights::read(&config(), &path, "a.", Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("is no readable safetensors file"), "{error}");
    }
}
