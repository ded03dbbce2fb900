"""Operators that move elements and leave them as they are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from ..registry import op
from ..sizes import concat, reshape, slice_, squeeze, unsqueeze
from ..values import Traced, UnknownError

Ints = tuple[int, ...]
_FAR = 1 << 31
"""Ends from here on mean "to the end"."""


@op("Reshape", inline=True, ints=(1,), sizes=reshape)
def reshaped(x: Tensor, shape: Ints, /, *, allowzero: int = 0) -> Tensor:
    """Another shape; 0 keeps a length, -1 is what is left."""
    lengths = [
        x.size(i) if isinstance(n, int) and n == 0 and not allowzero else n for i, n in enumerate(_listed(shape))
    ]
    return x.reshape(lengths)


def _listed(numbers: Any) -> list[Any]:
    if isinstance(numbers, fx.Proxy):
        raise UnknownError
    return list(numbers)


@op("Flatten")
def flatten(x: Tensor, /, *, axis: int = 1) -> Tensor:
    """Two axes: those before `axis`, and the others."""
    axis = axis + x.dim() if axis < 0 else axis
    return (
        x.flatten(1) if axis == 1 and x.dim() > 1 else x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    )


@op("Transpose", inline=True)
def transpose(x: Tensor, /, *, perm: Ints | None = None) -> Tensor:
    """Axes in another order, back to front without any."""
    return x.permute(tuple(range(x.dim()))[::-1] if perm is None else perm)


@op("Squeeze", inline=True, ints=(1,), sizes=squeeze)
def squeezed(x: Tensor, axes: Ints | None = None, /) -> Tensor:
    """Without axes of length 1."""
    if axes is None:
        return x.squeeze()
    dims = sorted((axis % x.dim() for axis in _listed(axes)), reverse=True)
    for axis in dims:
        x = x.squeeze(axis)
    return x


@op("Unsqueeze", inline=True, ints=(1,), sizes=unsqueeze)
def unsqueezed(x: Tensor, axes: Ints, /) -> Tensor:
    """With new axes of length 1."""
    dims = _listed(axes if isinstance(axes, (tuple, fx.Proxy)) else (axes,))
    rank = x.dim() + len(dims) if any(axis < 0 for axis in dims) else 0
    for axis in sorted(axis + rank if axis < 0 else axis for axis in dims):
        x = x.unsqueeze(axis)
    return x


@op("Concat", inline=True, sizes=concat)
def concatenated(*parts: Tensor, axis: int) -> Tensor:
    """Tensors one behind the other."""
    return torch.cat(parts, axis)


@op("Split", ints=(1,))
def split(
    x: Tensor, lengths: Ints | None = None, /, *, axis: int = 0, num_outputs: int | None = None, outputs: int = 1
) -> tuple[Tensor, ...]:
    """Parts along an axis: of these lengths, or equal (the last may be shorter)."""
    if lengths is not None:
        return torch.split(x, list(lengths), axis)
    count = num_outputs or outputs
    return torch.split(x, -(-x.size(axis) // count), axis)


@op("Slice", inline=True, ints=(1, 2, 3, 4), sizes=slice_)
def sliced(x: Tensor, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None, /) -> Tensor:
    """From starts to ends along axes, in steps that may go backwards."""
    first, last = _listed(starts), _listed(ends)
    dims = list(range(len(first))) if axes is None else [a if a >= 0 else a + x.dim() for a in _listed(axes)]
    strides = [1] * len(first) if steps is None else _listed(steps)
    if isinstance(x, Traced) and any(step < 0 for step in strides):
        raise UnknownError
    places: list[slice] = [slice(None)] * (max(dims, default=-1) + 1)
    for axis, start, end, step in zip(dims, first, last, strides, strict=True):
        if step < 0:
            x, start, end, step = _backwards(x, axis, start, end, step)
        open_end = isinstance(end, int) and end >= _FAR
        places[axis] = slice(None if _is_zero(start) else start, None if open_end else end, None if step == 1 else step)
    return x[tuple(places)]


def _is_zero(number: Any) -> bool:
    return isinstance(number, int) and number == 0


def _backwards(x: Tensor, axis: int, start: int, end: int, step: int) -> tuple[Tensor, int, int, int]:
    """The same slice of the axis turned round, with a step forwards."""
    length = x.size(axis)
    places = range(length)[start if start >= -length else 0 : None if end < -length else end : step]
    if not len(places):
        return x, 0, 0, 1
    return x.flip(axis), length - 1 - places[0], length - places[-1], -step


@op("Expand", ints=(1,))
def expand(x: Tensor, shape: Ints, /) -> Tensor:
    """Broadcast to a shape, and the shape to x."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))  # type: ignore[no-untyped-call]


@op("Tile", inline=True, ints=(1,))
def tile(x: Tensor, repeats: Ints, /) -> Tensor:
    """Repeated along each axis."""
    return x.repeat(tuple(_listed(repeats)))


@op("DepthToSpace", inline=True)
def depth_to_space(x: Tensor, /, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Channels moved into blocks of pixels."""
    batch, channels, height, width = (x.size(i) for i in range(4))
    depth = channels // blocksize**2
    if mode == "CRD":
        return torch.pixel_shuffle(x, blocksize)
    parts = x.reshape(batch, blocksize, blocksize, depth, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, depth, height * blocksize, width * blocksize)


@op("SpaceToDepth", inline=True)
def space_to_depth(x: Tensor, /, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Blocks of pixels moved into channels."""
    batch, channels, height, width = (x.size(i) for i in range(4))
    if mode == "CRD":
        return torch.pixel_unshuffle(x, blocksize)
    parts = x.reshape(batch, channels, height // blocksize, blocksize, width // blocksize, blocksize)
    moved = parts.permute(0, 3, 5, 1, 2, 4)
    return moved.reshape(batch, channels * blocksize**2, height // blocksize, width // blocksize)


@op("ReverseSequence")
def reverse_sequence(x: Tensor, lengths: Tensor, /, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """The first elements of each sequence back to front."""
    moved = x.movedim((batch_axis, time_axis), (0, 1))
    steps = torch.arange(moved.size(1), device=x.device)
    ends = lengths[:, None].to(steps.dtype)
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    turned = moved[torch.arange(moved.size(0), device=x.device)[:, None], places]
    return turned.movedim((0, 1), (batch_axis, time_axis))


@op("CenterCropPad", ints=(1,))
def center_crop_pad(x: Tensor, shape: Ints, /, *, axes: Ints | None = None) -> Tensor:
    """Cut or filled up with zeros on both sides, the odd one at the end."""
    for axis, wanted in zip(range(x.dim()) if axes is None else axes, shape, strict=True):
        length = x.size(axis)
        if wanted < length:
            x = x.narrow(axis, (length - wanted) // 2, wanted)
        elif wanted > length:
            before = (wanted - length) // 2
            x = torch.cat([_zeros(x, axis, before), x, _zeros(x, axis, wanted - length - before)], axis)
    return x


def _zeros(x: Tensor, axis: int, length: int) -> Tensor:
    """Like x, of another length along an axis."""
    return x.new_zeros([length if i == axis % x.dim() else n for i, n in enumerate(x.shape)])
