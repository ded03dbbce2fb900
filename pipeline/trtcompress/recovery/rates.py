"""Which learning rate: short trainings of some, as long as a higher or lower one is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

TRIED, LEAST_TRIED, MOST_TRIED = 0.05, 6, 100
"""Share of the steps of a training that each rate is tried for, and the least and the most of them."""

USUALLY_TRIED = 4
"""How many rates are tried, as a rule."""


def trial_steps(total: int) -> int:
    """Steps of each trial before a training of so many."""
    least = max(1, min(LEAST_TRIED, total // 8))
    return max(least, min(MOST_TRIED, round(TRIED * total)))


class Climbed(NamedTuple):
    """The best rate, the loss that it came to, and how many were tried."""

    rate: float
    loss: float
    tried: int


def climb(rates: Sequence[float], first: float, loss_of: Callable[[float], float]) -> Climbed:
    """The best of some rates: from the first up as long as it gets better, or down.

    Args:
        rates: in rising order.
        first: the one of them to begin with.
        loss_of: trains with a rate and measures; infinite where that goes astray. Of equal ones the lower rate counts.
    """
    tried: dict[int, float] = {}
    place = rates.index(first)
    while True:
        tried[place] = loss_of(rates[place])
        best, top, bottom = min(tried, key=lambda at: (tried[at], at)), max(tried), min(tried)
        if best == top < len(rates) - 1:
            place = top + 1
        elif best == bottom > 0:
            place = bottom - 1
        else:
            return Climbed(rates[best], tried[best], len(tried))
