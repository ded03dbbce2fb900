"""What an output holds: scores of classes, probabilities, or plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor

_CLASSES = ("top1", "top5", "f1")
"""Metrics that are about classes."""

A_CLASS = 10
"""Samples a class under which they are few."""

_SURE = 0.7
"""Softmax of class scores has, on average, less entropy than this share of that of a uniform distribution."""


class Kind(Enum):
    """What an output holds."""

    SCORES = "scores of classes along the last axis, before a softmax"
    PROBABILITIES = "probabilities of classes along the last axis"
    NUMBERS = "numbers"


def kind_of(name: str, answers: Tensor, metrics: Sequence[str], first: bool) -> Kind:
    """What an output holds, by the metrics that read it and by what the teacher answered.

    Args:
        name: of the output.
        answers: of the teacher to some samples.
        metrics: as the user wrote them; one without an output reads the first.
        first: whether it is the first output.
    """
    if answers.dim() < 2 or answers.shape[-1] < 2 or not answers.is_floating_point():
        return Kind.NUMBERS
    values = answers.detach().float()
    if bool((values >= 0).all()) and bool(((values.sum(-1) - 1).abs() < 1e-3).all()):
        return Kind.PROBABILITIES
    read_by = [text.partition(":")[0] for text in metrics if (text.partition(":")[2] or name * first) == name]
    if any(metric in _CLASSES for metric in read_by):
        return Kind.SCORES
    if read_by:
        return Kind.NUMBERS
    return Kind.SCORES if _relative_entropy(values) < _SURE else Kind.NUMBERS


def _relative_entropy(values: Tensor) -> float:
    chance = torch.softmax(values, -1)
    entropy = -(chance * chance.clamp_min(1e-30).log()).sum(-1).mean()
    return float(entropy / torch.log(torch.tensor(float(values.shape[-1]))))


def spread(values: Tensor) -> Tensor:
    """What squared errors of a tensor are divided by: its variance; its power, where it hardly varies."""
    values = values.detach().float()
    power = values.square().mean()
    variance = values.var(unbiased=False)
    return torch.where(variance > 1e-3 * power, variance, power).clamp_min(1e-12)
