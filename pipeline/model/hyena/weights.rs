//! HyenaDNA's weights in safetensors files. All that does not fit is told at once, name by name.
//!
//! Memory while reading: the file twice.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use tch::{Device, TchError, Tensor};

use super::config::{Config, Preset};
use super::layout::{self, CLASSES, EMBEDDING, HEAD, Slot};
use super::network::Tables;
use super::start;
use crate::model::weights::{self, read_all, started};

/// How far stored tables may be from what the configuration gives them: rounding, of values up to 1.
const TABLE_LIMIT: f64 = 1e-5;

/// The trainable tensors, f32.
#[derive(Debug)]
pub struct Weights {
    slots: Vec<Slot>,
    tensors: Vec<Tensor>,
    classes: Option<[Tensor; 2]>,
}

/// Why a HyenaDNA could not be read, or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a configuration, or a tensor call.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// A file whose tensors are not those of the model.
    #[error(
        "`{}` does not hold the weights of a HyenaDNA of {config}:{}{}",
        path.display(),
        lines(problems),
        hint(found.as_deref())
    )]
    Names {
        /// The file.
        path: PathBuf,
        /// The model that was expected.
        config: Box<Config>,
        /// The model that the shapes speak of, where it is another.
        found: Option<Box<Config>>,
        /// All that does not fit.
        problems: Vec<Problem>,
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
}

/// What does not fit of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The model has it, the file does not.
    Missing {
        /// Its name.
        name: String,
        /// The shape that the model needs.
        expected: Vec<i64>,
    },
    /// The file has it, the model does not.
    Surplus {
        /// Its name in the file.
        name: String,
        /// Its shape.
        found: Vec<i64>,
    },
    /// It has another shape.
    Shape {
        /// Its name.
        name: String,
        /// Its shape in the file.
        found: Vec<i64>,
        /// The shape that the model needs.
        expected: Vec<i64>,
    },
    /// Two names in the file that mean one tensor.
    Twice {
        /// Its name.
        name: String,
    },
    /// Its values are not those of what it repeats.
    Differs {
        /// Its name.
        name: String,
        /// What it should repeat.
        of: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, expected } => write!(f, "`{name}` is missing, expected {expected:?}"),
            Self::Surplus { name, found } => write!(f, "`{name}`, {found:?}, is no part of the model"),
            Self::Shape { name, found, expected } => {
                write!(f, "`{name}` is {found:?}, expected {expected:?}")
            }
            Self::Twice { name } => write!(f, "`{name}` is there twice, with and without a prefix"),
            Self::Differs { name, of } => write!(f, "`{name}` is not equal to {of}, which it repeats"),
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect::<Vec<_>>().concat()
}

/// What to do about a file of another model.
fn hint(found: Option<&Config>) -> String {
    let Some(found) = found else { return String::new() };
    let advice = if found.preset().is_some() { ": ask for that preset" } else { ", which is no preset" };
    format!("\n  it seems to hold {found}{advice}")
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        Self::Tensors(error.into())
    }
}

impl Weights {
    /// Reads the weights of `config` from the safetensors file `path`, under the published names or those of the
    /// training code's checkpoints. Refuses any tensor that is missing, surplus or of another shape, and what should
    /// repeat another tensor, or a table, and does not.
    pub fn read(config: &Config, path: &Path, device: Device) -> Result<Self, Error> {
        let mut file = Opened::new(read_all(path)?);
        let found = file.config().filter(|found| found != config).map(Box::new);
        let slots = config.slots();
        let tensors = slots.iter().map(|slot| file.take_slot(slot)).collect::<Result<Vec<_>, _>>()?;
        if let Some(Some(embedding)) = tensors.first() {
            file.repeats(HEAD, embedding, EMBEDDING)?;
        }
        file.check_tables(config)?;
        let classes = file.take_classes(config.width);
        file.nothing_is_left();
        if !file.problems.is_empty() {
            let (path, config) = (path.to_owned(), Box::new(config.clone()));
            return Err(Error::Names { path, config, found, problems: file.problems });
        }
        let place = |tensor: Tensor| tensor.f_to_device(device);
        let tensors = tensors.into_iter().flatten().map(place).collect::<Result<_, _>>()?;
        let classes = match classes {
            Some([weight, bias]) => Some([place(weight)?, place(bias)?]),
            None => None,
        };
        Ok(Self { slots, tensors, classes })
    }

    /// Fresh weights, a function of the shape and `seed` alone; none for a head for classes.
    pub fn random(config: &Config, seed: u64, device: Device) -> Result<Self, Error> {
        let slots = config.slots();
        let start = |(index, slot): (usize, &Slot)| {
            let parameter = start::parameter(slot, config);
            Ok(started(index, &parameter, seed, device)?.f_reshape(signed(&slot.shape))?)
        };
        let tensors = slots.iter().enumerate().map(start).collect::<Result<_, Error>>()?;
        Ok(Self { slots, tensors, classes: None })
    }

    /// The same slots with other tensors, one for each of these.
    #[must_use]
    pub fn with_tensors(&self, tensors: Vec<Tensor>) -> Self {
        let classes =
            self.classes.as_ref().map(|[weight, bias]| [weight.shallow_clone(), bias.shallow_clone()]);
        Self { slots: self.slots.clone(), tensors, classes }
    }

    /// What the tensors are, in their order.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The tensors, in the order of the slots.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The head for classes, `[classes, width]` and `[classes]`, where the file has one.
    pub const fn classes(&self) -> Option<&[Tensor; 2]> {
        self.classes.as_ref()
    }

    /// All that the published class stores, by name, as views: the tensors, shared ones under each of their names, the
    /// tables of `config`, and the head for classes where there is one.
    pub(super) fn stored(&self, config: &Config) -> Result<Vec<(String, Tensor)>, TchError> {
        let mut all = Vec::new();
        for (slot, tensor) in self.slots.iter().zip(&self.tensors) {
            for name in std::iter::once(&slot.name).chain(&slot.copies) {
                all.push((name.clone(), tensor.f_detach()?));
            }
        }
        let tables = Tables::new(config, Device::Cpu)?;
        for layer in 0..config.layers {
            for ((part, shape), table) in config.tables().into_iter().zip(tables.all()) {
                all.push((layout::in_layer(layer, part), table.f_view(&signed(&shape)[..])?));
            }
        }
        for (name, tensor) in CLASSES.iter().zip(self.classes.iter().flatten()) {
            all.push(((*name).to_owned(), tensor.f_detach()?));
        }
        Ok(all)
    }

    /// Marks every tensor as one whose gradient is wanted.
    pub fn require_gradients(mut self) -> Result<Self, TchError> {
        for tensor in self.tensors.iter_mut().chain(self.classes.iter_mut().flatten()) {
            *tensor = tensor.f_set_requires_grad(true)?;
        }
        Ok(self)
    }
}

/// The model that the shapes in the safetensors file `path` speak of, where they do.
pub fn config_of(path: &Path) -> Result<Option<Config>, Error> {
    Ok(Opened::new(read_all(path)?).config())
}

/// A file's tensors that nothing has asked for yet, and what did not fit so far.
struct Opened {
    left: BTreeMap<String, Tensor>,
    problems: Vec<Problem>,
}

impl Opened {
    fn new(stored: BTreeMap<String, Tensor>) -> Self {
        let mut opened = Self { left: BTreeMap::new(), problems: Vec::new() };
        for (name, tensor) in stored {
            let name = layout::published(&name);
            if opened.left.insert(name.clone(), tensor).is_some() {
                opened.problems.push(Problem::Twice { name });
            }
        }
        opened
    }

    /// The model that the shapes speak of; the published vocabulary where the embedding has as many rows.
    fn config(&self) -> Option<Config> {
        let size = |name: &str, place: usize| {
            self.left.get(name)?.size().get(place).and_then(|&size| u32::try_from(size).ok())
        };
        let first = |part: &str, place| size(&layout::in_layer(0, part), place);
        let layers = self.left.keys().filter(|name| name.ends_with(".norm1.weight")).count();
        let (usual, rows) = (Preset::Tiny1k.config(), size(EMBEDDING, 0)?);
        let vocabulary = if rows == usual.padded_vocabulary { usual.vocabulary } else { rows };
        let config = Config {
            layers: u32::try_from(layers).ok()?,
            width: size(EMBEDDING, 1)?,
            feed_forward: first("mlp.fc1.weight", 0)?,
            vocabulary,
            padded_vocabulary: rows,
            longest: first("mixer.filter_fn.pos_emb.z", 1)?,
            features: first("mixer.filter_fn.pos_emb.z", 2)?,
            filter_width: first("mixer.filter_fn.implicit_filter.1.freq", 1)?,
            short_filter: first("mixer.short_filter.weight", 2)?,
            norm_epsilon: usual.norm_epsilon,
        };
        config.possible()
    }

    /// A tensor that must be there.
    fn take(&mut self, name: &str, shape: &[u32]) -> Option<Tensor> {
        if !self.left.contains_key(name) {
            let expected = signed(shape);
            self.problems.push(Problem::Missing { name: name.to_owned(), expected });
        }
        self.take_if_there(name, shape)
    }

    fn take_if_there(&mut self, name: &str, shape: &[u32]) -> Option<Tensor> {
        let (tensor, expected) = (self.left.remove(name)?, signed(shape));
        if tensor.size() == expected {
            return Some(tensor);
        }
        self.problems.push(Problem::Shape { name: name.to_owned(), found: tensor.size(), expected });
        None
    }

    fn take_slot(&mut self, slot: &Slot) -> Result<Option<Tensor>, TchError> {
        let tensor = self.take(&slot.name, &slot.shape);
        for copy in &slot.copies {
            match &tensor {
                Some(tensor) if self.left.contains_key(copy) => self.repeats(copy, tensor, &slot.name)?,
                _ => drop(self.take(copy, &slot.shape)),
            }
        }
        Ok(tensor)
    }

    /// Where `name` is there, it must be `tensor` again.
    fn repeats(&mut self, name: &str, tensor: &Tensor, of: &str) -> Result<(), TchError> {
        let Some(found) = self.left.remove(name) else { return Ok(()) };
        if found.size() != tensor.size() || !found.f_equal(tensor)? {
            self.problems.push(Problem::Differs { name: name.to_owned(), of: format!("`{of}`") });
        }
        Ok(())
    }

    /// Where a layer stores tables, they must be those of `config`.
    fn check_tables(&mut self, config: &Config) -> Result<(), TchError> {
        let computed = Tables::new(config, Device::Cpu)?;
        for layer in 0..config.layers {
            for ((part, shape), expected) in config.tables().into_iter().zip(computed.all()) {
                let name = layout::in_layer(layer, part);
                let Some(found) = self.take_if_there(&name, &shape) else { continue };
                let off = found.f_view_as(expected)?.f_sub(expected)?.f_abs()?;
                let limit = expected.f_abs()?.f_clamp_min(1.0)?.f_mul_scalar(TABLE_LIMIT)?;
                if !off.f_le_tensor(&limit)?.f_all()?.f_int64_value(&[]).is_ok_and(|all| all == 1) {
                    let of = "what `l_max` and the width give".to_owned();
                    self.problems.push(Problem::Differs { name, of });
                }
            }
        }
        Ok(())
    }

    fn take_classes(&mut self, width: u32) -> Option<[Tensor; 2]> {
        let [weight, bias] = CLASSES;
        let any = CLASSES.iter().any(|name| self.left.contains_key(*name));
        let sizes = self.left.get(weight).map(Tensor::size).filter(|_| any);
        let count = sizes.and_then(|sizes| sizes.first().and_then(|&count| u32::try_from(count).ok()));
        match count {
            Some(count) => self.take(weight, &[count, width]).zip(self.take(bias, &[count])).map(Into::into),
            None => None,
        }
    }

    fn nothing_is_left(&mut self) {
        let left = std::mem::take(&mut self.left);
        let surplus = left.into_iter().map(|(name, tensor)| Problem::Surplus { name, found: tensor.size() });
        self.problems.extend(surplus);
    }
}

fn signed(shape: &[u32]) -> Vec<i64> {
    shape.iter().map(|&size| size.into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hyena::golden::folder;
    use crate::model::weights::write_named;

    const FREQUENCY: &str = "backbone.layers.1.mixer.filter_fn.implicit_filter.5.freq";
    const TIMES: &str = "backbone.layers.0.mixer.filter_fn.pos_emb.t";

    type Named = BTreeMap<String, Tensor>;

    /// Reads the golden weights after a change.
    fn read(change: impl Fn(Named) -> Named) -> Result<Weights, Error> {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("changed.safetensors");
        let tensors = change(read_all(&folder().join("model.safetensors")).unwrap());
        write_named(&path, tensors.into_iter().collect()).unwrap();
        Weights::read(&Config::read(&folder()).unwrap(), &path, Device::Cpu)
    }

    #[test]
    fn names_of_checkpoints_are_read_too() {
        let checkpoint = |tensors: Named| {
            let mut tensors = tensors
                .into_iter()
                .filter(|(name, _)| !name.contains("pos_emb") && !name.starts_with("head."))
                .map(|(name, tensor)| {
                    let name = name.replace(".mixer.", ".mixer.layer.").replace(".mlp.", ".mlp.layer.");
                    (format!("model.{name}"), tensor)
                })
                .collect::<Named>();
            let embedding = tensors[&format!("model.{EMBEDDING}")].shallow_clone();
            tensors.insert(format!("model.{HEAD}"), embedding);
            tensors
        };
        let (plain, checkpoint) = (read(|tensors| tensors).unwrap(), read(checkpoint).unwrap());
        assert_eq!(plain.tensors().len(), checkpoint.tensors().len());
        assert!(plain.tensors().iter().zip(checkpoint.tensors()).all(|(a, b)| a.equal(b)));
        assert_eq!(plain.classes().map(|[weight, _]| weight.size()), Some(vec![3, 64]));
        assert!(checkpoint.classes().is_none());
    }

    #[test]
    fn all_that_does_not_fit_is_told() {
        let error = read(|mut tensors| {
            tensors.remove("backbone.ln_f.bias");
            tensors.insert("backbone.ln_g.bias".to_owned(), Tensor::from(1.0_f32).view([1]));
            tensors.insert("backbone.layers.0.norm1.bias".to_owned(), Tensor::from_slice(&[0.0_f32; 63]));
            tensors.insert("model.backbone.ln_f.weight".to_owned(), Tensor::from_slice(&[0.0_f32; 64]));
            tensors.insert(HEAD.to_owned(), &tensors[EMBEDDING] + 1.0);
            tensors.insert(FREQUENCY.to_owned(), &tensors[FREQUENCY] + 1e-3);
            tensors.insert(TIMES.to_owned(), &tensors[TIMES] * 1.001);
            tensors.remove("head.output_transform.bias");
            tensors
        });
        let error = error.unwrap_err().to_string();
        let (first, problems) = error.split_once('\n').unwrap();
        assert!(first.ends_with("of a HyenaDNA of 2 layers of width 64 for at most 258 tokens:"), "{error}");
        let expected = [
            "`backbone.ln_f.weight` is there twice, with and without a prefix",
            "`backbone.layers.0.norm1.bias` is [63], expected [64]",
            "`backbone.layers.1.mixer.filter_fn.implicit_filter.5.freq` is not equal to \
             `backbone.layers.1.mixer.filter_fn.implicit_filter.1.freq`, which it repeats",
            "`backbone.ln_f.bias` is missing, expected [64]",
            "`lm_head.weight` is not equal to `backbone.embeddings.word_embeddings.weight`, which it repeats",
            "`backbone.layers.0.mixer.filter_fn.pos_emb.t` is not equal to what `l_max` and the width give, which it \
             repeats",
            "`head.output_transform.bias` is missing, expected [3]",
            "`backbone.ln_g.bias`, [1], is no part of the model",
        ];
        assert_eq!(problems.lines().map(str::trim).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn another_preset_is_refused_name_by_name() {
        let path = folder().join("model.safetensors");
        let error = Weights::read(&Preset::Small32k.config(), &path, Device::Cpu).unwrap_err();
        let Error::Names { problems, .. } = &error else { panic!("{error}") };
        let missing = problems.iter().filter(|problem| matches!(problem, Problem::Missing { .. })).count();
        assert_eq!(missing, 2 * (layout::PER_LAYER + 2), "two layers, with two copies each: {error}");
        let text = error.to_string();
        for expected in [
            "of 4 layers of width 256 for at most 32770 tokens (small-32k):\n",
            "\n  it seems to hold 2 layers of width 64 for at most 258 tokens, which is no preset",
            "`backbone.layers.0.mixer.filter_fn.pos_emb.t` is [1, 258, 1], expected [1, 32770, 1]",
            "`backbone.embeddings.word_embeddings.weight` is [16, 64], expected [16, 256]",
        ] {
            assert!(text.contains(expected), "no {expected} in {text}");
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let whole = std::fs::read(folder().join("model.safetensors")).unwrap();
        let huge = [&(1_u64 << 60).to_le_bytes(), &whole[8..]].concat();
        let cases = [&whole[..whole.len() - 1], &whole[..100], &whole[..7], &huge, &[]];
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("damaged.safetensors");
        for bytes in cases {
            std::fs::write(&path, bytes).unwrap();
            let error = Weights::read(&Preset::Tiny1k.config(), &path, Device::Cpu).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("damaged.safetensors` is no readable safetensors file"), "{text}");
        }
    }

    #[test]
    fn no_header_brings_it_down() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("small.safetensors");
        let tensors = [(EMBEDDING, [2, 3]), ("backbone.ln_f.bias", [3, 0])];
        let tensors =
            tensors.map(|(name, shape)| (name.to_owned(), Tensor::from(1.0_f32).expand(shape, false)));
        write_named(&path, tensors.into()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let config = Config::read(&folder()).unwrap();
        for place in 0..whole.len() - 24 {
            for byte in [b'0', b'9', b'"', 0xff] {
                let mut bytes = whole.clone();
                bytes[place] = byte;
                std::fs::write(&path, bytes).unwrap();
                assert!(Weights::read(&config, &path, Device::Cpu).is_err(), "byte {place} is {byte}");
                assert!(config_of(&path).map_or(None, |found| found).is_none());
            }
        }
    }
}
