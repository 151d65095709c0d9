//! Gene finding: a class for every base of windows of an assembly, from the coding features of an annotation.
//!
//! Classes are those of BEND: exon, donor, intron and acceptor on the forward and on the reverse strand, and intergenic. A stretch between two
//! coding features of a transcript is an intron, its first base the donor and its last one the acceptor, as the transcript is read. Where transcripts of one
//! strand disagree, a donor or an acceptor goes before an exon, and an exon before an intron; a base with genes on both strands, or with another code than A, C, G and T,
//! has no class and is not scored. Memory: one sequence of the assembly and two bytes for each of its bases, besides the windows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dataset::UNLABELLED;
use super::sites::{check_names, part_of};
use super::{Dataset, Error, Example, Part, Place, reference};
use crate::sequence::kmer::spread;
use crate::source::annotation;
use crate::units::{self, Interval, Strand};

/// The classes in the order of their numbers.
pub const CLASSES: [&str; 9] = [
    "intergenic",
    "exon, forward",
    "donor, forward",
    "intron, forward",
    "acceptor, forward",
    "exon, reverse",
    "donor, reverse",
    "intron, reverse",
    "acceptor, reverse",
];
/// Bases of an intron at least; a shorter gap is a shift of the frame, and taken as exon.
const LEAST_INTRON: u64 = 10;
/// Classes of one strand: what a base is before any transcript, and what counts before what.
const NONE: u8 = 0;
const EXON: u8 = 1;
const DONOR: u8 = 2;
const INTRON: u8 = 3;
const ACCEPTOR: u8 = 4;

/// An annotation on an assembly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Genes {
    /// A GFF3 or GTF file.
    pub annotation: PathBuf,
    /// The kind of features that genes are made of. Default `CDS`.
    #[serde(default = "feature")]
    pub feature: String,
    /// A FASTA file.
    pub assembly: PathBuf,
    /// Bases of a window; windows lie side by side, and the last one of a sequence is shorter. Default 1000.
    #[serde(default = "window")]
    #[schemars(range(min = 1))]
    pub window: u64,
    /// Windows of a part at most, drawn by `seed`. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<usize>,
    /// Sequences to score on.
    pub test: Vec<String>,
    /// Sequences to choose by. Without them a part of the other windows is held out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation: Vec<String>,
    /// Sequences that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Which windows are drawn. Default 0.
    #[serde(default)]
    pub seed: u64,
}

fn feature() -> String {
    "CDS".to_owned()
}

const fn window() -> u64 {
    1000
}

/// The exons of a transcript, and the line of the first one.
#[derive(Debug, Default)]
struct Transcript {
    line: u64,
    exons: Vec<Interval>,
}

/// Transcripts of a sequence, by name and strand.
type Transcripts = BTreeMap<(String, Strand), Transcript>;

/// Reads the windows.
pub fn read(name: &str, genes: &Genes, base: &Path) -> Result<Dataset, Error> {
    let wrong = |problem: String| Error::Sites { task: name.to_owned(), problem };
    if genes.window == 0 || genes.limit == Some(0) {
        return Err(wrong("`window` or `limit` is 0, expected at least 1".to_owned()));
    }
    let classes = CLASSES.map(str::to_owned).to_vec();
    let mut dataset = Dataset { name: name.to_owned(), classes, ..Dataset::default() };
    let transcripts = gather(&mut dataset, genes, base)?;
    check_names(name, [("test", &genes.test), ("validation", &genes.validation)], &dataset.contigs, "gene")?;
    let numbers: HashMap<String, u32> = dataset.contigs.iter().cloned().zip(0..).collect();
    let mut missing: HashSet<u32> = numbers.values().copied().collect();
    let assembly = base.join(&genes.assembly);
    reference::for_each_sequence(std::slice::from_ref(&assembly), &numbers, |contig, bases| {
        missing.remove(&contig);
        take(&mut dataset, genes, contig, &transcripts[contig as usize], bases)
    })?;
    if let Some(contig) = missing.into_iter().min() {
        let sequence = &dataset.contigs[contig as usize];
        return Err(wrong(format!(
            "`{}` has no sequence `{sequence}`, on which genes lie",
            assembly.display()
        )));
    }
    if let Some(limit) = genes.limit {
        for part in Part::ALL {
            draw(dataset.part_mut(part), limit, genes.seed);
        }
    }
    Ok(dataset)
}

/// Keeps `limit` windows, in their order.
fn draw(windows: &mut Vec<Example>, limit: usize, seed: u64) {
    let key = |at: usize| spread(at as u64 ^ spread(seed));
    let mut order = (0..windows.len()).collect::<Vec<_>>();
    order.sort_by_key(|at| key(*at));
    let kept: HashSet<usize> = order.into_iter().take(limit).collect();
    let mut at = 0;
    windows.retain(|_| {
        at += 1;
        kept.contains(&(at - 1))
    });
}

/// The transcripts of each sequence.
fn gather(dataset: &mut Dataset, genes: &Genes, base: &Path) -> Result<Vec<Transcripts>, Error> {
    let path = base.join(&genes.annotation);
    let (mut numbers, mut found) = (HashMap::new(), Vec::<Transcripts>::new());
    let mut reader = annotation::Reader::open(&path)?;
    let mut line = 0;
    while let Some(feature) = reader.next_feature()? {
        line += 1;
        if feature.kind != genes.feature {
            continue;
        }
        if genes.exclude.iter().any(|name| name == feature.sequence) {
            drop_some(dataset, "features on a sequence that `exclude` names", 1);
            continue;
        }
        let Some(strand) = feature.strand else {
            drop_some(dataset, "features without a strand", 1);
            continue;
        };
        let transcript = ["Parent", "transcript_id", "ID"].into_iter().find_map(|key| feature.attribute(key));
        let transcript = transcript.map_or_else(|| format!("feature {line}"), std::borrow::Cow::into_owned);
        let contig = dataset.contig(feature.sequence, &mut numbers) as usize;
        let interval = feature.interval;
        if found.len() <= contig {
            found.resize_with(contig + 1, Transcripts::new);
        }
        // A feature may belong to several transcripts.
        for name in transcript.split(',') {
            let transcript = found[contig].entry((name.to_owned(), strand)).or_default();
            transcript.exons.push(interval);
            transcript.line = reader.line();
        }
    }
    dataset.files.push(path);
    Ok(found)
}

/// Windows of a sequence with a class for every base.
fn take(
    dataset: &mut Dataset,
    genes: &Genes,
    contig: u32,
    transcripts: &Transcripts,
    bases: &[u8],
) -> Result<(), Error> {
    let labels = labels(dataset, contig, transcripts, bases)?;
    let part = part_of([&genes.test, &genes.validation], &dataset.contigs[contig as usize]);
    let size = usize::try_from(genes.window).unwrap_or(usize::MAX);
    for (at, (bases, labels)) in bases.chunks(size).zip(labels.chunks(size)).enumerate() {
        if labels.iter().all(|label| *label == UNLABELLED) {
            drop_some(dataset, "windows without a base that has a class", 1);
            continue;
        }
        let start = (at * size) as u64;
        let interval = Interval::new(start, start + bases.len() as u64);
        let place = Some(Place { contig, interval, strand: Some(Strand::Forward) });
        let kept = Some(dataset.keep_labelled(bases, labels));
        let line = at as u64 + 1;
        dataset.part_mut(part).push(Example { class: 0, place, bases: kept, against: None, file: 0, line });
    }
    Ok(())
}

/// The class of every base of a sequence.
fn labels(
    dataset: &mut Dataset,
    contig: u32,
    transcripts: &Transcripts,
    bases: &[u8],
) -> Result<Vec<u8>, Error> {
    let (mut strands, mut short) = ([vec![NONE; bases.len()], vec![NONE; bases.len()]], 0);
    for ((_, strand), transcript) in transcripts {
        let end = transcript.exons.iter().map(|exon| exon.end).max().unwrap_or(0);
        if end > bases.len() as u64 {
            let (file, name) = (dataset.files[0].clone(), &dataset.contigs[contig as usize]);
            let problem = format!("found a feature to {end}, but `{name}` has {} bases", bases.len());
            return Err(Error::Interval { file, line: transcript.line, problem });
        }
        short += paint(&mut strands[usize::from(*strand == Strand::Reverse)], *strand, &transcript.exons);
    }
    drop_some(dataset, "gaps too short for an intron, taken as exon", short);
    let [forward, reverse] = &strands;
    let classes = bases.iter().zip(forward).zip(reverse);
    let labels: Vec<u8> =
        classes.map(|((base, forward), reverse)| class_of(*base, *forward, *reverse)).collect();
    let unlabelled: u64 = labels.iter().map(|label| u64::from(*label == UNLABELLED)).sum();
    drop_some(
        dataset,
        "bases with genes on both strands, or with other codes than A, C, G and T",
        unlabelled,
    );
    Ok(labels)
}

/// The class of a base of which each strand says what it is there.
const fn class_of(base: u8, forward: u8, reverse: u8) -> u8 {
    match (base.to_ascii_uppercase(), forward, reverse) {
        (b'A' | b'C' | b'G' | b'T', class, NONE) => class,
        (b'A' | b'C' | b'G' | b'T', NONE, class) => class + ACCEPTOR,
        _ => UNLABELLED,
    }
}

/// Counts what is left out, if anything is.
fn drop_some(dataset: &mut Dataset, reason: &'static str, count: u64) {
    if count > 0 {
        *dataset.dropped.entry(reason).or_default() += count;
    }
}

/// Writes the classes of a transcript where they go before what is there; how many gaps were too short for an intron.
fn paint(classes: &mut [u8], strand: Strand, exons: &[Interval]) -> u64 {
    let rank = |class: u8| [0, 2, 3, 1, 3][class as usize];
    let mut put = |interval: Interval, class: u8| {
        let at = |place| usize::try_from(place).unwrap_or(usize::MAX);
        for place in &mut classes[at(interval.start)..at(interval.end)] {
            if rank(class) > rank(*place) {
                *place = class;
            }
        }
    };
    let mut exons = exons.to_vec();
    units::merge(&mut exons);
    let mut short = 0;
    for exon in &exons {
        put(*exon, EXON);
    }
    for pair in exons.windows(2) {
        let intron = Interval::new(pair[0].end, pair[1].start);
        if intron.len() < LEAST_INTRON {
            put(intron, EXON);
            short += 1;
            continue;
        }
        let ends = [Interval::new(intron.start, intron.start + 1), Interval::new(intron.end - 1, intron.end)];
        let [donor, acceptor] = if strand == Strand::Forward { ends } else { [ends[1], ends[0]] };
        put(intron, INTRON);
        put(donor, DONOR);
        put(acceptor, ACCEPTOR);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::super::Task;
    use super::*;

    fn genes() -> Genes {
        Genes {
            annotation: "a.gff3".into(),
            feature: feature(),
            assembly: "a.fa".into(),
            window: 50,
            limit: None,
            test: vec!["two".into()],
            validation: Vec::new(),
            exclude: Vec::new(),
            seed: 0,
        }
    }

    fn read(genes: &Genes, features: &str) -> Result<Dataset, String> {
        let folder = tempfile::tempdir().unwrap();
        let fasta = format!(">one\n{}\n>two\n{}NN\n", "ACGTA".repeat(20), "ACGTA".repeat(6));
        std::fs::write(folder.path().join("a.fa"), fasta).unwrap();
        std::fs::write(folder.path().join("a.gff3"), features).unwrap();
        let task = Task { version: 1, genes: Some(genes.clone()), ..Task::default() };
        task.read("mine", folder.path())
            .map_err(|error| error.to_string().replace(folder.path().to_str().unwrap(), ""))
    }

    fn cds(sequence: &str, start: u64, end: u64, strand: char, parent: &str) -> String {
        format!("{sequence}\tx\tCDS\t{start}\t{end}\t.\t{strand}\t0\tParent={parent}\n")
    }

    /// The classes of a sequence, a letter a base: lower case on the reverse strand.
    fn letters(dataset: &Dataset, part: Part) -> String {
        let letter = |label: &u8| match *label {
            UNLABELLED => '?',
            label => b".EDIAedia"[label as usize] as char,
        };
        dataset.part(part).iter().flat_map(|window| dataset.labels(window).unwrap()).map(letter).collect()
    }

    #[test]
    fn every_base_has_the_class_of_its_place_in_a_gene() {
        let two = cds("two", 1, 2, '+', "z");
        for (features, expected) in [
            // Two exons and the intron between them, on either strand.
            ([cds("one", 3, 5, '+', "a"), cds("one", 18, 19, '+', "a")].concat(), "..EEEDIIIIIIIIIIAEE."),
            ([cds("one", 18, 19, '-', "a"), cds("one", 3, 5, '-', "a")].concat(), "..eeeaiiiiiiiiiidee."),
            // A gap of one base is a shift of the frame.
            ([cds("one", 3, 5, '+', "a"), cds("one", 7, 8, '+', "a")].concat(), "..EEEEEE............"),
            // An exon of another transcript goes before an intron, and not before its ends.
            (
                [cds("one", 1, 2, '+', "a"), cds("one", 18, 19, '+', "a"), cds("one", 3, 6, '+', "b")]
                    .concat(),
                "EEDEEEIIIIIIIIIIAEE.",
            ),
            // Genes on both strands; one feature in two transcripts.
            ([cds("one", 3, 8, '+', "a"), cds("one", 6, 10, '-', "b,c")].concat(), "..EEE???ee.........."),
        ] {
            let dataset = read(&genes(), &(features.clone() + &two)).unwrap();
            assert_eq!(&letters(&dataset, Part::Train)[..20], expected, "{features}");
            assert_eq!(letters(&dataset, Part::Test), format!("EE{}??", ".".repeat(28)));
            let windows = dataset.part(Part::Train).iter().map(|window| dataset.length(window));
            assert_eq!(windows.collect::<Vec<_>>(), [50, 50]);
        }
    }

    #[test]
    fn what_is_left_out_is_counted_and_windows_can_be_few() {
        let features = [
            cds("one", 3, 5, '+', "a"),
            cds("one", 4, 9, '.', "b"),
            cds("three", 1, 2, '+', "c"),
            cds("two", 1, 2, '+', "z"),
        ]
        .concat();
        let few = Genes { limit: Some(1), window: 10, exclude: vec!["three".into()], ..genes() };
        let dataset = read(&few, &features).unwrap();
        assert_eq!(dataset.counts(Part::Train).iter().sum::<u64>(), 10);
        assert_eq!((dataset.part(Part::Train).len(), dataset.part(Part::Test).len()), (1, 1));
        let dropped: Vec<_> = dataset.dropped.iter().map(|(reason, count)| (*reason, *count)).collect();
        assert_eq!(
            dropped,
            [
                ("bases with genes on both strands, or with other codes than A, C, G and T", 2),
                ("features on a sequence that `exclude` names", 1),
                ("features without a strand", 1),
                ("windows without a base that has a class", 1),
            ]
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let whole = [cds("one", 3, 5, '+', "a"), cds("two", 1, 2, '+', "z")].concat();
        for (genes, features, expected) in [
            (
                Genes { test: vec!["twoo".into()], ..genes() },
                whole.clone(),
                "task `mine`: `test` names `twoo`, on which no gene lies; did you mean `two`?",
            ),
            (
                genes(),
                whole.clone() + &cds("one", 90, 101, '+', "b"),
                "cannot read `/a.gff3`, line 3: found a feature to 101, but `one` has 100 bases",
            ),
            (
                genes(),
                whole.clone() + &cds("six", 9, 10, '+', "b"),
                "task `mine`: `/a.fa` has no sequence `six`, on which genes lie",
            ),
            (
                Genes { window: 0, ..genes() },
                whole,
                "task `mine`: `window` or `limit` is 0, expected at least 1",
            ),
        ] {
            assert_eq!(read(&genes, &features).unwrap_err(), expected);
        }
    }
}
