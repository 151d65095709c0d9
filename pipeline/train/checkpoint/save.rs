//! Writing a checkpoint, by all ranks together: each its moments, rank 0 all else. Memory: one tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Error, FOLDER, FORMAT, MODEL, STATE, State, TOKENIZER, hash, moments, place, step_of, whole};
use crate::fs;
use crate::model::weights::{self, Weights};
use crate::train::adamw::AdamW;
use crate::train::error;
use crate::train::party::Party;

/// How long to look for a folder that another rank made: network file systems take a while. Tests have none.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// The folder in which ranks make a checkpoint. Rank 0 makes it, and removes it unless it is published.
pub(in crate::train) struct Part {
    path: PathBuf,
    made: Option<TempDir>,
}

impl Part {
    /// Rank 0 makes it and tells the others where.
    pub(in crate::train) fn make(out: &Path, party: Party<'_>) -> Result<Self, error::Error> {
        let folder = out.join(FOLDER);
        let made = if party.leads() { begin(&folder).map(Some) } else { Ok(None) };
        let (made, names) = party.agree(made.map_err(error::Error::from), |made| {
            let name = made.as_ref().and_then(|made| made.path().file_name());
            name.unwrap_or_default().to_string_lossy().into_owned()
        })?;
        Ok(Self { path: folder.join(&names[0]), made })
    }

    /// Waits until this rank sees it.
    pub(in crate::train) fn see(&self, party: Party<'_>) -> Result<(), error::Error> {
        let began = Instant::now();
        while !self.path.is_dir() {
            if began.elapsed() > PATIENCE {
                let (rank, folder) = (party.rank(), self.path.clone());
                return Err(error::Error::NotShared { rank, folder, waited: PATIENCE });
            }
            std::thread::sleep(LOOK);
            // To list a folder makes network file systems ask for what is new in it.
            drop(self.path.parent().map(|parent| std::fs::read_dir(parent).map(Iterator::count)));
        }
        Ok(())
    }
}

/// Writes a checkpoint of the run in `out`, then removes those that are not to be kept. Where that fails on one rank, it
/// does on all, and those that were there stay.
pub(in crate::train) fn save(
    out: &Path,
    state: &mut State,
    (weights, optimizer): (&Weights, &AdamW),
    tokenizer: &str,
    party: Party<'_>,
) -> Result<PathBuf, error::Error> {
    let part = Part::make(out, party)?;
    let written = part.see(party).and_then(|()| {
        let model = party.leads().then_some((weights, tokenizer));
        Ok(write(&part.path, model, optimizer, party)?)
    });
    let (_, files) = party.agree(written, Clone::clone)?;
    (state.format, state.files) = (FORMAT.to_owned(), files.into_iter().flatten().collect());
    let place = place(out, state.progress.step);
    let published = part.made.map_or(Ok(()), |made| publish(made, &place, state));
    party.agree(published.map_err(error::Error::from), |()| ())?;
    Ok(place)
}

fn begin(folder: &Path) -> Result<TempDir, Error> {
    fs::create_dir_all(folder)?;
    Ok(fs::temporary_folder(folder, "part-")?)
}

/// Writes this rank's moments, and the weights and the tokenizer if it has that to do; the hash of each file.
fn write(
    folder: &Path,
    model: Option<(&Weights, &str)>,
    optimizer: &AdamW,
    party: Party<'_>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut names = vec![moments::write(folder, optimizer, party)?];
    if let Some((weights, tokenizer)) = model {
        weights::write(&folder.join(MODEL), &[("", weights)])?;
        let path = folder.join(TOKENIZER);
        std::fs::write(&path, tokenizer).map_err(fs::error("write", &path))?;
        names.extend([MODEL, TOKENIZER].map(str::to_owned));
    }
    names.into_iter().map(|name| hash_synced(&folder.join(&name)).map(|hash| (name, hash))).collect()
}

fn hash_synced(path: &Path) -> Result<String, Error> {
    fs::open(path)?.sync_all().map_err(fs::error("sync", path))?;
    hash(path)
}

/// Completes a folder and moves it to its place; one that stands there already goes first, and others after.
fn publish(part: TempDir, place: &Path, state: &State) -> Result<(), Error> {
    write_state(part.path(), state)?;
    remove(place)?;
    let part = part.keep();
    std::fs::rename(&part, place).map_err(fs::error("rename to", place))?;
    let parent = place.parent().unwrap_or(place);
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(fs::error("sync", parent))?;
    remove_others(parent, &kept(parent, state))
}

fn write_state(folder: &Path, state: &State) -> Result<(), Error> {
    let path = folder.join(STATE);
    let bytes =
        serde_json::to_vec_pretty(state).map_err(|source| Error::State { path: path.clone(), source })?;
    Ok(fs::write_atomic(&path, &bytes)?)
}

/// The newest checkpoints and the best one.
fn kept(folder: &Path, state: &State) -> Vec<PathBuf> {
    let mut whole = whole(folder).collect::<Vec<_>>();
    whole.sort_by_key(|path| std::cmp::Reverse(step_of(path)));
    let best = state.progress.best.filter(|_| state.config.keep_best).map(|best| best.step);
    let (newest, older) = whole.split_at(whole.len().min(state.config.keep_checkpoints as usize));
    let best = older.iter().filter(|path| step_of(path) == best);
    newest.iter().chain(best).cloned().collect()
}

fn remove_others(folder: &Path, keep: &[PathBuf]) -> Result<(), Error> {
    let entries = std::fs::read_dir(folder).map_err(fs::error("list", folder))?;
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| !keep.contains(path)) {
        remove(&path)?;
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(fs::error("remove", folder)(error).into())
        }
        _ => Ok(()),
    }
}
