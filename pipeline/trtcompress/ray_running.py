"""A task of Ray's that runs, and what comes of it: that it began, and then its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol
from uuid import uuid4

from .ray_node import Work, Worked, begin_work, tell_and_work

LOOK = 5.0
"""Seconds for which news are waited for."""

PAUSE = 0.2
"""Seconds from one question to the next where a client asks."""

News = Worked | Literal["began"] | None


class Running(Protocol):
    """A task that was given to Ray."""

    def news(self) -> News:
        """What came of it meanwhile; None where nothing did. Raises what the task or Ray does."""

    def stop(self) -> None:
        """Take it back."""


def start(task: Work, options: Mapping[str, Any], begun: Any) -> Running:
    """Give a step to Ray.

    Args:
        task: the step.
        options: of a task of Ray's.
        begun: see `ray_cluster.notes_of_beginnings`.
    """
    return _Streaming(task, options) if begun is None else _Noted(task, options, begun)


class _Streaming:
    """One that tells by itself when it begins."""

    def __init__(self, task: Work, options: Mapping[str, Any]) -> None:
        import ray

        self._values = ray.remote(begin_work).options(**options, num_returns="streaming").remote(task)

    def news(self) -> News:
        import ray

        if not ray.wait([self._values], timeout=LOOK)[0]:
            return None
        worked: Worked | None = ray.get(next(self._values))
        return "began" if worked is None else worked

    def stop(self) -> None:
        import ray

        ray.cancel(self._values, force=True)


class _Noted:
    """One that has its beginning noted by an actor: over `ray://` no task tells anything before its end."""

    def __init__(self, task: Work, options: Mapping[str, Any], begun: Any) -> None:
        import ray

        self._begun, self._name = begun, uuid4().hex
        self._value = ray.remote(tell_and_work).options(**options).remote(task, begun, self._name)

    def news(self) -> News:
        import ray
        from ray.exceptions import RayError

        end = time.monotonic() + LOOK
        # No wait is left to the server: one under way when the client goes keeps a core of the head busy for ever
        while not ray.wait([self._value], timeout=0)[0]:
            if time.monotonic() >= end:
                break
            time.sleep(PAUSE)
        else:
            worked: Worked = ray.get(self._value)
            return worked
        try:
            return "began" if ray.get(self._begun.has.remote(self._name), timeout=LOOK) else None
        except RayError:  # what notes it is gone, or slow: that is no fault of the task
            return None

    def stop(self) -> None:
        import ray

        ray.cancel(self._value, force=True)
