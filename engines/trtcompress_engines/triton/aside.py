"""Folders that appear whole: written aside, forced to disk, then moved into place in one step."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trtcompress_graph.errors import StoreError

_log = logging.getLogger(__name__)

_AT_FDCWD = -100
_EXCHANGE = 2


@contextmanager
def repository_errors(place: Path, hint: str = "free some space") -> Iterator[None]:
    """Say what cannot be written in a repository, and what to do.

    Raises:
        StoreError: what lies at `place` cannot be written.
    """
    try:
        yield
    except OSError as error:
        what = f"the model repository cannot be written: {error.strerror or error}"
        raise StoreError(what, where=str(place), hint=hint) from error


@contextmanager
def put_folder(place: Path) -> Iterator[Path]:
    """A folder to fill; it takes its place when the block ends, or vanishes when the block raises.

    It is filled beside the parent of `place`, not in it: a server that watches the parent never sees it. Only where
    the parent is a file system of its own, from which nothing can be moved in one step, it is filled inside.
    """
    with put_folders([place]) as (folder,):
        yield folder


@contextmanager
def put_folders(places: Sequence[Path]) -> Iterator[list[Path]]:
    """As `put_folder`, for several of one parent: all are on disk before the first takes its place.

    They take their places one after the other; where one cannot, those before it go back. What fails after that is
    told and not raised: the new ones are in their places.
    """
    parent = places[0].parent
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{places[0].name}.", dir=_beside(parent)))
    try:
        folders = [work / place.name for place in places]
        for folder in folders:
            folder.mkdir()
        yield folders
        for folder in folders:
            _force(folder)
        _move_all(folders, places)
    except BaseException:
        _drop(work, places)
        raise
    try:
        _force_entry(parent)
    except OSError as error:
        _log.warning("%s is written, and may be as before after a loss of power: %s", parent, error.strerror)
    _clear(work)


def take_away(place: Path) -> None:
    """Remove a folder in one step for whoever watches its parent."""
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=_beside(place.parent)))
    try:
        place.rename(work / place.name)
    except BaseException:
        work.rmdir()
        raise
    _clear(work)


def _drop(work: Path, places: Sequence[Path]) -> None:
    """Remove what was to be put, but for what was there before and could not go back."""
    lost = {place: old for place in places if (old := _old(work / place.name)).exists()}
    for place, old in lost.items():
        _log.error("%s is what was in %s: move it back", old, place)
    if not lost:
        shutil.rmtree(work, ignore_errors=True)


def _clear(work: Path) -> None:
    """Remove what was moved out; a server of another user may have left files in it (`__pycache__`)."""
    shutil.rmtree(work, ignore_errors=True)
    if work.exists():
        _log.warning("%s holds what was there before, and cannot be removed: remove it as who owns its files", work)


def _move_all(folders: Sequence[Path], places: Sequence[Path]) -> None:
    moved: list[tuple[Path, Path]] = []
    try:
        for folder, place in zip(folders, places, strict=True):
            _move(folder, place)
            moved.append((folder, place))
    except BaseException:
        for folder, place in reversed(moved):
            if folder.exists():
                _exchange(folder, place)
            else:
                place.rename(folder)
        raise


def _beside(parent: Path) -> Path:
    above = parent.resolve().parent
    same = above.stat().st_dev == parent.stat().st_dev
    return above if same and os.access(above, os.W_OK) else parent


def _move(folder: Path, place: Path) -> None:
    try:
        folder.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _exchange(folder, place)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders in one step; where the system cannot, one after the other, and back where that fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        status = libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _EXCHANGE)
        if status == 0:
            return
    aside = _old(new)
    try:
        old.rename(aside)
        new.rename(old)
        aside.rename(new)
    except BaseException:
        if aside.exists():
            if not new.exists():
                old.rename(new)
            aside.rename(old)
        raise


def _old(new: Path) -> Path:
    """Where the one is, in the meantime, whose place `new` takes."""
    return new.with_name(f".{new.name}.old")


def _force(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            if not Path(root, name).is_symlink():
                _force_entry(Path(root, name))
        _force_entry(Path(root))


def _force_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
