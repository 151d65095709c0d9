//! The stages: one file each, with its configuration as people write it and its `run`.
//!
//! [`KINDS`] lists them; a new stage is a file and a line there. A stage reads artifacts and files, writes into the
//! folder it is given and reports its account of bases; publishing is the engine's work.

pub mod audit;
pub mod chunk;
pub mod clean;
pub mod command;
pub mod decontaminate;
pub mod dedup;
pub mod evaluate;
pub mod fetch;
pub mod hashes;
pub mod ingest;
pub mod leaks;
pub mod origin;
pub mod partition;
pub mod records;
pub mod report;
pub mod shard;
pub mod split;
pub mod tables;
pub mod tiles;
pub mod tokenize;
pub mod tokenizer;
pub mod train;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::Share::{Many, One};
pub use self::origin::Origin;
use self::partition::{Partition, Partitioned};
use crate::artifact::{self, Artifact, Counts, FileEntry, Input, Part, SourceFile};
use crate::collective::Group;
use crate::observer::{Event, Observer, Stop, Unit};
use crate::remote::{Address, Remote, Watch, is_address};
use crate::{fs, shard as shards, source, tokenizer as tokenizers};

/// A configured stage.
pub trait Stage: Send + Sync + Debug {
    /// The artifacts it reads: the role of each, and the stage's name. The role is the path of the configuration key that
    /// holds the name, with dots: `from`, `inputs.genome`. Where it ends with a number (`from.0`) the list [gathers](gathers).
    fn inputs(&self) -> Vec<(String, String)>;

    /// The files from outside that it reads; `base` is the folder that paths start from.
    fn files(&self, _base: &Path) -> Result<Vec<File>, Error> {
        Ok(Vec::new())
    }

    /// Why its result cannot be used again, although nothing that can be seen has changed.
    fn once(&self) -> Option<&'static str> {
        None
    }

    /// Whether it can do without artifacts that failed in this run, as long as one is there: it says which are not.
    fn does_with_less(&self) -> bool {
        false
    }

    /// Whether it reads the manifests, and files of times and the like, of all that its inputs were made from.
    fn looks_behind(&self) -> bool {
        false
    }

    /// What is wrong with the configuration beyond the types of its values: the key, and why.
    fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The configuration with every default filled in.
    fn resolved(&self) -> Value;

    /// Bytes that its artifact takes at least, as far as what it reads can tell: artifacts, and files from outside.
    fn least_bytes(&self, _inputs: &BTreeMap<String, Artifact>, _files: &[SourceFile]) -> u64 {
        0
    }

    /// Does the work.
    fn run(&self, task: &Task) -> Result<Outcome, Error>;

    /// The same work in partitions, if it falls into some; `run` then makes them one after the other.
    fn partitioned(&self) -> Option<&dyn Partitioned> {
        None
    }
}

/// Whether a role is one of a list, which takes in every expansion of a stage and does without those that are left out.
pub fn gathers(role: &str) -> bool {
    role.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
}

/// A file from outside the work folder, or an object at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// As the workflow writes it.
    pub path: PathBuf,
    /// Where it is, if not on this machine.
    pub address: Option<Address>,
    /// The hash that it must have; addresses only.
    pub sha256: Option<String>,
}

impl File {
    /// A path, or an address with its pin if it carries one. What looks like an address and is none is taken for a
    /// path; stages tell it among their problems.
    pub fn new(path: &Path) -> Self {
        let address = is_address(path).then(|| Address::parse(&path.to_string_lossy()).ok()).flatten();
        let sha256 = address.as_ref().and_then(|address| address.sha256().map(str::to_owned));
        Self { path: path.to_owned(), address, sha256 }
    }
}

/// What is wrong with a path that may be an address.
fn problem(path: &Path) -> Option<String> {
    let parsed = is_address(path).then(|| Address::parse(&path.to_string_lossy()));
    parsed.and_then(Result::err).map(|error| error.to_string())
}

/// How many threads a kind of stage can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// One, or hardly more.
    One,
    /// As many as there are.
    Many,
}

/// What a run of a stage that ends early leaves to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// Nothing: it begins anew.
    Nothing,
    /// The folder that it wrote into.
    Folder,
    /// Partitions of its work, which are no part of the artifact.
    Partitions,
}

/// A kind of stage: what `uses` may name.
pub struct Kind {
    /// The word after `uses:`.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Version of the algorithm: raised when the same input would give another output.
    pub algorithm: u32,
    /// How many threads it can use.
    pub share: Share,
    /// What a run that ends early leaves to the next one.
    pub leaves: Leaves,
    /// Reads the configuration.
    pub parse: fn(Value) -> Result<Box<dyn Stage>, ParseError>,
    /// Its JSON Schema.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// A configuration that does not fit, with the path to the value at fault.
pub type ParseError = serde_path_to_error::Error<serde_json::Error>;

/// Every kind of stage, in the order of the usual flow.
pub const KINDS: &[Kind] = &[
    Kind {
        leaves: Leaves::Partitions,
        ..kind::<ingest::Config>("ingest", "Reads files of sequences and reads into records", 5, One)
    },
    Kind {
        leaves: Leaves::Partitions,
        ..kind::<clean::Config>(
            "clean",
            "Upper-cases, settles IUPAC codes and N runs, drops what is too short",
            4,
            One,
        )
    },
    Kind {
        leaves: Leaves::Partitions,
        ..kind::<dedup::Config>(
            "dedup",
            "Drops intervals or windows that have been seen before, on either strand",
            2,
            One,
        )
    },
    Kind {
        leaves: Leaves::Partitions,
        ..kind::<split::Config>("split", "Assigns contigs to train, validation and test", 3, Many)
    },
    kind::<chunk::Config>("chunk", "Cuts intervals into windows", 2, One),
    kind::<decontaminate::Config>(
        "decontaminate",
        "Takes benchmarks' test sequences out of the training data",
        2,
        Many,
    ),
    Kind {
        leaves: Leaves::Partitions,
        ..kind::<leaks::Config>("leaks", "Measures what the splits have in common", 2, Many)
    },
    Kind {
        leaves: Leaves::Partitions,
        ..kind::<tokenizer::Config>("tokenizer", "Trains or takes over a tokenizer", 3, Many)
    },
    Kind {
        leaves: Leaves::Partitions,
        ..kind::<tokenize::Config>("tokenize", "Turns windows into tokens", 5, Many)
    },
    kind::<fetch::Config>("fetch", "Takes over shards from an address", 1, One),
    kind::<shard::Config>("shard", "Packs tokens into memory-mapped Parquet shards", 4, Many),
    Kind {
        name: "train",
        summary: "Trains a language model on shards",
        algorithm: 3,
        share: Many,
        leaves: Leaves::Folder,
        parse: train::parse,
        schema: train::schema,
    },
    Kind {
        leaves: Leaves::Folder,
        ..kind::<evaluate::Config>(
            "evaluate",
            "Scores a model beside Markov baselines on held-out rows, or models on benchmark tasks",
            1,
            Many,
        )
    },
    kind::<audit::Config>(
        "audit",
        "Says what the test sets of tasks share with training sets, and what scores without a model reach",
        1,
        One,
    ),
    kind::<command::Config>("command", "Runs a program that makes files out of files", 1, One),
    kind::<report::Config>("report", "Writes one HTML page about everything that led here", 1, One),
];

const fn kind<C>(name: &'static str, summary: &'static str, algorithm: u32, share: Share) -> Kind
where
    C: Stage + DeserializeOwned + JsonSchema + 'static,
{
    Kind {
        name,
        summary,
        algorithm,
        share,
        leaves: Leaves::Nothing,
        parse: parse::<C>,
        schema: |generator| C::json_schema(generator),
    }
}

fn parse<C: Stage + DeserializeOwned + 'static>(value: Value) -> Result<Box<dyn Stage>, ParseError> {
    serde_path_to_error::deserialize::<_, C>(value).map(|config| Box::new(config) as Box<dyn Stage>)
}

/// A configuration as JSON; ours always serialise.
fn to_json(config: &impl Serialize) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// The role and name of the one stage that most stages read `from`.
fn from(stage: &str) -> Vec<(String, String)> {
    vec![("from".to_owned(), stage.to_owned())]
}

/// A path; of an address the name of the file there.
fn bare(path: &Path) -> PathBuf {
    let address = is_address(path).then(|| Address::parse(&path.to_string_lossy()).ok()).flatten();
    address.map_or_else(|| path.to_owned(), |address| address.file_name().into())
}

/// Everything a running stage may touch.
pub struct Task<'a> {
    /// Its name in the workflow.
    pub stage: &'a str,
    /// The artifacts it reads, by role.
    pub inputs: &'a BTreeMap<String, Artifact>,
    /// The folder that relative paths of the workflow start from.
    pub base: &'a Path,
    /// The objects at addresses, by what the workflow writes: where they lie on this machine.
    pub fetched: &'a BTreeMap<PathBuf, PathBuf>,
    /// The way to other objects.
    pub remote: &'a Remote,
    /// The folder of the artifacts.
    pub work: &'a Path,
    /// The folder to write into.
    pub out: &'a Path,
    /// The folder of the partitions of its work, if it falls into some.
    pub parts: &'a Path,
    /// What was done before this task, for progress.
    pub before: u64,
    /// Whether a file from outside, as the workflow writes it, is what it was when the stage began.
    pub still: &'a (dyn Fn(&Path) -> Result<bool, fs::Error> + Sync),
    /// Worker threads.
    pub threads: usize,
    /// Worker threads of the run, which stages that run side by side share.
    pub jobs: usize,
    /// Where progress goes.
    pub observer: &'a dyn Observer,
    /// The request to stop.
    pub stop: &'a Stop,
    /// The other processes that train along, where there are any.
    pub group: Option<&'a Group>,
    /// Wall time of each stage when it last ran, in seconds; and [`Outcome::seconds`], by [`part`].
    pub seconds: &'a BTreeMap<String, f64>,
    /// The stages that were reused in this run.
    pub reused: &'a [String],
    /// The stages that failed in this run so far, and why.
    pub failed: &'a BTreeMap<String, String>,
    /// The workflow's name.
    pub workflow: &'a str,
}

impl Task<'_> {
    /// Where a file that the workflow names lies on this machine.
    pub fn file(&self, path: &Path) -> PathBuf {
        self.fetched.get(path).cloned().unwrap_or_else(|| self.base.join(path))
    }

    /// What a download of this stage reports to.
    pub fn watch(&self) -> Watch<'_> {
        Watch { stage: self.stage, observer: self.observer, stop: self.stop }
    }

    /// The artifact in a role.
    pub fn input(&self, role: &str) -> Result<&Artifact, Error> {
        self.inputs.get(role).ok_or_else(|| Error::Unusable {
            input: role.to_owned(),
            reason: "the stage was started without it".to_owned(),
        })
    }

    /// The artifact in a role, which must be of one of the given kinds.
    pub fn input_of(&self, role: &str, kinds: &[&str]) -> Result<&Artifact, Error> {
        let artifact = self.input(role)?;
        if kinds.contains(&artifact.manifest.kind.as_str()) {
            return Ok(artifact);
        }
        Err(Error::Unusable {
            input: artifact.manifest.stage.clone(),
            reason: format!("it is made by `{}`, `{role}` takes {}", artifact.manifest.kind, or(kinds)),
        })
    }

    /// The artifact that `artifact` refers to, which must still be the one that it was made with.
    pub fn referenced(&self, artifact: &Artifact, role: &str) -> Result<Artifact, Error> {
        let unusable = |reason: &str| Error::Unusable {
            input: artifact.manifest.stage.clone(),
            reason: reason.to_owned(),
        };
        let reference = artifact.manifest.references.iter().find(|reference| reference.role == role);
        let reference = reference.ok_or_else(|| unusable(&format!("it refers to no {role}")))?;
        let found = Artifact::open(&self.work.join(&reference.stage))?;
        if found.manifest.content == reference.content {
            return Ok(found);
        }
        Err(unusable(&format!("`{}`, which it refers to, has changed since", reference.stage)))
    }

    /// Tells how far the stage is.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: Unit) {
        let done = self.before + done;
        self.observer.event(&Event::Progress { stage: self.stage.to_owned(), done, total, unit });
    }

    /// Refuses what was made of a file from outside that changed since the stage began.
    fn check_unchanged(&self, path: PathBuf) -> Result<(), Error> {
        if (self.still)(&path)? { Ok(()) } else { Err(Error::Changed { path }) }
    }

    /// Tells something a person should know.
    pub fn note(&self, message: String) {
        self.observer.event(&Event::Note { stage: Some(self.stage.to_owned()), message });
    }

    /// Fails when someone asked to stop.
    pub fn check(&self) -> Result<(), Error> {
        if self.stop.is_requested() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

fn or(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ")
}

/// What a stage reports when it is done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Its account.
    pub counts: Counts,
    /// Artifacts without which its output has no meaning.
    pub references: Vec<Input>,
    /// What only it has to say.
    pub details: Value,
    /// Files that hold wall times.
    pub volatile: Vec<&'static str>,
    /// Times of parts of the work, in seconds of one thread, by name. They are kept beside the artifact.
    pub seconds: Vec<(String, f64)>,
    /// Folders of it that are artifacts of their own; their manifests belong to `volatile`.
    pub parts: Vec<Part>,
    /// Files whose hash is known from writing them; all others are hashed when they are published.
    pub files: Vec<FileEntry>,
    /// One line for people.
    pub summary: String,
}

/// What failed, with the numbers that `run-task` takes.
fn each(failures: &[(Partition, Error)]) -> String {
    let one = |(partition, error): &(Partition, Error)| format!("{}: {error}", partition.at);
    failures.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What the time of a part of a stage is called among the times of the stages.
pub fn part(stage: &str, part: &str) -> String {
    format!("{stage}/{part}")
}

/// A reference to an artifact, for [`Outcome::references`].
fn reference(role: &str, artifact: &Artifact) -> Input {
    Input {
        role: role.to_owned(),
        stage: artifact.manifest.stage.clone(),
        content: artifact.manifest.content.clone(),
    }
}

impl Error {
    /// Whether the workflow is at fault, so that another try would fail as well.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Config { .. }
            | Self::Unusable { .. }
            | Self::NoTrainer
            | Self::Command(command::Error::NoProgram { .. }) => true,
            Self::Partitions { failures, .. } => failures.iter().all(|(_, error)| error.is_configuration()),
            _ => false,
        }
    }
}

/// Why a stage failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Someone asked to stop.
    #[error("stopped on request")]
    Interrupted,
    /// Its time was up.
    #[error("it was stopped after {}, the `time` of its `resources`", humantime::format_duration(*limit))]
    OutOfTime {
        /// What it was given.
        limit: Duration,
    },
    /// A file is another than it was when the stage began.
    #[error("`{}` changed while it was read; run again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Some partitions of its work failed.
    #[error("{} of {of} partitions failed, the others are kept: {}", failures.len(), each(failures))]
    Partitions {
        /// How many there are.
        of: usize,
        /// Those that failed, and why.
        failures: Vec<(Partition, Error)>,
    },
    /// Its work falls into more partitions than can be counted.
    #[error("`partition`: the work falls into {found} partitions, expected at most {}", u32::MAX)]
    TooManyPartitions {
        /// How many.
        found: usize,
    },
    /// Its work has no such partition.
    #[error("no partition {at}{}: it falls into {count}, from 0 to {}", of.map_or_else(String::new, |of| format!(" of {of}")), count - 1)]
    NoSuchPartition {
        /// The number asked for.
        at: u32,
        /// Out of how many, as someone thought.
        of: Option<u32>,
        /// How many there are.
        count: usize,
    },
    /// A file call failed.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// An artifact cannot be read.
    #[error(transparent)]
    Artifact(#[from] artifact::Error),
    /// A FASTA file is at fault.
    #[error(transparent)]
    Fasta(#[from] source::fasta::Error),
    /// A file of sequences is at fault.
    #[error(transparent)]
    Contigs(#[from] source::contigs::Error),
    /// A FASTQ file is at fault.
    #[error(transparent)]
    Fastq(#[from] source::fastq::Error),
    /// Regions are at fault.
    #[error(transparent)]
    Region(#[from] source::region::Error),
    /// A table of samples is at fault.
    #[error(transparent)]
    Samples(#[from] source::samples::Error),
    /// A source names no files.
    #[error(transparent)]
    Files(#[from] source::files::Error),
    /// An alignment file is at fault.
    #[error(transparent)]
    Alignment(#[from] source::alignment::Error),
    /// A table of sequences is at fault.
    #[error(transparent)]
    Sequences(#[from] source::table::Error),
    /// A table cannot be read or written.
    #[error(transparent)]
    Table(#[from] tables::Error),
    /// A tokenizer is at fault.
    #[error(transparent)]
    Tokenizer(#[from] tokenizers::Error),
    /// Shards are at fault.
    #[error(transparent)]
    Shard(#[from] shards::Error),
    /// Results of tasks cannot be read.
    #[error(transparent)]
    Results(#[from] crate::evaluate::result::Error),
    /// Results of tasks cannot be compared.
    #[error(transparent)]
    Versus(#[from] crate::evaluate::versus::Error),
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] crate::report::Error),
    /// A command failed.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// Training failed.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Train(#[from] crate::train::Error),
    /// Evaluation failed.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Evaluate(#[from] crate::evaluate::Error),
    /// A model on tasks cannot be asked.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Encoder(#[from] crate::evaluate::encoder::Error),
    /// Scoring tasks failed.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Tasks(#[from] crate::evaluate::tasks::Error),
    /// The stage needs libtorch, which this binary was built without.
    #[error(
        "this genomill was built without the trainer; build it with `make build`, or `cargo install --path . --features train`"
    )]
    NoTrainer,
    /// An input does not fit.
    #[error("cannot use `{input}`: {reason}")]
    Unusable {
        /// The stage whose artifact it is.
        input: String,
        /// Why not.
        reason: String,
    },
    /// A configured value does not fit the data.
    #[error("`{key}`: {reason}")]
    Config {
        /// The key.
        key: &'static str,
        /// What was found and what is possible.
        reason: String,
    },
}
