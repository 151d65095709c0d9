//! The one test binary: behaviour seen from outside, through the command line and the files.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[path = "behaviour/support.rs"]
mod support;

#[path = "behaviour/around.rs"]
mod around;
#[path = "behaviour/cleaning.rs"]
mod cleaning;
#[path = "behaviour/command.rs"]
mod command;
#[path = "behaviour/command_line.rs"]
mod command_line;
#[path = "behaviour/crash.rs"]
mod crash;
#[cfg(feature = "remote")]
#[path = "behaviour/depot.rs"]
mod depot;
#[path = "behaviour/disk.rs"]
mod disk;
#[cfg(feature = "train")]
#[path = "behaviour/distributed.rs"]
mod distributed;
#[path = "behaviour/engine.rs"]
mod engine;
#[cfg(feature = "train")]
#[path = "behaviour/evaluate.rs"]
mod evaluate;
#[path = "behaviour/formats.rs"]
mod formats;
#[path = "behaviour/house.rs"]
mod house;
#[path = "behaviour/inputs.rs"]
mod inputs;
#[path = "behaviour/language.rs"]
mod language;
#[path = "behaviour/matrix.rs"]
mod matrix;
#[cfg(feature = "train")]
#[path = "behaviour/models.rs"]
mod models;
#[cfg(feature = "remote")]
#[path = "behaviour/remote.rs"]
mod remote;
#[path = "behaviour/report.rs"]
mod report;
#[path = "behaviour/rerun.rs"]
mod rerun;
#[cfg(feature = "remote")]
#[path = "behaviour/server.rs"]
mod server;
#[path = "behaviour/shards.rs"]
mod shards;
#[path = "behaviour/slurm.rs"]
mod slurm;
#[path = "behaviour/statistics.rs"]
mod statistics;
#[path = "behaviour/task.rs"]
mod task;
#[path = "behaviour/windows.rs"]
mod windows;
#[path = "behaviour/workflow_file.rs"]
mod workflow_file;
