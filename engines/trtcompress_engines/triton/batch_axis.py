"""The batch axis of a graph: by its name, or where an exporter lost the name, by running the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.axes import Axes, input_shapes
from trtcompress_graph.model import Model, TensorSpec

if TYPE_CHECKING:
    import onnxruntime as ort

_SIZES = (2, 3)


def batch_axis(graph: Model, axes: Axes) -> str | None:
    """Name of the inputs' dynamic axis that comes first in every input and output and nowhere else, if there is one.

    Triton cuts a batch along the first axis of everything. A similarity matrix of shape `[batch, batch]` cannot be
    cut so, and neither can an answer that has no sample axis.
    """
    axis = _shared_first(graph)
    if axis is None:
        return None
    firsts = [spec.shape[0] if spec.shape else None for spec in graph.outputs]
    if all(first == axis for first in firsts):
        return None if any(axis in spec.shape[1:] for spec in graph.outputs) else axis
    renamed = all(isinstance(first, str) for first in firsts)
    return axis if renamed and _outputs_follow(graph, axes) else None


def _shared_first(graph: Model) -> str | None:
    firsts = {spec.shape[0] if spec.shape else None for spec in graph.inputs}
    axis = next(iter(firsts)) if len(firsts) == 1 else None
    elsewhere = any(axis in spec.shape[1:] for spec in graph.inputs)
    return axis if isinstance(axis, str) and not elsewhere else None


def _outputs_follow(graph: Model, axes: Axes) -> bool:
    """Run two and then three samples of zeros: does the first axis of each output follow, and nothing else?"""
    samples = tuple(TensorSpec(spec.name, spec.dtype, spec.shape[1:]) for spec in graph.inputs)
    try:
        session = _session(graph)
        few, many = (_output_shapes(session, samples, input_shapes(samples, axes, "min"), size) for size in _SIZES)
    except Exception:  # ONNX Runtime's many errors share no base; whatever failed, nothing is proven
        return False
    return all((a[:1], b[:1], a[1:]) == (_SIZES[:1], _SIZES[1:], b[1:]) for a, b in zip(few, many, strict=True))


def _session(graph: Model) -> ort.InferenceSession:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(str(graph.path), options, providers=["CPUExecutionProvider"])


def _output_shapes(
    session: ort.InferenceSession, samples: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], size: int
) -> list[tuple[int, ...]]:
    feed = {spec.name: np.zeros((size, *shapes[spec.name]), spec.dtype) for spec in samples}
    return [np.shape(value) for value in session.run(None, feed)]
