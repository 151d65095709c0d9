//! genomill grinds genomes into training shards, and trains and evaluates DNA language models on them.
//!
//! The rooms, from the top of the house to the ground; a room imports only rooms below it
//! (`tests/house.rs` reads the `use crate::` lines):
//!
//! `cli` > `cluster` > `workflow` > `stage` > `report` > `evaluate` > `train` > `model` > `collective` > `task` > `metric` >
//! `loader` > `shard` > `tokenizer` > `source` > `sequence` > `remote` > `artifact` > `observer` > `units`, `fs`.
//!
//! Lengths are counted in bases or in tokens, sizes in bytes; a name says which. Coordinates are 0-based and
//! half-open on the forward strand. The library never prints, never exits and never reads the environment.

pub mod artifact;
pub mod cli;
pub mod cluster;
pub mod collective;
pub mod evaluate;
pub mod fs;
pub mod loader;
pub mod metric;
pub mod model;
pub mod observer;
pub mod remote;
pub mod report;
pub mod sequence;
pub mod shard;
pub mod source;
pub mod stage;
pub mod task;
pub mod tokenizer;
pub mod train;
pub mod units;
pub mod workflow;

/// The name and version that manifests carry.
pub const TOOL: &str = concat!("genomill ", env!("CARGO_PKG_VERSION"));
