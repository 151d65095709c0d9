//! Safetensors files whose tensors carry the names that their authors published: every name that is missing, surplus or of
//! another shape is reported. Only the header is trusted to be anything. Memory: the file.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::layout::{Parameter, Part};

/// How far stored tables may be from what they should be: rounding, of values up to 1.
const TABLE_LIMIT: f32 = 1e-5;

/// A tensor of a file that does not fit the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is not there.
    #[error("`{name}` is missing, expected {expected:?}")]
    Missing {
        /// The tensor.
        name: String,
        /// The shape that the model needs.
        expected: Vec<u64>,
    },
    /// The model has no such tensor.
    #[error("`{name}` ({found}) has no place in the model")]
    Surplus {
        /// The tensor.
        name: String,
        /// Its type and shape.
        found: String,
    },
    /// It has another shape or type.
    #[error("`{name}` is {found}, expected F32, F16 or BF16 {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its type and shape.
        found: String,
        /// The shape that the model needs.
        expected: Vec<u64>,
    },
    /// Two names in the file that mean one tensor.
    #[error("`{name}` is there twice, with and without a prefix")]
    Twice {
        /// The tensor.
        name: String,
    },
    /// It should be a copy of another and is not.
    #[error("`{name}` differs from `{of}`, of which it must be a copy")]
    Copy {
        /// The tensor.
        name: String,
        /// What it must equal.
        of: String,
    },
    /// It should be what the configuration gives and is not.
    #[error("`{name}` is not the f32 table that the model's configuration gives")]
    Table {
        /// The tensor.
        name: String,
    },
}

/// A tensor that some files store though the configuration tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its values.
    pub values: Vec<f32>,
}

/// A safetensors file with published names.
#[derive(Debug)]
pub struct Published<'a> {
    file: SafeTensors<'a>,
    /// Names in the file by published name.
    names: BTreeMap<String, String>,
    twice: Vec<Fault>,
}

impl<'a> Published<'a> {
    /// The file whose content is `bytes`; `publish` makes a name in it the published one.
    pub fn new(bytes: &'a [u8], publish: impl Fn(&str) -> String) -> Result<Self, SafeTensorError> {
        let file = SafeTensors::deserialize(bytes)?;
        let mut stored = file.names();
        stored.sort_unstable();
        let (mut names, mut twice) = (BTreeMap::new(), Vec::new());
        for name in stored {
            let published = publish(name);
            if names.insert(published.clone(), name.to_owned()).is_some() {
                twice.push(Fault::Twice { name: published });
            }
        }
        Ok(Self { file, names, twice })
    }

    /// The published names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether any name begins with `prefix`.
    pub fn has(&self, prefix: &str) -> bool {
        self.names().any(|name| name.starts_with(prefix))
    }

    /// The shape of a tensor, where it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<u64>> {
        Some(dimensions(&self.view(name)?))
    }

    /// One size of a tensor, where it is there and fits.
    pub fn size(&self, name: &str, place: usize) -> Option<u32> {
        u32::try_from(*self.shape(name)?.get(place)?).ok()
    }

    /// The file, and the name in it of the tensor of a published name.
    #[cfg(feature = "train")]
    pub(super) fn stored<'b>(&'b self, name: &'b str) -> (&'b SafeTensors<'a>, &'b str) {
        (&self.file, self.names.get(name).map_or(name, String::as_str))
    }

    /// All that keeps the file from holding `layout` and nothing else but copies of its tensors, and `tables`.
    pub fn faults(&self, layout: &[Parameter], tables: &[Table]) -> Vec<Fault> {
        let parts = layout.iter().flat_map(|parameter| {
            parameter.parts.iter().map(move |part| (part, part.shape(&parameter.columns)))
        });
        let mut faults = self.twice.clone();
        let mut known = tables.iter().map(|table| &table.name).collect::<std::collections::BTreeSet<_>>();
        for (part, shape) in parts {
            known.extend(part.names());
            faults.extend(self.fault(&part.name, &shape));
            faults.extend(part.copies.iter().filter_map(|copy| self.fault_of_copy(copy, part, &shape)));
        }
        faults.extend(tables.iter().filter_map(|table| self.fault_of_table(table)));
        let surplus = self.names.keys().filter(|name| !known.contains(name));
        faults.extend(surplus.filter_map(|name| {
            Some(Fault::Surplus { name: name.clone(), found: describe(&self.view(name)?) })
        }));
        faults
    }

    fn view(&self, name: &str) -> Option<TensorView<'_>> {
        self.file.tensor(self.names.get(name)?).ok()
    }

    fn fault(&self, name: &str, expected: &[u64]) -> Option<Fault> {
        let (name, expected) = (name.to_owned(), expected.to_owned());
        let Some(view) = self.view(&name) else { return Some(Fault::Missing { name, expected }) };
        let float = matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16);
        let fits = float && dimensions(&view) == expected;
        (!fits).then(|| Fault::Shape { name, found: describe(&view), expected })
    }

    /// What is wrong with a copy that is there; of what is wrong with the first nothing is said again.
    fn fault_of_copy(&self, name: &str, part: &Part, shape: &[u64]) -> Option<Fault> {
        let copy = self.view(name)?;
        let fault = self.fault(name, shape);
        if fault.is_some() || self.fault(&part.name, shape).is_some() {
            return fault;
        }
        let same = self.view(&part.name).is_some_and(|first| first.data() == copy.data());
        (!same).then(|| Fault::Copy { name: name.to_owned(), of: part.name.clone() })
    }

    /// What is wrong with a table that is there.
    fn fault_of_table(&self, table: &Table) -> Option<Fault> {
        let view = self.view(&table.name)?;
        let fault = self.fault(&table.name, &table.shape);
        let (bytes, _) = view.data().as_chunks::<4>();
        let stored = bytes.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let near =
            |(found, expected): (f32, f32)| (found - expected).abs() <= TABLE_LIMIT * expected.abs().max(1.0);
        let same = view.dtype() == Dtype::F32 && stored.zip(table.values.iter().copied()).all(near);
        fault.or_else(|| (!same).then(|| Fault::Table { name: table.name.clone() }))
    }
}

/// Type and shape.
pub(super) fn describe(view: &TensorView<'_>) -> String {
    format!("{:?} {:?}", view.dtype(), view.shape())
}

fn dimensions(view: &TensorView<'_>) -> Vec<u64> {
    view.shape().iter().map(|size| *size as u64).collect()
}
