"""Samples that something is measured on, and that are not learned from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtcompress_calibration.samples import Sample

HELD_BACK = 32
"""Samples that are held back to measure on, at the most; every fourth one, so that three times as many are left."""


class Parted:
    """`held_back` of samples that come one by one: gives what may be learned from, once, and keeps the others.

    Attributes:
        back: what is measured on; empty where there are fewer than four.
        first: the first three.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples
        self.back: list[Sample] = []
        self.first: list[Sample] = []

    def __iter__(self) -> Iterator[Sample]:
        for i, sample in enumerate(self._samples):
            if i < 3:
                self.first.append(sample)
            if i % 4 == 3 and len(self.back) < HELD_BACK:
                self.back.append(sample)
            else:
                yield sample


def held_back(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """What may be learned from and what is measured on; all are both where there are fewer than four."""
    back = tuple(samples[3::4][:HELD_BACK])
    if not back:
        return tuple(samples), tuple(samples)
    kept = {id(sample) for sample in back}
    return tuple(s for s in samples if id(s) not in kept), back
