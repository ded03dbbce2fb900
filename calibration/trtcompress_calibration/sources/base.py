"""What every kind of source takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trtcompress_graph.model import TensorSpec

from ..samples import Array, Preprocess


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for.

    Attributes:
        source: as the user wrote it.
        path: the same as a path, where it is one.
        inputs: inputs of the model.
        preprocess: how images become inputs.
        base: folder of the config.
        optional: further arrays that are read where they are there.
    """

    source: str
    path: Path
    inputs: tuple[TensorSpec, ...]
    preprocess: Preprocess | None
    base: Path
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some samples: arrays by name, each with a leading sample axis; labels under `labels`.

    Attributes:
        where: the file or function, for messages.
        arrays: arrays by name.
        first: number of the first sample within `where`.
        total: samples of the whole source, where that is known without reading it.
    """

    where: str
    arrays: Mapping[str, Array]
    first: int = 0
    total: int | None = None


Chunks = Callable[[], Iterator[Chunk]]
"""Reads a source from its start."""


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of source.

    Attributes:
        what: what it is, as the user would say it.
        accepts: whether a request names this kind.
        open: gives the reader of a request.
    """

    what: str
    accepts: Callable[[Request], bool]
    open: Callable[[Request], Chunks]
