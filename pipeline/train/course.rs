//! The course of a run as rank 0 writes it down: its records, and the same for `TensorBoard`.

use std::path::{Path, PathBuf};

use tch::Device;

use super::checkpoint::State;
use super::events::Events;
use super::history::{self, FILE, Record, read_history};
use crate::fs;
use crate::model::gpu;
use crate::model::likelihood::Likelihood;

/// Steps since the last record.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Steps {
    pub(super) count: u64,
    /// From asking for their batches to updated weights; on a GPU until it has told what the last of them measured.
    pub(super) seconds: f64,
    /// Of these, until the batches were there.
    pub(super) waited: f64,
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

pub(super) fn record(state: &State, [rate, norm]: [f64; 2], validation: Option<&Likelihood>) -> Record {
    let progress = &state.progress;
    Record {
        step: progress.step,
        tokens: progress.tokens,
        loss: progress.window.loss().unwrap_or(0.0),
        bits_per_base: progress.window.bits_per_base(),
        learning_rate: rate,
        gradient_norm: norm,
        seconds: progress.seconds,
        validation_loss: validation.and_then(Likelihood::loss),
        validation_bits_per_base: validation.and_then(Likelihood::bits_per_base),
    }
}

/// Gigabytes that a run has now and had at most: of a GPU for its tensors, or of a process, where the system tells it.
pub(super) fn memory(device: Device) -> [Option<f64>; 2] {
    if let Some(memory) = gpu::memory(device) {
        return [memory.now, memory.peak].map(|bytes| Some(bytes as f64 / 1e9));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ["VmRSS:", "VmHWM:"].map(|field| gigabytes(&status, field))
}

/// The figures to show, in order, of steps of so many tokens each and operations a token, and memory; and what share that is of the
/// most operations a second, where that is known.
pub(super) fn values(
    record: &Record,
    steps: Steps,
    [tokens, work_per_token]: [f64; 2],
    [memory, peak]: [Option<f64>; 2],
    most: Option<f64>,
) -> Vec<(String, f64)> {
    let tokens_per_second = tokens * steps.count as f64 / steps.seconds;
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
        ("% waiting for data", Some(100.0 * steps.waited / steps.seconds)),
        ("memory GB", memory),
        ("peak memory GB", peak),
    ];
    let values = values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let share = |most: f64| (format!("MFU, % of {} TFLOP/s", most / 1e12), 100.0 * operations / most);
    values.chain(most.map(share)).collect()
}

/// What Linux says of a process's memory, such as `VmHWM:   1024 kB`, where a kB is 1,024 bytes; in 10^9 bytes.
fn gigabytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0 / 1e9)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn memory_is_told_where_it_is_known() {
        let status = "Name:\tx\nVmHWM:\t 2000000 kB\nVmRSS:\t 500000 kB\n";
        assert_eq!(gigabytes(status, "VmHWM:"), Some(2.048));
        assert_eq!(gigabytes(status, "VmRSS:"), Some(0.512));
        assert_eq!((gigabytes(status, "VmPeak:"), gigabytes("VmHWM:", "VmHWM:")), (None, None));
        let steps = Steps { count: 3, seconds: 6.0, waited: 1.5 };
        let values: BTreeMap<_, _> =
            values(&Record::default(), steps, [10.0, 1e9], memory(Device::Cpu), Some(2e10))
                .into_iter()
                .collect();
        assert!(
            values.get("peak memory GB").is_some_and(|memory| *memory > 0.01) || !cfg!(target_os = "linux")
        );
        for (name, expected) in [
            ("tokens/s", 5.0),
            ("GFLOP/s", 5.0),
            ("% waiting for data", 25.0),
            ("MFU, % of 0.02 TFLOP/s", 25.0),
        ] {
            assert!((values[name] - expected).abs() < 1e-9, "{name}: {}", values[name]);
        }
    }
}
