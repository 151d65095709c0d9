//! Batches read ahead on threads, in an order that does not depend on the threads.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use super::{Sampler, Stream, TokenRows};

/// Batches that each thread may hold ready.
const AHEAD: usize = 2;

/// In which order rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Shuffled, without end.
    Shuffled(Sampler),
    /// One rank's part of a shuffled order that any number of ranks can take up, without end.
    Shared(Stream),
    /// Rows `0..rows`, once.
    Sequential {
        /// Number of rows to read.
        rows: u64,
    },
}

impl Order {
    /// The row at `position`, or none past the end.
    pub fn index(&self, position: u64) -> Option<u64> {
        match *self {
            Self::Shuffled(sampler) => Some(sampler.index(position)),
            Self::Shared(stream) => Some(stream.row(position)),
            Self::Sequential { rows } => (position < rows).then_some(position),
        }
    }
}

/// What one of several readers takes of each batch: rows `first..first + rows` of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Rows of the batch.
    pub of: usize,
    /// The first one to read.
    pub first: usize,
    /// How many.
    pub rows: usize,
}

impl Slice {
    /// The part of `rank` of `ranks`, which differ by one row at most.
    pub const fn of_rank(of: usize, rank: usize, ranks: usize) -> Self {
        let first = of * rank / ranks;
        Self { of, first, rows: of * (rank + 1) / ranks - first }
    }
}

/// Some rows, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Position of the first row in the order.
    pub position: u64,
    /// Tokens per row.
    pub context: usize,
    /// Token ids, row after row: `rows() * context` of them.
    pub tokens: Vec<i64>,
    /// The loss weight of each token, as [`TokenRows::loss_weights`] has it; empty where all count in full.
    pub weights: Vec<u8>,
    /// The number of each token's document within its row; empty where nobody asks.
    pub documents: Vec<i64>,
}

impl Batch {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.tokens.len() / self.context
    }

    /// The batch in parts of `rows` rows, the last one perhaps shorter.
    pub fn split(&self, rows: usize) -> Vec<Self> {
        let values = rows * self.context;
        let part = |part: usize| Self {
            position: self.position + (part * rows) as u64,
            context: self.context,
            tokens: some(&self.tokens, part, values),
            weights: some(&self.weights, part, values),
            documents: some(&self.documents, part, values),
        };
        (0..self.tokens.len().div_ceil(values)).map(part).collect()
    }
}

/// An iterator over batches that threads read ahead. The last batch of a sequential order may be short.
///
/// Thread `t` of `n` reads batches `t`, `t + n`, ... and the iterator takes them in turn. Dropping it ends the
/// threads. A panic of [`TokenRows::read_row`] ends the iteration and resurfaces when the scope ends.
#[derive(Debug)]
pub struct Batches {
    threads: Vec<Receiver<Batch>>,
    next: usize,
}

impl Batches {
    /// Starts `threads` (at least one) readers of batches of `batch_rows` rows, from `position` in `order` on.
    ///
    /// # Panics
    /// When `batch_rows` is 0.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        rows: &'env dyn TokenRows,
        order: Order,
        batch_rows: usize,
        position: u64,
        threads: usize,
    ) -> Self {
        let whole = Slice { of: batch_rows, first: 0, rows: batch_rows };
        Self::slices(scope, rows, order, whole, position, threads)
    }

    /// The same, where of each batch only a slice is read.
    ///
    /// # Panics
    /// When the slice or the batch is empty.
    pub fn slices<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        rows: &'env dyn TokenRows,
        order: Order,
        slice: Slice,
        position: u64,
        threads: usize,
    ) -> Self {
        assert!(slice.of > 0 && slice.rows > 0, "a batch holds at least one row");
        let threads = threads.max(1) as u64;
        let stride = threads * slice.of as u64;
        let start = |thread: u64| {
            let (sender, receiver) = sync_channel(AHEAD);
            let first = position + thread * slice.of as u64 + slice.first as u64;
            scope.spawn(move || {
                let starts = (first..).step_by(usize::try_from(stride).unwrap_or(usize::MAX));
                let mut batches = starts.map_while(|start| read(rows, order, slice.rows, start));
                batches.try_for_each(|batch| sender.send(batch))
            });
            receiver
        };
        Self { threads: (0..threads).map(start).collect(), next: 0 }
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let batch = self.threads[self.next].recv().ok()?;
        self.next = (self.next + 1) % self.threads.len();
        Some(batch)
    }
}

/// Chunk `part` of `values`; nothing of nothing.
fn some<T: Copy>(values: &[T], part: usize, length: usize) -> Vec<T> {
    values.chunks(length).nth(part).unwrap_or_default().to_vec()
}

/// The rows from `position` on, or none past the end.
fn read(rows: &dyn TokenRows, order: Order, batch_rows: usize, position: u64) -> Option<Batch> {
    let context = rows.context();
    let indices = (position..).map_while(|p| order.index(p)).take(batch_rows).collect::<Vec<_>>();
    let mut tokens = vec![0; indices.len() * context];
    for (row, buffer) in indices.iter().zip(tokens.chunks_mut(context)) {
        rows.read_row(*row, buffer);
    }
    let weights = indices.iter().filter_map(|row| rows.loss_weights(*row)).flatten().copied().collect();
    let documents = indices.iter().filter_map(|row| rows.document_ends(*row)).flat_map(numbers).collect();
    (!indices.is_empty()).then_some(Batch { position, context, tokens, weights, documents })
}

/// The number of each token's document, from 0, of a row whose documents end there.
fn numbers(ends: &[u32]) -> Vec<i64> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let documents = (0..).zip(starts.zip(ends));
    documents.flat_map(|(number, (start, end))| (start..*end).map(move |_| number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::tests_support::Rows;
    use crate::loader::{Blocks, Shuffle};

    fn take(order: Order, position: u64, threads: usize, batches: usize) -> Vec<Batch> {
        let rows = Rows((0..10).map(|row| vec![row; 3]).collect());
        std::thread::scope(|scope| {
            Batches::start(scope, &rows, order, 4, position, threads).take(batches).collect()
        })
    }

    #[test]
    fn threads_do_not_change_the_order() {
        let order = Order::Shuffled(Sampler { seed: 1, len: 10, rank: 0, world: 1 });
        let expected = take(order, 0, 1, 20);
        for threads in [2, 3, 8] {
            assert_eq!(take(order, 0, threads, 20), expected, "{threads} threads");
        }
    }

    #[test]
    fn slices_of_all_ranks_are_the_batches() {
        let order = Order::Shuffled(Sampler { seed: 1, len: 10, rank: 0, world: 1 });
        let whole = take(order, 8, 1, 5);
        let rows = Rows((0..10).map(|row| vec![row; 3]).collect());
        for (ranks, threads) in [(1, 1), (2, 2), (3, 1), (4, 3)] {
            let parts: Vec<Vec<Batch>> = (0..ranks)
                .map(|rank| {
                    let slice = Slice::of_rank(4, rank, ranks);
                    std::thread::scope(|scope| {
                        Batches::slices(scope, &rows, order, slice, 8, threads).take(5).collect()
                    })
                })
                .collect();
            for (at, batch) in whole.iter().enumerate() {
                let tokens: Vec<i64> = parts.iter().flat_map(|part| part[at].tokens.clone()).collect();
                assert_eq!(tokens, batch.tokens, "batch {at}, {ranks} ranks");
                assert_eq!(parts[0][at].position, batch.position);
            }
        }
    }

    #[test]
    fn weights_and_documents_go_with_their_rows() {
        struct Weighed(Rows);
        impl TokenRows for Weighed {
            fn rows(&self) -> u64 {
                self.0.rows()
            }
            fn context(&self) -> usize {
                self.0.context()
            }
            fn read_row(&self, row: u64, tokens: &mut [i64]) {
                self.0.read_row(row, tokens);
            }
            fn loss_weights(&self, row: u64) -> Option<&[u8]> {
                Some([&[250, 0, 25], &[1, 2, 3]][usize::from(row > 0)])
            }
            fn document_ends(&self, row: u64) -> Option<&[u32]> {
                Some([&[1, 3][..], &[3]][usize::from(row > 0)])
            }
        }
        let rows = Weighed(Rows(vec![vec![4; 3], vec![5; 3]]));
        let batch = read(&rows, Order::Sequential { rows: 2 }, 5, 0).unwrap();
        assert_eq!(batch.weights, [250, 0, 25, 1, 2, 3]);
        assert_eq!(batch.documents, [0, 1, 1, 0, 0, 0]);
        let parts = batch.split(1);
        assert_eq!((parts.len(), parts[1].position, &parts[1].tokens), (2, 1, &vec![5; 3]));
        assert_eq!((&parts[1].weights, &parts[0].documents), (&vec![1, 2, 3], &vec![0, 1, 1]));
        let plain = Batch { context: 3, tokens: vec![1; 6], ..Batch::default() };
        assert!(plain.split(2)[0].weights.is_empty());
    }

    #[test]
    fn resumes_at_a_position() {
        let order = Order::Shuffled(Sampler { seed: 1, len: 10, rank: 0, world: 1 });
        assert_eq!(take(order, 12, 2, 5), take(order, 0, 3, 8)[3..]);
    }

    #[test]
    fn ranks_resume_as_another_number_of_ranks() {
        let shuffle = Shuffle { seed: 1, rows: 10, blocks: Some(Blocks { rows: 2, window: 3 }) };
        let first = |batch: &Batch| batch.tokens.chunks(3).map(|row| row[0]).collect::<Vec<_>>();
        let rows = |stream, batches| -> Vec<i64> {
            take(Order::Shared(stream), 0, 3, batches).iter().flat_map(first).collect()
        };
        let mut found: Vec<i64> = Stream::ranks(shuffle, 0, 2).flat_map(|rank| rows(rank, 2)).collect();
        found.extend(Stream::ranks(shuffle, 16, 3).flat_map(|rank| rows(rank, 1)));
        found.extend(Stream::ranks(shuffle, 28, 1).flat_map(|rank| rows(rank, 3)));
        found.sort_unstable();
        assert_eq!(found, (0..40).map(|number| number / 4).collect::<Vec<_>>(), "4 epochs of 10 rows");
    }

    #[test]
    fn a_sequential_order_ends_with_a_short_batch() {
        for threads in [1, 2, 5] {
            let batches = take(Order::Sequential { rows: 10 }, 0, threads, 100);
            let sizes = batches.iter().map(Batch::rows).collect::<Vec<_>>();
            assert_eq!(sizes, [4, 4, 2], "{threads} threads");
            let first = batches.iter().flat_map(|b| b.tokens.chunks(3).map(|row| row[0])).collect::<Vec<_>>();
            assert_eq!(first, (0..10).collect::<Vec<_>>(), "{threads} threads");
        }
    }
}
