//! Training: its configuration, which needs no libtorch, and the trainer, which does.
//!
//! A run's folder holds `history.jsonl`, one [`Record`] a line, the same for `TensorBoard`, and `checkpoints/step-<n>/`, whole
//! or not there.

#[cfg(feature = "train")]
mod adamw;
#[cfg(feature = "train")]
pub mod checkpoint;
pub mod config;
pub mod duration;
#[cfg(feature = "train")]
pub mod events;
#[cfg(feature = "train")]
pub mod export;
#[cfg(feature = "train")]
#[cfg(test)]
mod golden;
mod history;
#[cfg(feature = "train")]
mod prediction;
#[cfg(feature = "train")]
mod run;
mod schedule;

pub use config::{Config, ContextWarmup, Initialize, Resolved};
pub use duration::Duration;
pub use history::{Record, read_history};
#[cfg(feature = "train")]
pub use run::{Data, Error, Hooks, Summary, run};
pub use schedule::{Decay, Schedule};
