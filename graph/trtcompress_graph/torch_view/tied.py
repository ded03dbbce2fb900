"""Scales that are to stay equal while they are learned."""

from __future__ import annotations

import onnx_ir as ir

MOVING = frozenset(
    [
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather", "GatherElements"),
        *("GatherND", "Expand", "Tile", "Concat", "Identity", "DepthToSpace", "SpaceToDepth", "Pad", "Trilu"),
        *("MaxPool", "GlobalMaxPool", "Max", "Min", "Relu", "Clip"),
    ]
)
"""Operators whose kernels take integers as they are, as long as both sides have one scale."""


def tied_scales(graph: ir.Graph) -> dict[str, str]:
    """Of equal scales of one tensor, or on both sides of what only moves numbers, the first stands for all.

    Returns:
        By the name of a stored scale that of the one it follows; those that are alone are left out.
    """
    joined = _Joined()
    nodes = list(graph.all_nodes())
    for node in nodes:
        if node.op_type in MOVING:
            for value in (*node.inputs, *node.outputs):
                if value is not None and value.const_value is None:
                    joined.join(node.outputs[0], value)
    first: dict[tuple[object, ...], str] = {}
    found: dict[str, str] = {}
    for node in nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale = node.inputs[1]
        held = scale.const_value if scale is not None else None
        if scale is None or held is None:
            continue
        same = (held.dtype, tuple(held.shape), held.tobytes())
        integers, floats = node.inputs[0], node.outputs[0]
        if node.op_type == "QuantizeLinear":
            integers, floats = floats, integers
        places = [value for value in (integers, floats) if value is not None and value.const_value is None]
        keys = [(id(joined.root(value)), *same) for value in places]
        name = found.get(str(scale.name), str(scale.name))
        leader = next((first[key] for key in keys if key in first), name)
        if leader != str(scale.name):
            found[str(scale.name)] = leader
        for key in keys:
            first.setdefault(key, leader)
    return {name: _last(found, leader) for name, leader in found.items()}


def _last(found: dict[str, str], name: str) -> str:
    while name in found:
        name = found[name]
    return name


class _Joined:
    """Which values are one to a scale (union-find)."""

    def __init__(self) -> None:
        self._over: dict[int, ir.Value] = {}

    def root(self, value: ir.Value) -> ir.Value:
        while id(value) in self._over:
            value = self._over[id(value)]
        return value

    def join(self, one: ir.Value, other: ir.Value) -> None:
        one, other = self.root(one), self.root(other)
        if one is not other:
            self._over[id(other)] = one
