"""What a computed shape comes to, given the shapes of the tensors that it is computed from."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from .factors import Shape

if TYPE_CHECKING:
    import onnx_ir as ir

_ELEMENTS = 1024
"""Shapes and what they are computed from are smaller than this."""


def measures(node: ir.Node) -> bool:
    """Whether a node reads nothing but the lengths of a tensor."""
    return node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx")


def computes(node: ir.Node, known: Callable[[ir.Value], bool]) -> bool:
    """Whether a node of shape arithmetic has only inputs that are stored or known."""
    given = [value for value in node.inputs if value is not None]
    return (
        len(node.outputs) == 1
        and node.domain in ("", "ai.onnx")
        and not any(attribute.type.name in ("GRAPH", "GRAPHS") for attribute in node.attributes.values())
        and bool(given)
        and all(known(value) if value.const_value is None else value.const_value.size < _ELEMENTS for value in given)
    )


def measured_axes(node: ir.Node, rank: int) -> list[int]:
    """Of which axis of its input each element of a Shape is the length."""
    return list(range(rank))[node.attributes.get_int("start", 0) : node.attributes.get_int("end", rank)]


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
        if node is None:
            return None
        if measures(node) and node.inputs[0] is not None:
            shape = self._shape_of(node.inputs[0])
            if node.op_type == "Size":
                return np.array(prod(shape), np.int64)
            return np.array([shape[axis] for axis in measured_axes(node, len(shape))], np.int64)
        if not computes(node, lambda given: self.of(given) is not None):
            return None
        return run(node, {str(given.name): self.of(given) for given in node.inputs if given is not None})


def run(node: ir.Node, feeds: dict[str, Any]) -> Any:
    """What a node of one output computes, by ONNX's reference implementation."""
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
        if measures(node):
            found.update(given for given in node.inputs if given is not None)
        else:
            stack += node.inputs
    return found
