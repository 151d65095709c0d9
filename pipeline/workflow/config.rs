//! The workflow file: from the document as written to typed stages. Every error of a file is collected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use miette::NamedSource;
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::DiGraph;
use serde_json::Value;

use super::mistake::{Invalid, Problem, place, reword, similar};
use super::yaml::{self, Item, Node, Span};
use super::{Error, stage};
use crate::fs;

/// A workflow whose stages are typed and in an order in which they can run.
#[derive(Debug)]
pub struct Workflow {
    /// Its name: the folder of its artifacts.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The stages, each after those that it reads from.
    pub stages: Vec<Entry>,
}

/// A stage of a workflow.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its kind, an index into [`stage::KINDS`].
    pub kind: usize,
    /// Its configuration.
    pub stage: Box<dyn stage::Stage>,
}

impl Entry {
    /// What kind of stage it is.
    pub fn kind(&self) -> &'static stage::Kind {
        &stage::KINDS[self.kind]
    }
}

/// A value given on the command line: `stage.key=value`, or `params.key=value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// The path, split at its dots.
    pub path: Vec<String>,
    /// The value, read as YAML.
    pub value: Value,
}

impl std::str::FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected stage.key=value, found `{text}`");
        let (path, value) = text.split_once('=').ok_or_else(wrong)?;
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        if path.len() < 2 || path.iter().any(String::is_empty) {
            return Err(wrong());
        }
        Ok(Self { path, value: yaml::parse_value(value) })
    }
}

impl Workflow {
    /// Reads and checks a workflow file, with `overrides` in place of what it says.
    pub fn open(path: &Path, overrides: &[Override]) -> Result<Self, Error> {
        let text = fs::read_to_string(path)?;
        Ok(Reader::new(path, &text, overrides).read().map_err(Box::new)?)
    }

    /// The folder that relative paths start from.
    pub fn base(&self) -> &Path {
        self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The place of a stage in the order of running.
    pub fn position(&self, name: &str) -> Result<usize, Error> {
        self.stages.iter().position(|entry| entry.name == name).ok_or_else(|| Error::UnknownStage {
            found: name.to_owned(),
            path: self.path.clone(),
            hint: similar(name, self.stages.iter().map(|entry| entry.name.as_str())),
        })
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    overrides: &'a [Override],
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, text: &'a str, overrides: &'a [Override]) -> Self {
        Self { path, text, overrides, problems: Vec::new() }
    }

    fn problem(&mut self, span: impl Into<Option<Span>>, message: String, help: Option<String>) {
        let source_code =
            NamedSource::new(self.path.to_string_lossy(), self.text.to_owned()).with_language("yaml");
        self.problems.push(Problem { message, help, span: span.into(), source_code });
    }

    fn read(mut self) -> Result<Workflow, Invalid> {
        let workflow = match yaml::parse(self.text) {
            Ok(document) => self.workflow(&document),
            Err((message, span)) => {
                self.problem(span, message, None);
                None
            }
        };
        match workflow {
            Some(workflow) if self.problems.is_empty() => Ok(workflow),
            _ => Err(Invalid { path: self.path.to_owned(), problems: self.problems }),
        }
    }

    fn workflow(&mut self, document: &Item) -> Option<Workflow> {
        let Node::Map(entries) = &document.node else {
            self.problem(
                document.span,
                format!("expected a map with `name` and `stages`, found {}", document.kind()),
                None,
            );
            return None;
        };
        for (key, span, _) in entries {
            self.known_key(key, *span, &["name", "params", "stages"], "the workflow");
        }
        let name = self.name(document);
        let params = self.params(document);
        let stages = self.stages(document, &params)?;
        self.unknown_override_stages(&stages);
        let stages = self.in_order(document, stages)?;
        Some(Workflow { name: name?, path: self.path.to_owned(), stages })
    }

    fn known_key(&mut self, key: &str, span: Span, known: &[&str], whose: &str) {
        if !known.contains(&key) {
            let help = similar(key, known.iter().copied()).map(|hint| format!("did you mean `{hint}`?"));
            self.problem(span, format!("unknown key `{key}` in {whose}, expected {}", list(known)), help);
        }
    }

    fn name(&mut self, document: &Item) -> Option<String> {
        let Some((_, item)) = document.entry("name") else {
            self.problem((0, 0), "the workflow has no `name`".to_owned(), None);
            return None;
        };
        match item.to_json() {
            Value::String(name) if is_name(&name) => Some(name),
            other => {
                let message = format!(
                    "expected a name of letters, digits, `-`, `_` and `.`, found `{}`",
                    plain(&other)
                );
                self.problem(item.span, message, None);
                None
            }
        }
    }

    fn params(&mut self, document: &Item) -> BTreeMap<String, Value> {
        let mut params = BTreeMap::new();
        if let Some((_, item)) = document.entry("params") {
            match item.to_json() {
                Value::Object(map) => params.extend(map),
                Value::Null => {}
                _ => self.problem(item.span, format!("`params` is a map, found {}", item.kind()), None),
            }
        }
        for over in self.overrides.iter().filter(|over| over.path[0] == "params") {
            params.insert(over.path[1..].join("."), over.value.clone());
        }
        params
    }

    fn stages(&mut self, document: &Item, params: &BTreeMap<String, Value>) -> Option<Vec<(Entry, Item)>> {
        let Some((_, item)) = document.entry("stages") else {
            self.problem((0, 0), "the workflow has no `stages`".to_owned(), None);
            return None;
        };
        let Node::Map(entries) = &item.node else {
            self.problem(
                item.span,
                format!("`stages` is a map from names to stages, found {}", item.kind()),
                None,
            );
            return None;
        };
        let mut stages = Vec::new();
        for (name, span, item) in entries {
            if !is_name(name) {
                let message =
                    format!("expected a stage name of letters, digits, `-` and `_`, found `{name}`");
                self.problem(*span, message, None);
            }
            if let Some(entry) = self.stage(name, *span, item, params) {
                stages.push((entry, item.clone()));
            }
        }
        Some(stages)
    }

    fn stage(
        &mut self,
        name: &str,
        span: Span,
        item: &Item,
        params: &BTreeMap<String, Value>,
    ) -> Option<Entry> {
        let Node::Map(_) = &item.node else {
            self.problem(span, format!("stage `{name}` is a map with `uses`, found {}", item.kind()), None);
            return None;
        };
        let kind = self.uses(name, span, item)?;
        let before = self.problems.len();
        let mut value = self.interpolated(item, params);
        if self.problems.len() > before {
            return None;
        }
        for over in self.overrides.iter().filter(|over| over.path[0] == name) {
            set(&mut value, &over.path[1..], &over.value);
        }
        if let Some(map) = value.as_object_mut() {
            map.shift_remove("uses");
        }
        match (stage::KINDS[kind].parse)(value) {
            Ok(stage) => {
                for (key, message) in stage.problems() {
                    let place = item.entry(key).map_or(span, |(_, value)| value.span);
                    self.problem(place, format!("`{key}` of stage `{name}`: {message}"), None);
                }
                Some(Entry { name: name.to_owned(), kind, stage })
            }
            Err(error) => {
                self.mismatch(name, span, item, &error);
                None
            }
        }
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
            let help = similar(&found, names.iter().copied()).map(|hint| format!("did you mean `{hint}`?"));
            self.problem(
                uses.span,
                format!("no stage is called `{found}`; there are {}", list(&names)),
                help,
            );
        }
        kind
    }

    /// The value with `${params.x}` replaced: whole texts keep the parameter's type, parts of texts its wording.
    fn interpolated(&mut self, item: &Item, params: &BTreeMap<String, Value>) -> Value {
        match &item.node {
            Node::Scalar(Value::String(text)) if text.contains("${") => {
                self.interpolate(text, item.span, params)
            }
            Node::Scalar(value) => value.clone(),
            Node::List(items) => items.iter().map(|item| self.interpolated(item, params)).collect(),
            Node::Map(entries) => {
                entries.iter().map(|(key, _, item)| (key.clone(), self.interpolated(item, params))).collect()
            }
        }
    }

    fn interpolate(&mut self, text: &str, span: Span, params: &BTreeMap<String, Value>) -> Value {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.problem(span, format!("`${{` without `}}` in `{text}`"), None);
                return Value::Null;
            };
            let value = name.strip_prefix("params.").and_then(|key| params.get(key));
            let Some(value) = value else {
                self.unknown_param(name, span, params);
                return Value::Null;
            };
            if before.is_empty() && after.is_empty() && out.is_empty() {
                return value.clone();
            }
            out.push_str(&plain(value));
            rest = after;
        }
        Value::String(out + rest)
    }

    fn unknown_param(&mut self, name: &str, span: Span, params: &BTreeMap<String, Value>) {
        let known: Vec<String> = params.keys().map(|key| format!("params.{key}")).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let help = similar(name, known.iter().copied()).map(|hint| format!("did you mean `${{{hint}}}`?"));
        self.problem(span, format!("unknown parameter `{name}`, expected {}", list(&known)), help);
    }

    /// A value that does not fit its type: finds the place that the path leads to.
    fn mismatch(&mut self, name: &str, span: Span, item: &Item, error: &stage::ParseError) {
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

    fn unknown_override_stages(&mut self, stages: &[(Entry, Item)]) {
        let names: Vec<&str> = stages.iter().map(|(entry, _)| entry.name.as_str()).collect();
        for over in self.overrides {
            let found = over.path[0].as_str();
            if found != "params" && !names.contains(&found) && self.problems.is_empty() {
                let help =
                    similar(found, names.iter().copied()).map(|hint| format!("did you mean `{hint}`?"));
                self.problem(None, format!("--set names stage `{found}`, which is not there"), help);
            }
        }
    }

    fn in_order(&mut self, document: &Item, stages: Vec<(Entry, Item)>) -> Option<Vec<Entry>> {
        let mut graph = DiGraph::<usize, ()>::new();
        let nodes: Vec<_> = (0..stages.len()).map(|i| graph.add_node(i)).collect();
        let written: Vec<String> = match document.entry("stages").map(|(_, item)| &item.node) {
            Some(Node::Map(entries)) => entries.iter().map(|(name, ..)| name.clone()).collect(),
            _ => Vec::new(),
        };
        for (i, (entry, item)) in stages.iter().enumerate() {
            for (role, input) in entry.stage.inputs() {
                if let Some(j) = stages.iter().position(|(other, _)| other.name == input) {
                    graph.update_edge(nodes[j], nodes[i], ());
                } else if !written.contains(&input) {
                    let help = similar(&input, written.iter().map(String::as_str))
                        .map(|hint| format!("did you mean `{hint}`?"));
                    let place = item.entry(&role).map_or(item.span, |(_, value)| value.span);
                    self.problem(
                        place,
                        format!("stage `{}` reads from `{input}`, which is not there", entry.name),
                        help,
                    );
                }
            }
        }
        if let Ok(order) = toposort(&graph, None) {
            return Some(arranged(stages, &order.iter().map(|node| graph[*node]).collect::<Vec<_>>()));
        }
        let cycle = tarjan_scc(&graph)
            .into_iter()
            .find(|part| part.len() > 1 || graph.contains_edge(part[0], part[0]));
        let mut cycle: Vec<usize> = cycle.unwrap_or_default().iter().map(|node| graph[*node]).collect();
        cycle.sort_unstable();
        let names: Vec<&str> = cycle.iter().map(|i| stages[*i].0.name.as_str()).collect();
        let place = cycle.first().map(|i| stages[*i].1.span);
        self.problem(place, format!("stages read from each other in a circle: {}", list(&names)), None);
        None
    }
}

/// The stages in the order of running; among those that could run, as the file has them.
fn arranged(stages: Vec<(Entry, Item)>, order: &[usize]) -> Vec<Entry> {
    let mut depth = vec![0; stages.len()];
    for &i in order {
        for (_, input) in stages[i].0.stage.inputs() {
            if let Some(j) = stages.iter().position(|(other, _)| other.name == input) {
                depth[i] = depth[i].max(depth[j] + 1);
            }
        }
    }
    let mut ranked: Vec<(usize, Entry)> =
        depth.into_iter().zip(stages.into_iter().map(|(entry, _)| entry)).collect();
    ranked.sort_by_key(|(depth, _)| *depth);
    ranked.into_iter().map(|(_, entry)| entry).collect()
}

fn same_path(over: &[String], path: &[String], unknown: Option<&str>) -> bool {
    over == path || unknown.is_some_and(|key| over.last().is_some_and(|last| last == key))
}

/// Puts a value at a path of maps, making maps where there are none.
fn set(value: &mut Value, path: &[String], new: &Value) {
    let [key, rest @ ..] = path else {
        *value = new.clone();
        return;
    };
    if !value.is_object() {
        *value = Value::Object(serde_json::Map::new());
    }
    if let Some(map) = value.as_object_mut() {
        set(map.entry(key.clone()).or_insert(Value::Null), rest, new);
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(words: &[&str]) -> String {
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
    }
}
