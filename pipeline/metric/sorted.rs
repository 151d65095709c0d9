//! Values in ascending order, with those that are equal together: what ranks and rankings are made from.
//!
//! Memory: eight bytes per value.

/// Places of values, by value.
#[derive(Debug, Clone)]
pub(super) struct Sorted {
    /// Places of the values, in ascending order of the values.
    places: Vec<u32>,
    /// Where each group of equal values ends in `places`.
    ends: Vec<u32>,
}

impl Sorted {
    /// Sorts at most [`super::MOST_EXAMPLES`] finite values. 0 and -0 are equal.
    #[expect(clippy::cast_possible_truncation, reason = "at most MOST_EXAMPLES values")]
    pub(super) fn new(count: usize, value: impl Fn(usize) -> f64) -> Self {
        let value = |place: u32| value(place as usize);
        let mut places: Vec<u32> = (0..count as u32).collect();
        places.sort_unstable_by(|&left, &right| value(left).total_cmp(&value(right)));
        let differ = |at: usize| value(places[at - 1]) < value(places[at]);
        let inner = (1..count).filter(|&at| differ(at));
        let ends = inner.chain((count > 0).then_some(count)).map(|end| end as u32).collect();
        Self { places, ends }
    }

    /// The places of equal values, in ascending order of the values.
    pub(super) fn groups(&self) -> impl DoubleEndedIterator<Item = &[u32]> {
        (0..self.ends.len()).map(|group| {
            let start = if group == 0 { 0 } else { self.ends[group - 1] };
            &self.places[start as usize..self.ends[group] as usize]
        })
    }

    /// The rank of each place, from 1; equal values share the mean of their ranks. A place that counts `times` times
    /// stands that many times in the order; one that counts none has the rank 0.
    pub(super) fn ranks(&self, times: &[u32]) -> Vec<f64> {
        let mut ranks = vec![0.0; times.len()];
        let mut below = 0;
        for group in self.groups() {
            let size: u64 = group.iter().map(|&place| u64::from(times[place as usize])).sum();
            let rank = f64::midpoint((below + 1) as f64, (below + size) as f64);
            for &place in group.iter().filter(|&&place| times[place as usize] > 0) {
                ranks[place as usize] = rank;
            }
            below += size;
        }
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_rank() {
        let ranks = |values: &[f64], times: &[u32]| Sorted::new(values.len(), |at| values[at]).ranks(times);
        for (values, times, expected) in [
            (&[][..], &[][..], &[][..]),
            (&[7.0], &[1], &[1.0]),
            (&[3.0, 1.0, 2.0], &[1, 1, 1], &[3.0, 1.0, 2.0]),
            (&[0.0, 5.0, -0.0, 5.0, -1.0], &[1, 1, 1, 1, 1], &[2.5, 4.5, 2.5, 4.5, 1.0]),
            // As if the values were 1, 1, 1, 3.
            (&[3.0, 1.0, 2.0], &[1, 3, 0], &[4.0, 2.0, 0.0]),
        ] {
            assert_eq!(ranks(values, times), expected, "{values:?} {times:?}");
        }
    }
}
