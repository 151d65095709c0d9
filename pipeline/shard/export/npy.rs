//! `SPLIT.npy`: one array of shape (rows, context), which `numpy.load(path, mmap_mode="r")` maps. Memory: a buffer.

use std::io::Write;
use std::path::Path;

use super::{Error, Source, Written, append};
use crate::fs;

/// Bytes that are gathered before they are written.
pub(super) const BUFFER: usize = 1 << 20;

/// The data begin at a multiple of this.
const ALIGNMENT: usize = 64;

pub(super) fn write(source: &Source, folder: &Path) -> Result<Written, Error> {
    let path = folder.join(format!("{}.npy", source.name));
    let mut file = fs::create(&path)?;
    file.write_all(&header(source)).map_err(fs::error("write", &path))?;
    let mut buffer = Vec::with_capacity(BUFFER + source.row_bytes());
    for row in 0..source.rows.len() {
        append(source.rows.get(row), &mut buffer);
        if buffer.len() >= BUFFER {
            file.write_all(&buffer).map_err(fs::error("write", &path))?;
            buffer.clear();
        }
    }
    file.write_all(&buffer).map_err(fs::error("write", &path))?;
    Ok(source.rows_kept())
}

/// Version 1.0 of the format: magic bytes, the length of the text, and the text filled up with spaces.
fn header(source: &Source) -> Vec<u8> {
    let (bytes, rows, context) = (source.token_bytes(), source.rows.len(), source.context());
    let text = format!("{{'descr': '<u{bytes}', 'fortran_order': False, 'shape': ({rows}, {context}), }}");
    let before = b"\x93NUMPY\x01\x00".len() + 2;
    let whole = (before + text.len() + 1).next_multiple_of(ALIGNMENT);
    let padded = format!("{text:<width$}\n", width = whole - before - 1);
    let length = u16::try_from(padded.len()).unwrap_or(u16::MAX).to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, padded.as_bytes()].concat()
}
