"""Convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op
from .padding import even, flat, window_pads

Ints = tuple[int, ...]
_CONV = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
_TRANSPOSED = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


@op("Conv", inline=True, weights=(1, 2))
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Convolution along one to three axes."""
    rank = weight.dim() - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    fixed = auto_pad in ("NOTSET", "VALID", "")
    lengths, kernel = ((0,) * rank,) * 2 if fixed else (_lengths(x), _lengths(weight))
    sides = window_pads(lengths, kernel, strides, dilations, pads, auto_pad)
    if not even(sides):
        x, sides = functional.pad(x, flat(sides)), [(0, 0)] * rank
    padding = tuple(before for before, _ in sides)
    function: Any = _CONV[rank]
    made: Tensor = function(x, weight, bias, strides, padding, dilations, group)
    return made


def _lengths(x: Tensor) -> Ints:
    return tuple(x.size(axis) for axis in range(2, x.dim()))


@op("ConvTranspose", weights=(1, 2))
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """The transpose of a convolution: computed without pads, then cut (or filled up) at the ends."""
    rank = weight.dim() - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    extra = output_padding or (0,) * rank
    function: Any = _TRANSPOSED[rank]
    longer = tuple(e if e < max(s, d) else 0 for e, s, d in zip(extra, strides, dilations, strict=True))
    sides = _cut(x, weight, strides, dilations, extra, pads, output_shape, auto_pad)
    if even(sides) and longer == extra and all(before >= 0 for before, _ in sides):
        padding = tuple(before for before, _ in sides)
        made: Tensor = function(x, weight, bias, strides, padding, extra, group, dilations)
        return made
    whole = function(x, weight, bias, strides, (0,) * rank, longer, group, dilations)
    cut: Tensor = functional.pad(whole, [-n for n in flat(sides)])
    return cut


def _cut(
    x: Tensor,
    weight: Tensor,
    strides: Ints,
    dilations: Ints,
    extra: Ints,
    pads: Ints | None,
    output_shape: Ints | None,
    auto_pad: str,
) -> list[tuple[int, int]]:
    """What is cut off at both ends of each axis."""
    kernel = _lengths(weight)
    if output_shape is None and auto_pad in ("NOTSET", "", "VALID"):
        return window_pads(kernel, kernel, strides, dilations, pads, auto_pad)
    lengths = _lengths(x)
    wanted = output_shape or tuple(n * s for n, s in zip(lengths, strides, strict=True))
    totals = [
        s * (n - 1) + e + (k - 1) * d + 1 - w
        for n, s, e, k, d, w in zip(lengths, strides, extra, kernel, dilations, wanted[-len(kernel) :], strict=True)
    ]
    if auto_pad == "SAME_UPPER":
        return [(total // 2, total - total // 2) for total in totals]
    return [(total - total // 2, total // 2) for total in totals]


@op("CausalConvWithState", weights=(1, 2))
def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    state: Tensor | None = None,
    /,
    *,
    activation: str = "none",
    ndim: int = 1,
    outputs: int = 1,
) -> tuple[Tensor, Tensor]:
    """Depthwise convolution that sees what came before, and the state for what comes next."""
    before = weight.size(-1) - 1
    first = x.new_zeros(*x.shape[:-1], before) if state is None else state
    longer = torch.cat([first, x], -1)
    made = torch.conv1d(longer, weight, bias, groups=x.size(1))
    if activation in ("silu", "swish"):
        made = functional.silu(made)
    return made, longer[..., longer.size(-1) - before :]


@op("ConvInteger", differentiable=False)
def conv_integer(
    x: Tensor, weight: Tensor, x_zero: Tensor | None = None, weight_zero: Tensor | None = None, /, **named: Any
) -> Tensor:
    """Convolution of integers; exact in 64-bit floats."""
    wide = x.double() - (0 if x_zero is None else x_zero.double())
    zero = 0 if weight_zero is None else weight_zero.double().reshape(-1, *[1] * (weight.dim() - 1))
    return conv(wide, weight.double() - zero, **named).round().to(torch.int32)


@op("DeformConv", weights=(1, 3))
def deform_conv(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    /,
    *,
    dilations: Ints = (1, 1),
    group: int = 1,
    kernel_shape: Ints | None = None,
    offset_group: int = 1,
    pads: Ints = (0, 0, 0, 0),
    strides: Ints = (1, 1),
) -> Tensor:
    """Convolution (2-D) at places that are moved by offsets (arXiv 1811.11168): samples, then a product."""
    height, width = weight.shape[2:]
    rows, columns = offset.shape[2:]
    batch, channels = x.shape[:2]
    moves = offset.reshape(batch, offset_group, height * width, 2, rows, columns)
    grid = _places(x, height, width, rows, columns, dilations, pads, strides) + moves
    scale = x.new_tensor([x.size(2), x.size(3)]).reshape(2, 1, 1)
    points = ((2 * grid + 1) / scale - 1).flip(3).permute(0, 1, 2, 4, 5, 3)
    points = points.reshape(batch * offset_group, height * width * rows, columns, 2)
    parts = x.reshape(batch * offset_group, channels // offset_group, *x.shape[2:])
    taken = functional.grid_sample(parts, points, align_corners=False)
    taken = taken.reshape(batch, offset_group, channels // offset_group, height * width, rows, columns)
    if mask is not None:
        taken = taken * mask.reshape(batch, offset_group, 1, height * width, rows, columns)
    taken = taken.reshape(batch, group, channels // group * height * width, rows * columns)
    kernels = weight.reshape(group, weight.size(0) // group, -1)
    made = torch.einsum("goc,bgcp->bgop", kernels, taken).reshape(batch, weight.size(0), rows, columns)
    return made if bias is None else made + bias[:, None, None]


def _places(
    x: Tensor, height: int, width: int, rows: int, columns: int, dilations: Ints, pads: Ints, strides: Ints
) -> Tensor:
    """Where each element of the kernel looks, [height * width, 2, rows, columns]."""
    y0 = torch.arange(height, device=x.device)[:, None, None, None] * dilations[0] - pads[0]
    x0 = torch.arange(width, device=x.device)[None, :, None, None] * dilations[1] - pads[1]
    down = torch.arange(rows, device=x.device)[None, None, :, None] * strides[0] + y0
    across = torch.arange(columns, device=x.device)[None, None, None, :] * strides[1] + x0
    shape = (height, width, rows, columns)
    both = torch.stack([down.expand(shape), across.expand(shape)], 2)
    return both.reshape(height * width, 2, rows, columns).to(x.dtype)
