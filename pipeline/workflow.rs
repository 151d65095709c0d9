//! Workflows: from the YAML that a person writes to published artifacts.
//!
//! `yaml` keeps the place of every value, `config` (with `mistake` and `matrix`) turns the document into typed stages, one for
//! each combination of a sweep, and collects every error,
//! `plan` decides what runs and why, `execute` runs it in the order of `schedule`, and `retry` runs it again. `journal` keeps
//! what happened, `shelf` knows where artifacts are, `status`, `lineage`, `comparison`, `research_crate` and `graph` tell it, `garbage` takes away what is no longer needed.
//! Memory: a workflow file and the manifests of its artifacts.

pub mod comparison;
pub mod config;
pub mod execute;
pub mod garbage;
pub mod graph;
pub mod journal;
pub mod lineage;
pub mod lock;
pub mod matrix;
pub mod mistake;
pub mod plan;
pub mod research_crate;
mod retry;
mod schedule;
pub mod schema;
pub mod shelf;
pub mod starter;
pub mod status;
mod yaml;

use std::path::PathBuf;

pub use config::{Override, Workflow};
pub use execute::{Options, Tasks, execute, run_along, run_stage, run_task};
pub use plan::{Decision, Plan, Selection};
pub use shelf::{Shared, Shelf};

use crate::units::with_causes;
use crate::{artifact, fs, remote, stage};

/// Why a workflow could not be read, planned or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not describe a workflow.
    #[error(transparent)]
    Invalid(#[from] Box<mistake::Invalid>),
    /// An option names a stage that is not there.
    #[error("no stage `{found}` in `{}`{}", path.display(), hint.as_ref().map_or_else(String::new, |h| format!("; did you mean `{h}`?")))]
    UnknownStage {
        /// The name given.
        found: String,
        /// The workflow.
        path: PathBuf,
        /// The most similar name.
        hint: Option<String>,
    },
    /// A name stands for several stages where one is meant.
    #[error("`{stage}` is {} stages here, expected one of them: {}", names.len(), names.join(", "))]
    SeveralStages {
        /// The name given.
        stage: String,
        /// The stages.
        names: Vec<String>,
    },
    /// The work of a stage does not fall into partitions.
    #[error(
        "stage `{stage}` is a `{kind}`, whose work is not done in partitions; `genomill run --only {stage}` runs it whole"
    )]
    NotPartitioned {
        /// Its name.
        stage: String,
        /// Its kind.
        kind: &'static str,
    },
    /// An option names a tag that no stage has.
    #[error("no stage has the tag `{found}` in `{}`{}", path.display(), hint.as_ref().map_or_else(String::new, |h| format!("; did you mean `tag:{h}`?")))]
    UnknownTag {
        /// The tag given.
        found: String,
        /// The workflow.
        path: PathBuf,
        /// The most similar tag.
        hint: Option<String>,
    },
    /// An option names a stage that the workflow leaves out.
    #[error("stage `{stage}` is left out: {reason}")]
    LeftOut {
        /// Its name.
        stage: String,
        /// Why.
        reason: String,
    },
    /// A stage that is not to run is missing.
    #[error("stage `{stage}` needs `{input}`, which is not there: {reason}")]
    MissingInput {
        /// The stage to run.
        stage: String,
        /// The stage whose artifact it needs.
        input: String,
        /// Why that is not usable.
        reason: String,
    },
    /// Another run holds the work folder.
    #[error("`{}` is in use by {holder}, or by a program that it started", path.display())]
    Locked {
        /// The work folder.
        path: PathBuf,
        /// The process that holds it.
        holder: String,
    },
    /// A stage failed.
    #[error("stage `{stage}` failed")]
    Stage {
        /// Its name.
        stage: String,
        /// Why.
        #[source]
        source: Box<stage::Error>,
    },
    /// A folder is no work folder of a workflow.
    #[error("`{}` holds no artifact, expected the folder of a workflow's artifacts, such as work/yeast", path.display())]
    NoArtifacts {
        /// The folder.
        path: PathBuf,
    },
    /// Several stages failed, or one that others need.
    #[error("{}", failed(failures, held_up))]
    Failed {
        /// Why each of them failed.
        failures: Vec<Error>,
        /// The stages that did not run, since they need one of those.
        held_up: Vec<String>,
    },
    /// Some partitions of a stage that were asked for failed.
    #[error("stage `{stage}`: {} partitions of {of} failed: {}", failures.len(), each(failures))]
    Tasks {
        /// Its name.
        stage: String,
        /// How many were asked for.
        of: usize,
        /// Their numbers, and why.
        failures: Vec<(u32, Error)>,
    },
    /// A file is another than it was when the stage began.
    #[error("stage `{stage}` is not published: `{}` changed while it was read; run again", path.display())]
    Changed {
        /// Its name.
        stage: String,
        /// The file.
        path: PathBuf,
    },
    /// The disk is too full for what a stage will write.
    #[error(
        "stage `{stage}` needs at least {:.1} MB in `{}`, where {:.1} MB are free; nothing was begun",
        *needed as f64 / 1e6,
        path.display(),
        *free as f64 / 1e6
    )]
    NoRoom {
        /// Its name.
        stage: String,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
        /// The work folder.
        path: PathBuf,
    },
    /// An object cannot be brought here.
    #[error("stage `{stage}` cannot have its files")]
    Remote {
        /// Its name.
        stage: String,
        /// Why.
        #[source]
        source: remote::Error,
    },
    /// The work folder at an address cannot be used.
    #[error(transparent)]
    Depot(remote::Error),
    /// Something of a stage cannot be put into the work folder at an address, or brought from there.
    #[error("stage `{stage}` cannot use the work folder at its address")]
    Shared {
        /// Its name.
        stage: String,
        /// Why.
        #[source]
        source: remote::Error,
    },
    /// A stage has nothing to share.
    #[error(
        "stage `{stage}` cannot share a work folder with other machines: {reason}; expected a file or an address"
    )]
    NotShared {
        /// Its name.
        stage: String,
        /// Why it always runs again.
        reason: &'static str,
    },
    /// Two machines made different things of the same ones.
    #[error(
        "stage `{stage}` came out as content {here} here, and as {there} at `{address}`, of the same inputs and settings; what is there stays and will be used, what was made here is removed"
    )]
    TwoContents {
        /// Its name.
        stage: String,
        /// [`artifact::Manifest::content`] of what was made here.
        here: String,
        /// The same of what is at the address.
        there: String,
        /// Where.
        address: String,
    },
    /// Addresses without a pin.
    #[error("stage `{stage}` reads what may change: {}", said(found))]
    Unpinned {
        /// Its name.
        stage: String,
        /// Address and what is there now: sha256 and bytes.
        found: Vec<(String, String, u64)>,
    },
    /// Someone asked to stop.
    #[error(
        "stopped at stage `{stage}`; nothing half-written is left, and the same command goes on from here"
    )]
    Interrupted {
        /// The stage that was running.
        stage: String,
    },
    /// A stage lost bases in silence.
    #[error(
        "stage `{stage}` does not balance: {bases_in} bases in, {bases_out} out and {dropped} dropped, in all or in a part; this is a bug"
    )]
    Unbalanced {
        /// Its name.
        stage: String,
        /// Bases in.
        bases_in: u64,
        /// Bases out.
        bases_out: u64,
        /// Bases dropped for all reasons.
        dropped: u64,
    },
    /// Bases were lost between two stages.
    #[error("stage `{stage}` read {bases_in} bases of `{from}`, which handed on {bases_out}; this is a bug")]
    NotRead {
        /// The stage that read.
        stage: String,
        /// The stage that wrote.
        from: String,
        /// Bases read.
        bases_in: u64,
        /// Bases written.
        bases_out: u64,
    },
    /// An artifact is unusable.
    #[error(transparent)]
    Artifact(#[from] artifact::Error),
    /// A file call failed.
    #[error(transparent)]
    Fs(#[from] fs::Error),
}

/// Each failure with its causes, and what did not run.
fn failed(failures: &[Error], names: &[String]) -> String {
    let failures = failures.iter().map(|failure| with_causes(failure));
    failures.chain(held_up(names)).collect::<Vec<_>>().join("\n")
}

/// That stages did not run for want of what failed, if there are any.
pub fn held_up(names: &[String]) -> Option<String> {
    let quoted = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| format!("not run, for want of what failed: {quoted}; what is done is kept"))
}

impl Error {
    /// Whether the time of a stage was up.
    pub fn is_out_of_time(&self) -> bool {
        matches!(self, Self::Stage { source, .. } if matches!(**source, stage::Error::OutOfTime { .. }))
    }

    /// The stage at which it happened, where there is one.
    pub fn stage(&self) -> Option<&str> {
        match self {
            Self::MissingInput { stage, .. }
            | Self::Stage { stage, .. }
            | Self::Remote { stage, .. }
            | Self::Shared { stage, .. }
            | Self::NotShared { stage, .. }
            | Self::TwoContents { stage, .. }
            | Self::Unpinned { stage, .. }
            | Self::Interrupted { stage }
            | Self::Unbalanced { stage, .. }
            | Self::NotRead { stage, .. }
            | Self::Changed { stage, .. }
            | Self::NoRoom { stage, .. }
            | Self::Tasks { stage, .. } => Some(stage),
            _ => None,
        }
    }
}

/// The number of each partition that failed, and why.
fn each(failures: &[(u32, Error)]) -> String {
    let one = |(at, error): &(u32, Error)| format!("{at}: {}", with_causes(error));
    failures.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What to write beside each address.
fn said(found: &[(String, String, u64)]) -> String {
    let one = |(address, sha256, bytes): &(String, String, u64)| {
        format!(
            "`{address}` has {bytes} bytes now; if they are what you want, write `sha256: {sha256}` beside it"
        )
    };
    found.iter().map(one).collect::<Vec<_>>().join("\n")
}
