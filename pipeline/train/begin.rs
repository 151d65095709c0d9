//! How a run begins: its numbers, and the model and optimizer, fresh, from a checkpoint, or as rank 0 has them.

use std::path::{Path, PathBuf};

use tch::{Device, Tensor};

use super::adamw::AdamW;
use super::checkpoint::{self, DataRef, State, VocabularyRef};
use super::config::{Config, Initialize, Precision, Resolved};
use super::error::Error;
use super::prediction;
use super::ranks::{Ranks, told};
use super::run::{Data, Hooks};
use crate::collective::Group;
use crate::loader::TokenRows;
use crate::model::device;
use crate::model::network::Network;
use crate::model::weights::Weights;
use crate::model::{Shape, hf};

/// A run about to start.
pub(super) struct Begun<'a> {
    pub(super) state: State,
    pub(super) model: Network,
    pub(super) optimizer: AdamW,
    /// The newest checkpoint and its step; its place on rank 0 only.
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

/// Fresh, or from the newest checkpoint in `out`; ranks but the first have it from that one.
pub(super) fn begin<'a>(
    config: &Resolved,
    initial: Option<&Initialize>,
    data: Data<'_>,
    out: &Path,
    hooks: Hooks<'_>,
    group: Option<&'a Group>,
) -> Result<Begun<'a>, Error> {
    let (rows, context) = (data.rows.rows(), data.rows.context());
    let rows = DataRef { rows, context, fingerprint: data.fingerprint.to_owned() };
    let state = State::new(config, VocabularyRef::of(data.vocabulary), rows);
    let bf16 = config.precision == Precision::Bf16;
    let begun = if let Some(group) = group {
        if let device::Choice::Cuda(_) = device::chosen() {
            return Err(Error::RanksOnGpu(group.ranks()));
        }
        if group.leads() {
            share(lead(state, initial, out, hooks, Device::Cpu)?, group)?
        } else {
            follow(state, group)?
        }
    } else {
        if let Some(gpu) = device::gpu()? {
            hooks.note(format!("computes on {gpu}"));
        }
        lead(state, initial, out, hooks, device::open()?)?
    };
    Ok(Begun { model: if bf16 { begun.model.in_bf16() } else { begun.model }, ..begun })
}

fn lead<'a>(
    state: State,
    initial: Option<&Initialize>,
    out: &Path,
    hooks: Hooks<'_>,
    device: Device,
) -> Result<Begun<'a>, Error> {
    let Some(run) = checkpoint::resume(out, &state, device)? else { return fresh(state, initial, device) };
    let saved = (run.state.progress.step, run.folder);
    hooks.note(format!("goes on from step {}", saved.0));
    let (state, model, optimizer) = (run.state, run.model, run.optimizer);
    Ok(Begun { state, model: model.require_gradients()?, optimizer, saved: Some(saved), ranks: None })
}

/// The weights are random, or those of `initial`.
fn fresh<'a>(state: State, initial: Option<&Initialize>, device: Device) -> Result<Begun<'a>, Error> {
    let weights = match (&state.config.model, initial) {
        (Shape::Olmo(config), Some(Initialize { hf: folder })) => Weights::read_hf(config, folder, device)?,
        (shape, Some(Initialize { hf: folder })) => {
            Weights::read(shape.layout(), &folder.join(hf::WEIGHTS), "", device)?
        }
        (shape, None) => Weights::fresh(shape.layout(), state.config.seed, device)?,
    };
    let model = Network::new(&state.config.model, weights, device)?.require_gradients()?;
    let optimizer = AdamW::new(&state.config, device)?;
    Ok(Begun { state, model, optimizer, saved: None, ranks: None })
}

/// Rank 0 gives the others what they need, and keeps its share of the optimizer.
fn share<'a>(begun: Begun<'a>, group: &'a Group) -> Result<Begun<'a>, Error> {
    let Begun { state, mut model, optimizer, saved, .. } = begun;
    let (state, _) = told(group, state, saved.is_some())?;
    let ranks = Ranks::new(group, model.weights())?;
    ranks.spread_from_0(model.weights_mut())?;
    let moments = [ranks.scatter(&optimizer.mean)?, ranks.scatter(&optimizer.square)?];
    let optimizer = optimizer.part(ranks.own.clone(), moments);
    Ok(Begun { state, model, optimizer, saved, ranks: Some(ranks) })
}

/// Another rank takes what rank 0 gives.
fn follow(state: State, group: &Group) -> Result<Begun<'_>, Error> {
    let (state, resumed) = told(group, state, false)?;
    let zeros = Weights::zeros(state.config.model.layout(), Device::Cpu)?;
    let mut model = Network::new(&state.config.model, zeros, Device::Cpu)?.require_gradients()?;
    let ranks = Ranks::new(group, model.weights())?;
    ranks.spread_from_0(model.weights_mut())?;
    let weights = model.weights();
    let nothing = || weights.with_tensors(weights.tensors().iter().map(|_| Tensor::new()).collect());
    let moments = [ranks.scatter(&nothing())?, ranks.scatter(&nothing())?];
    let optimizer = AdamW::with_moments(&state.config, nothing(), nothing()).part(ranks.own.clone(), moments);
    let saved = resumed.then(|| (state.progress.step, PathBuf::new()));
    Ok(Begun { state, model, optimizer, saved, ranks: Some(ranks) })
}
