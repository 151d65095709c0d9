//! A gzip file of one or more members as plain bytes.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;

use super::Damage;
use super::raw::Raw;

pub(super) struct Gzip(MultiGzDecoder<Raw>);

impl Gzip {
    pub(super) fn new(raw: Raw) -> Self {
        Self(MultiGzDecoder::new(raw))
    }
}

impl Read for Gzip {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out).map_err(|error| match damage(&error) {
            Some(damage) => self.0.get_ref().damaged(self.0.get_ref().offset(), damage).into(),
            None => error,
        })
    }
}

/// What the decoder found; none when the error comes from below it.
fn damage(error: &io::Error) -> Option<Damage> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Some(Damage::GzipTruncated),
        io::ErrorKind::InvalidInput if error.to_string().contains("checksum") => Some(Damage::GzipChecksum),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Some(Damage::GzipData),
        _ => None,
    }
}
