"""Times of an engine and of the reference, run by run in turn, so that both see the same clocks and the same heat."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

WARMUP = 5
MIN_PAIRS = 12

if TYPE_CHECKING:
    Call = Callable[[], Any]


def time_pair(engine: Call, reference: Call, batch: int, seconds: float) -> dict[str, Any]:
    """Percentiles of both in milliseconds, samples a second, and the median of the ratios pair by pair."""
    for _ in range(WARMUP):
        engine()
        reference()
    mine: list[float] = []
    other: list[float] = []
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds or len(mine) < MIN_PAIRS:
            if len(mine) % 2:  # the second of a pair finds warmer caches
                other.append(_time(reference))
                mine.append(_time(engine))
            else:
                mine.append(_time(engine))
                other.append(_time(reference))
    finally:
        if enabled:
            gc.enable()
    ratios = [other[i] / mine[i] for i in range(len(mine))]
    return {
        "engine": _latency(batch, mine),
        "reference": _latency(batch, other),
        "speedup": float(statistics.median(ratios)),
    }


def _time(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _latency(batch: int, times: list[float]) -> dict[str, Any]:
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]))
    return {"batch": batch, "p50": p50 * 1e3, "p90": p90 * 1e3, "p99": p99 * 1e3, "throughput": batch / p50}
