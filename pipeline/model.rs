//! Models: their configuration and layout, which need no libtorch, and their tensors, which do.

#[cfg(feature = "train")]
pub mod backward;
#[cfg(feature = "train")]
pub mod check;
pub mod config;
pub mod cost;
pub mod dnabert2;
#[cfg(feature = "train")]
pub mod generate;
pub mod hf;
pub mod hyena;
pub mod layout;
#[cfg(feature = "train")]
pub mod likelihood;
#[cfg(feature = "train")]
pub mod olmo;
#[cfg(feature = "train")]
pub mod published;
#[cfg(feature = "train")]
mod rotary;
#[cfg(feature = "train")]
pub mod weights;
#[cfg(feature = "train")]
pub mod workers;

pub use config::{Config, Family, Overrides, Preset};
#[cfg(feature = "train")]
pub use likelihood::Likelihood;
