"""Weights that show a mistake: every bias is there, every channel matters, no norm is trivial."""

from __future__ import annotations

import math

import torch
from torch import nn

_GAIN = 1.3
"""Between what keeps the variance of a linear layer (1) and of one behind a ReLU (1.41)."""


def randomize(module: nn.Module, seed: int) -> None:
    """Draw all parameters and running statistics anew; shared ones stay shared."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(_drawn(name, parameter, id(parameter) in embeddings, generator))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)


def _drawn(name: str, like: torch.Tensor, embedding: bool, generator: torch.Generator) -> torch.Tensor:
    drawn = torch.empty_like(like)
    if "bias" in name.rsplit(".", 1)[-1]:
        return drawn.normal_(0, 0.3, generator=generator)
    if like.dim() < 2 or like.numel() == max(like.shape):
        return drawn.uniform_(0.5, 1.5, generator=generator)
    spread = 0.5 if embedding else _GAIN / math.sqrt(like[0].numel())
    return drawn.normal_(0, spread, generator=generator)
