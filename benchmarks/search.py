"""A peer's setting that meets a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def greatest_within(
    make: Callable[[float], T], cost: Callable[[T], float], budget: float, steps: int = 10
) -> tuple[T, float]:
    """The result whose cost comes nearest to a budget from below, by bisection of a setting between 0 and 1.

    A greater setting must not cost more. Where no setting gets below the budget, the cheapest result is given.

    Returns:
        The result and its setting.
    """
    low, high = 0.0, 1.0
    best: tuple[tuple[bool, float], T, float] | None = None
    for _ in range(steps):
        setting = (low + high) / 2
        made = make(setting)
        spent = cost(made)
        rank = (True, spent) if spent <= budget else (False, -spent)
        if best is None or rank > best[0]:
            best = (rank, made, setting)
        low, high = (low, setting) if spent <= budget else (setting, high)
    assert best is not None
    return best[1], best[2]
