//! The processes of a run: one by itself, or the ranks of a group. Memory: a message of each.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use crate::collective::{self, Group};

/// Who takes part; without a group this process alone.
#[derive(Clone, Copy)]
pub(super) struct Party<'a>(pub(super) Option<&'a Group>);

impl Party<'_> {
    /// This process among them, from 0.
    pub(super) fn rank(self) -> usize {
        self.0.map_or(0, Group::rank)
    }

    /// How many there are.
    pub(super) fn ranks(self) -> usize {
        self.0.map_or(1, Group::ranks)
    }

    /// Whether this is rank 0.
    pub(super) fn leads(self) -> bool {
        self.rank() == 0
    }

    /// Waits until each rank is through with something that may fail; where it did on one, it does on all, with that one's
    /// reason. What came of it here, and what each rank says of its own, in their order.
    pub(super) fn agree<T, S>(
        self,
        own: Result<T, Error>,
        say: impl FnOnce(&T) -> S,
    ) -> Result<(T, Vec<S>), Error>
    where
        S: Serialize + DeserializeOwned,
    {
        let said = own.as_ref().map(say).map_err(ToString::to_string);
        let said = match self.0 {
            Some(group) => exchange(group, &said),
            None => Ok(vec![said]),
        };
        let (own, said) = (own?, said?);
        let of_each = (0..).zip(said).map(|(rank, said)| said.map_err(|why| self.failed(rank, why)));
        Ok((own, of_each.collect::<Result<_, _>>()?))
    }

    fn failed(self, failed: usize, why: String) -> Error {
        collective::Error::Failed { rank: self.rank(), ranks: self.ranks(), failed, why }.into()
    }
}

fn exchange<T: Serialize + DeserializeOwned>(group: &Group, own: &T) -> Result<Vec<T>, Error> {
    let unclear = |error: serde_json::Error| Error::Unclear { rank: group.rank(), why: error.to_string() };
    let all = group.exchange(&serde_json::to_vec(own).map_err(unclear)?)?;
    all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(unclear)).collect()
}
