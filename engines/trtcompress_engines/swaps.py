"""Outputs of an engine that stand under each other's names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

MOST_OUTPUTS = 8
"""Models with more outputs are not looked at: each pair costs a product of two outputs."""

_LIKE, _UNLIKE = 0.99, 0.9
"""Cosines over all values at which two outputs are taken for the same one, and for different ones."""


class SwapMeter:
    """Finds pairs of outputs of equal shapes where each is like the reference's other one and unlike its own."""

    def __init__(self) -> None:
        self._crossed: dict[tuple[str, str], NDArray[np.float64]] = {}

    def add(self, reference: Mapping[str, Array], engine: Mapping[str, Array]) -> None:
        """Add the outputs of one batch."""
        if len(reference) > MOST_OUTPUTS:
            return
        for one, other in combinations(reference, 2):
            if np.shape(reference[one]) == np.shape(reference[other]):
                for pair in ((one, other), (other, one)):
                    sums = self._crossed.setdefault(pair, np.zeros(3))
                    sums += _products(reference[pair[0]], engine[pair[1]])

    def found(self, own: Mapping[str, float]) -> dict[str, str]:
        """What to say of each output that was swapped.

        Args:
            own: cosine over all values of each output with the reference's of the same name.
        """
        return {
            name: f"it is like the reference's output '{other}': are their names swapped?"
            for other, name in self._crossed
            if max(own[name], own[other]) < _UNLIKE
            and min(_cosine(self._crossed[other, name]), _cosine(self._crossed[name, other])) > _LIKE
        }


def _products(one: Array, other: Array) -> NDArray[np.float64]:
    """Of both, of the first with itself, of the second with itself."""
    a, b = (np.asarray(value, np.float64).ravel() for value in (one, other))
    if a.size != b.size:
        return np.full(3, np.nan)
    return np.array([a @ b, a @ a, b @ b])


def _cosine(sums: NDArray[np.float64]) -> float:
    both, one, other = sums
    length = math.sqrt(one * other)
    return float(both / length) if length > 0 else 0.0
