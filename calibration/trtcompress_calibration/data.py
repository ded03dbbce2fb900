"""Calibration and evaluation data: opened from what the user names, read sample by sample.

Every kind of source (see `sources`) gives chunks: arrays by name, each with a leading sample axis. Here they become
samples that fit the model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec

from .batching import batches
from .images import assumption
from .samples import Array, Batch, Preprocess, Sample
from .sources import Chunk, Chunks, Request, open_source
from .sources.images import holds_images
from .validate import check_lengths, check_names, check_shape, validate_sample

if TYPE_CHECKING:
    from .stateful import Feedback

__all__ = ["Batch", "Dataset", "Preprocess", "Sample", "batches", "open_dataset", "validate_sample"]

LABELS = "labels"
_log = logging.getLogger(__name__)


class Dataset:
    """Samples of one source, checked and in the model's types. Each `iter()` starts again from the first.

    Attributes:
        source: what the user named.
        labelled: whether the samples have labels.
        notes: what was done to the data to fit the model, one sentence each.
        total: how many samples it gives, where that is known without reading them.
        inputs: what a sample holds.
        feedback: what the model remembers, where a sample is a sequence of steps; see `stateful`.
    """

    feedback: Feedback | None = None

    def __init__(self, source: str, chunks: Chunks, inputs: Sequence[TensorSpec], samples: int | None = None) -> None:
        self.source = source
        self.notes: list[str] = []
        self.total: int | None = None
        self._chunks = chunks
        self.inputs = tuple(inputs)
        self._samples = samples
        self.labelled = self._first().label is not None

    def __iter__(self) -> Iterator[Sample]:
        number, labelled = 0, False
        for chunk in self._chunks():
            if chunk.total is not None:
                self.total = min(chunk.total, self._samples or chunk.total)
            for row, sample in enumerate(_split(chunk, self.inputs)):
                if number == self._samples:
                    return
                where = f"{chunk.where}: sample {chunk.first + row}"
                has_label = sample.label is not None
                if number and has_label != labelled:
                    raise DataError(
                        f"the sample has {'a label' if has_label else 'no label'}, unlike those before it",
                        where=where,
                        hint=f"give '{LABELS}' with every sample, or with none",
                    )
                labelled = has_label
                yield validate_sample(sample, self.inputs, where, self.note)
                number += 1

    def _first(self) -> Sample:
        """Read one sample, so that data which cannot be used is refused before any work starts."""
        for sample in self:
            return sample
        raise DataError("there are no samples", where=self.source, hint="name data that holds at least one sample")

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)
            _log.info("%s: %s", self.source, text)


def open_dataset(
    source: str | Path,
    inputs: Sequence[TensorSpec],
    *,
    samples: int | None = None,
    preprocess: Preprocess | None = None,
    base: Path,
) -> Dataset:
    """Open data; the first sample is read and checked at once, the rest when asked for.

    Args:
        source: an `.npz` file, a folder of `.npz` files, a folder of images, or `package.module:function`.
        inputs: inputs of the model.
        samples: read no more than this many.
        preprocess: how images become inputs; without it the input's own shape decides.
        base: folder that a relative path starts from, and where the module of a function is looked for.

    Raises:
        MissingPathError: there is no such file or folder.
        UsageError: the function cannot be imported.
        DataError: the data cannot be read or does not fit the model, or there is none.
    """
    if samples is not None and samples < 1:
        raise DataError(f"{samples} samples are asked for", where=str(source), hint="ask for at least one")
    request = Request(str(source), base / source, tuple(inputs), preprocess, base)
    made = Dataset(str(source), open_source(request), inputs, samples)
    if preprocess is None and holds_images(base / source):
        made.note(assumption(inputs[0]))
    return made


def _split(chunk: Chunk, inputs: Sequence[TensorSpec]) -> Iterator[Sample]:
    """Cut a chunk into samples, each input with the rank that the model wants."""
    check_names(chunk.arrays, inputs, chunk.where)
    arrays = {spec.name: chunk.arrays[spec.name] for spec in inputs}
    shared = {spec.name for spec in inputs if not spec.shape and not arrays[spec.name].ndim}
    for spec in inputs:
        if arrays[spec.name].ndim not in (len(spec.shape), len(spec.shape) + 1):
            check_shape(arrays[spec.name][:1] if arrays[spec.name].ndim else arrays[spec.name], spec, chunk.where)
    labels = None if any(spec.name == LABELS for spec in inputs) else chunk.arrays.get(LABELS)
    stacked = {name: array for name, array in arrays.items() if name not in shared}
    counted = stacked if labels is None else {**stacked, LABELS: labels}
    count = check_lengths({name: array.shape for name, array in counted.items()}, chunk.where)
    keeps_axis = {spec.name: arrays[spec.name].ndim == len(spec.shape) for spec in inputs}

    def one(name: str, i: int) -> Array:
        array = arrays[name]
        if name in shared:
            return array
        return array[i : i + 1] if keeps_axis[name] else np.asarray(array[i])

    for i in range(count):
        yield Sample({name: one(name, i) for name in arrays}, None if labels is None else np.asarray(labels[i]))
