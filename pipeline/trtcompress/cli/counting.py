"""How far a single command is: a bar on a terminal, a line now and then in CI; both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .main import say

if TYPE_CHECKING:
    from ..stage import Progress

SECONDS_EVERY = 25.0
"""In CI what takes long says how far it is each time that so many seconds have passed."""


@contextmanager
def counting(what: str) -> Iterator[Progress]:
    """Shows what the block tells of its progress.

    Args:
        what: is counted, such as `samples`.
    """
    if not sys.stderr.isatty():
        yield _by_lines(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn(what), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(file=sys.stderr), transient=True) as bars:
        bar = bars.add_task(what, total=None)

        def told(done: int, total: int | None = None) -> None:
            bars.update(bar, completed=done, total=total)

        yield told


def _by_lines(what: str) -> Progress:
    last = time.monotonic()

    def told(done: int, total: int | None = None) -> None:
        nonlocal last
        if time.monotonic() >= last + SECONDS_EVERY and done != total:
            last = time.monotonic()
            say(f"{done}{f' of {total}' if total else ''} {what}")

    return told
