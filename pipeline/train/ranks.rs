//! A run that several ranks share: each computes its rows of a batch, has the moments of some parameters and updates those
//! (`ZeRO` 1).
//!
//! Gradients are summed in buckets of at most [`BUCKET`] bytes, each for the rank that has its parameters. A bucket is under
//! way as soon as the backward pass of the last micro-batches has all of its gradients, while the pass makes those of
//! earlier layers: buckets are filled from the last parameter to the first. The updated parameters come back in buckets too.
//! Memory beside the run's own: the gradients once more while they are summed, and the weights once more while they come back.

mod sums;

use std::sync::mpsc::{Sender, channel};

use tch::{Device, Kind, TchError, Tensor};

use self::sums::{Sums, Told};
use super::adamw;
use super::error::Error;
use super::gradients::{self, Objective, micro_batch};
use crate::collective::hooks::{Hooks, listening};
use crate::collective::{self, Group, Work};
use crate::loader::{Batch, Targets};
use crate::model::likelihood::Likelihood;
use crate::model::network::Network;
use crate::model::weights::Weights;
use crate::model::workers::Workers;

/// Bytes of a bucket; a larger parameter has one for itself. Tests have small models.
const BUCKET: i64 = if cfg!(test) { 100_000 } else { 25 << 20 };

/// The ranks, and who has which parameters.
pub(super) struct Ranks<'a> {
    pub(super) group: &'a Group,
    /// The shape of each parameter.
    shapes: Vec<Vec<i64>>,
    /// Whether each parameter is this rank's.
    pub(super) own: Vec<bool>,
    buckets: Vec<Bucket>,
    /// By which backward passes tell of gradients.
    _hooks: Hooks,
}

/// Parameters that travel together.
#[derive(Debug, PartialEq, Eq)]
struct Bucket {
    owner: usize,
    parameters: Vec<usize>,
}

impl<'a> Ranks<'a> {
    /// Shares the parameters among the ranks, those with these weights, of which gradients are wanted.
    pub(super) fn new(group: &'a Group, weights: &Weights) -> Result<Self, Error> {
        let shapes = weights.tensors().iter().map(Tensor::size).collect::<Vec<_>>();
        let sizes = shapes.iter().map(|shape| shape.iter().product()).collect::<Vec<i64>>();
        let owners = owners(&sizes, group.ranks());
        let own = owners.iter().map(|owner| *owner == group.rank()).collect();
        let (rank, ranks) = (group.rank(), group.ranks());
        let hooks = Hooks::on(weights.tensors());
        let hooks = hooks.map_err(|why| collective::Error::Operation { rank, ranks, why })?;
        Ok(Self { group, shapes, own, buckets: buckets(&sizes, &owners), _hooks: hooks })
    }

    /// The gradients of the objective over the micro-batches of all ranks, their norm, and what was measured. This rank's
    /// gradients come back whole, those of others empty; the norm is that of all.
    pub(super) fn gradients(
        &self,
        parts: Vec<(Batch, Targets)>,
        model: &Network,
        objective: Objective,
        workers: &Workers,
    ) -> Result<(Vec<Tensor>, f64, Likelihood), Error> {
        let (gradients, measured, _) = self.overlapped(parts, model, objective, workers)?;
        self.normed(gradients, measured)
    }

    /// The gradients, what this rank measured, and how many buckets were under way before the backward pass ended.
    fn overlapped(
        &self,
        mut parts: Vec<(Batch, Targets)>,
        model: &Network,
        objective: Objective,
        workers: &Workers,
    ) -> Result<(Vec<Tensor>, Likelihood, usize), Error> {
        // The last micro-batches that threads compute side by side.
        let last = parts.split_off(parts.len().saturating_sub(1) / workers.threads() * workers.threads());
        let (before, mut measured) = gradients::over(parts, model, objective, workers)?;
        let count = last.len();
        let (sender, receiver) = channel();
        // The last sender goes with it.
        let compute = move |(part, (model, (batch, targets))): (usize, (Network, (Batch, Targets)))| {
            let tell = move |sender: &Sender<Told>, at, gradient, early| {
                drop(sender.send(Told { part, at, gradient, early }));
            };
            let to = sender.clone();
            let in_parts = model.in_parts(batch.tokens.len());
            let listener = move |at, gradient| {
                if in_parts != Some(at) {
                    tell(&to, at, gradient, true);
                }
            };
            let (gradients, measured) =
                listening(listener, || micro_batch(&model, batch, &targets, objective))?;
            (0..).zip(gradients).for_each(|(at, gradient)| tell(&sender, at, gradient, false));
            Ok::<_, Error>(measured)
        };
        let wave = last.into_iter().map(|part| (model.share(), part)).enumerate().collect();
        let (sum, found) = std::thread::scope(|scope| {
            let adder = scope.spawn(move || {
                let mut sums = Sums::new(self, before, count);
                receiver.iter().try_for_each(|told| sums.take(told))?;
                sums.end()
            });
            let found = workers.map(wave, compute);
            (adder.join(), found)
        });
        for found in found? {
            measured.add(&found)?;
        }
        let sum = sum.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let (gradients, early) = sum.ok_or_else(|| TchError::Shape("a gradient is missing".to_owned()))?;
        Ok((gradients, measured.read()?, early))
    }

    /// Adds the norm of the gradients of all ranks, and adds up what they measured.
    fn normed(
        &self,
        gradients: Vec<Tensor>,
        measured: Likelihood,
    ) -> Result<(Vec<Tensor>, f64, Likelihood), Error> {
        let own = gradients.iter().zip(&self.own).filter(|(_, own)| **own);
        let own = own.map(|(gradient, _)| gradient.shallow_clone()).collect::<Vec<_>>();
        let norm = if own.is_empty() { 0.0 } else { adamw::norm(&own)?.f_double_value(&[])? };
        let (square, measured) = self.sum(norm * norm, measured)?;
        Ok((gradients, square.sqrt(), measured))
    }

    /// Adds up a number and what was measured.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts, far below 2^53")]
    pub(super) fn sum(&self, number: f64, measured: Likelihood) -> Result<(f64, Likelihood), Error> {
        let Likelihood { nats, tokens, base_nats, bases } = measured;
        let [number, nats, tokens, base_nats, bases] =
            self.group.sum([number, nats, tokens as f64, base_nats, bases as f64])?;
        Ok((number, Likelihood { nats, tokens: tokens as u64, base_nats, bases: bases as u64 }))
    }

    /// Gives all ranks the weights that their owners have.
    pub(super) fn spread(&self, weights: &mut Weights) -> Result<(), Error> {
        if self.group.ranks() == 1 {
            return Ok(());
        }
        self.copy(weights, |bucket| bucket.owner)
    }

    /// Gives all ranks the weights that rank 0 has.
    pub(super) fn spread_from_0(&self, weights: &mut Weights) -> Result<(), Error> {
        self.copy(weights, |_| 0)
    }

    /// Gives all ranks what one of them has of each bucket.
    fn copy(&self, tensors: &mut Weights, from: impl Fn(&Bucket) -> usize) -> Result<(), Error> {
        let mut works = Vec::new();
        let device = tensors.tensors().first().map_or(Device::Cpu, Tensor::device);
        for bucket in &self.buckets {
            let root = from(bucket);
            let values = if root == self.group.rank() {
                let parts = bucket.parameters.iter().map(|at| tensors.tensors()[*at].f_detach());
                flat(&parts.collect::<Result<Vec<_>, _>>()?)?
            } else {
                Tensor::f_empty([self.size(bucket)], (Kind::Float, device))?
            };
            works.push((bucket, root, self.group.broadcast(values, root)?));
        }
        for (bucket, root, work) in works {
            self.take(bucket, root, work, tensors)?;
        }
        Ok(())
    }

    fn take(&self, bucket: &Bucket, root: usize, work: Work<'_>, tensors: &mut Weights) -> Result<(), Error> {
        let values = work.wait()?;
        if root == self.group.rank() {
            return Ok(());
        }
        self.each(bucket, &values, |at, part| {
            let tensor = &mut tensors.tensors_mut()[at];
            tch::no_grad(|| tensor.f_detach()?.f_copy_(&part)).map(drop)
        })
    }

    /// Hands out the parts of a bucket's values: the number of a parameter, and its values, as a view.
    fn each(
        &self,
        bucket: &Bucket,
        values: &Tensor,
        mut act: impl FnMut(usize, Tensor) -> Result<(), TchError>,
    ) -> Result<(), Error> {
        let mut first = 0;
        for at in &bucket.parameters {
            let shape = self.shapes[*at].as_slice();
            let size = shape.iter().product::<i64>();
            act(*at, values.f_narrow(0, first, size)?.f_view(shape)?)?;
            first += size;
        }
        Ok(())
    }

    fn size(&self, bucket: &Bucket) -> i64 {
        bucket.parameters.iter().map(|at| self.shapes[*at].iter().product::<i64>()).sum()
    }
}

/// Values one after the other.
fn flat(tensors: &[Tensor]) -> Result<Tensor, TchError> {
    let rows = tensors.iter().map(|tensor| tensor.f_reshape([-1])).collect::<Result<Vec<_>, _>>()?;
    Tensor::f_cat(&rows, 0)
}

/// Who has which parameter: the largest first, each to whom has the least so far.
fn owners(sizes: &[i64], ranks: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(sizes[*at]), *at));
    let (mut loads, mut owners) = (vec![0; ranks.max(1)], vec![0; sizes.len()]);
    for at in order {
        let least = (0..loads.len()).min_by_key(|rank| (loads[*rank], *rank)).unwrap_or(0);
        loads[least] += sizes[at];
        owners[at] = least;
    }
    owners
}

/// Each owner's parameters in turn, so that all have something to add at any time.
fn buckets(sizes: &[i64], owners: &[usize]) -> Vec<Bucket> {
    let (mut buckets, mut open): (Vec<Bucket>, Vec<Option<usize>>) = (Vec::new(), Vec::new());
    open.resize(owners.iter().max().map_or(0, |last| last + 1), None);
    let mut room = vec![0; open.len()];
    for (at, (size, owner)) in sizes.iter().zip(owners).enumerate().rev() {
        let bytes = size * 4;
        if let Some(bucket) = open[*owner].filter(|_| bytes <= room[*owner]) {
            buckets[bucket].parameters.push(at);
        } else {
            open[*owner] = Some(buckets.len());
            room[*owner] = BUCKET;
            buckets.push(Bucket { owner: *owner, parameters: vec![at] });
        }
        room[*owner] -= bytes;
    }
    buckets
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::collective::{Meeting, Place};
    use crate::loader::tests_support::Rows;
    use crate::loader::{Batches, Order, Sampler, Slice, Vocabulary};
    use crate::model::{Preset, Shape};

    /// Micro-batches of two rows each.
    fn parts(rank: u64, count: usize) -> Vec<(Batch, Targets)> {
        let rows = Rows::random(20, 24, 32, 10 + rank);
        let order = Order::Shuffled(Sampler { seed: 1, len: 20, rank: 0, world: 1 });
        let vocabulary = Vocabulary { bases: vec![2; 32], ..Vocabulary::default() };
        std::thread::scope(|scope| {
            let slice = Slice::of_rank(2 * count, 0, 1);
            let batch = Batches::slices(scope, &rows, order, slice, 0, 1).next().unwrap();
            let ask = |part: Batch| {
                let targets = vocabulary.targets(&part).unwrap();
                (part, targets)
            };
            batch.split(2).into_iter().map(ask).collect()
        })
    }

    /// Each rank's gradients, added up during the pass and, by hand, behind it.
    #[test]
    fn sums_begin_while_the_pass_goes_on_and_have_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let one = |(rank, threads, count, checkpointing): (usize, usize, usize, bool)| {
            let place = Place {
                rank,
                ranks: 2,
                here: None,
                local: None,
                meeting: Meeting::File(folder.path().join(format!("{threads}-{count}-{checkpointing}"))),
                interface: None,
                attempt: String::new(),
                patience: Duration::from_secs(20),
            };
            let group = Group::join(place).unwrap();
            let shape = crate::train::Config { preset: Some(Preset::Olmo300k.into()), ..Default::default() };
            let shape: Shape = shape.resolve(20, 24, 32).unwrap().model;
            let model = Network::random(&shape, 3, Device::Cpu).unwrap().require_gradients().unwrap();
            let ranks = Ranks::new(&group, model.weights()).unwrap();
            let workers = Workers::start(threads).unwrap();
            let objective = Objective { weight: 100.0, z_loss: 0.0, checkpointing, context: 24 };
            let parts = || parts(rank as u64, count);
            let (found, measured, early) = ranks.overlapped(parts(), &model, objective, &workers).unwrap();
            let (alone, expected) = gradients::over(parts(), &model, objective, &workers).unwrap();
            assert_eq!(measured, expected.read().unwrap());
            for bucket in &ranks.buckets {
                let values = bucket.parameters.iter().map(|at| alone[*at].shallow_clone());
                let values = flat(&values.collect::<Vec<_>>()).unwrap();
                let sum = group.reduce(values, bucket.owner).unwrap().wait().unwrap();
                let own: Vec<&Tensor> = bucket.parameters.iter().map(|at| &found[*at]).collect();
                if bucket.owner == rank {
                    let own = own.iter().map(|own| own.shallow_clone()).collect::<Vec<_>>();
                    assert!(flat(&own).unwrap().equal(&sum), "{threads} threads, {count} micro-batches");
                } else {
                    assert!(own.iter().all(|own| own.numel() == 0));
                }
            }
            group.barrier().unwrap();
            (early, ranks.buckets.len())
        };
        for (threads, count) in [(1, 1), (1, 3), (2, 2), (2, 5), (3, 5)] {
            for checkpointing in [false, true] {
                let ((early, buckets), other) = std::thread::scope(|scope| {
                    let other = scope.spawn(|| one((1, threads, count, checkpointing)));
                    (one((0, threads, count, checkpointing)), other.join().unwrap())
                });
                assert!(buckets > 8, "{buckets} buckets");
                // The first parameter's gradient may be known last, and with it the bucket that it lies in.
                assert!(
                    early >= buckets - 2,
                    "{early} of {buckets}, {threads} threads, {count}, {checkpointing}"
                );
                assert_eq!(other, (early, buckets), "the same on both");
            }
        }
    }

    #[test]
    fn every_parameter_has_one_owner_and_one_bucket() {
        let sizes = [7_000_000, 10, 3_000_000, 3_000_000, 5, 2_000_000, 2_000_000];
        for ranks in [1, 2, 3, 9] {
            let owners = owners(&sizes, ranks);
            let load =
                |rank| sizes.iter().zip(&owners).filter(|(_, o)| **o == rank).map(|(s, _)| s).sum::<i64>();
            let loads: Vec<i64> = (0..ranks).map(load).collect();
            let fair = (17_000_015 / i64::try_from(ranks).unwrap()).max(7_000_000);
            assert!(loads.iter().all(|load| *load <= fair + 1_000_000), "{ranks} ranks: {loads:?}");
            let buckets = buckets(&sizes, &owners);
            let mut all: Vec<usize> = buckets.iter().flat_map(|bucket| bucket.parameters.clone()).collect();
            all.sort_unstable();
            assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>());
            for Bucket { owner, parameters } in &buckets {
                assert!(parameters.iter().all(|at| owners[*at] == *owner));
                let bytes = parameters.iter().map(|at| sizes[*at] * 4).sum::<i64>();
                assert!(bytes <= BUCKET || parameters.len() == 1, "{bytes} bytes in {parameters:?}");
            }
        }
    }
}
