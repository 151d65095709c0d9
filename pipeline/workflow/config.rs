//! The workflow file: from the documents as written to typed stages, one for each combination of the matrix axes that it
//! depends on. Every error of a file, and of those that it includes, is collected.
//!
//! `documents` merges what is included, `names` knows what `${...}` may name, `axes` reads the matrix, `drafts` the stages,
//! `settings` and `condition` what a stage says to the engine; `order` and `expand` put them together.

mod axes;
mod condition;
mod documents;
mod drafts;
mod expand;
mod names;
mod order;
pub mod settings;

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use miette::NamedSource;
use serde_json::Value;

use self::documents::Source;
use self::settings::{Engine, Resources};
use super::matrix::Combination;
use super::mistake::{Invalid, Problem};
use super::yaml::{self, Span};
use super::{Error, stage};
use crate::fs;
use crate::observer::{Event, Observer};
use crate::units::similar;

/// A workflow whose stages are typed and in an order in which they can run.
#[derive(Debug)]
pub struct Workflow {
    /// Its name: the folder of its artifacts.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The files that it includes, and their texts.
    pub included: Vec<(PathBuf, String)>,
    /// What it says of engines.
    pub engine: Engine,
    /// The stages, each after those that it reads from.
    pub stages: Vec<Entry>,
    /// The stages that a `when` leaves out, and those that cannot do without one of them.
    pub left_out: Vec<LeftOut>,
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
    /// The folder of the file that it is written in, from which its relative paths start.
    pub folder: PathBuf,
    /// What it needs of the machine; as all below, no part of its action key.
    pub resources: Resources,
    /// How often it is tried again when it fails.
    pub retries: u32,
    /// What `tag:NAME` selects it by.
    pub tags: Vec<String>,
}

impl Entry {
    /// What kind of stage it is.
    pub fn kind(&self) -> &'static stage::Kind {
        &stage::KINDS[self.kind]
    }
}

/// A stage that is not for this run.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// Its name, with its combination.
    pub name: String,
    /// Its name as the file has it.
    pub base: String,
    /// The values of the matrix axes that it depends on.
    pub at: Combination,
    /// Its kind, an index into [`stage::KINDS`].
    pub kind: usize,
    /// What `tag:NAME` would select it by.
    pub tags: Vec<String>,
    /// Why.
    pub reason: String,
}

impl LeftOut {
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

/// The value of an environment variable by its name, if it is set. The library never asks the system itself.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What selects stages by a tag starts with this.
pub const TAG: &str = "tag:";

impl Workflow {
    /// Reads and checks a workflow file, with `overrides` in place of what it says; declared variables are looked up in
    /// `environment`.
    pub fn open(path: &Path, overrides: &[Override], environment: Environment) -> Result<Self, Error> {
        let text = fs::read_to_string(path)?;
        Ok(Reader::new(path, text, overrides, environment).read().map_err(Box::new)?)
    }

    /// The places of stages in the order of running: one for the name of an expansion, all of them for a stage's own, and
    /// with `tag:NAME` those of every stage that has the tag.
    pub fn positions(&self, name: &str) -> Result<Vec<usize>, Error> {
        let tag = name.strip_prefix(TAG);
        let named = |own: &str, base: &str, tags: &[String]| match tag {
            Some(tag) => tags.iter().any(|other| other == tag),
            None => own == name || base == name,
        };
        let stages = (0..).zip(&self.stages);
        let found = stages.filter(|(_, entry)| named(&entry.name, &entry.base, &entry.tags)).map(|(i, _)| i);
        let found: Vec<usize> = found.collect();
        if !found.is_empty() {
            return Ok(found);
        }
        if let Some(left) = self.left_out.iter().find(|left| named(&left.name, &left.base, &left.tags)) {
            return Err(Error::LeftOut { stage: left.name.clone(), reason: left.reason.clone() });
        }
        let (path, found) = (self.path.clone(), name.to_owned());
        if let Some(tag) = tag {
            let hint = similar(tag, self.stages.iter().flat_map(|entry| &entry.tags).map(String::as_str));
            return Err(Error::UnknownTag { found: tag.to_owned(), path, hint });
        }
        let names = || self.stages.iter().flat_map(|entry| [entry.base.as_str(), entry.name.as_str()]);
        let hint = similar(name, names());
        Err(Error::UnknownStage { found, path, hint })
    }
}

impl Workflow {
    /// For each stage the places of those that it reads from, and as what; of those that are left out there is no place.
    pub(super) fn reads(&self) -> Vec<Vec<(usize, String)>> {
        let places: HashMap<&str, usize> =
            self.stages.iter().map(|entry| entry.name.as_str()).zip(0..).collect();
        let reads = |entry: &Entry| {
            let inputs = entry.stage.inputs().into_iter();
            inputs.filter_map(|(role, input)| Some((*places.get(input.as_str())?, role))).collect()
        };
        self.stages.iter().map(reads).collect()
    }

    /// The included files by their names beside the workflow file, with their texts: what lies elsewhere, and cannot have
    /// the name that it is included by, is called `included/1-NAME`.
    pub(super) fn beside(&self) -> Vec<(String, &str)> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let name = |number: usize, path: &Path| {
            let within = path.strip_prefix(folder).ok();
            let within =
                within.filter(|path| path.components().all(|part| matches!(part, Component::Normal(_))));
            let own = || path.file_name().unwrap_or_default().to_string_lossy();
            within
                .map_or_else(|| format!("included/{number}-{}", own()), |path| path.to_string_lossy().into())
        };
        (1..).zip(&self.included).map(|(number, (path, text))| (name(number, path), text.as_str())).collect()
    }

    /// Says which stages are left out, and why.
    pub(super) fn tell_left_out(&self, observer: &dyn Observer) {
        for left in &self.left_out {
            let message = format!("left out: {}", left.reason);
            observer.event(&Event::Note { stage: Some(left.name.clone()), message });
        }
    }
}

/// Reads a workflow and collects what is wrong with it.
struct Reader<'a> {
    /// The workflow file, then those that it includes.
    sources: Vec<Source>,
    overrides: &'a [Override],
    environment: Environment<'a>,
    /// The axes, as `matrix.x`.
    axes: Vec<String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(path: &Path, text: String, overrides: &'a [Override], environment: Environment<'a>) -> Self {
        let sources = vec![Source { path: path.to_owned(), text }];
        Self { sources, overrides, environment, axes: Vec::new(), problems: Vec::new() }
    }

    fn problem(&mut self, span: impl Into<Option<Span>>, message: String, help: Option<String>) {
        let span = span.into();
        let source = &self.sources[span.map_or(0, |span| span.file)];
        let source_code =
            NamedSource::new(source.path.to_string_lossy(), source.text.clone()).with_language("yaml");
        self.problems.push(Problem { message, help, span, source_code });
    }

    /// A name that is none of those known.
    fn unknown(&mut self, span: Span, message: String, found: &str, known: &[&str]) {
        let help = similar(found, known.iter().copied()).map(|hint| format!("did you mean `{hint}`?"));
        self.problem(span, message, help);
    }

    fn read(mut self) -> Result<Workflow, Invalid> {
        let workflow = self.workflow();
        match workflow {
            Some(workflow) if self.problems.is_empty() => Ok(workflow),
            _ => Err(Invalid { path: self.sources.swap_remove(0).path, problems: self.problems }),
        }
    }

    fn workflow(&mut self) -> Option<Workflow> {
        let document = self.document()?;
        let name = self.name(document.name.as_ref());
        let engine = self.engine(document.engine.as_ref());
        let env = self.env(&document.env);
        let names = self.params(&document.params, env);
        let axes = self.matrix(&document.matrix, &names);
        self.axes = axes.iter().map(|axis| format!("matrix.{}", axis.name)).collect();
        let Some(stages) = document.stages else {
            self.problem(Span::top(0), "the workflow has no `stages`".to_owned(), None);
            return None;
        };
        let drafts = self.stages(&stages, &names, &axes);
        self.unknown_override_stages(&drafts);
        let order = self.in_order(&stages, &drafts)?;
        if !self.problems.is_empty() {
            return None;
        }
        let (stages, left_out) = self.expanded(drafts, &order);
        let path = self.sources[0].path.clone();
        let included = self.sources[1..].iter().map(|source| (source.path.clone(), source.text.clone()));
        let included = included.collect();
        Some(Workflow { name: name?, path, included, engine: engine?, stages, left_out })
    }

    fn engine(&mut self, item: Option<&yaml::Item>) -> Option<Engine> {
        let Some(item) = item else { return Some(Engine::default()) };
        match serde_path_to_error::deserialize::<_, Engine>(item.to_json()) {
            Ok(engine) => Some(engine),
            Err(error) => {
                self.problem(item.span, format!("`engine`: {error}"), None);
                None
            }
        }
    }

    fn name(&mut self, item: Option<&yaml::Item>) -> Option<String> {
        let Some(item) = item else {
            self.problem(Span::top(0), "the workflow has no `name`".to_owned(), None);
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
}

/// Puts a value at a path of maps and lists, making maps where there are none.
fn set<S: AsRef<str>>(value: &mut Value, path: &[S], new: &Value) {
    let [key, rest @ ..] = path else {
        *value = new.clone();
        return;
    };
    let key = key.as_ref();
    if let Some(item) = key.parse::<usize>().ok().and_then(|index| value.as_array_mut()?.get_mut(index)) {
        return set(item, rest, new);
    }
    if !value.is_object() {
        *value = Value::Object(serde_json::Map::new());
    }
    if let Some(map) = value.as_object_mut() {
        set(map.entry(key).or_insert(Value::Null), rest, new);
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
