//! The course of a run as rank 0 writes it down: its records, and the same for `TensorBoard`.

use std::path::{Path, PathBuf};

use super::checkpoint::State;
use super::events::Events;
use super::history::{self, FILE, Record, read_history};
use crate::fs;
use crate::model::likelihood::Likelihood;

/// What one step measured.
pub(super) struct Step {
    pub(super) rate: f64,
    pub(super) norm: f64,
    pub(super) seconds: f64,
}

/// The records so far, and where they go.
pub(super) struct Course {
    out: PathBuf,
    history: Vec<Record>,
    events: Events,
}

impl Course {
    /// Goes on with the records in `out` up to where the run is.
    pub(super) fn begin(out: &Path, state: &State) -> Result<Self, fs::Error> {
        let mut history = read_history(&out.join(FILE)).unwrap_or_default();
        history.retain(|record| record.step <= state.progress.step);
        let events = Events::begin(out, &history, state.progress.seconds)?;
        Ok(Self { out: out.to_owned(), history, events })
    }

    pub(super) fn add(&mut self, record: Record) -> Result<(), fs::Error> {
        self.events.add(&self.out, &record)?;
        self.history.push(record);
        Ok(())
    }

    /// Writes all records, whole or not at all.
    pub(super) fn save(&self) -> Result<(), fs::Error> {
        history::write(&self.out.join(FILE), &self.history)
    }

    pub(super) fn into_history(self) -> Vec<Record> {
        self.history
    }
}

pub(super) fn record(state: &State, measured: &Step, validation: Option<&Likelihood>) -> Record {
    let progress = &state.progress;
    Record {
        step: progress.step,
        tokens: progress.tokens,
        loss: progress.window.loss().unwrap_or(0.0),
        bits_per_base: progress.window.bits_per_base(),
        learning_rate: measured.rate,
        gradient_norm: measured.norm,
        seconds: progress.seconds,
        validation_loss: validation.and_then(Likelihood::loss),
        validation_bits_per_base: validation.and_then(Likelihood::bits_per_base),
    }
}

/// The figures to show, in order.
pub(super) fn values(record: &Record, tokens_per_second: f64, work_per_token: f64) -> Vec<(String, f64)> {
    let operations = tokens_per_second * work_per_token;
    let values = [
        ("loss", Some(record.loss)),
        ("bits per base", record.bits_per_base),
        ("validation loss", record.validation_loss),
        ("validation bits per base", record.validation_bits_per_base),
        ("learning rate", Some(record.learning_rate)),
        ("gradient norm", Some(record.gradient_norm)),
        ("tokens/s", Some(tokens_per_second)),
        ("GFLOP/s", Some(operations / 1e9)),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
