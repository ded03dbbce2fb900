"""Activation functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op

op("Relu", inline=True)(torch.relu)
op("Softsign", inline=True)(functional.softsign)
op("Mish", inline=True)(functional.mish)
op("HardSwish", inline=True)(functional.hardswish)


@op("Softplus", inline=True)
def softplus(x: Tensor, /) -> Tensor:
    """log(1 + exp(x)), without PyTorch's linear part."""
    return torch.logaddexp(x, torch.zeros_like(x))


@op("LeakyRelu", inline=True)
def leaky_relu(x: Tensor, /, *, alpha: float = 0.01) -> Tensor:
    """x, times `alpha` below zero."""
    return functional.leaky_relu(x, alpha)


@op("PRelu", inline=True, weights=(1,))
def prelu(x: Tensor, slope: Tensor, /) -> Tensor:
    """x, times a learned slope below zero."""
    return torch.where(x < 0, x * slope, x)


@op("Elu", inline=True)
def elu(x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
    """x, `alpha * (exp(x) - 1)` below zero."""
    return functional.elu(x, alpha)


@op("Celu", inline=True)
def celu(x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
    """x, `alpha * (exp(x / alpha) - 1)` below zero."""
    return functional.celu(x, alpha)


@op("Selu", inline=True)
def selu(x: Tensor, /, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Tensor:
    """`gamma` times Elu."""
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0.0)))


@op("Gelu", inline=True)
def gelu(x: Tensor, /, *, approximate: str = "none") -> Tensor:
    """X times the normal distribution function of x."""
    return functional.gelu(x, approximate=approximate)


@op("Swish", inline=True)
def swish(x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
    """X times the sigmoid of `alpha * x`."""
    return functional.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@op("SwiGLU", inline=True)
def swiglu(gate: Tensor, x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
    """X times a gate that goes through Swish."""
    return swish(gate, alpha=alpha) * x


@op("HardSigmoid", inline=True)
def hard_sigmoid(x: Tensor, /, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """`alpha * x + beta`, cut at 0 and 1."""
    return torch.clamp(alpha * x + beta, 0, 1)


@op("ThresholdedRelu", inline=True)
def thresholded_relu(x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
    """X where it is above `alpha`, else 0."""
    return torch.where(x > alpha, x, 0)


@op("Shrink")
def shrink(x: Tensor, /, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """X moved by `bias` towards zero beyond `lambd`, else 0."""
    shrunk = torch.where(x > lambd, x - bias, torch.where(x < -lambd, x + bias, 0))
    return shrunk.to(x.dtype)


@op("Softmax", inline=True)
def softmax(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """Exponentials, divided by their sum along an axis."""
    return torch.softmax(x, axis)


@op("LogSoftmax", inline=True)
def log_softmax(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """The logarithm of Softmax."""
    return torch.log_softmax(x, axis)


@op("Hardmax", differentiable=False)
def hardmax(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """1 at the first greatest element along an axis, else 0."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)
