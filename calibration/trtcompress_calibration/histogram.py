"""Histograms of activations that do not depend on how the samples were batched, ordered or split.

|x| is counted in bins whose width is a power of two. When a greater value arrives, neighbouring bins are merged until
it fits. Both the scaling of a float by a power of two and the merging of pairs are exact, so the final bins depend on
the values alone: the width follows from the greatest one, the counts are integers.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from .samples import Array

BINS = 8192
"""Bins of a histogram. The values occupy 4096 to 8192 of them, so that 2048 over [0, amax] can be made of them."""

LEAST_EXPONENT = -113
"""Bins are not narrower than this power of two; values under 2**-100 count as zero."""

BULK = 0.6
"""More than the half that a leaky rectifier makes small by design, and less than what a spectrum loses."""

_scratch = threading.local()


class Extremes:
    """Least and greatest value of a tensor; 0 where nothing was read.

    Attributes:
        min: least value.
        max: greatest value.
        count: number of values read.
    """

    def __init__(self) -> None:
        self.min = 0.0
        self.max = 0.0
        self.count = 0

    @property
    def amax(self) -> float:
        """Greatest absolute value."""
        return max(abs(self.min), abs(self.max))

    def update(self, array: Array) -> None:
        """Add the values of an array.

        Raises:
            ValueError: one is NaN or infinite.
        """
        from . import kernels

        values = _flat(array)
        if values.size:
            lo, hi = kernels.extremes(values.view(np.int32), np.int32(2**31 - 1), np.int32(-(2**31)))
            self._widen(_float(lo), _float(hi), values.size)

    def add(self, other: Extremes, times: int = 1) -> None:
        """Add what another one read, as if it had been read `times` times."""
        if other.count:
            self._widen(other.min, other.max, other.count * times)

    def _widen(self, lo: float, hi: float, count: int) -> None:
        if not (np.isfinite(lo) and np.isfinite(hi)):
            raise ValueError("NaN or infinity")
        self.min = lo if not self.count else min(self.min, lo)
        self.max = hi if not self.count else max(self.max, hi)
        self.count += count


class Histogram(Extremes):
    """Counts of |x|, with the extremes of x.

    Attributes:
        counts: int64, `BINS` long: bin `i` counts `i * width <= |x| < (i + 1) * width`.
        exponent: the width of a bin is 2**exponent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.exponent = LEAST_EXPONENT

    @property
    def width(self) -> float:
        """Width of a bin."""
        return float(2.0**self.exponent)

    def update(self, array: Array) -> None:
        """Count the values of an array, in one sweep over its memory.

        Raises:
            ValueError: one is NaN or infinite; the counts are of no use then.
        """
        from . import kernels

        values = _flat(array)
        if not values.size:
            return
        lo, hi, exponent, _ = kernels.sweep(
            values, values.view(np.int32), self.counts, _tables(), self.exponent, LEAST_EXPONENT
        )
        self._widen(_float(lo), _float(hi), values.size)
        self.exponent = int(exponent)

    def add(self, other: Extremes, times: int = 1) -> None:
        """Add what another histogram counted, `times` times over."""
        if not isinstance(other, Histogram):
            raise TypeError("counts cannot be had from extremes")
        wider = max(self.exponent, other.exponent)
        counts = _widened(self.counts, wider - self.exponent) + times * _widened(other.counts, wider - other.exponent)
        self.counts, self.exponent = counts, wider
        super().add(other, times)


def load_kernels() -> None:
    """Import numba and load the machine code, which takes about as long as to open a session, and can go beside it."""
    Histogram().update(np.zeros(1, np.float32))
    Extremes().update(np.zeros(1, np.float32))


def merge(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of the values of both, to the last bit."""
    merged = Histogram()
    merged.add(a)
    merged.add(b)
    return merged


def rebinned(histogram: Histogram, bins: int) -> NDArray[np.int64]:
    """The counts in `bins` equal bins over [0, amax], as calibrators define them.

    The counts below each new edge are interpolated inside the narrow bin that the edge falls into, and rounded, so
    that they stay integers with the same sum. `amax` must not be zero.
    """
    last = min(int(histogram.amax / histogram.width), BINS - 1)
    edges = np.append(np.arange(last + 1) * histogram.width, max(histogram.amax, last * histogram.width))
    below = np.concatenate(([0], np.cumsum(histogram.counts[: last + 1])))
    if edges[-1] == edges[-2]:  # amax stands on an edge, and its bin has no width
        edges, below = edges[:-1], below[:-1]
    wanted = np.arange(1, bins) * (histogram.amax / bins)
    inner = np.rint(np.interp(wanted, edges, below)).astype(np.int64)
    return np.diff(np.concatenate(([0], inner, [histogram.count])))


def share_beyond(histogram: Histogram, threshold: float) -> float:
    """Share of the values with |x| over `threshold`, 0 to 1; inside a bin they are taken as even."""
    if threshold >= histogram.amax or not histogram.count:
        return 0.0
    position = threshold / histogram.width
    whole = int(position)
    inside = histogram.counts[:whole].sum() + histogram.counts[whole] * (position - whole)
    return max(0.0, float(1 - inside / histogram.count))


def bulk_magnitude(histogram: Histogram) -> float:
    """Magnitude that a share of `BULK` of the values beyond the first bin, which holds the zeros, do not exceed.

    0 where there are none.
    """
    below = np.cumsum(histogram.counts[1:])
    if not below[-1]:
        return 0.0
    return float((int(np.searchsorted(below, BULK * int(below[-1]))) + 1.5) * histogram.width)


def _widened(counts: NDArray[np.int64], doublings: int) -> NDArray[np.int64]:
    """The counts in bins that are 2**doublings times as wide."""
    if not doublings:
        return counts
    merged = np.zeros(BINS, np.int64)
    np.add.at(merged, np.arange(BINS) >> min(doublings, 62), counts)
    return merged


def _flat(array: Array) -> NDArray[np.float32]:
    """One-dimensional float32; longer floats are rounded to it."""
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return np.ascontiguousarray(array, np.float32).reshape(-1)


def _float(ordered: np.int32) -> float:
    """The float of an ordered integer (see `kernels`); -0 becomes 0."""
    number = int(ordered)
    bits = number if number >= 0 else number ^ 0x7FFFFFFF
    return float(np.array(bits, np.int32).view(np.float32)) + 0.0


def _tables() -> NDArray[np.uint32]:
    """Counting tables of this thread, all zero between uses."""
    if not hasattr(_scratch, "tables"):
        _scratch.tables = np.zeros((4, BINS), np.uint32)
    tables: NDArray[np.uint32] = _scratch.tables
    return tables
