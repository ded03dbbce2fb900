"""The search for the setting that serves most requests a second within a limit of the latency.

One kind of change after the other is tried around the best setting so far (instances and threads, batches, delay),
again from the start as long as something got better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .load import Point
from .setting import Setting, Space

MOST_CLIENTS = 64

GAIN = 1.03
"""More clients that bring less than this much more throughput bring none."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A setting and its curve: a point for each number of clients.

    Attributes:
        why: empty, or why it cannot be served so.
    """

    setting: Setting
    points: tuple[Point, ...]
    why: str = ""

    def best(self, limit_ms: float) -> Point | None:
        """The point of the greatest throughput whose p99 is within the limit."""
        within = [point for point in self.points if point.p99 <= limit_ms]
        return max(within, key=lambda point: point.throughput, default=None)

    def score(self, limit_ms: float) -> tuple[int, float]:
        """What is compared: throughput within the limit, or where there is none, how near to the limit."""
        best = self.best(limit_ms)
        if best is not None:
            return 2, best.throughput
        return (1, -min(point.p99 for point in self.points)) if self.points else (0, 0.0)


def curve(
    measure: Callable[[int], Point], limit_ms: float, in_time: Callable[[], bool], only: int | None = None
) -> tuple[Point, ...]:
    """Points at 1, 2, 4, ... clients, until more clients bring no more or only take longer than the limit.

    A batch that waits for others takes longest with few clients, so that one point beyond the limit ends nothing. With
    `only`, the point of so many clients alone.
    """
    if only is not None:
        return (measure(only),)
    points: list[Point] = []
    clients, beyond, flat = 1, 0, 0
    while clients <= MOST_CLIENTS and beyond < 2 and flat < 2:
        most = max((point.throughput for point in points), default=0.0)
        point = measure(clients)
        points.append(point)
        beyond = beyond + 1 if point.p99 > limit_ms else 0
        flat = 0 if point.throughput > most * GAIN else flat + 1
        clients *= 2
        if not in_time():
            break
    return tuple(points)


def search(
    start: Tried, space: Space, limit_ms: float, attempt: Callable[[Setting], Tried], in_time: Callable[[], bool]
) -> Iterator[Tried]:
    """Every setting that was tried, `start` first, until nothing gets better or time is up.

    Args:
        start: what is there.
        space: what can be tried.
        limit_ms: of p99.
        attempt: serves a setting and measures its curve.
        in_time: false ends the search.
    """
    seen = {start.setting}
    best = start
    yield start
    while True:
        before = best
        for kind in _kinds(space):
            for setting in kind(best.setting):
                if setting in seen:
                    continue
                if not in_time():
                    return
                seen.add(setting)
                tried = attempt(setting)
                yield tried
                best = max(best, tried, key=lambda one: one.score(limit_ms))
        if best is before:
            return


def _kinds(space: Space) -> tuple[Callable[[Setting], list[Setting]], ...]:
    return space.copies, space.batches, space.delays
