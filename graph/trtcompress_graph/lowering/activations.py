"""Activations by older ones, as their definitions in ONNX."""

from __future__ import annotations

import numpy as np
import onnx

from .state import Chain, Lowering, Nodes, attribute


def gelu(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX Gelu-20: exact over Erf, or approximated over Tanh."""
    x, kind = node.input[0], found.like(node.input[0])
    if kind is None:
        return None
    chain = Chain(node)

    def number(value: float, name: str) -> str:
        return found.constant(kind(value), f"{node.output[0]}.{name}")

    half, one = number(0.5, "half"), number(1.0, "one")
    if attribute(node, "approximate", b"none") == b"tanh":
        cube = chain.add("Mul", chain.add("Mul", chain.add("Mul", x, x), x), number(0.044715, "cubic"))
        inner = chain.add("Mul", chain.add("Add", x, cube), number(float(np.sqrt(2 / np.pi)), "slope"))
        bent = chain.add("Tanh", inner)
    else:
        bent = chain.add("Erf", chain.add("Div", x, number(float(np.sqrt(2)), "root")))
    return chain.last("Mul", chain.add("Mul", x, half), chain.add("Add", bent, one))


def hard_swish(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX HardSwish-14."""
    chain = Chain(node)
    return chain.last("Mul", node.input[0], chain.add("HardSigmoid", node.input[0], alpha=1 / 6, beta=0.5))


def mish(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX Mish-18."""
    chain = Chain(node)
    return chain.last("Mul", node.input[0], chain.add("Tanh", chain.add("Softplus", node.input[0])))


def swish(node: onnx.NodeProto, found: Lowering) -> Nodes:
    """ONNX Swish-24."""
    chain, kind = Chain(node), found.like(node.input[0])
    alpha = attribute(node, "alpha", 1.0)
    if kind is None:
        return None
    scale = found.constant(kind(alpha), f"{node.output[0]}.alpha")
    inner = node.input[0] if alpha == 1 else chain.add("Mul", node.input[0], scale)
    return chain.last("Mul", node.input[0], chain.add("Sigmoid", inner))
