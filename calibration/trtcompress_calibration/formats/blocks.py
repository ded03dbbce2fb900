"""Weights as integers of 4 or 8 bits, with a scale (and zero point) for each block of a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trtcompress_graph.encoding import FloatType

from ..scales import Floats, storable

Codes = npt.NDArray[np.uint8]

_RATIOS = tuple(1 - 0.03 * step for step in range(11))
"""Shares of the reach that 4-bit steps are tried for: 15 levels are too few to spend one on a lone outlier."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """`weight = (codes - zero_point) * scale`, block by block.

    Attributes:
        codes: [rows, columns], each in 0 .. 2 ** bits - 1.
        scale: [rows, blocks], positive.
        zero_point: [rows, blocks]; 2 ** (bits - 1) everywhere where the integers are symmetric.
        block: columns of a block; the last one may be shorter.
    """

    codes: Codes
    scale: Floats
    zero_point: Codes
    bits: int
    block: int

    @property
    def values(self) -> Floats:
        """What the integers stand for, [rows, columns]."""
        return _values(self.codes, self.scale, self.zero_point, self.block)

    @property
    def signed(self) -> npt.NDArray[np.int8]:
        """Integers about zero, for symmetric ones."""
        about: npt.NDArray[np.int8] = (self.codes.astype(np.int16) - 2 ** (self.bits - 1)).astype(np.int8)
        return about


def quantize_blocks(
    weight: Floats, bits: int, block: int, *, symmetric: bool, float_type: FloatType = "float32"
) -> Blocks:
    """Integers nearest to a weight.

    Symmetric: the greatest absolute value of a block falls on `2 ** (bits - 1) - 1`. Else the values of a block, with
    zero, fill all integers. With 4 bits the reach of each block is the share of it, 0.7 to 1, with the least squared
    error.

    Args:
        weight: [rows, columns]; a row is what one output multiplies.
        bits: 4 or 8.
        block: columns that share a scale; 0 is the whole row.
        symmetric: no zero points.
        float_type: that scales are stored in.
    """
    block = block or weight.shape[1]
    blocks = _split(weight, block)
    best: tuple[npt.NDArray[np.float32], ...] | None = None
    for ratio in _RATIOS if bits == 4 else (1.0,):
        scale, zero = _steps(blocks, bits, np.float32(ratio), symmetric, float_type)
        codes = _codes(blocks, scale, zero, bits, symmetric)
        error = np.square((codes - zero[..., None]) * scale[..., None] - blocks).sum(axis=-1)
        if best is None:
            best = scale, zero, codes, error
            continue
        better = error < best[3]
        scale, zero, error = (
            np.where(better, new, old) for new, old in zip((scale, zero, error), best[:2] + best[3:], strict=True)
        )
        best = scale, zero, np.where(better[..., None], codes, best[2]), error
    assert best is not None
    scale, zero, codes, _ = best
    flat = codes.reshape(len(weight), -1)[:, : weight.shape[1]]
    return Blocks(flat.astype(np.uint8), scale.astype(np.float32), zero.astype(np.uint8), bits, block)


def packed(codes: Codes, bits: int) -> Codes:
    """Codes along the last axis in bytes: two of 4 bits in one, the first in the low half."""
    if bits == 8:
        return codes
    even = np.concatenate([codes, np.zeros((*codes.shape[:-1], codes.shape[-1] % 2), np.uint8)], axis=-1)
    halves: Codes = even[..., 0::2] | (even[..., 1::2] << np.uint8(4))
    return halves


def _split(weight: Floats, block: int) -> Floats:
    """[rows, blocks, block]; zeros fill the last block."""
    missing = -weight.shape[1] % block
    split: Floats = np.pad(weight, ((0, 0), (0, missing))).reshape(len(weight), -1, block).astype(np.float32)
    return split


def _steps(
    blocks: Floats, bits: int, ratio: np.float32, symmetric: bool, float_type: FloatType
) -> tuple[Floats, Floats]:
    if symmetric:
        scale = storable(_positive(np.abs(blocks).max(axis=-1) * ratio / np.float32(2 ** (bits - 1) - 1)), float_type)
        return scale, np.full_like(scale, 2 ** (bits - 1))
    low, high = np.minimum(blocks.min(axis=-1), 0) * ratio, np.maximum(blocks.max(axis=-1), 0) * ratio
    scale = storable(_positive((high - low) / np.float32(2**bits - 1)), float_type)
    return scale, np.clip(np.rint(-low / scale), 0, 2**bits - 1)


def _codes(blocks: Floats, scale: Floats, zero: Floats, bits: int, symmetric: bool) -> Floats:
    least = 1 if symmetric else 0  # as far below the middle as above it
    codes: Floats = np.clip(np.rint(blocks / scale[..., None]) + zero[..., None], least, 2**bits - 1)
    return codes


def _positive(scale: Floats) -> Floats:
    """A block of zeros takes any step; so does one of numbers below float32's normal range."""
    positive: Floats = np.where(scale >= np.finfo(np.float32).tiny, scale, 1).astype(np.float32)
    return positive


def _values(codes: Codes, scale: Floats, zero: Codes, block: int) -> Floats:
    steps, zeros = (np.repeat(each, block, axis=1)[:, : codes.shape[1]] for each in (scale, zero.astype(np.float32)))
    values: Floats = ((codes.astype(np.float32) - zeros) * steps).astype(np.float32)
    return values
