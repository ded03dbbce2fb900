"""The kinds of data that can be named: one registry, one file a kind."""

from __future__ import annotations

from trtcompress_graph.errors import DataError, MissingPathError

from . import function, images, npz
from .base import Chunk, Chunks, Request, Source

__all__ = ["SOURCES", "Chunk", "Chunks", "Request", "Source", "open_source"]

SOURCES: tuple[Source, ...] = (function.SOURCE, npz.FILE, npz.FOLDER, images.SOURCE)
"""Asked in this order."""


def open_source(request: Request) -> Chunks:
    """The reader of the first kind that accepts the request.

    Raises:
        MissingPathError: there is no such path.
        DataError: it is there but is none of the kinds.
    """
    for kind in SOURCES:
        if kind.accepts(request):
            return kind.open(request)
    kinds = "; ".join(kind.what for kind in SOURCES)
    if not request.path.exists():
        raise MissingPathError("no such file or folder", where=str(request.path), hint=f"data is {kinds}")
    if request.path.is_dir():
        raise DataError("the folder holds no samples", where=str(request.path), hint=f"data is {kinds}")
    raise DataError("this kind of file is not read", where=str(request.path), hint=f"data is {kinds}")
