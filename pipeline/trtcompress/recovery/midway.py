"""The state of a block that is being fitted, on disk: a kill costs little of it and changes nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .checkpoint import load, save

EVERY = 30.0
"""Seconds from one checkpoint to the next, at the least."""

COST = 0.01
"""Share of the time that checkpoints may take."""


class Midway:
    """Checkpoints of one block.

    Args:
        path: of the file; one of another block is left alone until it is written over.
        block: its number.
    """

    def __init__(self, path: Path, block: int) -> None:
        found = load(path)
        self._path, self._block = path, block
        self._found: dict[str, Any] = found if found is not None and found["block"] == block else {}
        self._last = time.monotonic()
        self._began: float = self._last - float(self._found.get("seconds", 0.0))
        self._pause = EVERY
        self._sofar: dict[str, Any] = {}

    @property
    def seconds(self) -> float:
        """Since the block was begun, without those between a kill and the next start."""
        return time.monotonic() - self._began

    def found(self, rate: float | None = None) -> dict[str, Any]:
        """What a kill left of the block, or of its descent at one rate; empty where it left nothing."""
        return self._found if rate is None or self._found.get("rate") == rate else {}

    def begin(self, rate: float, **sofar: Any) -> None:
        """A descent at one rate begins.

        Args:
            rate: that is tried.
            sofar: what those before came to, which is kept beside the state of this one.
        """
        self._sofar = {"rate": rate, **sofar}

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._last >= self._pause

    def keep(self, **state: Any) -> None:
        """Write one: tensors and plain values."""
        started = time.monotonic()
        save({**self._sofar, **state, "block": self._block, "seconds": self.seconds}, self._path)
        self._last = time.monotonic()
        self._pause = max(EVERY, (self._last - started) / COST)

    def forget(self) -> None:
        """Remove what is left; the block is done."""
        self._path.unlink(missing_ok=True)
