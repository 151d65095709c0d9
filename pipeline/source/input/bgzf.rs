//! A BGZF file as plain bytes: gzip members of at most 64 KiB that each say their own length.
//!
//! Blocks are read a few at a time, a chunk, and while one chunk is handed out the next ones are inflated by the other threads of
//! the current rayon pool; the bytes that come out do not depend on their number. With one thread a chunk is inflated when it is
//! wanted. Holds up to [`MAX_AHEAD`] chunks and the one handed out, each of at most [`CHUNK_BLOCKS`] blocks: 256 KiB of the file and
//! 256 KiB of output. How many it is rises with what was read, so that a short region costs little.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use libdeflater::Decompressor;

use super::raw::Raw;
use super::{Damage, Error};

/// Bytes of a block before its deflate data, up to and with the block's length.
pub(super) const HEADER_BYTES: usize = 18;
const TRAILER_BYTES: usize = 8;
/// The most bytes that a block may inflate to.
const MAX_BLOCK_BYTES: usize = 1 << 16;
/// Blocks that one thread inflates at a time: few enough to stay in its second cache until they are handed out.
const CHUNK_BLOCKS: usize = 4;
/// The most chunks that wait, inflated or not.
const MAX_AHEAD: usize = 16;
/// How long a thread without other work waits for a chunk until it looks for other work again.
const WAIT: Duration = Duration::from_micros(100);

pub(super) struct Bgzf {
    raw: Raw,
    /// What is handed out.
    chunk: Chunk,
    /// Bytes of it handed out.
    taken: usize,
    /// What follows, in the order of the file.
    ahead: VecDeque<Ahead>,
    /// Chunks to be ahead.
    wanted: usize,
    /// Whether the last block read was empty, as the last block of a file is.
    ended: bool,
    /// Whether there is nothing more to read.
    read: bool,
    /// Chunks that were handed out, whose memory is used again.
    spent: Vec<Chunk>,
}

/// What follows the chunk that is handed out.
enum Ahead {
    /// A chunk to inflate.
    Waiting(Chunk),
    /// A chunk that some thread inflates.
    Inflating(Receiver<Chunk>),
    /// The file is damaged here.
    Damaged(Error),
}

/// Some blocks, and once they are inflated their bytes.
#[derive(Default)]
struct Chunk {
    blocks: Vec<Block>,
    /// As they lie in the file.
    compressed: Vec<u8>,
    inflated: Vec<u8>,
    /// What is wrong with the block that follows those inflated, and the byte of the file at which it starts.
    damage: Option<(u64, Damage)>,
}

/// A block of a chunk.
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
            chunk: Chunk::default(),
            taken: 0,
            ahead: VecDeque::new(),
            wanted: 1,
            ended: false,
            read: false,
            spent: Vec::new(),
        }
    }

    /// Appends the next `count` bytes to `out` if they are at hand, and tells whether they are.
    pub(super) fn take_held(&mut self, count: usize, out: &mut Vec<u8>) -> bool {
        let held = self.chunk.inflated[self.taken..].get(..count);
        out.extend_from_slice(held.unwrap_or_default());
        self.taken += held.map_or(0, <[u8]>::len);
        held.is_some()
    }

    /// Makes the next bytes; none only at the end of the file.
    fn fill(&mut self) -> Result<(), Error> {
        while self.taken == self.chunk.inflated.len() {
            if let Some((offset, damage)) = self.chunk.damage.take() {
                return Err(self.raw.damaged(offset, damage));
            }
            self.read_ahead();
            let Some(next) = self.ahead.pop_front() else { return Ok(()) };
            let next = next.inflated()?;
            self.spent.push(std::mem::replace(&mut self.chunk, next));
            self.taken = 0;
        }
        Ok(())
    }

    /// Reads until as many chunks are ahead as are wanted, and has them inflated where another thread may do it.
    fn read_ahead(&mut self) {
        let threads = rayon::current_num_threads();
        while self.ahead.len() < self.wanted && !self.read {
            let mut chunk = self.spent.pop().unwrap_or_default();
            let result = self.read_chunk(&mut chunk);
            self.read = chunk.blocks.len() < CHUNK_BLOCKS;
            if !chunk.blocks.is_empty() {
                self.ahead.push_back(if threads > 1 { chunk.send() } else { Ahead::Waiting(chunk) });
            }
            self.ahead.extend(result.err().map(Ahead::Damaged));
        }
        if threads > 1 {
            self.wanted = (self.wanted + 1).min(2 * threads).min(MAX_AHEAD);
        }
    }

    /// Reads the next blocks, fewer than a chunk holds only at the end of the file or before damage.
    fn read_chunk(&mut self, chunk: &mut Chunk) -> Result<(), Error> {
        chunk.clear();
        while chunk.blocks.len() < CHUNK_BLOCKS {
            let Some(block) = self.read_block(&mut chunk.compressed)? else { break };
            self.ended = block.length == 0;
            chunk.blocks.push(block);
        }
        Ok(())
    }

    /// Appends the next block as it lies in the file; none at its end.
    fn read_block(&mut self, compressed: &mut Vec<u8>) -> Result<Option<Block>, Error> {
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
        let from = compressed.len();
        if !self.raw.take_into(length, compressed)? {
            return Err(self.raw.damaged(offset, Damage::BgzfTruncated));
        }
        let block = Block::at(offset, from, compressed);
        block.map(Some).ok_or_else(|| self.raw.damaged(offset, Damage::BgzfData))
    }
}

impl Ahead {
    /// The chunk with its bytes. A thread of the pool does other work while it waits.
    fn inflated(self) -> Result<Chunk, Error> {
        match self {
            Self::Damaged(error) => Err(error),
            Self::Waiting(mut chunk) => {
                chunk.inflate();
                Ok(chunk)
            }
            Self::Inflating(chunk) => Ok(wait(&chunk)),
        }
    }
}

fn wait(inflating: &Receiver<Chunk>) -> Chunk {
    loop {
        match inflating.try_recv() {
            Ok(chunk) => return chunk,
            Err(TryRecvError::Disconnected) => unreachable!("a chunk is sent whatever its bytes are"),
            Err(TryRecvError::Empty) => {}
        }
        if rayon::yield_now() != Some(rayon::Yield::Executed)
            && let Ok(chunk) = inflating.recv_timeout(WAIT)
        {
            return chunk;
        }
    }
}

impl Chunk {
    fn clear(&mut self) {
        self.blocks.clear();
        self.compressed.clear();
        self.damage = None;
    }

    /// Lets a thread of the pool inflate it, after what was sent before.
    fn send(mut self) -> Ahead {
        let (sender, receiver) = channel();
        rayon::spawn_fifo(move || {
            self.inflate();
            drop(sender.send(self)); // nobody waits for it when the reader is gone
        });
        Ahead::Inflating(receiver)
    }

    /// Inflates the blocks up to the first damaged one.
    fn inflate(&mut self) {
        self.inflated.resize(self.blocks.iter().map(|block| block.length).sum(), 0);
        let mut end = 0;
        for block in &self.blocks {
            let (out, data) =
                (&mut self.inflated[end..end + block.length], &self.compressed[block.data.clone()]);
            if let Err(damage) = inflate(block, data, out) {
                self.damage = Some((block.offset, damage));
                break;
            }
            end += block.length;
        }
        self.inflated.truncate(end);
    }
}

impl Block {
    /// The block that starts at `from` in `compressed` and reaches to its end; none if it says that it is too long.
    fn at(offset: u64, from: usize, compressed: &[u8]) -> Option<Self> {
        let data = from + HEADER_BYTES..compressed.len() - TRAILER_BYTES;
        let (words, _) = compressed[data.end..].as_chunks::<4>();
        let (checksum, length) = (u32::from_le_bytes(words[0]), u32::from_le_bytes(words[1]) as usize);
        (length <= MAX_BLOCK_BYTES).then_some(Self { offset, data, checksum, length })
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
        self.fill()?;
        let rest = &self.chunk.inflated[self.taken..];
        let count = out.len().min(rest.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}
