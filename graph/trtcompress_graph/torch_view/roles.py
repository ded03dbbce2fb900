"""What each stored tensor of a graph is in its view: a weight that is trained, state, or a constant."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import numpy as np
import onnx_ir as ir

from .registry import find

GREATEST_WEIGHT = 1e4
"""A tensor that holds a greater value is no weight: masks are written so (-inf, -3e38, -65504, -10000)."""


class Role(Enum):
    """How a stored tensor is held."""

    WEIGHT = "trained: a Parameter"
    STATE = "a buffer under its own name: running statistics"
    SCALE = "of a quantization: trained where scales are learned, else a buffer"
    CONSTANT = "whatever is read best: a Python number, a shape, a buffer"


def roles(graph: ir.Graph, trainable: frozenset[str]) -> dict[str, Role]:
    """The role of each stored tensor by name.

    Args:
        graph: of which all constants are initializers.
        trainable: tensors that can be written back.
    """
    inputs = frozenset(graph.inputs)
    return {
        name: _role(value, inputs) if name in trainable else Role.CONSTANT
        for part in (graph, *graph.subgraphs())
        for name, value in part.initializers.items()
    }


def uses(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """The nodes that read a value, and where."""
    for use in value.uses():
        yield use.node, use.idx


def _role(value: ir.Value, inputs: frozenset[ir.Value]) -> Role:
    tensor = value.const_value
    if tensor is None or not tensor.dtype.is_floating_point() or tensor.dtype.bitwidth < 16:
        return Role.CONSTANT
    found = {_use(node, index) for node, index in uses(value)}
    if "buffer" in found:
        return Role.STATE
    if "scale" in found:
        return Role.SCALE
    if "int" in found:
        return Role.CONSTANT
    if "weight" not in found and (tensor.size == 1 or not found):
        return Role.CONSTANT
    if "weight" not in found and (_is_mask(tensor) or all(_normalizes(*use, inputs) for use in uses(value))):
        return Role.CONSTANT
    return Role.WEIGHT if _moderate(tensor) else Role.CONSTANT


def _is_mask(tensor: ir.TensorProtocol) -> bool:
    """Whether it holds 0 and 1 and nothing else, or 0 and one great negative number (Swin's masks hold -100)."""
    low, high = (float(end(tensor.numpy())) for end in (np.min, np.max)) if tensor.size else (0.0, 0.0)
    if (low, high) != (0, 1) and not (low <= -100 and high == 0):
        return False
    return bool(np.isin(tensor.numpy(), (low, high)).all())


def _normalizes(node: ir.Node, index: int, inputs: frozenset[ir.Value]) -> bool:
    """Whether it is subtracted from an input of the graph, or what divides it: the mean and deviation of samples."""
    return node.op_type in ("Sub", "Div") and index == 1 and _of_input(node.inputs[0], inputs)


def _of_input(value: ir.Value | None, inputs: frozenset[ir.Value]) -> bool:
    node = None if value is None else value.producer()
    if node is None:
        return value in inputs
    return node.op_type in ("Cast", "Sub", "Div") and _of_input(node.inputs[0], inputs)


def _use(node: ir.Node, index: int) -> str:
    entry = find(node.domain, node.op_type)
    if entry is None:
        return "other"
    if node.op_type in _SCALED:
        return "other" if index != 1 else "buffer" if _is_bias(node) else "scale"
    kinds = {"buffer": entry.buffers, "int": entry.ints, "weight": entry.weights}
    return next((kind for kind, places in kinds.items() if index in places), "other")


def _is_bias(node: ir.Node) -> bool:
    """Biases in 32 bits: kernels take their scale for the product of those of input and weight, whatever it is."""
    return node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.INT32


_SCALED = ("QuantizeLinear", "DequantizeLinear")


def _moderate(tensor: ir.TensorProtocol) -> bool:
    array = tensor.numpy().astype(np.float32, copy=False)
    return array.size == 0 or bool(np.abs(array).max() < GREATEST_WEIGHT)  # NaN compares false
