"""SIGTERM and SIGHUP end the program as Ctrl-C does, so that what it started (a server) ends with it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_as_interrupts() -> Iterator[list[signal.Signals]]:
    """Raise KeyboardInterrupt in the main thread at the first of these signals; the list tells which came.

    What ignores one (`nohup`), or heeds it in its own way, stays as it is.
    """
    came: list[signal.Signals] = []
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a fork of this process ends at once
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not came:  # else it is ending already
            came.append(signal.Signals(number))
            raise KeyboardInterrupt

    heeded = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        heeded = []
    for number in heeded:
        signal.signal(number, end)
    try:
        yield came
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)
