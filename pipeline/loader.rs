//! From rows on disk to batches: what a trainer reads.

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
}
