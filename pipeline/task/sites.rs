//! Sites on an assembly (peaks of protein binding, coding sequence) against stretches like them: as long, with as much G and C, on the
//! same sequence, and overlapping no site.
//!
//! Which stretch goes with a site depends on the seed, the site and its sequence alone. Memory: one sequence of the assembly, besides the
//! examples.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dataset, Error, Example, Part, Place, reference};
use crate::sequence::complement::reverse_complement;
use crate::sequence::kmer::spread;
use crate::source::{annotation, bed};
use crate::units::{self, Interval, Strand};

/// How often a stretch is drawn for a site before the site is left out.
const DRAWS: u64 = 2000;
const BACKGROUND: u32 = 0;
const SITE: u32 = 1;

/// Sites, from `bed` or from `annotation` and `features`, on an `assembly`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sites {
    /// A BED file; of one that is called `.narrowPeak` the summits are taken, else the middles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bed: Option<PathBuf>,
    /// A GFF3 or GTF file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotation: Option<PathBuf>,
    /// Kinds of features of `annotation`, such as `CDS`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// A FASTA file.
    pub assembly: PathBuf,
    /// Bases of an example, around the middle of a site. Default 200.
    #[serde(default = "length")]
    #[schemars(range(min = 1))]
    pub length: u64,
    /// Sequences to score on.
    pub test: Vec<String>,
    /// Sequences to choose by. Without them a part of the others is held out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation: Vec<String>,
    /// Sequences whose sites are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// How far the shares of G and C of a site and its stretch may lie apart. Default 0.02.
    #[serde(default = "tolerance")]
    pub gc_tolerance: f64,
    /// Which stretches are drawn. Default 0.
    #[serde(default)]
    pub seed: u64,
}

fn length() -> u64 {
    200
}

fn tolerance() -> f64 {
    0.02
}

/// Why a site is left out.
#[derive(Debug, Clone, Copy)]
enum Dropped {
    Excluded,
    Repeated,
    OffTheEnd,
    Unknown,
    Alone,
}

impl Dropped {
    const fn reason(self) -> &'static str {
        match self {
            Self::Excluded => "on a sequence that `exclude` names",
            Self::Repeated => "the same stretch as another site",
            Self::OffTheEnd => "reaches over an end of its sequence",
            Self::Unknown => "holds other codes than A, C, G and T",
            Self::Alone => "no stretch like it was found",
        }
    }
}

/// A site as its file has it.
struct Site {
    line: u64,
    /// Where the file says that it is.
    whole: Interval,
    /// What is taken, unless it reaches below the start.
    window: Option<Interval>,
    strand: Option<Strand>,
}

/// Reads the examples: for every site that can be used one stretch like it.
pub fn read(name: &str, sites: &Sites, base: &Path) -> Result<Dataset, Error> {
    let mut dataset = Dataset {
        name: name.to_owned(),
        classes: vec!["background".to_owned(), "site".to_owned()],
        ..Dataset::default()
    };
    let found = gather(&mut dataset, name, sites, base)?;
    check_names(name, [("test", &sites.test), ("validation", &sites.validation)], &dataset.contigs, "site")?;
    let numbers: HashMap<String, u32> = dataset.contigs.iter().cloned().zip(0..).collect();
    let mut missing: HashSet<u32> = numbers.values().copied().collect();
    let assembly = base.join(&sites.assembly);
    reference::for_each_sequence(std::slice::from_ref(&assembly), &numbers, |contig, bases| {
        missing.remove(&contig);
        take(&mut dataset, sites, contig, &found[contig as usize], bases);
        Ok(())
    })?;
    match missing.into_iter().min() {
        Some(contig) => {
            let (file, line) =
                (dataset.files[0].clone(), found[contig as usize].first().map_or(0, |site| site.line));
            let sequence = &dataset.contigs[contig as usize];
            let problem =
                format!("found a site on `{sequence}`, which `{}` does not have", assembly.display());
            Err(Error::Interval { file, line, problem })
        }
        None => Ok(dataset),
    }
}

/// The sites of each sequence, by their starts.
fn gather(dataset: &mut Dataset, name: &str, sites: &Sites, base: &Path) -> Result<Vec<Vec<Site>>, Error> {
    let (mut numbers, mut found) = (HashMap::new(), Vec::new());
    let mut add = |dataset: &mut Dataset, sequence: &str, whole: Interval, middle: u64, strand, line| {
        if sites.exclude.iter().any(|name| name == sequence) {
            *dataset.dropped.entry(Dropped::Excluded.reason()).or_default() += 1;
            return;
        }
        let contig = dataset.contig(sequence, &mut numbers) as usize;
        if found.len() <= contig {
            found.resize_with(contig + 1, Vec::new);
        }
        let start = middle.checked_sub(sites.length / 2);
        let window = start.map(|start| Interval::new(start, start + sites.length));
        found[contig].push(Site { line, whole, window, strand });
    };
    match (&sites.bed, &sites.annotation) {
        (Some(bed), None) => {
            let path = base.join(bed);
            let has_summits = path.to_string_lossy().contains(".narrowPeak");
            let mut reader = bed::Reader::open(&path)?;
            while let Some(line) = reader.next_line()? {
                let (whole, strand, summit) =
                    (line.interval, line.strand, line.summit.filter(|_| has_summits));
                let middle =
                    summit.map_or(u64::midpoint(whole.start, whole.end), |summit| whole.start + summit);
                let sequence = line.sequence.to_owned();
                add(dataset, &sequence, whole, middle, strand, reader.line());
            }
            dataset.files.push(path);
        }
        (None, Some(annotation)) => {
            let path = base.join(annotation);
            let mut reader = annotation::Reader::open(&path)?;
            while let Some(feature) = reader.next_feature()? {
                if sites.features.is_empty() || sites.features.iter().any(|kind| kind == feature.kind) {
                    let (whole, strand, sequence) =
                        (feature.interval, feature.strand, feature.sequence.to_owned());
                    add(
                        dataset,
                        &sequence,
                        whole,
                        u64::midpoint(whole.start, whole.end),
                        strand,
                        reader.line(),
                    );
                }
            }
            dataset.files.push(path);
        }
        (bed, _) => {
            let found =
                if bed.is_some() { "`bed` and `annotation`" } else { "neither `bed` nor `annotation`" };
            return Err(Error::Sites {
                task: name.to_owned(),
                problem: format!("found {found}, expected one of them"),
            });
        }
    }
    for sites in &mut found {
        sites.sort_by_key(|site: &Site| (site.whole, site.line));
    }
    Ok(found)
}

/// Refuses names of parts that no site, or `what` else, lies on, and names that stand in both.
pub(super) fn check_names(
    task: &str,
    parts: [(&str, &Vec<String>); 2],
    known: &[String],
    what: &str,
) -> Result<(), Error> {
    let wrong = |problem: String| Err(Error::Sites { task: task.to_owned(), problem });
    for (key, names) in parts {
        if let Some(name) = names.iter().find(|name| !known.contains(name)) {
            let meant = units::similar(name, known.iter().map(String::as_str));
            let meant = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
            return wrong(format!("`{key}` names `{name}`, on which no {what} lies{meant}"));
        }
    }
    let [(_, test), (_, validation)] = parts;
    match test.iter().find(|name| validation.contains(name)) {
        Some(name) => wrong(format!("`{name}` stands in `test` and in `validation`")),
        None => Ok(()),
    }
}

/// Takes the sites of a sequence, and for each a stretch like it.
fn take(dataset: &mut Dataset, sites: &Sites, contig: u32, found: &[Site], bases: &[u8]) {
    let part = part_of([&sites.test, &sites.validation], &dataset.contigs[contig as usize]);
    let mut closed: Vec<Interval> = found.iter().map(|site| site.whole).collect();
    closed.extend(found.iter().filter_map(|site| site.window));
    units::merge(&mut closed);
    let mut ground = Ground { bases, closed, drawn: BTreeMap::new() };
    let mut windows = HashSet::new();
    for site in found {
        let pair = site.window.ok_or(Dropped::OffTheEnd).and_then(|window| {
            let like = ground.like(window, sites, contig, &mut windows)?;
            Ok([(window, SITE), (like, BACKGROUND)])
        });
        match pair {
            Ok(pair) => {
                for (interval, class) in pair {
                    let place = Place { contig, interval, strand: site.strand };
                    let mut bases = ground.at(interval).unwrap_or_default().to_ascii_uppercase();
                    if site.strand == Some(Strand::Reverse) {
                        reverse_complement(&mut bases);
                    }
                    let bases = Some(dataset.keep(&bases));
                    let (place, line) = (Some(place), site.line);
                    let example = Example { class, place, bases, against: None, file: 0, line };
                    dataset.part_mut(part).push(example);
                }
            }
            Err(dropped) => *dataset.dropped.entry(dropped.reason()).or_default() += 1,
        }
    }
}

/// The part that a sequence is for.
pub(super) fn part_of([test, validation]: [&Vec<String>; 2], sequence: &String) -> Part {
    if test.contains(sequence) {
        Part::Test
    } else if validation.contains(sequence) {
        Part::Validation
    } else {
        Part::Train
    }
}

/// A sequence on which stretches are drawn.
struct Ground<'a> {
    bases: &'a [u8],
    /// Where sites are, ascending.
    closed: Vec<Interval>,
    /// Ends of what was drawn, by start.
    drawn: BTreeMap<u64, u64>,
}

impl Ground<'_> {
    fn at(&self, interval: Interval) -> Option<&[u8]> {
        let range = usize::try_from(interval.start).ok()?..usize::try_from(interval.end).ok()?;
        self.bases.get(range)
    }

    /// A stretch like a window.
    fn like(
        &mut self,
        window: Interval,
        sites: &Sites,
        contig: u32,
        windows: &mut HashSet<Interval>,
    ) -> Result<Interval, Dropped> {
        let wanted = gc(self.at(window).ok_or(Dropped::OffTheEnd)?).ok_or(Dropped::Unknown)?;
        if !windows.insert(window) {
            return Err(Dropped::Repeated);
        }
        let starts = self.bases.len() as u64 - sites.length + 1;
        let key = spread(sites.seed ^ spread(u64::from(contig) << 40 ^ window.start));
        let drawn = (0..DRAWS).map(|draw| spread(key ^ draw) % starts);
        let drawn = drawn.map(|start| Interval::new(start, start + sites.length));
        let fits = |stretch: &Interval| {
            let gc = self.at(*stretch).and_then(gc);
            self.is_open(*stretch) && gc.is_some_and(|gc| (gc - wanted).abs() <= sites.gc_tolerance + 1e-9)
        };
        let like = drawn.into_iter().find(fits).ok_or(Dropped::Alone)?;
        self.drawn.insert(like.start, like.end);
        Ok(like)
    }

    /// Whether a stretch overlaps no site and nothing that was drawn.
    fn is_open(&self, stretch: Interval) -> bool {
        let after = self.closed.partition_point(|closed| closed.end <= stretch.start);
        let closed = self.closed.get(after).is_some_and(|closed| closed.start < stretch.end);
        let before = self.drawn.range(..stretch.end).next_back();
        !closed && before.is_none_or(|(_, &end)| end <= stretch.start)
    }
}

/// The share of G and C; `None` if another code than A, C, G and T is there, in either case.
fn gc(bases: &[u8]) -> Option<f64> {
    let mut count = 0;
    for base in bases {
        match base.to_ascii_uppercase() {
            b'G' | b'C' => count += 1,
            b'A' | b'T' => {}
            _ => return None,
        }
    }
    Some(f64::from(count) / bases.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::super::Task;
    use super::*;

    fn genome(letters: u64, salt: u64) -> String {
        (0..letters).map(|i| b"ACGT"[(spread(i ^ spread(salt)) % 4) as usize] as char).collect()
    }

    fn sites() -> Sites {
        Sites {
            bed: Some("a.narrowPeak".into()),
            annotation: None,
            features: Vec::new(),
            assembly: "a.fa".into(),
            length: 100,
            test: vec!["two".into()],
            validation: Vec::new(),
            exclude: Vec::new(),
            gc_tolerance: 0.02,
            seed: 0,
        }
    }

    fn read(sites: &Sites, peaks: &str) -> Result<Dataset, String> {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = [1, 2].map(|salt| genome(20_000, salt));
        let fasta = format!(">one\n{}{}\n>two\n{two}\n", &one[..19_900], "N".repeat(100));
        std::fs::write(folder.path().join("a.fa"), fasta).unwrap();
        std::fs::write(folder.path().join("a.narrowPeak"), peaks).unwrap();
        std::fs::write(folder.path().join("a.gff3"), "two\tx\tCDS\t501\t800\t.\t-\t0\tID=a\none\tx\tgene\t501\t800\t.\t+\t.\tID=b\none\tx\tCDS\t901\t950\t.\t+\t0\tID=c\n").unwrap();
        let task = Task { version: 1, sites: Some(sites.clone()), ..Task::default() };
        task.read("mine", folder.path())
            .map_err(|error| error.to_string().replace(folder.path().to_str().unwrap(), ""))
    }

    fn peak(sequence: &str, start: u64, end: u64, summit: i64) -> String {
        format!("{sequence}\t{start}\t{end}\tp\t0\t.\t1\t-1\t-1\t{summit}\n")
    }

    #[test]
    fn every_site_has_a_stretch_like_it_that_overlaps_none() {
        let peaks: String = (0..60)
            .map(|i| peak(["one", "two"][i % 2], i as u64 * 300 + 50, i as u64 * 300 + 250, 30))
            .collect();
        let dataset = read(&sites(), &peaks).unwrap();
        assert_eq!((dataset.counts(Part::Train), dataset.counts(Part::Test)), (vec![30, 30], vec![30, 30]));
        let examples = || Part::ALL.into_iter().flat_map(|part| dataset.part(part));
        for pair in examples().collect::<Vec<_>>().chunks(2) {
            let [site, like] = [0, 1].map(|at| (pair[at].class, pair[at].place.unwrap()));
            assert_eq!((site.0, like.0, site.1.contig), (SITE, BACKGROUND, like.1.contig));
            let [site_gc, like_gc] = [0, 1].map(|at| gc(dataset.bases(pair[at]).unwrap()).unwrap());
            assert!((site_gc - like_gc).abs() < 0.0201);
            let number = (pair[0].line - 1) * 300;
            assert_eq!(site.1.interval, Interval::new(number + 30, number + 130), "around the summit");
        }
        let overlap = |a: Interval, b: Interval| a.start < b.end && b.start < a.end;
        let places: Vec<(u32, Place)> =
            examples().map(|example| (example.class, example.place.unwrap())).collect();
        for (at, (class, place)) in places.iter().enumerate() {
            let mut others =
                places[..at].iter().filter(|(other, _)| *class == BACKGROUND || *other == BACKGROUND);
            assert!(!others.any(|(_, other)| other.contig == place.contig && overlap(other.interval, place.interval)));
        }
        assert_ne!(read(&Sites { seed: 1, ..sites() }, &peaks).unwrap().text, dataset.text);
        assert_eq!(read(&sites(), &peaks).unwrap().text, dataset.text);
    }

    #[test]
    fn sites_that_cannot_be_used_are_counted() {
        let peaks = [
            peak("one", 10, 60, -1),
            peak("one", 400, 600, -1),
            peak("one", 450, 550, -1),
            peak("one", 19_850, 19_950, -1),
            peak("two", 19_960, 20_000, -1),
            peak("two", 300, 400, -1),
        ];
        let dataset = read(&sites(), &peaks.concat()).unwrap();
        let dropped: Vec<_> = dataset.dropped.iter().map(|(reason, count)| (*reason, *count)).collect();
        assert_eq!(
            dropped,
            [
                ("holds other codes than A, C, G and T", 1),
                ("reaches over an end of its sequence", 2),
                ("the same stretch as another site", 1),
            ]
        );
        assert_eq!((dataset.counts(Part::Train), dataset.counts(Part::Test)), (vec![1, 1], vec![1, 1]));
    }

    #[test]
    fn features_are_sites_on_their_strand() {
        let coding =
            Sites { bed: None, annotation: Some("a.gff3".into()), features: vec!["CDS".into()], ..sites() };
        let dataset = read(&coding, "").unwrap();
        let site = &dataset.part(Part::Test)[0];
        let place = site.place.unwrap();
        assert_eq!((place.interval, place.strand), (Interval::new(600, 700), Some(Strand::Reverse)));
        let mut expected = genome(20_000, 2).as_bytes()[600..700].to_vec();
        reverse_complement(&mut expected);
        assert_eq!(dataset.bases(site), Some(&expected[..]));
        assert_eq!(dataset.counts(Part::Train), [1, 1]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let whole = [peak("one", 300, 400, 5), peak("two", 300, 400, 5)].concat();
        for (sites, peaks, expected) in [
            (
                Sites { test: vec!["twoo".into()], ..sites() },
                whole.as_str(),
                "task `mine`: `test` names `twoo`, on which no site lies; did you mean `two`?",
            ),
            (
                Sites { validation: vec!["two".into()], ..sites() },
                &whole,
                "task `mine`: `two` stands in `test` and in `validation`",
            ),
            (
                Sites { bed: None, ..sites() },
                &whole,
                "task `mine`: found neither `bed` nor `annotation`, expected one of them",
            ),
            (
                sites(),
                &format!("{whole}{}", peak("six", 5, 9, 1)),
                "cannot read `/a.narrowPeak`, line 3: found a site on `six`, which `/a.fa` does not have",
            ),
            (
                sites(),
                &format!("{whole}one\t9\n"),
                "cannot read `/a.narrowPeak`, line 3: found 2 columns, expected at least 3: sequence, start, end",
            ),
        ] {
            assert_eq!(read(&sites, peaks).unwrap_err(), expected);
        }
    }
}
