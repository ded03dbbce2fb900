"""Float masters of integer weights: trained in their place, and rounded to their grid in each pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from .quantized import dequantize
from .state import Grid, State

if TYPE_CHECKING:
    from .builder import Builder


def learned(state: State, given: ir.Value, scale: ir.Value, zero: ir.Value | None) -> bool:
    """Whether integers can have a master: stored, and read by nothing that means something else by them."""
    held = [value for value in (given, scale, zero) if value is not None]
    if any(value.const_value is None or str(value.name) not in state.trainable for value in held):
        return False
    readers = [use.node for use in given.uses()]
    return all(_reads_so(node, scale, zero) for node in readers) and not given.is_graph_output()


def _reads_so(node: ir.Node, scale: ir.Value, zero: ir.Value | None) -> bool:
    held = [*node.inputs[1:], None]
    return node.op_type == "DequantizeLinear" and held[0] is scale and held[1] is zero


def master(builder: Builder, given: ir.Value, scale: ir.Value, zero: ir.Value | None, grid: Grid) -> Any:
    """The float weight of which the rounded value is what the integers stand for."""
    state = builder.state
    name = str(given.name)
    if name not in state.grids:
        stored = [None if value is None else state.stored(value) for value in (given, scale, zero)]
        assert stored[0] is not None
        assert stored[1] is not None
        state.register(name, dequantize(stored[0], stored[1], stored[2], grid.axis, grid.block), trained=True)
        state.grids[name] = grid
    return builder.attribute(state.names.of(name))
