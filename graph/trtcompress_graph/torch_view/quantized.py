"""Fake quantization: what Quantize and Dequantize make of a float, with a gradient.

Gradients go straight through the rounding, and are 0 for values beyond the range (arXiv 1308.3432). Of the scale they
are those of LSQ (arXiv 1902.08153): `round(v) - v` inside, the end of the range outside, with v = x / scale.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .grid import composed, to_grid
from .tied import counting_scale


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor | int, low: int, high: int, axis: int = 1, block: int = 0
) -> Tensor:
    """X rounded to a grid of integers from `low` to `high`, as Q/DQ does it.

    Scale and zero point are one, one a channel along `axis`, or one for each `block` of neighbours along it.
    """
    scale = spread(scale, x, axis, block)
    shift = spread(zero_point, x, axis, block).to(x.dtype) if isinstance(zero_point, Tensor) else zero_point
    least, greatest = low - shift, high - shift
    # Compilers and `torch.func` take PyTorch's own operators alone
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return (composed if traced else to_grid)(x, scale, least, greatest)


def fake_float8(x: Tensor, scale: Tensor, dtype: torch.dtype, axis: int = 1, block: int = 0) -> Tensor:
    """X rounded to floats of eight bits."""
    scale = spread(scale, x, axis, block)
    greatest = torch.finfo(dtype).max
    inside = torch.clamp(x / scale, -greatest, greatest)
    return (inside.to(dtype).to(x.dtype).detach() + (inside - inside.detach())) * scale


def learned_scale(scale: Tensor, x: Tensor, high: int, weight: bool) -> Tensor:
    """The scale itself, with its gradient divided by the root of how many elements share it times the range.

    A weight is one tensor; otherwise the first axis of x counts samples.
    """
    count = x.numel() if weight or x.dim() < 2 else x[0].numel()
    factor = 1 / math.sqrt(max(count / max(scale.numel(), 1), 1) * max(high, 1))
    positive = counting_scale(scale)
    return positive.detach() + (positive - positive.detach()) * factor


def spread(values: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Scales (or zero points) in a shape that goes with x."""
    if values.numel() == 1 and values.dim() <= 1:
        return values.reshape(())
    axis = axis % x.dim()
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.size(axis))
    if values.dim() > 1:
        return values
    return values.reshape([-1 if i == axis else 1 for i in range(x.dim())])


def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    low: int,
    high: int,
    dtype: torch.dtype,
    axis: int = 1,
    block: int = 0,
) -> Tensor:
    """The integers."""
    real = x.to(torch.promote_types(x.dtype, torch.float32))
    rounded = torch.round(real / spread(scale, x, axis, block))
    if zero_point is not None:
        rounded = rounded + spread(zero_point, x, axis, block).to(real.dtype)
    return torch.clamp(rounded, low, high).to(dtype)


def quantize_float8(
    x: Tensor, scale: Tensor, dtype: torch.dtype, axis: int = 1, block: int = 0, saturate: int = 1
) -> Tensor:
    """The floats of eight bits."""
    real = x.float() / spread(scale, x, axis, block).float()
    greatest = torch.finfo(dtype).max
    return (torch.clamp(real, -greatest, greatest) if saturate else real).to(dtype)


def dequantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int = 1,
    block: int = 0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The numbers that integers (or floats of eight bits) stand for."""
    factor = spread(scale, x, axis, block)
    if x.is_floating_point():
        return (x.to(torch.float32) * factor.float()).to(dtype or scale.dtype)
    whole = x.to(torch.int32)
    if zero_point is not None:
        whole = whole - spread(zero_point, x, axis, block).to(torch.int32)
    return (whole.to(torch.promote_types(factor.dtype, torch.float32)) * factor).to(dtype or scale.dtype)
