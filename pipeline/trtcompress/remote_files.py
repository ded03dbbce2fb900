"""Files of an engine or kit, sent to the machine that builds it, and what it made, brought back."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Thread
from typing import IO

from trtcompress_graph.errors import RemoteError, RemoteSpaceError

from . import remote_scripts as scripts
from .digests import digest_of, file_digest
from .remote import call
from .remote_host import Host, ensure
from .store import store_errors

_NEEDED = 3
"""Space for the files, a plan as large, and what TensorRT writes meanwhile."""

Tell = Callable[[str], None]


def key_of(sent: Mapping[str, str], folder: Path) -> str:
    """Under what files lie there: others of them, or those of another folder or machine, lie apart."""
    return digest_of([dict(sent), str(folder.resolve()), platform.node()])[:32]


def send(host: Host, key: str, folder: Path, sent: Mapping[str, str], tell: Tell) -> None:
    """Send what is not there yet."""
    answer = call(host.remote, scripts.state(key, list(sent)), "looking what is there")
    if answer.told("built"):
        return
    there = {name: sha256 for sha256, _, name in (line.partition(" ") for line in answer.told("have"))}
    missing = {name: sha256 for name, sha256 in sent.items() if there.get(name) != sha256}
    size = sum((folder / name).stat().st_size for name in missing)
    if size * _NEEDED > host.free:
        raise RemoteSpaceError(
            f"{host.free / 1e6:.1f} MB are free there, and some {size * _NEEDED / 1e6:.1f} MB are needed",
            where=str(host.remote),
            hint="free some space there; XDG_CACHE_HOME there names another disk",
        )
    if not missing:
        return
    tell(f"sending {len(missing)} files, {size / 1e6:.1f} MB, to {host.remote}")
    with _as_tar(folder, list(missing)) as stream:
        answer = call(host.remote, scripts.receive(key, missing), "sending files", stdin=stream)
    if answer.code == scripts.DAMAGED:
        raise RemoteError(
            "what was sent arrived damaged", where=str(host.remote), hint="the same command sends it once more"
        )
    ensure(answer, host.remote, "sending files")


@contextmanager
def _as_tar(folder: Path, names: Sequence[str]) -> Iterator[IO[bytes]]:
    """Files of a folder as a tar, made while it is read: one connection for all of them, and no copy on disk."""
    reading, writing = os.pipe()

    def write() -> None:
        with (
            suppress(OSError),  # nobody reads on; or a file here is gone, and then its digest is missed there
            os.fdopen(writing, "wb") as stream,
            tarfile.open(fileobj=stream, mode="w|", dereference=True) as tar,
        ):
            for name in names:
                tar.add(folder / name, name, recursive=False)

    writer = Thread(target=write, daemon=True)
    writer.start()
    try:
        with os.fdopen(reading, "rb") as stream:
            yield stream
    finally:
        writer.join()


@contextmanager
def _behind_mark(final: IO[bytes]) -> Iterator[IO[bytes]]:
    """A stream to write to, of which `final` gets what stands behind the mark: login scripts may print before it.

    Raises:
        OSError: `final` cannot be written.
    """
    reading, writing = os.pipe()
    failed: list[OSError] = []

    def copy() -> None:
        with os.fdopen(reading, "rb") as stream:
            try:
                if any(line == scripts.MARK for line in stream):
                    shutil.copyfileobj(stream, final)
            except OSError as error:
                failed.append(error)
            while stream.read(1 << 16):  # so that who writes ends in peace
                pass

    copier = Thread(target=copy, daemon=True)
    copier.start()
    try:
        with os.fdopen(writing, "wb") as stream:
            yield stream
    finally:
        copier.join()
    if failed:
        raise failed[0]


def bring(host: Host, key: str, path: str, final: Path, sha256: str | None) -> None:
    """Fetch a file of what was made; it gets its final name when it is whole."""
    folder, name = final.parent, Path(path).name
    aside = folder / f".{final.name}.{secrets.token_hex(4)}.partial"
    for left in folder.glob(f".{final.name}.*.partial"):  # by a call that was killed
        left.unlink(missing_ok=True)
    try:
        with store_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as stream:
                with _behind_mark(stream) as written:
                    answer = call(host.remote, scripts.give(key, path), f"bringing {name}", stdout=written)
                stream.flush()
                os.fsync(stream.fileno())
            ensure(answer, host.remote, f"bringing {name}")
            if sha256 is not None and file_digest(aside) != sha256:
                hint = "the same command brings it once more"
                raise RemoteError(f"{name} arrived damaged", where=str(host.remote), hint=hint)
            aside.replace(final)
    finally:
        aside.unlink(missing_ok=True)


def bring_all(host: Host, key: str, files: Mapping[str, str], folder: Path) -> None:
    """Fetch many files of what was made, over one connection; they lie in the folder when all are whole.

    Args:
        host: where they are.
        key: of the kit.
        files: path there and SHA-256.
        folder: for them; what lies before the first slash of a path is left out.
    """
    with store_errors(folder), TemporaryDirectory(prefix=".kit.", dir=folder.parent) as aside:
        with TemporaryFile(dir=folder.parent) as packed:
            with _behind_mark(packed) as written:
                answer = call(host.remote, scripts.give_all(key, list(files)), "bringing results", stdout=written)
            ensure(answer, host.remote, "bringing results")
            packed.seek(0)
            damaged = _unpack(packed, files, Path(aside, folder.name))
        if damaged:
            hint = "the same command brings it once more"
            raise RemoteError(f"{damaged} arrived damaged", where=str(host.remote), hint=hint)
        shutil.rmtree(folder, ignore_errors=True)
        Path(aside, folder.name).replace(folder)


def _unpack(packed: IO[bytes], files: Mapping[str, str], folder: Path) -> str:
    """Write the files that are asked for, and nothing else that a tar holds; returns one that is not whole."""
    missing = dict(files)
    with suppress(tarfile.TarError), tarfile.open(fileobj=packed, mode="r:") as tar:
        for entry in tar:
            stream = tar.extractfile(entry) if entry.isfile() and entry.name in files else None
            if stream is None:
                continue
            path = folder / entry.name.partition("/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            with stream, path.open("wb") as out:
                shutil.copyfileobj(stream, out)
            if file_digest(path) == files[entry.name]:
                missing.pop(entry.name, None)
    return next(iter(missing), "").rpartition("/")[2]


def forget(host: Host, key: str) -> None:
    """Clear up there, if the connection still holds; what stays is removed a month later."""
    with suppress(RemoteError):
        call(host.remote, scripts.forget(key), "clearing up")
