"""Splits into folds, and what two methods reach on the same samples, with 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_engines.intervals import bootstrap_statistic, percentile_interval

Floats = NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True)
class Fold:
    """Places of samples: `held` is tested, `rest` may calibrate."""

    rest: tuple[int, ...]
    held: tuple[int, ...]


def folds(samples: int, count: int, seed: int = 0) -> list[Fold]:
    """Every sample is held in one fold, and never in the rest of the same."""
    shuffled = np.random.default_rng(seed).permutation(samples)
    parts = np.array_split(shuffled, count)
    return [
        Fold(
            rest=tuple(int(i) for j, other in enumerate(parts) if j != k for i in other),
            held=tuple(int(i) for i in part),
        )
        for k, part in enumerate(parts)
    ]


def compare(
    statistic: Callable[[Floats, Floats], float], full: Floats, pruned: Floats, truths: Floats
) -> dict[str, Any]:
    """The metric of both and its drop; the bootstrap draws samples, so that what both get wrong widens nothing."""

    def both(index: NDArray[np.intp]) -> tuple[float, float]:
        return statistic(full[index], truths[index]), statistic(pruned[index], truths[index])

    drawn = bootstrap_statistic(both, truths.size, RESAMPLES)
    before, after = statistic(full, truths), statistic(pruned, truths)
    return {
        "samples": int(truths.size),
        "full": before,
        "full_ci": percentile_interval(drawn[:, 0]),
        "pruned": after,
        "pruned_ci": percentile_interval(drawn[:, 1]),
        "drop": before - after,
        "drop_ci": percentile_interval(drawn[:, 0] - drawn[:, 1]),
    }
