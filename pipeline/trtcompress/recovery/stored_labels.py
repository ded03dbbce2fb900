"""The labels of a training on disk: masks are as large as the samples are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class StoredLabels(Sequence[Array]):
    """One label a sample, in the order of the data, each of its own type and shape.

    Attributes:
        path: of a file with the bytes of all, one behind the other.
        starts: where in it each begins, and the last one ends; (count + 1).
        forms: place of its type and shape in `kinds`, of each.
        objects: labels that are Python's own objects and have no bytes, by place.
    """

    path: Path
    starts: NDArray[np.int64]
    forms: NDArray[np.int32]
    kinds: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]
    objects: Mapping[int, Array]

    def __len__(self) -> int:
        return len(self.forms)

    @overload
    def __getitem__(self, place: int) -> Array: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Array, ...]: ...
    def __getitem__(self, place: int | slice) -> Array | tuple[Array, ...]:
        with self.path.open("rb") as stream:
            if isinstance(place, slice):
                return tuple(self._read(stream, one) for one in range(*place.indices(len(self))))
            return self._read(stream, range(len(self))[place])

    def __iter__(self) -> Iterator[Array]:
        with self.path.open("rb") as stream:
            for place in range(len(self)):
                yield self._read(stream, place)

    def at(self, places: Iterable[int]) -> list[Array]:
        """Labels of some samples, in one pass over the file."""
        with self.path.open("rb") as stream:
            return [self._read(stream, place) for place in places]

    def shape(self, place: int) -> tuple[int, ...]:
        """Of one label, which is not read."""
        _, shape = self.kinds[int(self.forms[place])]
        return shape

    def _read(self, stream: IO[bytes], place: int) -> Array:
        if place in self.objects:
            return self.objects[place]
        dtype, shape = self.kinds[int(self.forms[place])]
        start, end = self.starts[place : place + 2].tolist()
        stream.seek(start)
        return np.frombuffer(bytearray(stream.read(end - start)), np.uint8).view(dtype).reshape(shape)


class LabelWriter:
    """Writes labels as they come, and keeps none of them.

    Args:
        stream: of the file, open for writing.

    Attributes:
        unlabelled: the first sample without a label; None where all have one.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.unlabelled: int | None = None
        self._stream = stream
        self._starts, self._forms = [0], list[int]()
        self._kinds: dict[tuple[np.dtype[Any], tuple[int, ...]], int] = {}
        self._objects: dict[int, Array] = {}

    def add(self, label: Array | None, place: int) -> None:
        """The label of one more sample, or None where it has none."""
        if label is None:
            self.unlabelled = place if self.unlabelled is None else self.unlabelled
            return
        written = b""
        if label.dtype.hasobject:
            self._objects[len(self._forms)] = label
        else:
            written = np.ascontiguousarray(label).tobytes()
            self._stream.write(written)
        self._starts.append(self._starts[-1] + len(written))
        self._forms.append(self._kinds.setdefault((label.dtype, label.shape), len(self._kinds)))

    @property
    def some(self) -> bool:
        """Whether any sample has a label."""
        return bool(self._forms)

    def labels(self, path: Path) -> StoredLabels | None:
        """All of them, of the file at `path`; None where not every sample has one."""
        if not self.some or self.unlabelled is not None:
            return None
        starts, forms = np.array(self._starts, np.int64), np.array(self._forms, np.int32)
        return StoredLabels(path, starts, forms, tuple(self._kinds), self._objects)
