//! A BGZF file as plain bytes: gzip members of at most 64 KiB that each say their own length.
//!
//! Blocks are read in batches; the blocks of a batch are inflated side by side on the current rayon pool, each into its
//! own part of the output, so the bytes that come out do not depend on the number of threads. Holds one batch:
//! [`BATCH_BYTES`] of the file and at most 2 MiB of output.

use std::cell::RefCell;
use std::io::{self, Read};
use std::ops::Range;

use libdeflater::Decompressor;
use rayon::prelude::*;

use super::raw::Raw;
use super::{Damage, Error};

/// Bytes of a block before its deflate data, up to and with the block's length.
pub(super) const HEADER_BYTES: usize = 18;
const TRAILER_BYTES: usize = 8;
/// The most bytes that a block may inflate to.
const MAX_BLOCK_BYTES: usize = 1 << 16;
/// A batch ends when it holds this many bytes of the file or [`BATCH_BLOCKS`] blocks.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_BLOCKS: usize = 32;

pub(super) struct Bgzf {
    raw: Raw,
    blocks: Vec<Block>,
    compressed: Vec<u8>,
    inflated: Vec<u8>,
    /// Bytes of `inflated` handed out.
    taken: usize,
    /// Whether the last block was empty, as the last block of a file is.
    ended: bool,
    /// Found while reading ahead; told once the blocks before it are handed out.
    pending: Option<Error>,
}

/// A block of a batch.
struct Block {
    /// Byte of the file at which it starts.
    offset: u64,
    /// Its deflate data in `compressed`.
    data: Range<usize>,
    checksum: u32,
    /// Bytes that it inflates to.
    length: usize,
}

thread_local! {
    static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// Whether a BGZF block starts with these bytes.
pub(super) fn is_header(head: &[u8]) -> bool {
    head.len() >= HEADER_BYTES
        && head.starts_with(&[0x1F, 0x8B, 8, 4])
        && head[10..].starts_with(&[6, 0, b'B', b'C', 2, 0])
}

impl Bgzf {
    pub(super) fn new(raw: Raw) -> Self {
        Self {
            raw,
            blocks: Vec::new(),
            compressed: Vec::new(),
            inflated: Vec::new(),
            taken: 0,
            ended: false,
            pending: None,
        }
    }

    /// Makes the next batch of bytes; empty only at the end of the file.
    fn fill(&mut self) -> Result<(), Error> {
        self.taken = 0;
        self.inflated.clear();
        while self.inflated.is_empty() {
            if let Some(error) = self.pending.take() {
                return Err(error);
            }
            self.pending = self.read_batch().err();
            if self.blocks.is_empty() && self.pending.is_none() {
                return Ok(());
            }
            self.inflate_batch();
        }
        Ok(())
    }

    /// Reads the blocks of the next batch, none at the end of the file.
    fn read_batch(&mut self) -> Result<(), Error> {
        self.blocks.clear();
        self.compressed.clear();
        while self.blocks.len() < BATCH_BLOCKS && self.compressed.len() < BATCH_BYTES {
            let Some(block) = self.read_block()? else { break };
            self.ended = block.length == 0;
            self.blocks.push(block);
        }
        Ok(())
    }

    fn read_block(&mut self) -> Result<Option<Block>, Error> {
        let offset = self.raw.offset();
        let head = self.raw.peek(HEADER_BYTES)?;
        if head.is_empty() {
            return if self.ended { Ok(None) } else { Err(self.raw.damaged(offset, Damage::BgzfNoEnd)) };
        }
        if head.len() < HEADER_BYTES {
            return Err(self.raw.damaged(offset, Damage::BgzfTruncated));
        }
        let length = usize::from(u16::from_le_bytes([head[16], head[17]])) + 1;
        if !is_header(head) || length < HEADER_BYTES + TRAILER_BYTES {
            return Err(self.raw.damaged(offset, Damage::BgzfHeader));
        }
        let from = self.compressed.len();
        if !self.raw.take_into(length, &mut self.compressed)? {
            return Err(self.raw.damaged(offset, Damage::BgzfTruncated));
        }
        self.describe(offset, from).map(Some)
    }

    /// The block that starts at `from` in `compressed` and reaches to its end.
    fn describe(&self, offset: u64, from: usize) -> Result<Block, Error> {
        let data = from + HEADER_BYTES..self.compressed.len() - TRAILER_BYTES;
        let (words, _) = self.compressed[data.end..].as_chunks::<4>();
        let (checksum, length) = (u32::from_le_bytes(words[0]), u32::from_le_bytes(words[1]) as usize);
        if length > MAX_BLOCK_BYTES {
            return Err(self.raw.damaged(offset, Damage::BgzfData));
        }
        Ok(Block { offset, data, checksum, length })
    }

    /// Inflates the blocks up to the first damaged one, which becomes pending.
    fn inflate_batch(&mut self) {
        self.inflated.resize(self.blocks.iter().map(|block| block.length).sum(), 0);
        let first_damaged =
            self.inflate_blocks().into_iter().enumerate().find_map(|(i, r)| Some((i, r.err()?)));
        if let Some((i, damage)) = first_damaged {
            self.inflated.truncate(self.blocks[..i].iter().map(|block| block.length).sum());
            self.pending = Some(self.raw.damaged(self.blocks[i].offset, damage));
        }
    }

    fn inflate_blocks(&mut self) -> Vec<Result<(), Damage>> {
        let mut rest = &mut self.inflated[..];
        let mut jobs = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (out, after) = rest.split_at_mut(block.length);
            jobs.push((block, out));
            rest = after;
        }
        let compressed = &self.compressed;
        jobs.into_par_iter()
            .map(|(block, out)| inflate(block, &compressed[block.data.clone()], out))
            .collect()
    }
}

/// Inflates one block into `out`, which has its length.
fn inflate(block: &Block, data: &[u8], out: &mut [u8]) -> Result<(), Damage> {
    let inflated = DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.deflate_decompress(data, out));
    if inflated != Ok(block.length) {
        return Err(Damage::BgzfData);
    }
    let found = libdeflater::crc32(out);
    if found == block.checksum {
        Ok(())
    } else {
        Err(Damage::BgzfChecksum { found, expected: block.checksum })
    }
}

impl Read for Bgzf {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.inflated.len() {
            self.fill()?;
        }
        let count = out.len().min(self.inflated.len() - self.taken);
        out[..count].copy_from_slice(&self.inflated[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
