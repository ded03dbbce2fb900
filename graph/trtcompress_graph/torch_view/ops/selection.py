"""Operators that select or sort by value."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers import only
from ..registry import op


@op("TopK", ints=(1,))
def top_k(
    x: Tensor, k: int, /, *, axis: int = -1, largest: int = 1, sorted: int = 1, outputs: int = 2
) -> tuple[Tensor, Tensor]:
    """The greatest (least) along an axis and their places; of equal ones those that come first."""
    values, places = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    count = only(k)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


@op("NonZero", differentiable=False)
def non_zero(x: Tensor, /) -> Tensor:
    """Places of what is not zero, [axes, count]."""
    return torch.nonzero(x).transpose(0, 1)


@op("Unique", differentiable=False)
def unique(
    x: Tensor, /, *, axis: int | None = None, sorted: int = 1, outputs: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Different elements (slices along an axis), the first place of each, which one each is, and how many."""
    line, dim = (x.reshape(-1), 0) if axis is None else (x, axis)
    values, which, counts = torch.unique(line, dim=dim, return_inverse=True, return_counts=True)
    order = torch.arange(which.numel(), device=x.device)
    first = torch.full_like(counts, which.numel()).scatter_reduce(0, which.reshape(-1), order, "amin")
    if sorted:
        return values, first, which, counts
    by_place = torch.argsort(first)
    renamed = torch.argsort(by_place)
    return values.index_select(dim, by_place), first[by_place], renamed[which], counts[by_place]


@op("NonMaxSuppression", ints=(2,), differentiable=False)
def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    most: int = 0,
    overlap: Tensor | None = None,
    least: Tensor | None = None,
    /,
    *,
    center_point_box: int = 0,
) -> Tensor:
    """Boxes by falling score, each only if it overlaps none before too much: [count, (batch, class, box)]."""
    limit = 0.0 if overlap is None else float(overlap)
    corners = _corners(boxes, center_point_box)
    found = [
        (batch, kind, index)
        for batch in range(scores.size(0))
        for kind in range(scores.size(1))
        for index in _kept(corners[batch], scores[batch, kind], int(only(most)), limit, least)
    ]
    return torch.tensor(found, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _corners(boxes: Tensor, centred: int) -> Tensor:
    """Two opposite corners, the least first; whichever way they were given."""
    if centred:
        middle, size = boxes[..., :2], boxes[..., 2:]
        return torch.cat([middle - size / 2, middle + size / 2], -1)
    one, other = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(one, other), torch.maximum(one, other)], -1)


def _kept(boxes: Tensor, scores: Tensor, most: int, limit: float, least: Tensor | None) -> list[int]:
    order = torch.argsort(scores, descending=True, stable=True)
    if least is not None:
        order = order[scores[order] > least.reshape(())]
    kept: list[int] = []
    overlaps = _overlaps(boxes)
    for index in order.tolist():
        if len(kept) >= most:
            break
        if not any(overlaps[index, other] > limit for other in kept):
            kept.append(index)
    return kept


def _overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of each two boxes."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    start = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    end = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (end - start).clamp(min=0).prod(-1)
    return torch.where(shared > 0, shared / (area[:, None] + area[None] - shared), 0.0)
