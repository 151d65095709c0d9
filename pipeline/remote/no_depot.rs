//! In the place of depots where there is no network: there are none.

use std::convert::Infallible;
use std::path::Path;

use super::{Address, Error, Remote, Sealed, Stored, Watch};
use crate::artifact::FileEntry;

/// None.
#[derive(Debug)]
pub struct Depot(Infallible);

#[expect(clippy::missing_errors_doc, clippy::needless_pass_by_value, reason = "none of this can be called")]
impl Depot {
    /// Fails.
    pub fn new(_: &Remote, root: Address) -> Result<Self, Error> {
        Err(Error::Unavailable { address: root.to_string() })
    }

    /// Never called, as all below.
    pub fn at(&self, _: &str) -> Address {
        match self.0 {}
    }

    /// See above.
    pub fn probe(&self, _: Watch) -> Result<(), Error> {
        match self.0 {}
    }

    /// See above.
    pub fn sealed(&self, _: &str, _: Watch) -> Result<Option<Sealed>, Error> {
        match self.0 {}
    }

    /// See above.
    pub fn names(&self, _: &str, _: Watch) -> Result<Vec<String>, Error> {
        match self.0 {}
    }

    /// See above.
    pub fn store(&self, _: &str, _: (&Path, &[FileEntry]), _: &[u8], _: Watch) -> Result<Stored, Error> {
        match self.0 {}
    }

    /// See above.
    pub fn bring<'a>(
        &self,
        _: impl IntoIterator<Item = (&'a str, &'a [u8], &'a FileEntry, &'a Path)>,
        _: Watch,
    ) -> Result<(), Error> {
        match self.0 {}
    }
}
