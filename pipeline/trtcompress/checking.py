"""Engines of a target against the reference: outputs, metrics, speed, gates, and which engine is shipped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_engines.backend import Runner, backend_for
from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_engines.gates import GateLimits, judge, verdict
from trtcompress_graph.axes import Axes
from trtcompress_graph.cores import usable_cores
from trtcompress_graph.errors import CompileError, DataError, EngineLoadError
from trtcompress_graph.measured import Speed
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from .choosing import Contender, choose_engine
from .comparing import Array, compare
from .config import GateSettings, MeasureSettings
from .profiles import batch_range
from .remembered import Answers
from .stage import MetricRef, Progress
from .timing import time_engines
from .validation import Candidate, Emulation, Validation, deployed_size

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset
    from trtcompress_calibration.samples import Sample


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How to check.

    Attributes:
        axes: ranges by the names that stand in the model's shapes.
        pruned: the float model that the engines were made of; None where nothing was pruned.
        must_load: whether it is an error that an engine is of another TensorRT or GPU than this machine has; else it
            is emulated, and that is told.
    """

    metrics: tuple[MetricRef, ...]
    gates: GateSettings
    measure: MeasureSettings
    axes: Axes
    pruned: Model | None = None
    must_load: bool = False


def check_engines(
    reference: Model,
    engines: Sequence[Engine],
    target: Target,
    dataset: Dataset,
    options: CheckOptions,
    progress: Progress,
    emulations: Sequence[Emulation] = (),
    idle: Collection[str] = (),
) -> Validation:
    """Check every engine of a target on the same samples, in one pass over the data.

    An engine that cannot run here is stood in for by its ONNX graph under ONNX Runtime, computed as it is written
    ("emulated"); its speed is not measured. An engine for a GPU runs, and is timed, where that GPU is. Outputs are
    kept only where a metric needs them.

    Args:
        reference: the model that the user started from.
        engines: in the order of preference.
        target: what they are for.
        dataset: samples for the reference.
        options: how to check.
        progress: told after each batch.
        emulations: what is known already of engines that cannot run here, by encoding.
        idle: INT8 encodings in which no node could be left in INT8.

    Raises:
        DataError: samples that do not fit the model, or no labels where a metric needs them.
        EngineLoadError: an engine that has to load does not.
    """
    measured = _measure(reference, engines, target, dataset, options, progress)
    known = {emulation.encoding: emulation for emulation in emulations}
    candidates: list[Candidate] = []
    notes: dict[str, None] = {}
    for index, engine in enumerate(engines):
        accuracy, speeds = measured.by_place.get(index, (known.get(engine.encoding), ()))
        if accuracy is None:
            accuracy = emulate_graph(
                *(reference, engine.graph, engine.encoding, dataset, options.metrics, options.axes, progress),
                pruned=options.pruned,
            )
        candidates.append(_candidate(engine, accuracy, speeds, reference, index not in measured.by_place, options))
        notes |= dict.fromkeys((*accuracy.notes, *_unjudged(candidates[-1])))
    chosen, why = choose(candidates, measured.gain, idle)
    return Validation(target.name, tuple(candidates), chosen, measured.gain, (*notes, *measured.notes, *why))


@dataclass(frozen=True, slots=True)
class _Measured:
    """Of the engines that can run here: accuracy and speed by their place, and how the first compares with the last.

    Attributes:
        gain: times that the preferred engine is as fast as the float engine, timed against each other.
        notes: why something was not timed.
    """

    by_place: Mapping[int, tuple[Emulation, tuple[Speed, ...]]]
    gain: float | None
    notes: tuple[str, ...] = ()


def _measure(
    reference: Model,
    engines: Sequence[Engine],
    target: Target,
    dataset: Dataset,
    options: CheckOptions,
    progress: Progress,
) -> _Measured:
    threads, seconds = options.measure.threads, options.measure.seconds
    with ExitStack() as stack:
        opened, strange = dict[int, Runner](), list[str]()
        for index, engine in enumerate(engines):
            try:
                runner = _open(engine, target, stack, threads)
            except EngineLoadError as error:
                if options.must_load:
                    raise
                strange.append(f"{engine.encoding} was not run on the GPU of this machine: {error.what}")
                continue
            if runner is not None:
                opened[index] = runner
        if not opened:
            return _Measured({}, None, tuple(strange))
        base = stack.enter_context(open_graph(reference.path, threads))
        origin = stack.enter_context(open_graph(options.pruned.path, threads)) if options.pruned else None
        found = compare(
            base, list(opened.values()), reference, dataset, options.metrics, options.axes, progress, origin
        )
        feeds = timing_feeds(reference, dataset, options)
        usual = _usual(reference, options, feeds)
        timed = time_engines(list(opened.values()), base, reference, target, options.axes, feeds, usual, seconds)
        by_place = {
            index: (accuracy, speeds) for index, accuracy, speeds in zip(opened, found, timed.speeds, strict=True)
        }
        return _Measured(by_place, timed.gain, (*strange, *timed.notes))


def _usual(reference: Model, options: CheckOptions, batches: Collection[int]) -> int:
    """The batch size that the config calls usual, where it was timed; else the least that was."""
    rng = batch_range(reference.inputs, options.axes)
    return rng.opt if rng and rng.opt in batches else min(batches)


def emulate_graph(
    reference: Model,
    graph: Model,
    encoding: str,
    dataset: Dataset,
    metrics: tuple[MetricRef, ...],
    axes: Axes,
    progress: Progress,
    *,
    pruned: Model | None = None,
    kernels: bool = False,
    answers: Answers | None = None,
) -> Emulation:
    """Accuracy of a graph as it is written, and its difference from the pruned float model that it was made of.

    With `kernels` the INT8 kernels of this CPU compute it instead; `answers` keeps those of reference and pruned model
    from one call to the next.

    Raises:
        DataError: samples that do not fit the model, or no labels where a metric needs them.
    """
    threads = max(1, usable_cores() // 2)  # another encoding is emulated beside this one
    with ExitStack() as stack:
        base: Runner = stack.enter_context(open_graph(reference.path, threads))
        runner = stack.enter_context(open_graph(graph.path, threads, emulate=not kernels))
        origin: Runner | None = stack.enter_context(open_graph(pruned.path, threads)) if pruned else None
        if answers is not None:
            base = answers.of(reference.digest, base)
            origin = answers.of(pruned.digest, origin) if pruned and origin else None
        (found,) = compare(base, [runner], reference, dataset, metrics, axes, progress, origin)
    return replace(found, encoding=encoding)


def _open(engine: Engine, target: Target, stack: ExitStack, threads: int) -> Runner | None:
    """A runner for the engine, or None where it needs a device that this machine does not have.

    Raises:
        EngineLoadError: it is of another TensorRT or another GPU than those of this machine.
    """
    if not engine.built:
        return None
    try:
        return stack.enter_context(backend_for(target).open(engine, threads))
    except EngineLoadError:
        raise
    except CompileError:
        return None


def timing_feeds(model: Model, dataset: Dataset, options: CheckOptions) -> dict[int, dict[str, Array]]:
    """One feed a batch size, made of the first samples of equal shape, repeated as far as needed.

    Of sequences it is the first step of the first sample.

    Raises:
        DataError: a batch size that the axes do not allow.
    """
    if dataset.feedback is not None:
        from trtcompress_calibration.data import batches

        first = next(batches(dataset, dataset.inputs, 1))
        return {first.count + first.repeated: dataset.feedback.first(first.inputs)}
    rng = batch_range(model.inputs, options.axes)
    if rng is None:
        from trtcompress_calibration.batching import fixed_batch

        return {fixed_batch(model.inputs) or 1: next(iter(_batched(dataset, model, 1)))}
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
    engine: Engine,
    accuracy: Emulation,
    speeds: tuple[Speed, ...],
    reference: Model,
    emulated: bool,
    options: CheckOptions,
) -> Candidate:
    size = deployed_size(engine)
    gates = judge(
        GateLimits(**options.gates.model_dump()),
        parity=accuracy.parity,
        metrics=accuracy.metrics,
        speeds=speeds,
        size_bytes=size if engine.built else None,
        emulated=emulated,
        measured=not emulated,
        to_pruned=accuracy.to_pruned,
    )
    usual = batch_range(reference.inputs, options.axes)
    batches = [speed.engine.batch for speed in speeds]
    return Candidate(
        engine=engine,
        size_bytes=size,
        emulated=emulated,
        parity=accuracy.parity,
        metrics=accuracy.metrics,
        speeds=speeds,
        headline=batches.index(usual.opt) if usual and usual.opt in batches else 0,
        gates=gates,
        verdict=verdict(gates),
        to_pruned=accuracy.to_pruned,
    )


def _unjudged(candidate: Candidate) -> Iterator[str]:
    """Doubts of metrics on which no gate stands that would tell them."""
    told = {gate.note for gate in candidate.gates}
    yield from (metric.doubt for metric in candidate.metrics if metric.doubt and metric.doubt not in told)


def choose(
    candidates: Sequence[Candidate], gain: float | None, idle: Collection[str] = ()
) -> tuple[int, tuple[str, ...]]:
    """Index of the engine to ship, and why where it is not the preferred one (see `choose_engine`)."""
    contenders = [
        Contender(one.engine.encoding, one.verdict, one.gates, one.speed.speedup if one.speed else None)
        for one in candidates
    ]
    return choose_engine(contenders, gain, idle)
