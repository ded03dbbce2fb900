"""Loops over activations, compiled by numba; they release the interpreter lock.

Floats are looked at as integers: with the magnitude bits of negative numbers flipped, the order of the bits is the
order of the values, and NaN and infinity stand at both ends. Integer minima vectorize, and are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

_F = TypeVar("_F", bound=Callable[..., Any])
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Counts = NDArray[np.int64]
Tables = NDArray[np.uint32]
Table = NDArray[np.uint32]

BLOCK = 256
"""Values that are looked at thrice in a row, for extremes, bins and counts, while they are in the first cache."""

_SMALL = 1 << 15
_MAGNITUDE = np.int32(0x7FFFFFFF)
_SIGN = np.int32(31)
_INFINITY = 0x7F800000
_ONE = np.uint32(1)


def _compiled(function: _F) -> _F:
    """Compile when first called, and keep the machine code where a folder for it can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no place to write to
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


@_compiled
def extremes(bits: Ints, lo: np.int32, hi: np.int32) -> tuple[np.int32, np.int32]:
    """Least and greatest value, as ordered integers, of float32 seen as int32."""
    for i in range(bits.size):
        ordered = bits[i] ^ ((bits[i] >> _SIGN) & _MAGNITUDE)
        lo = min(lo, ordered)
        hi = max(hi, ordered)
    return lo, hi


@_compiled
def sweep(
    values: Floats, bits: Ints, counts: Counts, tables: Tables, exponent: int, least: int
) -> tuple[np.int32, np.int32, int, bool]:
    """Count |x| in bins of width 2**exponent; where a value does not fit, the bins are merged in pairs first.

    Args:
        values: float32, flat.
        bits: the same memory as int32.
        counts: int64, a power of two long; added to.
        tables: uint32, 4 x counts; zeros before and after. Four, so that equal values in a row do not wait for
            each other.
        exponent: of the bin width so far.
        least: exponent of the least bin width.

    Returns:
        least and greatest value as ordered integers, the exponent, and whether all values are finite.
    """
    lo, hi = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    small = values.size < _SMALL
    widest = 126 + int(np.log2(counts.size))
    scale = np.float32(2.0 ** (-exponent))
    index = np.empty(BLOCK, np.uint32)
    first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
    for start in range(0, values.size, BLOCK):
        # Slices: with a sum as its index numba looks for negative ones, and no loop over them vectorizes.
        block = values[start : start + BLOCK]
        block_lo, block_hi = extremes(bits[start : start + BLOCK], np.int32(0x7FFFFFFF), np.int32(-0x80000000))
        lo, hi = min(lo, block_lo), max(hi, block_hi)
        magnitude = int(max(np.int64(block_hi), ~np.int64(block_lo)))
        if magnitude >= _INFINITY:
            _flush(tables, counts)
            return lo, hi, exponent, False
        needed = max(least, (magnitude >> 23) - widest)
        if needed > exponent:
            _flush(tables, counts)
            _merge_bins(counts, needed - exponent)
            exponent = needed
            scale = np.float32(2.0 ** (-exponent))
        if small:
            _count_few(block, scale, counts)
        else:
            _count(block, scale, first, second, third, fourth, index)
    if not small:
        _flush(tables, counts)
    return lo, hi, exponent, True


@_compiled
def _count(values: Floats, scale: np.float32, a: Table, b: Table, c: Table, d: Table, index: Table) -> None:
    """Indices first (vectorized), then the increments."""
    for i in range(values.size):
        index[i] = np.int32(abs(values[i]) * scale)
    whole = values.size - values.size % 4
    for i in range(0, whole, 4):
        a[index[i]] += _ONE
        b[index[i + 1]] += _ONE
        c[index[i + 2]] += _ONE
        d[index[i + 3]] += _ONE
    for i in range(whole, values.size):
        a[index[i]] += _ONE


@_compiled
def _count_few(values: Floats, scale: np.float32, counts: Counts) -> None:
    """Without tables, which cost more to empty than a small tensor to count."""
    for i in range(values.size):
        counts[np.uint32(abs(values[i]) * scale)] += 1


@_compiled
def _flush(tables: Tables, counts: Counts) -> None:
    for t in range(tables.shape[0]):
        for i in range(counts.size):
            counts[i] += tables[t, i]
            tables[t, i] = 0


@_compiled
def _merge_bins(counts: Counts, doublings: int) -> None:
    """Make bins 2**doublings times as wide."""
    for i in range(1, counts.size):
        moved = counts[i]
        counts[i] = 0
        counts[i >> min(doublings, 62)] += moved


@_compiled
def square_errors(
    counts: Counts, centers: NDArray[np.float64], thresholds: NDArray[np.float64], steps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Summed squared error of rounding to multiples of a step and clipping at a threshold, for each pair of them."""
    errors = np.zeros(thresholds.size)
    for k in range(counts.size):
        if counts[k] == 0:
            continue
        for c in range(thresholds.size):
            rounded = min(np.rint(centers[k] / steps[c]) * steps[c], thresholds[c])
            errors[c] += counts[k] * (rounded - centers[k]) ** 2
    return errors
