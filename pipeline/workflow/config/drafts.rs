//! The stages as written: for each combination of the axes that a stage uses itself, its configuration and what it says to
//! the engine.

use serde_json::Value;

use super::condition::Verdict;
use super::names::Names;
use super::settings::{self, Settings};
use super::{Reader, condition, is_name, list, plain, set};
use crate::stage;
use crate::units::similar;
use crate::workflow::matrix::{self, Axis, Combination};
use crate::workflow::mistake::{Problem, place, reword};
use crate::workflow::yaml::{Entry, Item, Node, Span};

/// A stage as written: for each combination of the axes that it uses itself, what it is.
pub(super) struct Draft {
    pub name: String,
    pub span: Span,
    pub item: Item,
    pub kind: usize,
    pub variants: Vec<Variant>,
}

/// A stage at a combination of the axes that it uses itself.
pub(super) struct Variant {
    pub at: Combination,
    pub value: Value,
    pub inputs: Vec<(String, String)>,
    pub settings: Settings,
    pub when: When,
}

/// What a `when` comes to.
pub(super) enum When {
    Kept,
    /// With the reason.
    LeftOut(String),
}

impl Reader<'_> {
    pub(super) fn stages(&mut self, entries: &[Entry], names: &Names, axes: &[Axis]) -> Vec<Draft> {
        let drafts = entries.iter().filter_map(|(name, span, item)| {
            self.stage_name(name, *span);
            self.stage(name, *span, item, names, axes)
        });
        let drafts = drafts.collect();
        let used = entries.iter().flat_map(|(.., item)| matrix::used(item, &|_| false)).collect();
        self.unused_axes(axes, &used);
        drafts
    }

    fn stage_name(&mut self, name: &str, span: Span) {
        if !is_name(name) {
            let message = format!("expected a stage name of letters, digits, `-` and `_`, found `{name}`");
            let help = name.contains(matrix::AT).then(|| {
                format!(
                    "`{}` stands between a stage and its matrix values in the names of artifacts",
                    matrix::AT
                )
            });
            self.problem(span, message, help);
        }
        if ["params", "matrix"].contains(&name) {
            let message = format!("a stage cannot be called `{name}`");
            self.problem(span, message, Some(format!("`--set {name}.key=value` would name both")));
        }
    }

    /// A stage at every combination of the axes that it uses itself.
    fn stage(&mut self, name: &str, span: Span, item: &Item, names: &Names, axes: &[Axis]) -> Option<Draft> {
        let Node::Map(_) = &item.node else {
            self.problem(span, format!("stage `{name}` is a map with `uses`, found {}", item.kind()), None);
            return None;
        };
        let kind = self.uses(name, span, item)?;
        let overrides = self.overrides;
        let overridden = |path: &[String]| {
            overrides.iter().any(|over| over.path[0] == name && !path.is_empty() && over.path[1..] == *path)
        };
        let combinations = matrix::combinations(axes, &matrix::used(item, &overridden));
        let before = self.problems.len();
        let mut found: Vec<(Problem, usize, &Combination)> = Vec::new();
        let mut variants = Vec::new();
        for at in &combinations {
            variants.extend(self.variant(name, span, item, kind, names, at));
            for problem in self.problems.split_off(before) {
                let same = |(other, ..): &&mut (Problem, usize, _)| {
                    other.span == problem.span && other.message == problem.message
                };
                match found.iter_mut().find(same) {
                    Some((_, times, _)) => *times += 1,
                    None => found.push((problem, 1, at)),
                }
            }
        }
        self.problems.extend(found.into_iter().map(|(problem, times, at)| {
            if times < combinations.len() { problem.at(&matrix::words(at)) } else { problem }
        }));
        let whole = variants.len() == combinations.len();
        whole.then(|| Draft { name: name.to_owned(), span, item: item.clone(), kind, variants })
    }

    fn variant(
        &mut self,
        name: &str,
        span: Span,
        item: &Item,
        kind: usize,
        names: &Names,
        at: &Combination,
    ) -> Option<Variant> {
        let values = at.iter().map(|(axis, value)| (format!("matrix.{axis}"), Some(value.clone())));
        let names: Names = names.clone().into_iter().chain(values).collect();
        let mut value = self.configuration(name, item, &names)?;
        for over in self.overrides.iter().filter(|over| over.path[0] == name) {
            set(&mut value, &over.path[1..], &over.value);
        }
        if let Some(map) = value.as_object_mut() {
            map.shift_remove("uses");
        }
        let (settings, when) = settings::take(&mut value);
        let when = self.when(name, span, item, when.as_ref(), &names);
        let settings = self.settings(name, span, item, settings);
        match (stage::KINDS[kind].parse)(value.clone()) {
            Ok(stage) => {
                for (key, message) in stage.problems() {
                    let place = item.entry(key).map_or(span, |(_, value)| value.span);
                    self.problem(place, format!("`{key}` of stage `{name}`: {message}"), None);
                }
                let inputs = stage.inputs();
                Some(Variant { at: at.clone(), value, inputs, settings: settings?, when: when? })
            }
            Err(error) => {
                self.mismatch(name, span, item, &error);
                None
            }
        }
    }

    /// All keys of a stage with their names replaced, but for those in `when`, which is read as it is written.
    fn configuration(&mut self, name: &str, item: &Item, names: &Names) -> Option<Value> {
        let Node::Map(entries) = &item.node else { return None };
        let given =
            |key: &str| self.overrides.iter().any(|over| over.path[0] == name && over.path[1..] == [key]);
        let given: Vec<bool> = entries.iter().map(|(key, ..)| key == "when" || given(key)).collect();
        let value = |((key, _, item), given): (&Entry, bool)| {
            let value = if given { Some(item.to_json()) } else { self.interpolated(item, names) };
            (key.clone(), value)
        };
        let entries: Vec<_> = entries.iter().zip(given).map(value).collect();
        entries.into_iter().map(|(key, value)| Some((key, value?))).collect()
    }

    fn settings(&mut self, name: &str, span: Span, item: &Item, value: Value) -> Option<Settings> {
        match serde_path_to_error::deserialize(value) {
            Ok(settings) => Some(settings),
            Err(error) => {
                self.mismatch(name, span, item, &error);
                None
            }
        }
    }

    /// Whether `when` leaves the stage out; none after a mistake.
    fn when(
        &mut self,
        name: &str,
        span: Span,
        item: &Item,
        when: Option<&Value>,
        names: &Names,
    ) -> Option<When> {
        let overridden = self.overrides.iter().any(|over| over.path[0] == name && over.path[1..] == ["when"]);
        let place = item.entry("when").map_or(span, |(_, when)| when.span);
        let place = (!overridden).then_some(place);
        let read = match when {
            None | Some(Value::Bool(true)) => return Some(When::Kept),
            Some(Value::Bool(false)) => return Some(When::LeftOut("`when` is false".to_owned())),
            Some(Value::String(text)) => {
                let read = condition::holds(text, &mut |text| self.interpolate(text, place, names));
                let when = |(holds, read): Verdict| {
                    if holds { When::Kept } else { When::LeftOut(reason(text, &read)) }
                };
                read.map(|read| read.map(when))
            }
            Some(other) => Err(format!("expected a boolean or a text, found `{other}`")),
        };
        read.unwrap_or_else(|message| {
            let whose = if overridden { "--set, " } else { "" };
            self.problem(place, format!("{whose}`when` of stage `{name}`: {message}"), None);
            None
        })
    }

    fn uses(&mut self, name: &str, span: Span, item: &Item) -> Option<usize> {
        let names: Vec<&str> = stage::KINDS.iter().map(|kind| kind.name).collect();
        let Some((_, uses)) = item.entry("uses") else {
            self.problem(span, format!("stage `{name}` does not say what it `uses`: {}", list(&names)), None);
            return None;
        };
        let found = plain(&uses.to_json());
        let kind = names.iter().position(|kind| *kind == found);
        if kind.is_none() {
            let message = format!("no stage is called `{found}`; there are {}", list(&names));
            self.unknown(uses.span, message, &found, &names);
        }
        kind
    }

    /// A value that does not fit its type: finds the place that the path leads to.
    pub(super) fn mismatch(&mut self, name: &str, span: Span, item: &Item, error: &stage::ParseError) {
        let (message, help, unknown) = reword(&error.inner().to_string());
        let path =
            error.path().iter().map(ToString::to_string).filter(|part| part != "?").collect::<Vec<_>>();
        let overridden = self
            .overrides
            .iter()
            .any(|over| over.path[0] == name && same_path(&over.path[1..], &path, unknown.as_deref()));
        let place = (!overridden).then(|| place(item, &path, unknown.as_deref()).unwrap_or(span));
        let key = path
            .iter()
            .filter(|part| Some(*part) != unknown.as_ref())
            .cloned()
            .collect::<Vec<_>>()
            .join(".")
            .replace(".[", "[");
        let whose =
            if key.is_empty() { format!("stage `{name}`") } else { format!("`{key}` of stage `{name}`") };
        let whose = if overridden { format!("--set, {whose}") } else { whose };
        self.problem(place, format!("{whose}: {message}"), help);
    }

    pub(super) fn unknown_override_stages(&mut self, drafts: &[Draft]) {
        let names: Vec<&str> = drafts.iter().map(|draft| draft.name.as_str()).collect();
        for over in self.overrides {
            let found = over.path[0].as_str();
            if !["params", "matrix"].contains(&found) && !names.contains(&found) && self.problems.is_empty() {
                let help =
                    similar(found, names.iter().copied()).map(|hint| format!("did you mean `{hint}`?"));
                self.problem(None, format!("--set names stage `{found}`, which is not there"), help);
            }
        }
    }
}

fn same_path(over: &[String], path: &[String], unknown: Option<&str>) -> bool {
    over == path || unknown.is_some_and(|key| over.last().is_some_and(|last| last == key))
}

/// Why a condition leaves a stage out; `read` is the condition with values in place of names.
fn reason(written: &str, read: &str) -> String {
    let read = if written == read { String::new() } else { format!(" ({read})") };
    format!("`when: {written}`{read} is false")
}
