"""What a computed shape comes to, given the shapes of the tensors that it is computed from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .factors import Shape

if TYPE_CHECKING:
    import onnx_ir as ir

_DEPTH = 40
"""Chains of shape arithmetic are shorter than this."""


def shape_value(value: ir.Value | None, shape_of: Callable[[ir.Value], Shape], depth: int = _DEPTH) -> Any:
    """The elements of a tensor that depends on shapes and stored numbers alone; None for any other.

    Runs each node of the arithmetic by ONNX's reference implementation, some 100 microseconds each.
    """
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    if value is None or not depth:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is None or len(node.outputs) > 1:
        return None
    if node.op_type == "Shape" and node.inputs[0] is not None:
        shape = shape_of(node.inputs[0])
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        return np.array(shape[start:end], np.int64)
    feeds: dict[str, Any] = {}
    for given in node.inputs:
        if given is not None:
            held = shape_value(given, shape_of, depth - 1)
            if held is None:
                return None
            feeds[str(given.name)] = held
    return next(iter(ReferenceEvaluator(ir.serde.serialize_node(node)).run(None, feeds)))
