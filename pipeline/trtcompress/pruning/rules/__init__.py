"""Rules of the operators. A new operator is one function here, under `@rule`."""

from __future__ import annotations

from . import convolutions, elementwise, lookups, movement, norms, products, recurrent
from .registry import RULES, Rule

__all__ = ["RULES", "Rule", "convolutions", "elementwise", "lookups", "movement", "norms", "products", "recurrent"]
