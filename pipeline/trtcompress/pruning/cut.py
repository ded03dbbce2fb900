"""A cut: which labels are dead, and what shapes and masks follow from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.errors import PruneError

from .factors import Bools, Factor, Ints, Shape
from .relations import Relations


@dataclass(frozen=True, slots=True)
class Cut:
    """Labels that go, with all that falls with them.

    Attributes:
        dead: the labels.
        count: labels are below this.
    """

    dead: frozenset[int]
    count: int

    @classmethod
    def of(cls, relations: Relations, units: Collection[int]) -> Cut:
        """The cut of these units."""
        return cls(relations.closure(units), relations.count)


class Alive:
    """Masks and shapes of tensors under a cut.

    Args:
        factors: labels of the tensors.
        cut: what goes.
    """

    def __init__(self, factors: Mapping[str, Sequence[Factor]], cut: Cut) -> None:
        self._factors = factors
        self._alive = np.ones(cut.count, bool)
        self._alive[list(cut.dead)] = False

    def touched(self, name: str) -> tuple[Factor, ...]:
        """Factors of a tensor that lose something."""
        return tuple(f for f in self._factors.get(name, ()) if not self._alive[f.labels].all())

    def mask(self, name: str, shape: Shape) -> Bools | None:
        """Which elements of a tensor live (broadcasts to its shape); None where all do."""
        mask: Bools | None = None
        for factor in self.touched(name):
            own = self._alive[factor.spread(shape)]
            mask = own if mask is None else mask & own
        return mask

    def shape(self, name: str, shape: Shape) -> Shape:
        """The shape of a tensor after the cut.

        Raises:
            PruneError: what lives is not a box.
        """
        new = list(shape)
        for factor in self.touched(name):
            for axis, length in zip(factor.axes, box(self._alive[factor.labels], name), strict=True):
                new[axis] = min(new[axis], length)
        return tuple(new)

    def kept(self, labels: Ints) -> Bools:
        """Which of these labels live."""
        return self._alive[labels]


def box(alive: Bools, name: str = "") -> Shape:
    """Lengths of what lives: rows along the last axis are empty or equally long, and so on before it.

    Raises:
        PruneError: they are not.
    """
    lengths: list[int] = []
    while alive.ndim:
        counts = alive.sum(axis=-1)
        living = counts[counts > 0]
        if not living.size or (living != living.flat[0]).any():
            raise PruneError(
                "the cut would not leave a whole tensor" if living.size else "the cut would leave nothing of a tensor",
                where=f"tensor '{name}'",
                hint="cut less, or keep it with --keep",
            )
        lengths.insert(0, int(living.flat[0]))
        alive = counts > 0
    return tuple(lengths)


def shrink(array: NDArray[Any], mask: Bools, shape: Shape) -> NDArray[Any]:
    """The living elements of a tensor in their order, in its shape after the cut."""
    return np.ascontiguousarray(array[np.broadcast_to(mask, array.shape)].reshape(shape))
