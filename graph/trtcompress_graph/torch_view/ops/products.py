"""Products of matrices."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import op
from ..wide import wide


@op("MatMul", inline=True, weights=(0, 1))
@wide
def matmul(a: Tensor, b: Tensor, /) -> Tensor:
    """Products of the last two axes."""
    return torch.matmul(a, b)


@op("Gemm", inline=True, weights=(0, 1, 2))
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Alpha * a @ b + beta * c."""
    if _linear(c, alpha, beta, transA) and transB:
        return functional.linear(a, b, c)
    a, b = a.t() if transA else a, b.t() if transB else b
    if _linear(c, alpha, beta, 0) and c is not None:
        return torch.addmm(c, a, b)
    made = torch.matmul(a, b)
    made = made if alpha == 1 else made * alpha
    return made if c is None else made + (c if beta == 1 else c * beta)


def _linear(c: Tensor | None, alpha: float, beta: float, transposed: int) -> bool:
    """Whether PyTorch's fused functions take it: no factors, and a bias that is a vector."""
    return alpha == 1 and beta == 1 and not transposed and (c is None or (c.dim() == 1 and c.is_floating_point()))


@op("Einsum", inline=True, weights=(0, 1))
def einsum(*factors: Tensor, equation: str) -> Tensor:
    """Einstein's sums."""
    return torch.einsum(re.sub(r"\s", "", equation), *factors)


@op("MatMulInteger", differentiable=False)
def matmul_integer(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None, /) -> Tensor:
    """Products of integers; exact in 64-bit floats."""
    left = a.double() - (0 if a_zero is None else _rows(a_zero).double())
    right = b.double() - (0 if b_zero is None else b_zero.double())
    return torch.matmul(left, right).round().to(torch.int32)


def _rows(zero: Tensor) -> Tensor:
    return zero[:, None] if zero.dim() == 1 and zero.numel() > 1 else zero


@op("Det")
def determinant(x: Tensor, /) -> Tensor:
    """Determinants of the last two axes."""
    made: Tensor = torch.linalg.det(x)
    return made
