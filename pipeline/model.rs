//! Models: their configuration and layout, which need no libtorch, and their tensors, which do.

#[cfg(feature = "train")]
pub mod backward;
#[cfg(feature = "train")]
pub mod check;
pub mod config;
pub mod cost;
pub mod device;
pub mod dnabert2;
#[cfg(feature = "train")]
pub mod fused;
#[cfg(feature = "train")]
pub mod generate;
#[cfg(feature = "train")]
pub mod gpu;
pub mod hf;
pub mod hyena;
#[cfg(feature = "train")]
pub mod import;
pub mod layout;
#[cfg(feature = "train")]
pub mod likelihood;
#[cfg(feature = "train")]
mod loss;
#[cfg(feature = "train")]
pub mod network;
#[cfg(feature = "train")]
pub mod olmo;
pub mod published;
#[cfg(feature = "train")]
mod rotary;
pub mod shape;
#[cfg(feature = "train")]
pub mod weights;
#[cfg(feature = "train")]
pub mod workers;

pub use config::{Config, Family, Overrides, Preset};
#[cfg(feature = "train")]
pub use likelihood::Likelihood;
#[cfg(feature = "train")]
pub use network::Network;
pub use shape::{Named, Shape};
