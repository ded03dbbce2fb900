"""Pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op
from ..roots import root
from ..values import Traced, UnknownError
from .padding import even, flat, window_pads

Ints = tuple[int, ...]
_MAX: dict[int, Any] = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN: dict[int, Any] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_FIXED = ("NOTSET", "VALID", "")


def _sides(x: Tensor, kernel: Ints, strides: Ints, dilations: Ints, pads: Ints | None, auto_pad: str) -> Any:
    fixed = auto_pad in _FIXED
    lengths = (0,) * len(kernel) if fixed else tuple(x.size(axis + 2) for axis in range(len(kernel)))
    return window_pads(lengths, kernel, strides, dilations, pads, auto_pad)


def _longer(x: Tensor, kernel: Ints, strides: Ints, dilations: Ints, sides: Any) -> list[tuple[int, int]]:
    """Pads of which the last window, which is cut off at the end, is whole; one that starts in the pad is none."""
    found = []
    for axis, (k, s, d, (before, after)) in enumerate(zip(kernel, strides, dilations, sides, strict=True)):
        length = x.size(axis + 2)
        reach = d * (k - 1) + 1
        steps = -(-(length + before + after - reach) // s)
        steps = steps - 1 if steps * s >= length + before else steps
        found.append((before, max(steps * s + reach - length - before, 0)))
    return found


@op("MaxPool", inline=True)
def max_pool(
    x: Tensor,
    /,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    kernel_shape: Ints,
    pads: Ints | None = None,
    storage_order: int = 0,
    strides: Ints | None = None,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """The greatest in each window, and where it is in the whole tensor."""
    strides, dilations = strides or (1,) * len(kernel_shape), dilations or (1,) * len(kernel_shape)
    sides = _sides(x, kernel_shape, strides, dilations, pads, auto_pad)
    pool = _MAX[len(kernel_shape)]
    plain = even(sides) and not ceil_mode and all(2 * side[0] <= k for side, k in zip(sides, kernel_shape, strict=True))
    if outputs == 1 and plain:
        return (pool(x, kernel_shape, strides, tuple(before for before, _ in sides), dilations),)
    if isinstance(x, Traced):
        raise UnknownError
    if ceil_mode:
        sides = _longer(x, kernel_shape, strides, dilations, sides)
    least = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    padded = functional.pad(x, flat(sides), value=least)
    if not x.is_floating_point():
        return (pool(padded.double(), kernel_shape, strides, 0, dilations).to(x.dtype),)
    made, places = pool(padded, kernel_shape, strides, 0, dilations, return_indices=True)
    return made, _whole_places(places, padded, x, sides, storage_order)


def _whole_places(places: Tensor, padded: Tensor, x: Tensor, sides: Any, storage_order: int) -> Tensor:
    """Places in the whole tensor, rows first (or columns first), of places in one padded plane."""
    rest, coordinates = places, []
    for length in reversed(padded.shape[2:]):
        coordinates.append(rest % length)
        rest = rest // length
    spatial = [c - before for c, (before, _) in zip(reversed(coordinates), sides, strict=True)]
    lengths = list(x.shape[2:])
    order = range(len(lengths)) if not storage_order else range(len(lengths))[::-1]
    found = torch.zeros_like(places)
    for axis in order:
        found = found * lengths[axis] + spatial[axis]
    planes = torch.arange(x.size(0) * x.size(1), device=x.device).reshape(x.size(0), x.size(1), *[1] * len(lengths))
    return planes * x[0, 0].numel() + found


@op("AveragePool", inline=True)
def average_pool(
    x: Tensor,
    /,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints | None = None,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """The mean of each window."""
    strides, dilations = strides or (1,) * len(kernel_shape), dilations or (1,) * len(kernel_shape)
    sides = _sides(x, kernel_shape, strides, dilations, pads, auto_pad)
    plain = even(sides) and not ceil_mode and all(d == 1 for d in dilations)
    if plain and all(2 * side[0] <= k for side, k in zip(sides, kernel_shape, strict=True)):
        before = tuple(side[0] for side in sides)
        made: Tensor = _MEAN[len(kernel_shape)](x, kernel_shape, strides, before, False, bool(count_include_pad))
        return made
    if isinstance(x, Traced):
        raise UnknownError
    counted = torch.ones_like(x[:1, :1])
    if count_include_pad:
        counted = functional.pad(counted, flat(sides), value=1.0)
    whole = _longer(x, kernel_shape, strides, dilations, sides) if ceil_mode else sides
    rest = [(a - c, b - d) for (a, b), (c, d) in zip(whole, sides, strict=True)] if count_include_pad else whole
    windows = (kernel_shape, strides, dilations)
    return _window_sums(functional.pad(x, flat(whole)), *windows) / _window_sums(
        functional.pad(counted, flat(rest)), *windows
    )


def _window_sums(x: Tensor, kernel: Ints, strides: Ints, dilations: Ints) -> Tensor:
    """The sum of each window of a tensor that is padded already."""
    ones = x.new_ones(1, 1, *kernel)
    function: Any = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[len(kernel)]
    planes = x.reshape(-1, 1, *x.shape[2:])
    made: Tensor = function(planes, ones, None, strides, 0, dilations)
    return made.reshape(*x.shape[:2], *made.shape[2:])


@op("LpPool")
def lp_pool(
    x: Tensor,
    /,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    kernel_shape: Ints,
    p: int = 2,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """The p-norm of each window."""
    strides, dilations = strides or (1,) * len(kernel_shape), dilations or (1,) * len(kernel_shape)
    sides = _sides(x, kernel_shape, strides, dilations, pads, auto_pad)
    sides = _longer(x, kernel_shape, strides, dilations, sides) if ceil_mode else sides
    powers = functional.pad(x.abs() ** p, flat(sides))
    return root(_window_sums(powers, kernel_shape, strides, dilations), p)


@op("GlobalAveragePool")
def global_average_pool(x: Tensor, /) -> Tensor:
    """The mean of each channel."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(x: Tensor, /) -> Tensor:
    """The greatest of each channel."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


@op("GlobalLpPool")
def global_lp_pool(x: Tensor, /, *, p: int = 2) -> Tensor:
    """The p-norm of each channel."""
    made: Tensor = torch.linalg.vector_norm(x, p, tuple(range(2, x.dim())), keepdim=True)
    return made


@op("MaxUnpool", ints=(2,))
def max_unpool(
    x: Tensor,
    places: Tensor,
    shape: Ints | None = None,
    /,
    *,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Elements put back where they were the greatest, else 0."""
    rank = len(kernel_shape)
    strides, pads = strides or (1,) * rank, pads or (0,) * 2 * rank
    usual = [(x.size(i + 2) - 1) * strides[i] + kernel_shape[i] - pads[i] - pads[i + rank] for i in range(rank)]
    small = list(x.shape[:2]) + usual
    filled = x.new_zeros(small).reshape(-1).scatter(0, places.reshape(-1), x.reshape(-1)).reshape(small)
    if shape is None or list(shape) == small:
        return filled
    ends = [n for have, want in reversed(list(zip(small, shape, strict=True))) for n in (0, want - have)]
    return functional.pad(filled, ends)
