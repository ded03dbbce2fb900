"""Affinity mimicking for image-text pairs (TinyCLIP, arXiv 2309.12314)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from trtcompress_graph.errors import UsageError

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
        """The loss of a batch; a last one that holds one sample has nothing to compare."""
        if len(seen.student[self.tensors[0]]) < 2:
            return torch.stack([seen.student[name].sum() for name in self.tensors]).sum() * 0
        student, teacher = self._affinities(seen.student), self._affinities(seen.teacher)
        return (
            divergence(torch.log_softmax(teacher, -1), torch.log_softmax(student, -1))
            + divergence(torch.log_softmax(teacher.T, -1), torch.log_softmax(student.T, -1))
        ) / 2

    def _affinities(self, seen: Mapping[str, Tensor]) -> Tensor:
        images, texts = (functional.normalize(seen[name], dim=-1) for name in self.tensors)
        affinities: Tensor = images @ texts.T / TEMPERATURE
        return affinities
