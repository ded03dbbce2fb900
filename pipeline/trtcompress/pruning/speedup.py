"""Cutting until ONNX Runtime is so many times faster, measured here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trtcompress_graph.errors import PruneError
from trtcompress_graph.model import Model

from .allocation.task import Parts
from .choice import Choice
from .execution import carry_out
from .subject import Subject

_ROUNDS = 7
"""Halvings of the share of MACs; each cuts, writes and times once."""

_SECONDS = 2.0


def parts_for_speedup(
    whole: Subject,
    subject: Subject,
    choice: Choice,
    folder: Path,
    progress: Callable[[str, int, int | None], None],
) -> tuple[Parts, float]:
    """The widest cut that is as much faster, and how much faster it was.

    The share of MACs is searched by bisection; each try is timed against the full model in turn.

    Raises:
        PruneError: it is not that fast even with as little as may stay.
    """
    wanted = choice.options.value
    task = choice.task.within("macs", 1.0)
    low, high = task.share(task.least()), 1.0
    best: tuple[Parts, float] | None = None
    fastest = 1.0
    for turn in range(_ROUNDS):
        middle = low if turn == 0 else (low + high) / 2
        parts = task.least() if turn == 0 else choice.nearest("macs", middle)
        found = _speedup(whole, subject, choice.task.gone(parts), folder)
        progress("time cuts", turn + 1, _ROUNDS)
        fastest = max(fastest, found)
        if found >= wanted:
            best, low = (parts, found), middle
        else:
            high = middle
        if best is None:
            raise PruneError(
                f"it becomes at most {fastest:.2f} times faster in ONNX Runtime, not {wanted}",
                where="prune",
                hint=(f"ask for --speedup {fastest:.2f} or less, " if fastest >= 1.01 else "give ")
                + "a smaller --multiple, or drop a --keep",
            )
    assert best is not None
    return best


def _speedup(whole: Subject, subject: Subject, units: list[int], folder: Path) -> float:
    """Median ratio of the times of the full and of the cut model."""
    with tempfile.TemporaryDirectory(prefix=".speed.", dir=folder) as inside:
        cut = carry_out(subject, units, Path(inside) / "cut.onnx", solve=False, data=None, progress=_silent)
        return _ratio(whole.model, cut, subject)


def _ratio(full: Model, cut: Model, subject: Subject) -> float:
    from trtcompress_engines.backends.onnxruntime import open_graph
    from trtcompress_engines.measure import time_pair

    random = np.random.default_rng(0)
    feeds = {}
    for spec in full.inputs:
        shape = subject.inputs[spec.name]
        is_float = np.issubdtype(np.dtype(spec.dtype), np.floating)
        feeds[spec.name] = (random.standard_normal(shape) if is_float else np.ones(shape)).astype(spec.dtype)
    with open_graph(cut.path) as engine, open_graph(full.path) as reference:
        return time_pair(engine, reference, {1: feeds}, seconds=_SECONDS)[0].speedup


def _silent(what: str, done: int, total: int | None) -> None:
    """No progress inside a try."""
