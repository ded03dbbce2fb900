from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from trtcompress_engines.backends.null import NullRunner
from trtcompress_engines.measure import latency, time_pair

FEEDS = {size: {"x": np.zeros((size, 2), np.float32)} for size in (4, 1)}


def sleeper(seconds: float, log: list[str] | None = None, name: str = "") -> NullRunner:
    def answer(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if log is not None:
            log.append(name)
        time.sleep(seconds)
        return {}

    return NullRunner(answer)


def test_percentiles_rise_and_the_slower_one_is_slower():
    speeds = time_pair(sleeper(0.001), sleeper(0.02), FEEDS, seconds=0.15)
    assert [speed.engine.batch for speed in speeds] == [1, 4]
    for speed in speeds:
        for side in (speed.engine, speed.reference):
            assert 0 < side.p50 <= side.p90 <= side.p99
            assert side.throughput == pytest.approx(side.batch / side.p50 * 1000)
        assert speed.speedup > 1.5


def test_runs_alternate_and_there_are_enough_of_them():
    log: list[str] = []
    time_pair(sleeper(0, log, "e"), sleeper(0, log, "r"), {1: FEEDS[1]}, warmup=2, seconds=0.0001, min_pairs=21)
    assert log[:4] == ["e", "r", "e", "r"]
    timed = log[4:]
    pairs = ["".join(timed[at : at + 2]) for at in range(0, len(timed), 2)]
    assert set(pairs) == {"er", "re"}
    assert abs(pairs.count("er") - pairs.count("re")) <= 3


def test_at_least_the_least_number_of_pairs_is_timed():
    log: list[str] = []
    time_pair(sleeper(0, log, "e"), sleeper(0, log, "r"), {1: FEEDS[1]}, warmup=0, seconds=0.05, min_pairs=30)
    assert log.count("e") == log.count("r") >= 30


def test_a_very_slow_model_does_not_take_for_ever():
    log: list[str] = []
    time_pair(sleeper(0.02, log, "e"), sleeper(0.02, log, "r"), {1: FEEDS[1]}, warmup=0, seconds=0.01, min_pairs=1000)
    assert 3 <= log.count("e") < 100


def test_garbage_collection_is_off_while_timing_and_back_on_after():
    seen: list[bool] = []

    def answer(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(gc.isenabled())
        return {}

    time_pair(NullRunner(answer), NullRunner(answer), {1: FEEDS[1]}, seconds=0.001)
    assert seen
    assert not any(seen)
    assert gc.isenabled()


def test_a_runner_that_can_bind_is_timed_without_its_copies():
    class Bound(NullRunner):
        def bind(self, feed: Mapping[str, np.ndarray]) -> Callable[[], object]:
            return lambda: bound.append(1)

    bound: list[int] = []
    asked: list[str] = []
    time_pair(Bound(), sleeper(0, asked, "r"), {1: FEEDS[1]}, warmup=0, seconds=0.05, min_pairs=20)
    assert len(bound) == len(asked) >= 20


def test_latency_of_known_times():
    found = latency(4, [0.010] * 50 + [0.020] * 50 + [1.0])
    assert found.p50 == pytest.approx(20.0)
    assert found.p90 == pytest.approx(20.0)
    assert found.throughput == pytest.approx(200.0)
