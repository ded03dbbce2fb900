"""The registry of importances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...registered import registered
from ..groups import Group
from .evidence import Evidence

Scores = Mapping[int, float]
"""By unit."""

Score = Callable[[Evidence, Group], Scores]


@dataclass(frozen=True, slots=True)
class Importance:
    """A way to score.

    Attributes:
        needs_data: it reads what the samples make of the model.
        about: one line for the user.
    """

    name: str
    score: Score
    needs_data: bool
    about: str


IMPORTANCES: dict[str, Importance] = {}


def importance(name: str, *, needs_data: bool = False) -> Callable[[Score], Score]:
    """Register a way to score; the first line of its docstring tells users what it is.

    Raises:
        ValueError: the name is taken.
    """

    def keep(function: Score) -> Score:
        if name in IMPORTANCES:
            raise ValueError(f"{name} is there already")
        about = (function.__doc__ or "").strip().splitlines()[0]
        IMPORTANCES[name] = Importance(name, function, needs_data, about)
        return function

    return keep


def find_importance(name: str) -> Importance:
    """The importance of this name.

    Raises:
        UsageError: there is none.
    """
    return registered(IMPORTANCES, name, "importance")


def over_units(evidence: Evidence, group: Group, by_label: NDArray[np.float64]) -> Scores:
    """Sum what is known of labels over all that falls with each unit."""
    closure = evidence.coupling.relations.closure
    return {unit: float(by_label[list(closure([unit]))].sum()) for unit in group.units}
