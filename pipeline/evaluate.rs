//! Evaluation: how well a checkpoint predicts bases that it never saw.

#[cfg(feature = "train")]
mod bits_per_base;
#[cfg(feature = "train")]
pub mod cnn;
mod config;
#[cfg(feature = "train")]
pub mod per_base;
#[cfg(feature = "train")]
pub use bits_per_base::{Error, bits_per_base, masks_documents};
pub use config::{Config, Score};
