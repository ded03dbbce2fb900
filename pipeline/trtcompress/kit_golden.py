"""Golden samples of a kit: the first real samples of the evaluation, with what the reference gives for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_engines.kit.write import GoldenBatch
from trtcompress_graph.axes import Axes
from trtcompress_graph.model import Model

from .datasets import open_data
from .profiles import batch_range
from .stage import DataRef

SAMPLES = 64
BYTES = 64 << 20
"""Of inputs and outputs together, at the most; one batch there is in any case."""


def golden_batches(data: DataRef, reference: Model, pruned: Model | None, axes: Axes) -> list[GoldenBatch]:
    """Samples in batches as small as the engines take; of a model that remembers, single steps.

    Args:
        data: of the evaluation.
        reference: the model as it came.
        pruned: the float model after a cut; None where nothing was pruned.
        axes: ranges by the names that stand in the model's shapes.

    Raises:
        DataError: the samples do not fit the model, or there are none.
    """
    found: list[GoldenBatch] = []
    samples = size = 0
    for batch in _run(data, reference, pruned, axes):
        size += sum(value.nbytes for part in (batch.inputs, batch.outputs, batch.pruned) for value in part.values())
        if found and (samples + batch.count > SAMPLES or size > BYTES):
            break
        found.append(batch)
        samples += batch.count
    return found


def _run(data: DataRef, reference: Model, pruned: Model | None, axes: Axes) -> Iterator[GoldenBatch]:
    from trtcompress_calibration.data import batches

    rng = batch_range(reference.inputs, axes)
    least = rng.min if rng else 1
    dataset = open_data(data, reference, min(SAMPLES, data.samples or SAMPLES))
    index = 0
    with ExitStack() as stack:
        base = stack.enter_context(open_graph(reference.path))
        origin = stack.enter_context(open_graph(pruned.path)) if pruned else None
        for batch in batches(dataset, dataset.inputs, least):
            filled = batch.count + batch.repeated
            if rng and filled < least:  # the last ones are too few for the engines
                continue

            def real(outputs: Mapping[str, Any], count: int = batch.count, filled: int = filled) -> dict[str, Any]:
                arrays = {name: np.asarray(value) for name, value in outputs.items()}
                return {n: v[:count] if v.shape[:1] == (filled,) else v for n, v in arrays.items()}

            yield GoldenBatch(
                inputs=dict(batch.inputs),
                outputs=real(base.infer(batch.inputs)),
                pruned=real(origin.infer(batch.inputs)) if origin else {},
                labels=batch.labels,
                count=batch.count,
                filled=filled,
                index=index,
            )
            index += 1
