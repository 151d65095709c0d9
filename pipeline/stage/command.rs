//! Runs a program of the user's as a stage: it reads artifacts and declared files, and makes declared outputs.
//!
//! The program runs in the folder of the workflow file, in a process group of its own. What it prints goes to log files of
//! the artifact. Memory: its own, and the last lines of a log.

mod line;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::line::{Line, Values};
pub use self::process::Error;
pub(super) use self::process::{LOGS, Process};
use super::origin::is_within;
use super::{Outcome, Stage, Task, problem, to_json};
use crate::artifact::MANIFEST;
use crate::{fs, stage};

/// What to run, what it reads, and what it makes. In the words of `command` and in `run`, `{out}` stands for the folder to
/// write into, `{input.ROLE}` for the folder of an input, `{file.NAME}` for the path of a file, and `{threads}` for the number
/// of worker threads; other braces are left as they are.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The program and its arguments, each as it is: no shell reads them. A program with a `/` in its name is looked for
    /// from the folder of the workflow file. This or `run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    command: Option<Vec<String>>,
    /// Lines for `sh -e`, which stops at the first that fails. Paths are quoted where they need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    /// The stages that it reads, by role. Their folders are also in the variables `GENOMILL_INPUT_<ROLE>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z][A-Za-z0-9_]*$"}))]
    inputs: BTreeMap<String, String>,
    /// The files from outside that it reads, by name: scripts, tables, genomes, here or at an address that ends with
    /// `#sha256=...`. When the content of one changes, the stage runs again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z][A-Za-z0-9_]*$"}))]
    files: BTreeMap<String, PathBuf>,
    /// The files that it makes in `{out}`, which is also in the variable `GENOMILL_OUT`. What is not listed is not kept.
    #[schemars(length(min = 1))]
    outputs: Vec<String>,
}

impl Config {
    fn lines(&self) -> Vec<Line<'_>> {
        let words = self.command.iter().flatten().map(|word| Line::Word(word));
        words.chain(self.run.iter().map(|run| Line::Shell(run))).collect()
    }

    /// The program and its arguments, with values in place of the placeholders.
    fn arguments(&self, values: &Values) -> Vec<String> {
        let shell = self.run.iter().flat_map(|_| ["sh", "-e", "-c"]).map(str::to_owned);
        shell.chain(self.lines().iter().map(|line| line.filled(values))).collect()
    }

    fn program_problem(&self) -> Option<(&'static str, String)> {
        let reason = |reason: &str| reason.to_owned();
        match (&self.command, &self.run) {
            (None, None) => {
                Some(("outputs", reason("the stage has neither `command` nor `run`, expected one of them")))
            }
            (Some(_), Some(_)) => Some(("run", reason("stands beside `command`, expected one of them"))),
            (Some(words), None) if words.first().is_none_or(String::is_empty) => {
                Some(("command", reason("is empty, expected a program and its arguments")))
            }
            (None, Some(run)) if run.trim().is_empty() => {
                Some(("run", reason("is empty, expected a line for the shell")))
            }
            _ => None,
        }
    }

    fn output_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.outputs.is_empty() {
            problems.push("there is none, expected at least one file".to_owned());
        }
        for (i, output) in self.outputs.iter().enumerate() {
            if !is_within(Path::new(output)) {
                problems.push(format!("expected a path within the folder of outputs, found `{output}`"));
            } else if is_ours(output) {
                problems.push(format!("`{output}` is written by genomill itself; expected another name"));
            } else if self.outputs[..i].contains(output) {
                problems.push(format!("`{output}` stands here twice"));
            }
        }
        problems
    }

    fn values(&self, task: &Task) -> Result<Values, stage::Error> {
        let absolute = |path: &Path| {
            let path = std::path::absolute(path).map_err(fs::error("find", path))?;
            Ok::<_, stage::Error>(path.to_string_lossy().into_owned())
        };
        let mut values =
            Values { out: absolute(task.out)?, threads: task.threads.to_string(), ..Values::default() };
        for role in self.inputs.keys() {
            let folder = &task.input(&role_of(role))?.folder;
            values.inputs.insert(role.clone(), absolute(folder)?);
        }
        for (name, path) in &self.files {
            let path = task.file(path);
            fs::open(&path)?;
            values.files.insert(name.clone(), absolute(&path)?);
        }
        Ok(values)
    }

    /// Removes what is not declared; a declared output that is not there fails.
    fn keep_outputs(&self, task: &Task) -> Result<(), stage::Error> {
        let mut found = Vec::new();
        process::files(task.out, Path::new(""), &mut found)?;
        if let Some(missing) = self.outputs.iter().find(|output| !found.contains(*output)) {
            return Err(Error::NoOutput { output: missing.clone(), found }.into());
        }
        for output in &self.outputs {
            if let Ok(to) = std::fs::read_link(task.out.join(output)) {
                return Err(Error::Link { output: output.clone(), to }.into());
            }
        }
        let kept = |name: &str| LOGS.contains(&name) || self.outputs.iter().any(|output| output == name);
        for name in found.iter().filter(|name| !kept(name)) {
            let path = task.out.join(name);
            std::fs::remove_file(&path).map_err(fs::error("remove", &path))?;
            task.note(format!("`{name}` is not among the `outputs`, and not kept"));
        }
        Ok(())
    }
}

/// Whether genomill writes a file of this name, in whatever folder of the artifact.
fn is_ours(output: &str) -> bool {
    let name = Path::new(output).file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| LOGS.contains(&name)) || output == MANIFEST
}

fn role_of(name: &str) -> String {
    format!("inputs.{name}")
}

/// What is wrong with a word that names an input or a file.
fn name_problem<'n>(names: impl Iterator<Item = &'n String>) -> Option<String> {
    let mut seen: Vec<String> = Vec::new();
    for name in names {
        let mut bytes = name.bytes();
        let letter = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
        if !letter || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Some(format!("expected a name of letters, digits and `_`, found `{name}`"));
        }
        if seen.contains(&name.to_uppercase()) {
            return Some(format!("`{name}` differs from another name only in upper and lower case"));
        }
        seen.push(name.to_uppercase());
    }
    None
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        self.inputs.iter().map(|(role, stage)| (role_of(role), stage.clone())).collect()
    }

    fn files(&self, _base: &Path) -> Result<Vec<stage::File>, stage::Error> {
        Ok(self.files.values().map(|path| stage::File::new(path)).collect())
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems: Vec<(&'static str, String)> = Vec::new();
        problems.extend(self.program_problem());
        problems.extend(name_problem(self.inputs.keys()).map(|reason| ("inputs", reason)));
        problems.extend(name_problem(self.files.keys()).map(|reason| ("files", reason)));
        problems.extend(self.files.values().filter_map(|path| problem(path)).map(|reason| ("files", reason)));
        problems.extend(self.output_problems().into_iter().map(|reason| ("outputs", reason)));
        let key = if self.run.is_some() { "run" } else { "command" };
        let unknown = self.lines().into_iter().filter_map(|line| line.problem(&self.inputs, &self.files));
        problems.extend(unknown.map(|reason| (key, reason)));
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, stage::Error> {
        task.check()?;
        let values = self.values(task)?;
        for output in &self.outputs {
            if let Some(folder) = Path::new(output).parent() {
                fs::create_dir_all(&task.out.join(folder))?;
            }
        }
        let arguments = self.arguments(&values);
        let process = Process {
            arguments: &arguments,
            variables: values.variables(),
            folder: task.base,
            out: task.out,
        };
        process.run(task.stop)?;
        self.keep_outputs(task)?;
        let bytes: u64 = self
            .outputs
            .iter()
            .filter_map(|output| std::fs::metadata(task.out.join(output)).ok())
            .map(|m| m.len())
            .sum();
        let files = self.outputs.len();
        let summary = format!("{files} {}, {bytes} bytes", if files == 1 { "file" } else { "files" });
        Ok(Outcome { summary, volatile: LOGS.to_vec(), ..Outcome::default() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(json: &Value) -> String {
        let config: Config = serde_json::from_value(json.clone()).unwrap();
        config
            .problems()
            .into_iter()
            .map(|(key, problem)| format!("{key}: {problem}"))
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (json, expected) in [
            (json!({"command": ["cp", "{file.a}", "{out}/b"], "files": {"a": "x"}, "outputs": ["b"]}), ""),
            (
                json!({"run": "awk '{print $1}' {input.a}/x > {out}/d/b", "inputs": {"a": "s"}, "outputs": ["d/b"]}),
                "",
            ),
            (
                json!({"outputs": ["b"]}),
                "outputs: the stage has neither `command` nor `run`, expected one of them",
            ),
            (
                json!({"command": ["a"], "run": "b", "outputs": ["b"]}),
                "run: stands beside `command`, expected one of them",
            ),
            (
                json!({"command": [], "outputs": ["b"]}),
                "command: is empty, expected a program and its arguments",
            ),
            (json!({"run": " ", "outputs": ["b"]}), "run: is empty, expected a line for the shell"),
            (json!({"run": "a", "outputs": []}), "outputs: there is none, expected at least one file"),
            (
                json!({"run": "a", "outputs": ["../b"]}),
                "outputs: expected a path within the folder of outputs, found `../b`",
            ),
            (
                json!({"run": "a", "outputs": ["b/"]}),
                "outputs: expected a path within the folder of outputs, found `b/`",
            ),
            (json!({"run": "a", "outputs": ["b", "b"]}), "outputs: `b` stands here twice"),
            (
                json!({"run": "a", "outputs": ["stdout.log"]}),
                "outputs: `stdout.log` is written by genomill itself; expected another name",
            ),
            (
                json!({"run": "a", "outputs": ["b"], "inputs": {"a-b": "s"}}),
                "inputs: expected a name of letters, digits and `_`, found `a-b`",
            ),
            (
                json!({"run": "a", "outputs": ["b"], "files": {"a": "s", "A": "t"}}),
                "files: `a` differs from another name only in upper and lower case",
            ),
            (
                json!({"run": "cat {input.genom}", "outputs": ["b"], "inputs": {"genome": "s"}}),
                "run: `{input.genom}` names no input, expected `{input.genome}`; did you mean `{input.genome}`?",
            ),
            (
                json!({"command": ["cat", "{file.x}"], "outputs": ["b"]}),
                "command: `{file.x}` names no file, expected none",
            ),
        ] {
            assert_eq!(problems(&json), expected, "{json}");
        }
    }
}
