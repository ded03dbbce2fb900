"""Is the reference itself any good at its task? A drop from what guessing gives says nothing of an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .scores import Floats, Score

LEAST = 32
"""Fewer samples cannot tell a poor model from a wrong one: nothing is said."""

_SHUFFLES = 20
_ROUNDING = 1e-9
"""Means that differ by less are the same."""

_GUESSED = 0.5
"""A reference that gives one answer to all, or is asked for one alone, is doubted below this."""


def doubt(name: str, score: Callable[[Any], Score], labels: Any, own: Score) -> str:
    """Why the score of the reference is no better than chance; empty where it is, or where that cannot be told.

    Chance is the score against the labels in a random order: 20 orders, of which the mean and the standard deviation
    must be exceeded, so that of wrong labels about five in six sets are found, and weak models are left alone. Where
    the order does not matter, as all labels or all answers are the same, a score under one half is doubted.

    Args:
        name: of the metric, whose greater values are better.
        score: of the reference's outputs against labels.
        labels: of the samples.
        own: the score against the labels as they are.
    """
    reached = float(np.mean(own))
    why = _why(score, np.asarray(labels), reached)
    return f"{name} of the reference itself is {reached:.4g}, {why}: labels or preprocessing?" if why else ""


def all_zero(name: str, own: Score) -> str:
    """Doubt of a score that is 0 for each of enough samples; empty where it is not."""
    if isinstance(own, np.ndarray) and own.size >= LEAST and not own.any():
        return f"{name} of the reference itself is 0 for every sample: labels or preprocessing?"
    return ""


def _why(score: Callable[[Any], Score], labels: Any, reached: float) -> str:
    if len(labels) < LEAST:
        return ""
    guessed = _shuffled(score, labels)
    chance = float(guessed.mean())
    if np.ptp([*guessed, reached]) < _ROUNDING:
        if reached >= _GUESSED:
            return ""
        same = np.unique(labels)
        return f"and every label is {same[0]}" if same.size == 1 else "and all its answers are the same"
    if reached > chance + float(guessed.std()):
        return ""
    return f"no better than with the labels in a random order ({chance:.2g})"


def _shuffled(score: Callable[[Any], Score], labels: Any) -> Floats:
    rng = np.random.default_rng(0)
    return np.array([np.mean(score(labels[rng.permutation(len(labels))])) for _ in range(_SHUFFLES)])
