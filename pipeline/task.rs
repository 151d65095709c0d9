//! Benchmark tasks: labelled sequences in three parts, read from the layouts that the field uses, and what can be said about
//! them before any model runs. No tensors.
//!
//! A task is a folder of Genomic Benchmarks, a folder of GUE, any table (CSV, Parquet) with a sequence and a label, sites on an assembly against
//! stretches like them, the bases of genes, or variants against the reference; [`Task`] is how it stands in a YAML file. Lengths are in bases, coordinates 0-based and half-open on the forward strand.

pub mod audit;
mod dataset;
mod folders;
pub mod genes;
mod known;
pub mod published;
mod reference;
mod sites;
pub mod tables;
pub mod variants;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use dataset::{Dataset, Example, Kind, Part, Place, UNLABELLED};
pub use genes::Genes;
pub use known::{KNOWN, Known};
pub use sites::Sites;
pub use tables::Table;
pub use variants::Variants;

use crate::metric::scores::Metric;
use crate::source::{columns, contigs, table};

/// A file of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// By name.
    pub tasks: BTreeMap<String, Task>,
}

/// A task as written: one of `genomic_benchmarks`, `gue`, `csv`, `table`, `sites`, `genes` and `variants`. Paths start from the folder of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Goes up when the same name comes to mean other data: scores under different versions are not compared.
    pub version: u32,
    /// A folder of Genomic Benchmarks: `metadata.yaml`, and `train` and `test` with a CSV file of intervals for each class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genomic_benchmarks: Option<PathBuf>,
    /// FASTA files that the intervals of `genomic_benchmarks` lie on; without them only what intervals tell is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reference: Vec<PathBuf>,
    /// A folder of GUE: `train.csv`, `dev.csv` and `test.csv`, plain or gzip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gue: Option<PathBuf>,
    /// CSV files of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<Csv>,
    /// Parquet or CSV files of one's own, a file for each part or a column that says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
    /// Sites on an assembly, against stretches like them: protein binding from peaks, coding sequence from an annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<Sites>,
    /// Gene finding: a class for every base, from an annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genes: Option<Genes>,
    /// Variant effects without training: variants in their surroundings against the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variants: Option<Variants>,
    /// What the score is; by default the published one of a known task, of `variants` `auroc`, else `mcc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
}

/// CSV files (TSV if their names say so), plain or gzip, with a row for each example. The columns `region` (or `contig`), `start`,
/// `end` and `strand` are read too where they are there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Csv {
    /// To learn from.
    pub train: PathBuf,
    /// To choose by. Without it a part of `train` is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// To score on, once.
    pub test: PathBuf,
    /// The column with the bases. Default `sequence`.
    #[serde(default = "sequence")]
    pub sequence: String,
    /// The column with the class. Default `label`.
    #[serde(default = "label")]
    pub label: String,
}

fn sequence() -> String {
    "sequence".to_owned()
}

fn label() -> String {
    "label".to_owned()
}

/// Why a task cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be had.
    #[error("cannot read `{}`", file.display())]
    Read {
        /// The file or folder.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A YAML file that says something else than it should.
    #[error("cannot read `{}`: {problem}", file.display())]
    Yaml {
        /// The file.
        file: PathBuf,
        /// What, and where.
        problem: String,
    },
    /// A task that does not say what it is, or twice.
    #[error(
        "task `{task}`: found {found}, expected one of `genomic_benchmarks`, `gue`, `csv`, `table`, `sites`, `genes` and `variants`"
    )]
    Kind {
        /// Its name.
        task: String,
        /// What it says.
        found: String,
    },
    /// A folder of no known layout.
    #[error("`{}` is no task: {problem}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// A table.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// Sites that do not say what is needed.
    #[error("task `{task}`: {problem}")]
    Sites {
        /// Its name.
        task: String,
        /// What is wrong.
        problem: String,
    },
    /// A BED or GFF3 file.
    #[error(transparent)]
    Columns(#[from] columns::Error),
    /// A reference.
    #[error(transparent)]
    Reference(#[from] contigs::Error),
    /// A Parquet file.
    #[error("cannot read `{}`: {problem}", file.display())]
    Parquet {
        /// The file.
        file: PathBuf,
        /// What is wrong, and in which row.
        problem: String,
    },
    /// An interval that the reference does not have.
    #[error("cannot read `{}`, line {line}: {problem}", file.display())]
    Interval {
        /// The file with the interval.
        file: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// A part without examples.
    #[error("task `{task}` has no example to {part} on")]
    Empty {
        /// Its name.
        task: String,
        /// What the part is for.
        part: &'static str,
    },
}

impl Task {
    /// The files that the examples are read from, as they are found below `base`.
    ///
    /// # Errors
    /// [`Error`] when a folder has not what its layout needs.
    pub fn files(&self, base: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut files: Vec<PathBuf> = self.reference.clone();
        if let Some(csv) = &self.csv {
            files.extend([&csv.train, &csv.test].into_iter().chain(&csv.validation).cloned());
        }
        files.extend(self.table.iter().flat_map(Table::files).cloned());
        if let Some(sites) = &self.sites {
            files.extend(sites.bed.iter().chain(&sites.annotation).chain([&sites.assembly]).cloned());
        }
        if let Some(genes) = &self.genes {
            files.extend([genes.annotation.clone(), genes.assembly.clone()]);
        }
        if let Some(variants) = &self.variants {
            files.extend([variants.vcf.clone(), variants.assembly.clone()]);
        }
        let mut files: Vec<PathBuf> = files.iter().map(|path| base.join(path)).collect();
        if let Some(folder) = &self.gue {
            files.extend(folders::files_of_gue(&base.join(folder))?);
        }
        if let Some(folder) = &self.genomic_benchmarks {
            files.extend(folders::files_of_genomic_benchmarks(&base.join(folder))?);
        }
        Ok(files)
    }

    /// Reads the examples. `base` is the folder that paths start from.
    ///
    /// # Errors
    /// [`Error`] with file and line.
    pub fn read(&self, name: &str, base: &Path) -> Result<Dataset, Error> {
        let under = |path: &PathBuf| base.join(path);
        let wrong_kind = |found: &str| Error::Kind { task: name.to_owned(), found: found.to_owned() };
        let mut found = Vec::new();
        if let Some(folder) = &self.genomic_benchmarks {
            let reference: Vec<_> = self.reference.iter().map(under).collect();
            found.push(folders::genomic_benchmarks(name, &under(folder), &reference));
        }
        found.extend(self.gue.iter().map(|folder| folders::gue(name, &under(folder))));
        found.extend(self.csv.iter().map(|csv| folders::csv(name, csv, base)));
        found.extend(self.table.iter().map(|table| tables::read(name, table, base)));
        found.extend(self.sites.iter().map(|sites| sites::read(name, sites, base)));
        found.extend(self.genes.iter().map(|genes| genes::read(name, genes, base)));
        found.extend(self.variants.iter().map(|variants| variants::read(name, variants, base)));
        if found.len() > 1 {
            return Err(wrong_kind("several"));
        }
        let mut dataset = found.pop().ok_or_else(|| wrong_kind("none"))??;
        dataset.version = self.version;
        dataset.metric = self.metric.or(dataset.metric);
        for (part, purpose) in [(Part::Train, "train"), (Part::Test, "test")] {
            let is_learned = dataset.kind != Kind::Pairs || part == Part::Test;
            if is_learned && dataset.part(part).is_empty() {
                return Err(Error::Empty { task: name.to_owned(), part: purpose });
            }
        }
        Ok(dataset)
    }
}

/// The tasks at a path, by name: those of a YAML file, or the one that a folder holds; and the folder that their paths start from.
///
/// # Errors
/// [`Error`] when it is neither.
pub fn find(path: &Path) -> Result<(File, PathBuf), Error> {
    if path.is_dir() {
        let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = folders::name(&name);
        let task = folders::recognise(path)?;
        return Ok((File { tasks: BTreeMap::from([(name, task)]) }, PathBuf::new()));
    }
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { file: path.to_owned(), source })?;
    let file = serde_saphyr::from_str(&text)
        .map_err(|error| Error::Yaml { file: path.to_owned(), problem: error.to_string() })?;
    Ok((file, path.parent().unwrap_or(Path::new("")).to_owned()))
}
