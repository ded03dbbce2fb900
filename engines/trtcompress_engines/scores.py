"""Scores of a model's outputs against labels: the metrics that come with the product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.errors import DataError, UsageError

Floats = NDArray[np.float64]
Values = NDArray[np.generic] | Sequence[NDArray[np.generic]]
Outputs = Mapping[str, Values]
"""Outputs by name, samples in order along the first axis, or a list of arrays where their shapes differ."""

Score = float | Floats
"""One number for all samples, or one for each."""


def only(outputs: Outputs, output: str, metric: str) -> Outputs:
    """The outputs without all but one: the named one, or the first.

    Raises:
        UsageError: there is no such output.
    """
    check_output(output, tuple(outputs), metric)
    name = output or next(iter(outputs))
    return {name: outputs[name]}


def check_output(output: str, outputs: Sequence[str], metric: str) -> None:
    """Refuse an output that a model of these does not have; an empty one is the first.

    Raises:
        UsageError: there is no such output.
    """
    if output and output not in outputs:
        raise UsageError(
            f"the model has no output '{output}'", where=f"metric '{metric}'", hint=f"it has: {', '.join(outputs)}"
        )


def _inputs(outputs: Outputs, labels: Any, metric: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The only output and the labels as arrays.

    Raises:
        DataError: no labels, or arrays of different shapes.
    """
    where = f"metric '{metric}'"
    if labels is None:
        raise DataError(
            "there are no labels", where=where, hint="add an array `labels` to the evaluation data, or drop the metric"
        )
    (given,) = outputs.values()
    try:
        values, truth = np.asarray(given), np.asarray(labels)
    except ValueError as error:
        raise DataError(f"samples of different shapes: {error}", where=where) from error
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim != 1:
        raise DataError(
            f"one label a sample is needed; the labels have shape {truth.shape}",
            where=where,
            hint="give class numbers and not one-hot rows, or your own metric: package.module:function",
        )
    return values, truth


def _classes(outputs: Outputs, labels: Any, metric: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Scores by class (samples x classes) and the true classes.

    Raises:
        DataError: the output is not of that shape, or a label is not one of its classes.
    """
    values, truth = _inputs(outputs, labels, metric)
    where = f"metric '{metric}'"
    if values.ndim != 2 or values.shape[1] < 2:
        raise DataError(
            f"one score for each class is needed; the output has shape {values.shape}",
            where=where,
            hint=f"name another output ({metric.partition(':')[0]}:OUTPUT) or your own package.module:function",
        )
    if truth.dtype.kind not in "iub" and not np.array_equal(truth, np.round(truth)):
        raise DataError(f"labels of type {truth.dtype} are not class numbers", where=where)
    if truth.min() < 0 or truth.max() >= values.shape[1]:
        raise DataError(
            f"labels run from {truth.min()} to {truth.max()}, the output has classes 0 to {values.shape[1] - 1}",
            where=where,
            hint="labels count the classes from 0, in the order of the model's output; "
            f"or name another output: {metric.partition(':')[0]}:OUTPUT",
        )
    return values, truth.astype(np.int64)


def _top(outputs: Outputs, labels: Any, *, metric: str, k: int) -> Floats:
    """1 where the true class is among the k highest scores; ties count against it, and so does NaN."""
    values, truth = _classes(outputs, labels, metric)
    own = np.take_along_axis(values, truth[:, None], axis=1)
    others_ahead = (~(values < own)).sum(axis=1) - 1
    right: Floats = ((others_ahead < k) & ~np.isnan(own[:, 0])).astype(np.float64)
    return right


def _f1(outputs: Outputs, labels: Any, *, metric: str) -> float:
    """Mean F1 over the classes that occur in the labels or in the predictions."""
    values, truth = _classes(outputs, labels, metric)
    predicted, classes = values.argmax(axis=1), values.shape[1]
    right = np.bincount(truth[truth == predicted], minlength=classes)
    total = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float((2 * right[total > 0] / total[total > 0]).mean())


def _spearman(outputs: Outputs, labels: Any, *, metric: str) -> float:
    """Rank correlation of the output with the labels; 0 where either is constant."""
    values, truth = _inputs(outputs, labels, metric)
    if values.size != truth.size:
        raise DataError(
            f"one number a sample is needed; the output has shape {values.shape}", where=f"metric '{metric}'"
        )
    one, other = _ranks(values.ravel()), _ranks(truth)
    if np.ptp(one) == 0 or np.ptp(other) == 0 or not np.isfinite(values.ravel().astype(np.float64)).all():
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: NDArray[Any]) -> Floats:
    """Ranks from 0; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = ((ends - counts) + (ends - 1))[place] / 2.0
    return ranks


BUILT_IN: Mapping[str, tuple[Callable[..., Score], int]] = {
    "top1": (partial(_top, k=1), 0),
    "top5": (partial(_top, k=5), 0),
    "f1": (_f1, 500),
    "spearman": (_spearman, 500),
}
"""A score and, where it is one number for all, how often its interval computes it anew."""
