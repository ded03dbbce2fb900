"""The samples that pruning reads, again and again in the same order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from trtcompress_calibration.data import Dataset
from trtcompress_calibration.samples import Sample
from trtcompress_graph.errors import DataError

HELD_BACK = 48
"""Samples on which damage is measured; the statistics come from the others, so that they are new to the repair."""

ENOUGH = 3 * HELD_BACK
"""With fewer samples none can be spared: damage is measured on what the statistics come from."""


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
        """Read all samples once.

        Raises:
            DataError: one of them holds NaN or infinity.
        """
        digest = hashlib.sha256()
        count = 0
        for sample in data:
            for name, array in sorted(sample.inputs.items()):
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise DataError(
                        f"input '{name}' holds NaN or infinity",
                        where=f"{data.source}: sample {count}",
                        hint="leave the sample out, or look at how it is made",
                    )
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
            count += 1
        return cls(data, data.source, count, digest.hexdigest())

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.data)

    def holds_back(self, place: int) -> bool:
        """Whether damage is measured on the sample at this place: a few from all over, since data is often sorted."""
        stride = max(1, self.total // HELD_BACK)
        return place % stride == 0 and place // stride < HELD_BACK

    @property
    def held_back(self) -> Iterable[Sample]:
        """The few on which damage is measured."""
        return (sample for place, sample in enumerate(self.data) if self.holds_back(place))

    @property
    def rest(self) -> Samples | Rest:
        """The others; all where there are too few to spare any."""
        return Rest(self) if self.enough else self

    @property
    def enough(self) -> bool:
        """Whether those that damage is measured on are new to the statistics."""
        return self.total >= ENOUGH

    @property
    def measured(self) -> int:
        """On how many samples damage is measured."""
        return min(self.total, HELD_BACK)


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """Samples that are not held back."""

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
        return (sample for place, sample in enumerate(self.samples) if not self.samples.holds_back(place))
