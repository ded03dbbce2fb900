"""Labels on the axes of a tensor: which of its elements live and die together with which of other tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """Labels of some axes of a tensor; an element is cut if the label at its place is.

    One axis in the usual case. After a reshape of 768 channels to 12 heads of 64 the factor lies over both axes, with
    labels of shape (12, 64). An axis that no factor covers is never cut.

    Attributes:
        axes: rising; none has length 1.
        labels: int64, of the lengths of these axes.
    """

    axes: tuple[int, ...]
    labels: Ints

    @classmethod
    def over(cls, axes: Sequence[int], labels: NDArray[Any]) -> Factor | None:
        """Labels of axes in any order, without those of length 1; None where nothing is left."""
        kept = [place for place in np.argsort(axes, kind="stable") if labels.shape[place] > 1]
        if not kept:
            return None
        moved = labels.transpose(*np.argsort(axes, kind="stable")).reshape([labels.shape[place] for place in kept])
        return cls(tuple(axes[place] for place in kept), np.ascontiguousarray(moved, np.int64))

    def spread(self, shape: Sequence[int]) -> Ints:
        """The labels as an array that broadcasts to a tensor of this shape."""
        lengths = [length if axis in self.axes else 1 for axis, length in enumerate(shape)]
        return self.labels.reshape(lengths)

    def rows(self) -> Ints:
        """The labels as rows along the last axis."""
        return self.labels.reshape(-1, self.labels.shape[-1])


def varying(labels: Ints) -> tuple[int, ...]:
    """The axes along which an array of labels changes."""
    return tuple(axis for axis in range(labels.ndim) if (labels != labels.take([0], axis)).any())


def factor_of(spread: Ints) -> Factor | None:
    """Read a tensor of labels back into the axes that they depend on."""
    axes = varying(spread)
    if not axes:
        return None
    place = tuple(slice(None) if axis in axes else 0 for axis in range(spread.ndim))
    return Factor(axes, np.ascontiguousarray(spread[place]))


def covered(factors: Iterable[Factor]) -> set[int]:
    """All axes that are under a factor."""
    return {axis for factor in factors for axis in factor.axes}
