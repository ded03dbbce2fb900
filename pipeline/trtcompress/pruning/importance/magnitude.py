"""Importance by the size of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..groups import Group
from .evidence import Evidence
from .registry import Scores, importance, over_units


@importance("l1")
def l1(evidence: Evidence, group: Group) -> Scores:
    """Sum of |w|."""
    return over_units(evidence, group, _by_label(evidence, group, np.abs))


@importance("l2")
def l2(evidence: Evidence, group: Group) -> Scores:
    """Root of the sum of w squared."""
    summed = over_units(evidence, group, _by_label(evidence, group, np.square))
    return {unit: value**0.5 for unit, value in summed.items()}


@importance("energy")
def energy(evidence: Evidence, group: Group) -> Scores:
    """Share of w squared in its tensor, so that large layers do not count for more."""

    def share(array: NDArray[Any]) -> NDArray[Any]:
        squared = np.square(array)
        return np.asarray(squared / max(float(squared.sum()), 1e-30))

    return over_units(evidence, group, _by_label(evidence, group, share))


@importance("random")
def random(evidence: Evidence, group: Group) -> Scores:
    """By chance: the control that every other one has to beat."""
    drawn = np.random.default_rng([evidence.seed, *group.name.encode()]).random(len(group.units))
    return dict(zip(group.units, drawn.tolist(), strict=True))


def _by_label(evidence: Evidence, group: Group, size: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[np.float64]:
    """For each label the summed size of the elements that carry it."""
    found = np.zeros(evidence.coupling.relations.count)
    for name in dict.fromkeys(name for name, _ in group.weights):
        array = size(evidence.array(name))
        for factor in evidence.coupling.factors[name]:
            others = tuple(axis for axis in range(array.ndim) if axis not in factor.axes)
            np.add.at(found, factor.labels, array.sum(axis=others).reshape(factor.labels.shape))
    return found
