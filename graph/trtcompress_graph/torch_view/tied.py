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
    """Stored scales of biases that are the product of those of input and weight, by name with these two.

    One that nodes with different ones share is left out, and one that is no product but for rounding.
    """
    found: dict[str, tuple[ir.Value, ir.Value]] = {}
    apart: set[str] = set()
    for node in graph.all_nodes():
        scales = [_stored_scale(value) for value in node.inputs[:3]] if node.op_type in BIASED else []
        x, weight, bias = (*scales, None, None, None)[:3]
        if x is None or weight is None or bias is None:
            continue
        name = str(bias.name)
        if found.setdefault(name, (x, weight)) != (x, weight) or not _is_product(bias, x, weight):
            apart.add(name)
    return {name: factors for name, factors in found.items() if name not in apart}


def _stored_scale(value: ir.Value | None) -> ir.Value | None:
    """The scale that a tensor was dequantized by, where it is stored."""
    maker = value.producer() if value is not None else None
    scale = maker.inputs[1] if maker is not None and maker.op_type == "DequantizeLinear" else None
    return scale if scale is not None and scale.const_value is not None else None


def _is_product(bias: ir.Value, x: ir.Value, weight: ir.Value) -> bool:
    held = [np.ravel(value.const_value.numpy()) for value in (bias, x, weight) if value.const_value is not None]
    product = held[1] * held[2]
    return product.shape == held[0].shape and np.allclose(product, held[0], rtol=1e-6, atol=0)


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
