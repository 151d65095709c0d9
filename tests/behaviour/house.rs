//! The house keeps its own rules: rooms import only rooms below them, and checked-in schemas are what the types say.

use std::path::{Path, PathBuf};

use crate::support::{genomill, root};

/// From the top of the house to the ground.
const ROOMS: [&str; 20] = [
    "cli",
    "cluster",
    "workflow",
    "stage",
    "report",
    "evaluate",
    "train",
    "model",
    "task",
    "metric",
    "loader",
    "shard",
    "tokenizer",
    "source",
    "sequence",
    "remote",
    "artifact",
    "observer",
    "units",
    "fs",
];

/// Rooms that may name tensors.
const WITH_TENSORS: [&str; 4] = ["evaluate", "train", "model", "cli"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The room of a file, and its text without tests.
fn rooms() -> Vec<(usize, PathBuf, String)> {
    let mut files = Vec::new();
    sources(&root().join("pipeline"), &mut files);
    let room = |path: PathBuf| {
        let relative = path.strip_prefix(root().join("pipeline")).unwrap();
        let name = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod").next().unwrap().to_owned();
        ROOMS.iter().position(|room| *room == name).map(|room| (room, path, text))
    };
    files.into_iter().filter_map(room).collect()
}

#[test]
fn rooms_import_only_rooms_below_them() {
    let mut wrong = Vec::new();
    for (room, path, text) in rooms() {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let imported = line.split("crate::").skip(1).flat_map(|rest| {
                let names = rest.strip_prefix('{').unwrap_or(rest);
                let several = rest.starts_with('{');
                let names: Vec<&str> = if several { names.split(',').collect() } else { vec![names] };
                names.into_iter().map(|name| {
                    name.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned()
                })
            });
            for name in imported {
                if ROOMS.iter().position(|other| *other == name).is_some_and(|other| other < room) {
                    wrong.push(format!("{}: {} imports {name}", path.display(), ROOMS[room]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tensors_stay_in_their_rooms() {
    for (room, path, text) in rooms() {
        let names_tch = text.lines().any(|line| {
            let line = line.trim_start();
            line.starts_with("use tch")
                || [" tch::", "(tch::", "<tch::", "&tch::"].iter().any(|word| line.contains(word))
        });
        assert!(!names_tch || WITH_TENSORS.contains(&ROOMS[room]), "{} names tch", path.display());
    }
}

#[test]
fn the_library_does_not_print() {
    for (room, path, text) in rooms() {
        let prints = text.lines().any(|line| {
            ["println!", "eprintln!", "dbg!", "process::exit"].iter().any(|word| line.contains(word))
        });
        assert!(!prints || ROOMS[room] == "cli", "{} prints", path.display());
    }
}

#[test]
fn every_example_tells_editors_of_the_schema() {
    let mut examples = 0;
    for path in std::fs::read_dir(root().join("workflows")).unwrap().map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let of = if path.to_string_lossy().ends_with("tasks.yaml") { "tasks" } else { "workflow" };
            let line = format!("# yaml-language-server: $schema=../schemas/{of}.schema.json");
            assert_eq!(text.lines().next(), Some(line.as_str()), "{}", path.display());
            examples += 1;
        }
    }
    assert!(examples >= 3, "there are {examples} examples");
    assert!(root().join("workflows").join("../schemas/workflow.schema.json").exists());
}

#[test]
fn schemas_are_what_the_types_say() {
    for of in ["workflow", "manifest", "shard", "tasks", "profile"] {
        let output = genomill().args(["schema", of]).output().unwrap();
        let path = root().join(format!("schemas/{of}.schema.json"));
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(
            kept == String::from_utf8(output.stdout).unwrap(),
            "{} is old: run `make schemas`",
            path.display()
        );
    }
}

#[test]
fn the_tests_that_the_documents_name_are_there() {
    let text = std::fs::read_to_string(root().join("workflows/engines.md")).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let names: Vec<(&str, &str)> = quoted.filter_map(|quoted| quoted.split_once("::")).collect();
    assert!(names.len() > 8, "{names:?}");
    for (file, test) in names {
        let tests = std::fs::read_to_string(root().join(format!("tests/behaviour/{file}.rs"))).unwrap();
        assert!(tests.contains(&format!("#[test]\nfn {test}()")), "{file}::{test}");
    }
}
