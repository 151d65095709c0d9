//! What the manifest and the report say of a file.

use serde_json::{Value, json};

use super::files::File;
use crate::stage::records::Record;

/// What was read of a file so far.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// Bases taken, by their byte in upper case.
    pub composition: [u64; 256],
    /// Bases taken.
    pub bases: u64,
    /// Bases taken or dropped.
    pub bases_read: u64,
    /// Bases that became N for their low quality.
    pub masked: u64,
    /// Bad records.
    pub skipped: u64,
    /// What the file is.
    pub format: &'static str,
}

impl Default for Tally {
    fn default() -> Self {
        Self { composition: [0; 256], bases: 0, bases_read: 0, masked: 0, skipped: 0, format: "FASTA" }
    }
}

impl Tally {
    /// Counts bases that were taken.
    pub fn add(&mut self, bases: &[u8]) {
        for base in bases {
            self.composition[usize::from(base.to_ascii_uppercase())] += 1;
        }
        self.bases += bases.len() as u64;
        self.bases_read += bases.len() as u64;
    }

    /// What the report says of the file, whose records these are.
    pub fn describe(&self, file: &File, records: &[Record]) -> Value {
        let of = |letters: &[u8]| letters.iter().map(|&b| self.composition[usize::from(b)]).sum::<u64>();
        let (gc, acgt) = (of(b"GC"), of(b"ACGTU"));
        let mut lengths: Vec<u64> = records.iter().map(|record| record.bases).collect();
        lengths.sort_unstable();
        let mut value = json!({
            "name": file.name,
            "path": file.path,
            "format": self.format,
            "records": records.len(),
            "bases": self.bases,
            "bases_read": self.bases_read,
            "longest": lengths.last(),
            "n50": n50(&lengths, lengths.iter().sum()),
            "gc": (acgt > 0).then(|| gc as f64 / acgt as f64),
            "ambiguous": self.bases - acgt,
        });
        let more = [
            ("mates", file.mates.as_ref().map(|path| json!(path))),
            ("taxonomy", file.taxonomy.as_ref().map(|text| json!(text))),
            ("weight", file.weight.map(|weight| json!(weight))),
            ("low_quality", (self.masked > 0).then(|| json!(self.masked))),
            ("skipped", (self.skipped > 0).then(|| json!(self.skipped))),
        ];
        for (key, more) in more {
            if let Some(more) = more {
                value[key] = more;
            }
        }
        value
    }
}

/// Half of the bases lie in records at least this long; `lengths` ascend.
fn n50(lengths: &[u64], bases: u64) -> Option<u64> {
    let mut left = bases;
    lengths.iter().copied().find(|length| {
        left -= length;
        left * 2 < bases
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn n50_weighs_by_bases() {
        for (lengths, expected) in
            [(vec![], None), (vec![7], Some(7)), (vec![1, 1, 2, 4], Some(4)), (vec![2, 3, 4], Some(3))]
        {
            assert_eq!(super::n50(&lengths, lengths.iter().sum()), expected, "{lengths:?}");
        }
    }
}
