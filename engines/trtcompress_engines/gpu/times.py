"""Times on the device itself: the engine alone, and the copies alone, between events on a stream.

What a batch takes from the host's memory and back is timed elsewhere (`measure.time_pair`), beside the reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from trtcompress_graph.measured import GpuTimes, Latency, Speed, Spread

from .clocks import between, read_clocks
from .cuda_graph import NotCapturedError, capture, open_driver
from .placed import Placed

if TYPE_CHECKING:
    from ..backend import Array, Runner

    Enqueue = Callable[[], None]
    Feeds = Mapping[int, Mapping[str, Array]]

WARMUP = 5
QUEUE = 16
"""Launches that the host puts on the stream before it waits: what it needs for a launch hides behind the one before."""

LEAST = 48
"""Launches that are timed even if that takes longer."""


@runtime_checkable
class TimedOnGpu(Protocol):
    """A runner that can tell copies from computation."""

    def gpu_times(self, feed: Mapping[str, Array], batch: int, seconds: float) -> GpuTimes:
        """Where the time of a batch goes."""
        ...


def with_gpu_times(
    speeds: tuple[Speed, ...], engine: Runner, reference: Runner, feeds: Feeds, seconds: float
) -> tuple[Speed, ...]:
    """Add what is known of the device alone; without a GPU nothing is.

    Args:
        speeds: from the host's memory and back.
        engine: inside its `with` block.
        reference: inside its `with` block.
        feeds: one batch of inputs for each batch size.
        seconds: time to spend on a batch size.

    Raises:
        CompileError: CUDA or TensorRT fails.
    """

    def told(runner: Runner, latency: Latency) -> Latency:
        if not isinstance(runner, TimedOnGpu):
            return latency
        return replace(latency, gpu=runner.gpu_times(feeds[latency.batch], latency.batch, seconds))

    return tuple(replace(s, engine=told(engine, s.engine), reference=told(reference, s.reference)) for s in speeds)


def time_placed(placed: Placed, batch: int, seconds: float, gpu: str) -> GpuTimes:
    """Time one batch that lies on the device.

    Args:
        placed: the batch.
        batch: samples in it.
        seconds: time to spend, a third on each of three things.
        gpu: PCI bus id of the card.

    Raises:
        CompileError: CUDA or TensorRT fails.
    """
    for _ in range(WARMUP):
        placed.run()
    before = read_clocks(gpu)
    launch, note = _launcher(placed)
    compute, whole = _between_events(placed, launch, seconds / 3)
    after = read_clocks(gpu)  # at once: they fall as soon as nothing computes
    to_device, _ = _between_events(placed, placed.copy_in, seconds / 3)
    to_host, _ = _between_events(placed, placed.copy_out, seconds / 3)
    return GpuTimes(
        compute=_spread(compute),
        to_device=_spread(to_device),
        to_host=_spread(to_host),
        throughput=batch * len(compute) / (whole / 1e3) if whole else 0.0,
        cuda_graph=not note,
        note=note,
        clocks=between(before, after),
    )


def _launcher(placed: Placed) -> tuple[Enqueue, str]:
    """A replay of the engine as a CUDA graph, or its plain launch and why."""
    try:
        return capture(open_driver(), placed.stream.handle, placed.launch).launch, ""
    except NotCapturedError as error:
        return placed.launch, str(error)


def _between_events(placed: Placed, enqueue: Enqueue, seconds: float) -> tuple[list[float], float]:
    """Times of single calls, and the time of them all without the pauses in which the host waited, in milliseconds."""
    events = [placed.driver.Event() for _ in range(QUEUE + 1)]
    times: list[float] = []
    whole, start = 0.0, time.perf_counter()
    while len(times) < LEAST or time.perf_counter() - start < seconds:
        events[0].record(placed.stream)
        for event in events[1:]:
            enqueue()
            event.record(placed.stream)
        events[-1].synchronize()
        times += [later.time_since(earlier) for earlier, later in pairwise(events)]
        whole += events[-1].time_since(events[0])
    return times, whole


def _spread(times: list[float]) -> Spread:
    p50, p99 = (float(value) for value in np.percentile(times, [50, 99]))
    return Spread(p50, p99)
