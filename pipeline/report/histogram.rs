//! Distributions of lengths in a few dozen bins.

use serde::{Deserialize, Serialize};

/// The most bins that are worth drawing.
const BINS: u64 = 40;

/// Lengths that span more than this factor are binned by their logarithm.
const WIDE: u64 = 50;

/// A distribution of lengths.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// What it shows: `Reads of yeast-atac`.
    pub title: String,
    /// What has the length: `reads`.
    pub counted: String,
    /// What the length is measured in: `bases`.
    pub unit: String,
    /// Whether the bins grow by a factor, and belong on a logarithmic axis.
    pub logarithmic: bool,
    /// The bins, ascending, without gaps.
    pub bins: Vec<Bin>,
}

/// The number of lengths from `low` to below `high`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bin {
    /// The shortest length of the bin.
    pub low: u64,
    /// The shortest length of the next bin.
    pub high: u64,
    /// How many there are.
    pub count: u64,
}

impl Histogram {
    /// Bins lengths, given as pairs of a length and how often it occurs (a `BTreeMap` or a list with ones).
    ///
    /// Bins are of equal width, or of equal ratio where the longest is more than 50 times the shortest.
    pub fn new<I>(title: &str, counted: &str, unit: &str, lengths: I) -> Self
    where
        I: IntoIterator<Item = (u64, u64)>,
    {
        let lengths: Vec<(u64, u64)> = lengths.into_iter().filter(|&(_, count)| count > 0).collect();
        let shortest = lengths.iter().map(|&(length, _)| length).min().unwrap_or(0);
        let longest = lengths.iter().map(|&(length, _)| length).max().unwrap_or(0);
        let logarithmic = longest / shortest.max(1) > WIDE;
        let edges = if logarithmic { ratio_edges(shortest, longest) } else { even_edges(shortest, longest) };
        Self {
            title: title.to_owned(),
            counted: counted.to_owned(),
            unit: unit.to_owned(),
            logarithmic,
            bins: if lengths.is_empty() { Vec::new() } else { fill(&edges, &lengths) },
        }
    }

    /// How many lengths were binned.
    pub fn total(&self) -> u64 {
        self.bins.iter().map(|bin| bin.count).sum()
    }
}

/// Edges one width apart, the first at the shortest length and the last beyond the longest.
fn even_edges(shortest: u64, longest: u64) -> Vec<u64> {
    let width = round_up((longest - shortest + 1).div_ceil(BINS));
    let first = shortest / width * width;
    (0..=(longest - first) / width + 1).map(|i| first + i * width).collect()
}

/// The next of 1, 2, 5, 10, 20, 50 ..
fn round_up(width: u64) -> u64 {
    let mut decade = 1;
    loop {
        for digit in [1, 2, 5] {
            if digit * decade >= width {
                return digit * decade;
            }
        }
        decade *= 10;
    }
}

/// Edges eight or fewer per decade, rounded to whole lengths, the last beyond the longest.
fn ratio_edges(shortest: u64, longest: u64) -> Vec<u64> {
    let decades = (longest as f64 / shortest.max(1) as f64).log10();
    let per_decade = if decades > 4.0 { 6.0 } else { 8.0 };
    let first = ((shortest.max(1) as f64).log10() * per_decade).floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, at most twice a length"
    )]
    let edge = |i: u32| 10_f64.powf((first + f64::from(i)) / per_decade).round() as u64;
    let mut edges = vec![edge(0)];
    for i in 1.. {
        edges.push(edge(i));
        if edge(i) > longest {
            break;
        }
    }
    edges[0] = edges[0].min(shortest);
    edges.dedup();
    edges
}

fn fill(edges: &[u64], lengths: &[(u64, u64)]) -> Vec<Bin> {
    let mut bins: Vec<Bin> =
        edges.windows(2).map(|edge| Bin { low: edge[0], high: edge[1], count: 0 }).collect();
    for &(length, count) in lengths {
        let after = bins.partition_point(|bin| bin.low <= length);
        bins[after - 1].count += count;
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lengths: &[u64]) -> Histogram {
        Histogram::new("t", "reads", "bases", lengths.iter().map(|&length| (length, 1)))
    }

    #[test]
    fn every_length_is_in_its_bin() {
        for lengths in [
            &[7][..],
            &[0],
            &[0, 1],
            &[36, 36, 50],
            &[1, 1_000],
            &[0, 900],
            &[85_779, 1_531_933],
            &[3, 3_000_000_000],
        ] {
            let found = of(lengths);
            assert_eq!(found.total(), lengths.len() as u64, "{lengths:?}");
            assert!(
                found.bins.windows(2).all(|pair| pair[0].high == pair[1].low && pair[0].low < pair[0].high)
            );
            for bin in &found.bins {
                let inside = lengths.iter().filter(|&&length| bin.low <= length && length < bin.high).count();
                assert_eq!(bin.count, inside as u64, "{lengths:?} {bin:?}");
            }
            assert!(found.bins.len() as u64 <= 2 * BINS, "{lengths:?} {}", found.bins.len());
        }
    }

    #[test]
    fn wide_spans_are_logarithmic() {
        assert!(!of(&[100, 5_000]).logarithmic);
        assert!(of(&[100, 5_100]).logarithmic);
    }

    #[test]
    fn widths_are_round() {
        for (width, expected) in [(1, 1), (3, 5), (11, 20), (500, 500), (501, 1_000)] {
            assert_eq!(round_up(width), expected);
        }
    }

    #[test]
    fn nothing_has_no_bins() {
        assert_eq!((of(&[]).bins.len(), of(&[]).total()), (0, 0));
    }
}
