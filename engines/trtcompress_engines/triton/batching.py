"""Which axis Triton may batch over, and how far."""

from __future__ import annotations

from dataclasses import dataclass, field

from trtcompress_graph.axes import Axes, AxisRange
from trtcompress_graph.errors import CompileError, EngineShapeError
from trtcompress_graph.model import Model

from .batch_axis import batch_axis
from .options import TritonOptions

DEFAULT_MAX_BATCH = 8


@dataclass(frozen=True, slots=True)
class Batching:
    """How Triton batches a model.

    Attributes:
        max_size: 0 where Triton does not batch: then every axis is part of `dims`.
        usual: the batch that is expected most.
        preferred: sizes that the dynamic batcher runs at once.
        greatest: samples that the engine takes at once; 0 where that is not known or Triton does not batch.
        dynamic: whether Triton joins requests; where not, a batch is what one request brings.
    """

    max_size: int
    usual: int = 1
    preferred: tuple[int, ...] = ()
    dynamic: bool = True
    greatest: int = field(default=0, compare=False)


def batching(graph: Model, axes: Axes, options: TritonOptions) -> Batching:
    """Decide from the graph's axes, their ranges and the user's wish.

    Raises:
        EngineShapeError: a batch size is wished that the engine was not built for.
        CompileError: one is wished of a model that Triton cannot batch.
    """
    if options.max_batch_size == 0:
        return Batching(0)
    axis = batch_axis(graph, axes)
    span = _range(axes, axis) if axis is not None else None
    if axis is None or (span is not None and span.min > 1):
        if options.max_batch_size is not None:
            raise CompileError(
                f"batches of up to {options.max_batch_size} are wished, but the model has no batch axis that Triton "
                "can use: one that is dynamic, can be 1, and comes first in every input and output",
                where=str(graph.path),
                hint="export it with such an axis, or leave max_batch_size out",
            )
        return Batching(0)
    greatest = span.max if span is not None else options.max_batch_size or DEFAULT_MAX_BATCH
    wished = greatest if options.max_batch_size is None else options.max_batch_size
    if wished > greatest:
        raise EngineShapeError(
            f"batches of up to {wished} are wished, but the engine was built for at most {greatest}",
            where=f"axis '{axis}'",
            hint=f"--set 'model.inputs.{graph.inputs[0].name}.{axis}=[1, {span.opt if span else 1}, {wished}]'",
        )
    usual = min(span.opt, wished) if span is not None else 1
    return Batching(wished, usual, _preferred(options, usual, wished), greatest=greatest)


def _range(axes: Axes, axis: str) -> AxisRange | None:
    """Range of an axis; one name has one range, wherever it is written."""
    return next((ranges[axis] for ranges in axes.values() if axis in ranges), None)


def _preferred(options: TritonOptions, usual: int, greatest: int) -> tuple[int, ...]:
    if greatest <= 1:
        return ()
    sizes = {usual, greatest} if options.preferred_batch_sizes is None else set(options.preferred_batch_sizes)
    if sizes and max(sizes) > greatest:
        raise CompileError(
            f"{max(sizes)} is preferred, but a batch has at most {greatest} samples",
            where="package: preferred_batch_sizes",
            hint=f"name sizes of up to {greatest}",
        )
    return tuple(sorted(size for size in sizes if size > 1))
