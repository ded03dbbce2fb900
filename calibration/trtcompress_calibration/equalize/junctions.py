"""Where a scale can move: out of the layer that makes a tensor, into the layers that read it.

From the output of a layer on, labels tell which channel each element belongs to. They follow operators that let a
positive factor through (Relu, pooling, movement, a product with something else ...) until every path ends in a layer
that can take the factor up. Where one does not, nothing can be moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtcompress_graph.shapes import Shape

from ..kinds import integer
from ..opening import is_constant

Labels = npt.NDArray[np.int64]

LEAST_LENGTHS = 2
"""Shorter axes do not tell where elements go."""

_POSITIVE = frozenset(("Relu", "LeakyRelu", "Identity", "Dropout"))
_POOLS = frozenset(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))
_MOVES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))
_PRODUCTS = frozenset(("Mul", "Div"))


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Part of a stored tensor that a factor per channel goes into: index `i` of `axis` is of channel `labels[i]`."""

    tensor: str
    axis: int
    labels: Labels


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """A tensor between the layers.

    Attributes:
        labels: channel of each element; axes along which it does not change have length 1.
        cap: what a Clip cuts it at; infinite where none does.
    """

    tensor: str
    labels: Labels
    cap: float = math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Junction:
    """One scale per channel that can move: `divided` by it before, `multiplied` with it behind.

    Attributes:
        name: the tensor that the first layer makes.
        norm: the first layer is a LayerNormalization, whose weights are not quantized.
        weights: those of `divided` that are weights and not biases.
        taps: tensors between, whose values are divided too.
    """

    name: str
    channels: int
    norm: bool
    weights: tuple[Slot, ...]
    biases: tuple[Slot, ...]
    multiplied: tuple[Slot, ...]
    taps: tuple[Tap, ...]


@dataclass(slots=True)
class _Walk:
    graph: ir.Graph
    shapes: Mapping[str, Shape]
    biases: list[Slot] = field(default_factory=list)
    multiplied: list[Slot] = field(default_factory=list)
    taps: dict[str, Tap] = field(default_factory=dict)
    seen: dict[ir.Value, Labels] = field(default_factory=dict)

    def follow(self, value: ir.Value, labels: Labels) -> bool:
        """Whether every path from `value` ends in a layer that can take a factor up."""
        if value in self.seen:
            return np.array_equal(self.seen[value], labels)
        self.seen[value] = labels
        if value.is_graph_output() or not value.uses():
            return False
        return all(self._pass(use.node, use.idx, value, labels) for use in value.uses())

    def _pass(self, node: ir.Node, index: int, value: ir.Value, labels: Labels) -> bool:
        if node.domain not in ("", "ai.onnx") or node.graph is not self.graph:
            return False
        if index == 0 and (slot := _taken_up(node, labels)) is not None:
            self.multiplied.append(slot)
            self.taps.setdefault(str(value.name), Tap(str(value.name), labels))
            return True
        rule = _RULES.get(node.op_type)
        after = rule(self, node, index, labels) if rule is not None else None
        return after is not None and self.follow(node.outputs[0], after)


_Rule = Callable[[_Walk, ir.Node, int, Labels], Labels | None]
"""Labels behind a node, None where it lets no factor through."""


def junctions(graph: ir.Graph, shapes: Mapping[str, Shape]) -> tuple[Junction, ...]:
    """All places of the main graph where a scale can move, in order.

    Args:
        graph: opened for editing (`opening.open_graph`).
        shapes: of all tensors, at a sample whose batch is longer than 1.
    """
    found = []
    for node in graph:
        made = _made(node)
        if made is None:
            continue
        weight, bias, axis, channel_axis = made
        shape = shapes.get(str(node.outputs[0].name), ())
        if not shape or not _own(weight) or (bias is not None and not _own(bias)):
            continue
        labels = _along(np.arange(shape[channel_axis]), channel_axis, len(shape))
        walk = _Walk(graph, shapes)
        if not walk.follow(node.outputs[0], labels):
            continue
        each = np.arange(shape[channel_axis])
        biases = [*([] if bias is None else [Slot(str(bias.name), 0, each)]), *walk.biases]
        found.append(
            Junction(
                str(node.outputs[0].name),
                len(each),
                node.op_type == "LayerNormalization",
                (Slot(str(weight.name), axis, each),),
                tuple(biases),
                tuple(walk.multiplied),
                tuple(walk.taps.values()),
            )
        )
    return tuple(found)


def _made(node: ir.Node) -> tuple[ir.Value, ir.Value | None, int, int] | None:
    """Weight, bias, axis of the weight and axis of the output that hold the channels; None for no such layer."""
    if node.op_type not in ("Conv", "Gemm", "MatMul", "LayerNormalization") or len(node.inputs) < 2:
        return None
    weight = node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if not is_constant(weight) or weight is None or weight.shape is None:
        return None
    rank = len(weight.shape)
    if node.op_type == "Conv":
        return weight, bias, 0, 1
    if node.op_type == "Gemm":
        usual = all(name not in node.attributes or node.attributes[name].as_float() == 1 for name in ("alpha", "beta"))
        vector = bias is None or (bias.shape is not None and len(bias.shape) == 1)
        return (weight, bias, 0 if integer(node, "transB", 0) else 1, -1) if usual and vector else None
    if node.op_type == "MatMul":
        return (weight, None, 1, -1) if rank == 2 else None
    return (weight, bias, 0, -1) if rank == 1 and len(node.outputs) == 1 else None


def _taken_up(node: ir.Node, labels: Labels) -> Slot | None:
    """Where a layer that reads the channels takes their factors up."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or weight.shape is None or not is_constant(weight) or not _own(weight):
        return None
    rank = len(weight.shape)
    if node.op_type == "Conv" and _only_along(labels, 1):
        groups = integer(node, "group", 1)
        if groups == 1:
            return Slot(str(weight.name), 1, labels.reshape(-1))
        if groups == weight.shape[0] == labels.size:
            return Slot(str(weight.name), 0, labels.reshape(-1))
    if node.op_type in ("MatMul", "Gemm") and rank == 2 and _only_along(labels, labels.ndim - 1):
        if integer(node, "transA", 0):
            return None
        return Slot(str(weight.name), 1 if integer(node, "transB", 0) else 0, labels.reshape(-1))
    return None


def _own(value: ir.Value) -> bool:
    """Whether it is a stored float32 tensor that nobody else reads."""
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return is_constant(value) and value.dtype == ir.DataType.FLOAT and alone


def _same(walk: _Walk, node: ir.Node, index: int, labels: Labels) -> Labels | None:
    return labels if index == 0 else None


def _pool(walk: _Walk, node: ir.Node, index: int, labels: Labels) -> Labels | None:
    return labels if len(node.outputs) == 1 and _only_along(labels, 1) else None


def _clip(walk: _Walk, node: ir.Node, index: int, labels: Labels) -> Labels | None:
    """A Clip at zero and at a cap: exact where the cap is not reached, before and after."""
    bounds = [value for value in node.inputs[1:3] if value is not None]
    if index or len(bounds) != 2 or not all(is_constant(value) for value in bounds):
        return None
    low, cap = (float(value.const_value.numpy()) for value in bounds if value.const_value is not None)
    if low != 0 or cap <= 0:
        return None
    name = str(node.outputs[0].name)
    walk.taps[name] = Tap(name, labels, cap)
    return labels


def _prelu(walk: _Walk, node: ir.Node, index: int, labels: Labels) -> Labels | None:
    return labels if index == 0 and is_constant(node.inputs[1]) else None


def _add(walk: _Walk, node: ir.Node, index: int, labels: Labels) -> Labels | None:
    """The bias of a matrix product."""
    bias = node.inputs[1 - index]
    if bias is None or not _own(bias) or bias.shape is None or not _only_along(labels, labels.ndim - 1):
        return None
    if tuple(bias.shape) != (labels.size,):
        return None
    walk.biases.append(Slot(str(bias.name), 0, labels.reshape(-1)))
    return labels


def _product(walk: _Walk, node: ir.Node, index: int, labels: Labels) -> Labels | None:
    """Times something else, which broadcasts to it."""
    if node.op_type == "Div" and index:
        return None
    if node.inputs[0] is node.inputs[1] or node.inputs[1 - index] in walk.seen:
        return None
    before, after = (walk.shapes.get(str(v.name)) for v in (node.inputs[index], node.outputs[0]) if v is not None)
    return labels if before == after and before else None


def _move(walk: _Walk, node: ir.Node, index: int, labels: Labels) -> Labels | None:
    if index:
        return None
    before, after = (walk.shapes.get(str(v.name)) for v in (node.inputs[0], node.outputs[0]) if v is not None)
    if not before or not after or len(before) != labels.ndim:
        return None
    return _varying(np.broadcast_to(labels, before).reshape(after))


def _transpose(walk: _Walk, node: ir.Node, index: int, labels: Labels) -> Labels | None:
    order = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
    return labels.transpose(order)


def _matmul(walk: _Walk, node: ir.Node, index: int, labels: Labels) -> Labels | None:
    """The values of an attention: rows are mixed, channels are not."""
    other = node.inputs[1 - index]
    if index != 1 or other is None or other in walk.seen or labels.ndim < 2 or labels.shape[-2] != 1:
        return None
    before, after = (walk.shapes.get(str(v.name), ()) for v in (node.inputs[1], node.outputs[0]) if v is not None)
    return labels if len(before) == len(after) and before[:-2] == after[:-2] else None


_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(_POSITIVE, _same),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_MOVES, _move),
    **dict.fromkeys(_PRODUCTS, _product),
    "Clip": _clip,
    "PRelu": _prelu,
    "Add": _add,
    "Transpose": _transpose,
    "MatMul": _matmul,
}


def _along(labels: Labels, axis: int, rank: int) -> Labels:
    shape = [1] * rank
    shape[axis] = -1
    return labels.reshape(shape)


def _only_along(labels: Labels, axis: int) -> bool:
    return labels.ndim > axis and labels.size == labels.shape[axis]


def _varying(labels: Labels) -> Labels:
    """The labels with length 1 along the axes that they do not change along."""
    for axis in range(labels.ndim):
        first = labels.take([0], axis)
        if (labels == first).all():
            labels = first
    return np.ascontiguousarray(labels)
