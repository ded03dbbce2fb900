"""The store of labels: which are the same, which fall with which, which may not be cut and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .factors import Ints


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """Parents [n], each of which stands for a row of children [n, m]; `kind` is what the parents are called."""

    parents: Ints
    rows: Ints
    kind: str


@dataclass(slots=True)
class Labels:
    """Collects relations while the graph is walked; `roots` settles them.

    Attributes:
        count: labels given out so far.
        links: a parent dies when all of its row do, and they with it.
        grids: rows of labels, of which all must keep the same number.
        pins: labels that stay, with the reason.
    """

    count: int = 0
    links: list[Link] = field(default_factory=list)
    grids: list[Ints] = field(default_factory=list)
    pins: list[tuple[Ints, str]] = field(default_factory=list)
    _left: list[Ints] = field(default_factory=list)
    _right: list[Ints] = field(default_factory=list)

    def fresh(self, shape: Sequence[int]) -> Ints:
        """Labels that were not used before."""
        size = int(np.prod(shape))
        made = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return made

    def tie(self, a: Ints, b: Ints) -> None:
        """The labels at the same places are the same; arrays are broadcast."""
        left, right = np.broadcast_arrays(a, b)
        differs = left != right
        if differs.any():
            self._left.append(left[differs])
            self._right.append(right[differs])

    def merge(self, labels: Ints, axes: Sequence[int], why: str) -> Ints:
        """Make labels the same along axes that stay whole; returns them without these axes."""
        first = labels
        for axis in axes:
            first = first.take([0], axis)
        self.tie(labels, first)
        if labels.ndim == len(axes):
            self.pin(first.reshape(-1), why)
        return first.reshape([length for axis, length in enumerate(labels.shape) if axis not in axes])

    def link(self, parents: Ints, children: Ints, kind: str) -> None:
        """A parent stands for its row of children, of shape (parents, children each)."""
        self.links.append(Link(parents.reshape(-1), children.reshape(parents.size, -1), kind))

    def pin(self, labels: Ints, why: str) -> None:
        """Labels that may not be cut."""
        self.pins.append((labels.reshape(-1), why))

    def roots(self) -> Ints:
        """For each label the least one that it is the same as."""
        if not self._left:
            return np.arange(self.count, dtype=np.int64)
        return components(self.count, np.concatenate(self._left), np.concatenate(self._right))


def components(count: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> Ints:
    """Connected components of `count` nodes: for each the least node of its component."""
    root = np.arange(count, dtype=np.int64)
    while True:
        a, b = root[left], root[right]
        open_ = a != b
        if not open_.any():
            return root
        left, right, a, b = left[open_], right[open_], a[open_], b[open_]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (deeper := root[root]).tobytes() != root.tobytes():
            root = deeper
