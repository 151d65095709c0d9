//! The optimizer's moments on disk: a rank writes those of its parameters into a file of its own, and reads those of its
//! parameters from whatever files there are. Memory: one tensor beside the moments that stay.

use std::path::{Path, PathBuf};

use tch::Device;

use super::{Error, State, checked};
use crate::model::weights::{self, Weights};
use crate::train::adamw::AdamW;
use crate::train::error;
use crate::train::party::Party;

/// What the files' names begin with.
const OPTIMIZER: &str = "optimizer";
const MEAN: &str = "mean.";
const SQUARE: &str = "square.";

/// Writes this rank's moments into `folder`; the file's name.
pub(super) fn write(folder: &Path, optimizer: &AdamW, party: Party<'_>) -> Result<String, Error> {
    let name = format!("{OPTIMIZER}-{:05}-of-{:05}.safetensors", party.rank(), party.ranks());
    weights::write(&folder.join(&name), &[(MEAN, &optimizer.mean), (SQUARE, &optimizer.square)])?;
    Ok(name)
}

/// The optimizer of the checkpoint in `folder`, with the moments of the parameters that are `own`. Each file is compared with
/// its hash by one rank, and all refuse what one of them does.
pub(in crate::train) fn read(
    folder: &Path,
    state: &State,
    own: Vec<bool>,
    device: Device,
    party: Party<'_>,
) -> Result<AdamW, error::Error> {
    let names = || state.files.keys().filter(|name| name.starts_with(OPTIMIZER));
    let mut share = names().skip(party.rank()).step_by(party.ranks());
    let checked = share.try_for_each(|name| checked(folder, state, name).map(drop));
    party.agree(checked.map_err(error::Error::from), |()| ())?;
    let paths: Vec<PathBuf> = names().map(|name| folder.join(name)).collect();
    let moments = |prefix| Weights::read_some(state.config.model.layout(), &paths, prefix, device, &own);
    Ok(AdamW::with_moments(&state.config, [moments(MEAN)?, moments(SQUARE)?], own))
}
