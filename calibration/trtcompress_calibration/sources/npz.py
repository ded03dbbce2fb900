"""`.npz` files: one, or a folder of them. Never unpickled, never unpacked to disk, never held whole in memory.

Arrays that are stored plain are mapped into memory; compressed ones are read some rows at a time.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec

from ..validate import check_lengths, check_names
from .base import Chunk, Chunks, Request, Source
from .npz_member import Member, open_member

_CHUNK_BYTES = 1 << 22
_LABELS = "labels"


def read_npz(path: Path, inputs: Sequence[TensorSpec], optional: Sequence[str] = ()) -> Iterator[Chunk]:
    """Samples of one file, some rows at a time.

    Raises:
        DataError: damaged, pickled, or without an array that the model needs.
    """
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            check_names([name for name in names if name != _LABELS], inputs, str(path))
            wanted = [*(spec.name for spec in inputs), *(name for name in (*optional, _LABELS) if name in names)]
            members = {name: open_member(path, archive, names[name], stack) for name in dict.fromkeys(wanted)}
            yield from _chunks(path, members)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"this is not a sound .npz file: {error}", where=str(path), hint="write it again with numpy.savez"
        ) from error


def _chunks(path: Path, members: dict[str, Member]) -> Iterator[Chunk]:
    single = {name: member.rows(0, 0) for name, member in members.items() if not member.shape}
    stacked = {name: member for name, member in members.items() if member.shape}
    count = check_lengths({name: member.shape for name, member in stacked.items()}, str(path)) if stacked else 1
    row_bytes = max((member.row_bytes for member in stacked.values()), default=1)
    step = max(1, _CHUNK_BYTES // max(row_bytes, 1))
    for start in range(0, count, step):
        stop = min(start + step, count)
        rows = {name: member.rows(start, stop) for name, member in stacked.items()}
        yield Chunk(str(path), {**single, **rows}, start, count)


def _open_file(request: Request) -> Chunks:
    return lambda: read_npz(request.path, request.inputs, request.optional)


def _open_folder(request: Request) -> Chunks:
    def chunks() -> Iterator[Chunk]:
        for path in sorted(request.path.glob("*.npz")):
            for chunk in read_npz(path, request.inputs, request.optional):
                yield replace(chunk, total=None)  # that of one file

    return chunks


FILE = Source(
    "an .npz file of stacked samples",
    lambda request: request.path.is_file() and request.path.suffix == ".npz",
    _open_file,
)
FOLDER = Source(
    "a folder of .npz files",
    lambda request: request.path.is_dir() and any(request.path.glob("*.npz")),
    _open_folder,
)
