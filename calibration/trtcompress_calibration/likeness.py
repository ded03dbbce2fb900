"""Are the samples that calibrate like those that evaluate? Preprocessing that differs is the usual reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.model import TensorSpec

from .samples import Array, Sample

LEAST = 8
"""Fewer samples on either side show too little: nothing is said."""

_VALUES = 16
"""Inputs with fewer values a sample (the number of a user, a rate) may well be other ones in another set."""

_GROSS = 0.5
"""Statistics that differ by less of the greater standard deviation do no harm."""


@dataclass(slots=True)
class _Seen:
    """Of one input over samples: the range of each statistic of a sample (mean, deviation, least, greatest)."""

    low: NDArray[np.float64] = field(default_factory=lambda: np.full(4, np.inf))
    high: NDArray[np.float64] = field(default_factory=lambda: np.full(4, -np.inf))
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    squares: float = 0.0
    samples: int = 0
    levels: set[float] = field(default_factory=set)
    many: bool = False
    small: bool = False

    def add(self, value: Array) -> None:
        values = np.asarray(value, np.float64)
        self.small = self.small or values.size < _VALUES
        least, greatest = float(values.min()), float(values.max())
        statistics = np.array([values.mean(), values.std(), least, greatest])
        self.low, self.high = np.minimum(self.low, statistics), np.maximum(self.high, statistics)
        self.total += statistics
        self.squares += float(np.square(values).mean())
        self.samples += 1
        self.levels |= {least, greatest}
        self.many = self.many or len(self.levels) > 2 or not ((values == least) | (values == greatest)).all()

    @property
    def mean(self) -> float:
        return float(self.total[0] / self.samples)

    @property
    def deviation(self) -> float:
        return float(np.sqrt(max(0.0, self.squares / self.samples - self.mean**2)))

    def apart(self, other: _Seen) -> NDArray[np.bool_]:
        """Of each statistic: no sample of the one comes near one of the other."""
        return (self.high < other.low) | (other.high < self.low)

    def unlike(self, other: _Seen) -> bool:
        if min(self.samples, other.samples) < LEAST or self.small or other.small:
            return False
        if not (self.many or other.many) and len(self.levels | other.levels) <= 2:
            return False  # masks
        gap = np.abs(self.total / self.samples - other.total / other.samples)
        return bool((self.apart(other) & (gap > _GROSS * max(self.deviation, other.deviation))).any())


def unlike(calibration: Iterable[Sample], evaluation: Iterable[Sample], inputs: Sequence[TensorSpec]) -> str:
    """In what input the two sets differ grossly; empty where they do not.

    They do where a statistic of a sample (mean, standard deviation, least or greatest value) lies on one side for all
    samples of the one set, on the other side for all of the other, and half a standard deviation of the values between
    them. Sets of one kind have samples in common ranges, so that the evaluation is read no further than to the first of
    these; chance puts two times eight samples so apart once in 6,000 times, and that far hardly ever.

    Args:
        calibration: samples, all read.
        evaluation: samples, read as far as needed.
        inputs: of the model.
    """
    first = _all_seen(calibration, inputs)
    second = {spec.name: _Seen() for spec in inputs}
    for sample in evaluation:
        for name, seen in second.items():
            seen.add(sample.inputs[name])
        if not any(first[name].apart(seen).any() for name, seen in second.items()):
            return ""
    for name, seen in second.items():
        if first[name].unlike(seen):
            return f"'{name}' has {_told(first[name])} where it calibrates, {_told(seen)} where it evaluates"
    return ""


def _all_seen(samples: Iterable[Sample], inputs: Sequence[TensorSpec]) -> dict[str, _Seen]:
    found = {spec.name: _Seen() for spec in inputs}
    for sample in samples:
        for name, seen in found.items():
            seen.add(sample.inputs[name])
    return found


def _told(seen: _Seen) -> str:
    return f"mean {seen.mean:.3g} and standard deviation {seen.deviation:.3g}"
