"""Distillation at the outputs (arXiv 1503.02531): no labels are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .answers import A_CLASS, Kind, kind_of, spread
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
    return Logits(kinds, options)


USUAL, FEW = 2.0, 8.0
"""Temperature, and that for few samples: the softer, the more of the scores of all classes is learned from each."""

WIDE = 4.0
"""Class scores that lie more widely than this (standard deviation over the classes) get a temperature that makes up
for it: the softmax of a teacher that is too sure shows nothing but its first choice (arXiv 2403.01427)."""


class Logits(Term):
    """The mean over all outputs."""

    final = True

    def __init__(self, kinds: dict[str, Kind], options: LossOptions) -> None:
        super().__init__()
        self.tensors = tuple(kinds)
        self._kinds = kinds
        self._options = options
        self.register_buffer("spread", torch.ones(len(kinds)))
        self.register_buffer("softening", torch.ones(len(kinds)))

    def start(self, seen: Seen) -> None:
        """Measure how widely the teacher's numbers lie."""
        answers = [seen.teacher[name] for name in self.tensors]
        self.spread = torch.stack([spread(answer) for answer in answers])
        if any(kind is Kind.SCORES for kind in self._kinds.values()):
            self.softening = torch.stack([(a.std(-1, unbiased=False).mean() / WIDE).clamp_min(1.0) for a in answers])

    def forward(self, seen: Seen) -> Tensor:
        """The loss of a batch."""
        parts = [self._part(place, name, seen) for place, name in enumerate(self.tensors)]
        return torch.stack(parts).mean()

    def _temperature(self, classes: int) -> float:
        if self._options.temperature is not None:
            return self._options.temperature
        return FEW if self._options.samples < A_CLASS * classes else USUAL

    def _part(self, place: int, name: str, seen: Seen) -> Tensor:
        student, teacher = seen.student[name], seen.teacher[name]
        match self._kinds[name]:
            case Kind.SCORES:
                temperature = self._temperature(teacher.shape[-1])
                t = temperature * self.softening[place]
                apart = divergence(torch.log_softmax(teacher / t, -1), torch.log_softmax(student / t, -1))
                return temperature**2 * apart
            case Kind.PROBABILITIES:
                return divergence(teacher.clamp_min(1e-8).log(), student.clamp_min(1e-8).log())
            case _:
                return (student - teacher).square().mean() / self.spread[place]


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Kullback-Leibler divergence of log-probabilities along the last axis, the mean over all others."""
    return (teacher.exp() * (teacher - student)).sum(-1).mean()
