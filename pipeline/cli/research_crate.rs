//! `genomill export-crate`: a run as the metadata of an RO-Crate.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Error, environment, say};
use crate::artifact::MANIFEST;
use crate::fs;
use crate::workflow::Workflow;
use crate::workflow::research_crate::{About, METADATA, metadata};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder of a workflow's artifacts, such as work/yeast
    folder: PathBuf,
    /// A folder for ro-crate-metadata.json, the workflow file and those that it includes, or a name for the former that ends in .json; by default the
    /// work folder, which then is a whole crate
    #[arg(short, long, value_name = "DIR_OR_FILE")]
    output: Option<PathBuf>,
    /// The workflow file; by default what the last run's log kept of it
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// The licence under which the crate is published: an address, such as <https://spdx.org/licenses/CC-BY-4.0>, or a text
    #[arg(long, value_name = "LICENCE")]
    license: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let about = About { license: arguments.license.clone(), ..about(arguments)? };
    let metadata = metadata(&arguments.folder, &about)?;
    tell_missing(&arguments.folder, &about);
    let output = arguments.output.as_deref().unwrap_or(&arguments.folder);
    let file = if output.extension().is_some_and(|extension| extension == "json") {
        output.to_owned()
    } else {
        output.join(METADATA)
    };
    let folder = fs::folder_of(&file);
    fs::create_dir_all(folder)?;
    let included = about.included.iter().map(|(name, text)| (name, text));
    for (name, text) in [(&about.file, &about.text)].into_iter().chain(included) {
        let path = folder.join(name);
        if path.exists() && fs::read(&path)? != text.as_bytes() && arguments.output.is_some() {
            let reason = "it exists already, with other content";
            return Err(Error::Other(format!("cannot write `{}`: {reason}", path.display())));
        }
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write_atomic(&path, text.as_bytes())?;
    }
    fs::write_atomic(&file, format!("{metadata:#}\n").as_bytes())?;
    if !is_same(folder, &arguments.folder) {
        say(&format!("the paths in it start from {}", arguments.folder.display()));
    }
    Ok(writeln!(io::stdout(), "{}", file.display())?)
}

/// The workflow that is asked for, or that of the last run.
fn about(arguments: &Arguments) -> Result<About, Error> {
    if let Some(path) = &arguments.workflow {
        let workflow = Workflow::open(path, &[], &environment)?;
        return Ok(About::new(&workflow, fs::read_to_string(path)?));
    }
    let missing = || {
        let folder = arguments.folder.display();
        Error::Other(format!(
            "no log of a run in `{folder}` keeps its workflow; give it with --workflow FILE"
        ))
    };
    About::last_run(&arguments.folder).ok_or_else(missing)
}

/// Says which stages have no artifact.
fn tell_missing(folder: &Path, about: &About) {
    let missing = about.stages.iter().filter(|stage| !folder.join(stage).join(MANIFEST).is_file());
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if !missing.is_empty() {
        say(&format!("not made, and no part of the crate: {}", missing.join(", ")));
    }
}

fn is_same(a: &Path, b: &Path) -> bool {
    match (std::fs::canonicalize(a), std::fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
