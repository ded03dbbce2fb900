"""Rounding to a grid in few passes over memory: passes are what fake quantization costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

PIECE = 1 << 18
"""Numbers that a cache of the CPU holds some times over."""

Bound = Tensor | int
"""Least or greatest integer of the grid, one or in the shape of the scale."""


def to_grid(x: Tensor, scale: Tensor, least: Bound, greatest: Bound) -> Tensor:
    """The nearest multiple of the scale between two of them, half to even; with gradients of x and scale.

    Args:
        x: of any shape.
        scale: one, or a shape that goes with x.
        least: multiple of the scale, an integer.
        greatest: another one.
    """
    made: Tensor = _Grid.apply(x, scale, least, greatest)  # type: ignore[no-untyped-call]
    return made


def composed(x: Tensor, scale: Tensor, least: Bound, greatest: Bound) -> Tensor:
    """The same of PyTorch's own operators, for what reads nothing else."""
    return straight_round(_clamped(x / scale, least, greatest)) * scale


def straight_round(x: Tensor) -> Tensor:
    """Rounded to the nearest, half to even; the gradient is that of x."""
    return torch.round(x).detach() + (x - x.detach())


class _Grid(torch.autograd.Function):
    """Gradients go straight through inside the range; of the scale they are those of LSQ (arXiv 1902.08153)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, least: Bound, greatest: Bound) -> Tensor:
        """What Q/DQ makes of x; a zero has no sign, as integers have none."""
        ctx.save_for_backward(x, scale)
        ctx.bounds = least, greatest
        made = torch.empty_like(x, dtype=torch.result_type(x, scale))
        for given, out in _pieces(scale, x, made):
            torch.div(given, scale, out=out)
            _clamped(out, least, greatest, out).round_().add_(0.0).mul_(scale)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of x: what comes, where x is inside the range. Of the scale: `round(v) - v` there, outside the bound."""
        x, scale = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # gradients of these gradients are asked for
            of = [tensor for tensor, needed in zip((x, scale), wanted, strict=True) if needed]
            found = iter(torch.autograd.grad(composed(x, scale, *ctx.bounds), of, grads[0], create_graph=True))
            return *(next(found) if needed else None for needed in wanted), None, None
        of_x = torch.empty_like(x) if wanted[0] else x  # not written to then
        sums = []
        for given, grad, out in _pieces(scale, x, grads[0], of_x):
            v = given / scale
            clamped = _clamped(v, *ctx.bounds)
            inside = torch.eq(clamped, v, out=torch.empty_like(v))  # 0 or 1: kernels of truth values are slow
            if wanted[0]:
                out.copy_(grad * inside) if out.dtype != grad.dtype else torch.mul(grad, inside, out=out)
            if wanted[1]:
                torch.mul(clamped, inside, out=v)
                sums.append(clamped.round_().sub_(v).mul_(grad).sum_to_size(scale.shape))
        of_scale = torch.stack(sums).sum(0).to(scale.dtype) if sums else None
        return of_x if wanted[0] else None, of_scale, None, None


def _clamped(x: Tensor, least: Bound, greatest: Bound, out: Tensor | None = None) -> Tensor:
    return torch.clamp(x, least, greatest, out=out)  # type: ignore[arg-type]


def _pieces(scale: Tensor, first: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same places in some tensors of one shape, one after the other; whole ones where there is no need.

    Args:
        scale: one of several numbers or axes goes with whole tensors alone, and so do their bounds.
        first: on a CPU and dense, to be cut.
        *others: in the same order of axes.
    """
    tensors = (first, *others)
    alike = all(tensor.stride() == first.stride() for tensor in others)
    large = first.device.type == "cpu" and first.numel() >= 2 * PIECE
    if scale.numel() > 1 or scale.dim() > 1 or not large or not alike or not _dense(first):
        yield tensors
        return
    flat = (tensor.as_strided((first.numel(),), (1,), tensor.storage_offset()) for tensor in tensors)
    yield from zip(*(torch.split(tensor, PIECE) for tensor in flat), strict=True)


def _dense(tensor: Tensor) -> bool:
    """Whether the numbers lie side by side, in any order of axes."""
    wide = sorted((step, size) for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)
    expected = 1
    for step, size in wide:
        if step != expected:
            return False
        expected *= size
    return True
