//! Gradients that are added up among ranks while the backward pass still makes the others: those of the last micro-batches
//! that are computed side by side, onto those of the ones before. Memory: the gradients once more.

use tch::Tensor;

use super::{Bucket, Ranks, flat};
use crate::collective::Work;
use crate::train::error::Error;
use crate::train::gradients::add_up;

/// A micro-batch's gradient of a parameter.
pub(super) struct Told {
    /// The number of the micro-batch.
    pub(super) part: usize,
    /// The number of the parameter.
    pub(super) at: usize,
    pub(super) gradient: Tensor,
    /// Whether the pass goes on.
    pub(super) early: bool,
}

/// The sums in the making.
pub(super) struct Sums<'r, 'a> {
    ranks: &'r Ranks<'a>,
    /// By parameter.
    states: Vec<Gradient>,
    /// Buckets under way, in their order: all ranks begin them in the same one.
    begun: Vec<Work<'a>>,
    /// How many of them began while the pass went on.
    early: usize,
}

/// What there is of a parameter's gradient.
enum Gradient {
    /// That of the micro-batches before, and what came of each of the last ones.
    Waits { before: Option<Tensor>, parts: Vec<Option<Tensor>> },
    /// That of all micro-batches.
    Whole(Tensor),
    /// It is under way.
    Begun,
}

impl<'r, 'a> Sums<'r, 'a> {
    /// Begins with the gradients of the micro-batches `before`, none where there are none, and waits for so many more.
    pub(super) fn new(ranks: &'r Ranks<'a>, before: Vec<Tensor>, parts: usize) -> Self {
        let mut before: Vec<Option<Tensor>> = before.into_iter().map(Some).collect();
        before.resize_with(ranks.own.len(), || None);
        let wait = |before| Gradient::Waits { before, parts: (0..parts).map(|_| None).collect() };
        Self { ranks, states: before.into_iter().map(wait).collect(), begun: Vec::new(), early: 0 }
    }

    /// Takes a gradient, unless it was told before; begins with the buckets that are whole then.
    pub(super) fn take(&mut self, Told { part, at, gradient, early }: Told) -> Result<(), Error> {
        let Some(Gradient::Waits { before, parts }) = self.states.get_mut(at) else { return Ok(()) };
        parts[part].get_or_insert(gradient);
        if parts.iter().all(Option::is_some) {
            let sum = add_up(before.take(), parts.iter_mut().filter_map(Option::take))?;
            self.states[at] = Gradient::Whole(sum);
            self.begin(early)?;
        }
        Ok(())
    }

    fn begin(&mut self, early: bool) -> Result<(), Error> {
        let buckets = &self.ranks.buckets;
        while let Some(bucket) = buckets.get(self.begun.len()).filter(|bucket| self.is_whole(bucket)) {
            let take = |at: &usize| match std::mem::replace(&mut self.states[*at], Gradient::Begun) {
                Gradient::Whole(sum) => sum,
                Gradient::Waits { .. } | Gradient::Begun => Tensor::new(),
            };
            let values = flat(&bucket.parameters.iter().map(take).collect::<Vec<_>>())?;
            self.begun.push(self.ranks.group.reduce(values, bucket.owner)?);
            self.early += usize::from(early);
        }
        Ok(())
    }

    fn is_whole(&self, bucket: &Bucket) -> bool {
        bucket.parameters.iter().all(|at| matches!(self.states[*at], Gradient::Whole(_)))
    }

    /// Waits for the sums over all ranks: those of this rank's parameters, empty ones for others, and how many buckets began
    /// while the pass went on. None where a pass ended without all gradients, which then says why.
    pub(super) fn end(self) -> Result<Option<(Vec<Tensor>, usize)>, Error> {
        let Self { ranks, states, begun, early } = self;
        if begun.len() < ranks.buckets.len() {
            return Ok(None);
        }
        let mut gradients: Vec<Tensor> = states.iter().map(|_| Tensor::new()).collect();
        for (bucket, work) in ranks.buckets.iter().zip(begun) {
            let sum = work.wait()?;
            if bucket.owner == ranks.group.rank() {
                ranks.each(bucket, &sum, |at, part| {
                    gradients[at] = part;
                    Ok(())
                })?;
            }
        }
        Ok(Some((gradients, early)))
    }
}
