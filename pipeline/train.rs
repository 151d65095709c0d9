//! Training: its configuration, which needs no libtorch, and the trainer, which does.
//!
//! A run's folder holds `history.jsonl`, one [`Record`] a line, the same for `TensorBoard`, and `checkpoints/step-<n>/`, whole
//! or not there.

#[cfg(feature = "train")]
mod adamw;
#[cfg(feature = "train")]
mod begin;
#[cfg(feature = "train")]
pub mod checkpoint;
pub mod config;
#[cfg(feature = "train")]
mod course;
pub mod duration;
#[cfg(feature = "train")]
mod error;
#[cfg(feature = "train")]
pub mod events;
#[cfg(feature = "train")]
pub mod export;
#[cfg(feature = "train")]
#[cfg(test)]
mod golden;
#[cfg(feature = "train")]
mod gradients;
mod history;
#[cfg(feature = "train")]
mod party;
#[cfg(feature = "train")]
mod prediction;
#[cfg(feature = "train")]
mod ranks;
#[cfg(feature = "train")]
mod run;
mod schedule;
#[cfg(feature = "train")]
pub mod trace;

pub use config::{Config, ContextWarmup, Initialize, Precision, Resolved};
pub use duration::Duration;
#[cfg(feature = "train")]
pub use error::Error;
pub use history::{Record, read_history};
#[cfg(feature = "train")]
pub use run::{Data, Hooks, Summary, run, run_shared};
pub use schedule::{Decay, Schedule};
