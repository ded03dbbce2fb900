"""Metrics of a task, for the reference and for an engine on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.callables import is_callable_name, load_callable
from trtcompress_graph.errors import DataError, UsageError
from trtcompress_graph.measured import MetricResult

from .baseline import all_zero, doubt
from .intervals import bootstrap_means, bootstrap_statistic, percentile_interval, wilson
from .metric_names import is_built_in
from .scores import BUILT_IN, Floats, Score, only
from .scores import Outputs as Outputs
from .scores import Values as Values

USER_RESAMPLES = 100
COPIED_BYTES = 4 << 30
"""A user's metric that has one number for all is computed on copies of the outputs: at most so many bytes are
copied, but 20 times in any case. A function that gives one number a sample needs no copies."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A way to score outputs.

    Attributes:
        name: as the user wrote it.
        score: of outputs and labels: one number a sample, or one for all.
        higher_is_better: the direction of a drop.
        resamples: for a metric that has one number for all: how often it is computed anew for its interval.
        output: that it reads, empty for the first one; None for all.
    """

    name: str
    score: Callable[[Outputs, Any], Score]
    higher_is_better: bool = True
    resamples: int = 0
    output: str | None = None

    def reads(self, outputs: Outputs) -> Outputs:
        """Of a model's outputs those that it scores.

        Raises:
            UsageError: there is no such output.
        """
        return outputs if self.output is None else only(outputs, self.output, self.name)


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
    reference, engine = metric.reads(reference), metric.reads(engine)
    samples = _count(metric, reference, engine, labels)
    before, after = metric.score(reference, labels), metric.score(engine, labels)
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        ci, drops = _per_sample(before, after)
    else:
        ci, drops = _for_all(metric, reference, engine, labels, samples)
    old, new = float(np.mean(before)), float(np.mean(after))
    sign = 1.0 if metric.higher_is_better else -1.0
    low, high = percentile_interval(sign * drops)
    return MetricResult(
        name=name,
        reference=old,
        value=new,
        ci=ci,
        drop=sign * (old - new),
        drop_ci=(low, high),
        samples=samples,
        doubt=_doubt(metric, reference, labels, before),
    )


def _doubt(metric: Metric, reference: Outputs, labels: Values | None, before: Score) -> str:
    """Why the reference's own score is no ground to measure a drop from. A user's function is called no further."""
    if is_built_in(metric.name):
        return doubt(metric.name, lambda some: metric.score(reference, some), labels, before)
    return all_zero(metric.name, before) if metric.higher_is_better else ""


def find_metric(name: str, base: Path = Path()) -> Metric:
    """The metric of that name.

    Raises:
        UsageError: there is no such metric, or the user's function cannot be imported.
    """
    kind, _, output = name.partition(":")
    if kind in BUILT_IN:
        built_in, resamples = BUILT_IN[kind]
        return Metric(name, partial(built_in, metric=name), resamples=resamples, output=output)
    if is_callable_name(name):
        function = load_callable(name, base)
        higher = bool(getattr(function, "higher_is_better", True))
        return Metric(name, partial(_call_user, function=function, metric=name), higher, resamples=USER_RESAMPLES)
    raise UsageError(
        f"there is no metric '{name}'",
        where="metric",
        hint=f"there are {', '.join(BUILT_IN)}, and your own as package.module:function",
    )


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

    size = sum(value.nbytes for outputs in (reference, engine) for value in _arrays(outputs))
    pairs = bootstrap_statistic(both, samples, max(20, min(metric.resamples, COPIED_BYTES // max(1, size))))
    return percentile_interval(pairs[:, 1]), pairs[:, 0] - pairs[:, 1]


def _arrays(outputs: Outputs) -> Iterator[NDArray[np.generic]]:
    for values in outputs.values():
        yield from [values] if isinstance(values, np.ndarray) else values


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


def _call_user(outputs: Outputs, labels: Any, *, function: Callable[..., Any], metric: str) -> Score:
    """Score by the user's function.

    Raises:
        UsageError: it fails, or does not answer with numbers.
    """
    where = f"metric '{metric}'"
    try:
        answer = np.asarray(function(outputs, labels), dtype=np.float64)
    except Exception as error:
        what = f"the function failed: {type(error).__name__}: {error}"
        hint = f"it gets a dict of arrays by the names of the model's outputs ({', '.join(outputs)}), and the labels"
        raise UsageError(what, where=where, hint=hint) from error
    samples = len(next(iter(outputs.values())))
    if answer.shape not in ((), (samples,)):
        raise UsageError(
            f"the function gave shape {answer.shape}; one number, or one for each of {samples} samples is needed",
            where=where,
        )
    if not np.isfinite(answer).all():
        raise UsageError("the function gave a number that is not finite", where=where)
    return answer if answer.ndim else float(answer)
