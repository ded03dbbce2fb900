"""A reference that is no better than chance is doubted, and one that does its job is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trtcompress_engines.metrics import evaluate


def doubt(values: np.ndarray, labels: np.ndarray, metric: str = "top1") -> str:
    return evaluate(metric, {"o": values}, {"o": values}, labels).doubt


def scores(answers: np.ndarray, classes: int = 10) -> np.ndarray:
    return np.eye(classes)[answers] + np.random.default_rng(9).normal(size=(len(answers), classes)) * 0.01


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(32, 300), st.floats(0.6, 1.0), st.integers(3, 12))
def test_a_model_that_does_its_job_is_not_doubted(seed: int, count: int, right: float, classes: int):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    answers = np.where(rng.random(count) < right, labels, (labels + 1) % classes)
    assume((answers == labels).mean() >= 0.6)  # by chance fewer may be: then it does not do its job
    assert doubt(scores(answers, classes), labels) == ""
    assert doubt(scores(answers, classes), labels, "f1") == ""


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(30, 200), st.integers(1, 3))
def test_nor_is_one_whose_positives_are_rare(seed: int, count: int, positives: int):
    rng = np.random.default_rng(seed)
    labels = np.zeros(count, int)
    labels[rng.choice(count, positives, replace=False)] = 1
    assert doubt(scores(labels, 2), labels) == ""
    assert doubt(scores(np.zeros(count, int), 2), labels) == "", "it misses them, and is right nearly always"


@pytest.mark.parametrize("metric", ["top1", "f1"])
@pytest.mark.parametrize("shift", [1, -1, 5])
def test_labels_that_are_shifted(metric: str, shift: int):
    answers = np.random.default_rng(0).integers(0, 10, 200)
    told = doubt(scores(answers), (answers + shift) % 10, metric)
    assert told.startswith(f"{metric} of the reference itself is 0, no better than with the labels in a random order")
    assert told.endswith("labels or preprocessing?")


def test_labels_in_another_order():
    rng = np.random.default_rng(1)
    answers = rng.integers(0, 10, 400)
    assert "no better than with the labels in a random order" in doubt(scores(answers), rng.permutation(answers))
    values = rng.normal(size=400)
    assert "no better than" in doubt(values, rng.permutation(values), "spearman")
    assert "no better than" in doubt(values, -values, "spearman")
    assert doubt(values, values + rng.normal(size=400), "spearman") == ""


def test_one_label_and_one_answer():
    answers = np.random.default_rng(0).integers(0, 10, 100)
    assert "and every label is 0" in doubt(scores(answers), np.zeros(100, int))
    assert "and all its answers are the same" in doubt(scores(np.full(100, 3)), answers)
    assert doubt(scores(np.full(100, 3)), np.full(100, 3)) == ""


def test_few_samples_tell_nothing():
    answers = np.arange(31) % 10
    assert doubt(scores(answers), (answers + 1) % 10) == ""


def test_a_function_of_the_user(tmp_path):
    (tmp_path / "own_scores.py").write_text(
        "import numpy as np\n\n\n"
        "def never(outputs, labels):\n    return np.zeros(len(labels))\n\n\n"
        "def error(outputs, labels):\n    return np.zeros(len(labels))\n\n\n"
        "def whole(outputs, labels):\n    return 0.0\n\n\n"
        "error.higher_is_better = False\n"
    )
    values, labels = np.zeros((40, 2)), np.arange(40)

    def told(name: str) -> str:
        return evaluate(f"own_scores:{name}", {"o": values}, {"o": values}, labels, base=tmp_path).doubt

    assert told("never") == ("own_scores:never of the reference itself is 0 for every sample: labels or preprocessing?")
    assert told("error") == told("whole") == ""
