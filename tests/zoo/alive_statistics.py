"""Operators that take statistics, rewritten so that they take those of what is alive.

Sums, norms and products with zeros in them need nothing of the kind: zero is neutral there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .writing import Mask, Writer

Rewrite = Callable[[Writer, onnx.NodeProto, Mask], None]
"""Writes the node, given the mask of its first input, whose dead part is zero."""


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _axes(writer: Writer, node: onnx.NodeProto, rank: int) -> tuple[int, ...]:
    """Axes of a reduction: an attribute, or a constant input; all where none is given."""
    given = _attribute(node, "axes", None)
    if given is None and len(node.input) > 1 and node.input[1]:
        given = writer.integers[node.input[1]]
    return tuple(range(rank)) if given is None else tuple(int(axis) % rank for axis in given)


def _mean(writer: Writer, node: onnx.NodeProto, alive: Mask) -> None:
    axes = _axes(writer, node, alive.ndim)
    writer.mean(node.input[0], alive, axes, node.output[0], bool(_attribute(node, "keepdims", 1)))


def _filled(fill: Callable[[Writer], float]) -> Rewrite:
    """The operator itself, on an input that holds a neutral number where it is dead."""

    def rewrite(writer: Writer, node: onnx.NodeProto, alive: Mask) -> None:
        node.input[0] = writer.where(alive, node.input[0], fill(writer), f"{node.output[0]}/filled")
        writer.nodes.append(node)

    return rewrite


def _lowest(writer: Writer) -> float:
    """As good as minus infinity, and the difference of two of them is zero."""
    return float(np.finfo(writer.dtype).min)


def _layer_norm(centred: bool) -> Rewrite:
    def rewrite(writer: Writer, node: onnx.NodeProto, alive: Mask) -> None:
        assert len(node.output) == 1, f"{node.name}: mean and deviation are asked for"
        first = _attribute(node, "axis", -1) % alive.ndim
        out, epsilon = node.output[0], _attribute(node, "epsilon", 1e-5)
        axes = range(first, alive.ndim)
        plain = writer.normalized(node.input[0], alive, axes, epsilon, f"{out}/plain", centred)
        writer.scaled(plain, node.input[1], node.input[2] if len(node.input) > 2 else None, out)

    return rewrite


def _instance_norm(writer: Writer, node: onnx.NodeProto, alive: Mask) -> None:
    out = node.output[0]
    axes = range(2, alive.ndim)
    plain = writer.normalized(node.input[0], alive, axes, _attribute(node, "epsilon", 1e-5), f"{out}/plain")
    column = writer.constant(f"{out}/column", np.array([-1] + [1] * len(axes), np.int64))
    scale, bias = (writer.node("Reshape", [name, column], f"{out}/{name}") for name in node.input[1:3])
    writer.scaled(plain, scale, bias, out)


def _group_norm(writer: Writer, node: onnx.NodeProto, alive: Mask) -> None:
    """The mask may change along channels only."""
    out, groups = node.output[0], _attribute(node, "num_groups", 1)
    assert alive.shape == (1, alive.shape[1]) + (1,) * (alive.ndim - 2), f"{node.name}: {alive.shape}"
    grouped = writer.constant(f"{out}/grouped", np.array([0, groups, alive.shape[1] // groups, -1], np.int64))
    x = writer.node("Reshape", [node.input[0], grouped], f"{out}/x")
    epsilon = _attribute(node, "epsilon", 1e-5)
    plain = writer.normalized(x, alive.reshape(1, groups, -1, 1), (2, 3), epsilon, f"{out}/plain")
    column = writer.constant(f"{out}/column", np.array([1, groups, -1, 1], np.int64))
    scale, bias = (writer.node("Reshape", [name, column], f"{out}/{name}") for name in node.input[1:3])
    scaled = writer.scaled(plain, scale, bias, f"{out}/scaled")
    writer.node("Reshape", [scaled, writer.node("Shape", [node.input[0]], f"{out}/shape")], out)


def _mean_variance_norm(writer: Writer, node: onnx.NodeProto, alive: Mask) -> None:
    axes = tuple(axis % alive.ndim for axis in _attribute(node, "axes", (0, 2, 3)))
    writer.normalized(node.input[0], alive, axes, 1e-9, node.output[0])


STATISTICS: dict[str, Rewrite] = {
    "ReduceMean": _mean,
    "ReduceMax": _filled(_lowest),
    "ReduceMin": _filled(lambda writer: -_lowest(writer)),
    "ReduceProd": _filled(lambda _: 1.0),
    "ReduceLogSumExp": _filled(_lowest),
    "Softmax": _filled(_lowest),
    "LogSoftmax": _filled(_lowest),
    "TopK": _filled(_lowest),
    "LayerNormalization": _layer_norm(centred=True),
    "RMSNormalization": _layer_norm(centred=False),
    "SimplifiedLayerNormalization": _layer_norm(centred=False),
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": _mean_variance_norm,
}
