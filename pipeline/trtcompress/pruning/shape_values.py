"""What a computed shape comes to, given the shapes of the tensors that it is computed from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .factors import Shape

if TYPE_CHECKING:
    import onnx_ir as ir

_ELEMENTS = 1024
"""Shapes and what they are computed from are smaller than this."""


class ShapeValues:
    """Values of the tensors that depend on shapes and stored numbers alone, each computed once.

    Args:
        shape_of: the shape of a tensor.
    """

    def __init__(self, shape_of: Callable[[ir.Value], Shape]) -> None:
        self._shape_of = shape_of
        self._known: dict[ir.Value, Any] = {}

    def of(self, value: ir.Value | None) -> Any:
        """The elements of a tensor; None where they depend on more.

        Runs each node of the arithmetic by ONNX's reference implementation, some 100 microseconds each.
        """
        if value is None:
            return None
        if value not in self._known:
            self._known[value] = self._found(value)
        return self._known[value]

    def _found(self, value: ir.Value) -> Any:
        if value.const_value is not None:
            return value.const_value.numpy() if value.const_value.size < _ELEMENTS else None
        node = value.producer()
        if node is None or len(node.outputs) > 1 or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Shape" and node.inputs[0] is not None:
            shape = self._shape_of(node.inputs[0])
            start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
            return np.array(shape[start:end], np.int64)
        feeds: dict[str, Any] = {}
        for given in node.inputs:
            if given is not None:
                feeds[str(given.name)] = self.of(given)
        return _run(node, feeds) if feeds and all(held is not None for held in feeds.values()) else None


def _run(node: ir.Node, feeds: dict[str, Any]) -> Any:
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    return next(iter(ReferenceEvaluator(ir.serde.serialize_node(node)).run(None, feeds)))


def measured(value: ir.Value | None) -> set[ir.Value]:
    """The tensors whose shapes a tensor is computed from."""
    found: set[ir.Value] = set()
    seen: set[ir.Value] = set()
    stack = [value]
    while stack:
        one = stack.pop()
        if one is None or one in seen:
            continue
        seen.add(one)
        node = one.producer()
        if node is None:
            continue
        if node.op_type in ("Shape", "Size"):
            found.update(given for given in node.inputs if given is not None)
        else:
            stack += node.inputs
    return found
