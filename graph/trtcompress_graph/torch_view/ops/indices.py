"""Indices that may count from the end, and masks of diagonals."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import only
from ..registry import op


def positive(indices: Tensor, length: int) -> Tensor:
    """Indices of which negative ones count from the end, from the start."""
    return torch.where(indices < 0, indices + length, indices).to(torch.int64)


@op("Trilu", ints=(1,))
def trilu(x: Tensor, diagonal: int = 0, /, *, upper: int = 1) -> Tensor:
    """X above (below) a diagonal, else 0."""
    return torch.triu(x, only(diagonal)) if upper else torch.tril(x, only(diagonal))


@op("OneHot", ints=(1,), differentiable=False)
def one_hot(indices: Tensor, depth: int, values: Tensor, /, *, axis: int = -1) -> Tensor:
    """The second of two values at the place of each index along a new axis, else the first."""
    count = int(only(depth))
    rank = indices.dim() + 1
    axis = axis % rank
    places = positive(indices, count).unsqueeze(axis)
    line = torch.arange(count, device=indices.device).reshape([-1 if i == axis else 1 for i in range(rank)])
    return torch.where(line == places, values[1], values[0])
