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
PATIENCE = 8
"""A model so slow that `MIN_PAIRS` take this many times the time allowed ends earlier, as in a build; so does its
warm-up."""
LEAST_PAIRS = 3
"""However slow it is."""
_LONG_S = 10.0
"""What takes longer is said before."""

if TYPE_CHECKING:
    Call = Callable[[], Any]


def time_pair(engine: Call, reference: Call, batch: int, seconds: float) -> dict[str, Any]:
    """Percentiles of both in milliseconds, samples a second, and the median of the ratios pair by pair.

    Args:
        engine: runs what is judged once.
        reference: runs the float model once.
        batch: samples of a run.
        seconds: to time for; `MIN_PAIRS` may take up to `PATIENCE` times as long.
    """
    _warm_up(engine, reference, batch, seconds)
    mine: list[float] = []
    other: list[float] = []
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        while _goes_on(time.perf_counter() - start, seconds, len(mine)):
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


def run_alone(call: Call, seconds: float) -> None:
    """Run an engine again and again for so long, once at the least."""
    start = time.monotonic()
    while True:
        call()
        if time.monotonic() - start >= seconds:
            return


def _goes_on(spent: float, seconds: float, pairs: int) -> bool:
    """Whether another pair is timed."""
    return pairs < LEAST_PAIRS or spent < seconds or (pairs < MIN_PAIRS and spent < PATIENCE * seconds)


def _warm_up(engine: Call, reference: Call, batch: int, seconds: float) -> None:
    start = time.perf_counter()
    for run in range(WARMUP):
        engine()
        reference()
        spent = time.perf_counter() - start
        if not run:
            _tell(batch, spent, seconds)
        if spent >= PATIENCE * seconds:
            return


def _tell(batch: int, pair: float, seconds: float) -> None:
    """Say how long it takes where that is long, by the seconds of the first pair."""
    most = PATIENCE * seconds + pair
    whole = min(WARMUP * pair, most) + max(seconds, LEAST_PAIRS * pair, min(MIN_PAIRS * pair, most))
    if whole > _LONG_S:
        print(f"  batch {batch}: {pair:.1f} s a run of both, about {whole:.0f} s in all ...", flush=True)


def _time(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _latency(batch: int, times: list[float]) -> dict[str, Any]:
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]))
    return {"batch": batch, "p50": p50 * 1e3, "p90": p90 * 1e3, "p99": p99 * 1e3, "throughput": batch / p50}
