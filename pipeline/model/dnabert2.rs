//! DNABERT-2: `MosaicBERT` on DNA. An encoder whose attention prefers what is near (`ALiBi`, no positions), with a gated
//! feed-forward branch and a norm after each branch; a head for masked tokens, and one for classes.
//!
//! What it computes without dropout; it is not trained here yet.

mod config;
mod layout;
#[cfg(feature = "train")]
mod network;

pub use config::{Config, Preset, read_config};
pub use layout::Heads;
#[cfg(feature = "train")]
pub use network::{Dnabert2, Input};
