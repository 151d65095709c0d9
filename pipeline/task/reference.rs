//! Reads the bases of placed examples from FASTA files. Memory: one sequence of the reference that examples lie on, besides the examples.

use std::collections::HashMap;
use std::path::PathBuf;

use super::{Dataset, Error, Part};
use crate::sequence::complement::reverse_complement;
use crate::source::contigs::{Format, Reader};
use crate::source::fasta::Event;
use crate::units::Strand;

const BLOCK_BASES: usize = 1 << 20;

/// Gives every example the bases of its place, on its strand.
///
/// A sequence of the reference may be called as the task calls it, or without `chr` or with it (Ensembl's genomes and UCSC's), or with a version (Ensembl's
/// transcripts).
///
/// # Errors
/// [`Error::Interval`] with the line of an example that the reference does not hold.
pub fn fill(dataset: &mut Dataset, references: &[PathBuf]) -> Result<(), Error> {
    let numbers: HashMap<String, u32> = dataset.contigs.iter().cloned().zip(0..).collect();
    let mut placed = by_contig(dataset);
    for_each_sequence(references, &numbers, |contig, bases| {
        take(dataset, &std::mem::take(&mut placed[contig as usize]), bases)
    })?;
    match placed.iter().flatten().next() {
        Some(&(part, at)) => {
            let place = dataset.part(part)[at].place;
            let contig = place.map_or("", |place| &dataset.contigs[place.contig as usize]);
            Err(refuse(dataset, part, at, format!("found no sequence `{contig}` in the reference")))
        }
        None => Ok(()),
    }
}

/// Calls `each` with every sequence of some FASTA files that has a number, and its bases.
pub fn for_each_sequence(
    references: &[PathBuf],
    numbers: &HashMap<String, u32>,
    mut each: impl FnMut(u32, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    for reference in references {
        let mut reader = Reader::open(reference, Format::Fasta, BLOCK_BASES)?;
        let (mut wanted, mut bases) = (None, Vec::new());
        while let Some(event) = reader.next_event()? {
            match event {
                Event::Record(header) => {
                    bases.clear();
                    wanted = called(&header.name, numbers);
                }
                Event::Bases(block) if wanted.is_some() => bases.extend_from_slice(block),
                Event::Bases(_) => {}
                Event::End { .. } => {
                    if let Some(contig) = wanted {
                        each(contig, &bases)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The examples on each contig.
fn by_contig(dataset: &Dataset) -> Vec<Vec<(Part, usize)>> {
    let mut placed = vec![Vec::new(); dataset.contigs.len()];
    for part in Part::ALL {
        for (at, example) in dataset.part(part).iter().enumerate() {
            if let Some(place) = example.place {
                placed[place.contig as usize].push((part, at));
            }
        }
    }
    placed
}

/// The contig that a sequence of the reference is.
fn called(name: &str, numbers: &HashMap<String, u32>) -> Option<u32> {
    let without_version = name.rsplit_once('.').map_or(name, |(name, _)| name);
    let names = [name, &format!("chr{name}"), name.strip_prefix("chr").unwrap_or(name), without_version];
    names.into_iter().find_map(|name| numbers.get(name).copied())
}

fn take(dataset: &mut Dataset, placed: &[(Part, usize)], bases: &[u8]) -> Result<(), Error> {
    for &(part, at) in placed {
        let Some(place) = dataset.part(part)[at].place else { continue };
        let range = usize::try_from(place.interval.start).ok().zip(usize::try_from(place.interval.end).ok());
        let Some(found) = range.and_then(|(start, end)| bases.get(start..end)) else {
            let (end, contig) = (place.interval.end, &dataset.contigs[place.contig as usize]);
            let problem = format!("found an interval to {end}, but `{contig}` has {} bases", bases.len());
            return Err(refuse(dataset, part, at, problem));
        };
        let mut found = found.to_ascii_uppercase();
        if place.strand == Some(Strand::Reverse) {
            reverse_complement(&mut found);
        }
        let kept = dataset.keep(&found);
        dataset.part_mut(part)[at].bases = Some(kept);
    }
    Ok(())
}

fn refuse(dataset: &Dataset, part: Part, at: usize, problem: String) -> Error {
    let example = &dataset.part(part)[at];
    Error::Interval { file: dataset.file(example).to_owned(), line: example.line, problem }
}

#[cfg(test)]
mod tests {
    use super::super::{Example, Place};
    use super::*;
    use crate::units::Interval;

    fn dataset(contig: &str, start: u64, end: u64, strand: Option<Strand>) -> Dataset {
        let place = Some(Place { contig: 0, interval: Interval::new(start, end), strand });
        let mut dataset =
            Dataset { contigs: vec![contig.to_owned()], files: vec!["a.csv".into()], ..Dataset::default() };
        dataset.part_mut(Part::Test).push(Example {
            class: 0,
            place,
            bases: None,
            against: None,
            file: 0,
            line: 7,
        });
        dataset
    }

    #[test]
    fn bases_come_from_the_strand_of_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let fasta = folder.path().join("a.fa");
        std::fs::write(&fasta, ">other\nTTTT\n>1 x\nACgta\nCC\n>ENST7.3\nGGGAT\n>chrM\nGCC\n").unwrap();
        let forward = Some(Strand::Forward);
        for (contig, start, end, strand, expected) in [
            ("1", 0, 3, forward, Ok("ACG")),
            ("chr1", 1, 6, None, Ok("CGTAC")),
            ("chr1", 1, 4, Some(Strand::Reverse), Ok("ACG")),
            ("ENST7", 3, 5, forward, Ok("AT")),
            ("M", 0, 2, forward, Ok("GC")),
            (
                "chr1",
                1,
                8,
                None,
                Err("cannot read `a.csv`, line 7: found an interval to 8, but `chr1` has 7 bases"),
            ),
            (
                "chr2",
                1,
                8,
                None,
                Err("cannot read `a.csv`, line 7: found no sequence `chr2` in the reference"),
            ),
        ] {
            let mut dataset = dataset(contig, start, end, strand);
            let found = fill(&mut dataset, std::slice::from_ref(&fasta)).map_err(|error| error.to_string());
            let bases = || dataset.bases(&dataset.part(Part::Test)[0]).map(String::from_utf8_lossy);
            match expected {
                Ok(expected) => assert_eq!((found, bases().as_deref()), (Ok(()), Some(expected))),
                Err(expected) => assert_eq!(found, Err(expected.to_owned())),
            }
        }
    }
}
