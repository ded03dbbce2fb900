"""95 % confidence intervals. Resampling is seeded: the same scores give the same interval."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_Z = 1.959963984540054
_SEED = 0
_RESAMPLES = 2000
_BLOCK = 1 << 22
"""Random numbers drawn at once."""


def wilson(right: int, samples: int) -> tuple[float, float]:
    """Interval of a share (Wilson 1927): it holds at 0 and at 1, and for few samples, where the normal one fails."""
    share = right / samples
    spread = 1 + _Z**2 / samples
    middle = (share + _Z**2 / (2 * samples)) / spread
    half = _Z / spread * math.sqrt(share * (1 - share) / samples + _Z**2 / (4 * samples**2))
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def percentile_interval(resampled: Floats) -> tuple[float, float]:
    """The middle 95 % of resampled values (Efron's percentile interval)."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_means(scores: Floats) -> Floats:
    """Means of 2000 resamples of the scores; fewer where there are millions of scores."""
    rng = np.random.default_rng(_SEED)
    rows = max(1, min(_RESAMPLES, _BLOCK // scores.size))
    resamples = _RESAMPLES if scores.size <= 100_000 else 400
    means = [
        scores[rng.integers(0, scores.size, size=(min(rows, resamples - done), scores.size))].mean(axis=1)
        for done in range(0, resamples, rows)
    ]
    return np.concatenate(means)


def bootstrap_statistic(
    statistic: Callable[[NDArray[np.intp]], tuple[float, float]], samples: int, resamples: int
) -> Floats:
    """A pair of statistics on resamples of the places 0 to `samples` - 1: an array of `resamples` x 2."""
    rng = np.random.default_rng(_SEED)
    return np.array([statistic(rng.integers(0, samples, size=samples)) for _ in range(resamples)])
