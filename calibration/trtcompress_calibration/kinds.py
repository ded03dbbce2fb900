"""What the inputs of an operator are: activations, weight, bias."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from .opening import is_constant
from .operators import NO_FLOATS, WEIGHTED

_ALL_INPUTS = frozenset({"Add", "Mul", "Concat"})


def other_type(node: ir.Node, made: str) -> str:
    """Why a node that works on no float32 is not quantized; empty where it works on that.

    Args:
        node: with the types of its tensors known.
        made: what would be made of float32, for the text.
    """
    types = {v.dtype for v in (*node.inputs, *node.outputs) if v is not None}
    if ir.DataType.FLOAT in types:
        return ""
    held = next((name for kind, name in _OTHER_FLOATS.items() if kind in types), None)
    return NO_FLOATS if held is None else f"it works on {held}, {made} made of float32"


_OTHER_FLOATS = {
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.DOUBLE: "float64",
}


def activation_inputs(node: ir.Node) -> tuple[int, ...]:
    """Positions of the inputs that are activations."""
    if node.op_type in _ALL_INPUTS:
        return tuple(i for i, value in enumerate(node.inputs) if value is not None)
    if node.op_type == "Where":
        return (1, 2)
    if node.op_type == "LSTM":
        return ()
    return (0, 1) if multiplies_activations(node) else (0,)


def multiplies_activations(node: ir.Node) -> bool:
    """True for a MatMul of two activations, as attention has them."""
    return node.op_type == "MatMul" and not is_constant(node.inputs[1])


def is_weighted(node: ir.Node) -> bool:
    """True for what multiplies by weights."""
    return node.op_type in WEIGHTED and not multiplies_activations(node)


def weight_of(node: ir.Node) -> ir.Value | None:
    """The weight, constant or not; None for an operator without."""
    kind = WEIGHTED.get(node.op_type) if is_weighted(node) else None
    return node.inputs[kind.weight] if kind and len(node.inputs) > kind.weight else None


def bias_of(node: ir.Node) -> ir.Value | None:
    """The bias of a weighted operator, or None."""
    kind = WEIGHTED.get(node.op_type)
    if kind is None or kind.bias is None or len(node.inputs) <= kind.bias:
        return None
    return node.inputs[kind.bias]


def channel_axis(node: ir.Node) -> int | None:
    """Axis of the weight that holds the output channels; None where one scale must do."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if integer(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if integer(node, "transB", 0) else 1
    weight = weight_of(node)
    return 1 if weight is not None and weight.shape is not None and len(weight.shape) == 2 else None


def is_depthwise(node: ir.Node) -> bool:
    """True for a convolution that makes one channel out of each."""
    weight = weight_of(node)
    if node.op_type != "Conv" or weight is None or weight.shape is None:
        return False
    return weight.shape[1] == 1 and weight.shape[0] == integer(node, "group", 1)


def averages_places(node: ir.Node) -> bool:
    """True for a ReduceMean over all axes but the first two: a GlobalAveragePool by another name."""
    value = node.inputs[0]
    if node.op_type != "ReduceMean" or value is None or value.shape is None or len(value.shape) < 3:
        return False
    rank = len(value.shape)
    return sorted(axis % rank for axis in reduced_axes(node)) == [*range(2, rank)]


def reduced_axes(node: ir.Node) -> tuple[int, ...]:
    """Axes of a reduction as it names them; none where they are all, or not constant."""
    given = node.attributes.get("axes")
    if given is not None:
        return tuple(given.as_ints())
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is None or not is_constant(axes) or axes.const_value is None:
        return ()
    return tuple(int(axis) for axis in axes.const_value.numpy().reshape(-1))


def runs_as_product(node: ir.Node, least: Sequence[int]) -> bool:
    """True for a convolution that an engine should run as one matrix product.

    Args:
        node: any.
        least: products a result and output channels that it needs; nothing where no convolution is.
    """
    weight = weight_of(node)
    if not least or node.op_type != "Conv" or weight is None or weight.shape is None or integer(node, "group", 1) != 1:
        return False
    channels, *rest = weight.shape.numpy()
    return math.prod(rest) >= least[0] and channels >= least[1]


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def number(node: ir.Node, name: str, default: float) -> float:
    """A float attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def text(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()
