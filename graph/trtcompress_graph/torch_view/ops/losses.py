"""Losses that ONNX has as operators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op

_IGNORED = -100
"""An index that no label has."""


@op("NegativeLogLikelihoodLoss")
def nll_loss(
    x: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    /,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the logarithm of the labels' probabilities, x [N, C, ...]."""
    ignored = _IGNORED if ignore_index is None else ignore_index
    labels = labels.to(torch.int64)
    if x.dim() == 2:
        return functional.nll_loss(x, labels, weight, ignore_index=ignored, reduction=reduction)
    flat = functional.nll_loss(x.flatten(2), labels.flatten(1), weight, ignore_index=ignored, reduction=reduction)
    return flat.reshape(labels.shape) if reduction == "none" else flat


@op("SoftmaxCrossEntropyLoss")
def cross_entropy_loss(
    x: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    /,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    outputs: int = 1,
) -> tuple[Tensor, Tensor]:
    """The same of LogSoftmax, and LogSoftmax itself."""
    logs = torch.log_softmax(x, 1)
    return nll_loss(logs, labels, weight, ignore_index=ignore_index, reduction=reduction), logs
