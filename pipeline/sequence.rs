//! What can be done to bases without knowing where they come from.
//!
//! Everything here works on blocks (`&[u8]`, one byte per base, at most a few MiB). What follows a record keeps at most
//! a few numbers between two blocks, so that a contig of any length passes in bounded memory; what compares sequences
//! with each other (`families`, `index`, `search`, `sketch`) says what it holds. Coordinates are 0-based and
//! half-open, in bases of the record.

pub mod alphabet;
pub mod clean;
pub mod complement;
pub mod complexity;
pub mod families;
pub mod fingerprint;
pub mod index;
pub mod kmer;
pub mod mask;
pub mod packed;
pub mod search;
pub mod sketch;
pub mod statistics;
