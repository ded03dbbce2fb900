"""Changes of type."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from ..registry import op
from ..sizes import cast as cast_sizes
from ..tensors import torch_type
from ..values import Traced, UnknownError

_EIGHT = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)


@op("Cast", inline=True, sizes=lambda x, dtype, **_: cast_sizes(x, dtype=dtype))
def cast(x: Tensor, /, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """X in another type."""
    kind = ir.DataType(to)
    dtype = torch_type(kind, "Cast")
    if kind.bitwidth < 8:
        return wrapped(x, kind.bitwidth, dtype)
    return to_eight_bits(x, dtype, bool(saturate)) if dtype in _EIGHT else x.to(dtype)


@op("CastLike", inline=True)
def cast_like(x: Tensor, other: Tensor, /, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """X in the type of `other`."""
    dtype = other.dtype
    return to_eight_bits(x, dtype, bool(saturate)) if dtype in _EIGHT else x.to(dtype)


def to_eight_bits(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    """Floats of eight bits; with `saturate` what is too great becomes the greatest."""
    if isinstance(x, Traced):
        raise UnknownError  # one call says more than its parts
    wide = x.float()
    greatest = torch.finfo(dtype).max
    if saturate:
        return torch.clamp(wide, -greatest, greatest).to(dtype)
    beyond = wide.abs() > _TOO_GREAT.get(dtype, torch.inf)
    return torch.where(beyond, torch.nan, wide).to(dtype)


_TOO_GREAT = {torch.float8_e4m3fn: 464.0}
"""What rounds to no number, where PyTorch takes the greatest instead."""


def wrapped(x: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Integers of fewer than eight bits, cut off as hardware does it."""
    if isinstance(x, Traced):
        raise UnknownError
    kept = x.to(torch.int32) & ((1 << bits) - 1)
    return (torch.where(kept >= 1 << (bits - 1), kept - (1 << bits), kept) if dtype.is_signed else kept).to(dtype)


@op("BitCast", differentiable=False)
def bit_cast(x: Tensor, /, *, to: int) -> Tensor:
    """The same bits, read as another type of the same width."""
    return x.contiguous().view(torch_type(ir.DataType(to), "BitCast"))
