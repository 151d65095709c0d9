//! A workflow on many machines: as jobs of Slurm, which outlive this process, or as a Snakefile.
//!
//! `jobs` decides which jobs there are and what each waits for, `script` writes what a job runs, `slurm` calls Slurm's
//! programs, `submission` keeps what was sent so that nothing is sent twice, `state` tells what became of it from the files
//! that jobs leave and from `squeue`, `profile` is what a site wants, and `snakefile` writes the same jobs as rules.
//!
//! What is done and what is missing is never asked of the scheduler: a stage is done when its artifact is there, a partition when its
//! folder is, and both are written, synced and renamed. Times are minutes or seconds as named, memory is bytes. Memory: the
//! jobs, some hundred bytes for each element of an array.

pub mod jobs;
pub mod profile;
mod script;
pub mod slurm;
pub mod snakefile;
pub mod state;
pub mod submission;

use std::path::{Path, PathBuf};

use crate::{fs, workflow};

/// The folder, beside the artifacts, that holds what is known of jobs: `submission.json`, scripts, logs, and the token by which a
/// node tells that it sees the folder.
pub const FOLDER: &str = ".cluster";

/// Why something about jobs failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The profile cannot be read.
    #[error("cannot read the profile `{}`: {problem}", file.display())]
    Profile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Slurm is not installed here.
    #[error(
        "there is no `{program}` here: is this a machine of the cluster, with Slurm's programs on the PATH?"
    )]
    NoSlurm {
        /// What was called.
        program: &'static str,
    },
    /// A program of Slurm failed.
    #[error("`{program}` failed: {said}")]
    Slurm {
        /// What was called.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// A program of Slurm said something else than it does.
    #[error("`{program}` said `{said}`, expected {expected}")]
    Unclear {
        /// What was called.
        program: &'static str,
        /// What it said.
        said: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The cluster has no such partition.
    #[error("the cluster has no partition `{found}`; it has {}", known.join(", "))]
    NoPartition {
        /// The partition that the profile names.
        found: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A job was refused.
    #[error(
        "the queue did not take `{job}`: {said}\n{}{}",
        if *sent == 0 {
            "nothing was submitted".to_owned()
        } else {
            format!(
                "{sent} of {of} jobs are in the queue, held back, so that nothing runs: `genomill submit` goes on with the others and sends none twice, \
                 `genomill cancel` takes these away"
            )
        },
        if is_full(said) { FULL } else { "" }
    )]
    Refused {
        /// The job.
        job: String,
        /// What the queue said.
        said: String,
        /// Jobs that are in the queue.
        sent: usize,
        /// Jobs in all.
        of: usize,
    },
    /// Jobs of an earlier submission are still in the queue.
    #[error(
        "`{}` has {alive} jobs or elements in the queue: see `genomill status`; `genomill resubmit` sends what has failed, `genomill cancel` ends them",
        work.display()
    )]
    Queued {
        /// The work folder.
        work: PathBuf,
        /// Jobs and elements of arrays.
        alive: usize,
    },
    /// Nothing was submitted from this work folder.
    #[error("nothing was submitted from `{}`", work.display())]
    NotSubmitted {
        /// The work folder.
        work: PathBuf,
    },
    /// A path that no script can hold.
    #[error("`{}` holds a quote, a `%` or a line break, which the options of a job cannot hold", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The workflow failed to open or to plan.
    #[error(transparent)]
    Workflow(#[from] workflow::Error),
    /// A file call failed.
    #[error(transparent)]
    Fs(#[from] fs::Error),
}

/// What to do about a full queue.
const FULL: &str = "\nwhere the queue takes too few jobs of one user at a time, `elements` in the profile makes arrays smaller, and `--until` sends the jobs of \
                    fewer stages";

/// Whether a queue says that it has too many jobs already.
fn is_full(said: &str) -> bool {
    let said = said.to_lowercase();
    ["queue full", "queue is full", "temporarily unable to accept", "limit"]
        .iter()
        .any(|words| said.contains(words))
}

/// The folder of the logs of a stage's jobs.
pub fn logs(work: &Path, stage: &str) -> PathBuf {
    work.join(FOLDER).join("logs").join(stage)
}
