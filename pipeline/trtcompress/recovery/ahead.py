"""Samples of the next step are read while this one is computed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Read = TypeVar("Read")


class Ahead(Generic[Key, Read]):
    """Calls a function one step before its result is asked for; what was not foreseen is read when it is asked for.

    Args:
        read: runs in a thread of its own, never twice at a time.
    """

    def __init__(self, read: Callable[[Key], Read]) -> None:
        self._read = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="samples")
        self._coming: tuple[Key, Future[Read]] | None = None

    def take(self, key: Key, following: Key) -> Read:
        """What `key` reads, while `following` begins to be read.

        Raises:
            Exception: what reading `key` raises; that of a step that is never asked for is lost.
        """
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] != key:
            coming[1].cancel()
        foreseen = coming is not None and coming[0] == key
        future = coming[1] if coming is not None and foreseen else self._thread.submit(self._read, key)
        found = future.result()
        self._coming = (following, self._thread.submit(self._read, following))
        return found
