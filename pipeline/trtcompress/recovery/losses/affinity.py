"""Affinity mimicking for image-text pairs (TinyCLIP, arXiv 2309.12314)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from trtcompress_graph.errors import DataError, UsageError

from .logits import divergence
from .registry import LossOptions, Seen, Term, loss

if TYPE_CHECKING:
    from ..pairs import Pair

TEMPERATURE = 0.05
"""Of the cosines between images and texts."""


@loss("affinity")
def affinity(pair: Pair, options: LossOptions) -> Term:
    """Which image fits which text of a batch, for models with two embeddings of equal width as outputs."""
    first = pair.first.teacher
    flat = [name for name in pair.answers if first[name].dim() == 2]
    pairs = [(a, b) for i, a in enumerate(flat) for b in flat[i + 1 :] if first[a].shape[-1] == first[b].shape[-1]]
    if not pairs:
        raise UsageError(
            f"it takes two outputs of shape (batch, width) with one width; the outputs are {', '.join(pair.answers)}",
            where="loss 'affinity'",
            hint="--loss logits",
        )
    return Affinity(*pairs[0])


class Affinity(Term):
    """KL divergence of the affinities, image to text and text to image."""

    final = True

    def __init__(self, images: str, texts: str) -> None:
        super().__init__()
        self.tensors = (images, texts)

    def forward(self, seen: Seen) -> Tensor:
        """The loss of a batch of two samples or more."""
        student, teacher = self._affinities(seen.student), self._affinities(seen.teacher)
        return (
            divergence(torch.log_softmax(teacher, -1), torch.log_softmax(student, -1))
            + divergence(torch.log_softmax(teacher.T, -1), torch.log_softmax(student.T, -1))
        ) / 2

    def _affinities(self, seen: Mapping[str, Tensor]) -> Tensor:
        images, texts = (functional.normalize(seen[name], dim=-1) for name in self.tensors)
        if len(images) < 2:
            raise DataError(
                "the loss 'affinity' compares the samples of a batch, and here a batch holds one",
                where="loss 'affinity'",
                hint="give more samples, or leave this loss out",
            )
        affinities: Tensor = images @ texts.T / TEMPERATURE
        return affinities
