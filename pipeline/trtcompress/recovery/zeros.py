"""Weights that were made zero on purpose stay zero: 2:4 sparse ones, and others of which many are."""

from __future__ import annotations

import torch
from torch import nn

SPARSE = 0.4
"""Share of zeros from which they are no chance."""


def keep_zeros(module: nn.Module) -> int:
    """Let no gradient reach the zeros of sparse weights (not of one that is all zero); how many weights are sparse."""
    found = 0
    for parameter in module.parameters():
        if parameter.dim() < 2 or not parameter.requires_grad:
            continue
        kept = parameter.detach() != 0
        if SPARSE <= float((~kept).float().mean()) < 1:
            parameter.register_hook(_Masked(kept))  # type: ignore[no-untyped-call]
            found += 1
    return found


class _Masked:
    """A gradient where a weight is none of the zeros."""

    def __init__(self, kept: torch.Tensor) -> None:
        self._kept = kept

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * self._kept.to(gradient)
