"""Groups: labels that are interchangeable, of which a cut keeps equally many in each of their cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import gcd

import numpy as np

from .factors import Factor, Ints
from .relations import Relations

Factors = Mapping[str, tuple[Factor, ...]]


@dataclass(frozen=True, slots=True)
class Group:
    """Units that can be cut one for another.

    Attributes:
        name: of the first weight that makes them; `:heads`, `:groups` and `:dims` follow where it makes several.
        kind: `channels`; `heads` (units that stand for a row of labels each), `groups` (those of a convolution) or
            `dims` (several cells, such as the channels inside each head).
        cells: labels (units); a cut keeps the same share of each cell.
        weights: (name, axis) of the weights that get smaller.
    """

    name: str
    kind: str
    cells: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[str, int], ...]

    @property
    def step(self) -> int:
        """The share of the cells falls on whole numbers of this many parts."""
        return reduce(gcd, (len(cell) for cell in self.cells))

    @property
    def units(self) -> tuple[int, ...]:
        """All units."""
        return tuple(unit for cell in self.cells for unit in cell)

    def kept(self, part: int) -> tuple[int, ...]:
        """How many units each cell keeps, of `part` of `step` parts."""
        return tuple(len(cell) * part // self.step for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Left:
    """An axis of a weight that stays whole; or a node (without an axis), with all that is in it."""

    weight: str
    axis: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Grouping:
    """What was found.

    Attributes:
        groups: candidates; whether a cut of them holds together is not known yet.
        uneven: labels of linked cells that have no equal parts.
        why: by label that is in no group, the reason.
    """

    groups: tuple[Group, ...]
    uneven: tuple[frozenset[int], ...]
    why: Mapping[int, str]


def group_labels(weights: list[str], factors: Factors, relations: Relations) -> Grouping:
    """Find the groups, in the order of the weights (names of stored tensors that have labels)."""
    places = _places(weights, factors)
    arrays = _distinct([f.rows() for held in factors.values() for f in held], relations)
    groups: list[Group] = []
    uneven = []
    seen: set[frozenset[int]] = set()
    why: dict[int, str] = dict(relations.pinned)
    for linked in _linked(arrays, _cells(arrays, relations)):
        cells, made = _made(linked, relations, why)
        labels = frozenset(label for cell in linked for label in cell)
        if not made:
            uneven += [labels] if labels.isdisjoint(relations.pinned) else []
            continue
        fallen = frozenset().union(*made.values())
        first = next(iter(made.values()))
        if first in seen or places.keys().isdisjoint(fallen):
            continue
        seen.update(made.values())
        groups.append(_group(cells, fallen, places, relations))
    order = {name: place for place, name in enumerate(weights)}
    groups.sort(key=lambda group: order[group.weights[0][0]])
    return Grouping(_named(groups), tuple(uneven), why)


def _places(weights: Iterable[str], factors: Factors) -> dict[int, list[tuple[int, str, int]]]:
    """By label, where it stands on weights: (place of the weight, its name, axis)."""
    places: dict[int, list[tuple[int, str, int]]] = defaultdict(list)
    for place, name in enumerate(weights):
        for factor in factors[name]:
            for label in set(factor.labels.reshape(-1).tolist()):
                places[label].append((place, name, factor.axes[-1]))
    return dict(places)


def _distinct(rows: Iterable[Ints], relations: Relations) -> list[Ints]:
    """Arrays of label rows, each once: those of tensors, of grids, and the parents of a link."""
    parents = [held.reshape(1, -1) for held, _ in relations.families]
    by_content = {(a.shape, a.tobytes()): a for a in (*rows, *relations.grids, *parents)}
    return list(by_content.values())


def _cells(arrays: list[Ints], relations: Relations) -> dict[int, list[int]]:
    """Interchangeable labels: those that stand equally often in the same rows everywhere.

    Of parents also those that they stand for must be in the same arrays, each equally often.
    """
    count = 1 + max((int(array.max()) for array in arrays if array.size), default=0)
    marks, inside = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    random = np.random.default_rng(0)
    for array in arrays:
        np.add.at(inside, array.reshape(-1), random.integers(1, 1 << 63, dtype=np.uint64))
        for row in array:
            np.add.at(marks, row, random.integers(1, 1 << 63, dtype=np.uint64))
    inside *= inside >> np.uint64(29)  # so that a sum tells which are in it
    for parent, rows in relations.children.items():
        if marks[parent]:
            below = sum(int(inside[list(row)].sum(dtype=np.uint64)) for row in rows)
            marks[parent] = (int(marks[parent]) + below) % (1 << 64)
    cells: dict[int, list[int]] = defaultdict(list)
    for label in np.flatnonzero(marks).tolist():
        cells[int(marks[label])].append(label)
    return dict(cells)


def _linked(arrays: list[Ints], cells: dict[int, list[int]]) -> list[list[list[int]]]:
    """Cells that must keep the same share, as they stand in rows of one array that has to stay a box."""
    cell_of = {label: mark for mark, cell in cells.items() for label in cell}
    above = {mark: mark for mark in cells}

    def top(mark: int) -> int:
        while above[mark] != mark:
            above[mark] = above[above[mark]]
            mark = above[mark]
        return mark

    for array in arrays:
        if len(array) > 1:
            marks = list(dict.fromkeys(cell_of[label] for label in np.unique(array).tolist()))
            for one, other in pairwise(marks):
                above[top(one)] = top(other)
    linked: dict[int, list[list[int]]] = defaultdict(list)
    for mark, cell in cells.items():
        linked[top(mark)].append(cell)
    return list(linked.values())


def _made(
    linked: list[list[int]], relations: Relations, why: dict[int, str]
) -> tuple[list[list[int]], dict[int, frozenset[int]]]:
    """The units of linked cells, and what falls with each; empty where they cannot be cut, with the reason noted."""
    made = []
    falls: dict[int, frozenset[int]] = {}
    reason = ""
    for cell in linked:
        units: dict[frozenset[int], int] = {}
        for label in cell:
            fall = relations.closure([label])
            pinned = fall & relations.pinned.keys()
            if pinned:
                reason = relations.pinned[min(pinned)]
                break
            units.setdefault(fall, label)
        if reason:
            break
        made.append(sorted(units.values()))
        falls |= {unit: fall for fall, unit in units.items()}
    if not reason and reduce(gcd, map(len, made)) < 2:
        reason = "nothing can be cut from it in equal parts"
    if reason:
        for label in (label for cell in linked for label in cell):
            why.setdefault(label, reason)
        return [], {}
    return sorted(made), falls


def _group(
    cells: list[list[int]],
    fallen: frozenset[int],
    places: Mapping[int, list[tuple[int, str, int]]],
    relations: Relations,
) -> Group:
    held = sorted({place for label in fallen for place in places.get(label, ())})
    unit = cells[0][0]
    kind = "channels"
    if unit in relations.children:
        kind = next((kind for family, kind in relations.families if (family == unit).any()), "heads")
    elif len(cells) > 1:
        kind = "dims"
    return Group("", kind, tuple(map(tuple, cells)), tuple((name, axis) for _, name, axis in held))


def _named(groups: list[Group]) -> tuple[Group, ...]:
    """Give groups names of their own."""
    named: list[Group] = []
    taken: set[str] = set()
    for group in groups:
        base = group.weights[0][0] + ("" if group.kind == "channels" else f":{group.kind}")
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}#{number}"
        taken.add(name)
        named.append(Group(name, group.kind, group.cells, group.weights))
    return tuple(named)


def left_whole(
    weights: list[str], factors: Factors, groups: Iterable[Group], why: Mapping[int, str]
) -> tuple[Left, ...]:
    """Axes of weights that no group cuts."""
    cut = {held for group in groups for held in group.weights}
    left = []
    for name in weights:
        for factor in factors[name]:
            axis = factor.axes[-1]
            if (name, axis) in cut:
                continue
            reasons = [why[label] for label in np.unique(factor.labels).tolist() if label in why]
            left.append(Left(name, axis, reasons[0] if reasons else "nothing can be cut from it in equal parts"))
    return tuple(dict.fromkeys(left))
