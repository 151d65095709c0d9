//! What a confusion matrix says: accuracy, recall, precision, F1, Matthews' correlation coefficient.
//!
//! Memory: eight bytes per pair of classes.

use serde::{Deserialize, Serialize};

use super::{Error, MOST_EXAMPLES, check_length, mean};

/// How often each class (row) was taken for each class (column). In JSON it is a list of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<u64>>", into = "Vec<Vec<u64>>")]
pub struct Confusion {
    rows: Vec<Vec<u64>>,
}

impl Confusion {
    /// Counts examples by their label and predicted class, both below `classes`.
    ///
    /// # Errors
    ///
    /// Fewer than two classes, lists of unlike length, a class that there is not.
    pub fn new(classes: usize, labels: &[u32], predicted: &[u32]) -> Result<Self, Error> {
        check_classes(classes, labels, predicted)?;
        Ok(Self::counted(classes, labels, predicted, &vec![1; labels.len()]))
    }

    /// The same of classes that were checked, when each example counts `times` times.
    pub(super) fn counted(classes: usize, labels: &[u32], predicted: &[u32], times: &[u32]) -> Self {
        let mut rows = vec![vec![0; classes]; classes];
        for ((&label, &predicted), &times) in labels.iter().zip(predicted).zip(times) {
            rows[label as usize][predicted as usize] += u64::from(times);
        }
        Self { rows }
    }

    /// Adds what another of as many classes counted, `times` times.
    pub(super) fn add(&mut self, other: &Self, times: u64) {
        let cells = self.rows.iter_mut().flatten().zip(other.rows.iter().flatten());
        cells.for_each(|(cell, more)| *cell += more * times);
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.rows.len()
    }

    /// Examples of the class `label` that were taken for `predicted`.
    pub fn count(&self, label: usize, predicted: usize) -> u64 {
        self.rows[label][predicted]
    }

    /// Examples of a class.
    pub fn labelled(&self, class: usize) -> u64 {
        self.rows[class].iter().sum()
    }

    /// Examples that were taken for a class.
    pub fn predicted(&self, class: usize) -> u64 {
        self.rows.iter().map(|row| row[class]).sum()
    }

    /// All examples.
    pub fn examples(&self) -> u64 {
        self.rows.iter().flatten().sum()
    }

    /// Examples that were taken for what they are.
    pub fn correct(&self) -> u64 {
        (0..self.classes()).map(|class| self.rows[class][class]).sum()
    }

    /// The share of the examples that were taken for what they are; `None` without examples.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.correct(), self.examples())
    }

    /// The mean recall of the classes that have examples; `None` without examples.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        mean((0..self.classes()).filter_map(|class| self.recall(class)))
    }

    /// The share of a class's examples that were found; `None` where it has none.
    pub fn recall(&self, class: usize) -> Option<f64> {
        share(self.rows[class][class], self.labelled(class))
    }

    /// The share of what was taken for a class that is of it; `None` where nothing was.
    pub fn precision(&self, class: usize) -> Option<f64> {
        share(self.rows[class][class], self.predicted(class))
    }

    /// The harmonic mean of recall and precision; `None` for a class that is neither in the truth nor predicted.
    pub fn f1(&self, class: usize) -> Option<f64> {
        share(2 * self.rows[class][class], self.labelled(class) + self.predicted(class))
    }

    /// The mean F1 of the classes that are in the truth or predicted; `None` without examples.
    pub fn macro_f1(&self) -> Option<f64> {
        mean((0..self.classes()).filter_map(|class| self.f1(class)))
    }

    /// The mean F1 of all classes, 0 for those that are neither in the truth nor predicted; `None` without examples.
    pub fn macro_f1_all_classes(&self) -> Option<f64> {
        self.macro_f1().and_then(|_| mean((0..self.classes()).map(|class| self.f1(class).unwrap_or(0.0))))
    }

    /// Matthews' correlation coefficient (for several classes, Gorodkin's); `None` when the truth or the prediction
    /// has one class only, where its denominator is 0.
    pub fn mcc(&self) -> Option<f64> {
        let of = |count: fn(&Self, usize) -> u64| {
            (0..self.classes()).map(move |class| i128::from(count(self, class)))
        };
        let (examples, correct) = (i128::from(self.examples()), i128::from(self.correct()));
        let (labelled, predicted) = (of(Self::labelled), of(Self::predicted));
        let agreement =
            correct * examples - labelled.clone().zip(predicted.clone()).map(|(l, p)| l * p).sum::<i128>();
        let spread_of_labels = examples * examples - labelled.map(|count| count * count).sum::<i128>();
        let spread_of_predicted = examples * examples - predicted.map(|count| count * count).sum::<i128>();
        let defined = spread_of_labels > 0 && spread_of_predicted > 0;
        defined.then(|| {
            agreement as f64 / (spread_of_labels as f64).sqrt() / (spread_of_predicted as f64).sqrt()
        })
    }

    /// The coefficient as it is shown, averaged and compared: 0, as published tables have it, for a model that takes
    /// everything for one class where the truth has several; `None` when the truth has one class only.
    pub fn shown_mcc(&self) -> Option<f64> {
        let classes = (0..self.classes()).filter(|&class| self.labelled(class) > 0).count();
        self.mcc().or((classes > 1).then_some(0.0))
    }
}

impl TryFrom<Vec<Vec<u64>>> for Confusion {
    type Error = Error;

    fn try_from(rows: Vec<Vec<u64>>) -> Result<Self, Error> {
        let square = rows.iter().all(|row| row.len() == rows.len());
        let examples = rows.iter().flatten().try_fold(0_u64, |sum, &count| sum.checked_add(count));
        if square && examples.is_some_and(|examples| examples <= MOST_EXAMPLES as u64) {
            Ok(Self { rows })
        } else {
            Err(Error::Confusion { classes: rows.len() })
        }
    }
}

impl From<Confusion> for Vec<Vec<u64>> {
    fn from(confusion: Confusion) -> Self {
        confusion.rows
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Labels and predicted classes of the same examples, all below `classes`.
pub(super) fn check_classes(classes: usize, labels: &[u32], predicted: &[u32]) -> Result<(), Error> {
    if classes < 2 {
        return Err(Error::Classes { found: classes });
    }
    check_length("predicted classes", predicted.len(), labels.len())?;
    for (what, found) in [("label", labels), ("predicted class", predicted)] {
        if let Some(example) = found.iter().position(|&class| class as usize >= classes) {
            return Err(Error::Class { example, what, found: found[example], last: classes - 1 });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten examples of three classes, of which the last has none.
    fn confusion() -> Confusion {
        Confusion::new(3, &[0, 0, 0, 0, 0, 0, 1, 1, 1, 1], &[0, 0, 0, 0, 1, 2, 1, 1, 1, 0]).unwrap()
    }

    #[test]
    fn figures_are_those_of_the_definitions() {
        let found = confusion();
        assert_eq!((found.count(0, 0), found.count(0, 2), found.count(1, 0)), (4, 1, 1));
        assert_eq!((found.labelled(0), found.predicted(0), found.examples(), found.correct()), (6, 5, 10, 7));
        assert_eq!((found.recall(0), found.recall(1), found.recall(2)), (Some(4.0 / 6.0), Some(0.75), None));
        assert_eq!((found.precision(0), found.precision(2)), (Some(0.8), Some(0.0)));
        assert_eq!((found.f1(0), found.f1(1), found.f1(2)), (Some(8.0 / 11.0), Some(0.75), Some(0.0)));
        // (7 * 10 - (6 * 5 + 4 * 4)) / sqrt((100 - 52) * (100 - 42))
        assert!((found.mcc().unwrap() - 24.0 / (48.0_f64 * 58.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn what_is_not_defined_is_none() {
        let of = |labels: &[u32], predicted: &[u32]| Confusion::new(2, labels, predicted).unwrap();
        let nothing = of(&[], &[]);
        assert_eq!((nothing.accuracy(), nothing.balanced_accuracy(), nothing.mcc()), (None, None, None));
        assert_eq!(
            (nothing.macro_f1(), nothing.macro_f1_all_classes(), nothing.shown_mcc()),
            (None, None, None)
        );
        for (labels, predicted, mcc, shown) in [
            ([0, 1, 1], [1, 1, 1], None, Some(0.0)),
            ([1, 1, 1], [1, 0, 1], None, None),
            ([1, 1, 1], [1, 1, 1], None, None),
            ([0, 1, 1], [0, 1, 1], Some(1.0), Some(1.0)),
        ] {
            let found = of(&labels, &predicted);
            let rounded = |figure: Option<f64>| figure.map(|figure| (figure * 1e12).round() / 1e12);
            assert_eq!(
                (rounded(found.mcc()), rounded(found.shown_mcc())),
                (mcc, shown),
                "{labels:?} {predicted:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_counted_is_an_error() {
        for (classes, labels, predicted, expected) in [
            (1, &[0, 0][..], &[0, 0][..], "cannot score 1 classes: expected at least 2"),
            (2, &[0, 1], &[0], "there are 1 predicted classes: expected 2"),
            (2, &[0, 2], &[0, 1], "the label of example 1 is 2: expected a class from 0 to 1"),
            (3, &[0, 2], &[3, 1], "the predicted class of example 0 is 3: expected a class from 0 to 2"),
        ] {
            assert_eq!(Confusion::new(classes, labels, predicted).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn json_is_a_list_of_rows() {
        let found = serde_json::to_string(&confusion()).unwrap();
        assert_eq!(found, "[[4,1,1],[1,3,0],[0,0,0]]");
        assert_eq!(serde_json::from_str::<Confusion>(&found).unwrap(), confusion());
        for wrong in ["[[1,2],[3]]", "[[1,2]]", "[[18446744073709551615,1],[0,0]]", "[[4294967296,0],[0,0]]"]
        {
            let error = serde_json::from_str::<Confusion>(wrong).unwrap_err().to_string();
            assert!(error.starts_with("not a confusion matrix of"), "{wrong}: {error}");
        }
    }
}
