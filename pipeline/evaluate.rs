//! Evaluation: how well a checkpoint predicts bases that it never saw, and how well models do on tasks.
//!
//! A model is an [`encoder`]: bases go in, hidden values come out. [`tasks`] asks it by one of the protocols, with the same
//! [`protocol::Config`] for every model, and writes a [`result::Outcome`]; [`versus`] compares models on the same test set.

#[cfg(feature = "train")]
mod answers;
#[cfg(feature = "train")]
mod bits_per_base;
#[cfg(feature = "train")]
mod cnn;
mod config;
#[cfg(feature = "train")]
pub mod encoder;
#[cfg(feature = "train")]
mod learner;
#[cfg(feature = "train")]
mod logistic;
#[cfg(feature = "train")]
mod optimizer;
#[cfg(feature = "train")]
pub mod per_base;
pub mod predictions;
#[cfg(feature = "train")]
mod probe;
pub mod protocol;
pub mod result;
#[cfg(feature = "train")]
pub mod tasks;
pub mod versus;
#[cfg(feature = "train")]
mod zero_shot;
#[cfg(feature = "train")]
pub use bits_per_base::{Error, bits_per_base, masks_documents};
pub use config::{Config, Score};
