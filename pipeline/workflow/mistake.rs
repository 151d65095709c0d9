//! Mistakes in workflow files: what is wrong, where it stands, and what was probably meant.

use std::path::PathBuf;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceSpan};

use super::yaml::{Item, Node, Span};
use crate::units::similar;

/// Everything that is wrong with a workflow file.
#[derive(Debug, thiserror::Error)]
#[error("{} in workflow `{}`", count(problems.len()), path.display())]
pub struct Invalid {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, in the order of the file.
    pub problems: Vec<Problem>,
}

fn count(problems: usize) -> String {
    if problems == 1 { "a mistake".to_owned() } else { format!("{problems} mistakes") }
}

impl Diagnostic for Invalid {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

/// One mistake and its place.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What was found and what was expected.
    pub message: String,
    /// A likely remedy.
    pub help: Option<String>,
    /// Where it stands; absent for values from the command line.
    pub span: Option<Span>,
    pub(super) source_code: NamedSource<String>,
}

impl Problem {
    /// As a problem of one combination of the matrix alone.
    pub(super) fn at(self, combination: &str) -> Self {
        Self { message: format!("{} ({combination})", self.message), ..self }
    }
}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as _)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.span.map(|_| &self.source_code as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.map(|span| SourceSpan::from((span.start, span.len)))?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".to_owned()), span))))
    }
}

/// The place of the value at a path such as `sources`, `[0]`, `fasta`, or of the unknown key there.
pub(super) fn place(item: &Item, path: &[String], unknown: Option<&str>) -> Option<Span> {
    let mut item = item;
    for part in path {
        let index =
            part.strip_prefix('[').and_then(|p| p.strip_suffix(']')).and_then(|p| p.parse::<usize>().ok());
        let next = match (&item.node, index) {
            (Node::List(items), Some(index)) => items.get(index),
            _ => item.entry(part).map(|(_, value)| value),
        };
        match next {
            Some(next) if Some(part.as_str()) != unknown => item = next,
            _ => break,
        }
    }
    unknown.and_then(|key| item.entry(key)).map(|(span, _)| span).or(Some(item.span))
}

/// serde's words in ours: the message, a hint, and the unknown key where that is the fault.
pub(super) fn reword(message: &str) -> (String, Option<String>, Option<String>) {
    let ticked: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let found = ticked.first().copied().unwrap_or_default();
        let help =
            similar(found, ticked.iter().skip(1).copied()).map(|hint| format!("did you mean `{hint}`?"));
        return (format!("unknown key {rest}"), help, Some(found.to_owned()));
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let found = ticked.first().copied().unwrap_or_default();
        let help =
            similar(found, ticked.iter().skip(1).copied()).map(|hint| format!("did you mean `{hint}`?"));
        return (format!("unknown value {rest}"), help, None);
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return (format!("the key {rest} is missing"), None, None);
    }
    let typed = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, expected)) = typed.and_then(|rest| rest.split_once(", expected ")) {
        return (format!("expected {expected}, found {found}"), None, None);
    }
    (message.to_owned(), None, None)
}
