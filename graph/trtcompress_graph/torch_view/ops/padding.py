"""Pad, and the pads of windows that slide."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op

Ints = tuple[int, ...]


@op("Pad", ints=(1, 3), numbers=(2,))
def pad(x: Tensor, pads: Ints, filler: Any = None, axes: Ints | None = None, /, *, mode: str = "constant") -> Tensor:
    """Filled up at the ends of axes; negative pads cut off."""
    rank = x.dim()
    dims = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    sides = dict(zip(dims, zip(pads[: len(dims)], pads[len(dims) :], strict=True), strict=True))
    if mode == "constant":
        return _filled(x, _backwards(rank, sides), filler)
    for axis, (before, after) in sides.items():
        x = _taken(x, axis, before, after, mode)
    return x


def _filled(x: Tensor, sides: list[int], filler: Any) -> Tensor:
    """Filled up with a number, or with a tensor that holds one."""
    if not isinstance(filler, Tensor):
        return functional.pad(x, sides, value=filler or 0)
    inside = functional.pad(torch.ones_like(x, dtype=torch.bool), sides)
    return torch.where(inside, functional.pad(x, sides), filler)


def _backwards(rank: int, sides: dict[int, tuple[int, int]]) -> list[int]:
    """Pads as PyTorch wants them: the last axis first."""
    return [n for axis in reversed(range(rank)) for n in sides.get(axis, (0, 0))]


def _taken(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Filled up with elements of x itself: the nearest (edge), mirrored (reflect) or from the other end (wrap).

    What negative pads cut off is none of them.
    """
    if before < 0 or after < 0:
        x = x.narrow(axis, max(-before, 0), x.size(axis) + min(before, 0) + min(after, 0))
        before, after = max(before, 0), max(after, 0)
    length = x.size(axis)
    places = torch.arange(-before, length + after, device=x.device)
    if mode == "edge":
        places = places.clamp(0, length - 1)
    elif mode == "wrap":
        places = places % length
    else:
        period = max(2 * (length - 1), 1)
        places = (places % period + period) % period
        places = torch.where(places < length, places, period - places)
    return x.index_select(axis, places)


def window_pads(
    lengths: Ints, kernel: Ints, strides: Ints, dilations: Ints, pads: Ints | None, auto_pad: str
) -> list[tuple[int, int]]:
    """Pads before and after each axis that a window slides along."""
    if auto_pad in ("NOTSET", ""):
        given = pads or (0,) * (2 * len(kernel))
        return list(zip(given[: len(kernel)], given[len(kernel) :], strict=True))
    if auto_pad == "VALID":
        return [(0, 0)] * len(kernel)
    totals = [
        max((-(-length // s) - 1) * s + d * (k - 1) + 1 - length, 0)
        for length, k, s, d in zip(lengths, kernel, strides, dilations, strict=True)
    ]
    few = [total // 2 for total in totals]
    sides = [(n, total - n) for n, total in zip(few, totals, strict=True)]
    return sides if auto_pad == "SAME_UPPER" else [(after, before) for before, after in sides]


def flat(sides: list[tuple[int, int]]) -> list[int]:
    """As `functional.pad` wants them."""
    return [n for side in reversed(sides) for n in side]


def even(sides: list[tuple[int, int]]) -> bool:
    """Whether as much comes before as after."""
    return all(before == after for before, after in sides)
