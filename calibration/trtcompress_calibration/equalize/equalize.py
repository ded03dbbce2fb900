"""A float model whose channels are made equally wide, without changing what it computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trtcompress_graph.cores import usable_cores
from trtcompress_graph.errors import DataError, UsageError
from trtcompress_graph.model import Model
from trtcompress_graph.shapes import graph_shapes

from ..batching import first_shapes, full_batches, has_batch_axis
from ..samples import Sample
from ..tapped_session import TappedSession
from .junctions import LEAST_LENGTHS, Junction, Tap, junctions
from .scales import METHODS, Maxima, equalizing_scales

if TYPE_CHECKING:
    import onnx_ir as ir

SAMPLES = 128
"""Samples that the maxima of activations are read from, at the most."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A junction and how far it was moved.

    Attributes:
        tensor: name of the tensor that the first layer makes.
        least: smallest factor that a channel was divided by.
        greatest: greatest one.
    """

    tensor: str
    channels: int
    least: float
    greatest: float


def equalize(model: Model, samples: Iterable[Sample], method: str, out: Path) -> tuple[Model, tuple[Moved, ...]]:
    """Move scales between layers, and write the model that computes the same.

    Names and shapes of all tensors stay; only stored weights change. A `Clip` lets no scale through where a channel
    reaches its cap: such a channel stays as it is. One that stays below it (by the margin `scales.MARGIN`) over the
    samples is scaled so that it still does; a value beyond that margin, on other samples, would be cut elsewhere.

    Args:
        model: a float model.
        samples: iterated twice; the first `SAMPLES` are read.
        method: `cross-layer` (arXiv 1906.04721) or `smooth` (arXiv 2211.10438).
        out: path of the ONNX file to write.

    Raises:
        UsageError: no such method.
        DataError: there are no samples, the model fails on one, or a value is NaN or infinite.
        ModelError: the model is quantized.
    """
    from trtcompress_graph.load import copy_model, save_ir

    if method not in METHODS:
        raise UsageError(f"there is no method '{method}'", hint=f"the methods are: {', '.join(METHODS)}")
    loaded, found = find_junctions(model, samples)
    if not found:
        return copy_model(model, out), ()
    values = {name: v for name, v in loaded.graph.initializers.items() if v.const_value is not None}
    weights = {
        slot.tensor: np.asarray(values[slot.tensor].const_value.numpy(), np.float32)  # type: ignore[union-attr]
        for j in found
        for slot in (*j.weights, *j.biases, *j.multiplied)
    }
    maxima = channel_maxima(model, found, islice(samples, SAMPLES))
    scales, scaled = equalizing_scales(found, weights, maxima, method)
    for name, array in scaled.items():
        _store(loaded.graph.initializers[name], array)
    moved = tuple(Moved(n, len(s), float(s.min()), float(s.max())) for n, s in scales.items() if (s != 1).any())
    return save_ir(loaded, out), moved


def find_junctions(model: Model, samples: Iterable[Sample]) -> tuple[ir.Model, tuple[Junction, ...]]:
    """The opened graph and the places where a scale can move.

    Raises:
        DataError: there are no samples.
    """
    from ..opening import open_graph

    longer = has_batch_axis(model.inputs)
    shapes = {
        name: (LEAST_LENGTHS, *shape[1:]) if longer and shape[:1] == (1,) else shape
        for name, shape in first_shapes(samples, model.inputs).items()
    }
    loaded = open_graph(model, 1)
    return loaded, junctions(loaded.graph, graph_shapes(loaded, model, shapes))


def channel_maxima(model: Model, found: Iterable[Junction], samples: Iterable[Sample]) -> Maxima:
    """Greatest absolute value of each channel of the tapped tensors, by their names; one pass.

    Raises:
        DataError: the model fails on a sample, or a value is NaN or infinite.
    """
    taps = {tap.tensor: (tap, junction.channels) for junction in found for tap in junction.taps}
    session = TappedSession(model, taps, usable_cores(), reuse=False)
    maxima = {name: np.zeros(channels) for name, (_, channels) in taps.items()}
    for batch in full_batches(samples, model.inputs):
        try:
            given: Mapping[str, npt.NDArray[np.generic]] = {**batch.inputs, **session.run(batch.inputs)}
        except Exception as error:  # ONNX Runtime's exception classes share no base
            raise DataError(f"the model fails on it: {error}", where=f"sample {batch.indices[0]}") from error
        for name, (tap, _) in taps.items():
            _widen(maxima[name], np.asarray(given[name]), tap)
    for name, widest in maxima.items():
        if not np.isfinite(widest).all():
            raise DataError(
                f"tensor '{name}' is NaN or infinite on some sample",
                where="samples",
                hint="look at the samples' values and their preprocessing",
            )
    return maxima


def _widen(widest: npt.NDArray[np.float64], values: npt.NDArray[np.generic], tap: Tap) -> None:
    axes = tuple(axis for axis, length in enumerate(tap.labels.shape) if length == 1)
    each = np.abs(values).max(axis=axes, initial=0, keepdims=True)
    np.maximum.at(widest, tap.labels.reshape(-1), each.reshape(-1).astype(np.float64))


def _store(value: ir.Value, array: npt.NDArray[np.float32]) -> None:
    import onnx_ir as ir

    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
