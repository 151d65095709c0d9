//! Looks at benchmark tasks before models do: what test sets share with training sets, and what scores without a model of DNA reach.
//! Memory: one task at a time, as `task::audit` says.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Error, File, Outcome, Stage, Task, to_json};
use crate::artifact::Counts;
use crate::report::Audited;
use crate::task::audit::{Options, audit};
use crate::{fs, task, units};

/// The audits within the artifact, as `genomill task audit --json` prints them.
pub const AUDITS: &str = "audits.json";

/// What to look at.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A YAML file of tasks, or a folder of Genomic Benchmarks or GUE.
    tasks: PathBuf,
    /// Memory for the k-mers of a training set, such as `1GB`; above it a sample of them is looked at. Default 1GB.
    #[serde(default = "default_memory", deserialize_with = "units::bytes")]
    #[schemars(with = "Option<String>")]
    memory: Option<u64>,
    /// Order in which the 4-mer baseline sees examples.
    #[serde(default)]
    seed: u64,
}

#[expect(clippy::unnecessary_wraps, reason = "what serde asks for")]
const fn default_memory() -> Option<u64> {
    Some(1 << 30)
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn files(&self, base: &Path) -> Result<Vec<File>, Error> {
        let paths = files_of(&self.tasks, base)?;
        Ok(paths.iter().map(|path| File::new(path)).collect())
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let (file, base) = task::find(&task.base.join(&self.tasks)).map_err(|error| wrong(&error))?;
        let options = Options { memory: self.memory.unwrap_or(u64::MAX), seed: self.seed };
        let (mut audits, mut examples) = (Vec::new(), 0);
        for (name, of) in &file.tasks {
            task.check()?;
            let dataset = of.read(name, &base).map_err(|error| wrong(&error))?;
            let (found, _) = audit(&dataset, &options);
            examples += found.parts.iter().map(|part| part.examples).sum::<u64>();
            audits.push(found);
        }
        fs::write_json(&task.out.join(AUDITS), serde_json::to_vec_pretty(&audits))?;
        let findings: usize = audits.iter().map(|audit| audit.findings.len()).sum();
        let mut counts = Counts::default();
        counts.other.insert("tasks".to_owned(), audits.len() as u64);
        counts.other.insert("examples".to_owned(), examples);
        Ok(Outcome {
            counts,
            details: json!({ "audits": audits.iter().map(Audited::from).collect::<Vec<_>>() }),
            summary: format!("{} tasks, {findings} findings", audits.len()),
            ..Outcome::default()
        })
    }
}

/// What is wrong with a file of tasks, with all causes.
pub(super) fn wrong(error: &task::Error) -> Error {
    Error::Config { key: "tasks", reason: units::with_causes(error) }
}

/// The files of the tasks at a path, those below `base` from there.
pub(super) fn files_of(tasks: &Path, base: &Path) -> Result<Vec<PathBuf>, Error> {
    let (file, start) = task::find(&base.join(tasks)).map_err(|error| wrong(&error))?;
    let mut paths: Vec<PathBuf> =
        if base.join(tasks).is_file() { vec![tasks.to_owned()] } else { Vec::new() };
    for task in file.tasks.values() {
        let found = task.files(&start).map_err(|error| wrong(&error))?.into_iter();
        paths.extend(found.map(|path| path.strip_prefix(base).map(Path::to_owned).unwrap_or(path)));
    }
    Ok(paths)
}
