"""Inner tensors that both models have by name (FitNets, arXiv 1412.6550)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trtcompress_graph.errors import UsageError

from .answers import spread
from .registry import LossOptions, Seen, Term, loss

if TYPE_CHECKING:
    from ..pairs import Pair, Shared

MOST = 8
"""Tensors that are compared, spread over the depth."""

ROWS = 4096
"""Positions that a projection is fitted to before the training."""


@loss("features")
def features(pair: Pair, options: LossOptions) -> Term:
    """Inner tensors that both share by name, with a projection where widths differ."""
    chosen = pair.milestones(MOST)
    if not chosen:
        raise UsageError(
            "student and teacher have no inner tensor of one name and meaning, so that no features can be compared",
            where="loss 'features'",
            hint="--loss logits",
        )
    return Features(chosen)


class Bridge(nn.Module):
    """Brings a student's tensor to the teacher's width, by a linear map where they differ.

    Args:
        shared: the tensor as both have it.
    """

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self.axis = shared.axis
        wide = shared.axis is not None
        self.map = nn.Linear(shared.student[shared.axis or 0], shared.teacher[shared.axis or 0]) if wide else None

    def fit(self, student: Tensor, teacher: Tensor) -> None:
        """The map of least squares, with a little ridge."""
        if self.map is None:
            return
        x, y = self._rows(student).double(), self._rows(teacher).double()
        step = max(1, len(x) // ROWS)
        x, y = torch.cat([x, torch.ones_like(x[:, :1])], 1)[::step], y[::step]
        gram = x.T @ x
        ridge = 1e-3 * gram.diagonal().mean().clamp_min(1e-12)
        solved = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=x.dtype, device=x.device), x.T @ y)
        with torch.no_grad():
            self.map.weight.copy_(solved[:-1].T)
            self.map.bias.copy_(solved[-1])

    def forward(self, student: Tensor) -> Tensor:
        """The tensor in the teacher's width."""
        if self.map is None or self.axis is None:
            return student.float()
        moved: Tensor = self.map(student.float().movedim(self.axis, -1))
        return moved.movedim(-1, self.axis)

    def _rows(self, tensor: Tensor) -> Tensor:
        assert self.axis is not None
        return tensor.detach().movedim(self.axis, -1).flatten(0, -2)


class Features(Term):
    """The mean over the tensors of the squared error over the teacher's variance."""

    def __init__(self, chosen: tuple[Shared, ...]) -> None:
        super().__init__()
        self.tensors = tuple(shared.name for shared in chosen)
        self.bridges = nn.ModuleList(Bridge(shared) for shared in chosen)
        self.register_buffer("spread", torch.ones(len(chosen)))

    def start(self, seen: Seen) -> None:
        """Fit the projections, and measure how widely the teacher's tensors lie."""
        self.spread = torch.stack([spread(seen.teacher[name]) for name in self.tensors])
        for name, bridge in zip(self.tensors, self.bridges, strict=True):
            assert isinstance(bridge, Bridge)
            bridge.fit(seen.student[name], seen.teacher[name])

    def forward(self, seen: Seen) -> Tensor:
        """The loss of a batch."""
        parts = [
            (bridge(seen.student[name]) - seen.teacher[name]).square().mean() / self.spread[place]
            for place, (name, bridge) in enumerate(zip(self.tensors, self.bridges, strict=True))
        ]
        return torch.stack(parts).mean()
