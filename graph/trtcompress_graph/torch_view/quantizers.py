"""Where a view that was made with `learn_scales` rounds activations, and how far their scales may shrink."""

from __future__ import annotations

from operator import attrgetter

import torch
from torch import Tensor, fx

from .quantized import fake_quantize, learned_scale
from .tied import bias_scale

HEADROOM = 2**30
"""Greatest integer of an int32 bias: a bit is left for the sum of products that it joins."""


def activation_quantizers(module: fx.GraphModule) -> dict[fx.Node, str]:
    """Calls of `fake_quantize` that round what is computed, with the name of the learned scale that each reads.

    Their arguments are x, the scale and what else makes the grid. Scales that weights share are left out.
    """
    found: dict[fx.Node, str] = {}
    of_weights: set[str] = set()
    given: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op == "placeholder" or any(before in given for before in node.all_input_nodes):
            given.add(node)
        scale = node.args[1] if node.target is fake_quantize else None
        if isinstance(scale, fx.Node) and scale.target is learned_scale and isinstance(scale.args[0], fx.Node):
            name = str(scale.args[0].target)
            if scale.args[3] or node.args[0] not in given:
                of_weights.add(name)
            else:
                found[node] = name
    return {node: name for node, name in found.items() if name not in of_weights}


@torch.no_grad()
def least_ratios(module: fx.GraphModule) -> dict[str, float]:
    """How far each scale of an activation may shrink, by name, before a bias leaves its int32 no bit for the sum.

    A bias counts in steps of the scales of input and weight; kernels add it to the products of both.
    """
    found: dict[str, float] = {}
    for node in module.graph.nodes:
        step = node.args[1] if node.target is fake_quantize else None
        if not isinstance(step, fx.Node) or step.target is not bias_scale:
            continue
        read = [arg for arg in (node.args[0], *step.args) if isinstance(arg, fx.Node) and arg.op == "get_attr"]
        if len(read) < 3:
            continue
        bias, x, weight = (_held(module, arg) for arg in read)
        steps = (x.abs() * weight.abs()).reshape(-1).double()
        name, least = str(read[1].target), float((bias.double().abs() / steps).max()) / HEADROOM
        found[name] = max(found.get(name, 0.0), least)
    return found


def _held(module: fx.GraphModule, node: fx.Node) -> Tensor:
    tensor: Tensor = attrgetter(str(node.target))(module)
    return tensor
