//! The rows of a shard set as a trainer reads them.

use super::TokenRows;
use crate::shard::{Rows, Tokens};

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
}
