//! Slurm's programs: `sbatch`, `squeue`, `scancel`, `scontrol`, `sinfo`. Never `sacct`, which many clusters do not have.
//! Memory: what `squeue` prints.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::Error;

/// Calls a program of Slurm and returns what it printed.
fn call(program: &'static str, arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new(program).args(arguments).output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NoSlurm { program },
        _ => Error::Slurm { program, said: error.to_string() },
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = said.lines().map(|line| {
        let line = line.strip_prefix(program).map_or(line, |line| line.trim_start_matches(": "));
        line.trim_start_matches("error: ")
    });
    let said = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    Err(Error::Slurm { program, said: if said.is_empty() { output.status.to_string() } else { said } })
}

/// The most elements that an array can have: its indices stay below it.
pub fn most_elements() -> Result<u32, Error> {
    let said = call("scontrol", &["show", "config"])?;
    let number = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("MaxArraySize")?.split('=').nth(1)?.trim().parse().ok());
    number.ok_or_else(|| Error::Unclear {
        program: "scontrol",
        said: said.lines().take(1).collect(),
        expected: "`MaxArraySize`",
    })
}

/// Refuses a partition that the cluster does not have.
pub fn check_partition(name: &str) -> Result<(), Error> {
    let said = call("sinfo", &["--noheader", "--all", "--format=%R"])?;
    let mut known: Vec<String> = said.lines().map(|line| line.trim().to_owned()).collect();
    known.sort();
    known.dedup();
    // Slurm takes a list of partitions too.
    match name.split(',').find(|name| !known.iter().any(|known| known == name)) {
        None => Ok(()),
        Some(found) => Err(Error::NoPartition { found: found.to_owned(), known }),
    }
}

/// Sends a script; returns the number of the job.
pub fn submit(script: &Path, dependency: Option<&str>, hold: bool) -> Result<u64, Error> {
    let script = script.to_string_lossy();
    let dependency = dependency.map(|on| format!("--dependency={on}"));
    let mut arguments = vec!["--parsable"];
    arguments.extend(dependency.as_deref());
    arguments.extend(hold.then_some("--hold"));
    arguments.push(&script);
    let said = call("sbatch", &arguments)?;
    let number = said.trim().split(';').next().and_then(|number| number.parse().ok());
    number.ok_or(Error::Unclear { program: "sbatch", said, expected: "the number of a job" })
}

/// Lets a job run that was held back.
pub fn release(job: u64) -> Result<(), Error> {
    call("scontrol", &["release", &job.to_string()]).map(drop)
}

/// Takes jobs and elements out of the queue, as Slurm calls them; those that have ended are let be.
pub fn cancel<'a>(ids: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    let ids: Vec<&str> = ids.into_iter().collect();
    for some in ids.chunks(MOST_ARGUMENTS) {
        call("scancel", &[&["--quiet"], some].concat())?;
    }
    Ok(())
}

/// Ids for one call of a program.
const MOST_ARGUMENTS: usize = 500;

/// A job or an element in the queue, or one that has not long ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// Its state, as Slurm calls it: `PENDING`.
    pub state: String,
    /// Why it waits, as Slurm calls it.
    pub reason: String,
    /// Where it runs or ran.
    pub nodes: String,
    /// The name of the job.
    pub name: String,
}

/// States in which a job has ended.
const ENDED: [&str; 11] = [
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "SPECIAL_EXIT",
    "TIMEOUT",
];

impl Queued {
    /// Whether it runs or will.
    pub fn is_alive(&self) -> bool {
        !ENDED.contains(&self.state.as_str()) && self.reason != "DependencyNeverSatisfied"
    }
}

/// What is in the queue of this user, by what Slurm calls it: `12`, or `12_3` for element 3 of job 12.
pub fn queue() -> Result<BTreeMap<String, Queued>, Error> {
    let said = call("squeue", &["--noheader", "--array", "--me", "--states=all", "--format=%i|%T|%r|%N|%j"])?;
    Ok(said.lines().filter_map(queued).collect())
}

fn queued(line: &str) -> Option<(String, Queued)> {
    let mut fields = line.trim().splitn(5, '|').map(str::to_owned);
    let id = fields.next()?;
    let (state, reason, nodes, name) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some((id, Queued { state, reason, nodes, name }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_queue_are_read() {
        for (line, id, alive) in [
            ("12_3|PENDING|Dependency||1f.2.tokens", "12_3", true),
            ("12_3|PENDING|DependencyNeverSatisfied||a|b", "12_3", false),
            ("7|RUNNING|None|n1|a", "7", true),
            ("7|OUT_OF_MEMORY|OutOfMemory|n1|a", "7", false),
        ] {
            let (found, queued) = queued(line).unwrap();
            assert_eq!((found.as_str(), queued.is_alive()), (id, alive), "{line}");
        }
        assert_eq!(queued("7|RUNNING"), None);
    }
}
