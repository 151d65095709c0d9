//! The slots, which all threads change. Memory: 2 bytes a slot, in huge pages where the system has them.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU16, Ordering};

use memmap2::MmapMut;

use super::SEPARATOR;
use super::bytes;

/// The tokens in order, with a separator before, between and after pieces.
pub struct Slots(MmapMut);

impl Slots {
    /// From the tokens of the first phase. On one thread: two that ask for fresh huge pages at once wait for each other.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub fn new(tokens: &[u8]) -> io::Result<Self> {
        let slots = Self(MmapMut::map_anon(tokens.len() * size_of::<AtomicU16>())?);
        // A wish: without huge pages it is only slower.
        #[cfg(target_os = "linux")]
        slots.0.advise(memmap2::Advice::HugePage).ok();
        for (slot, &token) in slots.iter().zip(tokens) {
            slot.store(if token == bytes::SEPARATOR { SEPARATOR } else { token.into() }, Ordering::Relaxed);
        }
        Ok(slots)
    }
}

impl Deref for Slots {
    type Target = [AtomicU16];

    #[expect(clippy::cast_ptr_alignment, reason = "a map begins at a page")]
    fn deref(&self) -> &[AtomicU16] {
        let (start, length) = (self.0.as_ptr().cast::<AtomicU16>(), self.0.len() / size_of::<AtomicU16>());
        // SAFETY: the map lives as long as `self`, begins at a page, is as long, and is changed through these atomic
        // numbers only; any bytes are numbers.
        unsafe { std::slice::from_raw_parts(start, length) }
    }
}

/// Gives every token one slot; returns how many there are.
pub fn squeeze(slots: &[AtomicU16], widths: &[u32]) -> usize {
    let (mut read, mut write) = (0, 0);
    while let Some(slot) = slots.get(read) {
        let token = slot.load(Ordering::Relaxed);
        slots[write].store(token, Ordering::Relaxed);
        read += widths.get(usize::from(token)).map_or(1, |width| *width as usize);
        write += 1;
    }
    write
}

/// Asks for the memory of an element, without waiting for it.
#[inline]
pub fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(element) = slice.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of an address that is valid, as of any other, changes no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _unused = (slice, index);
}
