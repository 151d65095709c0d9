//! Soft masks: the stretches of a record that are written in lower case.

use super::alphabet;
use crate::units::Interval;

/// Follows the case of a record through its blocks; holds the one interval that may still grow.
#[derive(Debug, Clone, Default)]
pub struct SoftMask {
    /// Bases seen.
    position: u64,
    /// Where the open stretch of lower case begins.
    since: Option<u64>,
}

impl SoftMask {
    /// At the beginning of a record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next bases of the record and appends the stretches of lower case that ended in them.
    pub fn push(&mut self, bases: &[u8], intervals: &mut Vec<Interval>) {
        let mut at = 0;
        while at < bases.len() {
            let lower = self.since.is_some();
            at += leading_of_case(&bases[at..], lower);
            if at < bases.len() {
                self.turn(self.position + at as u64, intervals);
            }
        }
        self.position += bases.len() as u64;
    }

    /// Passes the next bases of the record, all of them in upper case.
    pub(super) fn push_upper(&mut self, bases: usize, intervals: &mut Vec<Interval>) {
        if self.since.is_some() && bases > 0 {
            self.turn(self.position, intervals);
        }
        self.position += bases as u64;
    }

    /// Goes on at base `position` of the record; a stretch of lower case ends before what is passed.
    pub fn pass_to(&mut self, position: u64, intervals: &mut Vec<Interval>) {
        self.finish(intervals);
        self.position = position;
    }

    /// Ends the record, appends the stretch that reaches its end, and is ready for the next record.
    pub fn finish(&mut self, intervals: &mut Vec<Interval>) {
        if self.since.is_some() {
            self.turn(self.position, intervals);
        }
        self.position = 0;
    }

    /// The case changes before base `at`.
    fn turn(&mut self, at: u64, intervals: &mut Vec<Interval>) {
        match self.since.take() {
            Some(since) => intervals.push(Interval::new(since, at)),
            None => self.since = Some(at),
        }
    }
}

/// Length of the stretch of one case at the beginning of `bases`.
fn leading_of_case(bases: &[u8], lower: bool) -> usize {
    let flip = if lower { 0x20 } else { 0 };
    alphabet::leading(bases, |base| (base ^ flip) & 0x20 == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn intervals(bases: &[u8], block: usize) -> Vec<Interval> {
        let (mut mask, mut found) = (SoftMask::new(), Vec::new());
        for block in bases.chunks(block) {
            mask.push(block, &mut found);
        }
        mask.finish(&mut found);
        found
    }

    #[test]
    fn lower_case_becomes_intervals() {
        for (bases, expected) in [
            ("", vec![]),
            ("ACGT", vec![]),
            ("acgt", vec![(0, 4)]),
            ("ACgtNn", vec![(2, 4), (5, 6)]),
            ("aCg", vec![(0, 1), (2, 3)]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(a, b)| Interval::new(a, b)).collect();
            for block in 1..8 {
                assert_eq!(intervals(bases.as_bytes(), block), expected, "{bases} in blocks of {block}");
            }
        }
    }

    #[test]
    fn the_next_record_starts_at_zero() {
        let (mut mask, mut found) = (SoftMask::new(), Vec::new());
        mask.push(b"Aa", &mut found);
        mask.finish(&mut found);
        mask.push(b"aA", &mut found);
        mask.finish(&mut found);
        assert_eq!(found, [Interval::new(1, 2), Interval::new(0, 1)]);
    }

    proptest! {
        #[test]
        fn intervals_are_exactly_the_lower_case(
            runs in prop::collection::vec((any::<bool>(), 0usize..150), 0..9),
            block in 1usize..300,
        ) {
            let bases: Vec<u8> =
                runs.iter().flat_map(|&(lower, n)| vec![if lower { b'g' } else { b'G' }; n]).collect();
            let mut masked = vec![false; bases.len()];
            let found = intervals(&bases, block);
            for interval in &found {
                masked[usize::try_from(interval.start)?..usize::try_from(interval.end)?].fill(true);
            }
            let lower: Vec<bool> = bases.iter().map(u8::is_ascii_lowercase).collect();
            prop_assert_eq!(masked, lower);
            prop_assert!(found.windows(2).all(|w| w[0].end < w[1].start));
        }
    }
}
