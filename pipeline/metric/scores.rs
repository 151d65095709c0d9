//! All scores of a whole set at once, for classes and for values, with intervals.
//!
//! [`Classified`] and [`Valued`] hold what a model answered; [`Scores`] is what is reported of it. Memory: for
//! classes eight bytes per example and class and eighteen per example, for values sixteen per example, beside what is
//! borrowed; intervals as in [`super::interval`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use super::classification::{Confusion, check_classes};
use super::interval::{Bootstrap, Interval};
use super::sorted::Sorted;
use super::{Error, check_finite, check_length, correlation, mean, ranking};

/// A score by which models are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// Share of the examples that were taken for what they are.
    Accuracy,
    /// Mean recall of the classes that have examples.
    BalancedAccuracy,
    /// Mean F1 of the classes that are in the truth or predicted.
    MacroF1,
    /// Mean F1 of all classes, 0 for those that are neither in the truth nor predicted.
    MacroF1AllClasses,
    /// Matthews' correlation coefficient.
    Mcc,
    /// Area under the receiver operating characteristic; for more than two classes the mean of each against the rest.
    Auroc,
    /// Average precision; for more than two classes the mean of each against the rest.
    Auprc,
    /// Mean squared error of the probabilities, for more than two classes summed over them.
    Brier,
    /// Expected calibration error, in [`super::calibration::BINS`] bins.
    Ece,
    /// Pearson's correlation.
    Pearson,
    /// Spearman's correlation.
    Spearman,
}

/// As it is written in files.
impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl Metric {
    /// Scores of classes, in the order in which they are reported.
    pub const OF_CLASSES: [Self; 9] = [
        Self::Accuracy,
        Self::BalancedAccuracy,
        Self::MacroF1,
        Self::MacroF1AllClasses,
        Self::Mcc,
        Self::Auroc,
        Self::Auprc,
        Self::Brier,
        Self::Ece,
    ];
    /// Scores of values, in the order in which they are reported.
    pub const OF_VALUES: [Self; 2] = [Self::Pearson, Self::Spearman];

    /// Whether the better model has the higher figure.
    pub const fn is_better_when_higher(self) -> bool {
        !matches!(self, Self::Brier | Self::Ece)
    }
}

/// What a model answered for every example of a set.
pub trait Answers: Sync {
    /// What [`Self::figures`] gives, in its order.
    const METRICS: &'static [Metric];

    /// The number of examples.
    fn examples(&self) -> usize;

    /// The figure of each metric as it is compared (see [`Confusion::shown_mcc`]), when each example counts `times`
    /// times.
    fn figures(&self, times: &[u32]) -> Vec<Option<f64>>;

    /// That both are answers to the same examples, as far as the truth tells.
    ///
    /// # Errors
    ///
    /// Unlike numbers of examples; the first example whose truth is another.
    fn check_paired(&self, other: &Self) -> Result<(), Error>;
}

/// Labels, predicted classes and, where there are any, scores of the same examples.
#[derive(Debug)]
pub struct Classified<'a> {
    classes: usize,
    labels: &'a [u32],
    predicted: &'a [u32],
    /// The examples by their score of each class; empty without scores.
    rankings: Vec<Sorted>,
    calibration: Option<Calibration>,
}

impl<'a> Classified<'a> {
    /// Answers for examples of `classes` classes.
    ///
    /// `scores` has, for two classes, the score of class 1 for each example; for more, a row of `classes` scores for
    /// each. Areas under curves take any finite numbers; Brier score and calibration error need probabilities and are
    /// undefined for others.
    ///
    /// # Errors
    ///
    /// Fewer than two classes, lists of unlike length, a class that there is not, a score that is not finite.
    pub fn new(
        classes: usize,
        labels: &'a [u32],
        predicted: &'a [u32],
        scores: Option<&[f64]>,
    ) -> Result<Self, Error> {
        check_classes(classes, labels, predicted)?;
        let (mut rankings, mut calibration) = (Vec::new(), None);
        if let Some(scores) = scores {
            let width = if classes == 2 { 1 } else { classes };
            check_length("scores", scores.len(), labels.len() * width)?;
            check_finite("score", scores, width)?;
            rankings = (0..classes).map(|class| ranking(scores, width, class)).collect();
            calibration = Calibration::new(labels, scores, width);
        }
        Ok(Self { classes, labels, predicted, rankings, calibration })
    }

    /// The area of the class 1 for two classes, the mean of all for more; `None` when one is undefined.
    fn area(&self, of: impl Fn(usize) -> Option<f64>) -> Option<f64> {
        if self.rankings.is_empty() {
            return None;
        }
        if self.classes == 2 {
            return of(1);
        }
        let areas: Option<Vec<f64>> = (0..self.classes).map(of).collect();
        areas.and_then(mean)
    }

    fn auroc(&self, class: usize, times: &[u32]) -> Option<f64> {
        ranking::auroc_of(self.rankings.get(class)?, |place| self.labels[place] as usize == class, times)
    }

    fn auprc(&self, class: usize, times: &[u32]) -> Option<f64> {
        ranking::auprc_of(self.rankings.get(class)?, |place| self.labels[place] as usize == class, times)
    }

    fn confusion(&self, times: &[u32]) -> Confusion {
        Confusion::counted(self.classes, self.labels, self.predicted, times)
    }
}

/// The examples by their score of a class. Of two classes the first is scored by what the second is not.
fn ranking(scores: &[f64], width: usize, class: usize) -> Sorted {
    let score = |example: usize| match (width, class) {
        (1, 0) => -scores[example],
        (1, _) => scores[example],
        _ => scores[example * width + class],
    };
    Sorted::new(scores.len() / width, score)
}

impl Answers for Classified<'_> {
    const METRICS: &'static [Metric] = &Metric::OF_CLASSES;

    fn examples(&self) -> usize {
        self.labels.len()
    }

    fn figures(&self, times: &[u32]) -> Vec<Option<f64>> {
        let confusion = self.confusion(times);
        vec![
            confusion.accuracy(),
            confusion.balanced_accuracy(),
            confusion.macro_f1(),
            confusion.macro_f1_all_classes(),
            confusion.shown_mcc(),
            self.area(|class| self.auroc(class, times)),
            self.area(|class| self.auprc(class, times)),
            self.calibration.as_ref().and_then(|calibration| calibration.brier(times)),
            self.calibration.as_ref().and_then(|calibration| calibration.ece(times)),
        ]
    }

    fn check_paired(&self, other: &Self) -> Result<(), Error> {
        check_same("label", self.labels, other.labels)
    }
}

/// Labels against predicted classes, window by window: what is drawn again for an interval is a window, whose bases are not
/// independent of each other.
#[derive(Debug)]
pub struct Windowed {
    /// Of each window.
    windows: Vec<Confusion>,
    classes: usize,
}

impl Windowed {
    /// Counts of windows with as many classes each.
    ///
    /// # Errors
    ///
    /// Fewer than two classes, lists of unlike length, a class that there is not.
    pub fn new<'a>(
        classes: usize,
        windows: impl Iterator<Item = (&'a [u32], &'a [u32])>,
    ) -> Result<Self, Error> {
        let of = |(labels, predicted): (&[u32], &[u32])| Confusion::new(classes, labels, predicted);
        Ok(Self { windows: windows.map(of).collect::<Result<_, _>>()?, classes })
    }

    fn sum(&self, times: &[u32]) -> Confusion {
        let mut sum = Confusion::counted(self.classes, &[], &[], &[]);
        self.windows.iter().zip(times).for_each(|(window, &times)| sum.add(window, times.into()));
        sum
    }
}

impl Answers for Windowed {
    const METRICS: &'static [Metric] = &[
        Metric::Accuracy,
        Metric::BalancedAccuracy,
        Metric::MacroF1,
        Metric::MacroF1AllClasses,
        Metric::Mcc,
    ];

    fn examples(&self) -> usize {
        self.windows.len()
    }

    fn figures(&self, times: &[u32]) -> Vec<Option<f64>> {
        let sum = self.sum(times);
        vec![
            sum.accuracy(),
            sum.balanced_accuracy(),
            sum.macro_f1(),
            sum.macro_f1_all_classes(),
            sum.shown_mcc(),
        ]
    }

    fn check_paired(&self, other: &Self) -> Result<(), Error> {
        let labelled = |all: &Self| -> Vec<u64> {
            all.windows.iter().flat_map(|one| (0..all.classes).map(|class| one.labelled(class))).collect()
        };
        check_same("label", &labelled(self), &labelled(other))
    }
}

/// Measured and predicted values of the same examples.
#[derive(Debug)]
pub struct Valued<'a> {
    measured: &'a [f64],
    predicted: &'a [f64],
    sorted: [Sorted; 2],
}

impl<'a> Valued<'a> {
    /// Answers for examples with a measured value.
    ///
    /// # Errors
    ///
    /// Lists of unlike length, a value that is not finite.
    pub fn new(measured: &'a [f64], predicted: &'a [f64]) -> Result<Self, Error> {
        correlation::check(measured, predicted)?;
        let sorted = [measured, predicted].map(|values| Sorted::new(values.len(), |place| values[place]));
        Ok(Self { measured, predicted, sorted })
    }
}

impl Answers for Valued<'_> {
    const METRICS: &'static [Metric] = &Metric::OF_VALUES;

    fn examples(&self) -> usize {
        self.measured.len()
    }

    fn figures(&self, times: &[u32]) -> Vec<Option<f64>> {
        vec![
            correlation::pearson_of(self.measured, self.predicted, times),
            correlation::spearman_of(&self.sorted, times),
        ]
    }

    fn check_paired(&self, other: &Self) -> Result<(), Error> {
        check_same("measured value", self.measured, other.measured)
    }
}

fn check_same<T: PartialEq>(what: &'static str, left: &[T], right: &[T]) -> Result<(), Error> {
    check_length("examples", right.len(), left.len())?;
    match left.iter().zip(right).position(|(left, right)| left != right) {
        Some(example) => Err(Error::Unpaired { example, what }),
        None => Ok(()),
    }
}

/// What is reported of a model on a whole set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Examples that were scored.
    pub examples: u64,
    /// Every metric that fits the task; `None` where it is undefined.
    pub figures: BTreeMap<Metric, Option<f64>>,
    /// Intervals of those that are defined; empty where none were asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<Metric, Interval>,
    /// Each class by itself, in order; empty for values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Class>,
    /// Labels against predicted classes; `None` for values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion>,
}

/// One class against the rest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Examples of the class.
    pub examples: u64,
    /// Examples that were taken for it.
    pub predicted: u64,
    /// Share of its examples that were found.
    pub recall: Option<f64>,
    /// Share of what was taken for it that is of it.
    pub precision: Option<f64>,
    /// Harmonic mean of the two.
    pub f1: Option<f64>,
    /// Area under its receiver operating characteristic.
    pub auroc: Option<f64>,
    /// Its average precision.
    pub auprc: Option<f64>,
}

impl Scores {
    /// All scores of classes; with intervals where a bootstrap is given.
    pub fn of_classes(answers: &Classified, bootstrap: Option<&Bootstrap>) -> Self {
        let times = vec![1; answers.examples()];
        let areas = |class| (answers.auroc(class, &times), answers.auprc(class, &times));
        Self::new(answers, bootstrap).of_confusion(answers.confusion(&times), areas)
    }

    /// All scores of classes of bases, over all windows; with intervals over windows where a bootstrap is given.
    pub fn of_windows(answers: &Windowed, bootstrap: Option<&Bootstrap>) -> Self {
        let sum = answers.sum(&vec![1; answers.examples()]);
        let examples = sum.examples();
        Self { examples, ..Self::new(answers, bootstrap).of_confusion(sum, |_| (None, None)) }
    }

    /// The same with what a confusion and the areas of each class say.
    fn of_confusion(
        mut self,
        confusion: Confusion,
        areas: impl Fn(usize) -> (Option<f64>, Option<f64>),
    ) -> Self {
        self.set(Metric::Mcc, confusion.mcc());
        self.classes = (0..confusion.classes())
            .map(|class| {
                let (auroc, auprc) = areas(class);
                Class {
                    examples: confusion.labelled(class),
                    predicted: confusion.predicted(class),
                    recall: confusion.recall(class),
                    precision: confusion.precision(class),
                    f1: confusion.f1(class),
                    auroc,
                    auprc,
                }
            })
            .collect();
        self.confusion = Some(confusion);
        self
    }

    /// All scores of values; with intervals where a bootstrap is given.
    pub fn of_values(answers: &Valued, bootstrap: Option<&Bootstrap>) -> Self {
        Self::new(answers, bootstrap)
    }

    /// The figure of a metric as it is shown, averaged and compared: that of [`Self::figures`], and for Matthews'
    /// coefficient what [`Confusion::shown_mcc`] says.
    pub fn shown(&self, metric: Metric) -> Option<f64> {
        let figure = self.figures.get(&metric).copied().flatten();
        match &self.confusion {
            Some(confusion) if metric == Metric::Mcc => figure.or_else(|| confusion.shown_mcc()),
            _ => figure,
        }
    }

    fn new<A: Answers>(answers: &A, bootstrap: Option<&Bootstrap>) -> Self {
        let figures = answers.figures(&vec![1; answers.examples()]);
        let mut scores = Self {
            examples: answers.examples() as u64,
            figures: A::METRICS.iter().copied().zip(figures).collect(),
            intervals: BTreeMap::new(),
            classes: Vec::new(),
            confusion: None,
        };
        if let Some(bootstrap) = bootstrap {
            let resampled = bootstrap.resample(answers.examples(), |times| answers.figures(times));
            let intervals =
                A::METRICS.iter().zip(resampled).filter(|(metric, _)| scores.shown(**metric).is_some());
            let intervals =
                intervals.filter_map(|(metric, sorted)| Some((*metric, bootstrap.interval(&sorted)?)));
            scores.intervals = intervals.collect();
        }
        scores
    }

    fn set(&mut self, metric: Metric, figure: Option<f64>) {
        self.figures.insert(metric, figure);
        if figure.is_none() {
            self.intervals.remove(&metric);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABELS: [u32; 6] = [0, 0, 0, 1, 1, 1];
    const PREDICTED: [u32; 6] = [0, 0, 1, 1, 1, 0];
    const SCORES: [f64; 6] = [0.1, 0.2, 0.7, 0.9, 0.6, 0.4];

    fn two_classes(bootstrap: Option<&Bootstrap>) -> Scores {
        Scores::of_classes(&Classified::new(2, &LABELS, &PREDICTED, Some(&SCORES)).unwrap(), bootstrap)
    }

    #[test]
    fn json_has_every_metric_and_comes_back() {
        let scores = two_classes(Some(&Bootstrap { resamples: 400, ..Bootstrap::default() }));
        let json = serde_json::to_value(&scores).unwrap();
        let names: Vec<&String> = json["figures"].as_object().unwrap().keys().collect();
        let expected = [
            "accuracy",
            "balanced_accuracy",
            "macro_f1",
            "macro_f1_all_classes",
            "mcc",
            "auroc",
            "auprc",
            "brier",
            "ece",
        ];
        assert_eq!(names, expected);
        assert_eq!(json["confusion"], serde_json::json!([[2, 1], [1, 2]]));
        assert_eq!(
            (json["classes"][1]["recall"].as_f64(), json["examples"].as_u64()),
            (Some(2.0 / 3.0), Some(6))
        );
        assert_eq!(serde_json::from_str::<Scores>(&json.to_string()).unwrap(), scores);
        assert_eq!(scores.intervals.len(), 9);
        let interval = scores.intervals[&Metric::Auroc];
        assert!(
            interval.undefined > 0 && interval.low < 7.0 / 9.0 && interval.high >= 7.0 / 9.0,
            "{interval:?}"
        );
    }

    #[test]
    fn either_of_two_classes_has_its_area() {
        let classes = two_classes(None).classes;
        assert_eq!((classes[0].auroc, classes[1].auroc), (Some(7.0 / 9.0), Some(7.0 / 9.0)));
        // Falling scores: 1, 0, 1, 1, 0, 0, and from the other end 0, 0, 1, 1, 0, 1.
        let close = |found: Option<f64>, expected: f64| {
            assert!((found.unwrap() - expected).abs() < 1e-15, "{found:?}");
        };
        close(classes[1].auprc, (1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0);
        close(classes[0].auprc, (1.0 + 1.0 + 3.0 / 5.0) / 3.0);
    }

    #[test]
    fn a_model_that_takes_all_for_one_class_has_no_coefficient_and_is_shown_with_0() {
        let of = |labels: &[u32]| {
            let answers = Classified::new(2, labels, &[1; 6], None).unwrap();
            Scores::of_classes(&answers, Some(&Bootstrap { resamples: 20, ..Bootstrap::default() }))
        };
        let scores = of(&LABELS);
        assert_eq!((scores.figures[&Metric::Mcc], scores.shown(Metric::Mcc)), (None, Some(0.0)));
        assert!(
            !scores.intervals.contains_key(&Metric::Mcc) && scores.intervals.contains_key(&Metric::Accuracy)
        );
        assert_eq!((scores.figures[&Metric::Auroc], scores.figures[&Metric::Ece]), (None, None));
        assert_eq!(of(&[1; 6]).shown(Metric::Mcc), None);
    }

    #[test]
    fn nothing_has_no_scores() {
        let scores = Scores::of_classes(
            &Classified::new(3, &[], &[], Some(&[])).unwrap(),
            Some(&Bootstrap::default()),
        );
        assert!(scores.figures.values().all(Option::is_none) && scores.intervals.is_empty(), "{scores:?}");
        let scores = Scores::of_values(&Valued::new(&[], &[]).unwrap(), None);
        assert_eq!(
            serde_json::to_string(&scores).unwrap(),
            r#"{"examples":0,"figures":{"pearson":null,"spearman":null}}"#
        );
    }

    #[test]
    fn scores_that_do_not_fit_are_errors() {
        let wrong = [
            (2, &[0.1, 0.9, 0.5, 0.5][..], "there are 4 scores: expected 2"),
            (3, &[0.1, 0.9], "there are 2 scores: expected 6"),
            (
                3,
                &[0.1, 0.8, 0.1, 0.3, f64::NAN, 0.7],
                "the score of example 1 is NaN: expected a finite number",
            ),
        ];
        for (classes, scores, expected) in wrong {
            let error = Classified::new(classes, &[0, 1], &[0, 1], Some(scores)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_score_depends_on_the_order_of_examples(
            examples in prop::collection::vec((0_u32..3, 0_u32..3, 0_u8..5, 0_u8..5), 0..40), by in 0_usize..40,
        ) {
            let scores = |examples: &[(u32, u32, u8, u8)]| {
                let labels: Vec<u32> = examples.iter().map(|e| e.0).collect();
                let predicted: Vec<u32> = examples.iter().map(|e| e.1).collect();
                let row = |e: &(u32, u32, u8, u8)| {
                    let (one, other) = (f64::from(e.2) / 8.0, f64::from(e.3) / 8.0);
                    [one, other, 1.0 - one - other]
                };
                let scores: Vec<f64> = examples.iter().flat_map(row).collect();
                Scores::of_classes(&Classified::new(3, &labels, &predicted, Some(&scores)).unwrap(), None)
            };
            let mut turned = examples.clone();
            turned.rotate_left(by % examples.len().max(1));
            let (found, expected) = (scores(&turned), scores(&examples));
            prop_assert_eq!(&found.confusion, &expected.confusion);
            for (metric, expected) in expected.figures {
                let found = found.figures[&metric];
                prop_assert_eq!(found.is_some(), expected.is_some());
                prop_assert!((found.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs() < 1e-12, "{:?}", metric);
            }
        }

        #[test]
        fn mcc_is_the_same_when_truth_and_prediction_change_places(
            examples in prop::collection::vec((0_u32..4, 0_u32..4), 0..60),
        ) {
            let (labels, predicted): (Vec<u32>, Vec<u32>) = examples.into_iter().unzip();
            let mcc = |labels, predicted| Confusion::new(4, labels, predicted).unwrap().mcc();
            let (found, expected) = (mcc(&predicted, &labels), mcc(&labels, &predicted));
            prop_assert_eq!(found.is_some(), expected.is_some());
            prop_assert!((found.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs() < 1e-14);
            prop_assert!(expected.is_none_or(|mcc| mcc.abs() <= 1.0 + 1e-14));
        }
    }
}
