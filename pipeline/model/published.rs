//! Weights under the names that their authors published: every name that is missing, surplus or of another shape is
//! reported. Memory: the file, and the tensors made of it.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tch::{Device, Kind, Tensor};

use super::layout::Parameter;
use super::weights::{Error, Types, Weights, describe, kind, parse, read_part};

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
    /// It should be a copy of another and is not.
    #[error("`{name}` differs from `{of}`, of which it must be a copy")]
    Copy {
        /// The tensor.
        name: String,
        /// What it must equal.
        of: String,
    },
}

/// A safetensors file with published names.
pub(super) struct Published<'a> {
    path: &'a Path,
    file: SafeTensors<'a>,
}

/// A tensor that some files hold a second time, under another name.
pub(super) struct Copied {
    /// The second name.
    pub name: &'static str,
    /// The first.
    pub of: &'static str,
}

impl<'a> Published<'a> {
    /// The file `path`, whose content is `bytes`.
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self, Error> {
        Ok(Self { path, file: parse(path, bytes)? })
    }

    /// Whether any name begins with `prefix`.
    pub(super) fn has(&self, prefix: &str) -> bool {
        self.file.iter().any(|(name, _)| name.starts_with(prefix))
    }

    /// The shape of a tensor, where it is there.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<u64>> {
        Some(dimensions(&self.file.tensor(name).ok()?))
    }

    /// All tensors of `layout`, as f32; the file holds nothing else but what `copies` names.
    pub(super) fn weights(
        &self,
        layout: Vec<Parameter>,
        copies: &[Copied],
        device: Device,
    ) -> Result<Weights, Error> {
        let faults = self.faults(&layout, copies);
        if !faults.is_empty() {
            return Err(Error::Faults { path: self.path.to_owned(), faults });
        }
        Weights::build(layout, |_, parameter| {
            let parts = parameter.parts.iter().map(|part| {
                let shape = (part.rows, parameter.columns);
                read_part(&self.file, self.path, &part.name, shape, Types::AnyFloat)
            });
            Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)?.f_to_device(device)?)
        })
    }

    fn faults(&self, layout: &[Parameter], copies: &[Copied]) -> Vec<Fault> {
        let parts = layout.iter().flat_map(|parameter| {
            let shape = move |rows: u64| [rows].into_iter().chain(parameter.columns).collect::<Vec<_>>();
            parameter.parts.iter().map(move |part| (part.name.as_str(), shape(part.rows)))
        });
        let mut expected = parts.clone().collect::<BTreeMap<_, _>>();
        let mut faults = parts.filter_map(|(name, shape)| self.fault(name, shape)).collect::<Vec<_>>();
        for Copied { name, of } in copies {
            if let (Some(shape), true) = (expected.get(of).cloned(), self.file.tensor(name).is_ok()) {
                expected.insert(*name, shape.clone());
                faults.extend(self.fault_of_copy(name, of, shape));
            }
        }
        let mut surplus =
            self.file.iter().filter(|(name, _)| !expected.contains_key(name)).collect::<Vec<_>>();
        surplus.sort_by_key(|(name, _)| *name);
        let surplus = surplus.into_iter();
        faults.extend(
            surplus.map(|(name, view)| Fault::Surplus { name: name.to_owned(), found: describe(&view) }),
        );
        faults
    }

    fn fault(&self, name: &str, expected: Vec<u64>) -> Option<Fault> {
        let name = name.to_owned();
        let Ok(view) = self.file.tensor(&name) else { return Some(Fault::Missing { name, expected }) };
        let fits =
            dimensions(&view) == expected && kind(view.dtype()).is_some_and(|kind| kind != Kind::Int64);
        (!fits).then(|| Fault::Shape { name, found: describe(&view), expected })
    }

    /// What is wrong with a copy; of what is wrong with the first nothing is said again.
    fn fault_of_copy(&self, name: &str, of: &str, expected: Vec<u64>) -> Option<Fault> {
        let fault = self.fault(name, expected.clone());
        if fault.is_some() || self.fault(of, expected).is_some() {
            return fault;
        }
        let [copy, first] = [name, of].map(|name| self.file.tensor(name).ok().map(|view| view.data()));
        (copy != first).then(|| Fault::Copy { name: name.to_owned(), of: of.to_owned() })
    }
}

fn dimensions(view: &TensorView<'_>) -> Vec<u64> {
    view.shape().iter().map(|size| *size as u64).collect()
}
