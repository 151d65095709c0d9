//! A gzip file of one or more members as plain bytes.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;

use super::raw::Raw;
use super::{Damage, Error};

/// The first bytes of a member.
pub(super) const MAGIC: [u8; 2] = [0x1F, 0x8B];

/// Holds the decoder of the current member; none after the end or an error.
pub(super) struct Gzip(Option<GzDecoder<Raw>>);

impl Gzip {
    pub(super) fn new(raw: Raw) -> Self {
        Self(Some(GzDecoder::new(raw)))
    }
}

impl Read for Gzip {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let got = member.read(out).map_err(|error| locate(error, member.get_ref()))?;
            if got > 0 || out.is_empty() {
                return Ok(got);
            }
            self.0 = self.0.take().map(|member| next_member(member.into_inner())).transpose()?.flatten();
        }
        Ok(0)
    }
}

/// The member after the one that ended; none at the end of the file.
fn next_member(mut raw: Raw) -> Result<Option<GzDecoder<Raw>>, Error> {
    match raw.peek(MAGIC.len())? {
        [] => Ok(None),
        head if head == MAGIC => Ok(Some(GzDecoder::new(raw))),
        _ => Err(raw.damaged(raw.offset(), Damage::GzipTrailing)),
    }
}

/// Says what the decoder found, and where; an error from below it stays as it is.
fn locate(error: io::Error, raw: &Raw) -> io::Error {
    let damage = match error.kind() {
        io::ErrorKind::UnexpectedEof => Damage::GzipTruncated,
        io::ErrorKind::InvalidInput if error.to_string().contains("checksum") => Damage::GzipChecksum,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Damage::GzipData,
        _ => return error,
    };
    raw.damaged(raw.offset(), damage).into()
}
