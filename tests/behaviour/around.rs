//! The commands around a run: the graph, where artifacts come from, what there is of them, the log, a crate, what is thrown
//! away, a first workflow, and what a shell and a machine's owner want to know.

use std::process::Output;

use crate::support::{Scratch, genomill, root, stderr};

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// `genomill ARGUMENTS`, started in the folder.
fn call(scratch: &Scratch, arguments: &[&str]) -> Output {
    genomill().current_dir(scratch.path("")).args(arguments).output().unwrap()
}

#[test]
fn the_graph_of_our_workflows_is_printed_in_every_format() {
    let file = root().join("workflows/vocabulary.yaml");
    for (format, parts) in [
        ("mermaid", ["flowchart TD", "bpe@vocabulary=65536<br>tokenizer"]),
        ("dot", ["digraph \"vocabulary\" {", "\"split\" -> \"windows\";"]),
        ("svg", ["<svg xmlns=\"http://www.w3.org/2000/svg\"", ">shards@vocabulary=65536</text>"]),
    ] {
        let output = genomill().arg("graph").arg(&file).args(["--format", format]).output().unwrap();
        let text = stdout(&output);
        for part in parts {
            assert!(text.contains(part), "{format}: {part} is not in {text}");
        }
    }
    let scratch = Scratch::lambda();
    let text = stdout(&call(&scratch, &["graph", "flow.yaml"]));
    assert_eq!(text.matches("-->").count(), 7, "{text}");
}
