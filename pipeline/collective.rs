//! Several processes that work as one: how they find each other, and sums and copies of tensors among them, by
//! torch.distributed's own c10d; and what tells that a gradient is ready to be summed.
//!
//! A process is a rank, from 0; rank 0 leads. A [`Place`] says which rank this is and where they meet; a [`Group`] is the
//! ranks that met. Operations are called by all ranks in the same order. Memory: c10d's, and what an operation is given.

#[cfg(feature = "train")]
mod c10d;
#[cfg(feature = "train")]
mod group;
#[cfg(feature = "train")]
pub mod hooks;
pub mod place;
#[cfg(feature = "train")]
mod store;
#[cfg(feature = "train")]
mod watch;

#[cfg(feature = "train")]
pub(crate) use c10d::call;
#[cfg(feature = "train")]
pub use group::{Group, Work};
pub use place::{Meeting, Place};

use std::time::Duration;

/// What rank 0 announces when the others are to begin with their work.
pub const START: &str = "start";

/// Without the trainer there is no group.
#[cfg(not(feature = "train"))]
#[derive(Debug)]
pub enum Group {}

/// Why ranks did not meet, or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A port that something else listens on.
    #[error(
        "rank 0 cannot listen at {address}: the port is in use; choose another MASTER_PORT, or end what uses it"
    )]
    PortInUse {
        /// Host and port.
        address: String,
    },
    /// Ranks that did not come.
    #[error(
        "rank {rank} waited {waited:?} at {address} for {}, in vain: are all {ranks} ranks started, and can this \
         machine reach that address? {why}",
        place::list(missing)
    )]
    Rendezvous {
        /// This rank.
        rank: usize,
        /// How many there should be.
        ranks: usize,
        /// Where they were to meet.
        address: String,
        /// How long it waited.
        waited: Duration,
        /// Who did not come.
        missing: Vec<usize>,
        /// What c10d said, if anything.
        why: String,
    },
    /// Anything else that keeps ranks from meeting.
    #[error("rank {rank} cannot meet the others at {address}: {why}")]
    Meet {
        /// This rank.
        rank: usize,
        /// Where they were to meet.
        address: String,
        /// What c10d said.
        why: String,
    },
    /// Ranks whose process or machine is gone.
    #[error(
        "lost {} of {ranks}: gone, or cut off ({why}); rank {rank} stops, and the same start goes on from the last \
         checkpoint",
        place::list(lost)
    )]
    Lost {
        /// This rank.
        rank: usize,
        /// How many there are.
        ranks: usize,
        /// Who is lost.
        lost: Vec<usize>,
        /// What c10d said.
        why: String,
    },
    /// A rank that said why it ended.
    #[error("rank {failed} of {ranks} failed, and rank {rank} stops: {why}")]
    Failed {
        /// This rank.
        rank: usize,
        /// How many there are.
        ranks: usize,
        /// Who failed.
        failed: usize,
        /// What it said.
        why: String,
    },
    /// An operation that failed although all ranks are there.
    #[error("rank {rank} of {ranks}: {why}, although all ranks answer")]
    Operation {
        /// This rank.
        rank: usize,
        /// How many there are.
        ranks: usize,
        /// What c10d said.
        why: String,
    },
}
