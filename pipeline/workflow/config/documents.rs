//! The documents of a workflow: the file itself and those that it includes, read as one.
//!
//! What is included comes first, as if it stood there. Nothing may be defined twice, but a file that is reached on two ways
//! counts once.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Reader, list, plain};
use crate::fs;
use crate::workflow::yaml::{self, Entry, Item, Node, Span};

/// A file and what it says.
pub(super) struct Source {
    /// As the error messages name it.
    pub path: PathBuf,
    pub text: String,
}

/// What all documents say.
#[derive(Default)]
pub(super) struct Document {
    /// The name that the workflow file gives; those of included files are for running them alone.
    pub name: Option<Item>,
    /// What the workflow file says of engines; as the name, that of included files is for running them alone.
    pub engine: Option<Item>,
    pub env: Vec<Entry>,
    pub params: Vec<Entry>,
    pub matrix: Vec<Entry>,
    pub stages: Option<Vec<Entry>>,
}

const KEYS: [&str; 7] = ["name", "engine", "include", "env", "params", "matrix", "stages"];

impl Reader<'_> {
    /// Reads the workflow file and all that it includes.
    pub(super) fn document(&mut self) -> Option<Document> {
        let mut document = Document::default();
        let path = real(&self.sources[0].path);
        self.merge(0, &mut vec![path.clone()], &mut vec![path], &mut document)?;
        Some(document)
    }

    /// Adds a document. `open` are the files that include each other down to it, `seen` all that were read.
    fn merge(
        &mut self,
        file: usize,
        open: &mut Vec<PathBuf>,
        seen: &mut Vec<PathBuf>,
        into: &mut Document,
    ) -> Option<()> {
        let item = match yaml::parse(&self.sources[file].text) {
            Ok(item) => item.of_file(file),
            Err((message, span)) => {
                self.problem(Span { file, ..span }, message, None);
                return None;
            }
        };
        let Node::Map(entries) = &item.node else {
            let expected = if file == 0 { "`name` and `stages`" } else { "`params`, `matrix` or `stages`" };
            let message = format!("expected a map with {expected}, found {}", item.kind());
            self.problem(item.span, message, None);
            return None;
        };
        for (key, span, _) in entries.iter().filter(|(key, ..)| !KEYS.contains(&key.as_str())) {
            let message = format!("unknown key `{key}` in the workflow, expected {}", list(&KEYS));
            self.unknown(*span, message, key, &KEYS);
        }
        let mut whole = Some(());
        if let Some((_, include)) = item.entry("include") {
            whole = self.include(file, include, open, seen, into);
        }
        if file == 0 {
            into.name = item.entry("name").map(|(_, name)| name.clone());
            into.engine = item.entry("engine").map(|(_, engine)| engine.clone());
        }
        let env = self.section(&item, "env", "`env` is a list of names, or a map from names to defaults");
        self.extend("env", &mut into.env, env);
        let params = self.section(&item, "params", "`params` is a map");
        self.extend("params", &mut into.params, params);
        let matrix = self.section(&item, "matrix", "`matrix` is a map from axes to lists of values");
        self.extend("matrix", &mut into.matrix, matrix);
        if item.entry("stages").is_some() {
            let stages = self.section(&item, "stages", "`stages` is a map from names to stages");
            self.extend("stages", into.stages.get_or_insert_default(), stages);
        }
        whole
    }

    /// The entries of a key at the top; `env` may be a list of names.
    fn section(&mut self, document: &Item, key: &str, expected: &str) -> Vec<Entry> {
        let Some((_, item)) = document.entry(key) else { return Vec::new() };
        match &item.node {
            Node::Map(entries) => entries.clone(),
            Node::Scalar(Value::Null) if key != "stages" => Vec::new(),
            Node::List(names) if key == "env" => {
                let nothing = |span| Item { span, node: Node::Scalar(Value::Null) };
                names.iter().map(|name| (plain(&name.to_json()), name.span, nothing(name.span))).collect()
            }
            _ => {
                self.problem(item.span, format!("{expected}, found {}", item.kind()), None);
                Vec::new()
            }
        }
    }

    /// Adds entries to those of other documents; what stands in two is told with both places.
    fn extend(&mut self, section: &str, known: &mut Vec<Entry>, entries: Vec<Entry>) {
        let before = known.len();
        for entry in entries {
            let (key, span, item) = &entry;
            match known[..before].iter().find(|(other, ..)| other == key) {
                Some((.., other)) if section == "env" && other.to_json() == item.to_json() => {}
                Some((_, other, _)) => {
                    let message =
                        format!("`{section}.{key}` is defined twice: here and at {}", self.place(*other));
                    self.problem(*span, message, Some("give one of them another name".to_owned()));
                }
                None => known.push(entry),
            }
        }
    }

    /// `common.yaml:3:5`.
    fn place(&self, span: Span) -> String {
        let source = &self.sources[span.file];
        let (line, column) = yaml::line_and_column(&source.text, span.start);
        format!("{}:{line}:{column}", source.path.display())
    }

    fn include(
        &mut self,
        file: usize,
        include: &Item,
        open: &mut Vec<PathBuf>,
        seen: &mut Vec<PathBuf>,
        into: &mut Document,
    ) -> Option<()> {
        let Node::List(items) = &include.node else {
            let help = matches!(include.node, Node::Scalar(Value::String(_)))
                .then(|| format!("write [{}]", plain(&include.to_json())));
            let message = format!("`include` is a list of files, found {}", include.kind());
            self.problem(include.span, message, help);
            return None;
        };
        let mut whole = Some(());
        for item in items {
            let Node::Scalar(Value::String(name)) = &item.node else {
                self.problem(item.span, format!("expected a file to include, found {}", item.kind()), None);
                continue;
            };
            let path = self.sources[file].path.with_file_name(name);
            let there = real(&path);
            if open.contains(&there) {
                let way: Vec<String> = open.iter().chain([&there]).map(|path| name_of(path)).collect();
                let way: Vec<&str> =
                    way.iter().skip_while(|name| **name != name_of(&there)).map(String::as_str).collect();
                self.problem(
                    item.span,
                    format!("files include each other in a circle: {}", list(&way)),
                    None,
                );
                whole = None;
            } else if !seen.contains(&there) {
                let text = match fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(error) => {
                        self.problem(item.span, error.to_string(), None);
                        whole = None;
                        continue;
                    }
                };
                self.sources.push(Source { path, text });
                seen.push(there.clone());
                open.push(there);
                whole = self.merge(self.sources.len() - 1, open, seen, into).and(whole);
                open.pop();
            }
        }
        whole
    }

    /// The folder of a document, from which the paths in it start.
    pub(super) fn folder(&self, file: usize) -> PathBuf {
        let folder = self.sources[file].path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new(".")).to_owned()
    }
}

/// The one name of a file, however it is reached.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
