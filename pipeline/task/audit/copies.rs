//! Test examples that are training examples too: the same bases on either strand, or, where bases are not known, the same interval.

use std::collections::HashMap;

use serde::Serialize;

use super::super::{Dataset, Example, Part};
use crate::sequence::fingerprint::{Canonical, Fingerprint};
use crate::units::{Interval, Strand};

/// What makes two examples the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Bases(Canonical),
    Place(u32, Interval),
}

/// The key of an example, and whether the example is the reverse complement of what stands for both strands.
fn key(dataset: &Dataset, example: &Example) -> Option<(Key, bool)> {
    if let Some(bases) = dataset.bases(example) {
        let fingerprint = Fingerprint::of(bases);
        return Some((Key::Bases(fingerprint.canonical()), fingerprint.is_turned()));
    }
    let place = example.place?;
    Some((Key::Place(place.contig, place.interval), place.strand == Some(Strand::Reverse)))
}

/// What is learned from under one key.
#[derive(Debug, Clone, Default)]
struct Entry {
    by_class: Vec<u32>,
    /// Seen forward, and turned.
    strands: [bool; 2],
}

/// What is learned from.
pub struct Seen(HashMap<Key, Entry>);

/// What is known of a test example.
#[derive(Debug, Clone, Copy, Default)]
pub struct Copied {
    /// It is in the training set.
    pub any: bool,
    /// Only as its reverse complement.
    turned: bool,
    /// Only under other classes.
    other_class: bool,
}

/// Copies among the test examples of a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassCopies {
    /// Its name.
    pub class: String,
    /// Test examples.
    pub test: u64,
    /// Those that are in the training set, under any class.
    pub copies: u64,
    /// Those of them that are there as reverse complement only.
    pub other_strand: u64,
    /// Those of them that are there under other classes only.
    pub other_class: u64,
    /// Training examples.
    pub train: u64,
    /// Training examples that differ from each other.
    pub distinct_train: u64,
}

impl Seen {
    /// What the training set holds.
    pub fn new(dataset: &Dataset) -> Self {
        let mut seen: HashMap<Key, Entry> = HashMap::new();
        for example in dataset.part(Part::Train) {
            let Some((key, turned)) = key(dataset, example) else { continue };
            let entry = seen.entry(key).or_default();
            entry.by_class.resize(dataset.classes.len(), 0);
            entry.by_class[example.class as usize] += 1;
            entry.strands[usize::from(turned)] = true;
        }
        Self(seen)
    }

    /// Of each test example whether it was seen.
    pub fn copies(&self, dataset: &Dataset) -> Vec<Copied> {
        let copied = |example: &Example| {
            let found = key(dataset, example).and_then(|(key, turned)| Some((self.0.get(&key)?, turned)));
            found.map_or(Copied::default(), |(entry, turned)| Copied {
                any: true,
                turned: !entry.strands[usize::from(turned)],
                other_class: entry.by_class[example.class as usize] == 0,
            })
        };
        dataset.part(Part::Test).iter().map(copied).collect()
    }

    /// What a table of the training set says about each test example; of what is not in it, the class that most training examples have
    /// that stand in it once.
    pub fn look_up(&self, dataset: &Dataset) -> Vec<u32> {
        let mut once = vec![0_u64; dataset.classes.len()];
        for entry in self.0.values().filter(|entry| entry.by_class.iter().sum::<u32>() == 1) {
            once.iter_mut().zip(&entry.by_class).for_each(|(once, &count)| *once += u64::from(count));
        }
        let other = super::baseline::most(once);
        let look_up = |example: &Example| {
            let entry = key(dataset, example).and_then(|(key, _)| self.0.get(&key));
            entry.map_or(other, |entry| super::baseline::most(entry.by_class.iter().copied()))
        };
        dataset.part(Part::Test).iter().map(look_up).collect()
    }
}

/// Counts copies by class.
pub fn by_class(dataset: &Dataset, seen: &Seen, copied: &[Copied]) -> Vec<ClassCopies> {
    let [train, test] = [Part::Train, Part::Test].map(|part| dataset.counts(part));
    let mut classes: Vec<ClassCopies> = (0..dataset.classes.len())
        .map(|class| ClassCopies {
            class: dataset.classes[class].clone(),
            test: test[class],
            copies: 0,
            other_strand: 0,
            other_class: 0,
            train: train[class],
            distinct_train: seen.0.values().filter(|entry| entry.by_class[class] > 0).count() as u64,
        })
        .collect();
    for (example, copied) in dataset.part(Part::Test).iter().zip(copied) {
        let class = &mut classes[example.class as usize];
        class.copies += u64::from(copied.any);
        class.other_strand += u64::from(copied.turned);
        class.other_class += u64::from(copied.other_class);
    }
    classes
}
