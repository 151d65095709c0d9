//! Bytes become records: FASTA, FASTQ, 2bit, GenBank, alignments (BAM, SAM, CRAM), annotation (GFF3, GTF) and intervals
//! (BED), tables (CSV); plain, gzip, BGZF, zstd or xz.
//!
//! Every reader streams: it holds one block of bases, one read or one line at a time, whatever the size of the file
//! (CRAM: one container and the contigs that it needs). Coordinates leave this room 0-based and half-open; lines and
//! columns in messages count from 1.

pub mod alignment;
pub mod annotation;
pub mod bed;
pub mod columns;
pub mod contigs;
pub mod fasta;
pub mod fastq;
pub mod files;
pub mod genbank;
pub mod input;
pub mod region;
pub mod samples;
pub mod table;
pub mod two_bit;
pub mod vcf;

#[cfg(test)]
mod tests;
