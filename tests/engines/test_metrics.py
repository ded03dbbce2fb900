from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtcompress_engines.metric_names import BUILT_IN_NAMES
from trtcompress_engines.metrics import evaluate
from trtcompress_engines.scores import BUILT_IN
from trtcompress_graph.errors import DataError, UsageError

SCORES = np.array([[0.1, 0.9, 0.0], [0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.4, 0.5, 0.1]], np.float32)
LABELS = np.array([1, 0, 1, 0])


def test_top1_by_hand():
    worse = SCORES.copy()
    worse[0] = [0.9, 0.1, 0.0]
    result = evaluate("top1", {"logits": SCORES}, {"logits": worse}, LABELS)
    assert (result.reference, result.value, result.drop, result.samples) == (0.5, 0.25, 0.25, 4)
    assert result.ci[0] <= 0.25 <= result.ci[1]
    assert result.drop_ci[0] <= 0.25 <= result.drop_ci[1]


def test_top5_and_ties():
    scores = np.zeros((2, 6))
    scores[0] = [6, 5, 4, 3, 2, 1]
    same = {"y": scores}
    assert evaluate("top5", same, same, np.array([4, 0])).value == 0.5  # all six tie: none is among the first five
    assert evaluate("top5", same, same, np.array([5, 0])).value == 0.0


def test_nan_scores_are_wrong():
    broken = {"y": np.full((4, 3), np.nan)}
    assert evaluate("top1", {"y": SCORES}, broken, LABELS).value == 0


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_f1_is_the_mean_of_two_pr_over_p_plus_r(seed: int):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(30, 4)), rng.integers(0, 4, size=30)
    predicted, expected = scores.argmax(axis=1), []
    for label in set(labels) | set(predicted):
        hits = np.sum((predicted == label) & (labels == label))
        expected.append(2 * hits / (np.sum(predicted == label) + np.sum(labels == label)))
    result = evaluate("f1", {"y": scores}, {"y": scores}, labels)
    assert result.value == pytest.approx(np.mean(expected))
    assert result.drop == 0
    assert result.drop_ci == (0, 0)


def test_spearman_by_hand():
    x, y = np.array([106, 86, 100, 101, 99, 103, 97, 113, 112, 110]), np.array([7, 0, 27, 50, 28, 29, 20, 12, 6, 17])
    result = evaluate("spearman", {"s": x[:, None].astype(np.float32)}, {"s": -x[:, None].astype(np.float32)}, y)
    assert result.reference == pytest.approx(-29 / 165)
    assert result.value == pytest.approx(29 / 165)
    assert result.drop == pytest.approx(-58 / 165)
    ties = evaluate("spearman", {"s": np.array([1.0, 1.0, 2.0])}, {"s": np.ones(3)}, np.array([1, 2, 3]))
    assert ties.reference == pytest.approx(np.sqrt(3) / 2)
    assert ties.value == 0


def test_an_output_can_be_named():
    outputs = {"boxes": np.zeros((4, 2, 2)), "logits": SCORES}
    assert evaluate("top1:logits", outputs, outputs, LABELS).value == 0.5
    with pytest.raises(DataError, match=r"metric 'top1': one score for each class.*\(4, 2, 2\)"):
        evaluate("top1", outputs, outputs, LABELS)
    with pytest.raises(UsageError, match="no output 'probs'") as caught:
        evaluate("top1:probs", outputs, outputs, LABELS)
    assert "boxes, logits" in caught.value.hint


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "there are no labels"),
        (np.array([1, 0]), "2 labels for 4 samples"),
        (np.array([1, 0, 3, 0]), "labels run from 0 to 3, the output has classes 0 to 2"),
        (np.array([-1, 0, 1, 0]), "labels run from -1"),
        (np.array([0.5, 0, 1, 0]), "not class numbers"),
        (np.zeros((4, 3)), r"one label a sample is needed; the labels have shape \(4, 3\)"),
    ],
)
def test_labels_that_do_not_fit(labels: np.ndarray | None, message: str):
    with pytest.raises(DataError, match=message):
        evaluate("top1", {"y": SCORES}, {"y": SCORES}, labels)


def test_outputs_that_do_not_fit():
    with pytest.raises(DataError, match=r"\[3, 4\] samples"):
        evaluate("top1", {"y": SCORES}, {"y": SCORES[:3]}, LABELS)
    with pytest.raises(DataError, match="one number a sample"):
        evaluate("spearman", {"y": SCORES}, {"y": SCORES}, LABELS)


def test_an_unknown_metric():
    with pytest.raises(UsageError, match="there is no metric 'top2'") as caught:
        evaluate("top2", {"y": SCORES}, {"y": SCORES}, LABELS)
    assert "top1, top5, f1, spearman" in caught.value.hint


MODULE = """
import numpy as np

def exact(outputs, labels):
    return np.array([float((y.argmax(-1) == t).all()) for y, t in zip(outputs["y"], labels)])

def error(outputs, labels):
    return float(np.mean([np.abs(y.max() - t.max()) for y, t in zip(outputs["y"], labels)]))

error.higher_is_better = False

def unlabelled(outputs, labels):
    assert labels is None
    return np.array([y.mean() for y in outputs["y"]])

def wrong_length(outputs, labels):
    return np.zeros(99)

def breaks(outputs, labels):
    raise ValueError("no such word")

def not_finite(outputs, labels):
    return float("nan")
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "my_metrics_for_tests.py").write_text(MODULE)
    return tmp_path


RAGGED = {"y": [np.eye(3)[[0, 1]], np.eye(3)[[2]], np.eye(3)[[0, 0, 1]]]}
RAGGED_LABELS = [np.array([0, 1]), np.array([1]), np.array([0, 0, 1])]


def test_a_users_function_scores_samples_of_different_lengths(base: Path):
    result = evaluate("my_metrics_for_tests:exact", RAGGED, RAGGED, RAGGED_LABELS, base=base)
    assert result.value == pytest.approx(2 / 3)
    assert result.ci[0] < 2 / 3 < result.ci[1]


def test_a_users_metric_may_be_better_when_lower(base: Path):
    worse = {"y": [2 * y for y in RAGGED["y"]]}
    result = evaluate("my_metrics_for_tests:error", RAGGED, worse, RAGGED_LABELS, base=base)
    assert result.reference == pytest.approx(0.0)
    assert result.value == pytest.approx(1.0)
    assert result.drop == pytest.approx(1.0)
    assert result.drop_ci == pytest.approx((1.0, 1.0))


def test_a_users_metric_may_do_without_labels(base: Path):
    result = evaluate("my_metrics_for_tests:unlabelled", RAGGED, RAGGED, None, base=base)
    assert result.value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong_length", r"gave shape \(99,\)"),
        ("breaks", "ValueError: no such word"),
        ("not_finite", "not finite"),
        ("missing", "has no function 'missing'"),
    ],
)
def test_a_users_function_that_fails_is_named(base: Path, function: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        evaluate(f"my_metrics_for_tests:{function}", RAGGED, RAGGED, RAGGED_LABELS, base=base)
    assert function in str(caught.value)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["top1", "f1"]))
def test_intervals_hold_their_value_and_are_the_same_each_time(seed: int, name: str):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, size=120)
    reference = np.eye(3)[labels] + rng.normal(scale=0.5, size=(120, 3))
    engine = reference + rng.normal(scale=0.2, size=(120, 3))
    result = evaluate(name, {"y": reference}, {"y": engine}, labels)
    assert result == evaluate(name, {"y": reference}, {"y": engine}, labels)
    assert result.ci[0] <= result.value <= result.ci[1]
    assert result.drop_ci[0] - 0.005 <= result.drop <= result.drop_ci[1] + 0.005
    assert result.drop == pytest.approx(result.reference - result.value)


def test_what_both_get_wrong_does_not_widen_the_interval_of_the_drop():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, size=1000), rng.normal(size=(1000, 2))
    result = evaluate("top1", {"y": scores}, {"y": scores * 2}, labels)
    assert result.ci[1] - result.ci[0] > 0.05
    assert result.drop_ci == (0, 0)


def test_the_names_that_need_no_numpy_are_those_of_the_registry() -> None:
    assert tuple(BUILT_IN) == BUILT_IN_NAMES
