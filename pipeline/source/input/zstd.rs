//! A zstd file of one or more frames as plain bytes; holds one window, at most [`WINDOW_BYTES`].

use std::io::{self, Read};

use zstd::stream::read::Decoder;

use super::raw::Raw;
use super::{Damage, Error};

/// The first bytes of a frame.
pub(super) const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// The largest window of a frame that is read; `zstd --long=31` asks for more.
pub(super) const WINDOW_BYTES: u64 = 1 << WINDOW_LOG;
const WINDOW_LOG: u32 = 27;

pub(super) struct Zstd(Decoder<'static, Raw>);

impl Zstd {
    pub(super) fn new(raw: Raw) -> Result<Self, Error> {
        let (offset, file) = (raw.offset(), raw.file().to_owned());
        let damaged = move |_| Error::Damaged { file, offset, damage: Damage::ZstdData };
        let mut decoder = Decoder::with_buffer(raw).map_err(damaged.clone())?;
        decoder.window_log_max(WINDOW_LOG).map_err(damaged)?;
        Ok(Self(decoder))
    }
}

impl Read for Zstd {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out).map_err(|error| locate(error, self.0.get_ref()))
    }
}

/// Says what the decoder found, and where; an error from below it stays as it is.
fn locate(error: io::Error, raw: &Raw) -> io::Error {
    if error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).is_some() {
        return error;
    }
    let text = error.to_string();
    let damage = match error.kind() {
        io::ErrorKind::UnexpectedEof => Damage::ZstdTruncated,
        _ if text.contains("checksum") => Damage::ZstdChecksum,
        _ if text.contains("memory") => Damage::ZstdWindow,
        _ if text.contains("Unknown frame") => Damage::ZstdTrailing,
        _ => Damage::ZstdData,
    };
    raw.damaged(raw.offset(), damage).into()
}
