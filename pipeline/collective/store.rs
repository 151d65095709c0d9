//! A store of values by key that all ranks see. Memory: a value.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::time::Duration;

use super::c10d::{
    call, gm_store_add, gm_store_check, gm_store_clone, gm_store_file, gm_store_free, gm_store_get,
    gm_store_set, gm_store_tcp, text,
};
use super::place::{Meeting, Place};

/// A way to the store.
#[derive(Debug)]
pub(super) struct Store(NonNull<c_void>);

// SAFETY: c10d's stores lock what their operations share.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Opens the store of a meeting, or says why not.
    pub(super) fn open(place: &Place) -> Result<Self, String> {
        let patience = milliseconds(place.patience);
        let store = match &place.meeting {
            Meeting::File(path) => {
                let path = text(&path.to_string_lossy());
                let ranks = i32::try_from(place.ranks).unwrap_or(i32::MAX);
                // SAFETY: the text lives through the call, and `call` hands over a room of the length it says.
                call(|why, room| unsafe { gm_store_file(path.as_ptr(), ranks, patience, why, room) })
            }
            Meeting::Port { host, port, rank_0_listens } => {
                let (host, attempt) = (text(host), text(&place.attempt));
                let serves = *rank_0_listens && place.rank == 0;
                call(|why, room| {
                    // SAFETY: as above.
                    unsafe {
                        gm_store_tcp(host.as_ptr(), *port, serves, patience, attempt.as_ptr(), why, room)
                    }
                })
            }
        };
        Self::from(store?)
    }

    fn from(pointer: *mut c_void) -> Result<Self, String> {
        NonNull::new(pointer).map(Self).ok_or_else(String::new)
    }

    /// A way of its own to the same store, for another thread.
    pub(super) fn again(&self) -> Result<Self, String> {
        // SAFETY: the store is there until it is dropped.
        Self::from(call(|why, room| unsafe { gm_store_clone(self.0.as_ptr(), why, room) })?)
    }

    /// The pointer to c10d's store, for as long as this lives.
    pub(super) const fn pointer(&self) -> *mut c_void {
        self.0.as_ptr()
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let key = text(key);
        let (store, bytes, length) = (self.pointer(), value.as_ptr(), value.len());
        // SAFETY: key and value live through the call, which copies them.
        call(|why, room| unsafe { gm_store_set(store, key.as_ptr(), bytes, length, why, room) }).map(drop)
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let key = text(key);
        // SAFETY: the key lives through the call.
        let there = call(|why, room| unsafe { gm_store_check(self.pointer(), key.as_ptr(), why, room) })?;
        if there == 0 {
            return Ok(None);
        }
        let mut value: Vec<u8> = Vec::new();
        let place = (&raw mut value).cast();
        // SAFETY: `take` gets the place of the vector, which lives through the call and is not touched meanwhile.
        call(|why, room| unsafe { gm_store_get(self.pointer(), key.as_ptr(), take, place, why, room) })?;
        Ok(Some(value))
    }

    /// Adds to a number, which begins as 0; the sum.
    pub(super) fn add(&self, key: &str, value: i64) -> Result<i64, String> {
        let key = text(key);
        // SAFETY: the key lives through the call.
        call(|why, room| unsafe { gm_store_add(self.pointer(), key.as_ptr(), value, why, room) })
    }
}

extern "C" fn take(place: *mut c_void, value: *const u8, length: usize) {
    if length > 0 {
        // SAFETY: `Store::get` hands over its vector, and c10d as many bytes as it says.
        unsafe { (*place.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(value, length)) };
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: freed once, and not used any more.
        unsafe { gm_store_free(self.0.as_ptr()) };
    }
}

pub(super) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
