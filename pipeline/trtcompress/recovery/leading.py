"""Beside labels the teacher leads at first and rests in the end: a student need not keep its mistakes.

A teacher that is heard up to the last step holds back a student that could do better (arXiv 1910.01348).
"""

from __future__ import annotations

LED = 0.5
"""Share of the steps in which it is heard."""


def lead(step: int, total: int) -> float:
    """Weight of the teacher in one of so many steps: from 1 down to 0, where it is no longer asked."""
    return max(0.0, 1 - step / (LED * total))
