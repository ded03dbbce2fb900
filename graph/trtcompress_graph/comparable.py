"""Where two versions of a graph can be compared element by element.

Behind an operator that selects, sorts or counts by value (NonMaxSuppression, TopK, NonZero, ArgMax ...) a small change
swaps elements or changes how many there are, and says nothing about the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

COUNTS = frozenset(["NonZero", "NonMaxSuppression", "Unique", "Compress"])
"""Operators whose results are as long as the values of their inputs make them."""

SELECTS = COUNTS | {"TopK", "ArgMax", "ArgMin", "Multinomial", "Bernoulli"}
"""Operators whose results jump with their inputs' values."""


def behind(graph: ir.Graph, operators: frozenset[str]) -> set[str]:
    """Tensors that depend on the result of one of these operators, in graphs inside nodes too."""
    found: set[str] = set()
    for node in graph:
        given = {str(value.name) for value in node.inputs if value is not None}
        if _uses(node, operators) or not found.isdisjoint(given):
            found.update(str(value.name) for value in node.outputs)
    return found


def _uses(node: ir.Node, operators: frozenset[str]) -> bool:
    import onnx_ir as ir

    inner = (a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH)
    return node.op_type in operators or any(_uses(part, operators) for graph in inner for part in graph)


def comparable(graph: ir.Graph) -> tuple[str, ...]:
    """The outputs that are floats and do not jump; of another output, the last such tensors that it is made of."""
    jumping = behind(graph, SELECTS)
    found: dict[str, None] = {}
    open_ = list(graph.outputs)
    seen: set[ir.Value] = set()
    while open_:
        value = open_.pop(0)
        node = value.producer()
        if value in seen or node is None:
            continue
        seen.add(value)
        if value.dtype is not None and value.dtype.is_floating_point() and value.name not in jumping:
            found[str(value.name)] = None
        elif node.op_type not in ("Shape", "Size"):
            open_ += [given for given in node.inputs if given is not None]
    return tuple(found)
