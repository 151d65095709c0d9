"""What the golden cases of the logistic regression say is what scikit-learn says.

    python -m pytest tests/oracles/test_logistic.py
    python tests/oracles/test_logistic.py    # writes tests/golden/logistic.json anew

Features are drawn here, brought to a mean of 0 and a deviation of 1, and fitted. Rust compares itself with the same file
(pipeline/evaluate/logistic.rs). Needs scikit-learn and NumPy.
"""

import json
from pathlib import Path

import pytest

np = pytest.importorskip("numpy") if __name__ != "__main__" else __import__("numpy")
pytest.importorskip("sklearn") if __name__ != "__main__" else None

from sklearn.linear_model import LogisticRegression  # noqa: E402

FILE = Path(__file__).parents[1] / "golden" / "logistic.json"
CASES = [
    ("two classes, strongly held", 2, 40, 3, 0.01),
    ("two classes", 2, 40, 3, 1.0),
    ("two classes, more features than examples", 2, 12, 20, 10.0),
    ("two classes, hardly held", 2, 60, 4, 100.0),
    ("three classes", 3, 60, 4, 1.0),
    ("five classes, strongly held", 5, 60, 6, 0.01),
]


def fitted(features, labels, strength):
    features = np.asarray(features)
    scaled = (features - features.mean(0)) / features.std(0)
    model = LogisticRegression(C=strength, tol=1e-12, max_iter=100_000, solver="lbfgs").fit(scaled, labels)
    return model.predict_log_proba(scaled)


def case(number, name, classes, examples, width, strength):
    draws = np.random.default_rng(7000 + number)
    labels = np.arange(examples) % classes
    centers = draws.normal(size=(classes, width))
    features = np.round(centers[labels] + 1.5 * draws.normal(size=(examples, width)) * np.arange(1, width + 1), 3)
    expected = fitted(features, labels, strength)
    return {
        "name": name,
        "classes": classes,
        "strength": strength,
        "features": features.tolist(),
        "labels": labels.tolist(),
        "log_probabilities": np.round(expected, 9).tolist(),
    }


def test_golden_cases():
    for golden in json.loads(FILE.read_text()):
        expected = fitted(golden["features"], golden["labels"], golden["strength"])
        assert np.abs(expected - np.asarray(golden["log_probabilities"])).max() < 1e-6, golden["name"]


if __name__ == "__main__":
    FILE.write_text(json.dumps([case(i, *of) for i, of in enumerate(CASES)]) + "\n")
