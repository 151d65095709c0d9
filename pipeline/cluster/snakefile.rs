//! The jobs of a workflow as rules of Snakemake, whose executors know Kubernetes, LSF, SGE and the clouds. What a rule did is
//! told by an empty file in the work folder; what is whole and unchanged `run-task` leaves as it is, whatever dates Snakemake
//! goes by. Memory: the file.

use std::fmt::Write;
use std::path::PathBuf;

use super::FOLDER;
use super::jobs::{Job, What};
use super::script::{Common, quoted};
use crate::workflow::Workflow;
use crate::workflow::plan::paths_read;

/// The rules of jobs, which are all of those of a workflow.
pub(super) fn write(common: &Common, workflow: &Workflow, jobs: &[Job]) -> String {
    let mut text = format!("# Written by `genomill plan --format snakemake`: {} as rules.\n", workflow.name);
    let names = workflow.stages.iter().map(|entry| entry.name.as_str());
    add(
        &mut text,
        format_args!("\nrule all:\n    input: {}\n", list(names.map(|name| done(common, name, None)))),
    );
    let mut number = 0;
    for job in jobs.iter().filter(|job| job.what != What::Check) {
        for stage in &job.stages {
            number += 1;
            let array = jobs.iter().find(|other| other.what == What::Partitions && other.stages[0] == *stage);
            add(&mut text, format_args!("\n{}", rule(common, workflow, (number, job, stage), array)));
        }
    }
    text
}

fn rule(
    common: &Common,
    workflow: &Workflow,
    (number, job, stage): (usize, &Job, &str),
    array: Option<&Job>,
) -> String {
    let is_part = job.what == What::Partitions;
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    let part = if is_part { "_partitions" } else { "" };
    let title: String = stage.chars().map(plain).chain(part.chars()).collect();
    let mut text = format!("rule r{number}_{title}:\n");
    let entry = workflow.stages.iter().find(|entry| entry.name == stage);
    let reads =
        entry.into_iter().flat_map(|entry| entry.stage.inputs()).map(|(_, input)| done(common, &input, None));
    let files = entry.and_then(paths_read).unwrap_or_default();
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let files = files
        .iter()
        .chain([&common.file.to_owned()])
        .map(|path| python(&doubled(&absolute(path).to_string_lossy())))
        .collect::<Vec<_>>();
    let mut inputs: Vec<String> = reads.chain(files).collect();
    if let Some(array) = array.filter(|_| !is_part) {
        inputs.extend(
            array.elements().iter().map(|at| done(common, stage, Some((&at.to_string(), array.width)))),
        );
    }
    add(&mut text, format_args!("    input: {}\n", list(inputs)));
    let output = done(common, stage, is_part.then_some(("{share}", job.width)));
    add(&mut text, format_args!("    output: touch({output})\n"));
    if is_part {
        add(&mut text, format_args!("    wildcard_constraints: share=\"[0-9]+\"\n"));
    }
    add(&mut text, format_args!("    threads: {}\n", job.asked.threads));
    let resources = [
        job.asked.memory.map(|bytes| format!("mem_mb={}", bytes.div_ceil(1_000_000))),
        job.asked.time.map(|time| format!("runtime={}", time.as_secs().div_ceil(60))),
        (job.asked.gpus > 0).then(|| format!("gpus={}", job.asked.gpus)),
    ];
    let resources: Vec<String> = resources.into_iter().flatten().collect();
    if !resources.is_empty() {
        add(&mut text, format_args!("    resources: {}\n", resources.join(", ")));
    }
    let program =
        common.profile.genomill.clone().unwrap_or_else(|| common.genomill.to_string_lossy().into_owned());
    // No path holds the zero byte.
    let run = doubled(&format!("{} {}", quoted(&program), common.run_task(job, &quoted(stage), "\0")));
    let run = run.replace('\0', &format!("{{wildcards.share}}/{}", job.width));
    add(&mut text, format_args!("    shell: {}\n", python(&run)));
    text
}

/// The file that tells that a stage, or a share of its partitions, is done; as a text of Python, where `{share}` is a
/// wildcard.
fn done(common: &Common, stage: &str, share: Option<(&str, u32)>) -> String {
    let folder = common.work.join(FOLDER).join("done");
    let folder = doubled(&folder.to_string_lossy());
    python(&match share {
        Some((share, width)) => format!("{folder}/{stage}~{share}-of-{width}"),
        None => format!("{folder}/{stage}"),
    })
}

/// With braces that Snakemake takes as they are.
fn doubled(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// A text of Python.
fn python(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(", ")
}

fn add(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    text.write_fmt(what).unwrap_or_default();
}
