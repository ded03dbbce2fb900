"""An answer of a server beside that of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.errors import ServingError

from .client import Refusal
from .requests import Feed
from .served_model import Served

if TYPE_CHECKING:
    from ..backend import Array

Answer = Feed | Refusal | ServingError
"""Outputs by name, or the error instead of them."""


def compared(
    served: Served, expected: Feed | None, answer: Answer, compare: bool, tolerance: float
) -> tuple[float, str]:
    """How far the answer is by the greatest value of an output, and what is wrong with it, if something is.

    Args:
        served: what was asked.
        expected: by the engine; None where that refuses the request, too.
        answer: of the server.
        compare: false where no engine was asked.
        tolerance: greatest distance.
    """
    if isinstance(answer, ServingError):
        return 0.0, answer.what
    if isinstance(answer, Refusal):
        return 0.0, "" if compare and expected is None else f"refused: {answer}"
    names = {tensor.name for tensor in served.outputs}
    if answer.keys() != names:
        return 0.0, f"outputs {sorted(answer)} instead of {sorted(names)}"
    if not compare:
        return 0.0, ""
    if expected is None:
        return 0.0, "answered, where the engine refuses"
    worst = 0.0
    for name, wanted in expected.items():
        got = answer[name]
        if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
            return worst, f"'{name}' is {got.dtype}{list(got.shape)}, the engine's {wanted.dtype}{list(wanted.shape)}"
        distance = _distance(got, wanted)
        if not distance <= tolerance:
            return distance, f"'{name}' is off by {distance:.2g} of its greatest value"
        worst = max(worst, distance)
    return worst, ""


def _distance(got: Array, wanted: Array) -> float:
    """Greatest difference over the greatest value; what is no number has to be equal."""
    if wanted.dtype.kind not in "fiu" or not wanted.size:
        return 0.0 if np.array_equal(got, wanted) else float("inf")
    one, other = np.asarray(got, np.float64), wanted.astype(np.float64)
    finite = np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return float("inf")
    most = float(np.abs(other[finite]).max(initial=0.0))
    apart = float(np.abs(one[finite] - other[finite]).max(initial=0.0))
    return apart / max(most, 1e-6)
