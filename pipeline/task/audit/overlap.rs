//! Test examples that lie where training examples lie.

use serde::Serialize;

use super::super::{Dataset, Example, Part, Place};
use crate::units::Strand;

/// The largest share of a test example's bases that one training example covers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overlap {
    /// Of any class, on either strand.
    pub any: f64,
    /// Of its class, on its strand.
    same: f64,
}

/// Overlaps of the test examples of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassOverlap {
    /// Its name.
    pub class: String,
    /// Test examples.
    pub test: u64,
    /// Those that share a base with a training example of any class, on either strand.
    pub any: u64,
    /// Those that share a base with a training example of their class on their strand.
    pub same: u64,
    /// Of the latter, the median share of bases that the training example covers which covers most.
    pub median_same: Option<f64>,
}

/// The training examples of a contig, by their starts.
struct Track {
    /// Start, end, class and strand.
    intervals: Vec<(u64, u64, u32, Strand)>,
    longest: u64,
}

/// Of each test example how much training examples cover; `None` without coordinates.
pub fn overlaps(dataset: &Dataset) -> Option<Vec<Overlap>> {
    let placed = |part| dataset.part(part).iter().any(|example: &Example| example.place.is_some());
    if !placed(Part::Train) || !placed(Part::Test) {
        return None;
    }
    let tracks = tracks(dataset);
    let overlap = |example: &Example| {
        example
            .place
            .map_or(Overlap::default(), |place| tracks[place.contig as usize].cover(place, example.class))
    };
    Some(dataset.part(Part::Test).iter().map(overlap).collect())
}

fn tracks(dataset: &Dataset) -> Vec<Track> {
    let empty = |_| Track { intervals: Vec::new(), longest: 0 };
    let mut tracks: Vec<Track> = dataset.contigs.iter().map(empty).collect();
    for example in dataset.part(Part::Train) {
        let Some(place) = example.place else { continue };
        let (track, interval) = (&mut tracks[place.contig as usize], place.interval);
        track.intervals.push((interval.start, interval.end, example.class, strand(place)));
        track.longest = track.longest.max(interval.end - interval.start);
    }
    for track in &mut tracks {
        track.intervals.sort_unstable_by_key(|&(start, end, ..)| (start, end));
    }
    tracks
}

fn strand(place: Place) -> Strand {
    place.strand.unwrap_or(Strand::Forward)
}

impl Track {
    fn cover(&self, place: Place, class: u32) -> Overlap {
        let (start, end) = (place.interval.start, place.interval.end);
        let first = self.intervals.partition_point(|interval| interval.0 + self.longest <= start);
        let mut best = Overlap::default();
        for &(other_start, other_end, other_class, other_strand) in &self.intervals[first..] {
            if other_start >= end {
                break;
            }
            let shared = end.min(other_end).saturating_sub(start.max(other_start));
            let share = shared as f64 / (end - start) as f64;
            best.any = best.any.max(share);
            if other_class == class && other_strand == strand(place) {
                best.same = best.same.max(share);
            }
        }
        best
    }
}

/// Counts overlaps by class.
pub fn by_class(dataset: &Dataset, overlaps: &[Overlap]) -> Vec<ClassOverlap> {
    let of = |class: u32| {
        let examples = dataset.part(Part::Test).iter().zip(overlaps);
        let overlaps: Vec<Overlap> =
            examples.filter(|(example, _)| example.class == class).map(|(_, overlap)| *overlap).collect();
        let mut same: Vec<f64> =
            overlaps.iter().map(|overlap| overlap.same).filter(|&share| share > 0.0).collect();
        same.sort_unstable_by(f64::total_cmp);
        ClassOverlap {
            class: dataset.classes[class as usize].clone(),
            test: overlaps.len() as u64,
            any: overlaps.iter().filter(|overlap| overlap.any > 0.0).count() as u64,
            same: same.len() as u64,
            median_same: same.get(same.len().saturating_sub(1) / 2).copied(),
        }
    };
    (0..u32::try_from(dataset.classes.len()).unwrap_or(u32::MAX)).map(of).collect()
}
