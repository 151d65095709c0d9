//! A YAML document in which every value knows its place. Offsets are bytes.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};

/// A place in one of the documents of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which document: 0 is the workflow file, others are those that it includes.
    pub file: usize,
    /// Byte offset.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Span {
    /// The beginning of a document.
    pub const fn top(file: usize) -> Self {
        Self { file, start: 0, len: 0 }
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub node: Node,
}

/// A YAML value.
#[derive(Debug, Clone)]
pub enum Node {
    /// Anything that is neither list nor map.
    Scalar(Value),
    /// A list.
    List(Vec<Item>),
    /// A map, in the order written.
    Map(Vec<Entry>),
}

/// A key of a map, its place, and its value.
pub type Entry = (String, Span, Item);

impl Item {
    /// The entry of a map by its key: the place of the key, and the value.
    pub fn entry(&self, key: &str) -> Option<(Span, &Self)> {
        let Node::Map(entries) = &self.node else { return None };
        entries.iter().find(|(name, ..)| name == key).map(|(_, span, item)| (*span, item))
    }

    /// The same value, all of whose places are in another document.
    pub fn of_file(self, file: usize) -> Self {
        let node = match self.node {
            Node::Scalar(value) => Node::Scalar(value),
            Node::List(items) => Node::List(items.into_iter().map(|item| item.of_file(file)).collect()),
            Node::Map(entries) => {
                let moved = |(key, span, item): Entry| (key, Span { file, ..span }, item.of_file(file));
                Node::Map(entries.into_iter().map(moved).collect())
            }
        };
        Self { span: Span { file, ..self.span }, node }
    }

    /// The value as JSON, without places.
    pub fn to_json(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::List(items) => items.iter().map(Self::to_json).collect(),
            Node::Map(entries) => {
                entries.iter().map(|(key, _, item)| (key.clone(), item.to_json())).collect()
            }
        }
    }

    /// What kind of value it is, in words.
    pub fn kind(&self) -> &'static str {
        match &self.node {
            Node::List(_) => "a list",
            Node::Map(_) => "a map",
            Node::Scalar(Value::Null) => "nothing",
            Node::Scalar(Value::Bool(_)) => "a boolean",
            Node::Scalar(Value::Number(_)) => "a number",
            Node::Scalar(_) => "a text",
        }
    }
}

/// Parses a document; an error says what and where.
pub fn parse(text: &str) -> Result<Item, (String, Span)> {
    serde_saphyr::from_str::<Item>(text).map_err(|error| {
        let place = error.location().map_or(Span::top(0), |location| Span {
            file: 0,
            start: offset(text, &location),
            len: 1,
        });
        (first_line(&error.without_snippet().to_string()), place)
    })
}

/// The value of one YAML scalar, list or map on a command line.
pub fn parse_value(text: &str) -> Value {
    parse(text).map_or_else(|_| Value::String(text.to_owned()), |item| item.to_json())
}

/// The first line of a message, without the place, which is shown beside it.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or(message);
    if let Some(key) = line.strip_prefix("duplicate mapping key: ").and_then(|rest| rest.split(',').next()) {
        return format!("key `{key}` stands here twice");
    }
    line.split(" at line ").next().unwrap_or(line).trim_end_matches('.').to_owned()
}

/// Line and column of a byte, which count from 1; columns are characters.
pub fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// The byte at a line and column, which count from 1.
fn offset(text: &str, location: &Location) -> usize {
    let number = |n: u64| usize::try_from(n.max(1) - 1).unwrap_or(usize::MAX);
    let before = text.split_inclusive('\n').take(number(location.line())).map(str::len).sum::<usize>();
    let line = text[before..].lines().next().unwrap_or_default();
    before + line.char_indices().nth(number(location.column())).map_or(line.len(), |(byte, _)| byte)
}

fn span(location: &Location) -> Span {
    let span = location.span();
    let number = |n: Option<u64>| usize::try_from(n.unwrap_or(0)).unwrap_or(0);
    Span { file: 0, start: number(span.byte_offset()), len: number(span.byte_len()) }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self { span: span(&spanned.referenced), node: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

#[expect(clippy::unnecessary_wraps, reason = "what a visitor returns")]
fn scalar<E>(value: impl Into<Value>) -> Result<Node, E> {
    Ok(Node::Scalar(value.into()))
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        scalar(v)
    }

    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        scalar(v)
    }

    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        scalar(v)
    }

    fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
        scalar(v)
    }

    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        scalar(v)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        scalar(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        scalar(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some((key, item)) = map.next_entry::<Spanned<String>, Item>()? {
            entries.push((key.value, span(&key.referenced), item));
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_types_and_places() {
        let text = "name: yeast\nstages:\n  a: {n: 12, x: 1e-3, on: true, list: [1, b]}\n  nothing:\n";
        let document = parse(text).unwrap();
        let (_, a) = document.entry("stages").unwrap().1.entry("a").unwrap();
        assert_eq!(
            document.to_json(),
            serde_json::json!({"name": "yeast", "stages":
                {"a": {"n": 12, "x": 1e-3, "on": true, "list": [1, "b"]}, "nothing": null}})
        );
        let (key, value) = a.entry("x").unwrap();
        let at = |span: Span| &text[span.start..span.start + span.len];
        assert_eq!((at(key), at(value.span)), ("x", "1e-3"));
    }

    #[test]
    fn broken_documents_say_where() {
        for (text, part) in [("a: [1, 2", "a:"), ("a: 1\na: 2\n", "a"), ("a: b: c", "a")] {
            let (message, span) = parse(text).unwrap_err();
            assert!(span.start <= text.len() && !message.is_empty(), "{part}: {message} {span:?}");
        }
    }
}
