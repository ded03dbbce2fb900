"""Which labels fall with which, once the walk is over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .factors import Ints
from .labels import Labels


@dataclass(frozen=True, slots=True, eq=False)
class Relations:
    """Relations between settled labels.

    Attributes:
        count: labels are below this.
        children: what falls with a parent.
        parents: what falls when all of its children have.
        pinned: labels that stay, with the reason.
        grids: rows of labels that must keep equally many each.
        families: parents that are interchangeable, and what they are called (`heads`, `groups`).
    """

    count: int
    children: Mapping[int, frozenset[int]]
    parents: Mapping[int, tuple[int, ...]]
    pinned: Mapping[int, str]
    grids: tuple[Ints, ...]
    families: tuple[tuple[Ints, str], ...]

    @classmethod
    def of(cls, labels: Labels, roots: Ints) -> Relations:
        """Settle what was collected."""
        children: dict[int, set[int]] = defaultdict(set)
        for above, below in labels.links:
            for parent, child in zip(roots[above].tolist(), roots[below].tolist(), strict=True):
                if parent != child:
                    children[parent].add(child)
        parents: dict[int, list[int]] = defaultdict(list)
        for parent, some in children.items():
            for child in some:
                parents[child].append(parent)
        pinned: dict[int, str] = {}
        for held, why in labels.pins:
            for root in np.unique(roots[held]).tolist():
                pinned.setdefault(root, why)
        return cls(
            labels.count,
            {parent: frozenset(some) for parent, some in children.items()},
            {child: tuple(some) for child, some in parents.items()},
            pinned,
            tuple(roots[grid] for grid in labels.grids),
            tuple((roots[held], kind) for held, kind in labels.kinds),
        )

    def closure(self, dead: Iterable[int]) -> frozenset[int]:
        """All that falls: children with their parents, and parents that have no living child."""
        fallen: set[int] = set()
        left: dict[int, int] = {}
        stack = list(dead)
        while stack:
            label = stack.pop()
            if label in fallen:
                continue
            fallen.add(label)
            stack.extend(self.children.get(label, ()))
            for parent in self.parents.get(label, ()):
                left[parent] = left.get(parent, len(self.children[parent])) - 1
                if not left[parent]:
                    stack.append(parent)
        return frozenset(fallen)
