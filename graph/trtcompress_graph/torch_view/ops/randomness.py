"""Random numbers, from PyTorch's generator; a `seed` starts one of its own each time."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from ..registry import op
from ..tensors import torch_type


def _generator(seed: float | None, device: torch.device) -> torch.Generator | None:
    return None if seed is None else torch.Generator(device).manual_seed(int(seed))


def _kind(dtype: int | None, usual: torch.dtype) -> torch.dtype:
    return usual if dtype is None else torch_type(ir.DataType(dtype))


def _uniform(shape: torch.Size, kind: torch.dtype, device: torch.device, seed: float | None) -> Tensor:
    return torch.rand(shape, generator=_generator(seed, device), device=device, dtype=kind)


def _normal(shape: torch.Size, kind: torch.dtype, device: torch.device, seed: float | None) -> Tensor:
    return torch.randn(shape, generator=_generator(seed, device), device=device, dtype=kind)


@op("RandomUniformLike", differentiable=False, random=True)
def uniform_like(
    x: Tensor, /, *, dtype: int | None = None, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Tensor:
    """Numbers between two ends, in the shape of x."""
    return low + (high - low) * _uniform(x.shape, _kind(dtype, x.dtype), x.device, seed)


@op("RandomNormalLike", differentiable=False, random=True)
def normal_like(
    x: Tensor, /, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Tensor:
    """Numbers of a normal distribution, in the shape of x."""
    return mean + scale * _normal(x.shape, _kind(dtype, x.dtype), x.device, seed)


@op("Bernoulli", differentiable=False, random=True)
def bernoulli(x: Tensor, /, *, dtype: int | None = None, seed: float | None = None) -> Tensor:
    """1 with the probability x, else 0."""
    return torch.bernoulli(x, generator=_generator(seed, x.device)).to(_kind(dtype, x.dtype))


@op("Multinomial", differentiable=False, random=True)
def multinomial(x: Tensor, /, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Tensor:
    """Classes drawn by unnormalized log probabilities [N, C]."""
    weights = torch.softmax(x, -1)
    drawn = torch.multinomial(weights, sample_size, replacement=True, generator=_generator(seed, x.device))
    return drawn.to(_kind(dtype, torch.int32))
