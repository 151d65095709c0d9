//! Models that differ in what a matrix varies, side by side: what each value of each axis is worth, and which differences are
//! beyond noise.
//!
//! Each cell has an interval of its own, and the interval of a difference is put together from two of them (the method of
//! Zou and Donner), as if they were independent. They are not, since cells are scored on the same bases or examples: true
//! intervals are narrower. Memory: the cells, and one figure for each pair of them.

pub(super) mod view;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// All cells of a matrix, and what came of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// What is varied.
    pub axes: Vec<Axis>,
    /// What is measured.
    pub outcomes: Vec<Outcome>,
    /// The cells that are there.
    pub cells: Vec<Cell>,
    /// Those that are not.
    pub absent: Vec<Absent>,
}

/// What is varied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// Its name in the workflow.
    pub name: String,
    /// Its values: numbers ascending, others in the order of the workflow.
    pub values: Vec<String>,
}

/// What is measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name, such as `Bits per base, test`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Of bits per base: how many bases were scored.
    pub bases: Option<u64>,
}

/// What a figure is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bits per base of held-out sequence.
    #[default]
    BitsPerBase,
    /// The score of a task.
    Score,
    /// Speed, in tokens per second.
    TokensPerSecond,
    /// Memory, in bytes.
    Bytes,
    /// Floating-point operations.
    Operations,
    /// Number of parameters.
    Parameters,
}

/// A model of the matrix.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Its value of each axis that it depends on.
    pub at: BTreeMap<String, String>,
    /// What was measured, by outcome; none where it was not.
    pub values: Vec<Option<Measured>>,
    /// Bits per base of what it was trained on, by the operations so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub course: Vec<[f64; 2]>,
}

/// What is known of a cell before the study: its figures by name of the outcome, and its course.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The figures.
    pub figures: BTreeMap<String, Measured>,
    /// As [`Cell::course`].
    pub course: Vec<[f64; 2]>,
}

/// A figure and what noise allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The figure.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
}

/// A cell that is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Absent {
    /// Its value of each axis.
    pub at: BTreeMap<String, String>,
    /// What became of it.
    pub reason: String,
}

impl Axis {
    /// Whether it has more than one value.
    pub(super) fn varies(&self) -> bool {
        self.values.len() > 1
    }

    /// Which of its values a cell has.
    pub(super) fn place(&self, cell: &Cell) -> Option<usize> {
        let own = cell.at.get(&self.name)?;
        self.values.iter().position(|value| value == own)
    }
}

impl Kind {
    /// Whether models are judged by it; the others are what they cost.
    pub const fn judges(self) -> bool {
        matches!(self, Self::BitsPerBase | Self::Score)
    }

    /// Whether it is drawn against the axes.
    pub(super) const fn is_drawn(self) -> bool {
        !matches!(self, Self::Operations | Self::Parameters)
    }

    /// Whether less is better; nothing where neither is.
    const fn less_is_better(self) -> Option<bool> {
        match self {
            Self::BitsPerBase | Self::Bytes => Some(true),
            Self::Score | Self::TokensPerSecond => Some(false),
            Self::Operations | Self::Parameters => None,
        }
    }
}

/// A difference of two figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Gap {
    pub(super) value: f64,
    /// Its interval, where both figures have one.
    pub(super) interval: Option<[f64; 2]>,
}

impl Gap {
    /// `left` less `right`.
    pub(super) fn new(left: Measured, right: Measured) -> Self {
        let value = left.value - right.value;
        let interval = left.interval.zip(right.interval).map(|(of_left, of_right)| {
            let below = (left.value - of_left[0]).hypot(of_right[1] - right.value);
            let above = (of_left[1] - left.value).hypot(right.value - of_right[0]);
            [value - below, value + above]
        });
        Self { value, interval }
    }

    /// Whether noise does not explain it; nothing where noise is not known.
    pub(super) fn is_beyond_noise(self) -> Option<bool> {
        self.interval.map(|[low, high]| low > 0.0 || high < 0.0)
    }
}

/// A value of an axis with the best that the other axes have for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Worth<'a> {
    pub(super) axis: &'a str,
    pub(super) value: &'a str,
    /// The place of the cell.
    pub(super) cell: usize,
    pub(super) best: Measured,
    /// It less that of the axis's best value.
    pub(super) gap: Gap,
}

impl Study {
    /// A study of cells with their figures by name of the outcome, and of what failed, which may stand for several cells: those that
    /// have its values. Cells that the others let one expect and that are not there are said to be absent. Nothing where there
    /// are fewer than two cells.
    pub fn new(
        outcomes: Vec<Outcome>,
        cells: Vec<(BTreeMap<String, String>, Found)>,
        failed: &[Absent],
    ) -> Option<Self> {
        let cell = |(at, found): (_, Found)| Cell {
            at,
            values: outcomes.iter().map(|outcome| found.figures.get(&outcome.name).copied()).collect(),
            course: found.course,
        };
        let mut cells: Vec<Cell> = cells.into_iter().map(cell).collect();
        let absent = absent(&cells, failed);
        if cells.is_empty() || cells.len() + absent.len() < 2 {
            return None;
        }
        let axes = axes(&cells);
        cells.sort_by_cached_key(|cell| axes.iter().map(|axis| axis.place(cell)).collect::<Vec<_>>());
        Some(Self { axes, outcomes, cells, absent })
    }

    /// The axes that have more than one value.
    pub(super) fn varied(&self) -> impl Iterator<Item = &Axis> {
        self.axes.iter().filter(|axis| axis.varies())
    }

    /// Whether all cells have the same value of an axis.
    pub(super) fn is_constant(&self, axis: &Axis) -> bool {
        !axis.varies() && self.cells.iter().all(|cell| cell.at.contains_key(&axis.name))
    }

    /// The place of the best cell by an outcome; the first of equals.
    pub(super) fn best(&self, outcome: usize) -> Option<usize> {
        self.best_of(outcome, |_| true)
    }

    fn best_of(&self, outcome: usize, wanted: impl Fn(&Cell) -> bool) -> Option<usize> {
        let less = self.outcomes.get(outcome)?.kind.less_is_better()?;
        let rank = |value: f64| if less { value } else { -value };
        let cells = self.cells.iter().enumerate().filter(|(_, cell)| wanted(cell));
        let ranked = cells.filter_map(|(at, cell)| Some((at, rank(cell.values[outcome]?.value))));
        let ranked = ranked.filter(|(_, value)| value.is_finite());
        ranked.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
    }

    /// Of a cell what was measured.
    pub(super) fn measured(&self, cell: usize, outcome: usize) -> Option<Measured> {
        self.cells.get(cell)?.values.get(outcome).copied().flatten().filter(|of| of.value.is_finite())
    }

    /// What each value of the axes is worth when all else is as good as it gets with it; axes of one value are left out.
    pub(super) fn worths(&self, outcome: usize) -> Vec<Worth<'_>> {
        self.varied().flat_map(|axis| self.worth(axis, outcome)).collect()
    }

    fn worth<'a>(&'a self, axis: &'a Axis, outcome: usize) -> Vec<Worth<'a>> {
        let with = |value: &String| self.best_of(outcome, |cell| cell.at.get(&axis.name) == Some(value));
        let best = axis.values.iter().filter_map(|value| {
            let cell = with(value)?;
            Some((value, cell, self.measured(cell, outcome)?))
        });
        let best: Vec<_> = best.collect();
        let all = self.best_of(outcome, |cell| cell.at.contains_key(&axis.name));
        let Some(top) = all.and_then(|cell| self.measured(cell, outcome)) else { return Vec::new() };
        let worth = |(value, cell, found): (&'a String, usize, Measured)| Worth {
            axis: &axis.name,
            value,
            cell,
            best: found,
            gap: Gap::new(found, top),
        };
        best.into_iter().map(worth).collect()
    }
}

/// The cells that are not there: what failed, what was to come of that, and what the values that the others have let one expect.
fn absent(cells: &[Cell], failed: &[Absent]) -> Vec<Absent> {
    let there: BTreeSet<&BTreeMap<String, String>> = cells.iter().map(|cell| &cell.at).collect();
    let kinds: BTreeSet<Vec<&String>> = there.iter().map(|at| at.keys().collect()).collect();
    let is_whole = |absent: &&Absent| kinds.contains(&absent.at.keys().collect::<Vec<_>>());
    let whole: Vec<&Absent> =
        failed.iter().filter(is_whole).filter(|absent| !there.contains(&absent.at)).collect();
    let known: BTreeSet<_> = there.iter().copied().chain(whole.iter().map(|absent| &absent.at)).collect();
    let mut found: Vec<Absent> = whole.into_iter().cloned().collect();
    for at in kinds.iter().flat_map(|kind| product(kind, &known)).filter(|at| !known.contains(at)) {
        let explains = |failure: &&Absent| {
            holds(&at, &failure.at) && !there.iter().any(|there| holds(there, &failure.at))
        };
        let failure = failed.iter().find(explains);
        let reason = failure.map_or_else(|| "is not there".to_owned(), |failure| failure.reason.clone());
        found.push(Absent { at, reason });
    }
    let is_said = |failure: &&Absent| {
        let places = there.iter().copied().chain(found.iter().map(|absent| &absent.at));
        places.into_iter().any(|at| holds(at, &failure.at))
    };
    let others: Vec<Absent> = failed.iter().filter(|failure| !is_said(failure)).cloned().collect();
    found.extend(others);
    found.sort();
    found.dedup_by(|a, b| a.at == b.at);
    found
}

/// Whether a cell has all values of another place.
fn holds(at: &BTreeMap<String, String>, part: &BTreeMap<String, String>) -> bool {
    part.iter().all(|(axis, value)| at.get(axis) == Some(value))
}

/// Every combination of the values that the cells with just these axes have.
fn product(axes: &[&String], known: &BTreeSet<&BTreeMap<String, String>>) -> Vec<BTreeMap<String, String>> {
    let of_kind: Vec<_> = known.iter().filter(|at| at.keys().eq(axes.iter().copied())).collect();
    let mut all = vec![BTreeMap::new()];
    for &axis in axes {
        let values: BTreeSet<&String> = of_kind.iter().filter_map(|at| at.get(axis)).collect();
        let with = |at: &BTreeMap<String, String>| {
            let at = at.clone();
            values
                .iter()
                .map(move |&value| {
                    let mut at = at.clone();
                    at.insert(axis.clone(), value.clone());
                    at
                })
                .collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

/// What the cells vary: axes by name, their values ascending where all are numbers, else as they come.
fn axes(cells: &[Cell]) -> Vec<Axis> {
    let names: BTreeSet<&String> = cells.iter().flat_map(|cell| cell.at.keys()).collect();
    let axis = |name: &String| {
        let mut values: Vec<String> = Vec::new();
        for value in cells.iter().filter_map(|cell| cell.at.get(name)) {
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
        if numbers(&values).is_some() {
            let number = |value: &String| value.parse::<f64>().unwrap_or(f64::NAN);
            values.sort_by(|a, b| number(a).total_cmp(&number(b)));
        }
        Axis { name: name.clone(), values }
    };
    names.into_iter().map(axis).collect()
}

/// The values as numbers above 0, if all are such.
fn numbers(values: &[String]) -> Option<Vec<f64>> {
    let number =
        |value: &String| value.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    values.iter().map(number).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn at(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(axis, value)| (axis.to_owned(), value.to_owned())).collect()
    }

    fn measured(value: f64, half: f64) -> Measured {
        Measured { value, interval: Some([value - half, value + half]) }
    }

    /// Two tokenizers, one of them with two vocabularies of which one failed, at two contexts.
    pub fn grid() -> Study {
        let outcomes = vec![
            Outcome { name: "Bits per base, test".into(), kind: Kind::BitsPerBase, bases: Some(1_000_000) },
            Outcome { name: "mcc, tf-0 (linear-probe)".into(), kind: Kind::Score, bases: None },
            Outcome { name: "Training, tokens per second".into(), kind: Kind::TokensPerSecond, bases: None },
            Outcome { name: "Memory to train".into(), kind: Kind::Bytes, bases: None },
            Outcome { name: "Training, operations".into(), kind: Kind::Operations, bases: None },
        ];
        let cell = |pairs: &[(&str, &str)], bits: f64, score: Option<f64>, speed: f64| {
            let mut found = BTreeMap::from([
                (outcomes[0].name.clone(), measured(bits, 0.003)),
                (outcomes[2].name.clone(), Measured { value: speed, interval: None }),
                (outcomes[3].name.clone(), Measured { value: 1e6 * speed, interval: None }),
                (outcomes[4].name.clone(), Measured { value: 1e9 * speed, interval: None }),
            ]);
            found.extend(score.map(|score| (outcomes[1].name.clone(), measured(score, 0.05))));
            let course = (1..=20).map(|i| [1e9 * f64::from(i), bits + 1.0 / f64::from(i)]).collect();
            (at(pairs), Found { figures: found, course })
        };
        let cells = vec![
            cell(&[("tokenizer", "nucleotide"), ("bases", "2048")], 1.950, Some(0.40), 9000.0),
            cell(&[("tokenizer", "nucleotide"), ("bases", "512")], 1.951, None, 9500.0),
            cell(&[("tokenizer", "bpe"), ("vocabulary", "64"), ("bases", "512")], 1.953, Some(0.42), 7000.0),
            cell(&[("tokenizer", "bpe"), ("vocabulary", "1024"), ("bases", "512")], 1.962, Some(0.2), 4000.0),
            cell(&[("tokenizer", "bpe"), ("vocabulary", "64"), ("bases", "2048")], 1.944, Some(0.41), 6000.0),
        ];
        let failed = Absent {
            at: at(&[("tokenizer", "bpe"), ("vocabulary", "1024"), ("bases", "2048")]),
            reason: "its stage `model` failed: out of <memory>".into(),
        };
        Study::new(outcomes, cells, &[failed]).unwrap()
    }

    #[test]
    fn values_are_in_order_and_the_best_cell_is_found() {
        let study = grid();
        let axes: Vec<(&str, String)> =
            study.axes.iter().map(|axis| (axis.name.as_str(), axis.values.join(" "))).collect();
        let expected = [("bases", "512 2048"), ("tokenizer", "nucleotide bpe"), ("vocabulary", "64 1024")];
        assert_eq!(axes, expected.map(|(name, values)| (name, values.to_owned())));
        let best: Vec<Option<usize>> = (0..4).map(|outcome| study.best(outcome)).collect();
        assert_eq!(best, [Some(4), Some(1), Some(0), Some(2)]);
    }

    #[test]
    fn a_gap_is_beyond_noise_where_its_interval_has_no_zero() {
        // Half widths of 3 and 4 make one of 5.
        let gap = Gap::new(measured(10.0, 3.0), measured(4.0, 4.0));
        assert_eq!((gap.value, gap.interval, gap.is_beyond_noise()), (6.0, Some([1.0, 11.0]), Some(true)));
        let gap = Gap::new(measured(8.0, 3.0), measured(4.0, 4.0));
        assert_eq!((gap.interval, gap.is_beyond_noise()), (Some([-1.0, 9.0]), Some(false)));
        let one_sided = Measured { value: 4.0, interval: Some([0.0, 4.0]) };
        assert_eq!(Gap::new(measured(10.0, 3.0), one_sided).interval, Some([3.0, 11.0]));
        assert_eq!(Gap::new(measured(1.0, 1.0), Measured::default()).is_beyond_noise(), None);
    }

    #[test]
    fn a_value_is_worth_what_its_best_cell_is() {
        let study = grid();
        let worths: Vec<(&str, &str, usize, String)> = study
            .worths(0)
            .into_iter()
            .map(|worth| (worth.axis, worth.value, worth.cell, format!("{:.4}", worth.gap.value)))
            .collect();
        let expected = [
            ("bases", "512", 0, "0.0070"),
            ("bases", "2048", 4, "0.0000"),
            ("tokenizer", "nucleotide", 3, "0.0060"),
            ("tokenizer", "bpe", 4, "0.0000"),
            ("vocabulary", "64", 4, "0.0000"),
            ("vocabulary", "1024", 2, "0.0180"),
        ];
        let expected = expected.map(|(axis, value, cell, gap)| (axis, value, cell, gap.to_owned()));
        assert_eq!(worths, expected);
    }

    #[test]
    fn cells_that_are_not_there_are_said_to_be_absent() {
        assert_eq!(grid().absent.len(), 1, "the one that failed");
        let outcomes = vec![Outcome { name: "bits".into(), ..Outcome::default() }];
        let cell = |pairs: &[(&str, &str)]| {
            (
                at(pairs),
                Found {
                    figures: BTreeMap::from([("bits".to_owned(), measured(1.9, 0.1))]),
                    course: Vec::new(),
                },
            )
        };
        let three = [[("a", "1"), ("b", "x")], [("a", "2"), ("b", "x")], [("a", "1"), ("b", "y")]];
        let alone = [("a", "3")];
        let cells = three.iter().map(|pairs| cell(pairs)).chain([cell(&alone)]).collect::<Vec<_>>();
        let study = Study::new(outcomes.clone(), cells.clone(), &[]).unwrap();
        let absent = |pairs: &[(&str, &str)], reason: &str| Absent { at: at(pairs), reason: reason.into() };
        assert_eq!(study.absent, [absent(&[("a", "2"), ("b", "y")], "is not there")]);
        // A failure further up stands for the cell that was to come of it, or for itself where none is known.
        let failed = [
            absent(&[("b", "y"), ("a", "2")], "is full"),
            absent(&[("b", "z")], "failed"),
            absent(&[("b", "x")], "is over"),
        ];
        let study = Study::new(outcomes.clone(), cells.clone(), &failed).unwrap();
        assert_eq!(
            study.absent,
            [absent(&[("a", "2"), ("b", "y")], "is full"), absent(&[("b", "z")], "failed")]
        );
        let study = Study::new(outcomes.clone(), cells.clone(), &[absent(&[("b", "y")], "failed")]).unwrap();
        assert_eq!(
            study.absent[0].reason, "is not there",
            "the other cell with `y` is there: {:?}",
            study.absent
        );
        assert_eq!(Study::new(outcomes, cells[..1].to_vec(), &[]), None, "one cell is no study");
    }
}
