//! The examples of a task in memory: the bases of all of them, one byte a base (two where bases have classes), and 88 bytes for each.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Metric;
use crate::units::{Interval, Strand};

/// The class of a base that has none.
pub const UNLABELLED: u8 = u8::MAX;

/// What has a class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Every sequence.
    #[default]
    Sequences,
    /// Every base of a sequence.
    Bases,
    /// Every pair of sequences: a variant in its surroundings, and the reference there.
    Pairs,
}

/// What an example is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// To learn from.
    Train,
    /// To choose by.
    Validation,
    /// To score on.
    Test,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// Where an example lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Number among [`Dataset::contigs`].
    pub contig: u32,
    /// On the forward strand.
    pub interval: Interval,
    /// `None`: not said, and read as forward.
    pub strand: Option<Strand>,
}

/// A labelled sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Number among [`Dataset::classes`].
    pub class: u32,
    /// Where it lies, if the task says so.
    pub place: Option<Place>,
    /// Its place among the bases of the dataset, if they are known.
    pub(super) bases: Option<Range<usize>>,
    /// The same of what it is compared with, of a task of pairs.
    pub(super) against: Option<Range<usize>>,
    /// Number of its file among [`Dataset::files`].
    pub(super) file: u32,
    /// Its line there, from 1.
    pub line: u64,
}

/// All examples of a task.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// The task's name.
    pub name: String,
    /// The task's version.
    pub version: u32,
    /// What the score is where it was published.
    pub metric: Option<Metric>,
    /// The classes in the order of their numbers.
    pub classes: Vec<String>,
    /// The sequences that places are on.
    pub contigs: Vec<String>,
    /// What could not be used, by reason.
    pub dropped: std::collections::BTreeMap<&'static str, u64>,
    /// What was read.
    pub files: Vec<std::path::PathBuf>,
    /// What has a class.
    pub kind: Kind,
    pub(super) parts: [Vec<Example>; 3],
    pub(super) text: Vec<u8>,
    /// The class of each base of `text`, where bases have classes.
    pub(super) labels: Vec<u8>,
}

impl Dataset {
    /// The examples of a part, in the order of their files.
    pub fn part(&self, part: Part) -> &[Example] {
        &self.parts[part as usize]
    }

    pub(super) fn part_mut(&mut self, part: Part) -> &mut Vec<Example> {
        &mut self.parts[part as usize]
    }

    /// The bases of an example, in upper case and on its own strand.
    pub fn bases(&self, example: &Example) -> Option<&[u8]> {
        example.bases.clone().map(|range| &self.text[range])
    }

    /// The bases that an example is compared with, of a task of pairs.
    pub fn against(&self, example: &Example) -> Option<&[u8]> {
        example.against.clone().map(|range| &self.text[range])
    }

    /// The class of every base of an example, [`UNLABELLED`] of one that has none; `None` where sequences have classes.
    pub fn labels(&self, example: &Example) -> Option<&[u8]> {
        example.bases.clone().filter(|_| self.kind == Kind::Bases).map(|range| &self.labels[range])
    }

    /// Bases of an example; 0 if neither they nor its place are known.
    pub fn length(&self, example: &Example) -> u64 {
        let placed = example.place.map_or(0, |place| place.interval.end - place.interval.start);
        example.bases.as_ref().map_or(placed, |bases| bases.len() as u64)
    }

    /// The file that an example stands in.
    pub fn file(&self, example: &Example) -> &std::path::Path {
        &self.files[example.file as usize]
    }

    /// Examples of each class in a part; where bases have classes, bases.
    pub fn counts(&self, part: Part) -> Vec<u64> {
        let mut counts = vec![0; self.classes.len()];
        for example in self.part(part) {
            match self.labels(example) {
                None => counts[example.class as usize] += 1,
                Some(labels) => {
                    let labels = labels.iter().filter(|label| **label != UNLABELLED);
                    labels.for_each(|label| counts[usize::from(*label)] += 1);
                }
            }
        }
        counts
    }

    /// As if only places were known.
    #[cfg(test)]
    pub fn forget_bases(&mut self) {
        self.parts.iter_mut().flatten().for_each(|example| example.bases = None);
    }

    /// Keeps bases; where they are.
    pub(super) fn keep(&mut self, bases: &[u8]) -> Range<usize> {
        let start = self.text.len();
        self.text.extend(bases.iter().map(u8::to_ascii_uppercase));
        start..self.text.len()
    }

    /// Keeps bases with the class of each; where they are.
    pub(super) fn keep_labelled(&mut self, bases: &[u8], labels: &[u8]) -> Range<usize> {
        self.kind = Kind::Bases;
        self.labels.extend_from_slice(labels);
        self.keep(bases)
    }

    /// The number of a contig, a new one if need be.
    pub(super) fn contig(&mut self, name: &str, numbers: &mut std::collections::HashMap<String, u32>) -> u32 {
        if let Some(&number) = numbers.get(name) {
            return number;
        }
        let number = u32::try_from(self.contigs.len()).unwrap_or(u32::MAX);
        self.contigs.push(name.to_owned());
        numbers.insert(name.to_owned(), number);
        number
    }
}
