"""Files under their final name are whole: they are written aside, flushed and renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path
from tempfile import TemporaryFile

from trtcompress_graph.errors import MissingPathError, StoreError

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says where nothing may be written."""


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Refuse a file that cannot be written, before hours of work and not after.

    Raises:
        MissingPathError: its folder is not there.
        StoreError: nothing can be written in it.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise StoreError(
            "cannot write here: it is a file and no folder", where=str(path.parent), hint="name a file in a folder"
        )
    if not path.parent.is_dir():
        raise MissingPathError("no such folder to write into", where=str(path.parent), hint=f"mkdir -p {path.parent}")
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise StoreError(
            f"cannot write here: {error.strerror}", where=str(path.parent), hint="name a file in another folder"
        ) from error
    if path.exists() and not os.access(path, os.W_OK):
        raise StoreError("the file is there and may not be written", where=str(path), hint="name another file")


def place(source: Path, path: Path) -> None:
    """Copy a file; does nothing where the copy has the size and time of change of the source already."""
    there = path.stat() if path.is_file() else None
    stat = source.stat()
    if there is not None and (there.st_size, there.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        shutil.copy2(source, aside)
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def sweep(folder: Path) -> None:
    """Remove what was written aside and a killed process left; only for who alone writes in the folder."""
    for path in list(folder.rglob(".*.partial")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
