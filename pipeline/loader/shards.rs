//! The rows of a shard set as a trainer reads them.

use super::TokenRows;
use crate::shard::{Error, Rows, ShardSet, Tokens};

impl TokenRows for Rows {
    fn rows(&self) -> u64 {
        self.len()
    }

    fn context(&self) -> usize {
        Self::context(self)
    }

    fn read_row(&self, row: u64, tokens: &mut [i64]) {
        match self.get(row) {
            Tokens::U16(ids) => tokens.iter_mut().zip(ids).for_each(|(t, &id)| *t = i64::from(id)),
            Tokens::U32(ids) => tokens.iter_mut().zip(ids).for_each(|(t, &id)| *t = i64::from(id)),
        }
    }

    fn loss_weights(&self, row: u64) -> Option<&[u8]> {
        self.weights(row)
    }
}

/// The rows of a split that also know where documents end. Memory: 8 bytes per row and 4 per document.
#[derive(Debug)]
pub struct WithDocuments {
    rows: Rows,
    ends: Vec<u32>,
    /// The number of ends before each row, and of all.
    firsts: Vec<usize>,
}

impl WithDocuments {
    /// Maps the rows and reads the documents of all of them; none where the set does not say where documents end.
    pub fn of(set: &ShardSet, split: &str) -> Result<Option<Self>, Error> {
        let rows = set.rows(split)?;
        let (mut ends, mut firsts) = (Vec::new(), vec![0]);
        for file in &set.split(split)?.files {
            set.for_each_documents(file, |_, documents| {
                ends.extend_from_slice(documents);
                firsts.push(ends.len());
                Ok(())
            })?;
        }
        let told = firsts.len() as u64 == rows.len() + 1;
        Ok(told.then_some(Self { rows, ends, firsts }))
    }
}

impl TokenRows for WithDocuments {
    fn rows(&self) -> u64 {
        self.rows.len()
    }

    fn context(&self) -> usize {
        self.rows.context()
    }

    fn read_row(&self, row: u64, tokens: &mut [i64]) {
        self.rows.read_row(row, tokens);
    }

    fn loss_weights(&self, row: u64) -> Option<&[u8]> {
        self.rows.weights(row)
    }

    fn document_ends(&self, row: u64) -> Option<&[u32]> {
        let row = usize::try_from(row).ok()?;
        self.ends.get(*self.firsts.get(row)?..*self.firsts.get(row + 1)?)
    }
}
