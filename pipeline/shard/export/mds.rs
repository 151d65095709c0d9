//! MDS, version 2: `SPLIT/index.json` and `SPLIT/shard.00000.mds`, whose one column `tokens` is an array of fixed shape.
//!
//! A shard is: number of samples, where each begins and the last ends (all u32, little-endian), the column's description
//! as JSON, the samples. Memory: one shard, and its compressed copy.

use std::path::Path;

use serde_json::{Value, json};

use super::{Error, Source, Written, append};
use crate::fs;

/// Bytes of a shard, as mosaicml-streaming has by default.
const SHARD_BYTES: usize = 1 << 26;

/// zstd's level, as mosaicml-streaming has by default.
const LEVEL: i32 = 3;

pub(super) fn write(source: &Source, folder: &Path, zstd: bool) -> Result<Written, Error> {
    let folder = folder.join(source.name);
    fs::create_dir_all(&folder)?;
    let writer = Writer { source, folder: &folder, zstd, config: config(source, zstd)? };
    let per_shard = writer.rows_per_shard();
    let mut shards = Vec::new();
    let mut first = 0;
    while first < source.rows.len() {
        let last = (first + per_shard).min(source.rows.len());
        shards.push(writer.shard(shards.len(), first, last)?);
        first = last;
    }
    let index = json!({"shards": shards, "version": 2});
    fs::write_atomic(&folder.join("index.json"), index.to_string().as_bytes())?;
    Ok(source.rows_kept())
}

/// What every shard says of its columns, keys in alphabetical order.
fn config(source: &Source, zstd: bool) -> Result<Value, Error> {
    if source.row_bytes() >= 1 << 31 {
        let reason = format!("a row has {} bytes, a sample less than 2^31", source.row_bytes());
        return Err(source.unfit("mds", reason));
    }
    Ok(json!({
        "column_encodings": [format!("ndarray:{}:{}", source.type_name(), source.context())],
        "column_names": ["tokens"],
        "column_sizes": [source.row_bytes()],
        "compression": if zstd { json!(format!("zstd:{LEVEL}")) } else { Value::Null },
        "format": "mds",
        "hashes": [],
        "size_limit": SHARD_BYTES,
        "version": 2,
    }))
}

struct Writer<'a> {
    source: &'a Source<'a>,
    folder: &'a Path,
    zstd: bool,
    config: Value,
}

impl Writer<'_> {
    fn rows_per_shard(&self) -> u64 {
        let head = 8 + self.config.to_string().len();
        (SHARD_BYTES.saturating_sub(head) / (self.source.row_bytes() + 4)).max(1) as u64
    }

    /// Writes the rows `first..last`; returns the shard's entry in the index.
    fn shard(&self, number: usize, first: u64, last: u64) -> Result<Value, Error> {
        let name = format!("shard.{number:05}.mds");
        let raw = self.encode(first, last);
        let mut entry = self.config.clone();
        entry["raw_data"] = json!({"basename": name, "bytes": raw.len(), "hashes": {}});
        entry["zip_data"] = Value::Null;
        entry["samples"] = json!(last - first);
        if self.zstd {
            let (name, packed) = self.compress(&name, &raw)?;
            entry["zip_data"] = json!({"basename": name, "bytes": packed, "hashes": {}});
        } else {
            let path = self.folder.join(&name);
            std::fs::write(&path, &raw).map_err(fs::error("write", &path))?;
        }
        Ok(entry)
    }

    fn compress(&self, name: &str, raw: &[u8]) -> Result<(String, usize), Error> {
        let name = format!("{name}.zstd");
        let path = self.folder.join(&name);
        let packed = zstd::bulk::compress(raw, LEVEL).map_err(fs::error("compress", &path))?;
        std::fs::write(&path, &packed).map_err(fs::error("write", &path))?;
        Ok((name, packed.len()))
    }

    fn encode(&self, first: u64, last: u64) -> Vec<u8> {
        let config = self.config.to_string();
        let rows = usize::try_from(last - first).unwrap_or(usize::MAX);
        let head = 4 + 4 * (rows + 1) + config.len();
        let mut raw = Vec::with_capacity(head + rows * self.source.row_bytes());
        let mut push = |value: usize| raw.extend(u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
        push(rows);
        (0..=rows).for_each(|row| push(head + row * self.source.row_bytes()));
        raw.extend(config.as_bytes());
        (first..last).for_each(|row| append(self.source.rows.get(row), &mut raw));
        raw
    }
}
