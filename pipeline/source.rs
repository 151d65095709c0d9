//! Bytes become records: FASTA, alignments (BAM, SAM), annotation (GFF3) and tables (CSV), plain, gzip or BGZF.
//!
//! Every reader streams: it holds one block of bases, one read or one line at a time, whatever the size of the file.
//! Coordinates leave this room 0-based and half-open; lines and columns in messages count from 1.

pub mod alignment;
pub mod annotation;
pub mod fasta;
pub mod input;
pub mod table;

#[cfg(test)]
mod tests;
