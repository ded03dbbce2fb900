"""The samples of a training on disk, so that any of them can be read again in any order."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_calibration.batching import fixed_batch
from trtcompress_calibration.samples import Sample
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec

from .stored_labels import LabelWriter, StoredLabels

Ints = NDArray[np.int64]
OPEN = 64
"""Files that are open at once while samples are written: there is one for each shape and input."""

LABELS = "labels"
"""File of the labels, beside those of the samples."""

_Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """One input of the samples of one shape: a file of their bytes, one after the other."""

    path: Path
    dtype: str
    shape: tuple[int, ...]

    def rows(self, rows: Ints) -> NDArray[Any]:
        """Samples by their places, (rows, *shape)."""
        mapped = np.memmap(self.path, self.dtype, "r").reshape(-1, *self.shape)
        return np.asarray(mapped[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Samples of equal shapes.

    Attributes:
        inputs: by name.
        places: of each sample in the order of the data.
        stacks: they lead with a batch axis of length 1 and can share a batch.
    """

    inputs: Mapping[str, Stored]
    places: Ints
    stacks: bool


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """All samples.

    Attributes:
        groups: by shape, in the order in which these came up.
        labels: in the order of the data; None where there are none, or not all have one.
        unlabelled: the first sample without a label where others have one.
        fixed: the batch size of a model that fixes one.
        digest: SHA-256 over all samples and labels.
    """

    groups: tuple[Group, ...]
    labels: StoredLabels | None
    inputs: tuple[TensorSpec, ...]
    fixed: int | None
    digest: str
    source: str
    unlabelled: int | None = None

    @property
    def total(self) -> int:
        """How many samples there are."""
        return sum(len(group.places) for group in self.groups)

    def read(self, group: int, rows: Ints) -> dict[str, NDArray[Any]]:
        """Samples of one group as a batch; a model of fixed batch size gets the last of them repeated."""
        held = self.groups[group]
        if self.fixed is not None and held.stacks:
            rows = np.concatenate([rows, np.repeat(rows[-1:], self.fixed - len(rows))])
        found = {name: stored.rows(rows) for name, stored in held.inputs.items()}
        if held.stacks:
            return {name: array.reshape(-1, *array.shape[2:]) for name, array in found.items()}
        return {name: array[0, ...] for name, array in found.items()}  # an array also where it has no axis left

    def labels_of(self, group: int, rows: Ints) -> NDArray[Any] | None:
        """Labels of the same samples, stacked where they have one shape; else None."""
        if self.labels is None:
            return None
        found = self.labels.at(self.groups[group].places[rows].tolist())
        return np.stack(found) if len({label.shape for label in found}) == 1 else None


class _Streams:
    """Files that are written to in turn, of which no more than `OPEN` are open at once."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, IO[bytes]] = OrderedDict()

    def of(self, path: Path) -> IO[bytes]:
        """The file, at its end; the one that was not asked for longest is closed for it."""
        if path not in self._open:
            if len(self._open) >= OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[path] = path.open("ab")
        self._open.move_to_end(path)
        return self._open[path]

    def close(self) -> None:
        """All of them."""
        while self._open:
            self._open.popitem()[1].close()


class _Writer:
    """Writes the samples of one shape."""

    def __init__(self, folder: Path, number: int, arrays: Mapping[str, NDArray[Any]], streams: _Streams) -> None:
        self.stored = {
            name: Stored(folder / f"samples-{number}-{place}", array.dtype.str, array.shape)
            for place, (name, array) in enumerate(arrays.items())
        }
        for stored in self.stored.values():
            stored.path.unlink(missing_ok=True)
        self._streams = streams
        self.places: list[int] = []

    def add(self, arrays: Mapping[str, NDArray[Any]], place: int) -> None:
        """One more."""
        for name, stored in self.stored.items():
            self._streams.of(stored.path).write(np.ascontiguousarray(arrays[name]).tobytes())
        self.places.append(place)


def fill(
    samples: Iterable[Sample],
    inputs: Sequence[TensorSpec],
    folder: Path,
    source: str,
    progress: Callable[[int], None] = lambda done: None,
) -> Pool:
    """Read all samples once and keep them in `folder`.

    Args:
        samples: to keep.
        inputs: of the model that is trained; halves become what it takes.
        folder: for the files.
        source: name of the samples, for messages.
        progress: told how many were read.

    Raises:
        DataError: one of them holds NaN or infinity.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    writers: dict[_Shapes, _Writer] = {}
    with closing(_Streams()) as streams, (folder / LABELS).open("wb") as stream:
        labels = LabelWriter(stream)
        for place, sample in enumerate(samples):
            arrays = {spec.name: _as_taken(sample.inputs[spec.name], spec) for spec in inputs}
            _check_finite(arrays, f"{source}: sample {place}")
            shapes = tuple(array.shape for array in arrays.values())
            if shapes not in writers:
                writers[shapes] = _Writer(folder, len(writers), arrays, streams)
            writers[shapes].add(arrays, place)
            labels.add(None if sample.label is None else np.asarray(sample.label), place)
            _count(digest, sample)
            progress(place + 1)
    return Pool(
        groups=tuple(
            Group(writer.stored, np.array(writer.places, np.int64), _stack(shapes, inputs))
            for shapes, writer in writers.items()
        ),
        labels=labels.labels(folder / LABELS),
        inputs=tuple(inputs),
        fixed=fixed_batch(inputs),
        digest=digest.hexdigest(),
        source=source,
        unlabelled=labels.unlabelled if labels.some else None,
    )


def _stack(shapes: _Shapes, inputs: Sequence[TensorSpec]) -> bool:
    """Whether samples can share a batch: every input leads with a batch axis, which the model leaves open or fixes."""
    if any(shape[:1] != (1,) for shape in shapes):
        return False
    return fixed_batch(inputs) is not None or all(isinstance(spec.shape[0], str) for spec in inputs)


def _as_taken(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """An input in the type that the model takes, where it is float16 or bfloat16 and the model float32."""
    return array.astype(np.float32) if spec.dtype == "float32" and array.dtype != np.float32 else array


def _check_finite(arrays: Mapping[str, NDArray[Any]], where: str) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(
                f"input '{name}' holds NaN or infinity", where=where, hint="leave the sample out, or look at its making"
            )


def _count(digest: Any, sample: Sample) -> None:
    parts = [*sorted(sample.inputs.items()), *([] if sample.label is None else [("", np.asarray(sample.label))])]
    for name, array in parts:
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
