"""How much of a tensor's range INT8 keeps: from a histogram of |x| to a threshold. One registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.errors import UsageError

from .histogram import Histogram, rebinned

TENSORRT_BINS = 2048
TENSORRT_LEVELS = 128
MOST_CLIPPED = 0.01
"""Share of the values that `entropy` may clip."""

_LEAST_AMAX = 2.0**-100


def threshold(histogram: Histogram, method: str) -> float:
    """Values beyond ± the result are clipped.

    A tensor that was zero throughout gets 1: every scale is right for it, as long as it is not zero.

    Raises:
        UsageError: there is no such method.
    """
    chosen = find_method(method)
    if histogram.amax < _LEAST_AMAX:
        return 1.0
    return min(chosen(histogram), histogram.amax)


def find_method(name: str) -> Callable[[Histogram], float]:
    """The method of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in METHODS:
        raise UsageError(f"unknown calibration method '{name}'", hint=f"one of: {', '.join(METHODS)}")
    return METHODS[name]


def minmax(histogram: Histogram) -> float:
    """The greatest absolute value: nothing is clipped."""
    return histogram.amax


def percentile(histogram: Histogram, percent: float = 99.99) -> float:
    """The least bin edge that `percent` of the values do not exceed."""
    reached = np.cumsum(histogram.counts) >= histogram.count * (percent / 100)
    return float((int(np.argmax(reached)) + 1) * histogram.width)


def mse(histogram: Histogram) -> float:
    """The threshold of least squared error of rounding and clipping to 127 steps on each side of zero."""
    thresholds = _thresholds(histogram)
    return _least_square_error(histogram, thresholds, thresholds / 127)


def mse_u8(histogram: Histogram) -> float:
    """The same for 255 steps over what was seen within the threshold, with a zero point, as CPUs round.

    Behind a rectifier a step is half as wide as with a sign, so that less has to be clipped.
    """
    thresholds = _thresholds(histogram)
    other_side = min(max(histogram.max, 0.0), max(-histogram.min, 0.0))
    return _least_square_error(histogram, thresholds, (thresholds + np.minimum(thresholds, other_side)) / 255)


def _thresholds(histogram: Histogram) -> NDArray[np.float64]:
    edges = np.arange(TENSORRT_LEVELS, TENSORRT_BINS + 1, dtype=np.float64)
    return edges * np.float64(histogram.amax / TENSORRT_BINS)


def _least_square_error(histogram: Histogram, thresholds: NDArray[np.float64], steps: NDArray[np.float64]) -> float:
    from . import kernels

    width = np.float64(histogram.amax / TENSORRT_BINS)
    centers = (np.arange(TENSORRT_BINS, dtype=np.float64) + np.float64(0.5)) * width
    errors = kernels.square_errors(rebinned(histogram, TENSORRT_BINS), centers, thresholds, steps)
    return float(thresholds[_last_least(errors)])


def entropy(histogram: Histogram) -> float:
    """TensorRT's: the threshold that loses the least information (Kullback-Leibler divergence).

    2048 bins over [0, amax]. For each threshold of 128 bins and more: the reference are the bins below, the last of
    them with all that lies beyond; the candidate are the bins below without it, averaged over 128 levels (empty bins
    stay empty). Of equal divergences the widest threshold wins. After S. Migacz, "8-bit inference with TensorRT"
    (GTC 2017), with the details of NVIDIA's pytorch-quantization: the first bin, where the zeros of ReLU and padding
    gather, takes the count of the second, so that zeros, which every scale represents exactly, do not decide.

    Ours alone: a threshold that would clip more than 1 % of what is counted is not considered. Where a spike (the
    background of an image) or few values stand in the last bin below the threshold, the divergence is blind to what
    lies beyond; in a text detector with squeeze-and-excitation it would clip up to 99 % of a tensor.
    """
    counts = rebinned(histogram, TENSORRT_BINS)
    counts[0] = counts[1]
    divergences = kl_divergences(counts, TENSORRT_LEVELS)
    kept = np.cumsum(counts)[TENSORRT_LEVELS - 1 :]
    divergences[kept < (1 - MOST_CLIPPED) * kept[-1]] = np.inf
    return float((_last_least(divergences) + TENSORRT_LEVELS) * (histogram.amax / TENSORRT_BINS))


def kl_divergences(counts: NDArray[np.int64], levels: int) -> NDArray[np.float64]:
    """Divergence of each threshold of `levels` to `len(counts)` bins; infinite where the reference is not covered.

    With c the count of a bin, m the mean of the occupied bins of its level, r the count of the last bin together
    with what lies beyond, T the sum of all and S that of the bins below the threshold, the divergence is

        (sum c log c - last c log c + r log r) / T - log T - (sum c log m + beyond * log m of the last) / T + log S

    where sums over the bins of a level are differences of running sums.
    """
    thresholds = np.arange(levels, len(counts) + 1)
    below = np.concatenate(([0], np.cumsum(counts)))
    occupied = np.concatenate(([0], np.cumsum(counts > 0)))
    c_log_c = np.concatenate(([0.0], np.cumsum(_x_log_x(counts))))
    edges = _level_edges(levels, len(counts))
    in_level = np.diff(below[edges])
    log_mean = np.log(np.maximum(in_level, 1) / np.maximum(np.diff(occupied[edges]), 1))
    total, kept = below[-1], below[thresholds]
    beyond, last = total - kept, counts[thresholds - 1]
    reference = c_log_c[thresholds - 1] + _x_log_x(last + beyond)
    candidate = (in_level * log_mean).sum(axis=1) + beyond * log_mean[:, -1]
    uncovered = ((last == 0) & (beyond > 0)) | (kept == 0)
    divergence = (reference - candidate) / total + np.log(np.maximum(kept, 1) / total)
    return np.where(uncovered, np.inf, divergence)


@cache
def _level_edges(levels: int, bins: int) -> NDArray[np.int64]:
    """For each threshold the first bin of each level: the least k with floor(k * levels / threshold) = level."""
    thresholds = np.arange(levels, bins + 1)[:, None]
    edges: NDArray[np.int64] = -(-np.arange(levels + 1) * thresholds // levels)
    edges.flags.writeable = False
    return edges


def _x_log_x(x: NDArray[np.int64]) -> NDArray[np.float64]:
    values = x.astype(np.float64)
    result: NDArray[np.float64] = values * np.log(np.maximum(values, 1))
    return result


def _last_least(values: NDArray[np.float64]) -> int:
    return len(values) - 1 - int(np.argmin(values[::-1]))


METHODS: dict[str, Callable[[Histogram], float]] = {
    "entropy": entropy,
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "mse-u8": mse_u8,
}
"""Range methods by name."""
