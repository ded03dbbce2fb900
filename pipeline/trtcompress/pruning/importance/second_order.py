"""Importance by what the consumers' outputs lose, from the statistics of their inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..groups import Group
from .evidence import Evidence
from .magnitude import l2
from .registry import Scores, importance

RIDGE = 1e-2
"""Added to the covariance, times its mean diagonal."""

_OUTPUTS = 256
"""A layer with more outputs is seen through this many random mixtures of them (Johnson-Lindenstrauss)."""

_ROUNDS = 160
"""In a large group several units go at a time, so that it takes about this many rounds."""

Matrix = NDArray[np.float64]


@importance("activation", needs_data=True)
def activation(evidence: Evidence, group: Group) -> Scores:
    """Power of what each unit adds to its consumers' outputs (as Wanda, arXiv 2306.11695)."""
    scores = dict.fromkeys(group.units, 0.0)
    for layer, features in evidence.consumers(group):
        if layer.name not in evidence.grams:
            continue
        power = np.diag(evidence.grams[layer.name].covariance)
        weight = layer.matrix(evidence.array(layer.weight)).astype(np.float64)
        added = power * np.square(weight).sum(axis=1)
        total = max(float(added.sum()), 1e-30)
        for unit, mask in features.items():
            scores[unit] += float(added[mask].sum()) / total
    return scores if any(scores.values()) else l2(evidence, group)


@importance("obs", needs_data=True)
def obs(evidence: Evidence, group: Group) -> Scores:
    """What the consumers' outputs lose when the rest takes over as well as it can (OBS).

    Greedy as in Optimal Brain Compression (arXiv 2208.11580), with whole units: the one goes whose removal adds least
    to the squared error over all consumers, the weights of the rest and the inverse covariance are updated, and so on.
    The scores are the errors at which the units went, relative to the power of the outputs. Costs d^3 for a consumer
    with d features. Groups that no layer with weights reads are scored by `l2`.
    """
    problems = [problem for problem in _problems(evidence, group) if problem is not None]
    if not problems:
        return l2(evidence, group)
    living = list(group.units)
    scores: dict[int, float] = {}
    level = 0.0
    while living:
        errors = sum((problem.errors(living) for problem in problems), np.zeros(len(living)))
        count = max(1, len(group.units) // _ROUNDS)
        for place in sorted(np.argsort(errors, kind="stable")[:count].tolist(), key=lambda i: errors[i]):
            level = max(level, float(errors[place]))
            scores[living[place]] = level
        gone = [unit for unit in living if unit in scores]
        for problem in problems:
            problem.remove(gone)
        living = [unit for unit in living if unit not in scores]
    return _strictly_rising(scores)


def _strictly_rising(scores: dict[int, float]) -> dict[int, float]:
    """Units in the order in which they went, even where the error did not rise."""
    return {unit: value * (1 + 1e-9 * place) + 1e-15 * place for place, (unit, value) in enumerate(scores.items())}


class _Problem:
    """One consumer: the inverse covariance of its features, and its weights."""

    def __init__(self, inverse: Matrix, weight: Matrix, features: dict[int, NDArray[np.int64]], power: float) -> None:
        self._inverse = inverse
        self._weight = weight
        self._features = features
        self._power = power
        self._rows = np.square(weight).sum(axis=1)

    def errors(self, units: list[int]) -> Matrix:
        """What each unit would add to the squared error, relative to the outputs' power."""
        sizes = {len(self._features[unit]) for unit in units}
        if sizes == {1}:
            places = np.array([self._features[unit][0] for unit in units])
            pivots = np.maximum(np.diag(self._inverse)[places], 1e-30)
            return np.asarray(self._rows[places] / pivots / self._power)
        found = np.zeros(len(units))
        for size in sizes - {0}:
            which = [i for i, unit in enumerate(units) if len(self._features[unit]) == size]
            places = np.stack([self._features[units[i]] for i in which])
            blocks = self._inverse[places[:, :, None], places[:, None, :]]
            weights = self._weight[places]
            solved = np.linalg.solve(blocks + 1e-12 * np.eye(size), weights)
            found[which] = (weights * solved).sum(axis=(1, 2))
        return found / self._power

    def remove(self, units: list[int]) -> None:
        """Take units out: the rest takes over."""
        gone = np.concatenate([self._features[unit] for unit in units])
        if not gone.size:
            return
        block = self._inverse[np.ix_(gone, gone)]
        across = self._inverse[:, gone]
        mixed = np.linalg.solve(block + 1e-12 * np.eye(len(gone)), across.T).T
        self._weight -= mixed @ self._weight[gone]
        self._inverse -= mixed @ across.T
        kept = np.ones(len(self._inverse), bool)
        kept[gone] = False
        moved = np.cumsum(kept) - 1
        self._inverse = np.ascontiguousarray(self._inverse[np.ix_(kept, kept)])
        self._weight = np.ascontiguousarray(self._weight[kept])
        self._rows = np.square(self._weight).sum(axis=1)
        self._features = {unit: moved[places[kept[places]]] for unit, places in self._features.items()}


def _problems(evidence: Evidence, group: Group) -> list[_Problem | None]:
    found: list[_Problem | None] = []
    for layer, masks in evidence.consumers(group):
        gram = evidence.grams.get(layer.name)
        if gram is None:
            continue
        covariance = gram.covariance
        weight = layer.matrix(evidence.array(layer.weight)).astype(np.float64)
        if len(weight) != len(covariance):
            continue
        if weight.shape[1] > _OUTPUTS:
            mixing = np.random.default_rng(0).normal(size=(weight.shape[1], _OUTPUTS)) / _OUTPUTS**0.5
            weight = weight @ mixing
        power = max(float(np.sum(weight * (covariance @ weight))), 1e-30)
        size = len(covariance)
        ridge = RIDGE * max(float(np.trace(covariance)) / size, 1e-12)
        inverse = np.asarray(np.linalg.inv(covariance + ridge * np.eye(size)), np.float64)
        found.append(_Problem(inverse, weight, {unit: np.flatnonzero(mask) for unit, mask in masks.items()}, power))
    return found
