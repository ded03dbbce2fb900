"""Scales that are to stay equal, or the product of others, while they are learned."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

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


BIASED = frozenset(["Conv", "ConvTranspose", "Gemm"])
"""Operators whose kernels add the integers of a bias to those of the products."""


def bias_scales(graph: ir.Graph) -> dict[str, tuple[ir.Value, ir.Value]]:
    """Stored scales of biases that are the product of those of input and weight, by name with these two."""
    found: dict[str, tuple[ir.Value, ir.Value]] = {}
    for node in graph.all_nodes():
        makers = [value.producer() if value is not None else None for value in node.inputs[:3]]
        if node.op_type not in BIASED or len(makers) < 3:
            continue
        scales = [maker.inputs[1] for maker in makers if maker is not None and maker.op_type == "DequantizeLinear"]
        x, weight, bias = [*scales] if len(scales) == 3 else [None] * 3
        if x is None or weight is None or bias is None:
            continue
        held = [scale.const_value.numpy() if scale.const_value is not None else None for scale in (x, weight, bias)]
        if held[0] is None or held[1] is None or held[2] is None:
            continue
        product = (held[0] * held[1]).ravel()
        if product.size == held[2].size and np.allclose(product, held[2].ravel(), rtol=1e-3, atol=0):
            found[str(bias.name)] = (x, weight)
    return found


def counting_scale(scale: Tensor) -> Tensor:
    """A learned scale as it counts: greater than 0."""
    return scale.abs().clamp(min=torch.finfo(scale.dtype).tiny)


def bias_scale(x: Tensor, weight: Tensor) -> Tensor:
    """The scale of a bias [C] by those of input and weight; their gradients are not the bias's to give."""
    return (counting_scale(x) * counting_scale(weight)).reshape(-1).detach()


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
