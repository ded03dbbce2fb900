"""How much each unit matters: a registry, one entry a way to score.

A unit's score sums over all weights that fall with it. Low scores go first.
"""

from __future__ import annotations

from . import gradient, magnitude, second_order
from .evidence import Evidence
from .registry import IMPORTANCES, Importance, find_importance

__all__ = ["IMPORTANCES", "Evidence", "Importance", "find_importance", "gradient", "magnitude", "second_order"]
