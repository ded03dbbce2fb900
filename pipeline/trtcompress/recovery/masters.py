"""Weights in float16 are trained as float32 and rounded in each pass (arXiv 1710.03740)."""

from __future__ import annotations

import torch
from torch import fx, nn


def widen_halves(view: fx.GraphModule) -> int:
    """Give a view a float32 weight for each float16 or bfloat16 one; its graph reads it rounded.

    Returns:
        How many there are.
    """
    halves = {name: p for name, p in view.named_parameters() if p.dtype in (torch.float16, torch.bfloat16)}
    for node in [node for node in view.graph.nodes if node.op == "get_attr" and node.target in halves]:
        with view.graph.inserting_after(node):
            rounded = view.graph.call_method("to", (node, halves[str(node.target)].dtype))
        node.replace_all_uses_with(rounded, delete_user_cb=lambda user, made=rounded: user is not made)
    for name, parameter in halves.items():
        folder, _, leaf = name.rpartition(".")
        setattr(view.get_submodule(folder), leaf, nn.Parameter(parameter.detach().float()))
    view.recompile()
    return len(halves)
