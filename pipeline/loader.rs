//! From rows on disk to batches: what a trainer reads. No tensors here.
//!
//! A [`Sampler`] or a [`Stream`] says which row comes at which position, [`Batches`] reads rows ahead on threads, and
//! [`Prediction`] says what is to be predicted: each next token, or those that [`Masking`] hides.
//! Memory: a few batches per thread.

mod batches;
mod masking;
mod random;
mod sampler;
mod shards;
mod shuffle;
mod stream;
mod targets;

pub use batches::{Batch, Batches, Order, Slice};
pub use masking::{Ids, Masking, MaskingError};
pub use random::{fraction, mix};
pub use sampler::Sampler;
pub use shards::WithDocuments;
pub use shuffle::{Blocks, Shuffle};
pub use stream::Stream;
pub use targets::{Error, IGNORED, Prediction, Targets, Vocabulary};

/// Rows of tokens of one length, by index: a split of a shard set, or plain vectors in a test.
pub trait TokenRows: Send + Sync {
    /// Number of rows.
    fn rows(&self) -> u64;

    /// Tokens per row.
    fn context(&self) -> usize;

    /// Writes row `row` into `tokens` (`context` long).
    ///
    /// # Panics
    /// When `row` or the buffer's length is out of range.
    fn read_row(&self, row: u64, tokens: &mut [i64]);

    /// The loss weight of each token of a row, as a byte of [`LossWeights::ONE`](crate::shard::LossWeights::ONE)s; none
    /// where all count in full.
    fn loss_weights(&self, _row: u64) -> Option<&[u8]> {
        None
    }

    /// Where the documents of a row end: ascending numbers of tokens, the last one `context`; none where nobody asks.
    fn document_ends(&self, _row: u64) -> Option<&[u32]> {
        None
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    //! Rows that tests make up.

    use super::TokenRows;

    /// Rows held in memory.
    pub(crate) struct Rows(pub Vec<Vec<i64>>);

    impl Rows {
        /// Rows of pseudo-random ids below `vocabulary`.
        #[cfg(feature = "train")]
        pub(crate) fn random(rows: u64, context: u64, vocabulary: u64, seed: u64) -> Self {
            let id = |i: u64| i64::try_from(super::mix(seed ^ super::mix(i)) % vocabulary).unwrap();
            Self((0..rows).map(|r| (0..context).map(|c| id(r * context + c)).collect()).collect())
        }
    }

    impl TokenRows for Rows {
        fn rows(&self) -> u64 {
            self.0.len() as u64
        }

        fn context(&self) -> usize {
            self.0.first().map_or(0, Vec::len)
        }

        fn read_row(&self, row: u64, tokens: &mut [i64]) {
            tokens.copy_from_slice(&self.0[usize::try_from(row).unwrap()]);
        }
    }
}
