"""Comparisons, logic and bits."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from ..registry import op
from ..sizes import call, elementwise
from ..wide import wide


@op("Equal", inline=True, numbers=(1,), sizes=elementwise(operator.eq), differentiable=False)
@wide
def equal(a: Tensor, b: Tensor, /) -> Tensor:
    """A == b."""
    return torch.eq(a, b)


@op("Greater", inline=True, numbers=(1,), sizes=elementwise(operator.gt), differentiable=False)
@wide
def greater(a: Tensor, b: Tensor, /) -> Tensor:
    """A > b."""
    return torch.gt(a, b)


@op("GreaterOrEqual", inline=True, numbers=(1,), sizes=elementwise(operator.ge), differentiable=False)
@wide
def greater_or_equal(a: Tensor, b: Tensor, /) -> Tensor:
    """A >= b."""
    return torch.ge(a, b)


@op("Less", inline=True, numbers=(1,), sizes=elementwise(operator.lt), differentiable=False)
@wide
def less(a: Tensor, b: Tensor, /) -> Tensor:
    """A < b."""
    return torch.lt(a, b)


@op("LessOrEqual", inline=True, numbers=(1,), sizes=elementwise(operator.le), differentiable=False)
@wide
def less_or_equal(a: Tensor, b: Tensor, /) -> Tensor:
    """A <= b."""
    return torch.le(a, b)


op("And", inline=True, sizes=elementwise(operator.and_), differentiable=False)(torch.logical_and)
op("Or", inline=True, sizes=elementwise(operator.or_), differentiable=False)(torch.logical_or)
op("Xor", inline=True, sizes=elementwise(operator.xor), differentiable=False)(torch.logical_xor)
op("Not", inline=True, sizes=elementwise(lambda x: call(operator.not_, x), 1), differentiable=False)(torch.logical_not)


@op("BitwiseAnd", differentiable=False)
@wide
def bitwise_and(a: Tensor, b: Tensor, /) -> Tensor:
    """Bits that are set in both."""
    return a & b


@op("BitwiseOr", differentiable=False)
@wide
def bitwise_or(a: Tensor, b: Tensor, /) -> Tensor:
    """Bits that are set in either."""
    return a | b


@op("BitwiseXor", differentiable=False)
@wide
def bitwise_xor(a: Tensor, b: Tensor, /) -> Tensor:
    """Bits that are set in one of both."""
    return a ^ b


@op("BitwiseNot", differentiable=False)
@wide
def bitwise_not(a: Tensor, /) -> Tensor:
    """Bits that are not set."""
    return ~a
