"""Samples that something is measured on, and that are not learned from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtcompress_calibration.samples import Sample
    from trtcompress_calibration.stateful import Feedback

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


def part(samples: Iterable[Sample]) -> tuple[Iterable[Sample], tuple[Sample, ...]]:
    """`held_back` of what is whole: what may be learned from, and what is measured on."""
    rest, back = held_back(tuple(whole(samples)))
    return pieces(samples, rest), back


def fed_back(samples: Iterable[Sample]) -> Feedback | None:
    """What the model remembers, where the samples are steps of sequences."""
    from trtcompress_calibration.stateful import Steps

    return samples.fed if isinstance(samples, Steps) else None


def whole(samples: Iterable[Sample]) -> Iterable[Sample]:
    """What is measured on: the sequences, where the samples are steps of such, since an error grows along them."""
    from trtcompress_calibration.stateful import Steps

    return samples.sequences if isinstance(samples, Steps) else samples


def pieces(samples: Iterable[Sample], taken: Iterable[Sample]) -> Iterable[Sample]:
    """What is learned from: the steps of the sequences that were taken, where the samples are such."""
    from trtcompress_calibration.stateful import Steps

    return samples.of(taken) if isinstance(samples, Steps) else taken


def held_back(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """What may be learned from and what is measured on; all are both where there are fewer than four."""
    back = tuple(samples[3::4][:HELD_BACK])
    if not back:
        return tuple(samples), tuple(samples)
    kept = {id(sample) for sample in back}
    return tuple(s for s in samples if id(s) not in kept), back
