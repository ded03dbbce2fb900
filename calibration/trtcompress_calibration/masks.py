"""Infinities that a model is made with, such as the -inf of attention masks, as against those that go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .dependence import read_by
from .operators import WEIGHTED
from .samples import Array

if TYPE_CHECKING:
    import onnx

_PASSES_ON = frozenset(
    [
        "Where",
        "Add",
        "Sub",
        "Mul",
        "Min",
        "Max",
        "Clip",
        "Cast",
        "Expand",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Identity",
        "Slice",
        "Concat",
        "Tile",
        "Pad",
        "Trilu",
    ]
)
"""Kinds that a mask goes through on its way to the Softmax."""


def infinite_by_design(proto: onnx.ModelProto) -> frozenset[str]:
    """Tensors that an infinite constant of the model can reach."""
    read = {name for node in proto.graph.node for name in _carried(node)}
    reached = {t.name for t in proto.graph.initializer if t.name in read and _infinite(t)}
    for node in proto.graph.node:
        made = node.op_type in ("Constant", "ConstantOfShape") and any(_infinite_attribute(a) for a in node.attribute)
        passed = not reached.isdisjoint(_carried(node))
        if made or passed:
            reached.update(node.output)
    return frozenset(reached)


def _carried(node: onnx.NodeProto) -> tuple[str, ...]:
    """What a node reads whose infinities are in its result: that of a mask, and a bias (which bars a class)."""
    kind = WEIGHTED.get(node.op_type)
    if kind is not None and kind.bias is not None:
        return tuple(node.input[kind.bias : kind.bias + 1])
    return tuple(read_by(node)) if node.op_type in _PASSES_ON else ()


def finite(array: Array) -> NDArray[np.float32]:
    """Infinities become the greatest float32, as other exporters write masks; NaN stays."""
    limit = np.finfo(np.float32).max
    return np.clip(np.asarray(array, np.float32), -limit, limit)


def _infinite_attribute(attribute: onnx.AttributeProto) -> bool:
    if attribute.HasField("t"):
        return _infinite(attribute.t)
    return any(np.isinf(value) for value in [attribute.f, *attribute.floats])


def _infinite(tensor: onnx.TensorProto) -> bool:
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
    held = tensor.raw_data or tensor.float_data or tensor.double_data or tensor.int32_data
    if tensor.data_type not in floats or not held:  # of a weight nothing was read
        return False
    return bool(np.isinf(onnx.numpy_helper.to_array(tensor)).any())
