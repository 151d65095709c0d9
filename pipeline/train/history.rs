//! The course of a run, one JSON object a line.

#[cfg(any(feature = "train", test))]
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::fs;

/// The records of a run, within its folder.
#[cfg(feature = "train")]
pub(super) const FILE: &str = "history.jsonl";

/// The figures of one moment of a run. Losses are means since the record before; seconds are summed over resumes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Optimizer steps done.
    pub step: u64,
    /// Tokens read so far.
    pub tokens: u64,
    /// Mean loss per target in nats.
    pub loss: f64,
    /// Loss of the targets that stand for bases, in bits per base; none where there were none.
    pub bits_per_base: Option<f64>,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Norm of the gradients of the last step, before clipping.
    pub gradient_norm: f64,
    /// Seconds of training so far.
    pub seconds: f64,
    /// Mean loss per target on the validation rows, where it was measured here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Bits per base on the validation rows, where it was measured here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_bits_per_base: Option<f64>,
}

/// Reads the records of a run from its `history.jsonl`; a line that is no record ends them.
pub fn read_history(path: &Path) -> Result<Vec<Record>, fs::Error> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

/// Writes `records` to `path`, whole or not at all.
#[cfg(any(feature = "train", test))]
pub(super) fn write(path: &Path, records: &[Record]) -> Result<(), fs::Error> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record).map_err(|e| fs::error("write", path)(e.into()))?;
        lines.write_all(b"\n").map_err(fs::error("write", path))?;
    }
    fs::write_atomic(path, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_until_a_damaged_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        let records = [1, 2].map(|step| Record { step, bits_per_base: Some(1.5), ..Record::default() });
        write(&path, &records).unwrap();
        assert_eq!(read_history(&path).unwrap(), records);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"step\": 3");
        std::fs::write(&path, text).unwrap();
        assert_eq!(read_history(&path).unwrap(), records);
    }
}
