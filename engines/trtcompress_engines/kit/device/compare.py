"""How far outputs are from the golden ones, in the numbers of the build's own report, and top-k accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

EQUAL_DB = 999.0
BROKEN = 1e308
_FLOOR = 1e-6
"""A relative error is taken against at least this share of the sample's greatest value."""


class ParityMeter:
    """Collects differences batch by batch; a sample is a slice along the first axis."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}

    def add(self, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Add the outputs of one batch."""
        for name, reference in expected.items():
            sums = self._sums.setdefault(name, _Sums())
            if name not in found:
                sums.broken = "the engine does not have it"
            elif np.shape(found[name]) != np.shape(reference):
                shapes = list(np.shape(found[name])), list(np.shape(reference))
                sums.broken = "its shape is {}, the reference's {}".format(*shapes)
            else:
                ones, others = (v[None] if np.ndim(v) == 0 else v for v in (reference, found[name]))
                for index in range(len(ones)):
                    sums.add(np.asarray(ones[index], "f8").ravel(), np.asarray(others[index], "f8").ravel())

    def result(self) -> list[dict[str, Any]]:
        """Per output: greatest errors, least cosine of a sample, signal-to-noise ratio over all."""
        return [sums.told(name) for name, sums in self._sums.items()]


class _Sums:
    def __init__(self) -> None:
        self.broken = ""
        self._seen = False
        self._single = True
        self._max_abs = self._max_rel = self._dot = self._reference2 = self._found2 = self._noise2 = 0.0
        self._cosine = 1.0

    def add(self, reference: Any, found: Any) -> None:
        """Add one sample, flat."""
        same = (reference == found) | (np.isnan(reference) & np.isnan(found))
        usable = np.isfinite(reference) & np.isfinite(found)
        if not (usable | same).all():
            self.broken = self.broken or "it is not finite where the reference is, or the other way round"
            return
        self._seen = self._seen or bool(usable.any()) or not reference.size
        reference, found = reference[usable], found[usable]
        noise, size = np.abs(reference - found), np.abs(reference)
        peak, floor = float(noise.max(initial=0.0)), _FLOOR * float(size.max(initial=0.0))
        self._max_abs = max(self._max_abs, peak)
        if peak > 0:
            relative = noise / np.maximum(size, floor) if floor else np.ones(1)
            self._max_rel = max(self._max_rel, float(relative.max()))
        dot, reference2, found2 = float(reference @ found), float(reference @ reference), float(found @ found)
        self._dot += dot
        self._reference2 += reference2
        self._found2 += found2
        self._noise2 += float(noise @ noise)
        if reference.size > 1:
            self._single = False
            self._cosine = min(self._cosine, _cosine(dot, reference2, found2) if peak else 1.0)

    def told(self, name: str) -> dict[str, Any]:
        broken = self.broken or ("" if self._seen else "the reference itself gives nothing but NaN or infinity")
        if broken:
            worst = {"max_abs": BROKEN, "max_rel": BROKEN, "cosine": -1.0, "snr_db": -EQUAL_DB, "scale": None}
            return dict(worst, output=name, note=broken)
        over_all = _cosine(self._dot, self._reference2, self._found2) if self._noise2 else 1.0
        return {
            "output": name,
            "max_abs": self._max_abs,
            "max_rel": self._max_rel,
            "cosine": over_all if self._single else self._cosine,
            "snr_db": _snr_db(self._reference2, self._noise2),
            "scale": self._dot / self._reference2 if self._reference2 else None,
            "note": "",
        }


def hits(metric: str, outputs: Sequence[Mapping[str, Any]], labels: Sequence[Any]) -> list[int]:
    """1 for each sample whose label is among the k greatest scores, else 0.

    Args:
        metric: `top1` or `top5`, with `:output` where it is not the first one.
        outputs: of each batch.
        labels: of each batch.
    """
    kind, _, output = metric.partition(":")
    k, found = int(kind[3:]), []
    for index in range(len(outputs)):
        scores = np.asarray(outputs[index][output] if output else next(iter(outputs[index].values())), "f8")
        for row in range(len(labels[index])):
            own = scores[row][int(np.ravel(labels[index][row])[0])]
            ahead = int((~(scores[row] < own)).sum()) - 1  # ties count against it
            found.append(int(ahead < k and not np.isnan(own)))
    return found


def _cosine(dot: float, reference2: float, found2: float) -> float:
    if reference2 == 0 and found2 == 0:
        return 1.0
    length = math.sqrt(reference2) * math.sqrt(found2)
    return max(-1.0, min(1.0, dot / length)) if length else 0.0


def _snr_db(signal2: float, noise2: float) -> float:
    if noise2 == 0:
        return EQUAL_DB
    return 10 * math.log10(signal2 / noise2) if signal2 else -EQUAL_DB
