//! HyenaDNA as published: a causal model of single bases, whose layers convolve with filters as long as the input.
//!
//! Weights carry the published names. Hidden states, scores and their gradients are those of the published class in
//! evaluation mode. Training applies no dropout (the published pretraining has 0.1 on the embedding); filters never decay,
//! as published.

#[cfg(feature = "train")]
pub mod check;
pub mod config;
#[cfg(test)]
#[cfg(feature = "train")]
mod golden;
#[cfg(feature = "train")]
pub mod import;
pub mod layout;
#[cfg(feature = "train")]
pub mod network;
#[cfg(feature = "train")]
pub mod weights;

#[cfg(feature = "train")]
pub use super::weights::Error;
pub use config::{Config, Preset};
#[cfg(feature = "train")]
pub use network::Hyena;
