"""Scales that are to stay equal while they are learned."""

from __future__ import annotations

from typing import Generic, TypeVar

import onnx_ir as ir

T = TypeVar("T")

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
    places, scales = Joined[int](), Joined[str]()
    nodes = list(graph.all_nodes())
    for node in nodes:
        if node.op_type in MOVING:
            for value in (*node.inputs, *node.outputs):
                if value is not None and value.const_value is None:
                    places.join(id(node.outputs[0]), id(value))
    seen: dict[tuple[object, ...], str] = {}
    names: list[str] = []
    for node in nodes:
        scale = node.inputs[1] if node.op_type in ("QuantizeLinear", "DequantizeLinear") else None
        held = scale.const_value if scale is not None else None
        if scale is None or held is None:
            continue
        names.append(str(scale.name))
        for value in (node.inputs[0], node.outputs[0]):
            if value is not None and value.const_value is None:
                key = (places.root(id(value)), held.dtype, tuple(held.shape), held.tobytes())
                scales.join(seen.setdefault(key, names[-1]), names[-1])
    first: dict[str, str] = {}
    leaders = {name: first.setdefault(scales.root(name), name) for name in names}
    return {name: leader for name, leader in leaders.items() if name != leader}


class Joined(Generic[T]):
    """Sets that grow together (union-find)."""

    def __init__(self) -> None:
        self._over: dict[T, T] = {}

    def root(self, one: T) -> T:
        """The same for all of a set."""
        while one in self._over:
            one = self._over[one]
        return one

    def join(self, one: T, other: T) -> None:
        """Make two sets one."""
        one, other = self.root(one), self.root(other)
        if one != other:
            self._over[other] = one
