"""Which labels fall with which, once the walk is over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from .factors import Ints
from .labels import Labels


@dataclass(frozen=True, slots=True, eq=False)
class Relations:
    """Relations between settled labels.

    Attributes:
        count: labels are below this.
        children: the rows that a parent stands for; it dies when all labels of one of them do, and all die with it.
        rows: by label, the rows (parent, place among its rows) that it is in.
        pinned: labels that stay, with the reason.
        grids: rows of labels that must keep equally many each.
        families: parents that are interchangeable, and what they are called (`heads`, `groups`).
    """

    count: int
    children: Mapping[int, tuple[frozenset[int], ...]]
    rows: Mapping[int, tuple[tuple[int, int], ...]]
    pinned: Mapping[int, str]
    grids: tuple[Ints, ...]
    families: tuple[tuple[Ints, str], ...]

    @classmethod
    def of(cls, labels: Labels, roots: Ints, alone: Mapping[int, str]) -> Relations:
        """Settle what was collected; `alone` are settled labels that stay too, with the reason."""
        found: dict[int, dict[frozenset[int], None]] = defaultdict(dict)
        for link in labels.links:
            for parent, row in zip(roots[link.parents].tolist(), roots[link.rows], strict=True):
                children = frozenset(row.tolist())
                if children != {parent}:
                    found[parent][children] = None
        children_of = {parent: tuple(some) for parent, some in found.items()}
        rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for parent, some in children_of.items():
            for place, row in enumerate(some):
                for child in row:
                    rows[child].append((parent, place))
        pinned: dict[int, str] = {}
        for held, why in labels.pins:
            for root in np.unique(roots[held]).tolist():
                pinned.setdefault(root, why)
        for root, why in alone.items():
            pinned.setdefault(root, why)
        return cls(
            labels.count,
            children_of,
            {child: tuple(some) for child, some in rows.items()},
            pinned,
            tuple(roots[grid] for grid in (*labels.grids, *(link.rows for link in labels.links))),
            tuple((roots[link.parents], link.kind) for link in labels.links),
        )

    def closure(self, dead: Collection[int]) -> frozenset[int]:
        """All that falls: children with their parents, and parents of which one row has no living child."""
        alone = {label for label in dead if label not in self.children and label not in self.rows}
        fallen: set[int] = set(alone)
        left: dict[tuple[int, int], int] = {}
        stack = [label for label in dead if label not in alone]
        while stack:
            label = stack.pop()
            if label in fallen:
                continue
            fallen.add(label)
            for row in self.children.get(label, ()):
                stack.extend(row)
            for place in self.rows.get(label, ()):
                left[place] = left.get(place, len(self.children[place[0]][place[1]])) - 1
                if not left[place]:
                    stack.append(place[0])
        return frozenset(fallen)
