"""What an allocation has to solve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, islice

from ..budget import Costs
from ..coupling import Coupling
from ..groups import Group

Parts = Mapping[str, int]
"""By group, how many parts (of `group.step`) stay."""

_NUDGED = 24
_TRIES = 400
"""Counts of the graph that finding a cut inside the window may cost."""

Curve = Mapping[int, float]
"""By parts that stay, what the output loses."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Groups to cut, and how far.

    Attributes:
        widths: by group, the parts that may stay, rising; the last is all of them.
        ranked: by group, the units of each cell, the least important first.
        scores: by group, the score of each unit.
        limit: share of the cost that may stay.
        price: which cost counts (`macs` or `parameters`).
        measure: what the output loses when a group keeps so many parts; None without data.
    """

    coupling: Coupling
    groups: tuple[Group, ...]
    widths: Mapping[str, tuple[int, ...]]
    ranked: Mapping[str, tuple[tuple[int, ...], ...]]
    scores: Mapping[str, Mapping[int, float]]
    costs: Costs
    price: str
    limit: float
    measure: Callable[[Group], Curve] | None = None

    def within(self, price: str, limit: float) -> Task:
        """The same with this budget."""
        return replace(self, price=price, limit=limit)

    def measured(self, measure: Callable[[Group], Curve]) -> Task:
        """The same, with a way to measure damage."""
        return replace(self, measure=measure)

    def gone(self, parts: Parts) -> list[int]:
        """The units that go when so many parts stay."""
        units: list[int] = []
        for group in self.groups:
            for cell, kept in zip(self.ranked[group.name], group.kept(parts[group.name]), strict=True):
                units += cell[: len(cell) - kept]
        return units

    def share(self, parts: Parts) -> float:
        """The share of the cost that stays."""
        full = getattr(self.costs.full, self.price)
        return float(getattr(self.costs.of(self.gone(parts)), self.price) / max(full, 1))

    def least(self) -> Parts:
        """As little as may stay of each group."""
        return {group.name: self.widths[group.name][0] for group in self.groups}

    def filled(self, parts: Parts) -> Parts:
        """Widen groups one step at a time, the narrowest first, as long as the budget is kept.

        Brings a cut as near to its budget as the multiples allow. Costs a count of the graph for each step.
        """
        now = dict(parts)
        open_ = {group.name: group for group in self.groups}
        while open_:
            name = min(open_, key=lambda name: (now[name] / open_[name].step, name))
            wider = next((part for part in self.widths[name] if part > now[name]), None)
            if wider is None or self.share(now | {name: wider}) > self.limit:
                del open_[name]
            else:
                now[name] = wider
        return now

    def nudged(self, parts: Parts, window: float) -> Parts:
        """Bring a cut that multiples keep outside of the window into it, by small changes of one or two groups.

        Tries the neighbouring widths, the smallest changes first, for at most some hundreds of counts; where none
        fits, the cut is left as it is.
        """
        low = self.limit - window
        if low <= self.share(parts) <= self.limit:
            return parts
        moves = [
            (abs(reach), group.name, part)
            for group in self.groups
            for reach, part in self._near(group, parts[group.name])
        ]
        moves.sort()
        single = [{name: part} for _, name, part in moves]
        double = [
            {one: part, other: changed}
            for (_, one, part), (_, other, changed) in combinations(moves[:_NUDGED], 2)
            if one != other
        ]
        for change in islice((*single, *double), _TRIES):
            if low <= self.share(dict(parts) | change) <= self.limit:
                return dict(parts) | change
        return parts

    def _near(self, group: Group, now: int) -> list[tuple[int, int]]:
        """Widths near the present one, with how many steps they are away."""
        allowed = self.widths[group.name]
        place = allowed.index(now)
        return [
            (other - place, allowed[other])
            for other in range(max(0, place - 3), min(len(allowed), place + 4))
            if other != place
        ]
