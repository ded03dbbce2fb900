"""The registry of allocations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...registered import registered
from .task import Parts, Task

Allocate = Callable[[Task], Parts]


@dataclass(frozen=True, slots=True)
class Allocation:
    """A way to spread the budget.

    Attributes:
        needs_data: it measures on samples.
        about: one line for the user.
    """

    name: str
    allocate: Allocate
    needs_data: bool
    about: str


ALLOCATIONS: dict[str, Allocation] = {}


def allocation(name: str, *, needs_data: bool = False) -> Callable[[Allocate], Allocate]:
    """Register a way to spread the budget; the first line of its docstring tells users what it is.

    Raises:
        ValueError: the name is taken.
    """

    def keep(function: Allocate) -> Allocate:
        if name in ALLOCATIONS:
            raise ValueError(f"{name} is there already")
        about = (function.__doc__ or "").strip().splitlines()[0]
        ALLOCATIONS[name] = Allocation(name, function, needs_data, about)
        return function

    return keep


def find_allocation(name: str) -> Allocation:
    """The allocation of this name.

    Raises:
        UsageError: there is none.
    """
    return registered(ALLOCATIONS, name, "allocation")
