"""Norms that take statistics of each sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op
from ..roots import root
from ..values import Traced, UnknownError

Ints = tuple[int, ...]


@op("LayerNormalization", inline=True, weights=(1, 2))
def layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    /,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """Mean 0 and variance 1 over the axes from `axis` on, then scale and bias; also the mean and 1/deviation."""
    axis = axis % x.dim()
    if outputs == 1 and scale.dim() == x.dim() - axis:
        return (functional.layer_norm(x, scale.shape, scale, bias, epsilon),)
    if isinstance(x, Traced):
        raise UnknownError  # one call says more than its parts
    dims = tuple(range(axis, x.dim()))
    wide = x.float() if stash_type == 1 and x.dtype.itemsize < 4 else x
    mean = wide.mean(dims, keepdim=True)
    inverse = torch.rsqrt((wide - mean).square().mean(dims, keepdim=True) + epsilon)
    made = ((wide - mean) * inverse).to(x.dtype) * scale
    return made if bias is None else made + bias, mean, inverse


@op("RMSNormalization SimplifiedLayerNormalization", weights=(1,))
def rms_norm(x: Tensor, scale: Tensor, /, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    """Mean square 1 over the axes from `axis` on, then scale."""
    dims = tuple(range(axis % x.dim(), x.dim()))
    wide = x.float() if stash_type == 1 and x.dtype.itemsize < 4 else x
    return (wide * torch.rsqrt(wide.square().mean(dims, keepdim=True) + epsilon)).to(x.dtype) * scale


@op("InstanceNormalization", inline=True, weights=(1, 2))
def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, /, *, epsilon: float = 1e-5) -> Tensor:
    """Mean 0 and variance 1 over each channel of each sample, then scale and bias."""
    # functional.instance_norm refuses maps of one element
    return torch.instance_norm(x, scale, bias, None, None, True, 0.0, epsilon, True)


@op("GroupNormalization", weights=(1, 2))
def group_norm(
    x: Tensor, scale: Tensor, bias: Tensor, /, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Mean 0 and variance 1 over groups of channels, then scale and bias of each channel (of each group before 21)."""
    if scale.numel() == x.size(1):
        return functional.group_norm(x, num_groups, scale, bias, epsilon)
    repeats = x.size(1) // scale.numel()
    return functional.group_norm(
        x, num_groups, scale.repeat_interleave(repeats), bias.repeat_interleave(repeats), epsilon
    )


@op("LpNormalization")
def lp_norm(x: Tensor, /, *, axis: int = -1, p: int = 2) -> Tensor:
    """Divided by the norm along an axis; 0 stays 0."""
    length = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(length == 0, 0.0, x / torch.where(length == 0, 1.0, length)).to(x.dtype)


@op("MeanVarianceNormalization")
def mean_variance_norm(x: Tensor, /, *, axes: Ints = (0, 2, 3)) -> Tensor:
    """Mean 0 and deviation 1 over axes."""
    mean = x.mean(axes, keepdim=True)
    deviation = root((x.square().mean(axes, keepdim=True) - mean.square()).clamp(min=0))
    return (x - mean) / (deviation + 1e-9)


@op("LRN")
def local_response_norm(
    x: Tensor, /, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Tensor:
    """Divided by a power of the mean square over neighbouring channels."""
    before = (size - 1) // 2
    square = x.square().flatten(2).unsqueeze(1)
    padded = functional.pad(square, (0, 0, before, size - 1 - before))
    total = functional.avg_pool2d(padded, (size, 1), 1).reshape(x.shape)
    return x / (bias + alpha * total) ** beta
