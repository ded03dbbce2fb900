"""Which widths a group may have: those at which every axis falls on a multiple."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .coupling import Coupling
from .factors import Shape
from .groups import Group


def widths(coupling: Coupling, group: Group, shapes: Mapping[str, Shape], multiple: int) -> tuple[int, ...]:
    """Parts (of `group.step`) that may be kept, rising; all of them is the last, and may be the only one.

    What is left of an axis is a multiple, so an axis that is shorter than the multiple stays whole. Of an axis that
    other groups share (behind a Concat), what is taken may be the multiple instead.
    """
    axes = _axes(coupling, group, shapes)
    if group.kind == "dims":
        axes.update((len(cell), len(cell)) for cell in group.cells)

    def fits(part: int) -> bool:
        for length, held in axes:
            gone = held * (group.step - part) // group.step
            if (length - gone) % multiple and (held == length or gone % multiple):
                return False
        return True

    return (*(part for part in range(1, group.step) if fits(part)), group.step)


def _axes(coupling: Coupling, group: Group, shapes: Mapping[str, Shape]) -> set[tuple[int, int]]:
    """For each axis of a weight: its length, and how much of it the group holds."""
    fallen = np.zeros(coupling.relations.count, bool)
    fallen[list(coupling.relations.closure(group.units))] = True
    axes = set()
    for name, axis in group.weights:
        for factor in coupling.factors[name]:
            if factor.axes[-1] == axis:
                rows = fallen[factor.rows()].sum(axis=1)
                axes.add((shapes[name][axis], int(rows.max())))
    return axes


def primary(coupling: Coupling, groups: Sequence[Group]) -> tuple[Group, ...]:
    """Groups that can be cut beside each other: of two that overlap, the one that the field would cut.

    Whole heads rather than the channels inside them; the channels inside a convolution's groups rather than whole
    groups.
    """
    order = {"channels": 0, "heads": 1, "dims": 2, "groups": 3}
    taken: set[int] = set()
    kept = []
    for group in sorted(groups, key=lambda group: order[group.kind]):
        fallen = coupling.relations.closure(group.units)
        if taken.isdisjoint(fallen):
            kept.append(group)
            taken |= fallen
    return tuple(sorted(kept, key=groups.index))
