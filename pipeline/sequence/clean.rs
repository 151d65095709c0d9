//! Cleaning a record: one alphabet, the stretches worth keeping, and a count of every base that goes.
//!
//! The bases of a block are rewritten in place (upper case, U as T, other codes by policy), so coordinates never move.
//! What is kept is told apart from them, as intervals, as soon as it is decided: an interval's end is known only when
//! a run of N or the record ends, which may be many blocks later. Between two blocks a [`Cleaner`] holds a few
//! numbers, and with a filter 32 bytes for each run of windows that failed in the open stretch; no bases are buffered.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alphabet;
use super::complexity::{Failure, Filter, Windows};
use super::kmer::spread;
use super::mask::SoftMask;
use crate::units::Interval;

/// What happens to the codes that stand for several bases (R, Y, S, W, K, M, B, D, H, V).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Iupac {
    /// They stay as they are; the tokenizer has to know them.
    Keep,
    /// Each becomes an N, and counts for `n_run` as any other N.
    #[default]
    N,
    /// Each becomes one of the bases that it stands for, drawn by seed, record and place.
    Random,
    /// The record is split there and they are dropped.
    Split,
    /// The stretch that holds one, between two runs of N, is dropped.
    Drop,
}

/// How records are cleaned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// What happens to the codes that stand for several bases (R, Y, S, W, K, M, B, D, H, V): `keep`, `n` (each
    /// becomes an N), `random` (each becomes one of its bases), `split` (the record is split there) or `drop` (the stretch
    /// between two runs of N is dropped). Default `n`.
    pub iupac: Iupac,
    /// A run of at least this many N splits the record and is dropped; shorter runs stay. Default 1: no N remains.
    /// `null` keeps every run.
    #[schemars(range(min = 1))]
    pub n_run: Option<u64>,
    /// Whether N at either end of what is kept are dropped. Default true.
    pub trim: bool,
    /// Stretches of fewer bases than this are dropped. Default 1.
    pub min_length: u64,
    /// Windows that are too simple or have too much or too little G and C are dropped. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
}

impl Default for Options {
    fn default() -> Self {
        Self { iupac: Iupac::N, n_run: Some(1), trim: true, min_length: 1, filter: None }
    }
}

/// What cleaning did to the bases it saw; `bases_in` is `bases_kept` and all of `dropped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Bases that went in.
    pub bases_in: u64,
    /// Bases within kept intervals.
    pub bases_kept: u64,
    /// Bases outside of kept intervals, by reason.
    pub dropped: Dropped,
    /// Kept intervals.
    pub intervals: u64,
    /// Codes for several bases that became N; they are kept or dropped as N.
    pub replaced_by_n: u64,
    /// Codes for several bases that became one of them.
    pub replaced_by_base: u64,
}

/// Bases dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dropped {
    /// In a run of N long enough to split the record.
    pub n_run: u64,
    /// A code for several bases that split the record, or the stretch that held one.
    pub iupac: u64,
    /// N at the end of a stretch.
    pub trimmed: u64,
    /// In a stretch shorter than the minimum.
    pub short: u64,
    /// In a window whose DUST score is too high.
    pub dust: u64,
    /// In a window whose entropy is too low.
    pub entropy: u64,
    /// In a window whose share of G and C is out of range.
    pub gc: u64,
}

impl Dropped {
    /// Each reason and its bases.
    pub fn by_reason(self) -> [(&'static str, u64); 7] {
        [
            ("n_run", self.n_run),
            ("iupac", self.iupac),
            ("trimmed", self.trimmed),
            ("short", self.short),
            ("dust", self.dust),
            ("entropy", self.entropy),
            ("gc", self.gc),
        ]
    }

    /// All bases dropped.
    pub fn total(self) -> u64 {
        self.by_reason().iter().map(|(_, bases)| bases).sum()
    }
}

impl Counts {
    /// Adds the counts of another record.
    pub fn add(&mut self, other: &Self) {
        self.bases_in += other.bases_in;
        self.bases_kept += other.bases_kept;
        self.dropped.n_run += other.dropped.n_run;
        self.dropped.iupac += other.dropped.iupac;
        self.dropped.trimmed += other.dropped.trimmed;
        self.dropped.short += other.dropped.short;
        self.dropped.dust += other.dropped.dust;
        self.dropped.entropy += other.dropped.entropy;
        self.dropped.gc += other.dropped.gc;
        self.intervals += other.intervals;
        self.replaced_by_n += other.replaced_by_n;
        self.replaced_by_base += other.replaced_by_base;
    }
}

/// Intervals decided so far, each list ascending; whoever reads them may drain them between two blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decided {
    /// What is kept.
    pub kept: Vec<Interval>,
    /// What was written in lower case, kept or not.
    pub soft_masked: Vec<Interval>,
}

/// Cleans records, one after the other, block by block.
#[derive(Debug, Clone)]
pub struct Cleaner {
    options: Options,
    mask: SoftMask,
    /// Bases of the record seen or passed.
    position: u64,
    /// Bases of the record passed.
    passed: u64,
    /// Where the stretch that may be kept begins.
    stretch: Option<u64>,
    /// Where the run of N that reaches `position` begins.
    n_since: Option<u64>,
    /// Whether the open stretch holds a code that drops it.
    spoiled: bool,
    /// Follows the open stretch where there is a filter.
    windows: Option<Windows>,
    /// Chooses the draws of [`Iupac::Random`].
    salt: u64,
    counts: Counts,
}

impl Cleaner {
    /// At the beginning of a record.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            mask: SoftMask::new(),
            position: 0,
            passed: 0,
            stretch: None,
            n_since: None,
            spoiled: false,
            windows: options.filter.map(Windows::new),
            salt: 0,
            counts: Counts::default(),
        }
    }

    /// Draws by `salt`, which seed and record determine, where codes become random bases.
    #[must_use]
    pub fn with_salt(mut self, salt: u64) -> Self {
        self.salt = salt;
        self
    }

    /// Cleans the next bases of the record in place and appends what they decide.
    ///
    /// `bases` must be IUPAC codes, as [`alphabet::first_invalid`] checks.
    pub fn push(&mut self, bases: &mut [u8], decided: &mut Decided) {
        // Of most genomes most blocks are such, and need no other look.
        let (plain, rest) = bases.split_at_mut(alphabet::leading_bases(bases));
        if !plain.is_empty() {
            self.mask.push_upper(plain.len(), &mut decided.soft_masked);
            self.take_bases(plain, &mut decided.kept);
        }
        self.mask.push(rest, &mut decided.soft_masked);
        alphabet::normalize(rest);
        let mut at = 0;
        while at < rest.len() {
            at += self.take_run(&mut rest[at..], &mut decided.kept);
        }
    }

    /// Goes on at base `position` of the record, not before the bases seen: what lies between is not there, and no
    /// stretch reaches over it.
    pub fn pass_to(&mut self, position: u64, decided: &mut Decided) {
        if position > self.position {
            self.mask.pass_to(position, &mut decided.soft_masked);
            self.end_stretch(&mut decided.kept);
            self.passed += position - self.position;
            self.position = position;
        }
    }

    /// Ends the record and returns its counts; the cleaner is ready for the next record.
    pub fn finish(&mut self, decided: &mut Decided) -> Counts {
        self.mask.finish(&mut decided.soft_masked);
        self.end_stretch(&mut decided.kept);
        let counts = Counts { bases_in: self.position - self.passed, ..self.counts };
        *self = Self::new(self.options).with_salt(self.salt);
        debug_assert_eq!(counts.bases_in, counts.bases_kept + counts.dropped.total());
        counts
    }

    /// Takes the run of one kind at the beginning of `bases`; returns its length, at least 1.
    fn take_run(&mut self, bases: &mut [u8], kept: &mut Vec<Interval>) -> usize {
        let run = alphabet::leading_bases(bases);
        if run > 0 {
            self.take_bases(&bases[..run], kept);
            return run;
        }
        let run = alphabet::leading_n(bases);
        if run > 0 {
            self.take_n(run);
            return run;
        }
        self.take_ambiguous(&mut bases[0], kept);
        1
    }

    fn take_bases(&mut self, run: &[u8], kept: &mut Vec<Interval>) {
        if let Some(since) = self.n_since.take() {
            self.settle_n_before_bases(since, kept);
        }
        self.open(self.position);
        if let Some(windows) = &mut self.windows {
            windows.push(run);
        }
        self.position += run.len() as u64;
    }

    /// Begins a stretch at base `at`, unless one is open.
    fn open(&mut self, at: u64) {
        if self.stretch.is_none() {
            self.stretch = Some(at);
            self.windows.iter_mut().for_each(|windows| windows.begin(at));
        }
    }

    fn take_n(&mut self, run: usize) {
        self.n_since.get_or_insert(self.position);
        self.position += run as u64;
    }

    fn take_ambiguous(&mut self, base: &mut u8, kept: &mut Vec<Interval>) {
        match self.options.iupac {
            Iupac::Keep => self.take_bases(&[*base], kept),
            Iupac::N => self.replace_by_n(base),
            Iupac::Random => {
                *base = self.draw(*base);
                self.counts.replaced_by_base += 1;
                self.take_bases(&[*base], kept);
            }
            Iupac::Split => self.split(kept),
            Iupac::Drop => {
                self.take_bases(&[*base], kept);
                self.spoiled = true;
            }
        }
    }

    /// One of the bases that a code stands for.
    fn draw(&self, code: u8) -> u8 {
        let bases = alphabet::bases_of(code);
        let hash = spread(self.salt ^ spread(self.position));
        let at = ((hash >> 32) * bases.len() as u64) >> 32;
        usize::try_from(at).ok().and_then(|at| bases.get(at)).copied().unwrap_or(code)
    }

    fn replace_by_n(&mut self, base: &mut u8) {
        *base = b'N';
        self.counts.replaced_by_n += 1;
        self.take_n(1);
    }

    fn split(&mut self, kept: &mut Vec<Interval>) {
        self.end_stretch(kept);
        self.counts.dropped.iupac += 1;
        self.position += 1;
    }

    /// The run of N from `since` ends because a base follows.
    fn settle_n_before_bases(&mut self, since: u64, kept: &mut Vec<Interval>) {
        let run = self.position - since;
        if self.splits(run) {
            self.counts.dropped.n_run += run;
            self.close(since, kept);
        } else if self.stretch.is_none() && self.options.trim {
            self.counts.dropped.trimmed += run;
        } else {
            self.keep_n(since, run);
        }
    }

    /// A run of N from `since` belongs to a stretch.
    fn keep_n(&mut self, since: u64, run: u64) {
        self.open(since);
        self.windows.iter_mut().for_each(|windows| windows.push_n(run));
    }

    /// No more bases can join the open stretch.
    fn end_stretch(&mut self, kept: &mut Vec<Interval>) {
        let Some(since) = self.n_since.take() else { return self.close(self.position, kept) };
        let run = self.position - since;
        if self.splits(run) {
            self.counts.dropped.n_run += run;
            self.close(since, kept);
        } else if self.options.trim {
            self.counts.dropped.trimmed += run;
            self.close(since, kept);
        } else {
            self.keep_n(since, run);
            self.close(self.position, kept);
        }
    }

    fn splits(&self, run: u64) -> bool {
        self.options.n_run.is_some_and(|least| run >= least)
    }

    /// Ends the open stretch, if there is one, before base `end`.
    fn close(&mut self, end: u64, kept: &mut Vec<Interval>) {
        let Some(start) = self.stretch.take() else { return };
        let failed = self.windows.as_mut().map(Windows::end).unwrap_or_default();
        if std::mem::take(&mut self.spoiled) {
            self.counts.dropped.iupac += end - start;
            return;
        }
        let mut from = start;
        for (interval, failure) in failed {
            self.keep(Interval::new(from, interval.start), kept);
            from = interval.end;
            match failure {
                Failure::Dust => self.counts.dropped.dust += interval.len(),
                Failure::Entropy => self.counts.dropped.entropy += interval.len(),
                Failure::Gc => self.counts.dropped.gc += interval.len(),
            }
        }
        self.keep(Interval::new(from, end), kept);
    }

    /// Keeps what is long enough.
    fn keep(&mut self, interval: Interval, kept: &mut Vec<Interval>) {
        if interval.is_empty() {
            return;
        }
        if interval.len() < self.options.min_length {
            self.counts.dropped.short += interval.len();
        } else {
            self.counts.bases_kept += interval.len();
            self.counts.intervals += 1;
            kept.push(interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clean(options: Options, bases: &str, block: usize) -> (String, Decided, Counts) {
        let (mut bases, mut decided) = (bases.as_bytes().to_vec(), Decided::default());
        let mut cleaner = Cleaner::new(options);
        for block in bases.chunks_mut(block) {
            cleaner.push(block, &mut decided);
        }
        let counts = cleaner.finish(&mut decided);
        (String::from_utf8(bases).unwrap(), decided, counts)
    }

    /// The kept stretches as text, joined by `|`.
    fn kept(options: Options, bases: &str, block: usize) -> String {
        let (cleaned, decided, _) = clean(options, bases, block);
        let stretch =
            |i: &Interval| &cleaned[usize::try_from(i.start).unwrap()..usize::try_from(i.end).unwrap()];
        decided.kept.iter().map(stretch).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn nothing_reaches_over_bases_that_are_not_there() {
        let mut cleaner = Cleaner::new(Options { n_run: Some(3), ..Options::default() });
        let mut decided = Decided::default();
        for (start, bases) in [(10, "ACgtN"), (20, "NNAC"), (24, "ac"), (100, "G")] {
            cleaner.pass_to(start, &mut decided);
            cleaner.push(&mut bases.as_bytes().to_vec(), &mut decided);
        }
        let counts = cleaner.finish(&mut decided);
        let interval = Interval::new;
        assert_eq!(decided.kept, [interval(10, 14), interval(22, 26), interval(100, 101)]);
        assert_eq!(decided.soft_masked, [interval(12, 14), interval(24, 26)]);
        assert_eq!((counts.bases_in, counts.bases_kept, counts.dropped.trimmed), (12, 9, 3));
        assert_eq!(cleaner.finish(&mut decided).bases_in, 0);
    }

    #[test]
    fn options_decide_what_is_kept() {
        let default = Options::default();
        let runs_of_3 = Options { n_run: Some(3), ..default };
        let all_n = Options { n_run: None, ..default };
        let dust = Filter { window: 8, max_dust: Some(1.0), min_entropy: None, min_gc: None, max_gc: None };
        let untrimmed = Options { trim: false, ..runs_of_3 };
        for (options, bases, expected) in [
            (default, "", ""),
            (default, "A", "A"),
            (default, "acgU", "ACGT"),
            (default, "NNACNGTNN", "AC|GT"),
            (default, "ACRGT", "AC|GT"),
            (default, "NNN", ""),
            (Options { min_length: 3, ..default }, "ACNACGNT", "ACG"),
            (runs_of_3, "NNACNNGTNNNCANN", "ACNNGT|CA"),
            (runs_of_3, "ACNRNGT", "AC|GT"),
            (runs_of_3, "ACRGT", "ACNGT"),
            (untrimmed, "NNACNNGTNNNCANN", "NNACNNGT|CANN"),
            (untrimmed, "NN", "NN"),
            (all_n, "NNNACNNNNGTNNN", "ACNNNNGT"),
            (Options { trim: false, ..all_n }, "NNNACR", "NNNACN"),
            (Options { iupac: Iupac::Keep, ..default }, "RACYNK", "RACY|K"),
            (Options { iupac: Iupac::Split, ..runs_of_3 }, "ACNRNGTYA", "AC|GT|A"),
            (Options { iupac: Iupac::Split, ..untrimmed }, "ACNRNGT", "ACN|NGT"),
            (Options { iupac: Iupac::Drop, ..default }, "ACNGRTNCA", "AC|CA"),
            (Options { iupac: Iupac::Drop, ..runs_of_3 }, "ACNGRTNNNCA", "CA"),
            (Options { filter: Some(dust), ..runs_of_3 }, "TTAAAAAAAAACGGTCATAAAAAAAACG", "AAACGGTC|AACG"),
            (Options { filter: Some(dust), ..default }, "AAAAAAAANACGGTCATAAAAAAAA", "ACGGTCAT"),
            (Options { filter: Some(dust), min_length: 9, ..default }, "AAAAAAAANACGGTCATAAAAAAAA", ""),
            (Options { filter: Some(dust), ..runs_of_3 }, "ACGGNCATNACGTTGC", "ACGGNCATNACGTTGC"),
        ] {
            for block in 1..20 {
                assert_eq!(
                    kept(options, bases, block),
                    expected,
                    "{bases} in blocks of {block} by {options:?}"
                );
            }
        }
    }

    #[test]
    fn every_base_is_counted_once() {
        let options = Options { n_run: Some(3), min_length: 2, ..Options::default() };
        let (_, decided, counts) = clean(options, "NNacNRGTNNNCNNNN", 5);
        let dropped = Dropped { n_run: 7, trimmed: 2, short: 1, ..Dropped::default() };
        let expected = Counts {
            bases_in: 16,
            bases_kept: 6,
            dropped,
            intervals: 1,
            replaced_by_n: 1,
            replaced_by_base: 0,
        };
        assert_eq!(counts, expected);
        assert_eq!(decided.soft_masked, [Interval::new(2, 4)]);
    }

    #[test]
    fn codes_become_one_of_their_bases_by_place_and_salt() {
        let options = Options { iupac: Iupac::Random, ..Options::default() };
        let draw = |salt: u64, block: usize| {
            let (mut bases, mut decided) = (b"RYSWKMBDHV".repeat(100), Decided::default());
            let mut cleaner = Cleaner::new(options).with_salt(salt);
            bases.chunks_mut(block).for_each(|block| cleaner.push(block, &mut decided));
            assert_eq!(cleaner.finish(&mut decided).replaced_by_base, 1000);
            bases
        };
        let drawn = draw(1, 1000);
        assert_eq!(draw(1, 7), drawn);
        assert_ne!(draw(2, 1000), drawn);
        for (at, (&base, &code)) in drawn.iter().zip(b"RYSWKMBDHV".iter().cycle()).enumerate() {
            assert!(alphabet::bases_of(code).contains(&base), "{at}");
        }
        let a = drawn.iter().step_by(10).filter(|&&base| base == b'A').count();
        assert!((35..65).contains(&a), "{a} of 100 R became A");
    }

    #[test]
    fn options_refuse_unknown_keys_and_default_each_key() {
        let options: Options = serde_json::from_str(r#"{"iupac": "split", "n_run": null}"#).unwrap();
        assert_eq!(options, Options { iupac: Iupac::Split, n_run: None, ..Options::default() });
        let error = serde_json::from_str::<Options>(r#"{"n_runs": 1}"#).unwrap_err();
        assert!(error.to_string().starts_with("unknown field `n_runs`"), "{error}");
    }

    fn any_options() -> impl Strategy<Value = Options> {
        let iupac = vec![Iupac::Keep, Iupac::N, Iupac::Random, Iupac::Split, Iupac::Drop];
        let filter = (8u64..30, prop::option::of(0.1f64..2.0), prop::option::of(0.0f64..0.5)).prop_map(
            |(window, max_dust, min_gc)| Filter { window, max_dust, min_gc, min_entropy: None, max_gc: None },
        );
        let filter = prop::option::of(filter);
        (prop::sample::select(iupac), prop::option::of(1u64..5), any::<bool>(), 0u64..6, filter).prop_map(
            |(iupac, n_run, trim, min_length, filter)| Options { iupac, n_run, trim, min_length, filter },
        )
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_blocks_do_not_matter(
            bases in "([ACGTacgtu]{0,90}[NnRy]{0,5}){0,6}",
            options in any_options(),
            block in 1usize..200,
        ) {
            let whole = clean(options, &bases, usize::MAX);
            prop_assert_eq!(&clean(options, &bases, block), &whole);
            let (cleaned, decided, counts) = whole;
            prop_assert_eq!(cleaned.len(), bases.len());
            prop_assert_eq!(counts.bases_in, bases.len() as u64);
            prop_assert_eq!(counts.bases_in, counts.bases_kept + counts.dropped.total());
            prop_assert_eq!(counts.bases_kept, decided.kept.iter().map(|i| i.len()).sum::<u64>());
            prop_assert!(decided.kept.windows(2).all(|w| w[0].end < w[1].start));
        }
    }
}
