"""Weights from moments: repair from the full layer's own Gram matrix, and steps towards a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trtcompress_calibration.gram import Doubles, Gram

from .factors import Bools

RIDGES = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 1e9)
"""Ridges that are tried; the last moves the bias alone."""

_DIAGONAL = 1024
"""Up to so many unknowns a matrix is diagonalized, and every ridge comes for nothing; beyond, a few are tried."""

_JUDGES = 160
"""Outputs that a ridge is chosen by, at most."""

_FEW = (1e-4, 1e-2, 0.1, 1.0, 10.0)


@dataclass(frozen=True, slots=True)
class Step:
    """What is added to a matrix and to its bias; leading axes as in the moments."""

    matrix: Doubles
    bias: Doubles


def repaired(gram: Gram, matrix: Doubles, kept: Bools, ridge: float) -> tuple[Doubles, Doubles]:
    """The kept rows of a matrix, changed so that they make up for those that go, and what to add to the bias.

    Least squares of the full output over the kept features, `W + (C_kk + r)^-1 C_kd W_d`: closed form of a layer's
    own reconstruction as in "Optimal Brain Compression" (arXiv 2208.11580), with a bias.

    Args:
        gram: moments of all features.
        matrix: [features, outputs].
        kept: over the features.
        ridge: pulls towards the present weights, relative to the mean variance of the kept features.
    """
    covariance, mean = gram.covariance, gram.mean
    lost = matrix[~kept]
    inner = covariance[np.ix_(kept, kept)]
    share = _solve(inner, covariance[np.ix_(kept, ~kept)] @ lost, ridge)
    return matrix[kept] + share, mean[~kept] @ lost - mean[kept] @ share


def best_step(halves: tuple[Gram, Gram], free_bias: bool) -> Step | None:
    """The step towards the targets whose ridge does best across two halves of the samples; None where none helps.

    The ridge pulls the step to nothing, so the weights towards what they are. Each leading axis has its own ridge.

    Args:
        halves: moments of rows and of what the outputs lack.
        free_bias: the bias moves too; else moments are taken about zero.
    """
    systems = [_System.of(half, free_bias).thinned() for half in halves]
    both = _System.of(halves[0] + halves[1], free_bias)
    ridges = RIDGES if both.covariance.shape[-1] <= _DIAGONAL else _FEW
    errors = np.array([_across(systems, matrices) for matrices in _pairs(systems, ridges)])
    errors = np.where(np.isfinite(errors), errors, np.inf)
    chosen = np.asarray(np.argmin(errors, axis=0))
    better = np.asarray(np.min(errors, axis=0) < 0)
    if not better.any():
        return None
    # Both halves together have twice the rows, so they bear half the ridge.
    ridge = np.asarray(ridges)[chosen] / 2
    matrix = _solve(both.covariance, both.cross, ridge)
    matrix = np.where(better[..., None, None], matrix, 0)
    bias = np.where(better[..., None], both.bias(matrix), 0)
    finite = np.isfinite(matrix).all() and np.isfinite(bias).all()
    return Step(matrix, bias) if finite else None


@dataclass(frozen=True, slots=True)
class _System:
    """Moments of one half: about the means where the bias is free, else about zero."""

    covariance: Doubles
    cross: Doubles
    mean: Doubles
    target: Doubles

    @classmethod
    def of(cls, gram: Gram, free_bias: bool) -> _System:
        if free_bias:
            return cls(gram.covariance, gram.cross_covariance, gram.mean, gram.target_mean)
        nothing = np.zeros_like(gram.sums), np.zeros_like(gram.target_sums)
        return cls(gram.products / gram.count, gram.cross / gram.count, *nothing)

    def thinned(self) -> _System:
        """With some of the outputs alone, where there are many: they do to choose a ridge."""
        step = -(-self.cross.shape[-1] // _JUDGES)
        return _System(self.covariance, self.cross[..., ::step], self.mean, self.target[..., ::step])

    def bias(self, matrix: Doubles) -> Doubles:
        moved: Doubles = self.target - np.einsum("...f,...fo->...o", self.mean, matrix)
        return moved

    def gain(self, matrix: Doubles, bias: Doubles) -> Doubles:
        """Mean squared error of a step here, less that of none."""
        spread = np.sum(matrix * (self.covariance @ matrix - 2 * self.cross), axis=(-2, -1))
        missed = np.sum((self.bias(matrix) - bias) ** 2 - self.target**2, axis=-1)
        total: Doubles = spread + missed
        return total


def _across(systems: list[_System], matrices: tuple[Doubles, Doubles]) -> Doubles:
    """Error of the solution of each half in the other one."""
    one, other = systems
    return other.gain(matrices[0], one.bias(matrices[0])) + one.gain(matrices[1], other.bias(matrices[1]))


def _pairs(systems: list[_System], ridges: tuple[float, ...]) -> Iterator[tuple[Doubles, Doubles]]:
    """Solutions of both halves at every ridge."""
    one, other = (_path(system, ridges) for system in systems)
    yield from zip(one, other, strict=True)


def _path(system: _System, ridges: tuple[float, ...]) -> Iterator[Doubles]:
    if system.covariance.shape[-1] > _DIAGONAL:
        yield from (_solve(system.covariance, system.cross, ridge) for ridge in ridges)
        return
    values, vectors = np.linalg.eigh(system.covariance)
    turned = np.swapaxes(vectors, -1, -2) @ system.cross
    mean = _scale(system.covariance)
    for ridge in ridges:
        yield vectors @ (turned / (np.maximum(values, 0) + ridge * mean[..., None])[..., None])


def _scale(covariance: Doubles) -> Doubles:
    """Mean variance; 1 where nothing varies."""
    mean = np.asarray(np.trace(covariance, axis1=-2, axis2=-1) / covariance.shape[-1])
    scale: Doubles = np.where(mean > 1e-12, mean, 1.0)
    return scale


def _solve(covariance: Doubles, cross: Doubles, ridge: float | Doubles) -> Doubles:
    """Ridge least squares, the ridge relative to the mean variance."""
    held = covariance + np.asarray(ridge * _scale(covariance))[..., None, None] * np.eye(covariance.shape[-1])
    return np.asarray(np.linalg.solve(held, cross), np.float64)
