"""Allocations that look at scores alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..groups import Group
from .registry import allocation
from .task import Parts, Task

_NEAR = 0.01
"""A uniform cut this near to its budget is left uniform."""

_HALVINGS = 24
"""Bisection stops there: shares of ten millions."""


@allocation("uniform")
def uniform(task: Task) -> Parts:
    """The same share of every group."""

    def at(share: float) -> Parts:
        return {group.name: nearest(task.widths[group.name], share * group.step) for group in task.groups}

    parts = widest(task, at)
    return parts if task.share(parts) > task.limit - _NEAR else task.filled(parts)


@allocation("global")
def globally(task: Task) -> Parts:
    """One threshold over all groups, on scores relative to their group's mean."""
    levels = {group.name: _levels(task, group) for group in task.groups}
    ends = np.concatenate([np.array(list(by_part.values())) for by_part in levels.values()])

    def at(share: float) -> Parts:
        threshold = float(np.quantile(ends, 1 - share))
        return {
            name: next((part for part, level in by_part.items() if level <= threshold), task.widths[name][-1])
            for name, by_part in ((name, dict(sorted(held.items(), reverse=True))) for name, held in levels.items())
        }

    return task.filled(widest(task, at))


def _levels(task: Task, group: Group) -> dict[int, float]:
    """By parts that stay: the least normalized score that is still kept."""
    scores = task.scores[group.name]
    mean = max(float(np.mean(list(scores.values()))), 1e-30)
    found = {}
    for part in task.widths[group.name]:
        kept = group.kept(part)
        ends = [scores[cell[len(cell) - count]] for cell, count in zip(task.ranked[group.name], kept, strict=True)]
        found[part] = float(np.mean(ends)) / mean
    return found


def nearest(allowed: tuple[int, ...], wanted: float) -> int:
    """The allowed number of parts that is nearest to what is wanted, of two the smaller."""
    return min(allowed, key=lambda part: (abs(part - wanted), part))


def widest(task: Task, at: Callable[[float], Parts]) -> Parts:
    """The most that the budget allows of a family of cuts that rises with a share between 0 and 1."""
    low, high = 0.0, 1.0
    best = task.least()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        parts = at(middle)
        if task.share(parts) <= task.limit:
            best, low = parts, middle
        else:
            high = middle
    return best
