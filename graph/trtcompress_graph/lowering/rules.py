"""How operators are written by older ones. A rule gives the nodes in a node's place, or None where it knows none.

The last node of a rule gives the outputs of the old one under their names. Decompositions are those of the operators'
definitions in ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .activations import gelu, hard_swish, mish, swish
from .norms import group_norm, layer_norm, rms_norm
from .state import Chain, Lowering, Nodes, Rule, attribute


def _rebuilt(node: onnx.NodeProto, inputs: list[str], drop: tuple[str, ...] = (), **more: Any) -> list[onnx.NodeProto]:
    """The node with other inputs and attributes."""
    made = helper.make_node(node.op_type, inputs, list(node.output), name=node.name, **more)
    made.attribute.extend(one for one in node.attribute if one.name not in (*drop, *more))
    return [made]


def _reduce(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """Before opset 18 the axes are an attribute."""
    if len(node.input) < 2 or not node.input[1]:
        return None
    axes = found.value(node.input[1])
    if axes is None:
        return None
    given = [int(axis) for axis in axes.ravel()]
    if not given:
        if attribute(node, "noop_with_empty_axes", 0):
            return [helper.make_node("Identity", [node.input[0]], list(node.output), name=node.name)]
        return _rebuilt(node, [node.input[0]], ("noop_with_empty_axes",))
    return _rebuilt(node, [node.input[0]], ("noop_with_empty_axes",), axes=given)


def _split(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """`num_outputs` goes: equal parts need no sizes; parts that are not equal need their axis's length."""
    axis = attribute(node, "axis", 0)
    lengths = found.lengths(node.input[0])
    length = lengths[axis] if lengths else None
    count = len(node.output)
    if length is None:
        return None
    if length % count == 0:
        return _rebuilt(node, [node.input[0]], ("num_outputs",))
    part = -(-length // count)
    sizes = [part] * (count - 1) + [length - part * (count - 1)]
    named = found.constant(np.array(sizes, np.int64), f"{node.output[0]}.sizes")
    return _rebuilt(node, [node.input[0], named], ("num_outputs",))


def _pad(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """Before opset 18 every axis is padded."""
    if len(node.input) < 4 or not node.input[3]:
        return None
    axes, pads, rank = found.value(node.input[3]), found.value(node.input[1]), found.ranks.get(node.input[0])
    if axes is None or pads is None or rank is None:
        return None
    whole = np.zeros(2 * rank, np.int64)
    for index, axis in enumerate(int(axis) % rank for axis in axes.ravel()):
        whole[axis], whole[axis + rank] = pads[index], pads[index + axes.size]
    named = found.constant(whole, f"{node.output[0]}.pads")
    return _rebuilt(node, [node.input[0], named, *node.input[2:3]])


def _grid_sample(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """Opset 20 named the modes anew."""
    old = {b"linear": "bilinear", b"cubic": "bicubic"}.get(attribute(node, "mode", b"linear"))
    return _rebuilt(node, list(node.input), mode=old) if old and found.opset >= 16 else None


def _shape(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """Before opset 15 a shape came whole."""
    start, end = attribute(node, "start", 0), attribute(node, "end", None)
    chain = Chain(node)
    limits = [np.array([start], np.int64), np.array([2**31 - 1 if end is None else end], np.int64)]
    named = [found.constant(limit, f"{node.output[0]}.{name}") for limit, name in zip(limits, "ab", strict=True)]
    return chain.last("Slice", chain.add("Shape", node.input[0]), *named)


def _cast_like(node: onnx.NodeProto, found: Lowering) -> Nodes:
    kind = found.types.get(node.input[1], "")[7:-1].upper()
    return Chain(node).last("Cast", node.input[0], to=TensorProto.DataType.Value(kind)) if kind else None


def _reshape(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """Before opset 14 a 0 always meant the length that was there; PyTorch's exporter says otherwise, and has no 0."""
    shape = found.value(node.input[1])
    if not attribute(node, "allowzero", 0) or shape is None or not shape.all():
        return None
    return _rebuilt(node, list(node.input), ("allowzero",))


_REDUCE = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **{f"Reduce{kind}": _reduce for kind in _REDUCE},
        "Split": _split,
        "Reshape": _reshape,
        "Pad": _pad,
        "LayerNormalization": layer_norm,
        "GroupNormalization": group_norm,
        "RMSNormalization": rms_norm,
        "Gelu": gelu,
        "HardSwish": hard_swish,
        "Mish": mish,
        "Swish": swish,
        "GridSample": _grid_sample,
        "Shape": _shape,
        "CastLike": _cast_like,
    }
)
"""An operator of ONNX's own domain -> how older ones write it."""
