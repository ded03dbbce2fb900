"""Progress of a training that runs in processes of its own."""

from __future__ import annotations

import sys


def for_processes(what: str, done: int, total: int | None) -> None:
    """One line to stderr: what another process is told does not reach the listener of this one."""
    print(line_of(what, done, total), file=sys.stderr, flush=True)


def line_of(what: str, done: int, total: int | None) -> str:
    """What is told of a training: with the step, where it is how the training stands there."""
    return f"step {done}/{total}: {what}" if total and done and "loss" in what else what
