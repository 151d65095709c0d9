//! The axes of the matrix as written, or as the command line gives them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::names::Names;
use super::{Override, Reader, is_name, plain};
use crate::workflow::matrix::{self, Axis};
use crate::workflow::yaml::{Entry, Item, Node, Span};

impl Reader<'_> {
    /// The axes, those of the command line in place of those written.
    pub(super) fn matrix(&mut self, entries: &[Entry], names: &Names) -> Vec<Axis> {
        let mut axes = Vec::new();
        for (name, span, item) in entries {
            if !self.gives_axis(name) {
                axes.push(self.axis(name, *span, item, names));
            }
        }
        for over in self.overrides.iter().filter(|over| over.path[0] == "matrix") {
            axes.push(self.given_axis(over));
        }
        axes
    }

    /// Whether the command line gives the values of an axis.
    fn gives_axis(&self, name: &str) -> bool {
        self.overrides.iter().any(|over| over.path[0] == "matrix" && over.path[1..] == [name])
    }

    /// An axis from the command line; as below, one that is wrong has no values, so that nothing is said of its stages.
    fn given_axis(&mut self, over: &Override) -> Axis {
        let (name, found) = (over.path[1..].join("."), &over.value);
        let Some(values) = found.as_array() else {
            let message =
                format!("--set, axis `{name}`: expected a list of values, found `{}`", plain(found));
            self.problem(None, message, Some(format!("write matrix.{name}=[{}]", plain(found))));
            return Axis { name, span: None, values: Vec::new() };
        };
        self.checked_axis(&name, None, values.iter().map(|value| (value.clone(), None)).collect())
    }

    fn axis(&mut self, name: &str, span: Span, item: &Item, names: &Names) -> Axis {
        let none = Axis { name: name.to_owned(), span: Some(span), values: Vec::new() };
        let Node::List(items) = &item.node else {
            let message = format!("axis `{name}`: expected a list of values, found {}", item.kind());
            let help =
                matches!(item.node, Node::Scalar(_)).then(|| format!("write [{}]", plain(&item.to_json())));
            self.problem(item.span, message, help);
            return none;
        };
        let values: Vec<_> =
            items.iter().map(|item| Some((self.interpolated(item, names)?, Some(item.span)))).collect();
        match values.into_iter().collect::<Option<Vec<_>>>() {
            Some(values) => self.checked_axis(name, Some(span), values),
            None => none,
        }
    }

    /// An axis whose values can be told apart in the names of folders.
    fn checked_axis(&mut self, name: &str, span: Option<Span>, values: Vec<(Value, Option<Span>)>) -> Axis {
        let before = self.problems.len();
        if !is_name(name) || name.contains('.') {
            let message = format!("expected an axis of letters, digits, `-` and `_`, found `{name}`");
            self.problem(span, message, None);
        }
        if values.is_empty() {
            self.problem(span, format!("axis `{name}` has no values, expected at least one"), None);
        }
        let mut words: BTreeMap<String, &Value> = BTreeMap::new();
        for (value, span) in &values {
            if value.is_array() || value.is_object() {
                let message =
                    format!("axis `{name}`: expected a number, a text or a boolean, found `{value}`");
                self.problem(*span, message, None);
            } else if let Some(other) = words.insert(matrix::word(value), value) {
                self.problem(*span, twice(name, value, other), None);
            }
        }
        let good = self.problems.len() == before;
        let values = values.into_iter().map(|(value, _)| value).filter(|_| good).collect();
        Axis { name: name.to_owned(), span, values }
    }

    /// Axes that no stage uses, which would be swept in vain.
    pub(super) fn unused_axes(&mut self, axes: &[Axis], used: &BTreeSet<String>) {
        for axis in axes.iter().filter(|axis| !used.contains(&axis.name)) {
            let help = format!("write `${{matrix.{}}}` where a stage is to take its values", axis.name);
            self.problem(axis.span, format!("no stage uses the axis `{}`", axis.name), Some(help));
        }
    }
}

/// Two values of an axis that would have one name.
fn twice(axis: &str, value: &Value, other: &Value) -> String {
    let found = plain(value);
    if value == other {
        return format!("axis `{axis}`: the value `{found}` stands here twice");
    }
    let other = plain(other);
    format!("axis `{axis}`: `{found}` and `{other}` would both be called `{}`", matrix::word(value))
}
