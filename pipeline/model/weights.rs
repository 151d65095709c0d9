//! Tensors that follow a model's layout: its weights, their gradients, an optimizer's moments; on disk safetensors.
//!
//! Memory beside the model: one tensor while writing or reading, and while reading pages of mapped files, which the system can
//! drop; files with published names are read whole.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, View, serialize_to_file};
use tch::{Device, Kind, TchError, Tensor};

use super::config::Config;
use super::hf;
use super::layout::{Parameter, Start};
use super::published::{Fault, Published, Table, describe};
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
    /// A folder of a model.
    #[error(transparent)]
    Folder(#[from] hf::Error),
    /// A tensor call.
    #[error("{}", failed(.0))]
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
    /// A file that cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
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
    /// Tensors that do not fit the model, each of them.
    #[error(
        "`{}` does not hold the weights of a {model}, expected those of one preset, whole:{}{hint}",
        path.display(),
        lines(faults)
    )]
    Faults {
        /// The file.
        path: PathBuf,
        /// The model that was expected.
        model: String,
        /// What is wrong with the file.
        faults: Vec<Fault>,
        /// What the file seems to hold, on a line of its own; nothing where it does not tell.
        hint: String,
    },
    /// An input that is longer than the model's positions.
    #[error(
        "an input of {found} tokens, expected 1 to {longest} (`l_max`, which belongs to the weights): cut it, or take \
         a model for longer inputs"
    )]
    Length {
        /// Its tokens.
        found: i64,
        /// The most that the model takes.
        longest: u32,
    },
    /// A model of another family than a command is for.
    #[error("this is a {found}, expected an OLMo: there is no code to do this with other models")]
    Family {
        /// Its family.
        found: &'static str,
    },
    /// Weights for another vocabulary.
    #[error(
        "`{}` knows {found} ids, its config.json {expected}: take weights, config.json and tokenizer that belong \
         together",
        path.display()
    )]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// Rows of its embedding.
        found: u64,
        /// Ids of the model.
        expected: u64,
    },
    /// A head that the weights do not have.
    #[error("the weights have no `{0}`: this model cannot do that")]
    Head(&'static str),
}

/// Each on a line of its own.
fn lines(faults: &[Fault]) -> String {
    faults.iter().flat_map(|fault| ["\n  ".to_owned(), fault.to_string()]).collect()
}

/// What torch said, and where memory ran out what takes less of it.
fn failed(error: &TchError) -> String {
    let text = error.to_string();
    let said = text.lines().next().unwrap_or_default().trim();
    let memory = ["can't allocate memory", "not enough memory", "out of memory"];
    if memory.iter().any(|words| text.contains(words)) {
        return format!(
            "memory ran out: lower `micro_batch_rows`, the shards' context or the model's size, or set \
             `activation_checkpointing: true` (torch said: {said})"
        );
    }
    format!("a tensor operation failed: {said}")
}

impl Weights {
    /// Fresh weights, a function of the layout and `seed` alone.
    pub fn random(config: &Config, seed: u64, device: Device) -> Result<Self, Error> {
        Self::fresh(config.parameters(), seed, device)
    }

    /// The same of any layout.
    pub fn fresh(layout: Vec<Parameter>, seed: u64, device: Device) -> Result<Self, Error> {
        Self::build(layout, |index, parameter| started(index, parameter, seed, device))
    }

    /// Zeros.
    pub fn zeros(layout: Vec<Parameter>, device: Device) -> Result<Self, Error> {
        Self::build(layout, |_, parameter| Ok(Tensor::f_zeros(shape(parameter), (Kind::Float, device))?))
    }

    /// Reads every tensor of `layout` from the safetensors file `path`; names carry `prefix`.
    pub fn read(layout: Vec<Parameter>, path: &Path, prefix: &str, device: Device) -> Result<Self, Error> {
        let all = vec![true; layout.len()];
        Self::read_some(layout, &[path.to_owned()], prefix, device, &all)
    }

    /// Reads those tensors of `layout` that are `wanted` from safetensors files, each of which has some of them; names carry
    /// `prefix`. The others are empty.
    pub fn read_some(
        layout: Vec<Parameter>,
        paths: &[PathBuf],
        prefix: &str,
        device: Device,
        wanted: &[bool],
    ) -> Result<Self, Error> {
        let maps = paths.iter().map(|path| map(path)).collect::<Result<Vec<_>, _>>()?;
        let files = Files::open(paths, &maps, Types::F32)?;
        Self::build(layout, |at, parameter| {
            if wanted[at] { files.read(parameter, prefix, device) } else { Ok(Tensor::new()) }
        })
    }

    /// Reads every tensor of `config` from `folder`, which has the layout of Hugging Face's classes; values of 16 bits
    /// become f32.
    pub fn read_hf(config: &Config, folder: &Path, device: Device) -> Result<Self, Error> {
        let paths = hf::weight_files(folder)?;
        let maps = paths.iter().map(|path| map(path)).collect::<Result<Vec<_>, _>>()?;
        let files = Files::open(&paths, &maps, Types::AnyFloat)?;
        Self::build(config.parameters(), |_, parameter| files.read(parameter, "", device))
    }

    /// Every tensor of `layout` from a file with published names, which holds nothing else but copies of them, and
    /// `tables`; values of 16 bits become f32.
    pub(super) fn of_published(
        file: &Published<'_>,
        layout: Vec<Parameter>,
        tables: &[Table],
        model: &Described<'_>,
    ) -> Result<Self, Error> {
        let faults = file.faults(&layout, tables);
        if !faults.is_empty() {
            let (path, model, hint) = (model.path.to_owned(), model.name.clone(), model.hint.clone());
            return Err(Error::Faults { path, model, faults, hint });
        }
        Self::build(layout, |_, parameter| {
            let parts = parameter.parts.iter().map(|part| {
                let (file, name) = file.stored(&part.name);
                read_part(file, model.path, name, &part.shape(&parameter.columns), Types::AnyFloat)
            });
            Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)?.f_to_device(model.device)?)
        })
    }

    /// Tensors of any layout.
    pub(super) fn build(
        layout: Vec<Parameter>,
        make: impl Fn(usize, &Parameter) -> Result<Tensor, Error>,
    ) -> Result<Self, Error> {
        let tensors = layout.iter().enumerate().map(|(index, parameter)| make(index, parameter));
        Ok(Self { tensors: tensors.collect::<Result<_, _>>()?, layout: layout.into() })
    }

    /// The same tensors again: what changes in one changes in the other.
    #[must_use]
    pub fn share(&self) -> Self {
        let tensors = self.tensors.iter().map(Tensor::shallow_clone).collect();
        Self { layout: Arc::clone(&self.layout), tensors }
    }

    /// The same layout with other tensors, one for each of these: such as what is computed from them.
    #[must_use]
    pub fn with_tensors(&self, tensors: Vec<Tensor>) -> Self {
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

    /// The tensors under every name that a published class stores them with, as views.
    pub(super) fn stored(&self) -> Result<Vec<(String, Tensor)>, Error> {
        let parts = self.layout.iter().flat_map(|parameter| &parameter.parts);
        let all = self.named()?.into_iter().zip(parts).flat_map(|((_, tensor), part)| {
            part.names().map(|name| (name.clone(), tensor.shallow_clone())).collect::<Vec<_>>()
        });
        Ok(all.collect())
    }

    /// The tensors under their names on disk, as views; empty ones are left out.
    pub fn named(&self) -> Result<Vec<(String, Tensor)>, Error> {
        name_parts(&self.layout, &self.tensors)
    }
}

/// The tensor of `parameter`, number `index` of its layout, as it starts.
pub(super) fn started(
    index: usize,
    parameter: &Parameter,
    seed: u64,
    device: Device,
) -> Result<Tensor, Error> {
    let values = start_values(parameter, mix(seed ^ mix(index as u64)));
    Ok(Tensor::f_from_slice(&values)?.f_reshape(shape(parameter))?.f_to_device(device)?)
}

/// Splits `tensors` into their parts on disk, as views: names and tensors. Empty ones are left out.
pub fn name_parts(layout: &[Parameter], tensors: &[Tensor]) -> Result<Vec<(String, Tensor)>, Error> {
    let mut named = Vec::new();
    for (parameter, tensor) in layout.iter().zip(tensors).filter(|(_, tensor)| tensor.numel() > 0) {
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
    let mut all = Vec::new();
    for (prefix, weights) in sets {
        let named = weights.named()?.into_iter();
        all.extend(named.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
    }
    write_named(path, all)
}

/// Writes tensors, f32, under these names into one safetensors file.
pub fn write_named(path: &Path, tensors: Vec<(String, Tensor)>) -> Result<(), Error> {
    let views = tensors.into_iter().map(|(name, tensor)| (name, Stored::of(tensor)));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize_to_file(views, Some(metadata), path)
        .map_err(|source| Error::Write { path: path.into(), source })
}

/// Reads one tensor of any shape, of floats (as f32) or of 64-bit integers, from a safetensors file.
pub fn read_tensor(path: &Path, name: &str) -> Result<Tensor, Error> {
    let bytes = fs::read(path)?;
    let file = parse(path, &bytes)?;
    let missing = |_| Error::Missing { path: path.into(), name: name.to_owned() };
    of_any_shape(path, name, &file.tensor(name).map_err(missing)?)
}

/// Reads every tensor of a safetensors file, of floats (as f32) or of 64-bit integers. Memory: the file twice.
pub(super) fn read_all(path: &Path) -> Result<BTreeMap<String, Tensor>, Error> {
    let bytes = fs::read(path)?;
    let tensors = parse(path, &bytes)?.tensors().into_iter();
    let read = |(name, view): (String, TensorView<'_>)| Ok((name.clone(), of_any_shape(path, &name, &view)?));
    tensors.map(read).collect()
}

fn of_any_shape(path: &Path, name: &str, view: &TensorView<'_>) -> Result<Tensor, Error> {
    let kind = kind(view.dtype()).ok_or_else(|| {
        let expected = "F32, F16, BF16 or I64".to_owned();
        Error::Shape { path: path.into(), name: name.to_owned(), found: describe(view), expected }
    })?;
    let shape = view.shape().iter().map(|n| signed(*n as u64)).collect::<Vec<_>>();
    let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?;
    Ok(if kind == Kind::Int64 { tensor } else { tensor.f_to_kind(Kind::Float)? })
}

pub(super) fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, Error> {
    SafeTensors::deserialize(bytes).map_err(|source| Error::Format { path: path.into(), source })
}

/// Maps a file for reading.
fn map(path: &Path) -> Result<Mmap, Error> {
    let file = fs::open(path)?;
    // SAFETY: the map is read-only, and nobody changes a file of weights in place: it is made whole and then renamed.
    Ok(unsafe { Mmap::map(&file) }.map_err(fs::error("map", path))?)
}

/// Files that hold a set of tensors together.
struct Files<'a> {
    files: Vec<(&'a Path, SafeTensors<'a>)>,
    types: Types,
}

impl<'a> Files<'a> {
    fn open(paths: &'a [PathBuf], maps: &'a [Mmap], types: Types) -> Result<Self, Error> {
        let open = |(path, map): (&'a PathBuf, &'a Mmap)| Ok((path.as_path(), parse(path, map)?));
        Ok(Self { files: paths.iter().zip(maps).map(open).collect::<Result<_, Error>>()?, types })
    }

    /// A parameter, of all its parts.
    fn read(&self, parameter: &Parameter, prefix: &str, device: Device) -> Result<Tensor, Error> {
        let parts = parameter.parts.iter().map(|part| {
            let name = format!("{prefix}{}", part.name);
            let (path, file) = self.with(&name)?;
            read_part(file, path, &name, &part.shape(&parameter.columns), self.types)
        });
        Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)?.f_to_device(device)?)
    }

    /// The file that has a tensor.
    fn with(&self, name: &str) -> Result<&(&'a Path, SafeTensors<'a>), Error> {
        let found = self.files.iter().find(|(_, file)| file.tensor(name).is_ok());
        found.ok_or_else(|| Error::Missing { path: self.place().to_owned(), name: name.to_owned() })
    }

    /// The one file, or the folder of several.
    fn place(&self) -> &Path {
        match self.files.as_slice() {
            [(path, _)] => path,
            several => several.first().and_then(|(path, _)| path.parent()).unwrap_or(Path::new("")),
        }
    }
}

/// Which types of values are taken.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Types {
    /// What a run writes: nothing is lost.
    F32,
    /// What others write.
    AnyFloat,
}

/// A file that should hold a model, and where the model is to be.
pub(super) struct Described<'a> {
    /// The file.
    pub path: &'a Path,
    /// What it should hold.
    pub name: String,
    /// See [`Error::Faults`].
    pub hint: String,
    /// Where.
    pub device: Device,
}

const fn kind(stored: Dtype) -> Option<Kind> {
    match stored {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::I64 => Some(Kind::Int64),
        _ => None,
    }
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
        self.tensor.to_device(Device::Cpu).contiguous().copy_data_u8(&mut bytes, self.tensor.numel());
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
    expected: &[u64],
    types: Types,
) -> Result<Tensor, Error> {
    let missing = |_| Error::Missing { path: path.into(), name: name.to_owned() };
    let view = file.tensor(name).map_err(missing)?;
    let allowed = match types {
        Types::F32 => view.dtype() == Dtype::F32,
        Types::AnyFloat => view.dtype() != Dtype::I64,
    };
    let kind = kind(view.dtype()).filter(|_| allowed);
    let (Some(kind), true) = (kind, view.shape().iter().map(|n| *n as u64).eq(expected.iter().copied()))
    else {
        let found = describe(&view);
        let types = if types == Types::F32 { "F32" } else { "F32, F16 or BF16" };
        let expected = format!("{types} {expected:?}");
        return Err(Error::Shape { path: path.into(), name: name.to_owned(), found, expected });
    };
    let shape = expected.iter().copied().map(signed).collect::<Vec<_>>();
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?.f_to_kind(Kind::Float)?)
}

fn shape(parameter: &Parameter) -> Vec<i64> {
    [parameter.rows()].into_iter().chain(parameter.columns.iter().copied()).map(signed).collect()
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
        Start::Zeros => (0..parameter.len()).map(|_| 0.0).collect(),
        Start::All(value) => (0..parameter.len()).map(|_| to_f32(value)).collect(),
        Start::Uniform(bound) => {
            let value = |i| bound * (2.0 * fraction(mix(key ^ mix(i))) - 1.0);
            (0..parameter.len()).into_par_iter().map(|i| to_f32(value(i))).collect()
        }
        Start::Normal { deviation, used_rows } => {
            let used = used_rows * parameter.columns.iter().product::<u64>();
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
        let read = Weights::read(config().parameters(), &path, "a.", Device::Cpu).unwrap();
        assert!(weights.tensors().iter().zip(read.tensors()).all(|(a, b)| a.equal(b)));

        let error = Weights::read(config().parameters(), &path, "b.", Device::Cpu).unwrap_err().to_string();
        assert!(error.ends_with("has no tensor `b.model.embed_tokens.weight`"), "{error}");
        let wider = Config { padded_vocabulary: 256, ..config() };
        let error = Weights::read(wider.parameters(), &path, "a.", Device::Cpu).unwrap_err().to_string();
        assert!(error.ends_with("is F32 [128, 64], expected F32 [256, 64]"), "{error}");
        std::fs::write(&path, b"nothing").unwrap();
        let error = Weights::read(config().parameters(), &path, "a.", Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("is no readable safetensors file"), "{error}");
    }

    #[test]
    fn folders_of_several_files_and_of_16_bits_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let weights = Weights::random(&config(), 1, Device::Cpu).unwrap();
        let named = weights.named().unwrap();
        let rounded = |kind| {
            let round = |(name, t): &(String, Tensor)| (name.clone(), t.to_kind(kind).to_kind(Kind::Float));
            named.iter().map(round).collect::<Vec<_>>()
        };
        let (first, second) = (folder.path().join("1.safetensors"), folder.path().join("2.safetensors"));
        let halves = rounded(Kind::BFloat16);
        Tensor::write_safetensors(
            &halves[..5].iter().map(|(n, t)| (n.as_str(), t.to_kind(Kind::BFloat16))).collect::<Vec<_>>(),
            &first,
        )
        .unwrap();
        write_named(&second, halves[5..].iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect())
            .unwrap();
        let map = halves.iter().enumerate().map(|(i, (name, _))| {
            (name.clone(), if i < 5 { "1.safetensors" } else { "2.safetensors" }.to_owned())
        });
        let map = map.collect::<HashMap<_, _>>();
        let index = serde_json::json!({ "weight_map": map }).to_string();
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        let read = Weights::read_hf(&config(), folder.path(), Device::Cpu).unwrap().named().unwrap();
        assert!(halves.iter().zip(&read).all(|((_, a), (_, b))| a.equal(b)));

        let error = Weights::read(config().parameters(), &first, "", Device::Cpu).unwrap_err().to_string();
        assert!(error.ends_with("is BF16 [128, 64], expected F32 [128, 64]"), "{error}");
        std::fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
        let error = Weights::read_hf(&config(), folder.path(), Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("cannot open") && error.contains("model.safetensors"), "{error}");
    }

    #[test]
    fn where_memory_runs_out_it_says_what_takes_less() {
        let huge = Tensor::f_zeros([1 << 50], (Kind::Float, Device::Cpu)).unwrap_err();
        let error = Error::from(huge).to_string();
        assert!(error.starts_with("memory ran out: lower `micro_batch_rows`"), "{error}");
        let other = Tensor::f_zeros([2], (Kind::Float, Device::Cpu)).unwrap().f_view([3]).unwrap_err();
        let error = Error::from(other).to_string();
        assert!(error.starts_with("a tensor operation failed: "), "{error}");
    }
}
