//! What the manifest and the report say of a file.

use serde_json::{Value, json};

use super::files::File;
use super::to_json;
use crate::artifact::Account;
use crate::sequence::statistics::Counter;
use crate::stage::records::Record;

/// What was read of a file so far.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// Bases taken.
    pub counter: Counter,
    /// Bases taken and dropped.
    pub account: Account,
    /// Bases that became N for their low quality.
    pub masked: u64,
    /// Bad records.
    pub skipped: u64,
    /// What the file is.
    pub format: &'static str,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counter: Counter::default(),
            account: Account::default(),
            masked: 0,
            skipped: 0,
            format: "FASTA",
        }
    }
}

impl Tally {
    /// Counts bases that were taken, from base `start` of a record.
    pub fn add(&mut self, start: u64, bases: &[u8]) {
        self.counter.push(start, bases);
        self.account.keep(bases.len() as u64);
    }

    /// What the report says of the file, whose records these are; a record's length is that of all of it, also where
    /// regions of it were taken.
    pub fn describe(&mut self, file: &File, records: &[Record]) -> Value {
        for record in records {
            self.counter.add_record(record.bases);
        }
        let statistics = self.counter.statistics();
        let own = json!({
            "name": file.name,
            "path": file.origin.path(),
            "format": self.format,
            "bases_read": self.account.bases_in,
            "gc": statistics.gc(),
            "ambiguous": statistics.bases - statistics.acgt_bases,
        });
        let more = [
            ("mates", file.mates.as_ref().map(|mates| json!(mates.path()))),
            ("taxonomy", file.taxonomy.as_ref().map(|text| json!(text))),
            ("weight", file.weight.map(|weight| json!(weight))),
            ("low_quality", (self.masked > 0).then(|| json!(self.masked))),
            ("skipped", (self.skipped > 0).then(|| json!(self.skipped))),
        ];
        let mut value = to_json(&statistics);
        for (key, own) in own.as_object().into_iter().flatten() {
            value[key] = own.clone();
        }
        for (key, more) in more {
            if let Some(more) = more {
                value[key] = more;
            }
        }
        value
    }
}
