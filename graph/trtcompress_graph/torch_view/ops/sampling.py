"""Samples at places that a grid says, and grids."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op

_MODES = {"linear": "bilinear", "cubic": "bicubic"}


@op("GridSample")
def grid_sample(
    x: Tensor, grid: Tensor, /, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    """Elements of images or volumes at places from -1 to 1."""
    return functional.grid_sample(
        x, grid, mode=_MODES.get(mode, mode), padding_mode=padding_mode, align_corners=bool(align_corners)
    )


@op("AffineGrid", ints=(1,))
def affine_grid(theta: Tensor, size: tuple[int, ...], /, *, align_corners: int = 0) -> Tensor:
    """A grid moved by matrices."""
    return functional.affine_grid(theta, list(size), align_corners=bool(align_corners))


@op("Col2Im", ints=(1, 2))
def col2im(
    x: Tensor,
    image: tuple[int, ...],
    block: tuple[int, ...],
    /,
    *,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Blocks put back where a convolution took them, summed where they overlap; any number of axes."""
    rank = len(block)
    dilations, strides = dilations or (1,) * rank, strides or (1,) * rank
    pads = pads or (0,) * 2 * rank
    lengths = [image[i] + pads[i] + pads[i + rank] for i in range(rank)]
    where = torch.zeros((1, 1), dtype=torch.int64, device=x.device)
    for i in range(rank):  # the place in the padded image of each element of each block
        steps = (lengths[i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
        inner = torch.arange(block[i], device=x.device)[:, None] * dilations[i]
        outer = torch.arange(steps, device=x.device)[None] * strides[i]
        line = inner + outer
        where = (where[:, None, :, None] * lengths[i] + line[None, :, None, :]).flatten(2).flatten(0, 1)
    columns = x.reshape(x.size(0), -1, where.numel())
    total = columns.new_zeros(*columns.shape[:2], _product(lengths))
    filled = total.index_add(2, where.reshape(-1), columns).reshape(*columns.shape[:2], *lengths)
    for i in range(rank):
        filled = filled.narrow(i + 2, pads[i], image[i])
    return filled


def _product(lengths: list[int]) -> int:
    total = 1
    for length in lengths:
        total *= length
    return total
