"""The artifact store: fingerprint -> folder. Safe for several builds at once, and for a kill at any moment.

    ROOT/objects/ab/abcd...      a finished entry: files, value.json, entry.json (written last)
    ROOT/tmp/RANDOM/             being written; renamed into objects when whole
    ROOT/tmp/RANDOM.lock         held (flock) by whoever writes in the folder of that name
    ROOT/locks/abcd...           held (flock) by whoever writes that entry

What is locked are files that are open for writing: on NFS these locks hold between machines, those of folders do not.

Behind it may stand a store that several machines share (shared_store.py): what is missing here is fetched from there,
and what was made here is sent there.

An entry is used only if every file still has the size and digest that entry.json names; else it is a miss.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trtcompress_graph.errors import StoreError

from .digests import file_digest
from .files import READ_ONLY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .shared_store import SharedStore

ENTRY = "entry.json"
LOCK = ".lock"

_in_use: set[Path] = set()
"""Scratch folders that this process writes in; see `abandon`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished artifact."""

    key: str
    path: Path
    stage: str
    size: int
    used: float


class Store:
    """Artifacts under one folder.

    Args:
        root: the folder.
        shared: asked for what is not in the folder, and given what is made.

    Raises:
        StoreError: the folder cannot be made or written.
    """

    def __init__(self, root: Path, shared: SharedStore | None = None) -> None:
        self.root = root.resolve()
        self.shared = shared
        with store_errors(self.root):
            for name in ("objects", "tmp", "locks"):
                _make(self.root / name)
        self._sweep()

    def path(self, key: str) -> Path:
        """Where the entry of a fingerprint lies, whether it is there or not."""
        return self.root / "objects" / key[:2] / key

    def get(self, key: str) -> Path | None:
        """Folder of a finished entry; a damaged one counts as missing, and `commit` replaces it."""
        path = self.path(key)
        if not is_whole(path):
            return None
        try:
            os.utime(path)  # gc removes what was not used for longest
        except FileNotFoundError:  # removed in this moment
            return None
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
        return path

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the right to write an entry. The kernel drops it when the process dies."""
        with store_errors(self.root):
            stream = (self.root / "locks" / key).open("w")
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of one's own that is gone afterwards, unless `commit` took it.

        It is locked while in use, so that a later build knows what a killed one left behind.
        """
        path = self.root / "tmp" / secrets.token_hex(12)
        with ExitStack() as ending:
            with store_errors(self.root):
                ending.enter_context(_held(path))
                ending.callback(_lock_of(path).unlink, missing_ok=True)
                path.mkdir()  # only now, so that it is never seen without its lock
            ending.callback(shutil.rmtree, path, ignore_errors=True)
            _in_use.add(path)
            ending.callback(_in_use.discard, path)
            yield path

    def commit(self, key: str, scratch: Path, facts: dict[str, Any]) -> Path:
        """Make a scratch folder the entry of `key`: digests noted, all flushed to disk, then renamed."""
        with store_errors(self.root):
            return self._seal(key, scratch, {**facts, "key": key, "files": _states(scratch)})

    def fetch(self, key: str) -> bool:
        """Bring an entry from the shared store, for who holds its lock. Returns whether it is here now.

        It gets its final name after every file was found to be what the entry's note says.
        """
        if self.shared is None:
            return False
        with self.scratch() as out, store_errors(self.root):
            facts = self.shared.download(key, out)
            if facts is None:
                return False
            files = _states(out)
            if {name: _content(state) for name, state in files.items()} != {
                name: _content(state) for name, state in facts["files"].items()
            }:
                self.shared.distrust(key, "its files are not those that were sent")
                return False
            entry = self._seal(key, out, {**facts, "files": files})
        self._mark_shared(entry)
        return True

    def share(self, key: str, *, again: bool = False) -> bool:
        """Send an entry to the shared store, unless it was sent before; so one is sent later that could not be.

        Args:
            key: its fingerprint.
            again: send all of it, though it was sent before: it was lost there.

        Returns:
            Whether the shared store has it, as far as is known.
        """
        entry = self.path(key)
        if self.shared is None:
            return False
        if not again and self.shared.identity and self._shared_mark(entry).exists():
            return True
        try:
            facts = json.loads((entry / ENTRY).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # removed or damaged in this moment
            return False
        sent = self.shared.upload(key, entry, facts, again=again)
        if sent:
            self._mark_shared(entry)
        return sent

    def _shared_mark(self, entry: Path) -> Path:
        """Says that the shared store has got the entry; it may have lost it since."""
        assert self.shared is not None
        return entry / f".shared-{self.shared.identity}"

    def _mark_shared(self, entry: Path) -> None:
        with suppress(OSError):  # on a disk that cannot be written it is asked again the next time
            self._shared_mark(entry).touch()

    def _seal(self, key: str, scratch: Path, facts: Mapping[str, Any]) -> Path:
        final = self.path(key)
        with store_errors(self.root):
            (scratch / ENTRY).write_text(json.dumps(facts, indent=1), encoding="utf-8")
            for path in (*scratch.rglob("*"), scratch):
                _flush(path)
            final.parent.mkdir(parents=True, exist_ok=True)
            self._discard(final)  # it is damaged, or nobody would have made it again
            scratch.rename(final)
            _flush(final.parent)
        return final

    def entries(self) -> list[Entry]:
        """All finished entries, the longest unused first."""
        found = []
        for path in (self.root / "objects").glob("*/*"):
            try:
                size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
                found.append(Entry(path.name, path, _stage_of(path), size, path.stat().st_mtime))
            except FileNotFoundError:  # removed in this moment
                continue
        return sorted(found, key=lambda entry: entry.used)

    def damaged(self) -> list[Entry]:
        """Entries whose files are not what entry.json says; every byte is read."""
        return [entry for entry in self.entries() if not is_whole(entry.path, trust_times=False)]

    def gc(self, max_bytes: int | None, max_age_s: float | None) -> list[Entry]:
        """Remove entries unused for longer than `max_age_s`, then the longest unused until `max_bytes` hold."""
        entries = self.entries()
        total, now, removed = sum(entry.size for entry in entries), time.time(), []
        for entry in entries:
            too_old = max_age_s is not None and now - entry.used > max_age_s
            if too_old or (max_bytes is not None and total > max_bytes):
                self.remove(entry)
                total -= entry.size
                removed.append(entry)
        return removed

    def remove(self, entry: Entry) -> None:
        """Remove an entry."""
        with store_errors(self.root), self.lock(entry.key):
            self._discard(entry.path)

    def _discard(self, path: Path) -> None:
        """Move a folder out of sight before its files go, so that half of it is never seen."""
        aside = self.root / "tmp" / secrets.token_hex(12)
        try:
            path.rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed builds left in tmp: folders whose lock nobody holds, on no machine."""
        for path in (self.root / "tmp").iterdir():
            folder = path.with_suffix("") if path.suffix == LOCK else path
            try:
                with _lock_of(folder).open("r+") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                    _lock_of(folder).unlink(missing_ok=True)
            except FileNotFoundError:  # moved there to be removed
                shutil.rmtree(folder, ignore_errors=True)
            except OSError:  # held, or not ours to remove
                continue


def _lock_of(scratch: Path) -> Path:
    return scratch.with_name(f"{scratch.name}{LOCK}")


def _held(scratch: Path) -> IO[str]:
    """The lock of a scratch folder, held; a new one where it was swept before it was."""
    while True:
        stream = _lock_of(scratch).open("w")
        fcntl.flock(stream, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), _lock_of(scratch).stat()):
                return stream
        stream.close()


def _make(folder: Path) -> None:
    """Make a folder of the store."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # a file system such as /proc takes no new folders, and says it so
        raise StoreError(
            "the store cannot be created here",
            where=str(folder.parent),
            hint="name another folder with --store, or with the environment variable TRTCOMPRESS_STORE",
        ) from error


def abandon() -> None:
    """Remove what this process still writes, for when it ends without waiting for the threads that write it.

    Renamed first, so that those threads find no folder to go on in.
    """
    for path in tuple(_in_use):
        gone = path.with_name(f"{path.name}.gone")
        with suppress(OSError):  # finished in this moment, or on a disk that is gone: the next build sweeps it
            path.rename(gone)
            _lock_of(path).unlink(missing_ok=True)
        shutil.rmtree(gone, ignore_errors=True)


def is_whole(entry: Path, *, trust_times: bool = True) -> bool:
    """Whether all files of an entry are there and unchanged.

    Args:
        entry: folder of the entry.
        trust_times: take a file whose size and time of change are as noted for unchanged, without reading it.
    """
    try:
        files = json.loads((entry / ENTRY).read_text(encoding="utf-8"))["files"]
        for name, state in files.items():
            path = entry / name
            stat = path.stat()
            if stat.st_size != state["size"]:
                return False
            same_time = trust_times and stat.st_mtime_ns == state["mtime_ns"]
            if not same_time and file_digest(path) != state["sha256"]:
                return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _stage_of(entry: Path) -> str:
    try:
        return str(json.loads((entry / ENTRY).read_text(encoding="utf-8"))["stage"])
    except (OSError, ValueError, KeyError, TypeError):
        return "?"


def _states(folder: Path) -> dict[str, dict[str, Any]]:
    """Of each file in a folder, by its path there."""
    return {path.relative_to(folder).as_posix(): _state(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _content(state: Mapping[str, Any]) -> tuple[int, str]:
    return int(state["size"]), str(state["sha256"])


def _state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": file_digest(path)}


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def store_errors(
    root: Path, options: str = "--store and --out", free: str = " (trtcompress cache gc)"
) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says so.

    Args:
        root: what is written to, where the system does not name a file.
        options: that name another folder.
        free: how to free space, behind the words for that.

    Raises:
        StoreError: nothing can be written there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                "no space left on the disk; nothing half-written was kept",
                where=str(error.filename or root),
                hint=f"free some space{free}, or name another folder with {options}",
            ) from error
        nowhere = error.errno == errno.ENOENT and not root.exists()  # as under /proc, where no folder is made
        if nowhere or error.errno in (*READ_ONLY, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise StoreError(
                f"cannot write here: {error.strerror}",
                where=str(error.filename or root),
                hint=f"name another folder with {options}",
            ) from error
        raise
