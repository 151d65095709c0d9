//! What finds genes without a model of DNA: the most frequent class, the class that the nine bases around a base mostly have, and stretches
//! without a stop codon. Memory: 10 MB for the table of nine bases, and 8 bytes for each base that is scored.

use super::super::dataset::UNLABELLED;
use super::super::{Dataset, Example, Part};
use super::baseline::{Baseline, Score, most};
use crate::metric::classification::Confusion;

/// Bases that the table knows, the one asked for in their middle.
const AROUND: usize = 9;
/// What an open stretch has at least to be taken for a gene, in bases; training chooses among them.
const LEAST: [usize; 4] = [75, 150, 300, 600];
/// Stop codons as they stand on the forward strand, of genes there and of genes on the reverse one.
const STOPS: [[&[u8; 3]; 3]; 2] = [[b"TAA", b"TAG", b"TGA"], [b"TTA", b"CTA", b"TCA"]];
/// The classes of a base outside of genes, and in an exon of either strand, among those of gene finding.
const OPEN: [u32; 3] = [0, 1, 5];

/// The class of each base of a window.
type Predict<'a> = dyn Fn(&[u8]) -> Vec<u32> + 'a;

/// Every baseline, over the bases with a class of all test windows and of those that are clean.
pub fn all(dataset: &Dataset, clean: &[bool]) -> Vec<Baseline> {
    let frequent = most(dataset.counts(Part::Train));
    let table = Table::of(dataset, frequent);
    let reached = |least| {
        let score = score(dataset, Part::Train, |bases| by_openness(bases, least), |_| true);
        (score.and_then(|score| score.mcc).unwrap_or(-1.0), least)
    };
    let best = LEAST.map(reached).into_iter().max_by(|(a, _), (b, _)| a.total_cmp(b));
    let least = best.map_or(LEAST[0], |(_, least)| least);
    let predictors: [(&'static str, &Predict<'_>); 3] = [
        ("majority", &|bases| vec![frequent; bases.len()]),
        ("9-mers", &|bases| table.predict(bases)),
        ("open frames", &|bases| by_openness(bases, least)),
    ];
    let baseline = |(name, predict): (&'static str, &Predict<'_>)| {
        let official = score(dataset, Part::Test, predict, |_| true)?;
        Some(Baseline { name, official, clean: score(dataset, Part::Test, predict, |at| clean[at]) })
    };
    predictors.into_iter().filter_map(baseline).collect()
}

fn score(
    dataset: &Dataset,
    part: Part,
    predict: impl Fn(&[u8]) -> Vec<u32>,
    counts: impl Fn(usize) -> bool,
) -> Option<Score> {
    let (mut truth, mut predicted) = (Vec::new(), Vec::new());
    for (_, example) in dataset.part(part).iter().enumerate().filter(|(at, _)| counts(*at)) {
        let (bases, labels) = window(dataset, example);
        for (label, class) in labels.iter().zip(predict(bases)).filter(|(label, _)| **label != UNLABELLED) {
            truth.push(u32::from(*label));
            predicted.push(class);
        }
    }
    let confusion = Confusion::new(dataset.classes.len(), &truth, &predicted).ok()?;
    Some(Score { accuracy: confusion.accuracy()?, mcc: confusion.shown_mcc(), auroc: None })
}

fn window<'a>(dataset: &'a Dataset, example: &Example) -> (&'a [u8], &'a [u8]) {
    (dataset.bases(example).unwrap_or_default(), dataset.labels(example).unwrap_or_default())
}

/// The most frequent class of the base in the middle of every nine.
struct Table {
    classes: Vec<u32>,
    other: u32,
}

impl Table {
    fn of(dataset: &Dataset, other: u32) -> Self {
        let classes = dataset.classes.len();
        let mut counts = vec![0_u32; classes << (2 * AROUND)];
        for example in dataset.part(Part::Train) {
            let (bases, labels) = window(dataset, example);
            for (at, code) in codes(bases).filter(|(at, _)| labels[*at] != UNLABELLED) {
                counts[code * classes + usize::from(labels[at])] += 1;
            }
        }
        let best = |counts: &[u32]| {
            if counts.iter().all(|count| *count == 0) { other } else { most(counts.iter().copied()) }
        };
        Self { classes: counts.chunks(classes).map(best).collect(), other }
    }

    fn predict(&self, bases: &[u8]) -> Vec<u32> {
        let mut predicted = vec![self.other; bases.len()];
        codes(bases).for_each(|(at, code)| predicted[at] = self.classes[code]);
        predicted
    }
}

/// The middle of every nine bases that are A, C, G or T, and their number.
fn codes(bases: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let code = |bases: &[u8]| {
        bases
            .iter()
            .try_fold(0, |code, base| Some(code << 2 | b"ACGT".iter().position(|letter| letter == base)?))
    };
    bases.windows(AROUND).enumerate().filter_map(move |(at, bases)| Some((at + AROUND / 2, code(bases)?)))
}

/// Exon where a stretch of at least `least` bases has no stop codon, on the strand with the longer one.
fn by_openness(bases: &[u8], least: usize) -> Vec<u32> {
    let [forward, reverse] = STOPS.map(|stops| open(bases, &stops));
    let class = |(forward, reverse): (usize, usize)| match forward.max(reverse) {
        longest if longest < least => OPEN[0],
        longest => OPEN[if forward == longest { 1 } else { 2 }],
    };
    forward.into_iter().zip(reverse).map(class).collect()
}

/// Of each base the longest stretch of codons of one frame around it without a stop; the ends of a window end none.
fn open(bases: &[u8], stops: &[&[u8; 3]; 3]) -> Vec<usize> {
    let mut longest = vec![0; bases.len()];
    for frame in 0..3.min(bases.len()) {
        let mut start = frame;
        let ends = bases[frame..]
            .chunks(3)
            .enumerate()
            .filter(|(_, codon)| stops.iter().any(|stop| *codon == &stop[..]));
        let ends: Vec<usize> = ends.map(|(codon, _)| frame + 3 * codon).chain([bases.len()]).collect();
        for end in ends {
            for best in &mut longest[start.min(end)..end] {
                *best = (*best).max(end - start);
            }
            start = end + 3;
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_stretches_end_at_stops_of_their_frame() {
        let found = |bases: &[u8], strand: usize| open(bases, &STOPS[strand]);
        // Frame 0 ends at TAA, frames 1 and 2 do not.
        assert_eq!(found(b"ACATAACC", 0), [3, 7, 7, 7, 7, 7, 7, 7]);
        assert_eq!(found(b"TTACTATCA", 1)[0], 0);
        assert_eq!(found(b"", 0), [0; 0]);
        // On the reverse strand the first frame is open throughout.
        assert_eq!(by_openness(b"ACATAACC", 9), [0; 8]);
        assert_eq!(by_openness(b"ACATAACC", 8), [5; 8]);
        assert_eq!(by_openness(b"TTAACATTAACC", 8)[4], 1);
    }

    #[test]
    fn nines_are_numbered_by_their_middles() {
        assert_eq!(codes(b"AAAAAAAAACN").collect::<Vec<_>>(), [(4, 0), (5, 1)]);
    }
}
