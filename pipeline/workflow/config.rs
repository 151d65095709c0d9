//! The workflow file: from the document as written to typed stages, one for each combination of the matrix axes that it
//! depends on. Every error of a file is collected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use miette::NamedSource;
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::DiGraph;
use serde_json::Value;

use super::matrix::{self, Axis, Combination};
use super::mistake::{Invalid, Problem, place, reword};
use super::yaml::{self, Item, Node, Span};
use super::{Error, stage};
use crate::fs;
use crate::units::similar;

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
    /// Its name: that of its artifact's folder.
    pub name: String,
    /// Its name as the file has it, which all expansions of a stage share.
    pub base: String,
    /// The values of the matrix axes that it depends on.
    pub at: Combination,
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

/// A value given on the command line: `stage.key=value`, `params.key=value` or `matrix.axis=[values]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// The path, split at its dots.
    pub path: Vec<String>,
    /// The value, read as YAML.
    pub value: Value,
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = plain(&self.value);
        let same = yaml::parse_value(&plain) == self.value;
        write!(f, "{}={}", self.path.join("."), if same { plain } else { self.value.to_string() })
    }
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
        Self::parse(path, &fs::read_to_string(path)?, overrides)
    }

    /// Checks the text of a workflow file; `path` is that of the file, which need not be there.
    pub fn parse(path: &Path, text: &str, overrides: &[Override]) -> Result<Self, Error> {
        Ok(Reader::new(path, text, overrides).read().map_err(Box::new)?)
    }

    /// The folder that relative paths start from.
    pub fn base(&self) -> &Path {
        self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The places of a stage in the order of running: one for the name of an expansion, all of them for a stage's own.
    pub fn positions(&self, name: &str) -> Result<Vec<usize>, Error> {
        let named = |entry: &&Entry| entry.name == name || entry.base == name;
        let found: Vec<usize> =
            (0..).zip(&self.stages).filter(|(_, entry)| named(entry)).map(|(i, _)| i).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let names = || self.stages.iter().flat_map(|entry| [entry.base.as_str(), entry.name.as_str()]);
        let hint = similar(name, names());
        Err(Error::UnknownStage { found: name.to_owned(), path: self.path.clone(), hint })
    }
}

/// A stage as written: for each combination of the axes that it uses itself, what it is.
struct Draft {
    name: String,
    span: Span,
    item: Item,
    kind: usize,
    variants: Vec<Variant>,
}

/// A stage at a combination of the axes that it uses itself.
struct Variant {
    at: Combination,
    value: Value,
    inputs: Vec<(String, String)>,
}

/// What `${...}` may name, and its value: `params.x`, `matrix.x`.
type Names = BTreeMap<String, Value>;

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    overrides: &'a [Override],
    /// The axes, as `matrix.x`.
    axes: Vec<String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, text: &'a str, overrides: &'a [Override]) -> Self {
        Self { path, text, overrides, axes: Vec::new(), problems: Vec::new() }
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
            self.known_key(key, *span, &["name", "params", "matrix", "stages"], "the workflow");
        }
        let name = self.name(document);
        let params = self.params(document);
        let axes = self.matrix(document, &params);
        self.axes = axes.iter().map(|axis| format!("matrix.{}", axis.name)).collect();
        let drafts = self.stages(document, &params, &axes)?;
        self.unknown_override_stages(&drafts);
        let order = self.in_order(document, &drafts)?;
        if !self.problems.is_empty() {
            return None;
        }
        let stages = self.expanded(drafts, &order);
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

    fn params(&mut self, document: &Item) -> Names {
        let mut params = Names::new();
        if let Some((_, item)) = document.entry("params") {
            match item.to_json() {
                Value::Object(map) => {
                    params.extend(map.into_iter().map(|(key, value)| (format!("params.{key}"), value)));
                }
                Value::Null => {}
                _ => self.problem(item.span, format!("`params` is a map, found {}", item.kind()), None),
            }
        }
        for over in self.overrides.iter().filter(|over| over.path[0] == "params") {
            params.insert(over.path.join("."), over.value.clone());
        }
        params
    }

    /// The axes, those of the command line in place of those written.
    fn matrix(&mut self, document: &Item, params: &Names) -> Vec<Axis> {
        let mut axes = Vec::new();
        if let Some((_, item)) = document.entry("matrix") {
            match &item.node {
                Node::Map(entries) => {
                    for (name, span, item) in entries {
                        if !self.gives_axis(name) {
                            axes.push(self.axis(name, *span, item, params));
                        }
                    }
                }
                Node::Scalar(Value::Null) => {}
                _ => self.problem(
                    item.span,
                    format!("`matrix` is a map from axes to lists of values, found {}", item.kind()),
                    None,
                ),
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

    fn axis(&mut self, name: &str, span: Span, item: &Item, params: &Names) -> Axis {
        let Node::List(items) = &item.node else {
            let message = format!("axis `{name}`: expected a list of values, found {}", item.kind());
            let help =
                matches!(item.node, Node::Scalar(_)).then(|| format!("write [{}]", plain(&item.to_json())));
            self.problem(item.span, message, help);
            return Axis { name: name.to_owned(), span: Some(span), values: Vec::new() };
        };
        let values = items.iter().map(|item| (self.interpolated(item, params), Some(item.span))).collect();
        self.checked_axis(name, Some(span), values)
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
    fn unused_axes(&mut self, axes: &[Axis], used: &BTreeSet<String>) {
        for axis in axes.iter().filter(|axis| !used.contains(&axis.name)) {
            let help = format!("write `${{matrix.{}}}` where a stage is to take its values", axis.name);
            self.problem(axis.span, format!("no stage uses the axis `{}`", axis.name), Some(help));
        }
    }

    fn stages(&mut self, document: &Item, params: &Names, axes: &[Axis]) -> Option<Vec<Draft>> {
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
        let drafts = entries.iter().filter_map(|(name, span, item)| {
            self.stage_name(name, *span);
            self.stage(name, *span, item, params, axes)
        });
        let drafts = drafts.collect();
        self.unused_axes(axes, &matrix::used(item, &|_| false));
        Some(drafts)
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
    fn stage(&mut self, name: &str, span: Span, item: &Item, params: &Names, axes: &[Axis]) -> Option<Draft> {
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
            variants.extend(self.variant(name, span, item, kind, params, at));
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
        params: &Names,
        at: &Combination,
    ) -> Option<Variant> {
        let before = self.problems.len();
        let values = at.iter().map(|(axis, value)| (format!("matrix.{axis}"), value.clone()));
        let names: Names = params.clone().into_iter().chain(values).collect();
        let mut value = self.interpolated(item, &names);
        if self.problems.len() > before {
            return None;
        }
        for over in self.overrides.iter().filter(|over| over.path[0] == name) {
            set(&mut value, &over.path[1..], &over.value);
        }
        if let Some(map) = value.as_object_mut() {
            map.shift_remove("uses");
        }
        match (stage::KINDS[kind].parse)(value.clone()) {
            Ok(stage) => {
                for (key, message) in stage.problems() {
                    let place = item.entry(key).map_or(span, |(_, value)| value.span);
                    self.problem(place, format!("`{key}` of stage `{name}`: {message}"), None);
                }
                Some(Variant { at: at.clone(), value, inputs: stage.inputs() })
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

    /// The value with `${params.x}` and `${matrix.x}` replaced: whole texts keep the type, parts of texts the wording.
    fn interpolated(&mut self, item: &Item, names: &Names) -> Value {
        match &item.node {
            Node::Scalar(Value::String(text)) if text.contains("${") => {
                self.interpolate(text, item.span, names)
            }
            Node::Scalar(value) => value.clone(),
            Node::List(items) => items.iter().map(|item| self.interpolated(item, names)).collect(),
            Node::Map(entries) => {
                entries.iter().map(|(key, _, item)| (key.clone(), self.interpolated(item, names))).collect()
            }
        }
    }

    fn interpolate(&mut self, text: &str, span: Span, names: &Names) -> Value {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.problem(span, format!("`${{` without `}}` in `{text}`"), None);
                return Value::Null;
            };
            let Some(value) = names.get(name) else {
                self.unknown_name(name, span, names);
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

    fn unknown_name(&mut self, name: &str, span: Span, names: &Names) {
        let axis = name.starts_with("matrix.");
        let what = if axis { "matrix axis" } else { "parameter" };
        let params = names.keys().filter(|known| known.starts_with("params.")).map(String::as_str);
        let axes = self.axes.iter().map(String::as_str);
        let known: Vec<&str> = if axis { axes.collect() } else { params.collect() };
        let help = similar(name, known.iter().copied()).map(|hint| format!("did you mean `${{{hint}}}`?"));
        let message = format!("unknown {what} `{name}`, expected {}", list(&known));
        self.problem(span, message, help);
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

    fn unknown_override_stages(&mut self, drafts: &[Draft]) {
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

    /// The drafts by index, each after those that it reads from.
    fn in_order(&mut self, document: &Item, drafts: &[Draft]) -> Option<Vec<usize>> {
        let mut graph = DiGraph::<usize, ()>::new();
        let nodes: Vec<_> = (0..drafts.len()).map(|i| graph.add_node(i)).collect();
        let by_name: BTreeMap<&str, usize> =
            drafts.iter().enumerate().map(|(i, draft)| (draft.name.as_str(), i)).collect();
        let written: Vec<String> = match document.entry("stages").map(|(_, item)| &item.node) {
            Some(Node::Map(entries)) => entries.iter().map(|(name, ..)| name.clone()).collect(),
            _ => Vec::new(),
        };
        for (i, draft) in drafts.iter().enumerate() {
            let inputs: BTreeSet<&(String, String)> =
                draft.variants.iter().flat_map(|variant| &variant.inputs).collect();
            for (role, input) in inputs {
                if let Some(&j) = by_name.get(matrix::base(input)) {
                    graph.update_edge(nodes[j], nodes[i], ());
                } else if !written.iter().any(|name| name == matrix::base(input)) {
                    self.missing_input(draft, role, input, written.iter().map(String::as_str));
                }
            }
        }
        if let Ok(order) = toposort(&graph, None) {
            return Some(order.iter().map(|node| graph[*node]).collect());
        }
        let cycle = tarjan_scc(&graph)
            .into_iter()
            .find(|part| part.len() > 1 || graph.contains_edge(part[0], part[0]));
        let mut cycle: Vec<usize> = cycle.unwrap_or_default().iter().map(|node| graph[*node]).collect();
        cycle.sort_unstable();
        let names: Vec<&str> = cycle.iter().map(|i| drafts[*i].name.as_str()).collect();
        let place = cycle.first().map(|i| drafts[*i].item.span);
        self.problem(place, format!("stages read from each other in a circle: {}", list(&names)), None);
        None
    }

    fn missing_input<'n>(
        &mut self,
        draft: &Draft,
        role: &str,
        input: &str,
        names: impl Iterator<Item = &'n str>,
    ) {
        let help = similar(input, names).map(|hint| format!("did you mean `{hint}`?"));
        let key = role.split('.').next().unwrap_or(role);
        let place = draft.item.entry(key).map_or(draft.item.span, |(_, value)| value.span);
        let message = format!("stage `{}` reads from `{input}`, which is not there", draft.name);
        self.problem(place, message, help);
    }

    /// The stages, expanded: those that read one stage with the combinations of that, those that gather with all.
    fn expanded(&mut self, drafts: Vec<Draft>, order: &[usize]) -> Vec<Entry> {
        let mut made = Made::default();
        let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
        for &i in order {
            if let Some(draft) = drafts[i].take() {
                self.expand(i, &draft, &mut made);
            }
        }
        made.entries.sort_by_key(|(place, _)| *place);
        made.entries.into_iter().map(|(_, entry)| entry).collect()
    }

    fn expand(&mut self, file_order: usize, draft: &Draft, made: &mut Made) {
        let known = made.names.len();
        for variant in &draft.variants {
            for (role, input) in variant.inputs.iter().filter(|(_, input)| input.contains(matrix::AT)) {
                if !made.depths.contains_key(input) {
                    let names: Vec<String> = made.depths.keys().cloned().collect();
                    self.missing_input(draft, role, input, names.iter().map(String::as_str));
                    return;
                }
            }
            for (at, value) in made.combined(variant) {
                self.entry(file_order, draft, at, value, made);
            }
        }
        if made.names.len() == known {
            let message =
                format!("stage `{}` reads from stages that share no combination of the matrix", draft.name);
            self.problem(draft.span, message, None);
        }
    }

    fn entry(&mut self, file_order: usize, draft: &Draft, at: Combination, value: Value, made: &mut Made) {
        let name = matrix::name(&draft.name, &at);
        if name.len() > matrix::MAX_NAME_BYTES {
            let expected = matrix::MAX_NAME_BYTES;
            let message = format!("the name `{name}` has {} bytes, expected at most {expected}", name.len());
            return self.problem(draft.span, message, Some("use shorter values or fewer axes".to_owned()));
        }
        match (stage::KINDS[draft.kind].parse)(value) {
            Ok(stage) => {
                let entry = Entry { name, base: draft.name.clone(), at, kind: draft.kind, stage };
                made.add(file_order, entry);
            }
            Err(error) => self.mismatch(&draft.name, draft.span, &draft.item, &error),
        }
    }
}

/// The stages expanded so far.
#[derive(Default)]
struct Made {
    /// With depth, place in the file and place among the expansions: the order of running.
    entries: Vec<((usize, usize, usize), Entry)>,
    /// The expansions of each stage, by its own name.
    stages: BTreeMap<String, Vec<(Combination, String)>>,
    /// How many stages each one stands on, the longest way.
    depths: BTreeMap<String, usize>,
    names: Vec<String>,
}

impl Made {
    fn add(&mut self, file_order: usize, entry: Entry) {
        let depth = |(_, input): (String, String)| self.depths.get(&input).map_or(0, |depth| depth + 1);
        let depth = entry.stage.inputs().into_iter().map(depth).max().unwrap_or(0);
        self.depths.insert(entry.name.clone(), depth);
        self.stages.entry(entry.base.clone()).or_default().push((entry.at.clone(), entry.name.clone()));
        self.names.push(entry.name.clone());
        self.entries.push(((depth, file_order, self.names.len()), entry));
    }

    /// A variant at every combination that its inputs have and that agrees with its own, reading from the expansions.
    fn combined(&self, variant: &Variant) -> Vec<(Combination, Value)> {
        let mut all = vec![(variant.at.clone(), variant.value.clone())];
        for (role, input) in variant.inputs.iter().filter(|(role, _)| !role.contains('.')) {
            let Some(expansions) = self.stages.get(input) else { continue };
            let with = |(at, value): &(Combination, Value)| {
                let (at, value) = (at.clone(), value.clone());
                expansions.iter().filter_map(move |(other, name)| {
                    let mut value = value.clone();
                    set(&mut value, std::slice::from_ref(role), &Value::from(name.as_str()));
                    Some((matrix::joined(&at, other)?, value))
                })
            };
            all = all.iter().flat_map(with).collect();
        }
        for (at, value) in &mut all {
            self.gather(variant, at, value);
        }
        all
    }

    /// Puts the expansions of the listed stages that agree with a combination in the place of their names.
    fn gather(&self, variant: &Variant, at: &Combination, value: &mut Value) {
        let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (role, input) in &variant.inputs {
            let Some((key, _)) = role.split_once('.') else { continue };
            let list = lists.entry(key).or_default();
            match self.stages.get(input) {
                Some(expansions) => {
                    let agreeing = expansions.iter().filter(|(other, _)| matrix::joined(at, other).is_some());
                    list.extend(agreeing.map(|(_, name)| Value::from(name.as_str())));
                }
                None => list.push(Value::from(input.as_str())),
            }
        }
        for (key, list) in lists {
            set(value, &[key.to_owned()], &Value::Array(list));
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
