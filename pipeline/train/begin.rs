//! How a run begins: its numbers, and the model and optimizer, fresh or from a checkpoint. Of ranks the first reads or makes
//! the weights, and gives them to the others; each makes or reads its own part of the optimizer.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Device;

use super::adamw::AdamW;
use super::checkpoint::{self, DataRef, Part, State, VocabularyRef};
use super::config::{Config, Initialize, Precision, Resolved};
use super::error::Error;
use super::party::Party;
use super::prediction;
use super::ranks::Ranks;
use super::run::{Data, Hooks};
use crate::loader::TokenRows;
use crate::model::network::Network;
use crate::model::weights::Weights;
use crate::model::{Shape, device, fused, hf};

/// A run about to start.
pub(super) struct Begun<'a> {
    pub(super) state: State,
    pub(super) model: Network,
    pub(super) optimizer: AdamW,
    /// The newest checkpoint and its step.
    pub(super) saved: Option<Saved>,
    pub(super) ranks: Option<Ranks<'a>>,
}

pub(super) type Saved = (u64, PathBuf);

/// Every number of the run.
pub(super) fn resolve(config: &Config, data: Data<'_>) -> Result<Resolved, Error> {
    let expected = data.rows.context();
    let found = data.validation.map_or(expected, TokenRows::context);
    if found != expected {
        return Err(Error::Context { found, expected });
    }
    if config.document_mask {
        let told = |rows: &dyn TokenRows| rows.rows() == 0 || rows.document_ends(0).is_some();
        let silent = |(name, rows): (&'static str, _)| (!told(rows)).then_some(name);
        let parts = [Some(("training", data.rows)), data.validation.map(|rows| ("validation", rows))];
        if let Some(name) = parts.into_iter().flatten().find_map(silent) {
            return Err(Error::NoDocuments(name));
        }
    }
    let context = u32::try_from(expected).map_err(|_| Error::TooLong(expected))?;
    let vocabulary = u32::try_from(data.vocabulary.size()).unwrap_or(u32::MAX);
    let mut resolved = config.resolve(data.rows.rows(), context, vocabulary)?;
    match &mut resolved.model {
        Shape::Olmo(_) => {}
        Shape::Hyena { .. } => prediction::check_ids(data.vocabulary)?,
        Shape::Dnabert2 { dnabert2 } => dnabert2.pad = data.vocabulary.pad,
    }
    Ok(resolved)
}

/// What rank 0 tells the others of the run.
#[derive(Clone, Serialize, Deserialize)]
struct Told {
    state: State,
    /// Whether it goes on from a checkpoint.
    resumed: bool,
}

/// Fresh, or from the newest checkpoint in `out`, as rank 0 finds it.
pub(super) fn begin<'a>(
    config: &Resolved,
    initial: Option<&Initialize>,
    data: Data<'_>,
    out: &Path,
    hooks: Hooks<'_>,
    party: Party<'a>,
) -> Result<Begun<'a>, Error> {
    let (rows, context) = (data.rows.rows(), data.rows.context());
    let rows = DataRef { rows, context, fingerprint: data.fingerprint.to_owned() };
    let own = State::new(config, VocabularyRef::of(data.vocabulary), rows);
    let device = device(hooks, party)?;
    let model = if party.leads() { lead(&own, initial, out, device) } else { follow(&own, device) };
    let ((_, mut model), told) = party.agree(model, |(told, _)| told.clone())?;
    let Told { state, resumed } = told[0].clone();
    if party.ranks() > 1 {
        check_shared(&state, &own, out, party)?;
    }
    let ranks = party.0.map(|group| Ranks::new(group, model.weights())).transpose()?;
    if let Some(ranks) = &ranks {
        ranks.spread_from_0(model.weights_mut())?;
    }
    let own =
        ranks.as_ref().map_or_else(|| vec![true; model.weights().layout().len()], |ranks| ranks.own.clone());
    let saved = resumed.then(|| (state.progress.step, checkpoint::place(out, state.progress.step)));
    let optimizer = match &saved {
        Some((_, folder)) => checkpoint::read_moments(folder, &state, own, device, party),
        None => AdamW::new(&state.config, model.weights(), own).map_err(Error::from),
    };
    let (optimizer, _) = party.agree(optimizer, |_| ())?;
    if resumed {
        hooks.note(format!("goes on from step {}", state.progress.step));
    }
    let advice = match device {
        Device::Cuda(_) => advice(&state.config, state.data.context),
        _ => idle(&state.config, party.ranks(), hooks.threads),
    };
    if let Some(advice) = advice {
        hooks.note(advice);
    }
    let bf16 = state.config.precision == Precision::Bf16;
    if let (true, Device::Cuda(_), Err(why)) = (bf16, device, fused::ready(device)) {
        hooks.note(format!("torch's own kernels do what ours would do faster: {why}"));
    }
    Ok(Begun { state, model: if bf16 { model.in_bf16() } else { model }, optimizer, saved, ranks })
}

/// What to compute on: of ranks each a GPU, or each a processor.
fn device(hooks: Hooks<'_>, party: Party<'_>) -> Result<Device, Error> {
    let own = party.0.map_or_else(device::open, |group| device::open_among(group.local()));
    let (device, on_gpus) = party.agree(own.map_err(Error::from), |device| *device != Device::Cpu)?;
    let without: Vec<usize> = (0..).zip(&on_gpus).filter(|(_, gpu)| !**gpu).map(|(rank, _)| rank).collect();
    if !without.is_empty() && without.len() < on_gpus.len() {
        return Err(Error::NotAllOnGpus(without));
    }
    if let Some(gpu) = device::described(device) {
        let others = if party.ranks() > 1 { ", and each other rank on a GPU of its machine" } else { "" };
        hooks.note(format!("computes on {gpu}{others}"));
    }
    Ok(device)
}

/// Tokens that keep a GPU busy at once.
const BUSY: usize = 16_384;

/// What to say of micro-batches that are too small for a GPU.
fn advice(config: &Resolved, context: usize) -> Option<String> {
    let (rows, all) = (config.micro_batch_rows, config.batch_rows);
    let small = rows < all && (rows as usize) * context < BUSY;
    small.then(|| {
        format!("a GPU is faster with larger micro-batches, where memory allows: `micro_batch_rows` is {rows} of {all} rows (or set `micro_batch_tokens`)")
    })
}

/// What to say where a rank of `ranks` has fewer micro-batches in a step than threads.
fn idle(config: &Resolved, ranks: usize, threads: usize) -> Option<String> {
    let rows = (config.batch_rows as usize).div_ceil(ranks);
    let parts = rows.div_ceil(config.micro_batch_rows as usize);
    let es = if parts == 1 { "" } else { "es" };
    (parts < threads).then(|| {
        format!(
            "a step has {parts} micro-batch{es}, each for one thread: {parts} of {threads} threads find work in it (lower \
             `micro_batch_rows`, or raise the batch)"
        )
    })
}

/// The run and its model as they are in the newest checkpoint in `out`, or fresh.
fn lead(
    state: &State,
    initial: Option<&Initialize>,
    out: &Path,
    device: Device,
) -> Result<(Told, Network), Error> {
    if let Some((state, model)) = checkpoint::resume(out, state, device)? {
        return Ok((Told { state, resumed: true }, model.require_gradients()?));
    }
    let model = fresh(&state.config.model, initial, state.config.seed, device)?;
    Ok((Told { state: state.clone(), resumed: false }, model))
}

/// The weights are random, or those of `initial`.
fn fresh(shape: &Shape, initial: Option<&Initialize>, seed: u64, device: Device) -> Result<Network, Error> {
    let weights = match (shape, initial) {
        (Shape::Olmo(config), Some(Initialize { hf: folder })) => Weights::read_hf(config, folder, device)?,
        (shape, Some(Initialize { hf: folder })) => {
            Weights::read(shape.layout(), &folder.join(hf::WEIGHTS), "", device)?
        }
        (shape, None) => Weights::fresh(shape.layout(), seed, device)?,
    };
    Ok(Network::new(shape, weights, device)?.require_gradients()?)
}

/// A model to take rank 0's weights.
fn follow(state: &State, device: Device) -> Result<(Told, Network), Error> {
    let shape = &state.config.model;
    let model = Network::new(shape, Weights::zeros(shape.layout(), device)?, device)?;
    Ok((Told { state: state.clone(), resumed: false }, model.require_gradients()?))
}

/// Refuses ranks that are of another run than rank 0 is, and those that do not see the folder it writes into.
fn check_shared(state: &State, own: &State, out: &Path, party: Party<'_>) -> Result<(), Error> {
    let rank = party.rank();
    let same = state.difference(own).map_or(Ok(()), |difference| {
        let (what, found, expected) = (difference.what, difference.found, difference.expected);
        Err(Error::OtherRun { rank, what, found, expected })
    });
    let part = Part::make(out, party)?;
    party.agree(same.and_then(|()| part.see(party)), |()| ()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Preset;
    use crate::train::Config;

    #[test]
    fn threads_without_work_are_told() {
        for (batch_rows, micro_batch_rows, ranks, threads, expected) in [
            (16, 2, 1, 8, None),
            (
                16,
                2,
                1,
                9,
                Some("a step has 8 micro-batches, each for one thread: 8 of 9 threads find work in it"),
            ),
            (
                16,
                2,
                2,
                8,
                Some("a step has 4 micro-batches, each for one thread: 4 of 8 threads find work in it"),
            ),
            (
                1,
                1,
                1,
                2,
                Some("a step has 1 micro-batch, each for one thread: 1 of 2 threads find work in it"),
            ),
            (1, 1, 1, 1, None),
        ] {
            let (preset, micro_batch_rows) = (Some(Preset::Olmo300k.into()), Some(micro_batch_rows));
            let config = Config { preset, batch_rows, micro_batch_rows, ..Config::default() };
            let found = idle(&config.resolve(1000, 64, 64).unwrap(), ranks, threads);
            let found = found.as_deref().and_then(|said| said.split(" (lower").next());
            assert_eq!(found, expected, "{batch_rows} rows");
        }
    }

    #[test]
    fn small_micro_batches_are_told() {
        for (batch_rows, micro_batch_rows, context, expected) in [
            (64, None, 1024, true),
            (64, Some(64), 1024, false),
            (64, Some(16), 1024, false),
            (4, Some(4), 128, false),
        ] {
            let preset = Some(Preset::Olmo300k.into());
            let config = Config { preset, batch_rows, micro_batch_rows, ..Config::default() };
            let config = config.resolve(1000, context, 64).unwrap();
            let found = advice(&config, context as usize);
            assert_eq!(found.is_some(), expected, "{batch_rows} {micro_batch_rows:?}: {found:?}");
        }
    }
}
