//! Hashes of k-mers, each with the number of what holds it, as partitions keep them until all are there.
//!
//! `kmers.parquet`: a hash and a number a row, ascending, each pair once. Memory: 16 bytes a pair that is written or read.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{UInt32Array, UInt64Array};
use arrow::datatypes::DataType;
use rayon::prelude::*;

use super::partition::Finished;
use super::tables::{self, Reader, Writer};
use super::tiles::in_pool;
use super::{Error, Task};

/// The table within a partition.
const KMERS: &str = "kmers.parquet";

/// Rows that are written or read at once.
const BATCH_ROWS: usize = 1 << 16;

/// Writes pairs of a hash and a number in a partition, each once.
pub fn write_hashes(task: &Task, mut entries: Vec<(u64, u32)>) -> Result<(), Error> {
    in_pool(task, || entries.par_sort_unstable())?;
    entries.dedup();
    Ok(write(&task.out.join(KMERS), &entries)?)
}

fn write(path: &Path, entries: &[(u64, u32)]) -> Result<(), tables::Error> {
    let mut writer = Writer::create(path, &[("hash", DataType::UInt64), ("holder", DataType::UInt32)])?;
    for rows in entries.chunks(BATCH_ROWS) {
        writer.write(vec![
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(hash, _)| *hash))),
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(_, holder)| *holder))),
        ])?;
    }
    writer.finish()
}

/// Adds the pairs that a partition wrote.
pub fn read_hashes(partition: &Finished, entries: &mut Vec<(u64, u32)>) -> Result<(), Error> {
    Ok(read(&partition.path(KMERS), entries)?)
}

fn read(path: &Path, entries: &mut Vec<(u64, u32)>) -> Result<(), tables::Error> {
    let mut reader = Reader::open(path, BATCH_ROWS)?;
    while let Some(batch) = reader.next_batch()? {
        let (hashes, holders) =
            (batch.column::<UInt64Array>("hash")?, batch.column::<UInt32Array>("holder")?);
        entries.extend(hashes.values().iter().copied().zip(holders.values().iter().copied()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let entries: Vec<(u64, u32)> = (0..70_000).map(|at| (u64::from(at) << 40, at % 3)).collect();
        let mut found = Vec::new();
        for (name, part) in [("a", &entries[..5]), ("b", &[]), ("c", &entries[5..])] {
            write(&folder.path().join(name), part).unwrap();
            read(&folder.path().join(name), &mut found).unwrap();
        }
        assert_eq!(found, entries);
    }
}
