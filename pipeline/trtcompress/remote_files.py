"""Files of an engine, sent to the machine that builds it and brought back."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from trtcompress_graph.errors import RemoteError, RemoteSpaceError

from . import remote_scripts as scripts
from .digests import file_digest
from .remote import call
from .remote_host import Host, ensure
from .store import store_errors

_NEEDED = 3
"""Space for the files, a plan as large, and what TensorRT writes meanwhile."""

Tell = Callable[[str], None]


def send(host: Host, key: str, folder: Path, sent: Mapping[str, str], tell: Tell) -> None:
    """Send what is not there yet."""
    answer = call(host.remote, scripts.state(key, list(sent)), "looking what is there")
    if answer.told("built"):
        return
    there = dict(line.split(maxsplit=1) for line in answer.told("have"))
    missing = [name for index, name in enumerate(sent) if there.get(str(index)) != sent[name]]
    size = sum((folder / name).stat().st_size for name in missing)
    if size * _NEEDED > host.free:
        raise RemoteSpaceError(
            f"{host.free / 1e6:.1f} MB are free there, and some {size * _NEEDED / 1e6:.1f} MB are needed",
            where=str(host.remote),
            hint="free some space there; XDG_CACHE_HOME there names another disk",
        )
    if missing:
        tell(f"sending {len(missing)} files, {size / 1e6:.1f} MB, to {host.remote}")
    for name in missing:
        with (folder / name).open("rb") as stream:
            answer = call(host.remote, scripts.receive(key, name, sent[name]), f"sending {name}", stdin=stream)
        if answer.code == scripts.DAMAGED:
            raise RemoteError(
                f"{name} arrived damaged", where=str(host.remote), hint="the same command sends it once more"
            )
        ensure(answer, host.remote, f"sending {name}")


def bring(host: Host, key: str, folder: Path, name: str, final: str, sha256: str | None) -> None:
    """Fetch a file of what was built; it gets its final name when it is whole."""
    aside = folder / f".{final}.{secrets.token_hex(4)}.partial"
    for left in folder.glob(f".{final}.*.partial"):  # by a call that was killed
        left.unlink(missing_ok=True)
    try:
        with store_errors(folder):
            with aside.open("wb") as stream:
                answer = call(host.remote, scripts.give(key, name), f"bringing {name}", stdout=stream)
                stream.flush()
                os.fsync(stream.fileno())
            ensure(answer, host.remote, f"bringing {name}")
            if sha256 is not None and file_digest(aside) != sha256:
                forget(host, key)
                hint = "the same command builds it once more"
                raise RemoteError(f"{name} arrived damaged", where=str(host.remote), hint=hint)
            aside.replace(folder / final)
    finally:
        aside.unlink(missing_ok=True)


def forget(host: Host, key: str) -> None:
    """Clear up there, if the connection still holds; what stays is removed a month later."""
    with suppress(RemoteError):
        call(host.remote, scripts.forget(key), "clearing up")
