"""Allocation by what was measured at the output."""

from __future__ import annotations

import math

import numpy as np

from ..groups import Group
from .registry import allocation
from .task import Curve, Parts, Task

_ROUNDS = 4
"""Prices of groups depend on the widths of their neighbours: they are asked again at what was chosen."""

_HALVINGS = 40
_FLOOR = 1e-7
"""Damage below this is noise."""


@allocation("damage", needs_data=True)
def damage(task: Task) -> Parts:
    """Least measured damage at the output for the cost that is saved.

    For each group the damage is measured at a few widths and interpolated; damages are taken to add up, which they do
    while they are small. The sum is minimized under the budget by a Lagrangian, as HALP does (arXiv 2110.10811).
    """
    assert task.measure is not None
    curves = {group.name: curve(task.measure(group), task.widths[group.name], group) for group in task.groups}
    parts: Parts = {group.name: group.step for group in task.groups}
    for _ in range(_ROUNDS):
        prices = {group.name: _price(task, group, parts) for group in task.groups}
        parts = _cheapest(task, curves, prices)
    return _filled(task, curves, parts)


def curve(measured: Curve, allowed: tuple[int, ...], group: Group) -> dict[int, float]:
    """Damage at every allowed width: rising as less stays, its root interpolated; nothing is lost where all stays."""
    points = sorted(measured)
    values = [max(measured[part], 0.0) + _FLOOR for part in points]
    for place in range(len(points) - 2, -1, -1):
        values[place] = max(values[place], values[place + 1])
    known = [*points, group.step]
    roots = [*(value**0.5 for value in values), 0.0]
    found = {part: float(np.interp(part, known, roots)) ** 2 for part in allowed if part >= points[0]}
    # Narrower than what was measured the damage grows at least as fast as the width falls.
    return found | {part: values[0] * (points[0] / part) ** 2 for part in allowed if part < points[0]}


def _price(task: Task, group: Group, parts: Parts) -> float:
    """What one part of a group costs, where the others are as they are."""
    narrow = task.widths[group.name][0]
    if narrow == group.step:
        return 0.0
    wide = dict(parts) | {group.name: group.step}
    return (task.share(wide) - task.share(wide | {group.name: narrow})) / (group.step - narrow)


def _cheapest(task: Task, curves: dict[str, dict[int, float]], prices: dict[str, float]) -> Parts:
    """The least damage within the budget, by bisection over what a share of the cost is worth."""

    def at(worth: float) -> Parts:
        return {
            name: min(held, key=lambda part: (held[part] + worth * prices[name] * part, part))
            for name, held in curves.items()
        }

    low, high = math.log(1e-9), math.log(1e9)
    best = task.least()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        parts = at(math.exp(middle))
        if task.share(parts) <= task.limit:
            best, high = parts, middle
        else:
            low = middle
    return best


def _filled(task: Task, curves: dict[str, dict[int, float]], parts: Parts) -> Parts:
    """Spend what is left of the budget where it mends most."""
    now = dict(parts)
    open_ = {group.name for group in task.groups}
    while open_:
        steps = {name: next((part for part in task.widths[name] if part > now[name]), None) for name in open_}
        open_ -= {name for name, part in steps.items() if part is None}
        gains = {name: curves[name][now[name]] - curves[name][part] for name, part in steps.items() if part is not None}
        if not gains:
            break
        name = max(gains, key=lambda name: (gains[name], name))
        part = steps[name]
        assert part is not None
        if task.share(now | {name: part}) <= task.limit:
            now[name] = part
        else:
            open_.discard(name)
    return now
