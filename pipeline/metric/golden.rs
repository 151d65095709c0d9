//! Equality with scikit-learn and SciPy on the cases of `tests/golden/metrics`; its README says what each figure is.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::classification::Confusion;
use super::delong::delong;
use super::scores::{Classified, Metric, Scores, Valued};

#[derive(Deserialize)]
struct Cases<T> {
    cases: Vec<T>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    n_classes: usize,
    #[serde(default)]
    y_true: Vec<u32>,
    #[serde(default)]
    y_pred: Vec<u32>,
    score: Option<Vec<f64>>,
    prob: Option<Vec<Vec<f64>>>,
    #[serde(default)]
    x: Vec<f64>,
    #[serde(default)]
    y: Vec<f64>,
    expected: Map<String, Value>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    y_true: Vec<u32>,
    score_a: Vec<f64>,
    score_b: Vec<f64>,
    expected: Compared,
}

#[derive(Deserialize)]
struct Compared {
    auc_a: f64,
    auc_b: f64,
    difference: f64,
    variance_of_difference: f64,
    covariance: [[f64; 2]; 2],
    z: Option<f64>,
    p_two_sided: f64,
}

fn cases<T: for<'a> Deserialize<'a>>(name: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics").join(name);
    serde_json::from_str::<Cases<T>>(&std::fs::read_to_string(path).unwrap()).unwrap().cases
}

fn close(found: Option<f64>, expected: Option<f64>, within: f64, what: &str) {
    let is_close = match (found, expected) {
        (Some(found), Some(expected)) => (found - expected).abs() <= within,
        (found, expected) => found == expected,
    };
    assert!(is_close, "{what}: found {found:?}, expected {expected:?}");
}

/// What our name for a figure is.
fn metric(name: &str) -> Option<Metric> {
    Some(match name {
        "accuracy" => Metric::Accuracy,
        "balanced_accuracy" => Metric::BalancedAccuracy,
        "macro_f1" => Metric::MacroF1,
        "macro_f1_all_classes" => Metric::MacroF1AllClasses,
        "auroc" | "auroc_macro_ovr" => Metric::Auroc,
        "brier" | "brier_multiclass_sum_over_classes" => Metric::Brier,
        "ece" => Metric::Ece,
        "pearson" => Metric::Pearson,
        "spearman" => Metric::Spearman,
        _ => return None,
    })
}

#[test]
fn classes_score_as_in_scikit_learn() {
    let mut compared = 0;
    for case in cases::<Case>("metrics.json").iter().filter(|case| case.n_classes > 0) {
        let scores = case.score.clone().or_else(|| case.prob.as_ref().map(|rows| rows.concat()));
        let answers = Classified::new(case.n_classes, &case.y_true, &case.y_pred, scores.as_deref()).unwrap();
        let found = Scores::of_classes(&answers, None);
        for (name, expected) in &case.expected {
            let what = format!("{}: {name}", case.name);
            match name.as_str() {
                "mcc" => close(found.figures[&Metric::Mcc].or(Some(0.0)), expected.as_f64(), 1e-12, &what),
                "auprc" | "auprc_macro_ovr" => compare_auprc(&found, expected.as_f64(), &what),
                "recall" | "precision" | "f1" => compare_classes(&found, name, expected, &what),
                _ => {
                    let found = found.figures[&metric(name).expect(name)];
                    close(found, expected.as_f64(), 1e-12, &what);
                }
            }
            compared += 1;
        }
        let confusion = Confusion::new(case.n_classes, &case.y_true, &case.y_pred).unwrap();
        assert_eq!(found.confusion.as_ref(), Some(&confusion));
    }
    assert!(compared > 200, "only {compared} figures were compared");
}

/// Where the truth lacks a class, scikit-learn counts that class as 0 (and one that is all there is as 1); we say that
/// the figure is undefined.
fn compare_auprc(found: &Scores, expected: Option<f64>, what: &str) {
    let ours = found.figures[&Metric::Auprc];
    let present = found.classes.iter().filter(|class| class.examples > 0).count();
    if present == found.classes.len() {
        return close(ours, expected, 1e-12, what);
    }
    assert_eq!(ours, None, "{what}");
    if found.classes.len() > 2 {
        let sum: f64 = found.classes.iter().filter_map(|class| class.auprc).sum();
        close(Some(sum / found.classes.len() as f64), expected, 1e-12, what);
    }
}

fn compare_classes(found: &Scores, name: &str, expected: &Value, what: &str) {
    for (class, expected) in found.classes.iter().zip(expected.as_array().unwrap()) {
        let found = match name {
            "recall" => class.recall,
            "precision" => class.precision,
            _ => class.f1,
        };
        close(found, expected.as_f64(), 1e-12, what);
    }
}

#[test]
fn values_score_as_in_scipy() {
    for case in cases::<Case>("metrics.json").iter().filter(|case| case.n_classes == 0) {
        let found = Scores::of_values(&Valued::new(&case.x, &case.y).unwrap(), None);
        assert_eq!(case.expected.len(), 2, "{}", case.name);
        for (name, expected) in &case.expected {
            let within = if case.name == "continuous_large_offset" { 1e-9 } else { 1e-12 };
            let found = found.figures[&metric(name).unwrap()];
            close(found, expected.as_f64(), within, &format!("{}: {name}", case.name));
        }
    }
}

#[test]
fn delong_is_that_of_the_definition() {
    let pairs: Vec<Pair> = cases("delong.json");
    assert_eq!(pairs.len(), 5);
    for Pair { name, y_true, score_a, score_b, expected } in pairs {
        let positive: Vec<bool> = y_true.iter().map(|&label| label == 1).collect();
        let found = delong(&positive, &score_a, &score_b).unwrap().unwrap();
        let near = |found: f64, expected: f64, what: &str| {
            close(Some(found), Some(expected), 1e-12, &format!("{name}: {what}"));
        };
        near(found.auroc[0], expected.auc_a, "first area");
        near(found.auroc[1], expected.auc_b, "second area");
        near(found.difference, expected.difference, "difference");
        near(found.variance, expected.variance_of_difference, "variance");
        for (found, expected) in found.covariance.iter().flatten().zip(expected.covariance.iter().flatten()) {
            near(*found, *expected, "covariance");
        }
        close(found.z, expected.z, 1e-9, &name);
        close(found.p, Some(expected.p_two_sided), 1e-9, &name);
    }
}
