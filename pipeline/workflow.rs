//! Workflows: from the YAML that a person writes to published artifacts.
//!
//! `yaml` keeps the place of every value, `config` (with `mistake` and `matrix`) turns the document into typed stages, one for
//! each combination of a sweep, and collects every error,
//! `plan` decides what runs and why, `execute` runs it, and `retry` runs it again. Memory: a workflow file and the manifests of its artifacts.

pub mod config;
pub mod execute;
pub mod matrix;
pub mod mistake;
pub mod plan;
mod retry;
pub mod schema;
mod yaml;

use std::path::PathBuf;

pub use config::{Override, Workflow};
pub use execute::{Options, execute};
pub use plan::{Decision, Plan, Selection};

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
    /// An object cannot be brought here.
    #[error("stage `{stage}` cannot have its files")]
    Remote {
        /// Its name.
        stage: String,
        /// Why.
        #[source]
        source: remote::Error,
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

/// What to write beside each address.
fn said(found: &[(String, String, u64)]) -> String {
    let one = |(address, sha256, bytes): &(String, String, u64)| {
        format!(
            "`{address}` has {bytes} bytes now; if they are what you want, write `sha256: {sha256}` beside it"
        )
    };
    found.iter().map(one).collect::<Vec<_>>().join("\n")
}
