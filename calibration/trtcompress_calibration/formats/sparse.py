"""2:4 sparse weights: of four weights in a row, along what is summed over, two are zero, as sparse kernels need it."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtcompress_graph.cores import one_blas_thread, usable_cores
from trtcompress_graph.errors import ConfigError
from trtcompress_graph.load import load_ir, save_ir
from trtcompress_graph.model import Model
from trtcompress_graph.shapes import graph_shapes

from ..batching import first_shapes
from ..gram import MOST_FEATURES, Gram, collect_grams
from ..kinds import integer, weight_of
from ..layers import Layer, linear_layers
from ..opening import is_constant, name_nodes, quantized_nodes
from ..refusals import refuse_quantized
from ..samples import Sample
from .two_of_four import by_magnitude, damage, solved

Doubles = npt.NDArray[np.float64]

SAMPLES = 128
"""Samples that are read, at the most."""

LIMIT_ROWS = 100_000
"""Rows that a layer sees, about."""


@dataclass(frozen=True, slots=True)
class Sparse:
    """What became of a node with weights.

    Attributes:
        node: its name.
        weight: its weight.
        why_not: why it stays dense; empty where two of four are zero.
        magnitude: squared error of its outputs over their variance if the smallest were left out and the rest kept;
            None without samples.
        error: the same as it is now.
    """

    node: str
    weight: str
    why_not: str = ""
    magnitude: float | None = None
    error: float | None = None


def sparsify(
    model: Model,
    out: Path,
    *,
    samples: Iterable[Sample] | None = None,
    skip: Sequence[str] = (),
    progress: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> tuple[Model, tuple[Sparse, ...]]:
    """Set two of every four weights to zero; the graph, its names and the shapes of its weights stay.

    Four are neighbours along the input channels of a convolution (at one place of the window) and along the rows that a
    matrix product sums over. Without samples the two of least magnitude go. With samples the pair whose loss costs the
    outputs least, and the other weights make it good (after SparseGPT, arXiv 2301.00774), from the second moments of
    what the layer reads; a row for which that is worse by this measure keeps the greatest weights.

    Args:
        model: a float model.
        out: ONNX file to write.
        samples: iterated once more for each part of the layers whose moments fit into memory.
        skip: patterns of the names of nodes that stay dense.
        progress: told how many samples were read.

    Raises:
        ConfigError: a pattern of `skip` matches no node.
        DataError: there are no samples, or the model fails on one.
        ModelError: the model is quantized already.
    """
    loaded = load_ir(model)
    refuse_quantized(quantized_nodes(loaded), model)
    name_nodes(loaded.graph)
    reasons = _reasons(loaded.graph, skip)
    fit = {str(node.name): node for node, reason in reasons.items() if not reason}
    layers, grams = _moments(loaded, model, fit, samples, progress) if samples is not None else ({}, {})

    def one(node: ir.Node) -> Sparse:
        name, reason = str(node.name), reasons[node]
        if reason:
            return Sparse(name, _name(node), reason)
        return _solve(node, layers[name], grams[name]) if name in grams else _smallest(node)

    with one_blas_thread(), ThreadPoolExecutor(usable_cores()) as pool:
        report = tuple(pool.map(one, reasons))
    return save_ir(loaded, out), report


def words(layers: Sequence[Sparse]) -> str:
    """What is sparse, in a sentence."""
    made = sum(not layer.why_not for layer in layers)
    return f"2:4 sparse: {made} of {len(layers)} layers"


def summed_axis(node: ir.Node) -> int:
    """Axis of the weight that the node sums over."""
    if node.op_type == "Conv":
        return 1
    return 1 if node.op_type == "Gemm" and integer(node, "transB", 0) else 0


def _reasons(graph: ir.Graph, skip: Sequence[str]) -> dict[ir.Node, str]:
    """Nodes with weights, and why they stay dense; empty where they need not."""
    weighted = [node for node in graph if node.op_type in ("Conv", "Gemm", "MatMul") and is_constant(weight_of(node))]
    names = [str(node.name) for node in weighted]
    for pattern in skip:
        if not fnmatch.filter(names, pattern):
            raise ConfigError(f"no node with weights is called '{pattern}'", where="sparsify.skip")
    skipped = {name for pattern in skip for name in fnmatch.filter(names, pattern)}
    return {node: "skipped" if node.name in skipped else _reason(node) for node in weighted}


def _reason(node: ir.Node) -> str:
    weight = weight_of(node)
    assert weight is not None
    assert weight.const_value is not None
    shape = tuple(weight.const_value.shape.numpy())
    if weight.dtype != ir.DataType.FLOAT or len(shape) < 2 or (node.op_type != "Conv" and len(shape) != 2):
        return "its weight is not a float32 matrix"
    if len(weight.uses()) > 1 or weight.is_graph_output():
        return "its weight is read by others too"
    if node.op_type == "Conv" and integer(node, "group", 1) != 1:
        return "it is a convolution in groups"
    if shape[summed_axis(node)] % 4:
        return f"it sums over {shape[summed_axis(node)]}, which is no multiple of 4"
    return ""


def _moments(
    loaded: ir.Model,
    model: Model,
    fit: Mapping[str, ir.Node],
    samples: Iterable[Sample],
    progress: Callable[[str, int, int | None], None],
) -> tuple[dict[str, Layer], dict[str, Gram]]:
    """Second moments of what the layers read, of those that are not too wide."""
    shapes = graph_shapes(loaded, model, first_shapes(samples, model.inputs))
    layers = {layer.name: layer for layer in linear_layers(loaded.graph, shapes) if layer.name in fit}
    narrow = [layer for layer in layers.values() if layer.features(shapes[layer.x]) <= MOST_FEATURES]
    return layers, collect_grams(model, narrow, samples, shapes=shapes, limit_rows=LIMIT_ROWS, progress=progress)


def _solve(node: ir.Node, layer: Layer, gram: Gram) -> Sparse:
    stored = _stored(node)
    rows = layer.matrix(stored).T
    order = _in_fours(rows.shape[1], layer.window)
    moments = gram.products / gram.count
    weight, read = rows[:, order], moments[np.ix_(order, order)]
    plain, better = by_magnitude(weight), solved(weight, read)
    worse = damage(weight, better, read) >= damage(weight, plain, read)
    chosen = np.where(worse[:, None], plain, better)
    back = np.empty_like(chosen)
    back[:, order] = chosen
    _store(node, layer.stored(back.T, stored))
    variance = max(float(np.einsum("of,of->", rows @ gram.covariance, rows)), np.finfo(np.float64).tiny)
    losses = (float(damage(weight, each, read).sum()) / variance for each in (plain, chosen))
    return Sparse(str(node.name), _name(node), "", *losses)


def _in_fours(features: int, window: int) -> npt.NDArray[np.int64]:
    """Order of features (channels times window) in which four channels at one place of the window are neighbours."""
    places = np.arange(features).reshape(-1, 4, window)
    return places.transpose(0, 2, 1).ravel()


def _smallest(node: ir.Node) -> Sparse:
    stored, axis = _stored(node), summed_axis(node)
    moved = np.moveaxis(stored, axis, -1)
    chosen = by_magnitude(moved.reshape(-1, moved.shape[-1]).astype(np.float64)).reshape(moved.shape)
    _store(node, np.moveaxis(chosen, -1, axis).astype(stored.dtype))
    return Sparse(str(node.name), _name(node))


def _name(node: ir.Node) -> str:
    weight = weight_of(node)
    return "" if weight is None else str(weight.name)


def _stored(node: ir.Node) -> npt.NDArray[np.generic]:
    weight = weight_of(node)
    assert weight is not None
    assert weight.const_value is not None
    return weight.const_value.numpy()


def _store(node: ir.Node, array: npt.NDArray[np.generic]) -> None:
    weight = weight_of(node)
    assert weight is not None
    weight.const_value = ir.tensor(np.ascontiguousarray(array), name=weight.name)
