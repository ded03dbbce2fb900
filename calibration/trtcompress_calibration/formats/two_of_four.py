"""Which two of four weights go, and what the others become.

In the manner of SparseGPT (arXiv 2301.00774), with one difference: the two are chosen, and made good, together. Of two
inputs that say the same one can go at no cost, but not both, which scores for each alone do not see.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it, as in the paper."""

_PAIRS = [np.array(pair) for pair in combinations(range(4), 2)]

_BLOCK = 128
"""Columns whose errors reach the columns behind the block together."""


def by_magnitude(weight: Doubles) -> Doubles:
    """The two greatest of every four in a row of [outputs, features]; the first ones where they are equal."""
    return np.where(_least_two(np.abs(weight)), 0.0, weight)


def solved(weight: Doubles, moments: Doubles) -> Doubles:
    """Two of four in a row, and what the rest becomes so that `E |(weight - result) x|^2` is small.

    Costs a Cholesky factor and `outputs * features^2` multiplications.

    Args:
        weight: [outputs, features].
        moments: `E x x^T`, [features, features].
    """
    features = len(moments)
    mean = np.trace(moments) / features
    damped = moments + (DAMPING * mean if mean > 0 else 1.0) * np.eye(features)
    try:
        inverse = np.linalg.inv(damped)
        upper = np.linalg.cholesky((inverse + inverse.T) / 2).T.astype(np.float64)
    except np.linalg.LinAlgError:
        return by_magnitude(weight)
    left = weight.copy()
    for start in range(0, features, _BLOCK):
        stop = min(start + _BLOCK, features)
        errors = np.empty((len(weight), stop - start))
        for i in range(start, stop, 4):
            gone, error = _cheapest(left[:, i : i + 4], upper[i : i + 4, i : i + 4])
            left[:, i:stop] -= error @ upper[i : i + 4, i:stop]
            left[:, i : i + 4] = np.where(gone, 0.0, left[:, i : i + 4])
            errors[:, i - start : i - start + 4] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return left


def _cheapest(weight: Doubles, factor: Doubles) -> tuple[npt.NDArray[np.bool_], Doubles]:
    """Of each row the two of four that cost least, and what their loss is made good by, in terms of the factor.

    The inverse moments of the four and all behind them begin with `factor^T factor`; leaving out the pair `p` of a row
    `w` costs `w_p (inverse_pp)^-1 w_p` (optimal brain surgeon).
    """
    inverse = factor.T @ factor
    solves = [np.linalg.inv(inverse[np.ix_(pair, pair)]) for pair in _PAIRS]
    costs = [
        np.einsum("op,pq,oq->o", weight[:, pair], solve, weight[:, pair])
        for pair, solve in zip(_PAIRS, solves, strict=True)
    ]
    best = np.argmin(costs, axis=0)
    gone, error = np.zeros(weight.shape, np.bool_), np.zeros(weight.shape)
    for number, (pair, solve) in enumerate(zip(_PAIRS, solves, strict=True)):
        rows = np.flatnonzero(best == number)
        gone[np.ix_(rows, pair)] = True
        error[rows] = weight[np.ix_(rows, pair)] @ solve @ factor[:, pair].T
    return gone, error


def damage(weight: Doubles, other: Doubles, moments: Doubles) -> Doubles:
    """`E |(weight - other) x|^2` of each row."""
    error = weight - other
    found: Doubles = np.einsum("of,of->o", error @ moments, error)
    return found


def _least_two(scores: Doubles) -> npt.NDArray[np.bool_]:
    """Which two of every four in a row score least; of equal ones the last go."""
    fours = scores.reshape(len(scores), -1, 4)
    order = np.argsort(-fours, axis=-1, kind="stable")
    least = np.zeros(fours.shape, np.bool_)
    np.put_along_axis(least, order[..., 2:], True, axis=-1)
    return least.reshape(scores.shape)
