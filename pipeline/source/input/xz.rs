//! An xz file of one or more streams as plain bytes; holds one dictionary, at most [`MEMORY_BYTES`].

use std::io::{self, Read};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{self, CONCATENATED, Stream};

use super::raw::Raw;
use super::{Damage, Error};

/// The first bytes of a stream.
pub(super) const MAGIC: [u8; 6] = [0xFD, b'7', b'z', b'X', b'Z', 0];

/// The most memory that the decoder may take; `xz -9` needs 65 MiB.
pub(super) const MEMORY_BYTES: u64 = 256 << 20;

pub(super) struct Xz(XzDecoder<Raw>);

impl Xz {
    pub(super) fn new(raw: Raw) -> Result<Self, Error> {
        match Stream::new_stream_decoder(MEMORY_BYTES, CONCATENATED) {
            Ok(stream) => Ok(Self(XzDecoder::new_stream(raw, stream))),
            Err(_) => Err(raw.damaged(raw.offset(), Damage::XzMemory)),
        }
    }
}

impl Read for Xz {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out).map_err(|error| locate(error, self.0.get_ref()))
    }
}

/// Says what the decoder found, and where; an error from below it stays as it is.
fn locate(error: io::Error, raw: &Raw) -> io::Error {
    let damage = match error.get_ref().and_then(|inner| inner.downcast_ref::<stream::Error>()) {
        Some(stream::Error::MemLimit | stream::Error::Mem) => Damage::XzMemory,
        Some(_) => Damage::XzData,
        None if error.kind() == io::ErrorKind::UnexpectedEof => Damage::XzTruncated,
        None => return error,
    };
    raw.damaged(raw.offset(), damage).into()
}
