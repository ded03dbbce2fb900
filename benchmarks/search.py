"""A peer's setting that meets a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

NEAR = 0.01
"""So little below the budget is near enough."""


def greatest_within(
    make: Callable[[float], T], cost: Callable[[T], float], budget: float, steps: int = 10
) -> tuple[T, float]:
    """A result whose cost (a fraction of the whole) is just within a budget, by search for its setting in 0 to 1.

    A greater setting must not cost more; 0 costs 1. Steps of false position and of bisection take turns. Where no
    setting gets below the budget, the cheapest result is given.

    Returns:
        The result and its setting.
    """
    (low, dear), (high, cheap) = (0.0, 1.0), (1.0, 0.0)
    best: tuple[tuple[bool, float], T, float] | None = None
    for step in range(steps):
        share = (dear - budget + NEAR / 2) / (dear - cheap)
        setting = low + (high - low) * (min(max(share, 0.02), 0.98) if step % 2 == 0 else 0.5)
        made = make(setting)
        spent = cost(made)
        rank = (True, spent) if spent <= budget else (False, -spent)
        if best is None or rank > best[0]:
            best = (rank, made, setting)
        if budget - NEAR <= spent <= budget:
            break
        if spent <= budget:
            high, cheap = setting, spent
        else:
            low, dear = setting, spent
    assert best is not None
    return best[1], best[2]
