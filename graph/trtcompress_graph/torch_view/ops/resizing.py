"""Resize: each axis is a product with a matrix of weights, or a choice of elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op

Ints = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class How:
    """The settings of Resize that the axes share."""

    coordinates: str
    mode: str
    nearest: str
    cubic: float
    exclude: bool
    antialias: bool


@op("Resize", ints=(1, 2, 3))
def resize(
    x: Tensor,
    roi: tuple[float, ...] | None = None,
    scales: tuple[float, ...] | None = None,
    sizes: Ints | None = None,
    /,
    *,
    antialias: int = 0,
    axes: Ints | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Another length along axes, by factors or to lengths."""
    dims = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes]
    how = How(coordinate_transformation_mode, mode, nearest_mode, cubic_coeff_a, bool(exclude_outside), bool(antialias))
    wanted = _lengths(x, dims, scales, sizes, keep_aspect_ratio_policy)
    quick = _interpolated(x, dims, wanted, how, bool(scales))
    if quick is not None:
        return quick
    outside = x.new_zeros((), dtype=torch.bool)
    for place, (axis, (length, scale)) in enumerate(zip(dims, wanted, strict=True)):
        if scale == 1 and length == x.size(axis) and how.coordinates != "tf_crop_and_resize":
            continue
        ends = (roi[place], roi[place + len(dims)]) if roi else (0.0, 1.0)
        at = _coordinates(x, axis, length, scale, ends, how.coordinates)
        beyond = (at < 0) | (at > x.size(axis) - 1)
        outside = outside | beyond.reshape([-1 if i == axis else 1 for i in range(x.dim())])
        x = _along(x, axis, at, scale, how)
    crop = how.coordinates == "tf_crop_and_resize"
    return torch.where(outside, extrapolation_value, x).to(x.dtype) if crop else x


@op("Upsample", ints=(1,))
def upsample(x: Tensor, scales: tuple[float, ...], /, *, mode: str = "nearest") -> Tensor:
    """Resize, as it was called before."""
    return resize(x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _lengths(
    x: Tensor, dims: list[int], scales: tuple[float, ...] | None, sizes: Ints | None, policy: str
) -> list[tuple[int, float]]:
    """Length and factor of each axis."""
    if scales:
        return [(_length(x.size(axis), scale), scale) for axis, scale in zip(dims, scales, strict=True)]
    assert sizes is not None
    ratios = [_single(size / x.size(axis)) for axis, size in zip(dims, sizes, strict=True)]
    if policy == "stretch":
        return list(zip(sizes, ratios, strict=True))
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [(math.floor(x.size(axis) * ratio + 0.5), ratio) for axis in dims]


def _length(have: int, scale: float) -> int:
    """As kernels come to it, in float32: 10 elements times .7 are 7, though .7 is a little less there."""
    if scale == 1 or not torch.compiler.is_compiling():
        return have if scale == 1 else whole(_single(have * scale))
    return whole(have * scale * (1 + 2**-24))  # symbols cannot be rounded; a little more comes to the same


def _single(number: float) -> float:
    """Rounded to float32; what a compiler traces stays as it is."""
    return number if torch.compiler.is_compiling() else float(np.float32(number))


def whole(number: float) -> int:
    """A number without its fraction; it may be one that a compiler traces."""
    cut: int = torch.sym_int(number)  # type: ignore[no-untyped-call]
    return cut


def _interpolated(
    x: Tensor, dims: list[int], wanted: list[tuple[int, float]], how: How, by_scale: bool
) -> Tensor | None:
    """By PyTorch's own function, where it means the same: images whose last two axes change."""
    known = (how.mode, how.coordinates, how.nearest if how.mode == "nearest" else "")
    name = _SAME.get(known)
    if name is None or x.dim() != 4 or how.antialias or how.exclude or not x.is_floating_point():
        return None
    plan = dict(zip(dims, wanted, strict=True))
    (height, down), (width, across) = (plan.get(axis, (x.size(axis), 1.0)) for axis in (2, 3))
    corners = how.coordinates == "align_corners"
    if any(plan.get(axis, (0, 1.0))[1] != 1 for axis in (0, 1)) or height == 1 or width == 1 or (corners and by_scale):
        return None
    aligned = corners if name == "bilinear" else None
    if by_scale:
        if not (down in _PLAIN and across in _PLAIN):
            return None
        return functional.interpolate(x, scale_factor=(down, across), mode=name, align_corners=aligned)
    return functional.interpolate(x, size=(height, width), mode=name, align_corners=aligned)


_PLAIN = frozenset([0.25, 0.5, *range(1, 33)])
"""Factors of which PyTorch makes the same: it comes to other lengths by .7, to other elements by 1.2 or 41."""

_SAME = {
    ("nearest", "asymmetric", "floor"): "nearest",
    ("linear", "half_pixel", ""): "bilinear",
    ("linear", "pytorch_half_pixel", ""): "bilinear",
    ("linear", "align_corners", ""): "bilinear",
}


def _coordinates(x: Tensor, axis: int, length: int, scale: float, ends: tuple[float, float], how: str) -> Tensor:
    """Where each element of the result lies in the axis."""
    at = torch.arange(length, dtype=torch.float64, device=x.device)
    have = x.size(axis)
    whole = have * scale  # not rounded, where a factor was given
    if how == "align_corners":
        return at * ((have - 1) / (whole - 1)) if whole != 1 else at * 0
    if how == "asymmetric":
        return _singles(at / scale)
    if how == "tf_crop_and_resize":
        start, end = ends
        if whole != 1:
            return start * (have - 1) + at * ((end - start) * (have - 1) / (whole - 1))
        return at * 0 + 0.5 * (start + end) * (have - 1)
    if how == "pytorch_half_pixel" and length == 1:
        return at * 0
    if how == "half_pixel_symmetric":
        shift = _single(have / 2 * (1 - _single(length / _single(whole))))
        return _singles((at + 0.5) / scale - 0.5 + shift)
    return _singles((at + 0.5) / scale) - 0.5


def _singles(at: Tensor) -> Tensor:
    """Rounded to float32: 7 / .7 is 10 there, and where it is not, kernels choose another element."""
    return at.to(torch.float32).to(torch.float64)


def _along(x: Tensor, axis: int, at: Tensor, scale: float, how: How) -> Tensor:
    """The elements of one axis at coordinates."""
    have = x.size(axis)
    if how.mode == "nearest":
        return x.index_select(axis, _ROUND[how.nearest](at).clamp(0, have - 1).to(torch.int64))
    weights = _weights(at, have, min(scale, 1.0) if how.antialias else 1.0, how).to(_real(x))
    made = torch.matmul(x.movedim(axis, -1).to(weights.dtype), weights.t()).movedim(-1, axis)
    return made if x.is_floating_point() else _whole_numbers(made, x.dtype)


def _whole_numbers(made: Tensor, kind: torch.dtype) -> Tensor:
    """Rounded, and no less or more than an integer holds: cubic goes beyond what it is between."""
    limits = torch.iinfo(kind)
    return made.round().clamp(limits.min, limits.max).to(kind)


def _real(x: Tensor) -> torch.dtype:
    return x.dtype if x.is_floating_point() else torch.float64


_ROUND: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda at: torch.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: torch.floor(at + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _weights(at: Tensor, have: int, narrow: float, how: How) -> Tensor:
    """How much each of `have` elements counts at each coordinate; `narrow` widens the kernel for fewer elements."""
    reach = 1 if how.mode == "linear" else 2
    half = math.ceil(reach / narrow)
    first = torch.floor(at)[:, None]
    taps = first + torch.arange(1 - half, half + 1, device=at.device)
    distance = (taps - at[:, None]).abs() * narrow
    weights = (1 - distance).clamp(min=0) if how.mode == "linear" else _cubic(distance, how.cubic)
    if how.exclude:
        weights = torch.where((taps >= 0) & (taps < have), weights, 0.0)
    if how.exclude or how.antialias:
        weights = weights / weights.sum(1, keepdim=True)
    places = taps.clamp(0, have - 1).to(torch.int64)
    return torch.zeros(at.size(0), have, dtype=at.dtype, device=at.device).scatter_add(1, places, weights)


def _cubic(d: Tensor, a: float) -> Tensor:
    """Keys' kernel."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))
