//! The examples of a task in memory: the bases of all of them, one byte a base, and 64 bytes for each.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Metric;
use crate::units::{Interval, Strand};

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
    pub(super) parts: [Vec<Example>; 3],
    pub(super) text: Vec<u8>,
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

    /// Bases of an example; 0 if neither they nor its place are known.
    pub fn length(&self, example: &Example) -> u64 {
        let placed = example.place.map_or(0, |place| place.interval.end - place.interval.start);
        example.bases.as_ref().map_or(placed, |bases| bases.len() as u64)
    }

    /// The file that an example stands in.
    pub fn file(&self, example: &Example) -> &std::path::Path {
        &self.files[example.file as usize]
    }

    /// Examples of each class in a part.
    pub fn counts(&self, part: Part) -> Vec<u64> {
        let mut counts = vec![0; self.classes.len()];
        self.part(part).iter().for_each(|example| counts[example.class as usize] += 1);
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
