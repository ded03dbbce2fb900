"""Sums, means and extremes along axes."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor

from ..numbers import only
from ..registry import op
from ..sizes import greatest, least, reduced
from ..wide import wide

Axes = tuple[int, ...] | None


def _dims(x: Tensor, axes: Axes) -> tuple[int, ...]:
    return tuple(axes) if axes else tuple(range(x.dim()))


def _left(axes: Axes, noop: int) -> bool:
    """Whether nothing is reduced."""
    return not axes and bool(noop)


@op("ReduceSum", inline=True, ints=(1,), sizes=reduced(operator.add, 0))
@wide
def reduce_sum(x: Tensor, axes: Axes = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """Sums."""
    return x if _left(axes, noop_with_empty_axes) else torch.sum(x, _dims(x, axes), bool(keepdims), dtype=x.dtype)


@op("ReduceMean", inline=True, ints=(1,))
def reduce_mean(x: Tensor, axes: Axes = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """Means."""
    if _left(axes, noop_with_empty_axes):
        return x
    if not x.is_floating_point():
        return torch.mean(x.double(), _dims(x, axes), bool(keepdims)).to(x.dtype)
    return torch.mean(x, _dims(x, axes), bool(keepdims))


@op("ReduceProd", ints=(1,), sizes=reduced(operator.mul, 1))
@wide
def reduce_prod(x: Tensor, axes: Axes = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """Products."""
    if _left(axes, noop_with_empty_axes):
        return x
    return _one_by_one(lambda y, axis: torch.prod(y, axis, True, dtype=x.dtype), x, _dims(x, axes), keepdims)


def _one_by_one(function: Callable[[Tensor, int], Tensor], x: Tensor, dims: tuple[int, ...], keepdims: int) -> Tensor:
    for axis in dims:
        x = function(x, axis)
    return x if keepdims else x.squeeze(dims)


@op("ReduceMax", ints=(1,), sizes=reduced(greatest, None))
@wide
def reduce_max(x: Tensor, axes: Axes = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """The greatest."""
    if _left(axes, noop_with_empty_axes):
        return x
    if x.numel() == 0:
        return _nothing(x, axes, keepdims, greatest=True)
    return torch.amax(x, _dims(x, axes), bool(keepdims))


@op("ReduceMin", ints=(1,), sizes=reduced(least, None))
@wide
def reduce_min(x: Tensor, axes: Axes = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """The least."""
    if _left(axes, noop_with_empty_axes):
        return x
    if x.numel() == 0:
        return _nothing(x, axes, keepdims, greatest=False)
    return torch.amin(x, _dims(x, axes), bool(keepdims))


def _nothing(x: Tensor, axes: Axes, keepdims: int, *, greatest: bool) -> Tensor:
    """The greatest (least) of no elements: minus (plus) infinity, or the end of the integers."""
    shape = torch.sum(x, _dims(x, axes), bool(keepdims)).shape
    if x.is_floating_point():
        return x.new_full(shape, -torch.inf if greatest else torch.inf)
    if x.dtype == torch.bool:
        return x.new_full(shape, not greatest)
    limits = torch.iinfo(x.dtype)
    return x.new_full(shape, limits.min if greatest else limits.max)


@op("ReduceL1", ints=(1,))
def reduce_l1(x: Tensor, axes: Axes = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """Sums of absolute values."""
    return reduce_sum(x.abs(), axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes)


@op("ReduceL2", ints=(1,))
def reduce_l2(x: Tensor, axes: Axes = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """Roots of sums of squares."""
    if not x.is_floating_point():
        return reduce_l2(x.double(), axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes).to(x.dtype)
    dims = () if _left(axes, noop_with_empty_axes) else _dims(x, axes)
    return torch.linalg.vector_norm(x, 2, dims, bool(keepdims)) if dims else x.abs()


@op("ReduceSumSquare", ints=(1,))
@wide
def reduce_sum_square(x: Tensor, axes: Axes = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """Sums of squares."""
    return reduce_sum(x * x, axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes)


@op("ReduceLogSum", ints=(1,))
def reduce_log_sum(x: Tensor, axes: Axes = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """Logarithms of sums; those of integers are cut off."""
    total = reduce_sum(x, axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes)
    return torch.log(total) if x.is_floating_point() else torch.log(total.double()).to(x.dtype)


@op("ReduceLogSumExp", ints=(1,))
def reduce_log_sum_exp(x: Tensor, axes: Axes = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """Logarithms of sums of exponentials; those of integers are cut off."""
    if _left(axes, noop_with_empty_axes):
        return x
    if not x.is_floating_point():
        return torch.logsumexp(x.double(), _dims(x, axes), bool(keepdims)).to(x.dtype)
    return torch.logsumexp(x, _dims(x, axes), bool(keepdims))


@op("ArgMax", differentiable=False)
def argmax(x: Tensor, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Places of the greatest, the first or the last of several."""
    if select_last_index:
        return x.size(axis) - 1 - torch.argmax(x.flip(axis), axis, bool(keepdims))
    return torch.argmax(x, axis, bool(keepdims))


@op("ArgMin", differentiable=False)
def argmin(x: Tensor, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Places of the least, the first or the last of several."""
    if select_last_index:
        return x.size(axis) - 1 - torch.argmin(x.flip(axis), axis, bool(keepdims))
    return torch.argmin(x, axis, bool(keepdims))


def _running(function: Callable[[Tensor, int], Tensor], x: Tensor, axis: int, start: int, reverse: int) -> Tensor:
    """Running results along an axis; not of the element itself but of those before it where there is a `start`."""
    x = x.flip(axis) if reverse else x
    if start >= 0:
        x = torch.cat([torch.full_like(x.narrow(axis, 0, 1), start), x.narrow(axis, 0, x.size(axis) - 1)], axis)
    made = function(x, axis)
    return made.flip(axis) if reverse else made


def _cumsum(x: Tensor, axis: int) -> Tensor:
    return torch.cumsum(x, axis, dtype=x.dtype)


def _cumprod(x: Tensor, axis: int) -> Tensor:
    return torch.cumprod(x, axis, dtype=x.dtype)


@op("CumSum", ints=(1,))
def cumsum(x: Tensor, axis: int, /, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Running sums."""
    return _running(_cumsum, x, only(axis), 0 if exclusive else -1, reverse)


@op("CumProd", ints=(1,))
def cumprod(x: Tensor, axis: int, /, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Running products."""
    return _running(_cumprod, x, only(axis), 1 if exclusive else -1, reverse)
