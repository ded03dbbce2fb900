"""Engines of a target against the reference: outputs, metrics, speed, gates, and which engine is shipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trtcompress_engines.backend import Runner
from trtcompress_engines.gates import GateLimits, judge, verdict
from trtcompress_engines.metrics import Outputs, Values, evaluate, is_built_in
from trtcompress_engines.parity import ParityMeter
from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import CompileError, DataError
from trtcompress_graph.measured import MetricResult, Speed
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from .config import GateSettings, MeasureSettings
from .profiles import batch_range
from .stage import MetricRef, Progress
from .validation import Candidate, Validation, deployed_size

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset
    from trtcompress_calibration.samples import Sample

Array = NDArray[np.generic]
Feed = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How to check.

    Attributes:
        axes: ranges by the names that stand in the model's shapes.
    """

    metrics: tuple[MetricRef, ...]
    gates: GateSettings
    measure: MeasureSettings
    axes: Axes


def check_engines(
    reference: Model,
    engines: Sequence[Engine],
    target: Target,
    dataset: Dataset,
    options: CheckOptions,
    progress: Progress,
) -> Validation:
    """Check every engine of a target on the same samples, in one pass over the data.

    An engine that cannot run here is stood in for by its ONNX graph under ONNX Runtime, computed as it is written
    ("emulated"); its speed is not measured. Outputs are kept only where a metric needs them.

    Raises:
        DataError: samples that do not fit the model, or no labels where a metric needs them.
    """
    with ExitStack() as stack:
        base = stack.enter_context(_reference_runner(reference, options.measure.threads))
        opened = [_open(engine, target, stack, options.measure.threads) for engine in engines]
        metrics, notes = _metrics(options.metrics, dataset, reference)
        seen = _compare(base, [o.runner for o in opened], reference, dataset, options, bool(metrics), progress)
        feeds = timing_feeds(reference, dataset, options)
        candidates = tuple(
            _candidate(o, base, feeds, meter, _evaluate(metrics, seen, outputs), options)
            for o, meter, outputs in zip(opened, seen.meters, seen.outputs, strict=True)
        )
    chosen, why = choose(candidates)
    return Validation(target.name, candidates, chosen, (*notes, *dataset.notes, *why))


@dataclass(frozen=True, slots=True)
class _Opened:
    engine: Engine
    runner: Runner
    emulated: bool


def _reference_runner(model: Model, threads: int) -> Runner:
    from trtcompress_engines.backends.onnxruntime import open_graph

    return open_graph(model.path, threads)


def _open(engine: Engine, target: Target, stack: ExitStack, threads: int) -> _Opened:
    from trtcompress_engines.backend import backend_for
    from trtcompress_engines.backends.onnxruntime import open_graph

    if engine.built:
        try:
            return _Opened(engine, stack.enter_context(backend_for(target).open(engine, threads)), False)
        except CompileError:
            pass  # it needs a device that this machine does not have: its graph stands in for it
    runner = open_graph(engine.graph.path, threads, emulate=True)
    return _Opened(engine, stack.enter_context(runner), True)


def _metrics(
    asked: tuple[MetricRef, ...], dataset: Dataset, model: Model
) -> tuple[tuple[MetricRef, ...], tuple[str, ...]]:
    """The metrics to take: top1 where none is asked for and labels and first output are those of a classifier.

    Raises:
        DataError: a metric needs labels and there are none.
    """
    lacking = next((metric.name for metric in asked if is_built_in(metric.name)), None)
    if lacking and not dataset.labelled:
        raise DataError(
            f"the metric '{lacking}' needs labels, and the data has none",
            where=dataset.source,
            hint="add an array `labels` to the evaluation data, or drop the metric",
        )
    if asked or not dataset.labelled:
        return asked, ()
    label = next(iter(dataset)).label
    classifier = len(model.outputs[0].shape) == 2 and model.outputs[0].shape[1] != 1
    if label is not None and label.ndim == 0 and label.dtype.kind in "iu" and classifier:
        return (MetricRef("top1", Path(), ""),), ("no metric is asked for; the data has labels, so top1 is taken",)
    return (), ("the data has labels, but no metric is asked for: --set metric=...",)


@dataclass(slots=True)
class _Seen:
    """What came out of one pass over the data; outputs by sample, in the order of the data."""

    meters: list[ParityMeter]
    reference: dict[str, dict[int, Array]] = field(default_factory=dict)
    outputs: list[dict[str, dict[int, Array]]] = field(default_factory=list)
    labels: dict[int, Array] = field(default_factory=dict)


def _compare(
    base: Runner,
    runners: Sequence[Runner],
    model: Model,
    dataset: Dataset,
    options: CheckOptions,
    keep: bool,
    progress: Progress,
) -> _Seen:
    from trtcompress_calibration.data import batches

    seen = _Seen([ParityMeter() for _ in runners], outputs=[{} for _ in runners])
    done = 0
    for batch in batches(dataset, model.inputs, _batch_size(model, options)):
        expected = _real(base.infer(batch.inputs), batch.count)
        answers = [_real(runner.infer(batch.inputs), batch.count) for runner in runners]
        for meter, answer in zip(seen.meters, answers, strict=True):
            meter.add(expected, answer)
        if keep:
            _keep(seen.reference, expected, batch.indices)
            for outputs, answer in zip(seen.outputs, answers, strict=True):
                _keep(outputs, answer, batch.indices)
            if batch.labels is not None:
                seen.labels.update(zip(batch.indices, batch.labels, strict=True))
        done += batch.count
        progress(done)
    return seen


def _batch_size(model: Model, options: CheckOptions) -> int:
    """The greatest batch that the engines take, up to 32."""
    rng = batch_range(model.inputs, options.axes)
    return min(rng.max, 32) if rng else 1


def _real(outputs: Mapping[str, Array], count: int) -> dict[str, Array]:
    """Outputs without those of samples that only fill up a fixed batch."""
    return {name: v[:count] if np.ndim(v) and len(v) > count > 0 else np.asarray(v) for name, v in outputs.items()}


def _keep(kept: dict[str, dict[int, Array]], outputs: Mapping[str, Array], indices: Sequence[int]) -> None:
    for name, value in outputs.items():
        rows = value if np.ndim(value) and len(value) == len(indices) else [value] * len(indices)
        kept.setdefault(name, {}).update(zip(indices, (np.asarray(row) for row in rows), strict=True))


def _stacked(rows: Mapping[int, Array]) -> Values:
    """Samples in order, as one array where their shapes are equal."""
    ordered = [rows[index] for index in sorted(rows)]
    return np.stack(ordered) if len({row.shape for row in ordered}) == 1 else ordered


def _evaluate(
    metrics: Iterable[MetricRef], seen: _Seen, outputs: Mapping[str, Mapping[int, Array]]
) -> tuple[MetricResult, ...]:
    if not metrics:
        return ()
    reference: Outputs = {name: _stacked(rows) for name, rows in seen.reference.items()}
    engine: Outputs = {name: _stacked(rows) for name, rows in outputs.items()}
    labels = _stacked(seen.labels) if seen.labels else None
    return tuple(evaluate(m.name, reference, engine, labels, base=m.base) for m in metrics)


def timing_feeds(model: Model, dataset: Dataset, options: CheckOptions) -> dict[int, dict[str, Array]]:
    """One feed a batch size, made of the first samples of equal shape, repeated as far as needed.

    Raises:
        DataError: a batch size that the axes do not allow.
    """
    rng = batch_range(model.inputs, options.axes)
    if rng is None:
        first = next(iter(_batched(dataset, model, 1)))
        return {1: first}
    sizes = sorted(set(options.measure.batches or (rng.min, rng.opt, rng.max)))
    for size in sizes:
        if not rng.min <= size <= rng.max:
            raise DataError(
                f"a batch of {size} is outside the range of the batch axis, {rng.min} to {rng.max}",
                where="measure.batches",
            )
    samples = next(iter(_batched(dataset, model, sizes[-1])))
    return {size: {name: _tiled(value, size) for name, value in samples.items()} for size in sizes}


def _batched(dataset: Iterable[Sample], model: Model, size: int) -> Iterator[dict[str, Array]]:
    from trtcompress_calibration.data import batches

    for batch in batches(dataset, model.inputs, size):
        yield dict(batch.inputs)


def _tiled(value: Array, size: int) -> Array:
    """Samples repeated along the first axis until there are `size`."""
    return np.ascontiguousarray(np.resize(value, (size, *value.shape[1:])))


def _candidate(
    opened: _Opened,
    base: Runner,
    feeds: Mapping[int, Feed],
    meter: ParityMeter,
    metrics: tuple[MetricResult, ...],
    options: CheckOptions,
) -> Candidate:
    speeds = () if opened.emulated else _time(opened.runner, base, feeds, options.measure)
    parity, size = meter.result(), deployed_size(opened.engine)
    gates = judge(
        GateLimits(**options.gates.model_dump()),
        parity=parity,
        metrics=metrics,
        speeds=speeds,
        size_bytes=size if opened.engine.built else None,
        emulated=opened.emulated,
        measured=not opened.emulated,
    )
    return Candidate(
        engine=opened.engine,
        size_bytes=size,
        emulated=opened.emulated,
        parity=parity,
        metrics=metrics,
        speeds=speeds,
        headline=_headline(speeds, options),
        gates=gates,
        verdict=verdict(gates),
    )


def _time(engine: Runner, base: Runner, feeds: Mapping[int, Feed], measure: MeasureSettings) -> tuple[Speed, ...]:
    from trtcompress_engines.measure import time_pair

    return time_pair(engine, base, feeds, seconds=measure.seconds)


def _headline(speeds: Sequence[Speed], options: CheckOptions) -> int:
    """The batch size that is usual: `opt` of the batch axis, where it was timed."""
    usual = {rng.opt for ranges in options.axes.values() for axis, rng in ranges.items() if axis == "batch"}
    return next((index for index, speed in enumerate(speeds) if speed.engine.batch in usual), 0)


def choose(candidates: Sequence[Candidate]) -> tuple[int, tuple[str, ...]]:
    """Index of the engine to ship, and why where it is not the preferred one.

    An INT8 engine that is not faster than the float engine costs accuracy for nothing: the float engine is shipped.
    """
    if len(candidates) < 2:
        return 0, ()
    preferred, exact = candidates[0].speed, candidates[-1].speed
    if preferred is None or exact is None:
        return 0, ()
    if preferred.speedup >= max(1.0, exact.speedup):
        return 0, ()
    why = (
        f"{candidates[0].engine.encoding} runs at {preferred.speedup:.2f} times the speed of the model as it came, "
        f"{candidates[-1].engine.encoding} at {exact.speedup:.2f}: INT8 does not pay here, the float engine is shipped"
    )
    return len(candidates) - 1, (why,)
