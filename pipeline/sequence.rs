//! What can be done to bases without knowing where they come from.
//!
//! Everything here works on blocks (`&[u8]`, one byte per base, at most a few MiB) and keeps at most a few numbers
//! between two blocks, so that a contig of any length passes in bounded memory. Coordinates are 0-based and
//! half-open, in bases of the record.

pub mod alphabet;
pub mod clean;
pub mod complement;
pub mod mask;
