"""Recurrent operators without initial states that are zero: ONNX takes an absent state to be zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
"""Places of the initial states (hidden, cell) among the inputs."""

_MOVING = frozenset(
    [
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)
"""Operators whose output holds only elements of their first input (Concat: of all)."""


def drop_zero_states(model: ir.Model) -> bool:
    """Leave out initial states that are zero whatever the inputs are; True where something changed.

    PyTorch's exporter makes them from a zero that is expanded to the batch's length and sliced for each layer.
    """
    zero: dict[ir.Value, bool] = {}
    changed = False
    for graph in model.graphs():
        for node in graph:
            places = _STATES.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ()
            for place in places:
                given = node.inputs[place] if place < len(node.inputs) else None
                if given is not None and _is_zero(given, zero):
                    node.replace_input_with(place, None)
                    changed = True
            while places and node.inputs[-1] is None:
                node.resize_inputs(len(node.inputs) - 1)
    return changed


def _is_zero(value: ir.Value, known: dict[ir.Value, bool]) -> bool:
    """Whether every element is zero, as far as constants and data movement tell."""
    if value not in known:
        known[value] = _found_zero(value, known)
    return known[value]


def _found_zero(value: ir.Value, known: dict[ir.Value, bool]) -> bool:
    if value.is_graph_input():
        return False
    if value.const_value is not None:
        return not value.const_value.numpy().any()
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "ConstantOfShape":
        filled = node.attributes.get("value")
        return filled is None or not filled.as_tensor().numpy().any()
    if node.op_type not in _MOVING:
        return False
    moved = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return all(part is not None and _is_zero(part, known) for part in moved)
