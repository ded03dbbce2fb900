"""Calibration: one pass of the samples through the float model, and what its tensors held as ranges.

Nothing grows with the number of samples, and nothing depends on how they are batched or ordered.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import VERSION, Ranges, TensorRange

from .batching import batches, fixed_batch
from .histogram import Extremes, Histogram, share_beyond
from .methods import find_method, threshold
from .samples import Array, Batch, Sample
from .tapped_session import TappedSession
from .taps import Taps, read_skeleton, taps_of

__all__ = ["Taps", "calibrate", "ranges_of"]

_log = logging.getLogger(__name__)
_WORTH_A_THREAD = 1 << 17
"""With fewer values in a batch than this, handing them to threads costs more than it gains."""


def calibrate(
    model: Model,
    dataset: Iterable[Sample],
    *,
    method: str = "entropy",
    batch_size: int = 8,
    candidates: Taps | None = None,
    progress: Callable[[int], None] | None = None,
    threads: int = 0,
) -> Ranges:
    """Measure the ranges of a model's activations.

    Args:
        model: the float model.
        dataset: samples that fit it.
        method: how thresholds are chosen; see `methods.METHODS`.
        batch_size: samples that go through the model together; it changes the speed, not the result.
        candidates: the tensors to read, if not those of `taps.tapped_tensors`.
        progress: told after each batch how many samples were read.
        threads: for the model and for counting; 0 is one for each core.

    Raises:
        DataError: there are no samples, or the model fails on one, or a tensor becomes NaN or infinite.
        ModelError: ONNX Runtime refuses the model.
        UsageError: there is no such method.
    """
    find_method(method)
    threads = threads or _cores()
    graph = read_skeleton(model)
    taps = candidates or taps_of(graph)
    makers = {name: node for node in graph.graph.node for name in node.output}
    session = TappedSession(model, (*taps.histogram, *taps.extremes), threads)
    known = {*session.tapped, *(spec.name for spec in model.inputs)}
    statistics: dict[str, Extremes] = {name: Histogram() for name in taps.histogram if name in known}
    statistics |= {name: Extremes() for name in taps.extremes if name in known}
    samples = 0
    with ThreadPoolExecutor(threads) as pool:
        for batch in _full_batches(dataset, model, batch_size):
            tensors = {**batch.inputs, **_run(session, batch, model)}
            failed = _update(statistics, {name: tensors[name] for name in statistics}, pool)
            if failed:
                raise _not_finite(failed, makers, batch, model)
            samples += batch.count
            if progress is not None:
                progress(samples)
    return ranges_of(statistics, taps.aliases, model.digest, method, samples)


def ranges_of(
    statistics: Mapping[str, Extremes], aliases: Mapping[str, str], model_sha256: str, method: str, samples: int
) -> Ranges:
    """Thresholds from what was counted."""
    tensors = {name: _range(value, method) for name, value in statistics.items() if value.count}
    tensors |= {name: tensors[source] for name, source in aliases.items() if source in tensors}
    return Ranges(VERSION, model_sha256, method, samples, tensors)


def _range(value: Extremes, method: str) -> TensorRange:
    if not isinstance(value, Histogram):
        return TensorRange(value.min, value.max, None, 0.0)
    kept = threshold(value, method)
    return TensorRange(value.min, value.max, kept, share_beyond(value, kept))


def _full_batches(dataset: Iterable[Sample], model: Model, batch_size: int) -> Iterator[Batch]:
    """All batches but one that had to be filled up with repeated samples, which would count twice.

    Raises:
        DataError: there is none.
    """
    fixed = fixed_batch(model.inputs)
    given = used = 0
    for batch in batches(dataset, model.inputs, batch_size):
        given += batch.count
        if len(next(iter(batch.inputs.values()))) != batch.count and fixed:
            continue
        used += batch.count
        yield batch
    if used == given and given:
        return
    what = f"{given - used} of {given} samples do not fill a batch of {fixed}, the model's fixed size"
    if used:
        _log.warning("%s: they are left out", what)
        return
    raise DataError(
        what if given else "there are no samples",
        where=str(model.path),
        hint=f"give at least {fixed} samples of equal shape" if fixed else "name data that holds at least one sample",
    )


def _run(session: TappedSession, batch: Batch, model: Model) -> Mapping[str, Array]:
    try:
        return session.run(batch.inputs)
    except Exception as error:  # ONNX Runtime's exceptions share no base
        shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in batch.inputs.items())
        raise DataError(
            f"the model fails on these inputs ({shapes}): {str(error).splitlines()[0]}",
            where=f"{model.path}: {_numbers(batch)}",
            hint="run the model on such a sample outside of calibration; check lengths and index values",
        ) from error


def _update(statistics: Mapping[str, Extremes], tensors: Mapping[str, Array], pool: ThreadPoolExecutor) -> list[str]:
    """Count all tensors, the largest first; gives the names of those that are not finite."""

    def one(name: str) -> str | None:
        try:
            statistics[name].update(tensors[name])
        except ValueError:
            return name
        return None

    names = sorted(tensors, key=lambda name: -tensors[name].size)
    small = sum(array.size for array in tensors.values()) < _WORTH_A_THREAD
    return [name for name in (map(one, names) if small else pool.map(one, names)) if name is not None]


def _not_finite(failed: list[str], makers: Mapping[str, object], batch: Batch, model: Model) -> DataError:
    """Blames the first of them in the order of the graph."""
    first = next((name for name in makers if name in failed), failed[0])
    node = makers.get(first)
    maker = f", made by node '{getattr(node, 'name', '')}' ({getattr(node, 'op_type', '')})" if node else ""
    return DataError(
        f"the tensor '{first}'{maker} becomes NaN or infinite",
        where=f"{model.path}: {_numbers(batch)}",
        hint="the float model itself overflows on this data: check its preprocessing (mean, std, scale)",
    )


def _numbers(batch: Batch) -> str:
    return f"{'sample' if batch.count == 1 else 'samples'} {', '.join(map(str, batch.indices))}"


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
