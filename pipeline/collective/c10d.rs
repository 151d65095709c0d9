//! The functions of `c10d.cpp`, and what they say when they fail.

use std::ffi::{CString, c_char, c_int, c_void};

/// Bytes of a message.
const ROOM: usize = 1024;

unsafe extern "C" {
    pub(super) fn gm_store_tcp(
        host: *const c_char,
        port: u16,
        serves: bool,
        timeout: i64,
        attempt: *const c_char,
        why: *mut c_char,
        room: usize,
    ) -> *mut c_void;
    pub(super) fn gm_store_file(
        path: *const c_char,
        ranks: c_int,
        timeout: i64,
        why: *mut c_char,
        room: usize,
    ) -> *mut c_void;
    pub(super) fn gm_store_clone(store: *mut c_void, why: *mut c_char, room: usize) -> *mut c_void;
    pub(super) fn gm_store_free(store: *mut c_void);
    pub(super) fn gm_store_set(
        store: *mut c_void,
        key: *const c_char,
        value: *const u8,
        length: usize,
        why: *mut c_char,
        room: usize,
    ) -> c_int;
    pub(super) fn gm_store_check(
        store: *mut c_void,
        key: *const c_char,
        why: *mut c_char,
        room: usize,
    ) -> c_int;
    pub(super) fn gm_store_get(
        store: *mut c_void,
        key: *const c_char,
        take: extern "C" fn(*mut c_void, *const u8, usize),
        place: *mut c_void,
        why: *mut c_char,
        room: usize,
    ) -> c_int;
    pub(super) fn gm_store_add(
        store: *mut c_void,
        key: *const c_char,
        value: i64,
        why: *mut c_char,
        room: usize,
    ) -> i64;
    pub(super) fn gm_group(
        store: *mut c_void,
        rank: c_int,
        ranks: c_int,
        interface: *const c_char,
        address: *const c_char,
        to_connect: i64,
        to_work: i64,
        why: *mut c_char,
        room: usize,
    ) -> *mut c_void;
    pub(super) fn gm_group_free(group: *mut c_void);
    pub(super) fn gm_all_reduce(
        group: *mut c_void,
        tensor: *mut c_void,
        why: *mut c_char,
        room: usize,
    ) -> *mut c_void;
    pub(super) fn gm_reduce(
        group: *mut c_void,
        tensor: *mut c_void,
        root: c_int,
        why: *mut c_char,
        room: usize,
    ) -> *mut c_void;
    pub(super) fn gm_broadcast(
        group: *mut c_void,
        tensor: *mut c_void,
        root: c_int,
        why: *mut c_char,
        room: usize,
    ) -> *mut c_void;
    pub(super) fn gm_barrier(group: *mut c_void, why: *mut c_char, room: usize) -> *mut c_void;
    pub(super) fn gm_work_wait(work: *mut c_void, timeout: i64, why: *mut c_char, room: usize) -> c_int;
    pub(super) fn gm_work_free(work: *mut c_void);
}

/// What a function of the shim gives back: null or a negative number where it failed.
pub(crate) trait Outcome {
    fn is_failure(&self) -> bool;
}

impl Outcome for *mut c_void {
    fn is_failure(&self) -> bool {
        self.is_null()
    }
}

impl Outcome for c_int {
    fn is_failure(&self) -> bool {
        *self < 0
    }
}

impl Outcome for i64 {
    fn is_failure(&self) -> bool {
        *self < 0
    }
}

/// Calls a function of a C face with a room for its message; that message, in one line, where it fails.
pub(crate) fn call<T: Outcome>(function: impl FnOnce(*mut c_char, usize) -> T) -> Result<T, String> {
    let mut why = vec![0_u8; ROOM];
    let outcome = function(why.as_mut_ptr().cast(), ROOM);
    if outcome.is_failure() { Err(message(&why)) } else { Ok(outcome) }
}

/// The first line of a message, without where in c10d's source it comes from.
fn message(why: &[u8]) -> String {
    let text = String::from_utf8_lossy(why.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let line = text.lines().next().unwrap_or_default().trim();
    let line =
        line.split_once("] ").filter(|(place, _)| place.starts_with('[')).map_or(line, |(_, rest)| rest);
    line.split(" Exception raised from").next().unwrap_or(line).trim_end_matches('.').to_owned()
}

/// A text for C; what comes behind a zero byte is left out.
pub(super) fn text(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line() {
        for (said, expected) in [
            ("", ""),
            (
                "[../gloo/pair.cc:538] Connection closed by peer [127.0.0.1]:3\nmore",
                "Connection closed by peer [127.0.0.1]:3",
            ),
            ("it failed. Exception raised from f at x.cpp:1", "it failed"),
        ] {
            assert_eq!(message(&[said.as_bytes(), &[0, 65]].concat()), expected);
        }
        assert_eq!(call(|_, _| -1_i64), Err(String::new()));
        assert_eq!(text("a\0b").as_bytes(), b"a");
    }
}
