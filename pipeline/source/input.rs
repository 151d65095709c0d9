//! A file, or standard input, as a stream of plain bytes: what it is wrapped in shows in its first bytes, not its name.
//!
//! Holds [`RAW_BYTES`] of the file; for BGZF chunks of blocks (0.5 MiB, 8 MiB with many threads), for zstd and xz what their windows need
//! (at most 128 and 256 MiB; a few for files made with usual settings).

mod bgzf;
mod gzip;
mod lines;
mod raw;
mod xz;
mod zstd;

use std::io::{self, IsTerminal, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use self::bgzf::Bgzf;
use self::gzip::Gzip;
use self::raw::Raw;
use self::xz::Xz;
use self::zstd::Zstd;
use crate::fs;

pub use self::lines::{Lines, MAX_LINE_BYTES};
pub use self::raw::RAW_BYTES;

/// Bytes by which a buffer grows ahead of what a damaged file only claims to hold.
const GROWTH_BYTES: usize = 1 << 20;

/// The path that stands for standard input.
pub const STDIN: &str = "-";

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not open, or the system fails while it is read.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// The wrapper around the bytes is damaged.
    #[error("cannot read `{}` at byte {offset}: {damage}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Byte of the file as it lies on disk, from 0.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// A wrapper that is known but not read here.
    #[error("cannot read `{}`: it is {found}; expected plain text, gzip, BGZF, zstd or xz", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The wrapper's name.
        found: &'static str,
    },
    /// Standard input that nobody feeds.
    #[error("cannot read standard input: found a terminal, expected a file or another command's output")]
    Terminal,
    /// A line of text that does not end.
    #[error("cannot read `{}`, line {line}: found more than {MAX_LINE_BYTES} bytes; expected a line's end",
        file.display())]
    LongLine {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: u64,
    },
}

/// What is wrong with a compressed stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file ends within a gzip member.
    #[error("the file is truncated: it ends in the middle of a gzip stream")]
    GzipTruncated,
    /// The bytes do not have the sum that the stream says.
    #[error("found bytes that do not match the gzip stream's checksum")]
    GzipChecksum,
    /// Something else after a whole gzip stream.
    #[error("expected another gzip stream or the file's end, found other bytes")]
    GzipTrailing,
    /// The bytes are no gzip or deflate stream.
    #[error("found bytes that are no gzip stream")]
    GzipData,
    /// The file ends within a block.
    #[error("the file is truncated: it ends in the middle of the BGZF block that starts here")]
    BgzfTruncated,
    /// The file ends after a whole block, but without the empty block that ends every BGZF file.
    #[error("the file is truncated: expected an empty BGZF block at its end, found none")]
    BgzfNoEnd,
    /// Something else where a block should start.
    #[error("expected a BGZF block, found other bytes")]
    BgzfHeader,
    /// The block does not inflate to the length that it says.
    #[error("found a BGZF block whose data do not inflate")]
    BgzfData,
    /// The bytes do not have the sum that the block says.
    #[error("found a BGZF block with checksum {found:#010x}, expected {expected:#010x}")]
    BgzfChecksum {
        /// Of the bytes.
        found: u32,
        /// In the block's trailer.
        expected: u32,
    },
    /// The file ends within a zstd frame.
    #[error("the file is truncated: it ends in the middle of a zstd frame")]
    ZstdTruncated,
    /// The bytes of a zstd frame do not have its checksum.
    #[error("found bytes that do not match the zstd frame's checksum")]
    ZstdChecksum,
    /// A zstd frame whose window is too large.
    #[error("found a zstd frame whose window is larger than {} MiB, expected a smaller one (`--long=27`)",
        zstd::WINDOW_BYTES >> 20)]
    ZstdWindow,
    /// Something else after a whole zstd frame.
    #[error("expected another zstd frame or the file's end, found other bytes")]
    ZstdTrailing,
    /// The bytes are no zstd frame.
    #[error("found bytes that are no zstd frame")]
    ZstdData,
    /// The file ends within an xz stream.
    #[error("the file is truncated: it ends in the middle of an xz stream")]
    XzTruncated,
    /// An xz stream that needs too much memory.
    #[error("found an xz stream that needs more than {} MiB of memory, expected less (`xz -9` needs 65)",
        xz::MEMORY_BYTES >> 20)]
    XzMemory,
    /// The bytes are no xz stream, or do not match its checksum.
    #[error("found bytes that are no xz stream, or do not match its checksum")]
    XzData,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

impl Error {
    /// The typed error within what [`Input::read`] gave; any other one is named after `file`.
    pub fn from_io(error: io::Error, file: &Path) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::File(fs::Error { action: "read", path: file.to_owned(), source }),
        }
    }
}

/// A stream of plain bytes that knows its file's name; [`Read::read`] fails with an [`Error`] within.
pub struct Input {
    file: PathBuf,
    stream: Stream,
    /// Plain bytes read by [`Input::peek`] and not yet handed out.
    peeked: Vec<u8>,
}

enum Stream {
    Plain(Raw),
    Gzip(Box<Gzip>),
    Bgzf(Box<Bgzf>),
    Zstd(Box<Zstd>),
    Xz(Box<Xz>),
}

/// What a stream is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapper {
    /// Nothing.
    Plain,
    /// One or more gzip members.
    Gzip,
    /// Gzip in blocks of at most 64 KiB, as bgzip and BAM have it.
    Bgzf,
    /// One or more zstd frames.
    Zstd,
    /// One or more xz streams.
    Xz,
}

impl Input {
    /// Opens a file, or standard input for the path `-`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path == Path::new(STDIN) {
            if io::stdin().is_terminal() {
                return Err(Error::Terminal);
            }
            return Self::new("standard input", io::stdin());
        }
        Self::new(path, fs::open(path)?)
    }

    /// Opens a BGZF file at byte `offset`, at which a block begins.
    pub fn open_at(path: &Path, offset: u64) -> Result<Self, Error> {
        Self::unwrap(raw_at(path, offset)?)
    }

    /// Opens a plain file at byte `offset`.
    pub fn plain_at(path: &Path, offset: u64) -> Result<Self, Error> {
        Ok(Self { file: path.to_owned(), stream: Stream::Plain(raw_at(path, offset)?), peeked: Vec::new() })
    }

    /// Reads from any stream; `file` is what messages call it.
    pub fn new(file: impl Into<PathBuf>, reader: impl Read + Send + 'static) -> Result<Self, Error> {
        Self::unwrap(Raw::new(file.into(), Box::new(reader)))
    }

    fn unwrap(mut raw: Raw) -> Result<Self, Error> {
        let file = raw.file().to_owned();
        let head = raw.peek(bgzf::HEADER_BYTES)?;
        let stream = match wrapper(head).map_err(|found| Error::Unsupported { file: file.clone(), found })? {
            Wrapper::Plain => Stream::Plain(raw),
            Wrapper::Gzip => Stream::Gzip(Box::new(Gzip::new(raw))),
            Wrapper::Bgzf => Stream::Bgzf(Box::new(Bgzf::new(raw))),
            Wrapper::Zstd => Stream::Zstd(Box::new(Zstd::new(raw)?)),
            Wrapper::Xz => Stream::Xz(Box::new(Xz::new(raw)?)),
        };
        Ok(Self { file, stream, peeked: Vec::new() })
    }

    /// What messages call the stream.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What the stream is wrapped in.
    pub fn wrapper(&self) -> Wrapper {
        match self.stream {
            Stream::Plain(_) => Wrapper::Plain,
            Stream::Gzip(_) => Wrapper::Gzip,
            Stream::Bgzf(_) => Wrapper::Bgzf,
            Stream::Zstd(_) => Wrapper::Zstd,
            Stream::Xz(_) => Wrapper::Xz,
        }
    }

    /// The next `count` plain bytes, fewer at the end of the stream, without taking them.
    pub fn peek(&mut self, count: usize) -> Result<&[u8], Error> {
        let mut peeked = std::mem::take(&mut self.peeked);
        let missing = count.saturating_sub(peeked.len());
        let result = self.read_up_to(missing, &mut peeked);
        self.peeked = peeked;
        result?;
        Ok(&self.peeked[..count.min(self.peeked.len())])
    }

    /// Appends the next `count` bytes to `out` and returns how many there were, fewer only at the end of the stream.
    ///
    /// `out` grows as the bytes come, so that a length read from a damaged file costs no memory.
    pub fn read_up_to(&mut self, count: usize, out: &mut Vec<u8>) -> Result<usize, Error> {
        if let Stream::Bgzf(bgzf) = &mut self.stream
            && self.peeked.is_empty()
            && bgzf.take_held(count, out)
        {
            return Ok(count);
        }
        let (before, mut filled) = (out.len(), out.len());
        while filled < before + count {
            out.resize((before + count).min(filled + GROWTH_BYTES), 0);
            let got = self.read(&mut out[filled..]).map_err(|error| Error::from_io(error, &self.file))?;
            filled += got;
            if got == 0 {
                break;
            }
        }
        out.truncate(filled);
        Ok(filled - before)
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.peeked.is_empty() {
            return self.stream.read(out);
        }
        let count = out.len().min(self.peeked.len());
        out[..count].copy_from_slice(&self.peeked[..count]);
        self.peeked.drain(..count);
        Ok(count)
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(raw) => raw.read(out),
            Self::Gzip(gzip) => gzip.read(out),
            Self::Bgzf(bgzf) => bgzf.read(out),
            Self::Zstd(zstd) => zstd.read(out),
            Self::Xz(xz) => xz.read(out),
        }
    }
}

fn raw_at(path: &Path, offset: u64) -> Result<Raw, Error> {
    let mut file = fs::open(path)?;
    file.seek(SeekFrom::Start(offset)).map_err(fs::error("read", path))?;
    Ok(Raw::new(path.to_owned(), Box::new(file)).starting_at(offset))
}

/// Tells the wrapper by a stream's first bytes; the error is the name of one that is not read here.
fn wrapper(head: &[u8]) -> Result<Wrapper, &'static str> {
    match head {
        _ if bgzf::is_header(head) => Ok(Wrapper::Bgzf),
        _ if head.starts_with(&gzip::MAGIC) => Ok(Wrapper::Gzip),
        _ if head.starts_with(&zstd::MAGIC) => Ok(Wrapper::Zstd),
        _ if head.starts_with(&xz::MAGIC) => Ok(Wrapper::Xz),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Err("bzip2"),
        [b'P', b'K', 3, 4, ..] => Err("zip"),
        _ => Ok(Wrapper::Plain),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bgzf(bytes: &[u8]) -> Vec<u8> {
        let mut writer = noodles::bgzf::io::Writer::new(Vec::new());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn open(bytes: Vec<u8>) -> Result<Input, Error> {
        Input::new("x", Cursor::new(bytes))
    }

    /// More than a batch of blocks, and not the same everywhere.
    fn text() -> Vec<u8> {
        (0..3_000_000u32).map(|i| b'A' + (i.wrapping_mul(i) >> 7 & 15) as u8).collect()
    }

    #[test]
    fn the_wrapper_shows_in_the_first_bytes() {
        for (bytes, expected) in [
            (b">a\nACGT\n".to_vec(), Wrapper::Plain),
            (Vec::new(), Wrapper::Plain),
            (vec![0x1F], Wrapper::Plain),
            (gzip(b"ACGT"), Wrapper::Gzip),
            (bgzf(b"ACGT"), Wrapper::Bgzf),
            (zstd(b"ACGT"), Wrapper::Zstd),
            (xz(b"ACGT"), Wrapper::Xz),
        ] {
            assert_eq!(open(bytes.clone()).unwrap().wrapper(), expected, "{bytes:?}");
        }
        let error = open(b"BZh91AY&SY".to_vec()).err().unwrap();
        assert_eq!(
            error.to_string(),
            "cannot read `x`: it is bzip2; expected plain text, gzip, BGZF, zstd or xz"
        );
    }

    #[test]
    fn every_wrapper_gives_the_same_bytes_in_steps_of_any_size() {
        let text = text();
        let parts = |wrap: fn(&[u8]) -> Vec<u8>| {
            [wrap(&text[..1_000_000]), wrap(b""), wrap(&text[1_000_000..])].concat()
        };
        let wrapped = [text.clone(), gzip(&text), bgzf(&text), zstd(&text), xz(&text)];
        for wrapped in wrapped.into_iter().chain([parts(gzip), parts(zstd), parts(xz)]) {
            for step in [1000, 65_536, 5_000_000] {
                let (mut input, mut plain) = (open(wrapped.clone()).unwrap(), Vec::new());
                while input.read_up_to(step, &mut plain).unwrap() > 0 {}
                assert!(plain == text, "steps of {step}");
            }
        }
    }

    #[test]
    fn peeked_bytes_are_read_again() {
        let mut input = open(gzip(b"ACGTAC")).unwrap();
        assert_eq!(input.peek(3).unwrap(), b"ACG");
        assert_eq!(input.peek(2).unwrap(), b"AC");
        assert_eq!(input.peek(9).unwrap(), b"ACGTAC");
        let mut text = String::new();
        input.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ACGTAC");
    }

    #[test]
    fn bytes_before_the_damage_are_handed_out() {
        let text = text();
        let whole = bgzf(&text);
        let mut input = open(whole[..whole.len() - 40].to_vec()).unwrap();
        let mut plain = Vec::new();
        let error = Error::from_io(input.read_to_end(&mut plain).unwrap_err(), Path::new("x"));
        assert!(matches!(error, Error::Damaged { damage: Damage::BgzfTruncated, .. }), "{error}");
        assert!(plain.len() > 2_900_000 && text.starts_with(&plain), "{} bytes", plain.len());
    }

    #[test]
    fn threads_change_neither_bytes_nor_errors() {
        let (text, mut damaged) = (text(), bgzf(&text()));
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x10;
        let read = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (mut input, mut plain) = (open(damaged.clone()).unwrap(), Vec::new());
                let error = input.read_to_end(&mut plain).unwrap_err();
                (plain, error.to_string())
            })
        };
        let (plain, error) = read(1);
        assert!(text.starts_with(&plain) && (1_000_000..2_000_000).contains(&plain.len()), "{}", plain.len());
        assert!(read(3) == (plain, error.clone()), "{error}");
    }

    /// Whatever byte is damaged and wherever the file ends: an error, or (for the few bytes that say nothing) the text.
    #[test]
    fn damage_is_found_wherever_it_is() {
        let text = &text()[..600];
        for wrapped in [gzip(text), bgzf(text), zstd(text), xz(text)] {
            for at in 0..wrapped.len() {
                let mut flipped = wrapped.clone();
                flipped[at] ^= 0x10;
                for damaged in [flipped, wrapped[..at].to_vec()] {
                    let mut plain = Vec::new();
                    let read = open(damaged.clone()).map(|mut input| input.read_to_end(&mut plain));
                    let wrapper = open(damaged).map(|input| input.wrapper());
                    let found =
                        matches!(wrapper, Ok(Wrapper::Plain)) || !matches!(read, Ok(Ok(_))) || plain == text;
                    assert!(found, "byte {at} of {}: {} bytes", wrapped.len(), plain.len());
                }
            }
        }
    }

    #[test]
    fn an_error_of_the_system_names_the_file() {
        let error = Input::open(Path::new("no/such/file")).err().unwrap();
        assert_eq!(error.to_string(), "cannot open `no/such/file`: no such file or directory");
        let error = Input::open(Path::new(env!("CARGO_MANIFEST_DIR"))).err().unwrap();
        assert!(error.to_string().ends_with("is a directory"), "{error}");
    }
}
