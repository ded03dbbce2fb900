"""How much of each group goes: a registry, one entry a way to spread the budget."""

from __future__ import annotations

from . import damage, spread
from .registry import ALLOCATIONS, Allocation, find_allocation
from .task import Task

__all__ = ["ALLOCATIONS", "Allocation", "Task", "damage", "find_allocation", "spread"]
