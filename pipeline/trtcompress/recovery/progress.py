"""Progress of a training that runs in processes of its own."""

from __future__ import annotations

import sys


def for_processes(what: str, done: int, total: int | None) -> None:
    """One line to stderr: what another process is told does not reach the listener of this one."""
    place = f"{done}/{total}: " if total else ""
    print(f"{place}{what}", file=sys.stderr, flush=True)
