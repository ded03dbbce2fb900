"""Less memory: tensors that student and teacher share, and inner tensors that are computed again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.utils.checkpoint import checkpoint

from .norms import own_statistics

ACROSS = 8
"""Parts of a student between which inner tensors are kept; those inside are computed again on the way back."""


def share_equal(student: nn.Module, teacher: nn.Module) -> int:
    """Let the teacher read the student's own tensors where they are equal and never trained.

    Returns:
        Bytes that are held once and not twice.
    """
    moved = own_statistics(student)
    held = {name: buffer for name, buffer in student.named_buffers() if name not in moved}
    saved = 0
    for module, prefix in _modules(teacher):
        for leaf, tensor in module._buffers.items():
            other = held.get(f"{prefix}{leaf}")
            if tensor is not None and other is not None and other.dtype == tensor.dtype and torch.equal(other, tensor):
                module._buffers[leaf] = other
                saved += tensor.nbytes
    return saved


def _modules(root: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for name, module in root.named_modules():
        yield module, f"{name}." if name else ""


class Frugal(nn.Module):
    """A view in parts, of which each is run again when its gradient is asked for (arXiv 1604.06174)."""

    def __init__(self, parts: fx.GraphModule) -> None:
        super().__init__()
        self.parts = parts
        for name in {str(node.target) for node in parts.graph.nodes if node.op == "call_module"}:
            setattr(parts, name, Again(parts.get_submodule(name)))

    def forward(self, *inputs: Any) -> Any:
        """What the view answers."""
        return self.parts(*inputs)


class Again(nn.Module):
    """A part that keeps nothing but what it was given."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, *inputs: Any) -> Any:
        """What the part answers."""
        if not torch.is_grad_enabled():
            return self.part(*inputs)
        return checkpoint(self.part, *inputs, use_reentrant=False)


def frugal(view: fx.GraphModule) -> Frugal:
    """A view that computes its inner tensors twice; its parameters are the view's own."""
    from torch.fx.passes.split_module import split_module

    calls = [node for node in view.graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    part = {node: place * ACROSS // max(1, len(calls)) for place, node in enumerate(calls)}
    return Frugal(split_module(view, view, lambda node: part.get(node, 0), keep_original_order=True))
