"""What the golden cases of the scores say is what scikit-learn and SciPy say.

    python -m pytest tests/oracles/test_metrics.py
    python tests/oracles/test_metrics.py    # writes the expected figures of tests/golden/metrics anew

The inputs of the cases are kept as they are; only what is expected of them is computed here. Rust compares itself
with the same files (pipeline/metric/golden.rs). Needs scikit-learn, SciPy and NumPy.
"""

import json
import math
import sys
import warnings
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
scipy_stats = pytest.importorskip("scipy.stats")
metrics = pytest.importorskip("sklearn.metrics")

FOLDER = Path(__file__).parents[1] / "golden" / "metrics"
FILES = ["metrics.json", "delong.json"]
BINS = 15


def defined(call, *args, **options):
    """The figure, or None where the library has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            figure = float(call(*args, **options))
    except ValueError:
        return None
    return figure if math.isfinite(figure) else None


def of_predictions(truth, predicted, classes):
    """Figures that need no scores."""
    every = list(range(classes))
    recall, precision, f1 = per_class(truth, predicted, every)
    return {
        "accuracy": defined(metrics.accuracy_score, truth, predicted),
        "balanced_accuracy": defined(metrics.balanced_accuracy_score, truth, predicted),
        "macro_f1": defined(metrics.f1_score, truth, predicted, average="macro", zero_division=0),
        "macro_f1_all_classes": defined(
            metrics.f1_score, truth, predicted, labels=every, average="macro", zero_division=0
        ),
        "mcc": defined(metrics.matthews_corrcoef, truth, predicted),
        "recall": recall,
        "precision": precision,
        "f1": f1,
    }


def per_class(truth, predicted, every):
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        truth, predicted, labels=every, average=None, zero_division=np.nan
    )
    figures = ([None if math.isnan(x) else float(x) for x in column] for column in (recall, precision, f1))
    return tuple(figures)


def of_two(truth, scores):
    """Figures of the scores of class 1."""
    figures = {
        "auroc": defined(metrics.roc_auc_score, truth, scores) if len(set(truth)) == 2 else None,
        "auprc": defined(metrics.average_precision_score, truth, scores),
    }
    if all(0 <= score <= 1 for score in scores):
        figures["brier"] = float(np.mean((np.array(scores) - np.array(truth)) ** 2))
        rows = np.stack([1 - np.array(scores), np.array(scores)], axis=1)
        figures["ece"] = calibration_error(truth, rows)
    return figures


def of_several(truth, rows):
    """Figures of the probabilities of all classes: each against the rest."""
    rows = np.array(rows)
    one_hot = np.eye(rows.shape[1], dtype=int)[truth]
    complete = one_hot.any(axis=0).all()
    areas = [defined(metrics.average_precision_score, one, row) or 0.0 for one, row in zip(one_hot.T, rows.T)]
    return {
        "auroc_macro_ovr": (
            defined(metrics.roc_auc_score, one_hot, rows, average="macro") if complete else None
        ),
        "auprc_macro_ovr": float(np.mean(areas)),
        "brier_multiclass_sum_over_classes": float(np.mean(np.sum((rows - one_hot) ** 2, axis=1))),
        "ece": calibration_error(truth, rows),
    }


def calibration_error(truth, rows):
    """Over equal-width bins (lower, upper] of the highest probability, |accuracy - mean confidence| by share."""
    confidence, hit = rows.max(axis=1), rows.argmax(axis=1) == np.array(truth)
    edges = np.linspace(0, 1, BINS + 1)
    inside = [(confidence > low) & (confidence <= high) for low, high in zip(edges, edges[1:])]
    assert sum(bin.sum() for bin in inside) == len(truth)
    return float(sum(bin.mean() * abs(hit[bin].mean() - confidence[bin].mean()) for bin in inside if bin.any()))


def of_values(x, y):
    return {
        "spearman": defined(lambda: scipy_stats.spearmanr(x, y).statistic),
        "pearson": defined(lambda: scipy_stats.pearsonr(x, y).statistic),
    }


def expected_of(case):
    if case["kind"] == "continuous":
        return of_values(case["x"], case["y"])
    figures = of_predictions(case["y_true"], case["y_pred"], case["n_classes"])
    if "score" in case:
        figures |= of_two(case["y_true"], case["score"])
    if "prob" in case:
        figures |= of_several(case["y_true"], case["prob"])
    return figures


def delong(case):
    """DeLong, DeLong and Clarke-Pearson (1988) as written: every pair of a positive and a negative example."""
    truth = np.array(case["y_true"]) == 1
    shares = []
    for name in ("score_a", "score_b"):
        scores = np.array(case[name])
        won = scores[truth][:, None] - scores[~truth][None, :]
        shares.append(np.where(won > 0, 1.0, np.where(won == 0, 0.5, 0.0)))
    by_positive = np.cov([share.mean(axis=1) for share in shares])
    by_negative = np.cov([share.mean(axis=0) for share in shares])
    covariance = by_positive / truth.sum() + by_negative / (~truth).sum()
    areas = [float(share.mean()) for share in shares]
    same = case["score_a"] == case["score_b"]
    variance = 0.0 if same else float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    z = None if same else (areas[0] - areas[1]) / math.sqrt(variance)
    return {
        "auc_a": areas[0],
        "auc_b": areas[1],
        "difference": areas[0] - areas[1],
        "variance_of_difference": variance,
        "covariance": covariance.tolist(),
        "z": z,
        "p_two_sided": 1.0 if same else float(2 * scipy_stats.norm.sf(abs(z))),
    }


def read(name):
    return json.loads((FOLDER / name).read_text())


def compute(name, case):
    return delong(case) if name == "delong.json" else expected_of(case)


def assert_close(found, expected, what):
    if isinstance(expected, list):
        assert len(found) == len(expected), what
        for found, expected in zip(found, expected):
            assert_close(found, expected, what)
    elif expected is None or found is None:
        assert found == expected, what
    else:
        assert abs(found - expected) <= 1e-12, f"{what}: {found} is not {expected}"


@pytest.mark.parametrize("name", FILES)
def test_golden_figures_are_those_of_the_libraries(name):
    for case in read(name)["cases"]:
        found = compute(name, case)
        assert found.keys() == case["expected"].keys(), case["name"]
        for figure, expected in case["expected"].items():
            assert_close(found[figure], expected, f"{case['name']}: {figure}")


def test_areas_of_delong_are_those_of_scikit_learn():
    for case in read("delong.json")["cases"]:
        for area, scores in (("auc_a", "score_a"), ("auc_b", "score_b")):
            expected = metrics.roc_auc_score(case["y_true"], case[scores])
            assert_close(case["expected"][area], float(expected), case["name"])


def write(name):
    """The file with its figures computed anew, one case a line."""
    golden = read(name)
    versions = {"scikit-learn": sys.modules["sklearn"], "scipy": sys.modules["scipy"], "numpy": np}
    golden["versions"] = {library: module.__version__ for library, module in versions.items()}
    for case in golden["cases"]:
        case["expected"] = compute(name, case)
    cases = ",\n".join(json.dumps(case) for case in golden.pop("cases"))
    head = json.dumps(golden)[:-1]
    (FOLDER / name).write_text(f'{head}, "cases": [\n{cases}\n]}}\n')


if __name__ == "__main__":
    for name in FILES:
        write(name)
