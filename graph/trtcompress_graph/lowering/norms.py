"""Norms by means and products, as their definitions in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .state import Chain, Lowering, Nodes, attribute


def layer_norm(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX LayerNormalization-17, with `stash_type` float32."""
    x, rank, kind = node.input[0], found.ranks.get(node.input[0]), found.like(node.input[0])
    if rank is None or kind is None or any(node.output[1:]) or attribute(node, "stash_type", 1) != 1:
        return None
    axes = list(range(attribute(node, "axis", -1) % rank, rank))
    chain = Chain(node)
    wide = x if kind is np.float32 else chain.add("Cast", x, to=TensorProto.FLOAT)
    normal = _normalized(chain, wide, axes, attribute(node, "epsilon", 1e-5), found)
    return _scaled(node, chain, normal, kind, list(node.input[1:]))


def _normalized(chain: Chain, x: str, axes: list[int], epsilon: float, found: Lowering) -> str:
    """Mean 0 and variance 1 over the axes, in float32."""
    mean = chain.add("ReduceMean", x, axes=axes, keepdims=1)
    centred = chain.add("Sub", x, mean)
    variance = chain.add("ReduceMean", chain.add("Mul", centred, centred), axes=axes, keepdims=1)
    small = found.constant(np.float32(epsilon), f"{x}.epsilon")
    return chain.add("Div", centred, chain.add("Sqrt", chain.add("Add", variance, small)))


def _scaled(node: onnx.NodeProto, chain: Chain, normal: str, kind: Any, scale_bias: list[str]) -> Nodes:
    if kind is not np.float32:
        normal = chain.add("Cast", normal, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    if len(scale_bias) < 2 or not scale_bias[1]:
        return chain.last("Mul", normal, scale_bias[0])
    return chain.last("Add", chain.add("Mul", normal, scale_bias[0]), scale_bias[1])


def rms_norm(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX RMSNormalization-23, with `stash_type` float32."""
    x, rank, kind = node.input[0], found.ranks.get(node.input[0]), found.like(node.input[0])
    if rank is None or kind is None or attribute(node, "stash_type", 1) != 1:
        return None
    axes = list(range(attribute(node, "axis", -1) % rank, rank))
    chain = Chain(node)
    wide = x if kind is np.float32 else chain.add("Cast", x, to=TensorProto.FLOAT)
    mean = chain.add("ReduceMean", chain.add("Mul", wide, wide), axes=axes, keepdims=1)
    small = found.constant(np.float32(attribute(node, "epsilon", 1e-5)), f"{x}.epsilon")
    normal = chain.add("Div", wide, chain.add("Sqrt", chain.add("Add", mean, small)))
    return _scaled(node, chain, normal, kind, [node.input[1]])


def group_norm(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX GroupNormalization-18 (scales of groups) and -21 (scales of channels)."""
    x, rank, kind = node.input[0], found.ranks.get(node.input[0]), found.like(node.input[0])
    scale, bias = (found.value(name) for name in node.input[1:3])
    lengths = found.lengths(x)
    channels = lengths[1] if len(lengths) > 1 else None
    if rank is None or kind is None or scale is None or bias is None or channels is None:
        return None
    groups = attribute(node, "num_groups", 1)
    chain = Chain(node)
    flat = found.constant(np.array([0, groups, -1], np.int64), f"{node.output[0]}.flat")
    wide = x if kind is np.float32 else chain.add("Cast", x, to=TensorProto.FLOAT)
    shape = chain.add("Shape", x)
    normal = _normalized(chain, chain.add("Reshape", wide, flat), [2], attribute(node, "epsilon", 1e-5), found)
    back = chain.add("Reshape", normal, shape)
    each = [np.repeat(v, channels // groups) if v.size == groups != channels else v for v in (scale, bias)]
    named = [
        found.constant(value.reshape(-1, *[1] * (rank - 2)).astype(kind), f"{node.output[0]}.{name}")
        for value, name in zip(each, ("scale", "bias"), strict=True)
    ]
    return _scaled(node, chain, back, kind, named)
