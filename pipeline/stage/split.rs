//! Assigns every kept interval to a split by its contig, so that no contig stands in two splits; reads follow the contig
//! that they are aligned to. With `homology`, contigs that share k-mers stay together; with `groups`, those of a group;
//! with `intervals`, contigs are cut where BED files say. What each split is made of is counted on the way.
//!
//! A partition is the intervals of records of so many bases: it assigns them and counts what they are made of, and what
//! all of them counted is added up. With `homology` nothing can be assigned before the families are known: a partition
//! gathers k-mers, and putting together finds the families and then passes over all bases once, to assign and to count.
//! MMseqs2 clusters all contigs in one call: with it the stage is one job.
//!
//! Memory: the record table, a few blocks of bases and masks, the names of the contigs and a count for each length of
//! records; with `homology` 40 bytes for each k-mer taken (of one partition's 16 while it is made) and 32 for each interval
//! or block; with `intervals` 40 bytes for each on each record.

mod homology;
mod intervals;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::homology::{Found, Homology, Mmseqs};
use self::intervals::{HeldOut, Intervals};
use super::partition::{self, Finished, Made, Partition, Partitioned, Work};
use super::records::{
    BLOCK_BASES, INTERVALS, MASKS, MaskReader, RECORDS, Record, SequenceReader, Stretch, StretchWriter,
    bounds_of_records, check_sources, for_each_stretch, for_each_stretch_of, index, read_records, records_of,
    sequence_of,
};
use super::tiles::{Part, on_records};
use super::tokenizer::fetch;
use super::{Error, File, Origin, Outcome, Stage, Task, from, reference, to_json};
use crate::artifact::{Artifact, Counts};
use crate::loader::fraction;
use crate::observer::Unit;
use crate::sequence::statistics::{Counted, Counter, Statistics};
use crate::source::table;
use crate::units::{self, Interval, Strand};

/// Which contig goes where. A contig that no key mentions is for training.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage that cleaned the records.
    from: String,
    /// Contigs for validation while training.
    #[serde(default)]
    validation: Vec<String>,
    /// Contigs for the last test.
    #[serde(default)]
    test: Vec<String>,
    /// Contigs that are left out.
    #[serde(default)]
    exclude: Vec<String>,
    /// Intervals for validation and test, and such that are left out, from BED files: contigs are cut at their bounds, and
    /// what lies in none goes where it would without them. Not with `homology` or `groups`, which keep contigs whole.
    /// Default: whole contigs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intervals: Option<Intervals>,
    /// Share of the other contigs that goes to validation, drawn by name. Default 0.
    #[serde(default)]
    validation_fraction: f64,
    /// Share of the other contigs that goes to test, drawn by name. Default 0.
    #[serde(default)]
    test_fraction: f64,
    /// Chooses the draw; the same contig name falls the same way whatever else is there.
    #[serde(default)]
    seed: u64,
    /// Keeps contigs (with `block`, blocks) that share k-mers on either strand, or that MMseqs2 finds to be alike, in one split: families are drawn together,
    /// by the name of their first member in the order of reading; a family with a contig that `validation` or `test` names
    /// goes there. Default: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    homology: Option<Homology>,
    /// Draws the contigs of a group (a genus, a strain, a patient) together, as a table says. Default: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<Groups>,
    /// Cut contigs at multiples of this many bases and draw each block by itself: for genomes of one contig. Not for
    /// reads, whose block is not looked up. Default: whole contigs.
    #[serde(default, deserialize_with = "units::bases", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "units::Amount")]
    block: Option<u64>,
    /// For single sources, a name in place of `train`, `validation` or `test`; null leaves that part out. So reads can be
    /// kept from training and tested by themselves: `reads: {train: null, validation: null, test: reads}`.
    #[serde(default)]
    sources: BTreeMap<String, BTreeMap<String, Option<String>>>,
    /// What happens to reads that are aligned to no contig: `exclude` (default, for they may come from a held-out
    /// one) or `train`.
    #[serde(default)]
    unplaced: Unplaced,
    /// Bases of a partition, the part of the work that is done at a time and kept when the run ends early: records whose
    /// intervals have so many; what comes out is the same for every number. With `homology: {mmseqs: ...}` there is
    /// one. Default 256Mb.
    #[serde(default, deserialize_with = "units::bases", skip_serializing)]
    #[schemars(with = "units::Amount")]
    partition: Option<u64>,
}

/// Groups of contigs: a taxonomy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Groups {
    /// A CSV file (TSV if its name says so) with a row for each contig, plain, gzip or bgzip; relative to the workflow file.
    /// A contig without a row is a group of its own. Also `{stage: NAME, file: PATH}`: what another stage made.
    csv: Origin,
    /// The column that names the contig. Default `contig`.
    #[serde(default = "contig_column")]
    contig: String,
    /// The column that names the group. Default `group`.
    #[serde(default = "group_column")]
    group: String,
    /// Groups for validation while training.
    #[serde(default)]
    validation: Vec<String>,
    /// Groups for the last test.
    #[serde(default)]
    test: Vec<String>,
}

fn contig_column() -> String {
    "contig".to_owned()
}

fn group_column() -> String {
    "group".to_owned()
}

impl Groups {
    /// The group of each contig.
    fn read(&self, task: &Task) -> Result<HashMap<String, String>, Error> {
        let path = task.locate(&self.csv)?;
        let mut reader = table::Reader::open(&path, &[&self.contig, &self.group])?;
        let mut group_of: HashMap<String, String> = HashMap::new();
        while reader.next_row()? {
            let (contig, group) = (reader.text(0)?.to_owned(), reader.text(1)?.to_owned());
            match group_of.get(&contig).filter(|other| **other != group) {
                None => drop(group_of.insert(contig, group)),
                Some(other) => {
                    let reason = format!("contig `{contig}` is in `{other}` and in `{group}`");
                    return Err(Error::Config { key: "groups", reason });
                }
            }
        }
        let lists = self.validation.iter().chain(&self.test);
        match lists.into_iter().find(|name| !group_of.values().any(|group| group == *name)) {
            None => Ok(group_of),
            Some(name) => {
                let reason = format!("no group is called `{name}` in column `{}`", self.group);
                Err(Error::Config { key: "groups", reason })
            }
        }
    }

    fn listed(&self, group: &String) -> Option<&'static str> {
        if self.validation.contains(group) {
            Some("validation")
        } else {
            self.test.contains(group).then_some("test")
        }
    }
}

/// What is drawn, where families are sought.
#[derive(Debug, Default)]
struct Members {
    /// For each its name and its contig.
    names: Vec<(String, String)>,
    /// Where they lie; the label is the number of the name. They ascend.
    parts: Vec<Part>,
}

/// What is drawn together.
#[derive(Debug, Default)]
struct Families {
    /// For the name of what is drawn, the family's number.
    of: HashMap<String, usize>,
    /// For each family the name that it is drawn by.
    drawn: Vec<String>,
    /// For each family the split that a list puts one of its contigs into.
    listed: Vec<Option<&'static str>>,
    details: Value,
}

/// What happens to reads that are aligned to no contig.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unplaced {
    /// They are left out.
    #[default]
    Exclude,
    /// They are for training.
    Train,
}

/// The parts that contigs are assigned to.
const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Split(&'static str),
    Dropped(&'static str),
}

impl Config {
    /// `drawn` says what is drawn: a contig, or a block of one.
    fn place(&self, record: &Record, drawn: &str, families: &Families) -> Place {
        let Some(contig) = &record.contig else {
            return if self.unplaced == Unplaced::Train {
                Place::Split("train")
            } else {
                Place::Dropped("unplaced read")
            };
        };
        if self.exclude.contains(contig) {
            return Place::Dropped("excluded contig");
        }
        let family = families.of.get(drawn).copied();
        let listed = family.map_or_else(|| self.listed(contig), |family| families.listed[family]);
        if let Some(split) = listed {
            return Place::Split(split);
        }
        let draw = self.draw(family.map_or(drawn, |family| &families.drawn[family]));
        if draw < self.validation_fraction {
            Place::Split("validation")
        } else if draw < self.validation_fraction + self.test_fraction {
            Place::Split("test")
        } else {
            Place::Split("train")
        }
    }

    /// The parts of an interval and where each goes.
    fn pieces(
        &self,
        held: &HeldOut,
        families: &Families,
        record: &Record,
        stretch: &Stretch,
    ) -> Vec<(Interval, Place)> {
        let mut pieces = Vec::new();
        for (interval, place) in held.cut(stretch.record, stretch.interval) {
            if let Some(place) = place {
                pieces.push((interval, place));
                continue;
            }
            let drawn = self.parts(record, interval).into_iter();
            pieces.extend(drawn.map(|(drawn, part)| (part, self.place(record, &drawn, families))));
        }
        pieces
    }

    /// The split that a list puts a contig into.
    fn listed(&self, contig: &String) -> Option<&'static str> {
        if self.validation.contains(contig) {
            Some("validation")
        } else if self.test.contains(contig) {
            Some("test")
        } else {
            None
        }
    }

    /// What is drawn, contigs or blocks, and where it lies, for those that may be homologous.
    fn members(&self, input: &Artifact, records: &[Record]) -> Result<Members, Error> {
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut members = Members::default();
        for_each_stretch::<Error>(&input.path(INTERVALS), |stretch| {
            let record = &records[index(stretch.record)];
            if record.contig.as_ref().is_none_or(|contig| self.exclude.contains(contig)) {
                return Ok(());
            }
            for (name, interval) in self.parts(record, stretch.interval) {
                let next = u32::try_from(members.names.len()).unwrap_or(u32::MAX);
                let label = *numbers.entry(name).or_insert_with_key(|name| {
                    members.names.push((name.clone(), record.contig.clone().unwrap_or_default()));
                    next
                });
                members.parts.push(Part { record: stretch.record, interval, label });
            }
            Ok(())
        })?;
        Ok(members)
    }

    /// Groups of contigs as families, by the names of the groups.
    fn grouped(&self, groups: &Groups, task: &Task, records: &[Record]) -> Result<Families, Error> {
        let group_of = groups.read(task)?;
        let contigs: BTreeSet<&String> = records.iter().filter_map(|record| record.contig.as_ref()).collect();
        let mut families = Families::default();
        let mut number_of: HashMap<&String, usize> = HashMap::new();
        let mut without = 0;
        for contig in contigs {
            let Some(group) = group_of.get(contig) else {
                without += 1;
                continue;
            };
            let family = *number_of.entry(group).or_insert_with(|| {
                families.drawn.push(format!("group {group}"));
                families.listed.push(groups.listed(group));
                families.drawn.len() - 1
            });
            families.of.insert(contig.clone(), family);
            let (own, other) = (self.listed(contig), families.listed[family]);
            if own.is_some() && own != other {
                let reason =
                    format!("`{contig}` is listed by itself, but `{group}`, its group, is drawn as one");
                return Err(Error::Config { key: "groups", reason });
            }
        }
        families.details =
            json!({ "groups": families.drawn.len(), "contigs": families.of.len(), "without": without });
        Ok(families)
    }

    /// Families by the names of their members; `names` are pairs of what is drawn and its contig.
    fn named(&self, names: &[(String, String)], found: Found) -> Result<Families, Error> {
        let mut named = Families::default();
        let mut number_of: HashMap<u32, usize> = HashMap::new();
        let mut listed_by: Vec<Option<&String>> = Vec::new();
        let mut sizes: Vec<u64> = Vec::new();
        for ((name, contig), first) in names.iter().zip(&found.firsts) {
            let family = *number_of.entry(*first).or_insert_with(|| {
                named.drawn.push(name.clone());
                named.listed.push(None);
                listed_by.push(None);
                sizes.push(0);
                sizes.len() - 1
            });
            named.of.insert(name.clone(), family);
            sizes[family] += 1;
            let listed = self.listed(contig);
            match (listed, named.listed[family], listed_by[family]) {
                (Some(own), Some(other), Some(by)) if own != other => {
                    let reason = format!(
                        "`{contig}` is listed for {own} and `{by}` for {other}, but they are of one family"
                    );
                    return Err(Error::Config { key: "homology", reason });
                }
                (Some(own), None, _) => {
                    (named.listed[family], listed_by[family]) = (Some(own), Some(contig));
                }
                _ => {}
            }
        }
        named.details = json!({
            "members": names.len(),
            "families": sizes.len(),
            "largest": sizes.iter().max(),
            "alone": sizes.iter().filter(|&&size| size == 1).count(),
        });
        if let (Some(said), Value::Object(details)) = (named.details.as_object_mut(), found.details) {
            said.extend(details);
        }
        Ok(named)
    }

    /// A number from 0 to 1 that depends on the seed and the contig's name alone.
    fn draw(&self, contig: &str) -> f64 {
        let hash = blake3::hash(format!("{} {contig}", self.seed).as_bytes());
        let bytes: [u8; 8] = hash.as_bytes()[..8].try_into().unwrap_or_default();
        fraction(u64::from_le_bytes(bytes))
    }

    /// The name of a record's split, after the renaming that its source asks for.
    fn renamed<'a>(&'a self, record: &Record, split: &'a str) -> Option<&'a str> {
        match self.sources.get(&record.source).and_then(|names| names.get(split)) {
            Some(name) => name.as_deref(),
            None => Some(split),
        }
    }

    /// The parts of an interval that are drawn together, each with the name that it is drawn by.
    fn parts(&self, record: &Record, interval: Interval) -> Vec<(String, Interval)> {
        let contig = record.contig.clone().unwrap_or_default();
        let Some(block) = self.block else { return vec![(contig, interval)] };
        let blocks = interval.start / block..interval.end.div_ceil(block);
        let part =
            |b: u64| Interval::new((b * block).max(interval.start), ((b + 1) * block).min(interval.end));
        blocks.map(|b| (format!("{contig}:{b}"), part(b))).collect()
    }

    fn check_block(&self, records: &[Record]) -> Result<(), Error> {
        let read = records.iter().find(|record| record.contig.as_ref() != Some(&record.name));
        match (self.block, read) {
            (Some(_), Some(read)) => Err(Error::Config {
                key: "block",
                reason: format!(
                    "read `{}` of `{}` has no block; split reads by whole contigs",
                    read.name, read.source
                ),
            }),
            _ => Ok(()),
        }
    }

    fn check_names(&self, records: &[Record]) -> Result<(), Error> {
        let keys = [("validation", &self.validation), ("test", &self.test), ("exclude", &self.exclude)];
        for (key, name) in keys.iter().flat_map(|(key, names)| names.iter().map(|name| (*key, name))) {
            if !records.iter().any(|record| record.contig.as_ref() == Some(name)) {
                let mut contigs: Vec<&str> = records.iter().filter_map(|r| r.contig.as_deref()).collect();
                contigs.sort_unstable();
                contigs.dedup();
                let some = contigs.iter().take(20).map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ");
                return Err(Error::Config {
                    key,
                    reason: format!("no contig is called `{name}`; there are {some}"),
                });
            }
        }
        Ok(())
    }
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        let groups = self.groups.iter().filter_map(|groups| groups.csv.input("groups.csv"));
        from(&self.from).into_iter().chain(groups).collect()
    }

    fn files(&self, _base: &Path) -> Result<Vec<File>, Error> {
        let intervals = self.intervals.iter().flat_map(Intervals::files);
        let groups = self.groups.iter().filter_map(|groups| groups.csv.outside());
        Ok(groups.chain(intervals).map(File::new).collect())
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.block == Some(0) {
            problems.push(("block", "is 0, expected at least 1 base".to_owned()));
        }
        let sum = self.validation_fraction + self.test_fraction;
        if self.validation_fraction < 0.0 || self.test_fraction < 0.0 || sum.is_nan() || sum >= 1.0 {
            problems.push(("test_fraction", format!("the fractions add up to {sum}, expected 0 to below 1")));
        }
        let homology = self.homology.as_ref().and_then(Homology::problem);
        problems.extend(homology.map(|problem| ("homology", problem)));
        problems.extend(partition::problem(self.partition));
        problems.extend(self.groups.iter().filter_map(|groups| Some(("groups", groups.csv.problem()?))));
        if self.groups.is_some() && (self.homology.is_some() || self.block.is_some()) {
            problems.push(("groups", "cannot be combined with `homology` or `block`".to_owned()));
        }
        let intervals = self.intervals.as_ref().and_then(Intervals::problem);
        problems.extend(intervals.map(|problem| ("intervals", problem)));
        if self.intervals.is_some() && (self.homology.is_some() || self.groups.is_some()) {
            problems.push(("intervals", "cannot be combined with `homology` or `groups`".to_owned()));
        }
        let groups = self.groups.iter().flat_map(|groups| &groups.test);
        for name in groups.filter(|name| self.groups.iter().any(|groups| groups.validation.contains(name))) {
            problems.push(("groups", format!("`{name}` stands in `validation` and in `test`")));
        }
        for (source, names) in &self.sources {
            let parts = names.keys().map(String::as_str).filter(|part| !SPLITS.contains(part));
            problems.extend(parts.map(|part| {
                (
                    "sources",
                    format!(
                        "source `{source}` renames `{part}`, expected one of `train`, `validation`, `test`"
                    ),
                )
            }));
            let taken = names.iter().filter_map(|(part, name)| {
                name.as_deref().filter(|name| part != name && SPLITS.contains(name))
            });
            problems.extend(taken.map(|name| ("sources", format!("source `{source}` gives another part the name `{name}`, which would mix held-out contigs"))));
        }
        for name in &self.test {
            if self.validation.contains(name) || self.exclude.contains(name) {
                problems.push(("test", format!("`{name}` stands in another list too")));
            }
        }
        for name in self.validation.iter().filter(|name| self.exclude.contains(name)) {
            problems.push(("validation", format!("`{name}` stands in `exclude` too")));
        }
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        match self.aligner() {
            Some(mmseqs) => self.ready(task)?.align(mmseqs),
            None => partition::run(self, task),
        }
    }

    fn partitioned(&self) -> Option<&dyn Partitioned> {
        self.aligner().is_none().then_some(self)
    }
}

/// Cleaned records, or what is left of them.
fn input<'a>(task: &'a Task) -> Result<&'a Artifact, Error> {
    task.input_of("from", &["clean", "dedup"])
}

impl Partitioned for Config {
    fn bounds(&self, task: &Task) -> Result<Vec<u64>, Error> {
        Ok(bounds_of_records(&input(task)?.path(INTERVALS), self.size())?)
    }

    fn size(&self) -> u64 {
        self.partition.unwrap_or(partition::SIZE)
    }

    fn open<'a>(&'a self, task: &'a Task<'a>) -> Result<Box<dyn Work + 'a>, Error> {
        Ok(Box::new(self.ready(task)?))
    }
}

impl Config {
    /// What finds the families, if they are not found by k-mers.
    fn aligner(&self) -> Option<&Mmseqs> {
        self.homology.as_ref()?.mmseqs.as_ref()
    }

    /// Reads all but the bases.
    fn ready<'a>(&'a self, task: &'a Task<'a>) -> Result<Ready<'a>, Error> {
        let input = input(task)?;
        let sequence = sequence_of(task, input)?;
        let records = read_records(&sequence.path(RECORDS))?;
        self.check_names(&records)?;
        self.check_block(&records)?;
        check_sources(self.sources.keys(), &records)?;
        let kin = match (&self.homology, &self.groups) {
            (Some(homology), _) if self.aligner().is_none() => {
                Kin::Sought(homology, self.members(input, &records)?)
            }
            (None, Some(groups)) => Kin::Known(self.grouped(groups, task, &records)?),
            _ => Kin::Known(Families::default()),
        };
        let held = self.intervals.as_ref().map(|intervals| {
            let excluded = |contig: &String| self.exclude.contains(contig).then_some("exclude");
            intervals.load(task, &records, |contig| self.listed(contig).or_else(|| excluded(contig)))
        });
        let held = held.transpose()?.unwrap_or_default();
        Ok(Ready { config: self, task, input, sequence, records, held, kin })
    }
}

/// What is known of what is drawn together before the bases are read.
enum Kin<'a> {
    /// All of it.
    Known(Families),
    /// Who may be kin: the bases tell.
    Sought(&'a Homology, Members),
}

/// What every partition needs; the items are the rows of the table of intervals, and no record has some in two of them.
struct Ready<'a> {
    config: &'a Config,
    task: &'a Task<'a>,
    input: &'a Artifact,
    sequence: Artifact,
    records: Vec<Record>,
    held: HeldOut,
    kin: Kin<'a>,
}

impl Work for Ready<'_> {
    fn make(&self, task: &Task, partition: Partition) -> Result<Made, Error> {
        let rows = partition.start..partition.end;
        let (account, bases) = match &self.kin {
            Kin::Known(families) => {
                let told = self.assign(task, families, rows)?;
                (to_json(&told), told.counts.bases_in)
            }
            Kin::Sought(homology, members) => {
                let own = on_records(&members.parts, records_of(&self.input.path(INTERVALS), rows)?);
                homology.gather(task, &self.sequence, own, &members.parts)?;
                (Value::Null, own.iter().map(|part| part.interval.len()).sum())
            }
        };
        Ok(Made { account, bases, seconds: Vec::new() })
    }

    fn merge(&self, made: &mut dyn Iterator<Item = Result<Finished, Error>>) -> Result<Outcome, Error> {
        match &self.kin {
            Kin::Known(families) => {
                let mut writer = StretchWriter::create(&self.task.out.join(INTERVALS))?;
                let mut told = Told::default();
                for kept in made {
                    let kept = kept?;
                    writer.append(&kept.path(INTERVALS))?;
                    told.add(&kept.account()?);
                    self.task.check()?;
                }
                writer.finish()?;
                Ok(self.outcome(told, families))
            }
            Kin::Sought(homology, members) => {
                let found = homology.find(self.task, &members.parts, members.names.len(), made)?;
                self.assign_all(&self.config.named(&members.names, found)?)
            }
        }
    }
}

/// Bases assigned between two events of progress.
const PROGRESS_BASES: u64 = 1 << 20;

impl Ready<'_> {
    /// Does all of the work at once, with the families that MMseqs2 finds.
    fn align(&self, mmseqs: &Mmseqs) -> Result<Outcome, Error> {
        let members = self.config.members(self.input, &self.records)?;
        let found = mmseqs.find(self.task, &self.sequence, &members.parts, members.names.len())?;
        self.assign_all(&self.config.named(&members.names, found)?)
    }

    /// Assigns all intervals, in the artifact itself.
    fn assign_all(&self, families: &Families) -> Result<Outcome, Error> {
        Ok(self.outcome(self.assign(self.task, families, 0..u64::MAX)?, families))
    }

    /// Writes the intervals of some rows with their splits.
    fn assign(&self, task: &Task, families: &Families, rows: Range<u64>) -> Result<Told, Error> {
        let mut assigned = Assigned::create(task, self)?;
        let (total, mut told) = (Some(self.input.manifest.counts.bases_out), 0);
        for_each_stretch_of::<Error>(&self.input.path(INTERVALS), rows, |stretch| {
            let record = &self.records[index(stretch.record)];
            for (interval, place) in self.config.pieces(&self.held, families, record, &stretch) {
                let split = match place {
                    Place::Dropped(reason) => Err(reason.to_owned()),
                    Place::Split(split) => self
                        .config
                        .renamed(record, split)
                        .ok_or_else(|| format!("{split} part of source {}", record.source)),
                };
                match split {
                    Err(reason) => assigned.drop(&reason, record, interval),
                    Ok(split) => {
                        assigned
                            .push(record, Stretch { split: split.to_owned(), interval, ..stretch.clone() })?;
                    }
                }
            }
            let done = assigned.counts.bases_in;
            if done - told >= PROGRESS_BASES {
                told = done;
                task.progress(done, total, Unit::Bases);
            }
            task.check()
        })?;
        assigned.finish()
    }

    /// What the stage says of itself.
    fn outcome(&self, told: Told, families: &Families) -> Outcome {
        let Told { counts, splits } = told;
        let splits: BTreeMap<String, Split> =
            splits.into_iter().map(|(name, content)| (name, content.into())).collect();
        let summary = splits.iter().map(|(name, split)| format!("{name} {} bases", split.statistics.bases));
        let summary = summary.collect::<Vec<_>>().join(", ");
        let mut details = json!({ "splits": splits });
        if !families.details.is_null() {
            let key = if self.config.homology.is_some() { "homology" } else { "groups" };
            details[key] = families.details.clone();
        }
        if self.config.intervals.is_some() {
            details["intervals"] = self.held.details();
        }
        let references = vec![reference("sequence", &self.sequence)];
        Outcome { counts, references, details, summary, ..Outcome::default() }
    }
}

/// Intervals that are assigned: the table of them, and what they come to.
struct Assigned<'a> {
    writer: StretchWriter,
    counts: Counts,
    sequence: &'a Artifact,
    /// Opened where the first interval lies.
    bases: Option<Bases<'a>>,
    splits: BTreeMap<String, Tally>,
}

impl<'a> Assigned<'a> {
    fn create(task: &Task, ready: &'a Ready) -> Result<Self, Error> {
        let writer = StretchWriter::create(&task.out.join(INTERVALS))?;
        let (counts, splits) = (Counts::default(), BTreeMap::new());
        Ok(Self { writer, counts, sequence: &ready.sequence, bases: None, splits })
    }

    fn drop(&mut self, reason: &str, record: &Record, interval: Interval) {
        let bases = interval.len();
        self.counts.bases_in += bases;
        self.counts.drop_bases(reason, bases);
        self.counts.source(&record.source).drop_bases(reason, bases);
    }

    fn push(&mut self, record: &Record, stretch: Stretch) -> Result<(), Error> {
        let (interval, bases) = (stretch.interval, stretch.interval.len());
        self.counts.bases_in += bases;
        self.counts.bases_out += bases;
        self.counts.source(&record.source).keep(bases);
        let tally = self.splits.entry(stretch.split.clone()).or_default();
        tally.add(record, stretch.record, bases);
        let reader = match &mut self.bases {
            Some(reader) => reader,
            none => none.insert(Bases::open_at(self.sequence, stretch.record, interval.start)?),
        };
        reader.count(stretch.record, interval, &mut tally.counter)?;
        Ok(self.writer.push(stretch)?)
    }

    fn finish(self) -> Result<Told, Error> {
        self.writer.finish()?;
        let splits = self.splits.into_iter().map(|(name, tally)| (name, tally.finish())).collect();
        Ok(Told { counts: self.counts, splits })
    }
}

/// What a partition says of itself, and what all of them come to.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    counts: Counts,
    splits: BTreeMap<String, Content>,
}

impl Told {
    /// Adds what another partition says, of other records.
    fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        for (split, content) in &other.splits {
            self.splits.entry(split.clone()).or_default().add(content);
        }
    }
}

/// What a split holds, to be added to what it holds elsewhere.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    contigs: BTreeSet<String>,
    intervals: u64,
    counted: Counted,
}

impl Content {
    fn add(&mut self, other: &Self) {
        self.contigs.extend(other.contigs.iter().cloned());
        self.intervals += other.intervals;
        self.counted.add(&other.counted);
    }
}

/// What a split holds, for its manifest.
#[derive(Debug, Serialize)]
struct Split {
    contigs: BTreeSet<String>,
    intervals: u64,
    /// A record's length is what the split holds of it.
    #[serde(flatten)]
    statistics: Statistics,
}

impl From<Content> for Split {
    fn from(Content { contigs, intervals, counted }: Content) -> Self {
        Self { contigs, intervals, statistics: counted.statistics() }
    }
}

/// What a split holds so far.
#[derive(Debug, Default)]
struct Tally {
    contigs: BTreeSet<String>,
    intervals: u64,
    counter: Counter,
    /// The last record, and what the split holds of it.
    open: Option<(u64, u64)>,
}

impl Tally {
    /// Counts some bases of a record; records ascend.
    fn add(&mut self, record: &Record, number: u64, bases: u64) {
        self.intervals += 1;
        if let Some((_, sum)) = self.open.as_mut().filter(|(last, _)| *last == number) {
            *sum += bases;
        } else {
            self.end_record();
            self.open = Some((number, bases));
        }
        if let Some(contig) = record.contig.as_ref().filter(|contig| !self.contigs.contains(*contig)) {
            self.contigs.insert(contig.clone());
        }
    }

    fn end_record(&mut self) {
        self.counter.end_stretch();
        self.open.take().into_iter().for_each(|(_, bases)| self.counter.add_record(bases));
    }

    fn finish(mut self) -> Content {
        self.end_record();
        let Self { contigs, intervals, counter, .. } = self;
        Content { contigs, intervals, counted: counter.counted() }
    }
}

/// The bases that intervals lie on, to be counted in the order of the intervals.
struct Bases<'a> {
    sequence: &'a Artifact,
    reader: SequenceReader,
    masks: MaskReader,
    buffer: Vec<u8>,
}

impl<'a> Bases<'a> {
    /// To be read from a place on.
    fn open_at(sequence: &'a Artifact, record: u64, start: u64) -> Result<Self, Error> {
        Ok(Self {
            sequence,
            reader: SequenceReader::open_at(sequence, record, start)?,
            masks: MaskReader::open_at(&sequence.path(MASKS), record)?,
            buffer: Vec::new(),
        })
    }

    /// Counts the bases of an interval, block by block.
    fn count(&mut self, record: u64, interval: Interval, counter: &mut Counter) -> Result<(), Error> {
        for start in (interval.start..interval.end).step_by(BLOCK_BASES) {
            let block = Interval::new(start, interval.end.min(start + BLOCK_BASES as u64));
            let stretch = Stretch { record, interval: block, strand: Strand::Forward, split: String::new() };
            fetch(&mut self.reader, &stretch, self.sequence, &mut self.buffer)?;
            counter.push(start, &self.buffer);
        }
        counter.add_soft_masked(self.masks.masked(record, interval)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn reads_follow_their_contig() {
        let config = config(r#"{"from": "x", "validation": ["b"], "test": ["c"], "exclude": ["d"]}"#);
        let place = |contig: Option<&str>| {
            let (source, name) = ("s".to_owned(), "n".to_owned());
            let record = Record { source, name, contig: contig.map(str::to_owned), bases: 1 };
            config.place(&record, "drawn", &Families::default())
        };
        assert_eq!(place(Some("a")), Place::Split("train"));
        assert_eq!(place(Some("b")), Place::Split("validation"));
        assert_eq!(place(Some("c")), Place::Split("test"));
        assert_eq!(place(Some("d")), Place::Dropped("excluded contig"));
        assert_eq!(place(None), Place::Dropped("unplaced read"));
    }

    #[test]
    fn a_source_can_rename_its_parts_but_not_mix_them() {
        let text = r#"{"from": "x", "sources": {"reads": {"train": null, "test": "reads"}}}"#;
        let config = config(text);
        let record =
            |source: &str| Record { source: source.into(), name: "n".into(), contig: None, bases: 1 };
        assert_eq!(config.renamed(&record("reads"), "train"), None);
        assert_eq!(config.renamed(&record("reads"), "test"), Some("reads"));
        assert_eq!(config.renamed(&record("genome"), "test"), Some("test"));
        assert!(config.problems().is_empty());
        let mixed: Config = serde_json::from_str(&text.replace(r#""reads"}}"#, r#""train"}}"#)).unwrap();
        assert!(mixed.problems()[0].1.contains("would mix held-out contigs"));
    }

    #[test]
    fn blocks_cover_an_interval_without_overlap() {
        let config = config(r#"{"from": "x", "block": 10}"#);
        let record = Record { source: "s".into(), name: "c".into(), contig: Some("c".into()), bases: 40 };
        let parts = config.parts(&record, Interval::new(7, 30));
        let expected = [("c:0", (7, 10)), ("c:1", (10, 20)), ("c:2", (20, 30))];
        let found: Vec<_> = parts.iter().map(|(name, i)| (name.as_str(), (i.start, i.end))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn intervals_are_refused_without_files_and_beside_families() {
        for (more, expected) in [
            (r#""intervals": {"test": "t.bed", "margin": 5}"#, vec![]),
            (r#""intervals": {"test": "t.bed"}, "block": 10, "test_fraction": 0.1"#, vec![]),
            (
                r#""intervals": {}"#,
                vec!["has no file; expected at least one of `validation`, `test` and `exclude`"],
            ),
            (
                r#""intervals": {"exclude": "x.bed", "margin": 5}, "homology": {}"#,
                vec![
                    "has a `margin` but neither `validation` nor `test`, around which it would lie",
                    "cannot be combined with `homology` or `groups`",
                ],
            ),
        ] {
            let config = config(&format!(r#"{{"from": "x", {more}}}"#));
            let found: Vec<String> = config.problems().into_iter().map(|(_, reason)| reason).collect();
            assert_eq!(found, expected, "{more}");
            let files = config.files(Path::new("")).unwrap();
            assert_eq!(files.len(), more.matches(".bed").count());
        }
    }

    #[test]
    fn families_go_where_a_member_is_listed_or_the_first_is_drawn() {
        let text =
            r#"{"from": "x", "validation": ["b"], "test": ["d"], "homology": {}, "test_fraction": 0.5}"#;
        let config = config(text);
        let names: Vec<_> =
            ["a", "b", "c", "d", "e", "f"].map(|name| (name.to_owned(), name.to_owned())).into();
        let found = |firsts: &[u32]| Found { firsts: firsts.into(), details: json!({"one_kmer_in": 1}) };
        let families = config.named(&names, found(&[0, 0, 2, 3, 2, 5])).unwrap();
        let place = |contig: &str| {
            let record =
                Record { source: "s".into(), name: contig.into(), contig: Some(contig.into()), bases: 1 };
            config.place(&record, contig, &families)
        };
        assert_eq!((place("a"), place("b")), (Place::Split("validation"), Place::Split("validation")));
        assert_eq!(place("d"), Place::Split("test"));
        assert_eq!(place("e"), place("c"));
        let alone = if config.draw("c") < 0.5 { "test" } else { "train" };
        assert_eq!(place("c"), Place::Split(alone));
        assert_eq!((&families.details["families"], &families.details["one_kmer_in"]), (&json!(4), &json!(1)));
        let error = config.named(&names, found(&[0, 1, 2, 1, 2, 5])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`homology`: `d` is listed for test and `b` for validation, but they are of one family"
        );
    }

    #[test]
    fn fractions_are_met_and_depend_on_the_name_alone() {
        let config = config(r#"{"from": "x", "validation_fraction": 0.1, "test_fraction": 0.2, "seed": 3}"#);
        let draws: Vec<f64> = (0..10_000).map(|i| config.draw(&format!("contig{i}"))).collect();
        let share = draws.iter().filter(|&&draw| draw < 0.1).count() as f64 / 10_000.0;
        assert!((share - 0.1).abs() < 0.02, "{share}");
        assert!((config.draw("contig7") - draws[7]).abs() < f64::EPSILON);
    }
}
