"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trtcompress_graph.errors import CompileError, StoreError

FULL = 1 << 20
"""A disk with fewer free bytes is full."""


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder in `out` to write in; when the block ends well, its files move into `out`, `.onnx` files last.

    (An ONNX file may point at data beside it, which has to be there first.)

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=out) as folder:
            try:
                yield Path(folder)
            except CompileError as error:  # libraries do not always say that it was the disk
                if shutil.disk_usage(folder).free < FULL:
                    raise StoreError("the disk is full", where=str(out), hint="trtcompress cache gc") from error
                raise
            for path in sorted(Path(folder).iterdir(), key=lambda file: file.suffix == ".onnx"):
                _sync(path)
                path.replace(out / path.name)
    except OSError as error:
        raise StoreError(f"cannot write the engine: {error.strerror or error}", where=str(out)) from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
