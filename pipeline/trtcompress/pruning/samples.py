"""The samples that pruning reads, again and again in the same order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from trtcompress_calibration.data import Dataset
from trtcompress_calibration.samples import Sample

HELD_BACK = 48
"""Samples on which damage is measured; the statistics come from the others, so that they are new to the repair."""

_ENOUGH = 3 * HELD_BACK


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples that were counted, so that each layer can take its share of all of them.

    Attributes:
        source: what the user named.
        total: how many there are.
        digest: SHA-256 over all of them in their order.
    """

    data: Dataset
    source: str
    total: int
    digest: str

    @classmethod
    def of(cls, data: Dataset) -> Samples:
        """Read all samples once."""
        digest = hashlib.sha256()
        count = 0
        for sample in data:
            for name, array in sorted(sample.inputs.items()):
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
            count += 1
        return cls(data, data.source, count, digest.hexdigest())

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.data)

    @property
    def held_back(self) -> Iterable[Sample]:
        """The first few, on which damage is measured."""
        return islice(iter(self.data), HELD_BACK)

    @property
    def rest(self) -> Samples | Rest:
        """The others; all where there are too few to spare any."""
        return Rest(self) if self.total >= _ENOUGH else self


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """Samples behind those that are held back."""

    samples: Samples

    @property
    def source(self) -> str:
        """What the user named."""
        return self.samples.source

    @property
    def total(self) -> int:
        """How many there are."""
        return self.samples.total - HELD_BACK

    def __iter__(self) -> Iterator[Sample]:
        return islice(iter(self.samples), HELD_BACK, None)
