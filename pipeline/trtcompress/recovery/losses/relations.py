"""Relations between the samples of a batch (RKD, arXiv 1904.05068)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from trtcompress_graph.errors import UsageError

from .registry import LossOptions, Seen, Term, loss

if TYPE_CHECKING:
    from ..pairs import Pair


@loss("relations")
def relations(pair: Pair, options: LossOptions) -> Term:
    """Distances between the samples of a batch, in the last shared inner tensor, else in the outputs."""
    answers = [name for name in pair.answers if pair.first.teacher[name].dim()]
    names = [shared.name for shared in pair.shared[-1:]] or answers
    if not names:
        raise UsageError(
            f"no output has a value for each sample to compare: {', '.join(pair.answers)}",
            where="loss 'relations'",
            hint="--loss logits",
        )
    return Relations(names[0])


class Relations(Term):
    """Huber loss of the distances, each model's in units of its own mean distance: widths may differ."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.tensors = (name,)

    def forward(self, seen: Seen) -> Tensor:
        """The loss of a batch; a last one that holds one sample has nothing to compare."""
        (name,) = self.tensors
        if len(seen.student[name]) < 2:
            return seen.student[name].sum() * 0
        student, teacher = _distances(seen.student[name]), _distances(seen.teacher[name])
        return functional.smooth_l1_loss(student, teacher)


def _distances(tensor: Tensor) -> Tensor:
    rows = tensor.reshape(len(tensor), -1)
    rows = rows - rows.mean(0)  # products of what lies around nothing lose fewer digits
    one, other = torch.triu_indices(len(rows), len(rows), 1, device=rows.device).unbind()
    products = rows @ rows.T  # not the difference of each pair, which would be as large as the tensor once for each
    squares = products.diagonal()
    found = (squares[one] + squares[other] - 2 * products[one, other]).clamp_min(0).add(1e-12).sqrt()
    return found / found.detach().mean().clamp_min(1e-12)
