"""Timing an engine against its reference in one interleaved run, so that both see the same noise of the machine."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.measured import Latency, Speed

from .backend import BoundRunner, Runner

if TYPE_CHECKING:
    from .backend import Array

Call = Callable[[], object]

MIN_PAIRS = 12
ROUNDS = 3
_PATIENCE = 8
"""A model so slow that its least number of pairs takes this many times the time allowed ends earlier."""


@dataclass(slots=True)
class _Series:
    """Times of one batch size, in seconds."""

    engine: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    def speed(self, batch: int) -> Speed:
        ratios = [slow / fast for slow, fast in zip(self.reference, self.engine, strict=True)]
        return Speed(latency(batch, self.engine), latency(batch, self.reference), statistics.median(ratios))


def time_pair(
    engine: Runner,
    reference: Runner,
    feeds: Mapping[int, Mapping[str, Array]],
    *,
    warmup: int = 3,
    seconds: float = 1.5,
    min_pairs: int = MIN_PAIRS,
) -> tuple[Speed, ...]:
    """Time both, run by run in turn, over several rounds.

    Every other pair starts with the other one, since the second of a pair finds warmer caches. The rounds pass
    over all batch sizes again and again, so that a burst of load from elsewhere does not hit one size alone.

    Args:
        engine: what is judged; inside its `with` block.
        reference: the float model; inside its `with` block.
        feeds: one batch of inputs for each batch size.
        warmup: runs of each before the first timed one.
        seconds: time to spend on a batch size.
        min_pairs: pairs to time even if that takes longer (up to eight times as long).

    Returns:
        One entry for each batch size; `speedup` is the median over pairs of reference time by engine time.
    """
    calls = {batch: (_call(engine, feed), _call(reference, feed)) for batch, feed in feeds.items()}
    series = {batch: _Series() for batch in feeds}
    with _no_garbage_collection():
        for pair in calls.values():
            for _ in range(warmup):
                for call in pair:
                    call()
        for _ in range(ROUNDS):
            for batch, pair in calls.items():
                _round(*pair, series[batch], seconds / ROUNDS, -(-min_pairs // ROUNDS))
    return tuple(series[batch].speed(batch) for batch in sorted(series))


def latency(batch: int, times: list[float]) -> Latency:
    """Percentiles of the times (in seconds) as milliseconds, and samples a second at the median."""
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]))
    return Latency(batch=batch, p50=p50 * 1e3, p90=p90 * 1e3, p99=p99 * 1e3, throughput=batch / p50)


def _round(engine: Call, reference: Call, series: _Series, seconds: float, min_pairs: int) -> None:
    start = time.perf_counter()
    for pair in range(1, 1 << 30):
        if pair % 2:
            series.engine.append(_time(engine))
            series.reference.append(_time(reference))
        else:
            series.reference.append(_time(reference))
            series.engine.append(_time(engine))
        spent = time.perf_counter() - start
        if (spent >= seconds and pair >= min_pairs) or spent >= _PATIENCE * seconds:
            return


def _time(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _call(runner: Runner, feed: Mapping[str, Array]) -> Call:
    return runner.bind(feed) if isinstance(runner, BoundRunner) else lambda: runner.infer(feed)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
