"""LSTM, GRU and RNN: the hidden units of each direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..coupler import Coupler
from ..factors import Factor, Ints
from .registry import rule

if TYPE_CHECKING:
    import onnx_ir as ir

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@rule("GRU LSTM RNN")
def recurrent(coupler: Coupler, node: ir.Node) -> None:
    """X [T, B, I], W [D, gates H, I], R [D, gates H, H], B [D, 2 gates H], states [D, B, H], P [D, 3 H].

    Both directions keep the same number of units, each its own.
    """
    x, w, r = node.inputs[0], node.inputs[1], node.inputs[2]
    assert x is not None
    assert w is not None
    told = f"{node.op_type} '{node.name}'"
    directions, _, hidden = coupler.shape(r)
    gates = GATES[node.op_type]
    units = coupler.labels.fresh((directions, hidden))
    if node.attributes.get_int("layout", 0):
        for value in (x, w, r):
            coupler.seal(value, f"{told} has the batch in front (layout 1), which no rule covers")
        return
    read, why = f"{told} reads an axis there that cannot be cut", f"{told} shares a weight that is cut otherwise"
    whole = coupler.labels.fresh((directions,))
    coupler.labels.link(whole, units, "directions")
    coupler.labels.pin(whole, f"{told} keeps its directions")
    coupler.bind(w, (0, 1), _tiled(units, gates), why)
    coupler.bind(w, (2,), coupler.along(x, 2, read), why)
    coupler.bind(r, (0, 1), _tiled(units, gates), why)
    coupler.overlay(r, (0, 2), units)
    inputs = [*node.inputs, *[None] * (8 - len(node.inputs))]
    coupler.bind(inputs[3], (0, 1), _tiled(units, 2 * gates), why)
    for state in inputs[5:7]:
        coupler.bind(state, (0, 2), units, f"{told} starts from states that cannot be cut")
    coupler.bind(inputs[7], (0, 1), _tiled(units, 3), why)
    coupler.give(node.outputs[0], [Factor.over((1, 3), units)])
    for output in node.outputs[1:]:
        coupler.give(output, [Factor.over((0, 2), units)])


def _tiled(units: Ints, times: int) -> Ints:
    """The units [D, H] of each direction, once a gate: [D, times H]."""
    return np.tile(units, (1, times))
