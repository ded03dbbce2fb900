"""How far an engine's outputs are from the reference's, batch by batch, in memory that does not grow.

The numbers are those of Polygraphy's `SimpleCompareFunc`, `CosineSimilarityCompareFunc` and `SnrCompareFunc` (the
tests compare them); those look at one whole array, and spend most of their time on medians and histograms that
no gate asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.errors import DataError
from trtcompress_graph.measured import EQUAL_DB, OutputParity

from .swaps import SwapMeter

Array = NDArray[np.generic]

BROKEN = 1e308
"""Stands for an error that is not a number: JSON has no infinity, and no gate lets it pass."""

_FLOOR = 1e-6
"""A relative error is taken against at least this share of the sample's greatest value: noise around zero
would otherwise be a relative error of billions."""


@dataclass(slots=True)
class _Sums:
    """Of one output over the batches so far."""

    max_abs: float = 0.0
    max_rel: float = 0.0
    cosine: float = 1.0
    dot: float = 0.0
    reference2: float = 0.0
    engine2: float = 0.0
    noise2: float = 0.0
    single: bool = True
    seen: bool = False
    broken: str = ""

    def add(self, reference: NDArray[np.float64], engine: NDArray[np.float64]) -> None:
        """Add one sample, flat."""
        same = (reference == engine) | (np.isnan(reference) & np.isnan(engine))
        usable = np.isfinite(reference) & np.isfinite(engine)
        if not (usable | same).all():
            self.broken = self.broken or _not_finite(reference, engine)
            return
        self.seen = self.seen or bool(usable.any()) or not reference.size
        if not usable.all():  # infinities and NaN that both have (masks) are equal and carry no signal
            reference, engine = reference[usable], engine[usable]
        noise = np.abs(reference - engine)
        size = np.abs(reference)
        peak, floor = float(noise.max(initial=0.0)), _FLOOR * float(size.max(initial=0.0))
        self.max_abs = max(self.max_abs, peak)
        if peak > 0:
            relative = noise / np.maximum(size, floor) if floor else np.ones(1)
            self.max_rel = max(self.max_rel, float(relative.max()))
        dot, reference2, engine2 = float(reference @ engine), float(reference @ reference), float(engine @ engine)
        self.dot += dot
        self.reference2 += reference2
        self.engine2 += engine2
        self.noise2 += float(noise @ noise)
        if reference.size > 1:
            self.single = False
            self.cosine = min(self.cosine, _cosine(dot, reference2, engine2) if peak else 1.0)

    @property
    def over_all(self) -> float:
        """Cosine of all values together."""
        return _cosine(self.dot, self.reference2, self.engine2) if self.noise2 else 1.0

    def parity(self, output: str, note: str) -> OutputParity:
        broken = self.broken or ("" if self.seen else "the reference itself gives nothing but NaN or infinity")
        if broken:
            return OutputParity(output, BROKEN, BROKEN, cosine=-1.0, snr_db=-EQUAL_DB, note=broken)
        cosine = self.over_all if self.single else self.cosine
        snr_db = _snr_db(self.reference2, self.noise2)
        scale = self.dot / self.reference2 if self.reference2 else None
        return OutputParity(output, self.max_abs, self.max_rel, cosine, snr_db, scale, note)


class ParityMeter:
    """Collects differences between reference and engine.

    A sample is a slice along the first axis. The cosine is the least of all samples; where a sample is one single
    number, whose cosine says nothing but its sign, it is the cosine over all samples. An output that is infinite
    or not a number where the reference is not, or of another shape (detections that are kept came out otherwise),
    gets cosine -1, errors of 1e308 and -999 dB, which no gate passes. So does one of which the reference itself never
    gives a number.
    """

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}
        self._swaps = SwapMeter()

    def add(self, reference: Mapping[str, Array], engine: Mapping[str, Array]) -> None:
        """Add the outputs of one batch.

        Raises:
            DataError: the engine lacks an output.
        """
        for name, expected in reference.items():
            if name not in engine:
                raise DataError(
                    f"the engine has no output '{name}'", where=name, hint=f"it has: {', '.join(sorted(engine))}"
                )
            sums = self._sums.setdefault(name, _Sums())
            if np.shape(engine[name]) != np.shape(expected):  # as of detections that are kept
                sums.broken = sums.broken or f"its shape is {_shape(engine[name])}, the reference's {_shape(expected)}"
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                for one, other in zip(_samples(expected), _samples(engine[name]), strict=True):
                    sums.add(_flat(one), _flat(other))
        self._swaps.add(reference, engine)

    def result(self) -> tuple[OutputParity, ...]:
        """Differences of each output, in the order in which the reference gave them."""
        swaps = self._swaps.found({name: sums.over_all for name, sums in self._sums.items()})
        return tuple(sums.parity(name, swaps.get(name, "")) for name, sums in self._sums.items())


def _samples(value: Array) -> Array:
    """The array with samples along its first axis; a scalar is one sample."""
    return np.asarray(value)[None] if np.ndim(value) == 0 else np.asarray(value)


def _shape(value: Array) -> list[int]:
    return list(np.shape(value))


def _not_finite(reference: NDArray[np.float64], engine: NDArray[np.float64]) -> str:
    """What is where the two differ in being finite."""
    if np.isfinite(engine).all():
        return "the reference itself gives NaN or infinity where the engine does not"
    kind = "NaN" if np.isnan(engine).any() else "infinity"
    return f"it holds {kind} where the reference does not: does float16 overflow?"


def _flat(sample: Array) -> NDArray[np.float64]:
    return np.asarray(sample, dtype=np.float64).ravel()


def _cosine(dot: float, reference2: float, engine2: float) -> float:
    if reference2 == 0 and engine2 == 0:
        return 1.0
    length = math.sqrt(reference2) * math.sqrt(engine2)
    return max(-1.0, min(1.0, dot / length)) if length else 0.0


def _snr_db(signal2: float, noise2: float) -> float:
    if noise2 == 0:
        return EQUAL_DB
    if signal2 == 0:
        return -EQUAL_DB
    return 10 * math.log10(signal2 / noise2)
