"""Modules that do something else in training than in evaluation. They hold no tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class BatchNorm(nn.Module):
    """BatchNormalization: over the batch in training, which also moves the running statistics.

    Args:
        momentum: PyTorch's: the share of the new statistics.
        eps: added to the variance.
    """

    def __init__(self, momentum: float, eps: float) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """X [N, C, ...], normalized channel by channel."""
        return functional.batch_norm(x, mean, variance, scale, bias, self.training, self.momentum, self.eps)

    def extra_repr(self) -> str:
        """Its settings."""
        return f"momentum={self.momentum}, eps={self.eps}"


class Dropout(nn.Module):
    """Dropout: at random in training, and where the model asks for it in evaluation too.

    Args:
        masked: returns the mask too.
    """

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked

    def forward(self, x: Tensor, ratio: float = 0.5, always: Any = False) -> Any:
        """X with elements set to zero with the probability `ratio`, the others made larger."""
        dropping = self.training or bool(always)
        if not self.masked:
            return functional.dropout(x, ratio, dropping)
        kept = torch.rand_like(x) >= ratio if dropping else torch.ones_like(x, dtype=torch.bool)
        return (x * kept / (1 - ratio) if dropping and ratio < 1 else x * kept), kept
