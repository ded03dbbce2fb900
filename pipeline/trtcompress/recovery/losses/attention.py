"""Attention maps: where a transformer looks (arXiv 1909.10351), where a convolution answers (arXiv 1612.03928)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from trtcompress_graph.errors import UsageError

from .registry import LossOptions, Seen, Term, loss

if TYPE_CHECKING:
    from ..pairs import Pair, Shared

MOST = 8


@loss("attention")
def attention(pair: Pair, options: LossOptions) -> Term:
    """Attention maps, which need no projection: the mean over heads, or the power over channels."""
    heads = [shared for shared in pair.shared if shared.op == "Softmax" and len(shared.student) == 4]
    maps = [shared for shared in pair.milestones(MOST) if _is_spatial(shared)]
    if not heads and not maps:
        raise UsageError(
            "student and teacher share no attention weights and no feature maps by name",
            where="loss 'attention'",
            hint="--loss logits --loss features",
        )
    return Attention(tuple(shared.name for shared in heads), tuple(shared.name for shared in maps if not heads))


def _is_spatial(shared: Shared) -> bool:
    return len(shared.student) == 4 and shared.student[2:] == shared.teacher[2:] and min(shared.student[2:]) > 1


class Attention(Term):
    """The mean over the maps of their difference."""

    def __init__(self, heads: tuple[str, ...], maps: tuple[str, ...]) -> None:
        super().__init__()
        self.tensors = (*heads, *maps)
        self._heads = frozenset(heads)

    def forward(self, seen: Seen) -> Tensor:
        """The loss of a batch."""
        return torch.stack([self._part(name, seen) for name in self.tensors]).mean()

    def _part(self, name: str, seen: Seen) -> Tensor:
        student, teacher = seen.student[name], seen.teacher[name]
        if name in self._heads:
            looks = teacher.mean(1)
            return (looks * (looks.clamp_min(1e-8).log() - student.mean(1).clamp_min(1e-8).log())).sum(-1).mean()
        return (_power(student) - _power(teacher)).square().sum(-1).mean()


def _power(maps: Tensor) -> Tensor:
    """Where the channels answer, of length 1: (batch, height * width)."""
    return functional.normalize(maps.square().mean(1).flatten(1), dim=-1)
