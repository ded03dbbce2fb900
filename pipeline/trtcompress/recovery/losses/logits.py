"""Distillation at the outputs (arXiv 1503.02531): no labels are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .answers import Kind, kind_of, spread
from .registry import LossOptions, Seen, Term, loss

if TYPE_CHECKING:
    from ..pairs import Pair


@loss("logits")
def logits(pair: Pair, options: LossOptions) -> Term:
    """The teacher's outputs: KL divergence for classes, squared error over variance for the rest."""
    kinds = {
        name: kind_of(name, pair.first.teacher[name], options.metrics, place == 0)
        for place, name in enumerate(pair.answers)
    }
    return Logits(kinds, options.temperature)


class Logits(Term):
    """The mean over all outputs."""

    final = True

    def __init__(self, kinds: dict[str, Kind], temperature: float) -> None:
        super().__init__()
        self.tensors = tuple(kinds)
        self._kinds = kinds
        self._temperature = temperature
        self.register_buffer("spread", torch.ones(len(kinds)))

    def start(self, seen: Seen) -> None:
        """Measure how widely the teacher's numbers lie."""
        self.spread = torch.stack([spread(seen.teacher[name]) for name in self.tensors])

    def forward(self, seen: Seen) -> Tensor:
        """The loss of a batch."""
        parts = [self._part(place, name, seen) for place, name in enumerate(self.tensors)]
        return torch.stack(parts).mean()

    def _part(self, place: int, name: str, seen: Seen) -> Tensor:
        student, teacher = seen.student[name], seen.teacher[name]
        match self._kinds[name]:
            case Kind.SCORES:
                t = self._temperature
                return t * t * divergence(torch.log_softmax(teacher / t, -1), torch.log_softmax(student / t, -1))
            case Kind.PROBABILITIES:
                return divergence(teacher.clamp_min(1e-8).log(), student.clamp_min(1e-8).log())
            case _:
                return (student - teacher).square().mean() / self.spread[place]


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Kullback-Leibler divergence of log-probabilities along the last axis, the mean over all others."""
    return (teacher.exp() * (teacher - student)).sum(-1).mean()
