"""Samples to batches. Only samples of equal shape share one: padding would change what the model computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec
from trtcompress_graph.shapes import Shape

from .samples import Array, Batch, Sample

BATCH = 8
"""Samples that go through a model together where nobody says."""

_Shapes = tuple[tuple[int, ...], ...]
_Numbered = tuple[int, Sample]


def batches(samples: Iterable[Sample], inputs: Sequence[TensorSpec], size: int) -> Iterator[Batch]:
    """Group samples of equal shape; at most one batch for each shape is open at a time.

    A model whose inputs share no batch axis gets one sample at a time. A model of fixed batch size gets just that:
    its last batch repeats the last sample, and `count` says how many are real.

    Args:
        samples: in the order that `Batch.indices` counts.
        inputs: inputs of the model.
        size: samples in a batch, where the model leaves it open.
    """
    fixed = fixed_batch(inputs)
    size = fixed or (size if has_batch_axis(inputs) else 1)
    opened: dict[_Shapes, list[_Numbered]] = {}
    for numbered in enumerate(samples):
        arrays = numbered[1].inputs
        shapes = tuple(arrays[spec.name].shape for spec in inputs)
        if any(shape[:1] != (1,) for shape in shapes):
            yield _stack([numbered], inputs, 1)  # it brings its own batch, or has none
            continue
        group = opened.setdefault(shapes, [])
        group.append(numbered)
        if len(group) == size:
            yield _stack(opened.pop(shapes), inputs, size)
    for group in opened.values():
        yield _stack(group, inputs, fixed or len(group))


def full_batches(data: Iterable[Sample], inputs: Sequence[TensorSpec], size: int = BATCH) -> Iterator[Batch]:
    """Batches, without one that repeats samples, unless there is no other."""
    filled: Batch | None = None
    given = False
    for batch in batches(data, inputs, size):
        if batch.repeated:
            filled = batch
            continue
        given = True
        yield batch
    if filled is not None and not given:
        yield filled
        given = True
    if not given:
        raise DataError("there are no samples", hint="name data that holds at least one sample")


def first_shapes(data: Iterable[Sample], inputs: Sequence[TensorSpec]) -> dict[str, Shape]:
    """Shapes of the inputs as the model takes them: of one sample, or of as many as its fixed batch holds.

    Raises:
        DataError: there are no samples.
    """
    return {name: array.shape for name, array in next(full_batches(data, inputs, 1)).inputs.items()}


def has_batch_axis(inputs: Sequence[TensorSpec]) -> bool:
    """Whether all inputs lead with the same dynamic axis."""
    leading = {spec.shape[0] if spec.shape else 0 for spec in inputs}
    return len(leading) == 1 and isinstance(next(iter(leading)), str)


def fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """The batch size that all inputs fix, if it is more than one."""
    leading = {spec.shape[0] if spec.shape else 0 for spec in inputs}
    only = next(iter(leading)) if len(leading) == 1 else 0
    return only if isinstance(only, int) and only > 1 else None


def _stack(group: list[_Numbered], inputs: Sequence[TensorSpec], length: int) -> Batch:
    count = len(group)
    filled = group + group[-1:] * (length - count)

    def joined(name: str) -> Array:
        arrays = [sample.inputs[name] for _, sample in filled]
        return np.ascontiguousarray(arrays[0]) if length == 1 else np.concatenate(arrays)

    labels = [sample.label for _, sample in group if sample.label is not None]
    return Batch(
        {spec.name: joined(spec.name) for spec in inputs},
        _stack_labels(labels) if labels else None,
        count,
        tuple(index for index, _ in group),
        length - count,
    )


def _stack_labels(labels: list[Array]) -> Array:
    if len({label.shape for label in labels}) == 1:
        return np.stack(labels)
    stacked: Array = np.empty(len(labels), object)
    stacked[:] = labels
    return stacked
