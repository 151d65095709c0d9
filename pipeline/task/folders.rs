//! Reads the layouts of tasks: folders of Genomic Benchmarks and of GUE, and CSV files.
//!
//! Classes are numbered by what the task says, never by the order of a folder: the order of `metadata.yaml`, numbers by value, else
//! texts by alphabet.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Csv, Dataset, Error, Example, KNOWN, Part, Place, Task, reference};
use crate::source::table;
use crate::units::Interval;

const METADATA: &str = "metadata.yaml";
/// Endings of a table's name.
const ENDINGS: [&str; 3] = ["csv", "csv.gz", "tsv"];

/// The name of a task in a folder: its own, with that of the folder above where it is a number or one word of many (GUE's `tf/0`).
pub fn name(folder: &Path) -> String {
    let part =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let own = part(folder);
    if own.bytes().all(|byte| byte.is_ascii_digit()) {
        folder.parent().map_or(own.clone(), |above| format!("{}-{own}", part(above)))
    } else {
        own
    }
}

/// The task that a folder holds.
pub fn recognise(folder: &Path) -> Result<Task, Error> {
    let task = Task { version: 1, ..Task::default() };
    if folder.join(METADATA).is_file() {
        return Ok(Task { genomic_benchmarks: Some(folder.to_owned()), ..task });
    }
    if table_of(folder, "train").is_some() {
        return Ok(Task { gue: Some(folder.to_owned()), ..task });
    }
    let problem = format!("found neither `{METADATA}` (Genomic Benchmarks) nor `train.csv` (GUE)");
    Err(Error::Folder { folder: folder.to_owned(), problem })
}

/// A table in a folder by its name without endings.
fn table_of(folder: &Path, stem: &str) -> Option<PathBuf> {
    ENDINGS.iter().map(|ending| folder.join(format!("{stem}.{ending}"))).find(|path| path.is_file())
}

fn table_in(folder: &Path, stem: &str) -> Result<PathBuf, Error> {
    table_of(folder, stem).ok_or_else(|| {
        let problem = format!("found no `{stem}.csv` and no `{stem}.csv.gz`");
        Error::Folder { folder: folder.to_owned(), problem }
    })
}

/// A folder of Genomic Benchmarks.
pub fn genomic_benchmarks(name: &str, folder: &Path, references: &[PathBuf]) -> Result<Dataset, Error> {
    let classes = metadata_classes(&folder.join(METADATA))?;
    let mut gather = Gather::new(name);
    for part in [Part::Train, Part::Test] {
        for class in &classes {
            let path = table_in(&folder.join(part.name()), class)?;
            gather.intervals(part, &path, class)?;
        }
    }
    let mut dataset = gather.finish(Some(classes));
    if !references.is_empty() {
        reference::fill(&mut dataset, references)?;
    }
    Ok(dataset)
}

/// The files of a folder of Genomic Benchmarks.
pub fn files_of_genomic_benchmarks(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let metadata = folder.join(METADATA);
    let mut files = vec![metadata.clone()];
    for class in metadata_classes(&metadata)? {
        for part in [Part::Train, Part::Test] {
            files.push(table_in(&folder.join(part.name()), &class)?);
        }
    }
    Ok(files)
}

/// The classes in the order of `metadata.yaml`.
fn metadata_classes(path: &Path) -> Result<Vec<String>, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { file: path.to_owned(), source })?;
    let wrong = |problem: String| Error::Yaml { file: path.to_owned(), problem };
    let all: Map<String, Value> = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let classes = all.get("classes").and_then(Value::as_object);
    let classes: Vec<String> = classes.map(|classes| classes.keys().cloned().collect()).unwrap_or_default();
    if classes.len() < 2 {
        return Err(wrong(format!("found {} names below `classes`, expected 2 or more", classes.len())));
    }
    Ok(classes)
}

/// A folder of GUE.
pub fn gue(name: &str, folder: &Path) -> Result<Dataset, Error> {
    self::csv(name, &csv_of_gue(folder)?, Path::new(""))
}

/// The files of a folder of GUE.
pub fn files_of_gue(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let csv = csv_of_gue(folder)?;
    Ok([csv.train, csv.test].into_iter().chain(csv.validation).collect())
}

fn csv_of_gue(folder: &Path) -> Result<Csv, Error> {
    Ok(Csv {
        train: table_in(folder, "train")?,
        validation: table_of(folder, "dev"),
        test: table_in(folder, "test")?,
        sequence: super::sequence(),
        label: super::label(),
    })
}

/// CSV files.
pub fn csv(name: &str, csv: &Csv, base: &Path) -> Result<Dataset, Error> {
    let mut gather = Gather::new(name);
    let parts = [
        (Part::Train, Some(&csv.train)),
        (Part::Validation, csv.validation.as_ref()),
        (Part::Test, Some(&csv.test)),
    ];
    for (part, path) in parts {
        if let Some(path) = path {
            gather.sequences(part, &base.join(path), csv)?;
        }
    }
    Ok(gather.finish(None))
}

/// Gathers examples, whose classes are numbered as they come and in order at the end.
pub(super) struct Gather {
    dataset: Dataset,
    classes: BTreeMap<String, u32>,
    contigs: HashMap<String, u32>,
}

impl Gather {
    pub(super) fn new(name: &str) -> Self {
        let known = KNOWN.iter().find(|known| known.name == name);
        let metric = known.map(|known| known.metric);
        let dataset = Dataset { name: name.to_owned(), metric, ..Dataset::default() };
        Self { dataset, classes: BTreeMap::new(), contigs: HashMap::new() }
    }

    /// Intervals of one class.
    fn intervals(&mut self, part: Part, path: &Path, class: &str) -> Result<(), Error> {
        let mut rows = table::Reader::open(path, &["region", "start", "end"])?;
        let places = [Some(0), Some(1), Some(2), rows.optional("strand")];
        let file = self.file(path);
        let class = self.class(class);
        while rows.next_row()? {
            let place = self.place(&rows, places)?;
            self.dataset.part_mut(part).push(Example {
                class,
                place,
                bases: None,
                against: None,
                file,
                line: rows.line(),
            });
        }
        Ok(())
    }

    /// Sequences with their labels, and places if there are any.
    fn sequences(&mut self, part: Part, path: &Path, csv: &Csv) -> Result<(), Error> {
        let mut rows = table::Reader::open(path, &[&csv.sequence, &csv.label])?;
        let region = rows.optional("region").or_else(|| rows.optional("contig"));
        let places = [region, rows.optional("start"), rows.optional("end"), rows.optional("strand")];
        let file = self.file(path);
        while rows.next_row()? {
            let class = self.class(rows.text(1)?);
            let bases = Some(self.dataset.keep(rows.sequence(0)?));
            let place = self.place(&rows, places)?;
            self.dataset.part_mut(part).push(Example {
                class,
                place,
                bases,
                against: None,
                file,
                line: rows.line(),
            });
        }
        Ok(())
    }

    /// The place in some columns: region, start, end and strand.
    fn place(&mut self, rows: &table::Reader, columns: [Option<usize>; 4]) -> Result<Option<Place>, Error> {
        let [Some(region), Some(start), Some(end), strand] = columns else { return Ok(None) };
        let contig = self.dataset.contig(rows.text(region)?, &mut self.contigs);
        let (start, end) = (rows.number(start)?, rows.number(end)?);
        if start >= end {
            let problem = format!("found an interval from {start} to {end}, expected an end above the start");
            return Err(rows.wrong(problem).into());
        }
        let strand = strand.map(|column| rows.strand(column)).transpose()?.flatten();
        Ok(Some(Place { contig, interval: Interval::new(start, end), strand }))
    }

    /// A sequence with its label, in a file and a line.
    pub(super) fn labelled(
        &mut self,
        part: Part,
        sequence: &str,
        label: &str,
        (file, line): (u32, u64),
    ) -> Result<(), String> {
        super::tables::check_sequence(sequence)?;
        let (class, bases) = (self.class(label), Some(self.dataset.keep(sequence.as_bytes())));
        let example = Example { class, place: None, bases, against: None, file, line };
        self.dataset.part_mut(part).push(example);
        Ok(())
    }

    pub(super) fn file(&mut self, path: &Path) -> u32 {
        self.dataset.files.push(path.to_owned());
        u32::try_from(self.dataset.files.len() - 1).unwrap_or(u32::MAX)
    }

    fn class(&mut self, name: &str) -> u32 {
        if let Some(&class) = self.classes.get(name) {
            return class;
        }
        let next = u32::try_from(self.classes.len()).unwrap_or(u32::MAX);
        self.classes.insert(name.to_owned(), next);
        next
    }

    /// Numbers the classes by the order given, else by their names.
    pub(super) fn finish(mut self, order: Option<Vec<String>>) -> Dataset {
        let order = order.unwrap_or_else(|| in_order(self.classes.keys().cloned().collect()));
        let mut numbers = vec![0; self.classes.len()];
        for (number, name) in (0..).zip(&order) {
            if let Some(&class) = self.classes.get(name) {
                numbers[class as usize] = number;
            }
        }
        for example in self.dataset.parts.iter_mut().flatten() {
            example.class = numbers[example.class as usize];
        }
        self.dataset.classes = order;
        self.dataset
    }
}

/// Numbers by value, else texts by alphabet.
fn in_order(mut names: Vec<String>) -> Vec<String> {
    let number = |name: &String| name.parse::<i64>();
    if names.iter().all(|name| number(name).is_ok()) {
        names.sort_by_key(|name| number(name).unwrap_or_default());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn classes_have_the_order_of_the_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let header = "id,region,start,end,strand\n";
        write(
            folder.path(),
            &[
                (
                    "metadata.yaml",
                    "version: 0\nclasses:\n  positive: {type: fa.gz}\n  negative: {type: fa.gz}\n",
                ),
                ("train/negative.csv", &format!("{header}0,chr1,5,9,-\n1,chr2,5,9,\n")),
                ("train/positive.csv", &format!("{header}0,chr1,15,19,+\n")),
                ("test/negative.csv", &format!("{header}0,chr1,25,29,-\n")),
                ("test/positive.csv", &format!("{header}0,chr1,35,37,+\n")),
            ],
        );
        let task = recognise(folder.path()).unwrap();
        let dataset = task.read("mine", Path::new("")).unwrap();
        assert_eq!(dataset.classes, ["positive", "negative"]);
        assert_eq!(dataset.counts(Part::Train), [1, 2]);
        assert_eq!(dataset.contigs, ["chr1", "chr2"]);
        let example = &dataset.part(Part::Test)[0];
        assert_eq!((dataset.length(example), example.class, example.line), (2, 0, 2));
    }

    #[test]
    fn labels_are_ordered_as_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let rows = |labels: &[u32]| {
            let rows = labels.iter().map(|label| format!("acgt,{label}\n"));
            format!("sequence,label\n{}", rows.collect::<String>())
        };
        write(folder.path(), &[("train.csv", &rows(&[10, 9, 0])), ("test.csv", &rows(&[9, 11]))]);
        let dataset = recognise(folder.path()).unwrap().read("mine", Path::new("")).unwrap();
        assert_eq!(dataset.classes, ["0", "9", "10", "11"]);
        assert_eq!(dataset.bases(&dataset.part(Part::Train)[0]), Some(&b"ACGT"[..]));
        assert_eq!(dataset.counts(Part::Test), [0, 1, 0, 1]);
    }

    #[test]
    fn what_is_no_task_is_refused() {
        let header = "id,region,start,end,strand\n";
        let metadata = "classes: {a: {}, b: {}}\n";
        let whole: [(&str, String); 4] = ["train/a.csv", "train/b.csv", "test/a.csv", "test/b.csv"]
            .map(|path| (path, format!("{header}0,c,1,2,+\n")));
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("readme", "")], "found neither `metadata.yaml` (Genomic Benchmarks) nor `train.csv` (GUE)"),
            (&[("train.csv", "sequence,label\nACGT,1\n")], "found no `test.csv` and no `test.csv.gz`"),
            (
                &[("train.csv", "seq,label\n"), ("test.csv", "")],
                "line 1: found no column `sequence`; there are `seq`, `label`",
            ),
            (
                &[("train.csv", "sequence,label\nACGJ,1\n"), ("test.csv", "")],
                "train.csv`, line 2: base 3 of the sequence is byte 0x4A",
            ),
            (
                &[("train.csv", "sequence,label\n"), ("test.csv", "sequence,label\nA,1\n")],
                "task `mine` has no example to train on",
            ),
            (&[("metadata.yaml", "classes: {a: {}}\n")], "found 1 names below `classes`, expected 2 or more"),
            (
                &[("metadata.yaml", metadata), ("train/a.csv", "id,region,start,end,strand\n0,c,9,9,+\n")],
                "line 2: found an interval from 9 to 9",
            ),
            (
                &[("metadata.yaml", metadata), ("train/a.csv", "id,region,start,end,strand\n0,c,9,x,+\n")],
                "line 2: found `x`, expected a number",
            ),
        ];
        for (files, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let whole: Vec<(&str, &str)> = whole.iter().map(|(path, text)| (*path, text.as_str())).collect();
            if files[0].0 == "metadata.yaml" {
                write(folder.path(), &whole);
            }
            write(folder.path(), files);
            let error =
                recognise(folder.path()).and_then(|task| task.read("mine", Path::new(""))).unwrap_err();
            assert!(error.to_string().contains(expected), "{error} instead of {expected}");
        }
    }

    #[test]
    fn folders_give_tasks_their_names() {
        for (folder, expected) in
            [("GUE/tf/0", "tf-0"), ("GUE/prom/prom_core_tata", "prom_core_tata"), ("x", "x")]
        {
            assert_eq!(name(Path::new(folder)), expected);
        }
    }
}
