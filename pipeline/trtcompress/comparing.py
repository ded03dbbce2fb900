"""Outputs and metrics of several runners against those of the reference, in one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trtcompress_engines.backend import Runner
from trtcompress_engines.metric_names import is_built_in
from trtcompress_engines.metrics import Outputs, Values, evaluate, find_metric
from trtcompress_engines.parity import ParityMeter
from trtcompress_engines.scores import check_output
from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import DataError
from trtcompress_graph.measured import MetricResult
from trtcompress_graph.model import Model, TensorSpec

from .profiles import batch_range
from .stage import MetricRef, Progress
from .validation import Emulation

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset
    from trtcompress_calibration.samples import Batch

Array = NDArray[np.generic]
Feed = Mapping[str, Array]


@dataclass(slots=True)
class _Seen:
    """What came out of one pass over the data; outputs by sample, in the order of the data."""

    meters: list[ParityMeter]
    to_pruned: list[ParityMeter]
    reference: dict[str, dict[int, Array]] = field(default_factory=dict)
    outputs: list[dict[str, dict[int, Array]]] = field(default_factory=list)
    labels: dict[int, Array] = field(default_factory=dict)


def compare(
    base: Runner,
    runners: Sequence[Runner],
    model: Model,
    dataset: Dataset,
    asked: tuple[MetricRef, ...],
    axes: Axes,
    progress: Progress,
    origin: Runner | None,
) -> list[Emulation]:
    """Outputs and metrics of each runner against the reference. Outputs are kept only where a metric needs them.

    Args:
        base: of the reference.
        runners: those that are judged.
        model: the reference.
        dataset: samples for it.
        asked: metrics; top1 is taken where none is asked for and the labels are classes.
        axes: ranges of dynamic axes, which bound the batch.
        progress: told after each batch.
        origin: of the pruned float model that the others were made of; None where nothing was pruned.

    Raises:
        DataError: no labels where a metric needs them.
        UsageError: a metric reads an output that the model does not have.
    """
    from trtcompress_calibration.data import batches

    metrics, notes = _metrics(asked, dataset, model)
    read = _outputs_read(metrics, model)
    meters, to_pruned = ([ParityMeter() for _ in runners] for _ in range(2))
    seen = _Seen(meters, to_pruned, outputs=[{} for _ in runners])
    done = 0
    for batch in batches(dataset, dataset.inputs, _batch_size(dataset.inputs, axes)):
        expected = _real(_answers(base, dataset, batch), batch)
        answers = [_real(_answers(runner, dataset, batch), batch) for runner in runners]
        _meter(seen.meters, expected, answers)
        if origin:
            _meter(seen.to_pruned, _real(_answers(origin, dataset, batch), batch), answers)
        if metrics:
            for kept, outputs in ((seen.reference, expected), *zip(seen.outputs, answers, strict=True)):
                _keep(kept, {name: outputs[name] for name in read}, batch.indices)
            if batch.labels is not None:
                seen.labels.update(zip(batch.indices, batch.labels, strict=True))
        done += batch.count
        progress(done, dataset.total)
    return [
        Emulation(
            encoding="",
            parity=meter.result(),
            metrics=_evaluate(metrics, seen, outputs),
            notes=(*notes, *dataset.notes),
            to_pruned=apart.result() if origin else None,
        )
        for meter, apart, outputs in zip(seen.meters, seen.to_pruned, seen.outputs, strict=True)
    ]


def _metrics(
    asked: tuple[MetricRef, ...], dataset: Dataset, model: Model
) -> tuple[tuple[MetricRef, ...], tuple[str, ...]]:
    """The metrics to take: top1 where none is asked for and labels and first output are those of a classifier.

    Raises:
        DataError: a metric needs labels and there are none.
        UsageError: a metric reads an output that the model does not have.
    """
    refuse_unlabelled(asked, dataset)
    refuse_unread(asked, model)
    if asked or not dataset.labelled or dataset.feedback is not None:
        return asked, ()
    label = next(iter(dataset)).label
    classifier = len(model.outputs[0].shape) == 2 and model.outputs[0].shape[1] != 1
    if label is not None and label.ndim == 0 and label.dtype.kind in "iu" and classifier:
        return (MetricRef("top1", Path(), ""),), ("no metric is asked for; the data has labels, so top1 is taken",)
    return (), ("the data has labels, but no metric is asked for: --set metric=...",)


def refuse_unlabelled(asked: Iterable[MetricRef], dataset: Dataset) -> None:
    """Built-in metrics need labels; functions of the user's may do without.

    Raises:
        DataError: a metric needs labels and there are none.
    """
    lacking = next((metric.name for metric in asked if is_built_in(metric.name)), None)
    if lacking and not dataset.labelled:
        raise DataError(
            f"the metric '{lacking}' needs labels, and the data has none",
            where=dataset.source,
            hint="add an array `labels` to the data, or drop the metric",
        )


def refuse_unread(asked: Iterable[MetricRef], model: Model) -> None:
    """Built-in metrics read an output by its name, or the first.

    Raises:
        UsageError: the model has no such output.
    """
    names = [output.name for output in model.outputs]
    for metric in asked:
        if is_built_in(metric.name):
            check_output(find_metric(metric.name).output or "", names, metric.name)


def _meter(meters: Iterable[ParityMeter], expected: Feed, answers: Iterable[Feed]) -> None:
    for meter, answer in zip(meters, answers, strict=True):
        meter.add(expected, answer)


def _outputs_read(metrics: Iterable[MetricRef], model: Model) -> list[str]:
    """Outputs that the metrics read; only these are kept, in the order of the model."""
    names = [output.name for output in model.outputs]
    asked = {find_metric(metric.name, metric.base).output for metric in metrics}
    if None in asked:
        return names
    chosen = {name or names[0] for name in asked}
    return [name for name in names if name in chosen] if chosen <= set(names) else names


def _answers(runner: Runner, dataset: Dataset, batch: Batch) -> Feed:
    """Outputs of a batch; of all steps where samples are sequences, each runner with the states that it gave itself."""
    if dataset.feedback is None:
        return runner.infer(batch.inputs)
    return dataset.feedback.run(runner.infer, batch.inputs)


def _batch_size(inputs: Sequence[TensorSpec], axes: Axes) -> int:
    """The greatest batch that the engines take, up to 32."""
    rng = batch_range(inputs, axes)
    return min(rng.max, 32) if rng else 1


def _real(outputs: Mapping[str, Array], batch: Batch) -> dict[str, Array]:
    """Outputs without those of samples that only fill up a fixed batch."""
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    if not batch.repeated:
        return arrays
    filled = batch.count + batch.repeated
    return {name: v[: batch.count] if v.shape[:1] == (filled,) else v for name, v in arrays.items()}


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
