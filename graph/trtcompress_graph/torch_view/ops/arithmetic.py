"""Functions of two or more numbers, with broadcasting."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op
from ..sizes import choose, divide, elementwise, folded, greatest, least, remainder
from ..wide import wide


@op("Add", inline=True, numbers=(0, 1), sizes=elementwise(operator.add))
@wide
def add(a: Tensor, b: Tensor, /) -> Tensor:
    """Sums."""
    return a + b


@op("Sub", inline=True, numbers=(0, 1), sizes=elementwise(operator.sub))
@wide
def subtract(a: Tensor, b: Tensor, /) -> Tensor:
    """Differences."""
    return a - b


@op("Mul", inline=True, numbers=(0, 1), sizes=elementwise(operator.mul))
@wide
def multiply(a: Tensor, b: Tensor, /) -> Tensor:
    """Products."""
    return a * b


@op("Div", inline=True, numbers=(0, 1), sizes=divide)
@wide
def quotient(a: Tensor, b: Tensor, /) -> Tensor:
    """Quotients; those of integers are rounded towards zero."""
    return a / b if _real(a) and _real(b) else torch.div(a, b, rounding_mode="trunc")


def _real(x: Any) -> bool:
    return isinstance(x, float) if isinstance(x, (int, float)) else bool(x.is_floating_point())


@op("Pow", inline=True, numbers=(1,))
@wide
def power(x: Tensor, exponent: Tensor, /) -> Tensor:
    """Powers, of the type of x."""
    kind = x.dtype
    alike = not isinstance(exponent, Tensor) or exponent.dtype == kind
    if kind.is_floating_point and alike:
        return torch.pow(x, exponent)
    return torch.pow(x.double(), exponent).to(kind)


@op("Mod", inline=True, numbers=(1,), sizes=remainder)
@wide
def modulo(a: Tensor, b: Tensor, /, *, fmod: int = 0) -> Tensor:
    """What is left of a division: with the sign of b, or of a where `fmod`."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@op("Max", inline=True, sizes=folded(greatest))
@wide
def maximum(first: Tensor, /, *rest: Tensor) -> Tensor:
    """The greatest of all."""
    for other in rest:
        first = torch.maximum(first, other)
    return first


@op("Min", inline=True, sizes=folded(least))
@wide
def minimum(first: Tensor, /, *rest: Tensor) -> Tensor:
    """The least of all."""
    for other in rest:
        first = torch.minimum(first, other)
    return first


@op("Sum", inline=True, sizes=folded(operator.add))
def total(first: Tensor, /, *rest: Tensor) -> Tensor:
    """The sum of all."""
    for other in rest:
        first = first + other
    return first


@op("Mean", inline=True)
def average(first: Tensor, /, *rest: Tensor) -> Tensor:
    """The mean of all."""
    return total(first, *rest) / (1 + len(rest))


@op("Clip", inline=True, numbers=(1, 2))
@wide
def clip(x: Tensor, low: Any = None, high: Any = None, /) -> Tensor:
    """Values no less than `low` and no greater than `high`."""
    if low is None and high is None:
        return x
    numbers = isinstance(low, (int, float)) and isinstance(high, (int, float))
    if numbers and low < high and x.is_floating_point():
        return functional.hardtanh(x, low, high)  # its gradient is one kernel, clamp's are five
    if low is None or high is None or isinstance(low, (int, float)) == isinstance(high, (int, float)):
        return torch.clamp(x, low, high)
    return torch.clamp(torch.clamp(x, min=low), max=high)


@op("Where", inline=True, numbers=(1, 2), sizes=choose)
@wide
def where(condition: Tensor, a: Tensor, b: Tensor, /) -> Tensor:
    """`a` where the condition holds, else `b`."""
    return torch.where(condition, a, b)


@op("BitShift", differentiable=False)
@wide
def shift(a: Tensor, b: Tensor, /, *, direction: str) -> Tensor:
    """Bits moved LEFT or RIGHT."""
    return torch.bitwise_left_shift(a, b) if direction == "LEFT" else torch.bitwise_right_shift(a, b)
