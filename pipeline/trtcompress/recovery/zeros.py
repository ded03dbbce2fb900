"""Weights that were made zero on purpose stay zero: 2:4 sparse ones, and others of which many are.

Zeros of a quantized weight say less, since rounding makes more of them: there the float model tells which were meant,
or else the pattern that sparse kernels need, two zeros in every four along what is summed over (arXiv 2104.08378).
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from trtcompress_graph.torch_view.module import META
from trtcompress_graph.torch_view.names import initializer_name

SPARSE = 0.4
"""Share of zeros from which they are no chance."""

QUANTIZED = "_quantized"
"""What the name of a weight ends with where its integers are stored."""

FEWEST = 64
"""Weights under which a pattern of two in four may be chance."""


def keep_zeros(module: nn.Module, floats: nn.Module | None = None) -> int:
    """Let no gradient reach the zeros of sparse weights (not of one that is all zero); how many weights are sparse.

    Args:
        module: that is trained.
        floats: the float model of a quantized one, of which weights with the same names tell what was meant.
    """
    quantized = module.meta[META]["grids"] if isinstance(module, fx.GraphModule) and META in module.meta else {}
    meant = dict(floats.named_parameters()) if floats is not None else {}
    found = 0
    for name, parameter in module.named_parameters():
        if parameter.dim() < 2 or not parameter.requires_grad:
            continue
        kept = parameter.detach() != 0
        sparse = _is_sparse(kept)
        if initializer_name(name) in quantized:
            original = meant.get(name.removesuffix(QUANTIZED))
            if original is not None and original.shape == kept.shape and _is_sparse(original.detach() != 0):
                kept = kept | (original.detach() != 0)
            else:
                sparse = sparse and _two_of_four(kept)
        if sparse:
            parameter.register_hook(_Masked(kept))  # type: ignore[no-untyped-call]
            found += 1
    return found


def _is_sparse(kept: Tensor) -> bool:
    return SPARSE <= float((~kept).float().mean()) < 1


def _two_of_four(kept: Tensor) -> bool:
    """Whether of four in a row no more than two are kept: along the first axis of a matrix, or the second of any."""
    if kept.numel() < FEWEST:
        return False
    fours = [kept.movedim(axis, -1).reshape(-1, 4) for axis in (0, 1) if kept.shape[axis] % 4 == 0]
    return any(bool((rows.sum(1) <= 2).all()) for rows in fours)


class _Masked:
    """A gradient where a weight is none of the zeros."""

    def __init__(self, kept: torch.Tensor) -> None:
        self._kept = kept

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        self._kept = self._kept.to(gradient.device)
        return gradient * self._kept
