"""The integers of a quantized graph chosen anew from what its layers read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trtcompress_graph.cores import one_blas_thread, usable_cores
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.model import Model
from trtcompress_graph.shapes import Shape, graph_shapes

from ..batching import first_shapes
from ..gram import MOST_FEATURES, Gram, collect_grams, passes
from ..layers import Layer, linear_layers
from ..samples import Sample
from .quantized import Doubles, QuantizedLayer, quantized_layers
from .second_order import damage, round_second_order

if TYPE_CHECKING:
    import onnx_ir as ir

SAMPLES = 128
"""Samples that are read, at the most."""

LIMIT_ROWS = 100_000
"""Rows that a layer sees, about."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """What became of a layer.

    Attributes:
        node: its name.
        nearest: squared error of its outputs by the rounding of its weights to the nearest, over their variance.
        chosen: the same as it is now.
        bias: greatest change of its bias, over the standard deviation of that output.
    """

    node: str
    nearest: float
    chosen: float
    bias: float


def round_weights(
    model: Model,
    quantized: Model,
    encoding: Encoding,
    samples: Iterable[Sample],
    out: Path,
    *,
    second_order: bool = True,
    correct_bias: bool = True,
) -> tuple[Model, tuple[Rounded, ...]]:
    """Choose the integers of weights and biases anew; scales, names and everything else stay.

    Second order (GPTQ, arXiv 2210.17323): weights are rounded so that the outputs of their layer change least. Bias
    correction (arXiv 1906.04721, section 4.2): what rounding the weights adds to the mean of an output is taken off
    its bias; where it is done, the rounding minds the variance alone. (What quantizing the input adds is left: where
    it comes from few outliers, as in transformers, a constant for all harms more than it mends.) What layers read is
    read in the quantized graph. Convolutions of one group, depthwise ones and matrix products with a weight of their
    own are rounded; those with more than `gram.MOST_FEATURES` features stay as they are.

    Args:
        model: the float model that was quantized.
        quantized: the graph that `placement.quantize` made of it.
        encoding: the encoding of the graph.
        samples: iterated once more for each part of the layers whose moments fit into memory.
        out: path of the ONNX file to write.
        second_order: choose the weights anew; else they stay.
        correct_bias: choose the biases anew.

    Raises:
        DataError: there are no samples, or the model fails on one.
    """
    from trtcompress_graph.load import load_ir, save_ir

    from ..opening import open_graph
    from ..precision import needed_opset

    taken = first_shapes(samples, model.inputs)
    opened = open_graph(model, needed_opset(encoding))
    shapes = graph_shapes(opened, model, taken)
    layers = {layer.name: layer for layer in linear_layers(opened.graph, shapes)}
    loaded = load_ir(quantized)
    found = [q for q in quantized_layers(loaded.graph, layers, encoding) if _narrow(q, layers, shapes)]
    known = {**shapes, **{q.layer.x: shapes[layers[q.layer.name].x] for q in found}}
    by_name = {q.layer.name: q for q in found}
    one = partial(_rounded, second_order=second_order, correct_bias=correct_bias)
    report: list[Rounded] = []
    for part in passes([q.layer for q in found], known):
        grams = collect_grams(quantized, part, samples, shapes=known, limit_rows=LIMIT_ROWS, as_written=True)
        stored = [_floats(opened.graph.initializers[layer.weight]) for layer in part]
        with one_blas_thread(), ThreadPoolExecutor(usable_cores()) as pool:
            report += pool.map(one, [by_name[n.name] for n in part], stored, [grams[n.name] for n in part])
    return save_ir(loaded, out), tuple(report)


def _narrow(q: QuantizedLayer, layers: Mapping[str, Layer], shapes: Mapping[str, Shape]) -> bool:
    return q.layer.kind == "depthwise" or q.layer.features(shapes[layers[q.layer.name].x]) <= MOST_FEATURES


def _rounded(
    q: QuantizedLayer,
    stored: npt.NDArray[np.float32],
    gram: Gram,
    *,
    second_order: bool,
    correct_bias: bool,
) -> Rounded:
    """Write the integers of one layer."""
    weight = _rows(q.layer, stored)
    old = _rows(q.layer, _values(q.weight) - q.zero)
    scale = np.broadcast_to(q.scale, weight.shape[0] * weight.shape[1]).reshape(weight.shape[:2])
    corrects = correct_bias and q.bias is not None
    moments = _systems(gram.covariance if corrects else gram.products / gram.count)
    new = old
    if second_order:
        integers = round_second_order(weight, scale, moments, q.limit)
        _store(q.weight, _stored(q.layer, integers + q.zero, _values(q.weight)))
        new = integers.astype(np.float64)
    variance = np.einsum("sof,sof->", weight @ _systems(gram.covariance), weight)
    shift = 0.0
    if corrects:
        lack = (weight - new * scale[..., None]) @ gram.mean.reshape(len(weight), -1, 1)
        shift = _correct(q, lack.reshape(-1)) / _root(variance)
    over = max(float(variance), np.finfo(np.float64).tiny)
    return Rounded(
        q.layer.name,
        float(damage(weight, old, scale, moments).sum()) / over,
        float(damage(weight, new, scale, moments).sum()) / over,
        shift,
    )


def _correct(q: QuantizedLayer, lack: Doubles) -> float:
    """Add to the bias; gives the greatest change."""
    assert q.bias is not None
    values = _values(q.bias)
    if q.bias_scale is None:
        _store(q.bias, (values + lack).astype(values.dtype))
    else:
        limits = np.iinfo(values.dtype)
        moved = values + np.rint(lack / q.bias_scale)
        _store(q.bias, np.clip(moved, limits.min, limits.max).astype(values.dtype))
    return float(np.abs(lack).max(initial=0))


def _rows(layer: Layer, stored: npt.NDArray[np.generic]) -> Doubles:
    """A weight as [systems, outputs, features]; a depthwise layer has a system for each channel."""
    matrix = layer.matrix(stored)
    return matrix.T[:, None, :].copy() if layer.kind == "depthwise" else matrix.T[None].copy()


def _stored(layer: Layer, rows: npt.NDArray[np.int8], like: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    matrix = rows[:, 0, :].T if layer.kind == "depthwise" else rows[0].T
    return layer.stored(matrix, like)


def _systems(moments: Doubles) -> Doubles:
    return moments if moments.ndim == 3 else moments[None]


def _root(variance: float) -> float:
    return math.sqrt(max(variance, np.finfo(np.float64).tiny))


def _values(value: ir.Value) -> npt.NDArray[Any]:
    assert value.const_value is not None
    return value.const_value.numpy()


def _floats(value: ir.Value) -> npt.NDArray[np.float32]:
    return np.asarray(_values(value), np.float32)


def _store(value: ir.Value, array: npt.NDArray[np.generic]) -> None:
    import onnx_ir as ir

    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
