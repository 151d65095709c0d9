//! `genomill gc`: takes away what no workflow needs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::{Error, environment};
use crate::report::count;
use crate::workflow::{Override, Workflow, garbage};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The workflow files; those of one name share a work folder, and what any of them needs stays
    #[arg(required = true)]
    file: Vec<PathBuf>,
    /// Put VALUE in place of what the files say, as for `genomill run`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    set: Vec<Override>,
    /// The folder in which each workflow has its folder of artifacts
    #[arg(long, value_name = "DIR", default_value = "work", value_parser = super::work::folder)]
    work: PathBuf,
    /// Remove nothing, only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let open = |file: &PathBuf| Workflow::open(file, &arguments.set, &environment);
    let workflows: Vec<Workflow> = arguments.file.iter().map(open).collect::<Result<_, _>>()?;
    let mut by_name: BTreeMap<&str, Vec<&Workflow>> = BTreeMap::new();
    for workflow in &workflows {
        by_name.entry(&workflow.name).or_default().push(workflow);
    }
    let mut out = io::stdout().lock();
    let mut total = 0;
    for (name, workflows) in by_name {
        for garbage in garbage::collect(&workflows, &arguments.work.join(name), arguments.dry_run)? {
            total += garbage.bytes;
            let (path, bytes) = (garbage.path.display(), count(garbage.bytes));
            writeln!(out, "{bytes:>15} bytes  {path}: {}", garbage.reason)?;
        }
    }
    let done = if arguments.dry_run { "would be removed" } else { "removed" };
    Ok(writeln!(out, "{:>15} bytes {done}", count(total))?)
}
