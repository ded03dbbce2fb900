"""Elements written by index."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..registry import op
from .indices import positive

_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@op("ScatterElements")
def scatter_elements(
    data: Tensor, indices: Tensor, updates: Tensor, /, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    """Each update at the place of its line that its index says."""
    places = positive(indices, data.size(axis))
    if reduction == "none":
        return data.scatter(axis, places, updates)
    return data.scatter_reduce(axis, places, updates, _REDUCE[reduction])


@op("Scatter")
def scatter(data: Tensor, indices: Tensor, updates: Tensor, /, *, axis: int = 0) -> Tensor:
    """ScatterElements, as it was called before."""
    return scatter_elements(data, indices, updates, axis=axis)


@op("ScatterND")
def scatter_nd(data: Tensor, indices: Tensor, updates: Tensor, /, *, reduction: str = "none") -> Tensor:
    """Each update, a slice, at the place that its first indices say."""
    depth = indices.size(-1)
    places = tuple(positive(indices[..., i], data.size(i)) for i in range(depth))
    if reduction == "none":
        return data.index_put(places, updates)
    if reduction == "add":
        return data.index_put(places, updates, accumulate=True)
    rest = math.prod(data.shape[depth:])
    rows = _flat(places, data.shape[:depth]).reshape(-1, 1).expand(-1, rest)
    made = data.reshape(-1, rest).scatter_reduce(0, rows, updates.reshape(-1, rest), _REDUCE[reduction])
    return made.reshape(data.shape)


def _flat(places: tuple[Tensor, ...], lengths: torch.Size) -> Tensor:
    """One index for several."""
    found = places[0]
    for place, length in zip(places[1:], lengths[1:], strict=True):
        found = found * length + place
    return found


@op("TensorScatter")
def tensor_scatter(
    past: Tensor, update: Tensor, starts: Tensor | None = None, /, *, axis: int = -2, mode: str = "linear"
) -> Tensor:
    """A cache with new entries from each sequence's start on; `circular` goes on at the front."""
    axis = axis % past.dim()
    steps = torch.arange(update.size(axis), device=past.device)
    first = steps.new_zeros(past.size(0)) if starts is None else starts
    places = first[:, None] + steps
    if mode == "circular":
        places = places % past.size(axis)
    shape = [1] * past.dim()
    shape[0], shape[axis] = places.shape
    return past.scatter(axis, places.reshape(shape).expand_as(update), update)
