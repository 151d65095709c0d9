//! The stages of a workflow as a graph, in the languages that other programs draw: Mermaid, Graphviz, SVG.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Workflow;
use super::config::Entry;
use crate::report;

/// The stages and what each reads from, expansions of the matrix one by one.
#[derive(Debug)]
pub struct Graph {
    /// The workflow's name.
    name: String,
    /// In the order of running.
    nodes: Vec<Node>,
}

/// A stage.
#[derive(Debug)]
struct Node {
    name: String,
    kind: &'static str,
    /// The number of each stage that it reads from, and as what.
    inputs: Vec<(usize, String)>,
}

impl Graph {
    /// The graph of a workflow.
    pub fn new(workflow: &Workflow) -> Self {
        let node = |(entry, reads): (&Entry, Vec<(usize, String)>)| {
            let mut inputs = BTreeMap::<usize, Vec<String>>::new();
            for (number, role) in reads {
                inputs.entry(number).or_default().push(key(&role).to_owned());
            }
            let inputs = inputs.into_iter().map(|(number, roles)| (number, roles.join(", "))).collect();
            Node { name: entry.name.clone(), kind: entry.kind().name, inputs }
        };
        Self {
            name: workflow.name.clone(),
            nodes: workflow.stages.iter().zip(workflow.reads()).map(node).collect(),
        }
    }

    /// A Mermaid flowchart, as GitHub and many editors show it.
    pub fn mermaid(&self) -> String {
        let mut text = format!("---\ntitle: {}\n---\nflowchart TD\n", self.name);
        for (number, node) in self.nodes.iter().enumerate() {
            add(&mut text, format_args!("  s{number}[\"{}<br>{}\"]\n", node.name, node.kind));
        }
        for (from, to, role) in self.edges() {
            let label = label(role).map_or_else(String::new, |role| format!("|{role}|"));
            add(&mut text, format_args!("  s{from} -->{label} s{to}\n"));
        }
        text
    }

    /// A digraph in Graphviz's language.
    pub fn dot(&self) -> String {
        let mut text = format!(
            "digraph \"{}\" {{\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n",
            self.name
        );
        for node in &self.nodes {
            add(&mut text, format_args!("  \"{0}\" [label=\"{0}\\n{1}\"];\n", node.name, node.kind));
        }
        for (from, to, role) in self.edges() {
            let label = label(role).map_or_else(String::new, |role| format!(" [label=\"{role}\"]"));
            let (from, to) = (&self.nodes[from].name, &self.nodes[to].name);
            add(&mut text, format_args!("  \"{from}\" -> \"{to}\"{label};\n"));
        }
        text + "}\n"
    }

    /// An SVG file, drawn as in the report.
    pub fn svg(&self) -> String {
        let stage = |node: &Node| report::Stage {
            name: node.name.clone(),
            kind: node.kind.to_owned(),
            inputs: node.inputs.iter().map(|(from, _)| self.nodes[*from].name.clone()).collect(),
            ..report::Stage::default()
        };
        let stages: Vec<report::Stage> = self.nodes.iter().map(stage).collect();
        report::graph(&stages).unwrap_or_default()
    }

    /// From, to and as what.
    fn edges(&self) -> impl Iterator<Item = (usize, usize, &str)> {
        self.nodes
            .iter()
            .enumerate()
            .flat_map(|(to, node)| node.inputs.iter().map(move |(from, role)| (*from, to, role.as_str())))
    }
}

/// The key of a role: that of `from.0` is `from`.
fn key(role: &str) -> &str {
    role.split('.').next().unwrap_or(role)
}

/// What an edge is called; most are just `from`.
fn label(role: &str) -> Option<&str> {
    Some(role).filter(|role| role.split(", ").any(|role| role != "from"))
}

fn add(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    text.write_fmt(what).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWEEP: &str = "
name: sweep
matrix: {vocabulary: [32, 64]}
stages:
  raw: {uses: ingest, sources: [{fasta: a.fa}]}
  split: {uses: split, from: raw}
  windows: {uses: chunk, from: split, window: 100}
  bpe: {uses: tokenizer, from: split, model: {bpe: {vocabulary_size: \"${matrix.vocabulary}\"}}}
  tokens: {uses: tokenize, from: windows, tokenizer: bpe}
";

    fn graph() -> Graph {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sweep.yaml");
        std::fs::write(&path, SWEEP).unwrap();
        Graph::new(&Workflow::open(&path, &[], &|_| None).unwrap())
    }

    #[test]
    fn every_language_has_every_stage_and_edge() {
        let graph = graph();
        let (mermaid, dot, svg) = (graph.mermaid(), graph.dot(), graph.svg());
        for (text, part, times) in [
            (&mermaid, "[\"", 7),
            (&mermaid, "-->", 8),
            (&mermaid, "tokens@vocabulary=64<br>tokenize", 1),
            (&mermaid, "-->|tokenizer|", 2),
            (&dot, " -> ", 8),
            (&dot, "\"bpe@vocabulary=32\" -> \"tokens@vocabulary=32\" [label=\"tokenizer\"];", 1),
            (&dot, "\"raw\" [label=\"raw\\ningest\"];", 1),
            (&svg, "<rect", 7),
            (&svg, "marker-end", 8),
        ] {
            assert_eq!(text.matches(part).count(), times, "{part} in {text}");
        }
    }
}
