"""Functions of one number."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from ..registry import op
from ..sizes import ceil, elementwise, floor
from ..wide import wide

for _name, _function in {
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Reciprocal": torch.reciprocal,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}.items():
    op(_name, inline=True)(_function)

op("Round", inline=True)(torch.round)
op("IsNaN", inline=True, differentiable=False)(torch.isnan)


@op("Identity", inline=True, sizes=lambda x, dtype: x)
def identity(x: Tensor, /) -> Tensor:
    """The input itself."""
    return x


@op("Abs", inline=True, sizes=elementwise(abs, 1))
@wide
def absolute(x: Tensor, /) -> Tensor:
    """Absolute values."""
    return torch.abs(x)


@op("Neg", inline=True, sizes=elementwise(operator.neg, 1))
def negative(x: Tensor, /) -> Tensor:
    """The other sign."""
    return -x


@op("Floor", inline=True, sizes=floor)
def round_down(x: Tensor, /) -> Tensor:
    """The greatest integers below."""
    return torch.floor(x)


@op("Ceil", inline=True, sizes=ceil)
def round_up(x: Tensor, /) -> Tensor:
    """The least integers above."""
    return torch.ceil(x)


@op("Sign", inline=True)
@wide
def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1."""
    return torch.sign(x)


@op("IsInf", differentiable=False)
def is_infinite(x: Tensor, /, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Where x is infinite, of either sign or of one."""
    x = x if x.dtype.itemsize > 1 else x.float()
    if detect_negative and detect_positive:
        return torch.isinf(x)
    if not (detect_negative or detect_positive):
        return torch.zeros_like(x, dtype=torch.bool)
    return torch.isposinf(x) if detect_positive else torch.isneginf(x)
