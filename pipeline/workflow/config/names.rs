//! What `${...}` may name: declared environment variables, parameters, and the axes of the matrix.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Reader, list, plain};
use crate::units::similar;
use crate::workflow::yaml::{self, Entry, Item, Node, Span};

/// Names such as `params.x`, and their values; none where a mistake was told already.
pub(super) type Names = BTreeMap<String, Option<Value>>;

impl Reader<'_> {
    /// The declared variables of the environment, or their defaults.
    pub(super) fn env(&mut self, entries: &[Entry]) -> Names {
        let mut names = Names::new();
        for (name, span, item) in entries {
            let value = self.variable(name, *span, item);
            if names.insert(format!("env.{name}"), value).is_some() {
                self.problem(*span, format!("`env.{name}` is declared twice"), None);
            }
        }
        names
    }

    fn variable(&mut self, name: &str, span: Span, item: &Item) -> Option<Value> {
        let mut bytes = name.bytes();
        let good = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            let message = format!("expected a variable of letters, digits and `_`, found `{name}`");
            self.problem(span, message, None);
            return None;
        }
        let Node::Scalar(default) = &item.node else {
            self.problem(item.span, format!("`env.{name}`: expected a default, found {}", item.kind()), None);
            return None;
        };
        match (self.environment)(name) {
            Some(text) => Some(Value::String(text)),
            None if !default.is_null() => Some(default.clone()),
            None => {
                let message = format!("the environment variable `{name}` is not set, and has no default");
                let help = format!("set it, or write `env: {{{name}: DEFAULT}}`");
                self.problem(span, message, Some(help));
                None
            }
        }
    }

    /// The parameters, which may use variables and parameters above them, beside `names`.
    pub(super) fn params(&mut self, entries: &[Entry], mut names: Names) -> Names {
        for (key, _, item) in entries {
            let name = format!("params.{key}");
            let given = self.overrides.iter().any(|over| over.path.join(".") == name);
            let value = if given { None } else { self.interpolated(item, &names) };
            names.insert(name, value);
        }
        for over in self.overrides.iter().filter(|over| over.path[0] == "params") {
            names.insert(over.path.join("."), Some(over.value.clone()));
        }
        names
    }

    /// The value with `${...}` replaced: whole texts keep the type, parts of texts the wording; none after a mistake.
    pub(super) fn interpolated(&mut self, item: &Item, names: &Names) -> Option<Value> {
        match &item.node {
            Node::Scalar(Value::String(text)) if text.contains("${") => {
                self.interpolate(text, item.span, names)
            }
            Node::Scalar(value) => Some(value.clone()),
            Node::List(items) => {
                let items: Vec<_> = items.iter().map(|item| self.interpolated(item, names)).collect();
                items.into_iter().collect()
            }
            Node::Map(entries) => {
                let value = |(key, _, item): &Entry| (key.clone(), self.interpolated(item, names));
                let entries: Vec<_> = entries.iter().map(value).collect();
                entries.into_iter().map(|(key, value)| Some((key, value?))).collect()
            }
        }
    }

    /// The same for a text; `$${` stands for `${`.
    pub(super) fn interpolate(
        &mut self,
        text: &str,
        span: impl Into<Option<Span>>,
        names: &Names,
    ) -> Option<Value> {
        let span = span.into();
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                out += before;
                out += "${";
                rest = after;
                continue;
            }
            out.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.problem(span, format!("`${{` without `}}` in `{text}`"), None);
                return None;
            };
            let Some(value) = names.get(name) else {
                self.unknown_name(name, span, names);
                return None;
            };
            let value = value.as_ref()?;
            if after.is_empty() && out.is_empty() {
                return Some(typed(name, value));
            }
            out.push_str(&plain(value));
            rest = after;
        }
        Some(Value::String(out + rest))
    }

    fn unknown_name(&mut self, name: &str, span: Option<Span>, names: &Names) {
        let of = |start: &str| -> Vec<String> {
            names.keys().filter(|known| known.starts_with(start)).cloned().collect()
        };
        let (what, known) = match name.split_once('.') {
            Some(("matrix", _)) => ("unknown matrix axis", self.axes.clone()),
            Some(("env", _)) => ("undeclared environment variable", of("env.")),
            _ => ("unknown parameter", of("params.")),
        };
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let declare = || name.strip_prefix("env.").map(|name| format!("declare it: `env: [{name}]`"));
        let close = similar(name, known.iter().copied());
        let help = close.map(|hint| format!("did you mean `${{{hint}}}`?")).or_else(declare);
        let message = format!("{what} `{name}`, expected {}", list(&known));
        self.problem(span, message, help);
    }
}

/// The value of a variable as YAML would read it, if that is a number or a boolean; other values as they are.
fn typed(name: &str, value: &Value) -> Value {
    let text = value.as_str().filter(|_| name.starts_with("env."));
    let read = text.map(yaml::parse_value).filter(|read| read.is_number() || read.is_boolean());
    read.unwrap_or_else(|| value.clone())
}
