//! DNABERT-2: `MosaicBERT` on DNA. An encoder whose attention prefers what is near (`ALiBi`, no positions), with a gated
//! feed-forward branch and a norm after each branch; a head for masked tokens, and one for classes.
//!
//! What it computes and trains is without dropout (the published pretraining has 0.1).

#[cfg(feature = "train")]
mod check;
mod config;
#[cfg(feature = "train")]
#[cfg(test)]
mod golden;
#[cfg(feature = "train")]
pub mod import;
mod layout;
#[cfg(feature = "train")]
mod network;

#[cfg(feature = "train")]
pub(super) use check::check;
pub use config::{Config, Preset, is_dnabert2, read_config};
pub use layout::Heads;
#[cfg(feature = "train")]
pub use network::{Dnabert2, Input};
