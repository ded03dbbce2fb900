"""Metrics of a task, for the reference and for an engine on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.callables import is_callable_name, load_callable
from trtcompress_graph.errors import DataError, UsageError
from trtcompress_graph.measured import MetricResult

from .intervals import bootstrap_means, bootstrap_statistic, percentile_interval, wilson

Floats = NDArray[np.float64]
Values = NDArray[np.generic] | Sequence[NDArray[np.generic]]
Outputs = Mapping[str, Values]
"""Outputs by name, samples in order along the first axis, or a list of arrays where their shapes differ."""

Score = float | Floats


@dataclass(frozen=True, slots=True)
class Metric:
    """A way to score outputs.

    Attributes:
        name: as the user wrote it.
        score: of outputs and labels: one number a sample, or one for all.
        higher_is_better: the direction of a drop.
        resamples: for a metric that has one number for all: how often it is computed anew for its interval.
    """

    name: str
    score: Callable[[Outputs, Any], Score]
    higher_is_better: bool = True
    resamples: int = 0


def evaluate(
    name: str, reference: Outputs, engine: Outputs, labels: Values | None, *, base: Path = Path()
) -> MetricResult:
    """Score reference and engine.

    The interval of the value is Wilson's where samples score 0 or 1, else from a seeded bootstrap; the interval of
    the drop is from a bootstrap over pairs, so that what both get wrong widens nothing.

    Args:
        name: `top1`, `top5`, `f1`, `spearman`, each with `:output` where it is not the first one, or the user's
            `package.module:function` of outputs by name and labels.
        reference: outputs of the float model.
        engine: outputs of the engine on the same samples.
        labels: of the samples in order; a user's function may do without.
        base: folder from which a user's module is imported.

    Raises:
        UsageError: there is no such metric, or the user's function fails.
        DataError: labels are missing or do not fit the outputs.
    """
    metric = find_metric(name, base)
    samples = _count(metric, reference, engine, labels)
    before, after = metric.score(reference, labels), metric.score(engine, labels)
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        ci, drops = _per_sample(before, after)
        before, after = float(before.mean()), float(after.mean())
    else:
        ci, drops = _for_all(metric, reference, engine, labels, samples)
    sign = 1.0 if metric.higher_is_better else -1.0
    low, high = percentile_interval(sign * drops)
    return MetricResult(
        name=name,
        reference=float(before),
        value=float(after),
        ci=ci,
        drop=sign * (float(before) - float(after)),
        drop_ci=(low, high),
        samples=samples,
    )


def find_metric(name: str, base: Path = Path()) -> Metric:
    """The metric of that name.

    Raises:
        UsageError: there is no such metric, or the user's function cannot be imported.
    """
    kind, _, output = name.partition(":")
    if kind in _BUILT_IN:
        built_in, resamples = _BUILT_IN[kind]
        return Metric(name, partial(built_in, output=output, metric=name), resamples=resamples)
    if is_callable_name(name):
        function = load_callable(name, base)
        higher = bool(getattr(function, "higher_is_better", True))
        return Metric(name, partial(_call_user, function=function, metric=name), higher, resamples=100)
    raise UsageError(
        f"there is no metric '{name}'",
        where="metric",
        hint=f"there are {', '.join(_BUILT_IN)}, and your own as package.module:function",
    )


def is_built_in(name: str) -> bool:
    """True for a metric that is not the user's own function."""
    return name.partition(":")[0] in _BUILT_IN


def take(values: Values, index: NDArray[np.intp]) -> Values:
    """The samples at these places."""
    return values[index] if isinstance(values, np.ndarray) else [values[i] for i in index]


def _per_sample(before: Floats, after: Floats) -> tuple[tuple[float, float], Floats]:
    """Interval of the engine's mean, and resampled drops of the mean."""
    zero_or_one = bool(np.isin(after, (0.0, 1.0)).all())
    ci = wilson(int(after.sum()), after.size) if zero_or_one else percentile_interval(bootstrap_means(after))
    return ci, bootstrap_means(before - after)


def _for_all(
    metric: Metric, reference: Outputs, engine: Outputs, labels: Values | None, samples: int
) -> tuple[tuple[float, float], Floats]:
    """The same for a metric that is one number for all samples: it is computed anew for each resample."""

    def both(index: NDArray[np.intp]) -> tuple[float, float]:
        some = None if labels is None else take(labels, index)
        scores = (
            metric.score({name: take(values, index) for name, values in outputs.items()}, some)
            for outputs in (reference, engine)
        )
        before, after = (float(np.mean(score)) for score in scores)
        return before, after

    pairs = bootstrap_statistic(both, samples, metric.resamples)
    return percentile_interval(pairs[:, 1]), pairs[:, 0] - pairs[:, 1]


def _count(metric: Metric, reference: Outputs, engine: Outputs, labels: Values | None) -> int:
    """Number of samples, the same everywhere."""
    where = f"metric '{metric.name}'"
    counts = {len(values) for outputs in (reference, engine) for values in outputs.values()}
    if len(counts) != 1 or 0 in counts:
        raise DataError(f"the outputs have {sorted(counts)} samples; all need the same number", where=where)
    samples = counts.pop()
    if labels is not None and len(labels) != samples:
        raise DataError(f"there are {len(labels)} labels for {samples} samples", where=where)
    return samples


def _chosen(outputs: Outputs, output: str, metric: str) -> Values:
    name = output or next(iter(outputs))
    if name not in outputs:
        raise UsageError(
            f"the model has no output '{name}'", where=f"metric '{metric}'", hint=f"it has: {', '.join(outputs)}"
        )
    return outputs[name]


def _inputs(outputs: Outputs, labels: Any, output: str, metric: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The output and the labels as arrays.

    Raises:
        DataError: no labels, or arrays of different shapes.
    """
    where = f"metric '{metric}'"
    if labels is None:
        raise DataError(
            "there are no labels", where=where, hint="add an array `labels` to the evaluation data, or drop the metric"
        )
    chosen = _chosen(outputs, output, metric)
    try:
        values, truth = np.asarray(chosen), np.asarray(labels)
    except ValueError as error:
        raise DataError(f"samples of different shapes: {error}", where=where) from error
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim != 1:
        raise DataError(f"one label a sample is needed; the labels have shape {truth.shape}", where=where)
    return values, truth


def _classes(outputs: Outputs, labels: Any, output: str, metric: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Scores by class (samples x classes) and the true classes.

    Raises:
        DataError: the output is not of that shape, or a label is not one of its classes.
    """
    values, truth = _inputs(outputs, labels, output, metric)
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
        )
    return values, truth.astype(np.int64)


def _top(outputs: Outputs, labels: Any, *, output: str, metric: str, k: int) -> Floats:
    """1 where the true class is among the k highest scores; ties count against it, and so does NaN."""
    values, truth = _classes(outputs, labels, output, metric)
    own = np.take_along_axis(values, truth[:, None], axis=1)
    others_ahead = (~(values < own)).sum(axis=1) - 1
    right: Floats = ((others_ahead < k) & ~np.isnan(own[:, 0])).astype(np.float64)
    return right


def _f1(outputs: Outputs, labels: Any, *, output: str, metric: str) -> float:
    """Mean F1 over the classes that occur in the labels or in the predictions."""
    values, truth = _classes(outputs, labels, output, metric)
    predicted, classes = values.argmax(axis=1), values.shape[1]
    right = np.bincount(truth[truth == predicted], minlength=classes)
    total = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float((2 * right[total > 0] / total[total > 0]).mean())


def _spearman(outputs: Outputs, labels: Any, *, output: str, metric: str) -> float:
    """Rank correlation of the output with the labels; 0 where either is constant."""
    values, truth = _inputs(outputs, labels, output, metric)
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


def _call_user(outputs: Outputs, labels: Any, *, function: Callable[..., Any], metric: str) -> Score:
    """Score by the user's function.

    Raises:
        UsageError: it fails, or does not answer with numbers.
    """
    where = f"metric '{metric}'"
    try:
        answer = np.asarray(function(outputs, labels), dtype=np.float64)
    except Exception as error:
        raise UsageError(f"the function failed: {type(error).__name__}: {error}", where=where) from error
    samples = len(next(iter(outputs.values())))
    if answer.shape not in ((), (samples,)):
        raise UsageError(
            f"the function gave shape {answer.shape}; one number, or one for each of {samples} samples is needed",
            where=where,
        )
    if not np.isfinite(answer).all():
        raise UsageError("the function gave a number that is not finite", where=where)
    return answer if answer.ndim else float(answer)


_BUILT_IN: Mapping[str, tuple[Callable[..., Score], int]] = {
    "top1": (partial(_top, k=1), 0),
    "top5": (partial(_top, k=5), 0),
    "f1": (_f1, 500),
    "spearman": (_spearman, 500),
}
