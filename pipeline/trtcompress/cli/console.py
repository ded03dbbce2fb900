"""What a build shows while it runs: progress bars on a terminal, plain lines in CI; all on stderr."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ..plan import Plan, Step
from .counting import SECONDS_EVERY
from .main import say

LINE_EVERY = 0.25
"""In CI a long step says how far it is at each such share of its work, or now and then where nobody knows how much."""


_STAGES = logging.getLogger("trtcompress.stages")


class _Told(logging.Handler):
    """Hands on what a stage tells of its work, such as the axes of an export."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        self._show(f"        {record.getMessage()}")


class ConsoleListener:
    """Prints steps; a context manager, since a terminal has to be given back."""

    def __init__(self) -> None:
        self._total = 0
        self._done = 0
        self._lock = threading.Lock()
        self._told_by_stages = _Told(self._print_locked)
        self._shown: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(file=sys.stderr),  # the stderr of now: a stage may silence it while it works
            transient=True,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> ConsoleListener:
        self._progress.start()
        _STAGES.addHandler(self._told_by_stages)
        _STAGES.setLevel(logging.INFO)
        return self

    def __exit__(self, *exc: object) -> None:
        _STAGES.removeHandler(self._told_by_stages)
        self._progress.stop()

    def planned(self, plan: Plan) -> None:
        """The steps that will come."""
        self._total = len(plan.steps)

    def started(self, step: Step) -> None:
        """A step begins to work."""
        with self._lock:
            self._tasks[step.label] = self._progress.add_task(step.label, total=None)
            self._told[step.label] = time.monotonic()
            if self._progress.disable:
                self._print(f"        {step.label}: started")

    def progressed(self, step: Step, done: int, total: int | None) -> None:
        """A step is so far."""
        with self._lock:
            self._progress.update(self._tasks[step.label], completed=done, total=total)
            if self._progress.disable and self._worth_a_line(step.label, done, total):
                self._print(f"        {step.label}: {done}{f'/{total}' if total else ' samples'}")

    def _worth_a_line(self, label: str, done: int, total: int | None) -> bool:
        now = time.monotonic()
        if not total:
            due = now >= self._told[label] + SECONDS_EVERY
        else:
            share = done / total
            if share < self._shown.get(label, 0.0):  # the next thing that the step does
                del self._shown[label]
            due = self._shown.get(label, 0.0) + LINE_EVERY <= share < 1
            self._shown[label] = share if due else self._shown.get(label, 0.0)
        if due:
            self._told[label] = now
        return due

    def finished(self, step: Step, seconds: float, reused: bool) -> None:
        """A step is done, or was there already."""
        with self._lock:
            self._done += 1
            if step.label in self._tasks:
                self._progress.remove_task(self._tasks.pop(step.label))
            took = "reused" if reused else f"{seconds:.1f} s"
            self._print(f"[{self._done:>{len(str(self._total))}}/{self._total}] {step.label:<34} {took}")

    def _print_locked(self, line: str) -> None:
        with self._lock:
            self._print(line)

    def _print(self, line: str) -> None:
        if self._progress.disable:
            say(line)
        else:
            self._progress.console.print(line, highlight=False, markup=False)
